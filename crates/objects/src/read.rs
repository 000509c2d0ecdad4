//! Reads that are more than one object: lists and watches, as plans that run over a snapshot or a
//! history without the cell's machine.

mod cursor;
mod list;
mod watch;

pub use cursor::Continue;
pub use list::{At, ListAnswer, ListPlan, Listed};
pub use watch::{EventType, WatchPlan, WatchStart, bookmark, error_event};

use crate::Tree;
use crate::kinds::FieldError;
use crate::request::Options;
use crate::status::{Status, field_forbidden, not_supported, quote};
use base::Revision;

/// Reads a `resourceVersion` parameter: empty and `0` are no demand.
///
/// # Errors
/// What is wrong with it: no number, or one that no revision can be. A list answers this with 400, all others
/// with 500, as Kubernetes does.
pub fn parse_revision(text: &str) -> Result<Revision, String> {
    if text.is_empty() {
        return Ok(Revision::ZERO);
    }
    let why = match parse_uint(text) {
        Ok(n) => match Revision::from_u64(n) {
            Some(r) => return Ok(r),
            None => format!("strconv.ParseUint: parsing {}: value out of range", quote(text)),
        },
        Err(why) => why,
    };
    Err(format!("resourceVersion: Invalid value: {}: {why}", quote(text)))
}

/// Go's `strconv.ParseUint`, with its words for what is none.
pub(crate) fn parse_uint(text: &str) -> Result<u64, String> {
    let why = match text.parse::<u64>() {
        Ok(n) if !text.starts_with('+') => return Ok(n),
        Err(e) if *e.kind() == std::num::IntErrorKind::PosOverflow => "value out of range",
        _ => "invalid syntax",
    };
    Err(format!("strconv.ParseUint: parsing {}: {why}", quote(text)))
}

/// `ValidateListOptions` of apimachinery.
fn check_options(o: &Options, watch: bool) -> Result<(), Box<Status>> {
    let mut errs: Vec<FieldError> = Vec::new();
    let field = "resourceVersionMatch";
    let (given, match_) = (!o.resource_version_match.is_empty(), o.resource_version_match.as_str());
    let continued = !o.continue_token.is_empty();
    if watch {
        if o.send_initial_events.is_some() && match_ != "NotOlderThan" {
            errs.push(field_forbidden(
                field,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if given {
            if o.send_initial_events.is_none() {
                errs.push(field_forbidden(
                    field,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            if match_ != "NotOlderThan" {
                errs.push(not_supported(field, &Tree::from(match_), &["NotOlderThan"]));
            }
            if continued {
                errs.push(field_forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
            }
        }
    } else {
        if given {
            if o.resource_version.is_empty() {
                errs.push(field_forbidden(
                    field,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if continued {
                errs.push(field_forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
            }
            if match_ != "Exact" && match_ != "NotOlderThan" {
                errs.push(not_supported(field, &Tree::from(match_), &["Exact", "NotOlderThan", ""]));
            }
            if match_ == "Exact" && o.resource_version == "0" {
                errs.push(field_forbidden(
                    field,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if o.send_initial_events.is_some() {
            errs.push(field_forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
    }
    if errs.is_empty() { Ok(()) } else { Err(Box::new(Status::invalid_kind("meta.k8s.io", "ListOptions", "", &errs))) }
}
