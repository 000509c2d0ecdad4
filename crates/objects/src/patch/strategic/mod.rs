//! Strategic merge patch: a merge patch that knows, from the schema tables, which lists are merged and
//! by what key, and that can say more than a merge patch through directives:
//!
//! | directive | where | meaning |
//! |---|---|---|
//! | `$patch: replace` | a map, or an item of a merged list | the map, or the whole list, is replaced |
//! | `$patch: delete` | a map, or an item of a merged list | the map is emptied, the item removed |
//! | `$retainKeys: [..]` | a map | keys not named are removed |
//! | `$deleteFromPrimitiveList/KEY: [..]` | beside a list of scalars | these are removed from it |
//! | `$setElementOrder/KEY: [..]` | beside a merged list | the order of its items |
//!
//! Source: Kubernetes' design proposals `strategic-merge-patch.md`, `preserve-order-in-strategic-merge-patch.md`
//! and `add-new-patchStrategy-to-clear-fields-not-present-in-patch.md`; texts and corner cases as observed.

mod order;
#[cfg(test)]
mod tests;

use super::go_text;
use crate::schema::{Field, ObjectType, PatchRule, Schema, Type, TypeId};
use crate::status::{Status, quote};
use crate::{Map, Tree};
use std::collections::BTreeSet;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_DELETE_FROM: &str = "invalid patch format of primitive list";
const BAD_SET_ORDER: &str = "invalid patch format of setElementOrder list";

/// Applies `patch` to `doc`, an object of type `ty`.
///
/// 400 for directives of the wrong form, 422 for lists of lists, 500 without a reason for the rest
/// (a list item without its merge key, say), as Kubernetes answers. After an error `doc` is half changed
/// and to be thrown away.
pub fn apply(schema: &Schema, ty: TypeId, doc: &mut Tree, patch: &Tree) -> Result<(), Status> {
    let Tree::Object(patch) = patch else {
        return match patch {
            Tree::Null => Ok(()),
            other => Err(Status::bad_request(format!(
                "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                go_text::json_kind(other)
            ))),
        };
    };
    if !doc.is_object() {
        *doc = Tree::Object(Map::new());
    }
    let Tree::Object(doc) = doc else { return Ok(()) };
    Patcher { schema }.map(doc, patch.clone(), Place::of(schema, ty))
}

/// What is known of the maps at some place.
#[derive(Clone, Copy)]
enum Place<'s> {
    Struct(&'s ObjectType),
    /// A map whose values have one type.
    Map(TypeId),
    /// Anything: merged as a merge patch would.
    Open,
}

impl<'s> Place<'s> {
    fn of(schema: &'s Schema, ty: TypeId) -> Place<'s> {
        match schema.get(ty) {
            Type::Object(o) => Place::Struct(o),
            Type::Map { value } => Place::Map(*value),
            Type::List { item, .. } => Place::of(schema, *item),
            _ => Place::Open,
        }
    }
}

struct Patcher<'s> {
    schema: &'s Schema,
}

impl<'s> Patcher<'s> {
    fn map(&self, doc: &mut Map, mut patch: Map, place: Place<'s>) -> Result<(), Status> {
        if let Some(directive) = patch.get(PATCH) {
            match directive.as_str() {
                Some("replace") => {
                    patch.remove(PATCH);
                    *doc = plain_map(patch);
                }
                Some("delete") => doc.clear(),
                _ => return Err(unknown_directive(directive, &patch)),
            }
            return Ok(());
        }
        retain_keys(doc, &mut patch)?;
        self.ordered_lists(doc, &mut patch, place)?;
        for (key, value) in patch {
            if let Some(list) = parallel(&key, DELETE_FROM, BAD_DELETE_FROM)? {
                if let (Some(Tree::Array(items)), Tree::Array(gone)) = (doc.get_mut(list), &value) {
                    same_types(&[items, gone])?;
                    order::remove_all(items, gone);
                }
                continue;
            }
            if value.is_null() {
                doc.remove(&key);
                continue;
            }
            match (doc.get_mut(&key), value) {
                (Some(Tree::Object(old)), Tree::Object(new)) => {
                    let (below, rule) = self.field(place, &key)?;
                    if rule.is_some_and(|r| r.replace) {
                        *old = plain_map(new);
                    } else {
                        self.map(old, new, below)?;
                    }
                }
                (Some(Tree::Array(old)), Tree::Array(new)) => {
                    let (below, rule) = self.field(place, &key)?;
                    *old = self.list(std::mem::take(old), new, below, rule)?;
                }
                (_, value) => match plain(value) {
                    Some(value) => drop(doc.insert(key, value)),
                    None => drop(doc.remove(&key)),
                },
            }
        }
        Ok(())
    }

    /// What lies below a key, and how it is patched.
    fn field(&self, place: Place<'s>, key: &str) -> Result<(Place<'s>, Option<&'s PatchRule>), Status> {
        match place {
            Place::Struct(o) => match o.field(key) {
                Some(Field { ty, patch, .. }) => Ok((Place::of(self.schema, *ty), Some(patch))),
                None => Err(Status::bare(format!(
                    "unable to find api field in struct {} for the json field {}",
                    o.short_name(),
                    quote(key)
                ))),
            },
            Place::Map(value) => Ok((Place::of(self.schema, value), None)),
            Place::Open => Ok((Place::Open, None)),
        }
    }

    fn list(
        &self,
        old: Vec<Tree>,
        new: Vec<Tree>,
        place: Place<'s>,
        rule: Option<&PatchRule>,
    ) -> Result<Vec<Tree>, Status> {
        if !rule.is_some_and(|r| r.merge) {
            return Ok(new.into_iter().filter_map(plain).collect());
        }
        let key = rule.and_then(|r| r.merge_key.as_deref());
        if old.is_empty() && new.is_empty() {
            return Ok(old);
        }
        same_types(&[&old, &new])?;
        if !old.iter().chain(&new).any(Tree::is_object) {
            let mut all = old.clone();
            all.extend(new.iter().cloned());
            order::deduplicate(&mut all);
            return order::arrange(all, &new, &old, None);
        }
        let Some(key) = key else { return Err(Status::bare("cannot merge lists without merge key for struct")) };
        let (old, new) = special_items(old, new, key)?;
        let merged = self.items(old.clone(), &new, key, place)?;
        order::arrange(merged, &new, &old, Some(key))
    }

    /// Merges items that carry no directive: into the item of the same key, or after all.
    fn items(&self, mut old: Vec<Tree>, new: &[Tree], key: &str, place: Place<'s>) -> Result<Vec<Tree>, Status> {
        let mut index = order::Index::new(&old, Some(key))?;
        for item in new {
            let Tree::Object(map) = item else { continue };
            let Some(ident) = map.get(key) else { return Err(no_merge_key(map, key)) };
            match index.of_value(ident).and_then(|i| old.get_mut(i)) {
                Some(Tree::Object(found)) => self.map(found, map.clone(), place)?,
                _ => {
                    index.insert(ident, old.len());
                    old.push(Tree::Object(plain_map(map.clone())));
                }
            }
        }
        Ok(old)
    }

    /// Merges and orders the lists that have a `$setElementOrder`, taking both out of the patch.
    fn ordered_lists(&self, doc: &mut Map, patch: &mut Map, place: Place<'s>) -> Result<(), Status> {
        let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
        for directive in directives {
            let Some(wanted) = patch.remove(&directive) else { continue };
            let Tree::Array(wanted) = wanted else { return Err(wrong_kind("[]interface {}", &wanted)) };
            let Some(name) = parallel(&directive, SET_ORDER, BAD_SET_ORDER)? else { continue };
            let given = as_list(patch.get(name))?;
            let had = as_list(doc.get(name))?;
            let (below, rule) = self.field(place, name)?;
            let key = rule.and_then(|r| r.merge_key.as_deref());
            order::check_follows(given.unwrap_or_default(), &wanted, key, SET_ORDER)?;
            let old = had.unwrap_or_default().to_vec();
            let merged = match (had, given) {
                (None, None) => continue,
                (Some(_), None) => old.clone(),
                (None, Some(new)) => new.iter().cloned().filter_map(plain).collect(),
                (Some(_), Some(new)) => self.list(old.clone(), new.to_vec(), below, rule)?,
            };
            let arranged = if key.is_none() && merged.iter().any(Tree::is_object) {
                merged
            } else {
                order::arrange(merged, &wanted, &old, key)?
            };
            patch.remove(name);
            doc.insert(name.to_owned(), Tree::Array(arranged));
        }
        Ok(())
    }
}

/// Handles items with `$patch`: `delete` removes the item of that key, one `replace` anywhere makes the
/// patch's other items the whole list.
fn special_items(mut old: Vec<Tree>, new: Vec<Tree>, key: &str) -> Result<(Vec<Tree>, Vec<Tree>), Status> {
    let mut kept = Vec::with_capacity(new.len());
    let mut gone = BTreeSet::new();
    let mut replace = false;
    for item in new {
        let Tree::Object(map) = &item else { continue };
        match map.get(PATCH) {
            None => kept.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let Some(ident) = map.get(key) else { return Err(no_merge_key(map, key)) };
                    gone.insert(ident.to_string());
                }
                Some("replace") => replace = true,
                Some("merge") => return Err(Status::bare("merging lists cannot yet be specified in the patch")),
                _ => return Err(unknown_directive(directive, map)),
            },
        }
    }
    if !gone.is_empty() {
        old.retain(|o| o.get(key).is_none_or(|ident| !gone.contains(&ident.to_string())));
    }
    if replace { Ok((kept.into_iter().filter_map(plain).collect(), Vec::new())) } else { Ok((old, kept)) }
}

/// Removes the keys of `doc` that `$retainKeys` does not name.
fn retain_keys(doc: &mut Map, patch: &mut Map) -> Result<(), Status> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Tree::Array(names) = directive else { return Err(Status::bad_request(BAD_RETAIN_KEYS)) };
    let named = |key: &str| names.iter().any(|n| n.as_str() == Some(key));
    let contradicts = |(key, value): (&String, &Tree)| {
        !value.is_null() && !key.starts_with(DELETE_FROM) && !key.starts_with(SET_ORDER) && !named(key)
    };
    if patch.iter().any(contradicts) {
        return Err(Status::bad_request(BAD_RETAIN_KEYS));
    }
    doc.retain(|key, _| named(key));
    Ok(())
}

/// The list a parallel directive speaks of: `ports` of `$setElementOrder/ports`.
fn parallel<'k>(key: &'k str, prefix: &str, malformed: &str) -> Result<Option<&'k str>, Status> {
    match key.strip_prefix(prefix) {
        None => Ok(None),
        Some(rest) => rest.strip_prefix('/').map(Some).ok_or_else(|| Status::bad_request(malformed)),
    }
}

/// A value taken as it is, where the document had none to merge with: without directives and nulls.
/// `None` if it is itself a directive.
fn plain(value: Tree) -> Option<Tree> {
    match value {
        Tree::Object(map) if map.contains_key(PATCH) => None,
        Tree::Object(map) => Some(Tree::Object(plain_map(map))),
        Tree::Array(items) => Some(Tree::Array(items.into_iter().filter_map(plain).collect())),
        other => Some(other),
    }
}

fn plain_map(map: Map) -> Map {
    let directive = |k: &str| k == RETAIN_KEYS || k.starts_with(DELETE_FROM) || k.starts_with(SET_ORDER);
    map.into_iter().filter(|(k, v)| !v.is_null() && !directive(k)).filter_map(|(k, v)| Some((k, plain(v)?))).collect()
}

fn as_list(value: Option<&Tree>) -> Result<Option<&[Tree]>, Status> {
    match value {
        None | Some(Tree::Null) => Ok(None),
        Some(Tree::Array(items)) => Ok(Some(items)),
        Some(other) => Err(wrong_kind("[]interface {}", other)),
    }
}

/// All items of all lists are of one type, and none is a list.
fn same_types(lists: &[&[Tree]]) -> Result<(), Status> {
    let mut items = lists.iter().copied().flatten();
    let Some(first) = items.next() else { return Ok(()) };
    if first.is_array() {
        return Err(Status::unprocessable_patch());
    }
    if items.any(|i| go_text::type_name(i) != go_text::type_name(first)) {
        return Err(Status::bare(format!("list element types are not identical: {}", go_text::lists(lists))));
    }
    Ok(())
}

fn no_merge_key(map: &Map, key: &str) -> Status {
    let printed = go_text::value(&Tree::Object(map.clone()));
    Status::bare(format!("map: {printed} does not contain declared merge key: {key}"))
}

fn unknown_directive(directive: &Tree, map: &Map) -> Status {
    let printed = go_text::value(&Tree::Object(map.clone()));
    Status::bare(format!("unknown patch type: {} in map: {printed}", go_text::value(directive)))
}

fn wrong_kind(expected: &str, found: &Tree) -> Status {
    Status::bare(format!("expected a {expected}, but received a {}", go_text::type_name(found)))
}
