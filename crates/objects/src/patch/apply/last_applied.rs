//! The annotation in which client-side apply keeps its last configuration, as far as server-side apply
//! by the manager `kubectl` minds it: fields it lists are taken over without conflict, and it is kept up
//! to date for those who go back.

use super::Types;
use super::compare::compare;
use super::fields_of::{check, fields_of};
use super::fieldset::FieldSet;
use super::path::write_json;
use super::typed::Place;
use crate::{Map, Tree};

/// The one manager for which the annotation is minded.
pub(super) const MANAGER: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All annotations of an object together, keys and values.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// The fields that client-side apply set and nobody has changed since. `None` if it never did, or not
/// in this version.
pub(super) fn owned(types: &Types<'_>, live: &Tree) -> Option<FieldSet> {
    let text = live.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()?;
    let last: Tree = serde_json::from_str(text).ok()?;
    if last.get("apiVersion")?.as_str()? != types.api_version {
        return None;
    }
    let place = Place::root(types.root);
    check(types.schema, place, &last, false).ok()?;
    let mut fields = fields_of(types.schema, place, &last);
    let since = compare(types.schema, place, &last, live);
    fields.subtract(&since.changed);
    fields.subtract(&since.removed);
    Some(fields)
}

/// Sets the annotation to the applied configuration if the object has one; takes it off if it would be
/// too large.
pub(super) fn refresh(object: &mut Tree, config: &Tree) {
    let Some(Tree::Object(annotations)) = object.pointer_mut("/metadata/annotations") else { return };
    if annotations.get(ANNOTATION).and_then(Tree::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(Tree::Object(own)) = config.pointer_mut("/metadata/annotations") {
        own.remove(ANNOTATION);
    }
    let mut text = String::new();
    write_json(&mut text, &config);
    text.push('\n');
    annotations.insert(ANNOTATION.into(), text.into());
    if size(annotations) > ANNOTATIONS_BYTES_MAX {
        annotations.remove(ANNOTATION);
    }
}

fn size(annotations: &Map) -> usize {
    annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum()
}
