//! `metav1.Status`: how the API says that something failed, or succeeded with nothing to show.
//!
//! Constructors are named after those of `k8s.io/apimachinery/pkg/api/errors` and word their messages as
//! those do, since people and tools search for the words.

use crate::Tree;
use crate::kinds::{FieldError, Kind};
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::json;

/// Why, for programs: `reason` of a Status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // they are Kubernetes' words
pub enum Reason {
    /// None is given: an error that Kubernetes has no word for.
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// As written in a Status; empty for [`Reason::Unknown`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Unknown => "",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Invalid => "Invalid",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::StoreReadError => "StorageReadError",
            Reason::Timeout => "Timeout",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::BadRequest => "BadRequest",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::InternalError => "InternalError",
            Reason::Expired => "Expired",
            Reason::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// One of several things wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cause {
    /// `FieldValueInvalid`, `ResourceVersionTooLarge`, …; empty if none.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Path of the field; empty if none.
    pub field: String,
}

/// What a Status is about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group.
    pub group: String,
    /// Resource (or kind, for validation errors).
    pub kind: String,
    /// uid of the object.
    pub uid: String,
    /// All that is wrong.
    pub causes: Vec<Cause>,
    /// When to try again; 0 for not said. Only a refusal certain not to have been executed says it.
    pub retry_after_seconds: u32,
}

/// A `metav1.Status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// HTTP status.
    pub code: u16,
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// What it is about. Some errors have none, some have empty ones; clients see the difference.
    pub details: Option<Box<Details>>,
    /// Whether it reports success.
    pub success: bool,
    /// `metadata.continue`: where to go on after a 410 of a list in pieces; else empty.
    pub continue_token: String,
}

/// A resource as errors name it: `deployments.apps`, `configmaps`.
pub fn resource(kind: &Kind) -> String {
    qualified(kind.group, kind.plural)
}

fn qualified(group: &str, what: &str) -> String {
    if group.is_empty() { what.to_owned() } else { format!("{what}.{group}") }
}

impl Status {
    fn failure(code: u16, reason: Reason, message: String, details: Option<Details>) -> Status {
        Status { code, reason, message, details: details.map(Box::new), success: false, continue_token: String::new() }
    }

    fn about(kind: &Kind, name: &str) -> Details {
        Details { name: name.into(), group: kind.group.into(), kind: kind.plural.into(), ..Details::default() }
    }

    /// Success, of a delete, a binding, an eviction.
    pub fn success(code: u16, details: Option<Details>) -> Status {
        Status {
            code,
            reason: Reason::Unknown,
            message: String::new(),
            details: details.map(Box::new),
            success: true,
            continue_token: String::new(),
        }
    }

    /// 404 for an object.
    pub fn not_found(kind: &Kind, name: &str) -> Status {
        let m = format!("{} {} not found", resource(kind), quote(name));
        Status::failure(404, Reason::NotFound, m, Some(Status::about(kind, name)))
    }

    /// 404 for a path: no such resource, subresource or version.
    pub fn no_such_resource() -> Status {
        let m = "the server could not find the requested resource".to_owned();
        Status::failure(404, Reason::NotFound, m, Some(Details::default()))
    }

    /// 405 for a method that the path does not have.
    pub fn method_not_allowed() -> Status {
        let m = "the server does not allow this method on the requested resource".to_owned();
        Status::failure(405, Reason::MethodNotAllowed, m, Some(Details::default()))
    }

    /// 405 for a way through to a node, a pod or a service, which is known and not served.
    pub fn not_proxied() -> Status {
        let m = "this API does not pass requests on to nodes, pods and services: use kubectl port-forward".to_owned();
        Status::failure(405, Reason::MethodNotAllowed, m, Some(Details::default()))
    }

    /// 409 for a create.
    pub fn already_exists(kind: &Kind, name: &str) -> Status {
        let m = format!("{} {} already exists", resource(kind), quote(name));
        Status::failure(409, Reason::AlreadyExists, m, Some(Status::about(kind, name)))
    }

    /// 409 for a create with `generateName` whose suffixes were all taken.
    pub fn generate_name_conflict(kind: &Kind, name: &str) -> Status {
        let m = format!(
            "{} {} already exists, the server was not able to generate a unique name for the object",
            resource(kind),
            quote(name)
        );
        let d = Details { retry_after_seconds: 1, ..Status::about(kind, name) };
        Status::failure(409, Reason::AlreadyExists, m, Some(d))
    }

    /// 401. An empty `why` says `Unauthorized`, as the API does to whoever it does not know.
    pub fn unauthorized(why: &str) -> Status {
        let why = if why.is_empty() { "Unauthorized" } else { why };
        Status::failure(401, Reason::Unauthorized, why.to_owned(), None)
    }

    /// 403 for an object or, without a name, for a resource.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Status {
        Status::forbidden_resource(kind.group, kind.plural, name, why)
    }

    /// 403 for a resource given by group and plural.
    pub fn forbidden_resource(group: &str, plural: &str, name: &str, why: &str) -> Status {
        let r = qualified(group, plural);
        let m = match (r.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{r} is forbidden: {why}"),
            (false, false) => format!("{r} {} is forbidden: {why}", quote(name)),
        };
        let d = Details { name: name.into(), group: group.into(), kind: plural.into(), ..Details::default() };
        Status::failure(403, Reason::Forbidden, m, Some(d))
    }

    /// 409: what the request rests on has changed.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Status {
        let m = format!("Operation cannot be fulfilled on {} {}: {why}", resource(kind), quote(name));
        Status::failure(409, Reason::Conflict, m, Some(Status::about(kind, name)))
    }

    /// 409 naming a kind instead of a resource, as delete's preconditions do.
    pub fn conflict_kind(kind: &Kind, name: &str, why: &str) -> Status {
        let m = format!("Operation cannot be fulfilled on {} {}: {why}", qualified(kind.group, kind.kind), quote(name));
        let d = Details { kind: kind.kind.into(), ..Status::about(kind, name) };
        Status::failure(409, Reason::Conflict, m, Some(d))
    }

    /// 409 of optimistic concurrency.
    pub fn modified(kind: &Kind, name: &str) -> Status {
        Status::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 of server-side apply.
    pub fn apply_conflict(message: String, causes: Vec<Cause>) -> Status {
        Status::failure(409, Reason::Conflict, message, Some(Details { causes, ..Details::default() }))
    }

    /// 410: a history that is no longer kept.
    pub fn expired(message: &str) -> Status {
        Status::failure(410, Reason::Expired, message.to_owned(), None)
    }

    /// 410 with reason Gone.
    pub fn gone(message: &str) -> Status {
        Status::failure(410, Reason::Gone, message.to_owned(), None)
    }

    /// 422 with all errors of an object.
    pub fn invalid(kind: &Kind, name: &str, errs: &[FieldError]) -> Status {
        Status::invalid_kind(kind.group, kind.kind, name, errs)
    }

    /// 422 of a group and kind that may have no row: `ListOptions` of `meta.k8s.io`.
    pub fn invalid_kind(group: &str, kind: &str, name: &str, errs: &[FieldError]) -> Status {
        let mut texts: Vec<String> = Vec::new();
        for e in errs {
            let t = format!("{}: {}", e.field, e.message);
            // Kubernetes prints an aggregate's equal texts once, and its causes all.
            if !texts.contains(&t) {
                texts.push(t);
            }
        }
        let all = match texts.as_slice() {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => format!(": [{}]", many.join(", ")),
        };
        let causes = errs
            .iter()
            .map(|e| Cause { reason: e.reason.into(), message: e.message.clone(), field: e.field.clone() })
            .collect();
        let d = Details { name: name.into(), group: group.into(), kind: kind.into(), causes, ..Details::default() };
        let m = format!("{} {} is invalid{all}", qualified(group, kind), quote(name));
        Status::failure(422, Reason::Invalid, m, Some(d))
    }

    /// 422 of a patch that could not be applied, with no word why, as Kubernetes answers.
    pub fn unprocessable_patch() -> Status {
        let m = "the server rejected our request due to an error in our request".to_owned();
        Status::failure(422, Reason::Invalid, m, Some(Details::default()))
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::failure(400, Reason::BadRequest, message.into(), None)
    }

    /// 413.
    pub fn too_large(message: &str) -> Status {
        Status::failure(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {message}"), None)
    }

    /// 415 where the path knows which media types it takes.
    pub fn unsupported_media_type(accepted: &[&str]) -> Status {
        let m = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Status::failure(415, Reason::UnsupportedMediaType, m, None)
    }

    /// 406.
    pub fn not_acceptable(accepted: &[&str]) -> Status {
        let m = format!("only the following media types are accepted: {}", accepted.join(", "));
        Status::failure(406, Reason::NotAcceptable, m, None)
    }

    /// 429; `retry_after_seconds` 0 says nothing about when.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        let d = Details { retry_after_seconds, ..Details::default() };
        Status::failure(429, Reason::TooManyRequests, message.into(), Some(d))
    }

    /// 500 with reason InternalError.
    pub fn internal(message: &str) -> Status {
        let d = Details { causes: vec![Cause { message: message.into(), ..Cause::default() }], ..Details::default() };
        let m = format!("Internal error occurred: {message}");
        Status::failure(500, Reason::InternalError, m, Some(d))
    }

    /// 500 without a reason: an error that Kubernetes passes on as it is.
    pub fn bare(message: impl Into<String>) -> Status {
        Status::failure(500, Reason::Unknown, message.into(), None)
    }

    /// 503.
    pub fn unavailable(message: &str) -> Status {
        Status::failure(503, Reason::ServiceUnavailable, message.to_owned(), None)
    }

    /// 504. With `retry_after_seconds`, certain not to have been executed; with 0, unknown.
    pub fn timeout(message: &str, retry_after_seconds: u32) -> Status {
        let d = Details { retry_after_seconds, ..Details::default() };
        Status::failure(504, Reason::Timeout, format!("Timeout: {message}"), Some(d))
    }

    /// 504 of a read at a revision that has not happened yet.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Status {
        let mut s = Status::timeout(&format!("Too large resource version: {asked}, current: {current}"), 1);
        if let Some(d) = s.details.as_mut() {
            d.causes.push(Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            });
        }
        s
    }

    /// Adds a cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Status {
        self.details.get_or_insert_default().causes.push(Cause {
            reason: reason.into(),
            message: message.into(),
            field: field.into(),
        });
        self
    }

    /// As a tree.
    pub fn to_tree(&self) -> Tree {
        serde_json::to_value(self).unwrap_or(Tree::Null)
    }

    /// As JSON, keys in Kubernetes' order.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Serialize for Status {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(None)?;
        m.serialize_entry("kind", "Status")?;
        m.serialize_entry("apiVersion", "v1")?;
        let list = if self.continue_token.is_empty() { json!({}) } else { json!({"continue": self.continue_token}) };
        m.serialize_entry("metadata", &list)?;
        m.serialize_entry("status", if self.success { "Success" } else { "Failure" })?;
        if !self.message.is_empty() {
            m.serialize_entry("message", &self.message)?;
        }
        if self.reason != Reason::Unknown {
            m.serialize_entry("reason", self.reason.as_str())?;
        }
        if let Some(d) = &self.details {
            m.serialize_entry("details", &**d)?;
        }
        // The success of a delete has no code in its body.
        if !self.success || self.details.is_none() {
            m.serialize_entry("code", &self.code)?;
        }
        m.end()
    }
}

impl Serialize for Details {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(None)?;
        for (k, v) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !v.is_empty() {
                m.serialize_entry(k, v)?;
            }
        }
        if !self.causes.is_empty() {
            m.serialize_entry("causes", &self.causes)?;
        }
        if self.retry_after_seconds > 0 {
            m.serialize_entry("retryAfterSeconds", &self.retry_after_seconds)?;
        }
        m.end()
    }
}

impl Serialize for Cause {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(None)?;
        for (k, v) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !v.is_empty() {
                m.serialize_entry(k, v)?;
            }
        }
        m.end()
    }
}

/// A text as Go's `%q` prints it.
pub fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `Required value`, with `: detail` if there is one.
pub(crate) fn required(field: impl Into<String>, detail: &str) -> FieldError {
    let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
    FieldError { reason: "FieldValueRequired", field: field.into(), message }
}

/// `Invalid value: VALUE: detail`; texts are quoted, everything else is printed as JSON.
pub(crate) fn invalid(field: impl Into<String>, value: &Tree, detail: &str) -> FieldError {
    let sep = if detail.is_empty() { "" } else { ": " };
    let message = format!("Invalid value: {}{sep}{detail}", shown(value));
    FieldError { reason: "FieldValueInvalid", field: field.into(), message }
}

/// `Unsupported value: VALUE: supported values: "A", "B"`.
pub(crate) fn not_supported(field: impl Into<String>, value: &Tree, supported: &[&str]) -> FieldError {
    let all: Vec<String> = supported.iter().map(|s| quote(s)).collect();
    let message = format!("Unsupported value: {}: supported values: {}", shown(value), all.join(", "));
    FieldError { reason: "FieldValueNotSupported", field: field.into(), message }
}

/// `Forbidden: detail`.
pub(crate) fn field_forbidden(field: impl Into<String>, detail: &str) -> FieldError {
    FieldError { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {detail}") }
}

fn shown(value: &Tree) -> String {
    match value {
        Tree::String(s) => quote(s),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_written_in_kubernetes_order() {
        let s = Status::too_large_resource_version(99_999_999_999, 496);
        let golden = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Timeout: Too large resource version: 99999999999, current: 496","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1},"code":504}"#;
        assert_eq!(String::from_utf8_lossy(&s.to_json()), golden);
    }

    #[test]
    fn several_errors_stand_in_brackets_and_equal_ones_once() {
        let e = required("a", "");
        let s = Status::invalid_kind("apps", "Deployment", "x", &[e.clone(), e, field_forbidden("b", "no")]);
        assert_eq!(s.message, r#"Deployment.apps "x" is invalid: [a: Required value, b: Forbidden: no]"#);
        assert_eq!(s.details.map(|d| d.causes.len()), Some(3));
    }

    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        assert_eq!(quote("a\"b\\c\n\u{1}é"), "\"a\\\"b\\\\c\\n\\x01é\"");
    }
}
