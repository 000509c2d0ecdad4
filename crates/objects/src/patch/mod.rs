//! Patches as pure functions on trees: JSON patch, JSON merge patch, strategic merge patch, and
//! server-side apply with the bookkeeping of who owns which field.
//!
//! None of them defaults, validates or decodes: what they return is to be normalised and checked like a
//! body that was sent. Errors are the `Status` a Kubernetes API server would answer.

pub mod apply;
mod go_text;
pub mod json;
pub mod merge;
pub mod strategic;

use crate::Tree;
use crate::status::Status;

/// Reads a patch's bytes. 400 if they are not JSON (or nested deeper than 128, serde_json's bound).
pub fn parse(bytes: &[u8]) -> Result<Tree, Status> {
    serde_json::from_slice(bytes).map_err(|_| Status::bad_request("invalid JSON patch"))
}

/// 422 for a patched object that no longer decodes; `why` is the decoder's text
/// (`json: cannot unmarshal number into Go struct field ConfigMap.data of type string`).
pub fn undecodable(patched: &Tree, why: &str) -> Status {
    let field = crate::status::invalid("patch", &Tree::String(patched.to_string()), why);
    let mut status = Status::invalid_kind("", "", "", &[field]);
    if let Some(details) = status.details.as_mut() {
        details.kind.clear();
    }
    status
}

/// 400 if a patched object names another object than the URL did. An empty `namespace` is not compared:
/// the kind has none.
pub fn check_identity(patched: &Tree, name: &str, namespace: &str) -> Result<(), Status> {
    let meta = |key: &str| patched.pointer(key).and_then(Tree::as_str).unwrap_or_default();
    let (own_name, own_namespace) = (meta("/metadata/name"), meta("/metadata/namespace"));
    if own_name.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if own_name != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({own_name}) does not match the name on the URL ({name})"
        )));
    }
    if !namespace.is_empty() && !own_namespace.is_empty() && own_namespace != namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({own_namespace}) does not match the namespace on the request ({namespace})"
        )));
    }
    Ok(())
}
