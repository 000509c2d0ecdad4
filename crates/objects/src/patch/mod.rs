//! Patches as pure functions on trees: JSON patch, JSON merge patch, strategic merge patch, and
//! server-side apply with the bookkeeping of who owns which field.
//!
//! None of them defaults, validates or decodes: what they return is to be normalised and checked like a
//! body that was sent. Errors are the `Status` a Kubernetes API server would answer.

pub mod apply;
pub mod go_json;
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

/// How many lists and maps lie in one another; the values looked at are added to `measured`.
pub(crate) fn depth(value: &Tree, measured: &mut usize) -> usize {
    *measured += 1;
    let mut below = |v: &Tree| depth(v, measured);
    match value {
        Tree::Object(map) => 1 + map.values().map(&mut below).max().unwrap_or(0),
        Tree::Array(list) => 1 + list.iter().map(&mut below).max().unwrap_or(0),
        _ => 0,
    }
}

/// 422 for a patched object that no longer decodes: its text, and what the decoder says of it
/// (`json: cannot unmarshal number into Go struct field ConfigMap.data of type string`).
pub fn undecodable(patched: &str, why: &str) -> Status {
    let field = crate::status::invalid("patch", &Tree::from(patched), why);
    let mut status = Status::invalid_kind("", "", "", &[field]);
    if let Some(details) = status.details.as_mut() {
        details.kind.clear();
    }
    status
}

/// A strategic merge patch as Kubernetes prints it where another would print the object: Go's `%+v` of a map.
pub fn printed(patch: &Tree) -> String {
    go_text::value(patch)
}
