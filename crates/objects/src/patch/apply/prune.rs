//! Removing what an applier said before and says no more.

use super::Types;
use super::fields_of::fields_of;
use super::fieldset::{FieldSet, SELF, empty, is_member_map};
use super::managers::{Entry, Id, Managers};
use super::merge::remove;
use super::typed::Place;
use crate::schema::Schema;
use crate::{Map, Tree};
use std::collections::BTreeMap;

/// Takes out of `merged` the fields of `last`, this applier's previous entry, that neither it nor any
/// other manager owns now. Fields that stand below a removed one and are owned bring it back; what nobody
/// owns and this applier never set stays. `None` if nothing is to be removed, or the old entry's version
/// is no more.
pub(super) fn prune(types: &Types<'_>, merged: &Tree, managers: &Managers, me: &Id, last: &Entry) -> Option<Tree> {
    let said_now = managers.get(me);
    if said_now.is_some_and(|now| now.version == last.version && last.fields.is_subset(&now.fields)) {
        return None;
    }
    let (base, place) = types.at(merged, &last.version)?;
    let all = mentioned(types.schema, place, &base);
    let said_before = with_structs(types.schema, place, &last.fields);

    // Everything said before goes, and then what somebody owns comes back, version by version: first in
    // the version of the old entry, because what conversion needs may have been removed.
    let mut owned: BTreeMap<&str, FieldSet> = BTreeMap::new();
    for entry in managers.values() {
        owned.entry(entry.version.as_str()).or_default().unite(entry.fields.clone());
    }
    let mut pruned = base.clone().into_owned();
    remove(types.schema, place, &mut pruned, &said_before, true);
    let others = owned.keys().copied().filter(|v| *v != last.version);
    let versions: Vec<&str> = std::iter::once(last.version.as_str()).chain(others).collect();
    for version in versions {
        let Some(fields) = owned.get(version) else { continue };
        let (Some((whole, place)), Some((left, _))) = (types.at(&base, version), types.at(&pruned, version)) else {
            continue;
        };
        let mut gone = if version == last.version { all.clone() } else { mentioned(types.schema, place, &whole) };
        gone.subtract(&mentioned(types.schema, place, &left));
        gone.subtract(&with_structs(types.schema, place, fields));
        pruned = whole.into_owned();
        remove(types.schema, place, &mut pruned, &gone, true);
    }

    // Of what is missing now only what was said before is really removed.
    let (left, _) = types.at(&pruned, &last.version)?;
    let mut gone = all;
    gone.subtract(&mentioned(types.schema, place, &left));
    let gone = gone.intersection(&said_before);
    let mut out = base.into_owned();
    remove(types.schema, place, &mut out, &gone, false);
    if last.version == types.api_version {
        return Some(out);
    }
    types.at(&out, types.api_version).map(|(out, _)| out.into_owned())
}

fn mentioned(schema: &Schema, place: Place<'_>, object: &Tree) -> FieldSet {
    with_structs(schema, place, &fields_of(schema, place, object))
}

/// The set with those structs added that it only leads through: they are never owned by themselves, but
/// here they must not look as if nobody wanted them.
fn with_structs(schema: &Schema, place: Place<'_>, set: &FieldSet) -> FieldSet {
    fn walk(schema: &Schema, place: Option<Place<'_>>, map: &Map) -> Map {
        let shape = place.map(|p| p.shape(schema));
        let mut out = Map::new();
        for (step, node) in map {
            let Tree::Object(node) = node else { continue };
            if node.is_empty() {
                out.insert(step.clone(), empty());
                continue;
            }
            let below = shape.as_ref().and_then(|s| s.at_step(step));
            let named = shape.as_ref().is_some_and(|s| step.strip_prefix("f:").is_some_and(|key| s.names(key)));
            let mut inner = walk(schema, below, node);
            if named || is_member_map(node) {
                inner.insert(SELF.to_owned(), empty());
            }
            out.insert(step.clone(), Tree::Object(inner));
        }
        out
    }
    let mut map = walk(schema, Some(place), &set.0);
    map.remove(SELF);
    FieldSet(map)
}
