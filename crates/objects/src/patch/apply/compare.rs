//! What differs between two objects, as sets of fields, found in one walk.

use super::fieldset::{FieldSet, SELF, empty};
use super::typed::{Place, Shape, equal, is_hollow, item_step};
use crate::schema::{ListKind, Schema};
use crate::{Map, Tree};
use std::collections::BTreeMap;

/// What became of an object's fields.
#[derive(Default, Debug)]
pub(super) struct Difference {
    /// Present after, and absent or different before.
    pub(super) changed: FieldSet,
    /// Present before only.
    pub(super) removed: FieldSet,
}

/// Compares two objects of one type. Fields the schema does not know are passed over, and so are items
/// that cannot be told apart: nobody can own them, and validation refuses them anyway.
pub(super) fn compare(schema: &Schema, place: Place<'_>, old: &Tree, new: &Tree) -> Difference {
    let (changed, removed) = Walk { schema }.node(place, Some(old), Some(new));
    let set = |node: Option<Map>| {
        let mut map = node.unwrap_or_default();
        map.remove(SELF);
        FieldSet(map)
    };
    Difference { changed: set(changed), removed: set(removed) }
}

/// A step of a set under construction: not there, or with what lies below it (empty: a member).
type Node = Option<Map>;
type Pair = (Node, Node);

struct Walk<'s> {
    schema: &'s Schema,
}

impl<'s> Walk<'s> {
    fn node(&self, place: Place<'s>, old: Option<&Tree>, new: Option<&Tree>) -> Pair {
        let (mut changed, mut removed) = (Map::new(), Map::new());
        let shape = place.shape(self.schema);
        let leaf = match shape {
            Shape::Deduced => !old.is_some_and(Tree::is_object) && !new.is_some_and(Tree::is_object),
            _ => shape.is_atomic(),
        };
        // Both without content: a leaf, which keeps null and empty apart.
        if leaf || (is_hollow(old) && is_hollow(new)) {
            return match (old, new) {
                (_, None) => (None, Some(Map::new())),
                (None, Some(_)) => (Some(Map::new()), None),
                (Some(old), Some(new)) => ((!equal(old, new)).then(Map::new), None),
            };
        }
        match shape {
            Shape::List { item, kind } => self.list(item, kind, old, new, &mut changed, &mut removed),
            shape => self.map(&shape, old, new, &mut changed, &mut removed),
        }
        (close(changed, old.is_none()), close(removed, new.is_none()))
    }

    fn map(&self, shape: &Shape<'s>, old: Option<&Tree>, new: Option<&Tree>, changed: &mut Map, removed: &mut Map) {
        let (old, new) = (old.and_then(Tree::as_object), new.and_then(Tree::as_object));
        let mut visit = |key: &String, old: Option<&Tree>, new: Option<&Tree>| {
            let Some(place) = shape.at(key) else { return };
            let (c, r) = self.node(place, old, new);
            if let Some(c) = c {
                changed.insert(format!("f:{key}"), Tree::Object(c));
            }
            if let Some(r) = r {
                removed.insert(format!("f:{key}"), Tree::Object(r));
            }
        };
        for (key, value) in old.into_iter().flatten() {
            visit(key, Some(value), new.and_then(|m| m.get(key)));
        }
        for (key, value) in new.into_iter().flatten() {
            if old.is_none_or(|m| !m.contains_key(key)) {
                visit(key, None, Some(value));
            }
        }
    }

    fn list(
        &self,
        item: Place<'s>,
        kind: &ListKind,
        old: Option<&Tree>,
        new: Option<&Tree>,
        changed: &mut Map,
        removed: &mut Map,
    ) {
        // Most lists of most updates are as they were; naming their items is the dear part.
        if old.is_some() && old == new {
            return;
        }
        type Sides<'t> = (Vec<&'t Tree>, Vec<&'t Tree>);
        let mut items: BTreeMap<String, Sides<'_>> = BTreeMap::new();
        for value in old.and_then(Tree::as_array).into_iter().flatten() {
            if let Ok(step) = item_step(self.schema, kind, item, value) {
                items.entry(step).or_default().0.push(value);
            }
        }
        for value in new.and_then(Tree::as_array).into_iter().flatten() {
            if let Ok(step) = item_step(self.schema, kind, item, value) {
                items.entry(step).or_default().1.push(value);
            }
        }
        for (step, (old, new)) in items {
            // Items that share a step are owned together: only the step itself is a member.
            let (mut c, mut r) = match (old.as_slice(), new.as_slice()) {
                ([], [one]) => self.node(item, None, Some(one)),
                ([one], []) => self.node(item, Some(one), None),
                ([old], [new]) => self.node(item, Some(old), Some(new)),
                ([_, _, ..], [_, _, ..]) => ((old != new).then(Map::new), None),
                ([_, _, ..], [one]) => (self.node(item, None, Some(one)).0, Some(Map::new())),
                ([one], [_, _, ..]) => (Some(Map::new()), self.node(item, Some(one), None).1),
                ([_, _, ..], []) => (None, Some(Map::new())),
                ([], _) => (Some(Map::new()), None),
            };
            if let Some(c) = c.take() {
                changed.insert(step.clone(), Tree::Object(c));
            }
            if let Some(r) = r.take() {
                removed.insert(step, Tree::Object(r));
            }
        }
    }
}

/// A finished step: itself a member if asked, not there if it leads nowhere.
fn close(mut below: Map, member: bool) -> Node {
    match (member, below.is_empty()) {
        (false, true) => None,
        (true, false) => {
            below.insert(SELF.to_owned(), empty());
            Some(below)
        }
        _ => Some(below),
    }
}
