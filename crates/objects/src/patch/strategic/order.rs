//! The order of a merged list's items: what the patch orders comes in the patch's order, what only the
//! server has keeps its own order, and the two are interleaved where the old list tells how.

use super::{no_merge_key, wrong_kind};
use crate::Tree;
use crate::patch::go_text;
use crate::status::Status;
use std::collections::{BTreeMap, BTreeSet};

/// Where in a list an item is, by its merge key or by itself.
pub(super) struct Index(BTreeMap<String, usize>);

impl Index {
    /// Indexes a list; of several items with one key the first counts.
    pub(super) fn new(list: &[Tree], key: Option<&str>) -> Result<Index, Status> {
        let mut index = BTreeMap::new();
        for (i, item) in list.iter().enumerate() {
            // An item that lacks its merge key can be found by nothing.
            if let Some(ident) = ident(item, key)? {
                index.entry(ident.to_string()).or_insert(i);
            }
        }
        Ok(Index(index))
    }

    /// The place of the item whose key (or self) this is.
    pub(super) fn of_value(&self, ident: &Tree) -> Option<usize> {
        self.0.get(&ident.to_string()).copied()
    }

    /// Adds an item unless its key is known.
    pub(super) fn insert(&mut self, ident: &Tree, at: usize) {
        self.0.entry(ident.to_string()).or_insert(at);
    }
}

/// Arranges `merged`: items that `first` names come in its order, the others in the order of `old`.
pub(super) fn arrange(merged: Vec<Tree>, first: &[Tree], old: &[Tree], key: Option<&str>) -> Result<Vec<Tree>, Status> {
    let wanted = Index::new(first, key)?;
    let before = Index::new(old, key)?;
    let mut patched = Vec::new();
    let mut others = Vec::new();
    for item in merged {
        let Some(id) = ident(&item, key)? else {
            let Tree::Object(map) = &item else { continue };
            return Err(no_merge_key(map, key.unwrap_or_default()));
        };
        let was = before.of_value(id);
        match wanted.of_value(id) {
            Some(at) => patched.push((at, was, item)),
            None => others.push((was.unwrap_or(usize::MAX), was, item)),
        }
    }
    patched.sort_by_key(|(at, _, _)| *at);
    others.sort_by_key(|(at, _, _)| *at);
    let mut out = Vec::with_capacity(patched.len() + others.len());
    let (mut patched, mut others) = (patched.into_iter().peekable(), others.into_iter().peekable());
    loop {
        // An item only the server has goes before the first patched item that it stood before.
        let other_first = match (others.peek(), patched.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((_, o, _)), Some((_, p, _))) => matches!((o, p), (Some(o), Some(p)) if o < p),
        };
        let next = if other_first { others.next() } else { patched.next() };
        out.extend(next.map(|(_, _, item)| item));
    }
}

/// Refuses a patch whose items do not come in the order its own `$setElementOrder` says.
pub(super) fn check_follows(given: &[Tree], wanted: &[Tree], key: Option<&str>, directive: &str) -> Result<(), Status> {
    if given.is_empty() || wanted.is_empty() {
        return Ok(());
    }
    let mut wanted_left = wanted.iter();
    for item in given.iter().filter(|i| i.get(super::PATCH).is_none()) {
        let Some(id) = ident(item, key)? else {
            let Tree::Object(map) = item else { continue };
            return Err(no_merge_key(map, key.unwrap_or_default()));
        };
        let mut found = false;
        for w in wanted_left.by_ref() {
            if ident(w, key)? == Some(id) {
                found = true;
                break;
            }
        }
        if !found {
            return Err(Status::bare(format!(
                "The order in patch list:\n{}\n doesn't match {directive} list:\n{}\n",
                go_text::value(&Tree::Array(given.to_vec())),
                go_text::value(&Tree::Array(wanted.to_vec()))
            )));
        }
    }
    Ok(())
}

/// Removes from `items` all that `gone` lists.
pub(super) fn remove_all(items: &mut Vec<Tree>, gone: &[Tree]) {
    let gone: BTreeSet<String> = gone.iter().map(Tree::to_string).collect();
    items.retain(|i| !gone.contains(&i.to_string()));
}

/// Keeps the first of equal items.
pub(super) fn deduplicate(items: &mut Vec<Tree>) {
    let mut seen = BTreeSet::new();
    items.retain(|i| seen.insert(i.to_string()));
}

fn ident<'t>(item: &'t Tree, key: Option<&str>) -> Result<Option<&'t Tree>, Status> {
    match (key, item) {
        (None, item) => Ok(Some(item)),
        (Some(key), Tree::Object(map)) => Ok(map.get(key)),
        (Some(_), other) => Err(wrong_kind("map[string]interface {}", other)),
    }
}
