//! Ownership recorded under an older schema: where a list, map or struct has become one that is owned as
//! one, whoever owned a part of it owns it all.

use super::Types;
use super::fieldset::SELF;
use super::managers::Managers;
use super::typed::{Place, Shape};
use crate::schema::Schema;
use crate::{Map, Tree};

/// Brings all entries of the objects' own version up to date. (From atomic to granular nothing has to be
/// done: the owner of the whole keeps it until it says more.)
pub(super) fn reconcile(types: &Types<'_>, managers: &mut Managers) {
    for entry in managers.values_mut().filter(|e| e.version == types.api_version) {
        walk(types.schema, Place::root(types.root), &mut entry.fields.0);
    }
}

fn walk(schema: &Schema, place: Place<'_>, map: &mut Map) {
    let shape = place.shape(schema);
    if matches!(shape, Shape::Deduced | Shape::Scalar(_)) {
        return;
    }
    for (step, node) in map.iter_mut() {
        let Tree::Object(node) = node else { continue };
        if node.is_empty() || step == SELF {
            continue;
        }
        let Some(below) = shape.at_step(step) else { continue };
        if below.shape(schema).is_atomic() {
            node.clear();
        } else {
            walk(schema, below, node);
        }
    }
}
