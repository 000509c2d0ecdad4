//! Query parameters of a request for a resource: read, and checked for form.

use crate::handle::Head;
use crate::port::Refusal;
use crate::resource::Target;
use crate::status;
use objects::kinds::FieldError;
use objects::request::{FieldValidation, Options, PatchType, Verb};
use objects::status::Status;

/// `fieldManager` may be so long.
const MANAGER_BYTES: usize = 128;

/// Reads the query of a request.
///
/// # Errors
/// 400 for a number that is none, 422 for a word that is none of those known.
pub(crate) fn read(head: &Head, target: &Target, patch: Option<PatchType>) -> Result<Options, Refusal> {
    let text = |key: &str| head.param(key).unwrap_or_default().to_owned();
    let number = |key: &str| -> Result<i64, Refusal> {
        match head.param(key) {
            None | Some("") => Ok(0),
            Some(v) => {
                v.parse().map_err(|_| status::bad_request(format!("strconv.ParseInt: parsing {v:?}: invalid syntax")))
            }
        }
    };
    let mut wrong: Vec<FieldError> = Vec::new();
    let mut add = |reason: &'static str, field: &str, message: String| {
        wrong.push(FieldError { reason, field: field.into(), message })
    };
    let dry: Vec<&str> =
        head.query.iter().filter(|(k, v)| k == "dryRun" && !v.is_empty()).map(|(_, v)| v.as_str()).collect();
    if dry.iter().any(|v| *v != "All") {
        let list = dry.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(",");
        add("FieldValueNotSupported", "dryRun", format!("Unsupported value: [{list}]: supported values: \"All\""));
    }
    if patch == Some(PatchType::Apply) {
        if head.param("fieldManager").is_none_or(str::is_empty) {
            add("FieldValueRequired", "fieldManager", "Required value: is required for apply patch".into());
        }
    } else if patch.is_some() && head.param("force").is_some() {
        add("FieldValueForbidden", "force", "Forbidden: may not be specified for non-apply patch".into());
    }
    let mut manager = text("fieldManager");
    if manager.len() > MANAGER_BYTES {
        add("FieldValueTooLong", "fieldManager", format!("Too long: may not be more than {MANAGER_BYTES} bytes"));
    }
    if let Some((at, c)) = manager.char_indices().find(|(_, c)| c.is_control()) {
        let message =
            format!("Invalid value: {manager:?}: invalid character U+{:04X} (at position {at})", u32::from(c));
        add("FieldValueInvalid", "fieldManager", message);
    }
    let field_validation = match head.param("fieldValidation").unwrap_or_default() {
        "" | "Warn" => FieldValidation::Warn,
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        other => {
            let message =
                format!("Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"");
            add("FieldValueNotSupported", "fieldValidation", message);
            FieldValidation::Warn
        }
    };
    if let Some(kind) = options_kind(target.verb).filter(|_| !wrong.is_empty()) {
        return Err(Box::new(Status::invalid_kind("meta.k8s.io", kind, "", &wrong)));
    }
    if manager.is_empty() {
        // What the user agent says before its version, as kube-apiserver names unnamed managers.
        manager = head
            .user_agent()
            .split('/')
            .next()
            .unwrap_or_default()
            .chars()
            .take(MANAGER_BYTES)
            .filter(|c| !c.is_control())
            .collect();
    }
    Ok(Options {
        dry_run: !dry.is_empty(),
        field_manager: manager,
        field_validation,
        force: head.flag("force"),
        label_selector: text("labelSelector"),
        field_selector: text("fieldSelector"),
        // A negative limit is none.
        limit: u64::try_from(number("limit")?).unwrap_or(0),
        continue_token: text("continue"),
        resource_version: text("resourceVersion"),
        resource_version_match: text("resourceVersionMatch"),
        bookmarks: head.flag("allowWatchBookmarks"),
        send_initial_events: head.param("sendInitialEvents").map(|_| head.flag("sendInitialEvents")),
        timeout_seconds: u64::try_from(number("timeoutSeconds")?).unwrap_or(0),
        grace_period_seconds: head
            .param("gracePeriodSeconds")
            .filter(|v| !v.is_empty())
            .map(|_| number("gracePeriodSeconds"))
            .transpose()?,
        propagation_policy: text("propagationPolicy"),
        orphan_dependents: head.param("orphanDependents").map(|_| head.flag("orphanDependents")),
        beside: None,
        given: None,
    })
}

/// The options kind of a verb that writes.
fn options_kind(verb: Verb) -> Option<&'static str> {
    match verb {
        Verb::Create => Some("CreateOptions"),
        Verb::Update => Some("UpdateOptions"),
        Verb::Patch => Some("PatchOptions"),
        Verb::Delete | Verb::DeleteCollection => Some("DeleteOptions"),
        Verb::Get | Verb::List | Verb::Watch => None,
    }
}
