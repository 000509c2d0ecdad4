//! Laying an applied configuration over an object, and taking fields out of one.

use super::fieldset::{FieldSet, below, is_member};
use super::typed::{Place, Shape, is_hollow, item_step};
use crate::schema::{ListKind, Schema};
use crate::{Map, Tree};
use std::collections::{BTreeMap, BTreeSet};

/// Lays `config` over `live`: leaves are replaced, maps and lists of told-apart items are merged. Nothing
/// is removed.
pub(super) fn merge(schema: &Schema, place: Place<'_>, live: &mut Tree, config: &Tree) {
    // Both without content: a leaf, so that null and empty stay apart.
    if is_hollow(Some(live)) && is_hollow(Some(config)) {
        *live = config.clone();
        return;
    }
    let shape = place.shape(schema);
    if shape.is_atomic() {
        *live = config.clone();
        return;
    }
    if let Shape::List { item, kind } = shape {
        return merge_list(schema, item, kind, live, config);
    }
    match (&mut *live, config) {
        (Tree::Object(live), Tree::Object(config)) => {
            for (key, value) in config {
                match (live.get_mut(key), shape.at(key)) {
                    (Some(there), Some(place)) => merge(schema, place, there, value),
                    _ => drop(live.insert(key.clone(), value.clone())),
                }
            }
        }
        // Applying null keeps what is there.
        (Tree::Object(_), Tree::Null) => {}
        _ => *live = config.clone(),
    }
}

/// Merges lists whose items can be told apart. The applied items come in the applied order; items only
/// the live list has keep their place relative to those live items that come in the same order in both.
fn merge_list(schema: &Schema, item: Place<'_>, kind: &ListKind, live: &mut Tree, config: &Tree) {
    let Tree::Array(applied) = config else {
        // Applying null keeps what is there.
        if !(config.is_null() && live.is_array()) {
            *live = config.clone();
        }
        return;
    };
    let Tree::Array(there) = live else {
        *live = config.clone();
        return;
    };
    let step = |v: &Tree| item_step(schema, kind, item, v).unwrap_or_default();
    let old_steps: Vec<String> = there.iter().map(step).collect();
    let new_steps: Vec<String> = applied.iter().map(step).collect();
    let mut old_items: Vec<Option<Tree>> = std::mem::take(there).into_iter().map(Some).collect();
    let mut old_at: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, s) in old_steps.iter().enumerate() {
        old_at.entry(s).or_default().push(i);
    }
    let in_new: BTreeSet<&str> = new_steps.iter().map(String::as_str).collect();
    let mut shared = new_steps.iter().map(String::as_str).filter(|s| old_at.contains_key(s));
    let mut next_shared = shared.next();
    let mut merged = BTreeSet::new();
    let mut out = Vec::with_capacity(old_items.len().max(applied.len()));
    let (mut o, mut n) = (0, 0);
    while o < old_steps.len() || n < new_steps.len() {
        let old_step = old_steps.get(o).map(String::as_str);
        let new_step = new_steps.get(n).map(String::as_str);
        // Items that share a step in the live list are replaced as one, not merged with.
        let mut lay = |s: &str, new: &Tree| {
            let found = match old_at.get(s).map(Vec::as_slice) {
                Some([one]) => old_items.get_mut(*one).and_then(Option::take),
                _ => None,
            };
            out.push(match found {
                Some(mut old) => {
                    merge(schema, item, &mut old, new);
                    old
                }
                None => new.clone(),
            });
        };
        if let (Some(os), Some(ns)) = (old_step, new_step) {
            if os == ns {
                merged.insert(ns);
                lay(ns, &applied[n]);
                (o, n) = (o + 1, n + 1);
                next_shared = shared.next();
                continue;
            }
            if in_new.contains(os) && next_shared.is_some_and(|s| s != os) {
                // Shared, but its turn comes where the configuration has it.
                o += 1;
                continue;
            }
        }
        if let Some(os) = old_step {
            if !in_new.contains(os) {
                out.extend(old_items.get_mut(o).and_then(Option::take));
                o += 1;
                continue;
            }
            if merged.contains(os) {
                o += 1;
            }
        }
        if let Some(ns) = new_step {
            merged.insert(ns);
            lay(ns, &applied[n]);
            n += 1;
            if next_shared == Some(ns) {
                next_shared = shared.next();
            }
        }
    }
    *there = out;
}

/// Takes the fields of `gone` out of `value`, each with all that lies below it. What is emptied thereby
/// becomes null if `leave_null`, else goes too.
pub(super) fn remove(schema: &Schema, place: Place<'_>, value: &mut Tree, gone: &FieldSet, leave_null: bool) {
    remove_below(schema, place, value, &gone.0, leave_null);
}

/// Whether `value` was emptied.
fn remove_below(schema: &Schema, place: Place<'_>, value: &mut Tree, gone: &Map, leave_null: bool) -> bool {
    if is_hollow(Some(value)) {
        return false;
    }
    let mut step = String::with_capacity(32);
    let shape = place.shape(schema);
    if shape.is_atomic() {
        return false;
    }
    match (shape, &mut *value) {
        (Shape::List { item, kind }, Tree::Array(items)) => {
            items.retain_mut(|v| {
                let Ok(step) = item_step(schema, kind, item, v) else { return true };
                let Some(node) = gone.get(&step) else { return true };
                if is_member(node) {
                    return false;
                }
                // An item of which nothing is left could not even be named.
                below(gone, &step).is_none_or(|g| !remove_below(schema, item, v, g, leave_null))
            });
            items.is_empty()
        }
        (shape, Tree::Object(map)) => {
            map.retain(|key, v| {
                step.clear();
                step.push_str("f:");
                step.push_str(key);
                let Some(node) = gone.get(&step) else { return true };
                if is_member(node) {
                    return false;
                }
                let (Some(place), Some(below)) = (shape.at(key), below(gone, &step)) else { return true };
                if remove_below(schema, place, v, below, leave_null) {
                    *v = Tree::Null;
                    return leave_null;
                }
                true
            });
            map.is_empty()
        }
        _ => false,
    }
}
