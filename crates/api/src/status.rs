//! Statuses of the gateway's own refusals that `objects` has no word for, worded as kube-apiserver words
//! them.

use crate::port::Refusal;
use objects::status::{Details, Reason, Status};

/// A Status of failure without details.
pub(crate) fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Refusal {
    Box::new(Status { code, reason, message: message.into(), ..Status::bare(String::new()) })
}

/// A Status made from a bare HTTP code, as the router of kube-apiserver makes them: `details` is there
/// and empty.
fn generic(code: u16, reason: Reason, message: String) -> Refusal {
    let mut s = failure(code, reason, message);
    s.details = Some(Box::new(Details::default()));
    s
}

/// 400.
pub(crate) fn bad_request(message: impl Into<String>) -> Refusal {
    Box::new(Status::bad_request(message))
}

/// 401.
pub(crate) fn unauthorized() -> Refusal {
    Box::new(Status::unauthorized(""))
}

/// 404 of a path under a group-version.
pub(crate) fn no_such_resource() -> Refusal {
    Box::new(Status::no_such_resource())
}

/// 405.
pub(crate) fn method_not_allowed() -> Refusal {
    Box::new(Status::method_not_allowed())
}

/// 406: nothing in Accept is anything this path produces.
pub(crate) fn not_acceptable(available: &[&str]) -> Refusal {
    generic(
        406,
        Reason::NotAcceptable,
        format!("406: Not Acceptable\n\nAvailable representations: {}", available.join(", ")),
    )
}

/// 406: the media types are there, but not in the form (`as=`) asked for.
pub(crate) fn form_not_acceptable(accepted: &[&str]) -> Refusal {
    Box::new(Status::not_acceptable(accepted))
}

/// 406: an object where a list was asked for, or the other way about.
pub(crate) fn wrong_form(message: String) -> Refusal {
    failure(406, Reason::NotAcceptable, message)
}

/// 413.
pub(crate) fn too_large(limit: usize) -> Refusal {
    Box::new(Status::too_large(&format!("limit is {limit}")))
}

/// 415 of a patch with a Content-Type that is no patch's.
pub(crate) fn patch_type_unknown() -> Refusal {
    generic(415, Reason::UnsupportedMediaType, "415: Unsupported Media Type".into())
}

/// 415 of a body in a format unknown here.
pub(crate) fn body_type_unknown(accepted: &[&str]) -> Refusal {
    Box::new(Status::unsupported_media_type(accepted))
}

/// 429; the client may come again in a second. Sent before anything was done.
pub(crate) fn too_many_requests() -> Refusal {
    Box::new(Status::too_many_requests("Too many requests, please try again later.", 1))
}

/// 503, of a request that was not begun; the client may come again in a second.
pub(crate) fn unavailable(message: &str) -> Refusal {
    let details = Details { retry_after_seconds: 1, ..Details::default() };
    let mut s = failure(503, Reason::ServiceUnavailable, message);
    s.details = Some(Box::new(details));
    s
}

/// 504: whether the request was executed is not known.
pub(crate) fn timeout(message: &str) -> Refusal {
    Box::new(Status::timeout(message, 0))
}

/// 500.
pub(crate) fn internal(message: impl std::fmt::Display) -> Refusal {
    Box::new(Status::internal(&message.to_string()))
}
