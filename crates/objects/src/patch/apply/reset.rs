//! What a write through some door does not write, whatever was sent: an object's own door does not write
//! its status, nor the status' door its spec. Nobody comes to own such a field by sending it.

use super::fieldset::FieldSet;

/// What a write of a subresource (empty: of the object itself) of a kind leaves as it is, with all below.
/// The kind is given by its storage group-kind (`Pod`, `Deployment.apps`); `custom` says that it is a
/// custom resource.
///
/// Source: `GetResetFields` of Kubernetes' registry strategies. A kind without a status loses nothing by
/// not writing it, so those are not told apart.
pub fn reset_fields(storage: &str, subresource: &str, custom: bool) -> FieldSet {
    match (storage, subresource) {
        ("Pod", "status") => {
            FieldSet::of(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]])
        }
        ("Deployment.apps", "status") => FieldSet::of(&[&["spec"], &["metadata", "labels"]]),
        (_, "status") if custom => FieldSet::of(&[&["spec"], &["metadata"]]),
        (_, "status") => FieldSet::of(&[&["spec"]]),
        _ => FieldSet::of(&[&["status"]]),
    }
}
