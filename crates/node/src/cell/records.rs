//! Between agreement's keys and bytes and the objects they are.

use agree::cell::state::{After, Applied};
use agree::cell::{Record, State};
use base::Revision;
use bytes::Bytes;
use objects::request::{Key, Meta, Stored};
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::Arc;

/// The key of an object: storage group-kind, a zero byte, name. Neither part can hold a zero byte.
pub(super) fn key_bytes(storage: &str, name: &str) -> Bytes {
    let mut k = Vec::with_capacity(storage.len() + 1 + name.len());
    k.extend_from_slice(storage.as_bytes());
    k.push(0);
    k.extend_from_slice(name.as_bytes());
    k.into()
}

/// The name in a key of this storage group-kind. Keys are ours; one that is no text was never written.
pub(super) fn name_of<'a>(storage: &str, key: &'a [u8]) -> &'a str {
    key.get(storage.len() + 1..).and_then(|n| std::str::from_utf8(n).ok()).unwrap_or_default()
}

/// The object of a key.
pub(super) fn key_of(key: &[u8]) -> Key {
    let storage = std::str::from_utf8(agree::cell::state::resource(key)).unwrap_or_default();
    Key { storage: storage.into(), name: name_of(storage, key).into() }
}

/// A record as an object.
pub(super) fn stored(record: &Record) -> Stored {
    // A header that a newer release wrote may be of a version this one cannot read; the bytes always can.
    let meta = Meta::decode(&record.meta).unwrap_or_default();
    Stored { revision: record.revision, meta: Arc::new(meta), json: record.value.clone() }
}

/// A committed change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which object.
    pub key: Key,
    /// The number of the change.
    pub revision: Revision,
    /// The object before, if it was there.
    pub before: Option<Stored>,
    /// The object after, if it still is.
    pub after: Option<Stored>,
}

impl Change {
    pub(super) fn of(applied: &Applied) -> Change {
        let after = match &applied.after {
            After::Put(r) => Some(stored(r)),
            After::Deleted(_) => None,
        };
        Change {
            key: key_of(&applied.key),
            revision: applied.revision,
            before: applied.before.as_deref().map(stored),
            after,
        }
    }
}

/// All committed objects of one cell, frozen. Cheap to clone; holds nothing of the machine back.
#[derive(Clone, Default)]
pub struct Objects {
    state: State,
    bundle: u64,
}

impl Objects {
    pub(super) fn of(state: &State, bundle: u64) -> Objects {
        Objects { state: state.clone(), bundle }
    }

    /// The greatest number of a bundle that the entries up to here were decided under. No leader that knows
    /// less of root decides anything after them.
    pub fn bundle(&self) -> u64 {
        self.bundle
    }

    /// The object of a storage group-kind with this name.
    pub fn get(&self, storage: &str, name: &str) -> Option<Stored> {
        self.state.get(&key_bytes(storage, name)).map(|r| stored(r))
    }

    /// The objects of a storage group-kind, in order of their names.
    pub fn list(&self, storage: &str) -> impl Iterator<Item = (Arc<str>, Stored)> + Send + '_ {
        scan(&self.state, storage, None)
    }

    /// Every key there is, in order.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.state.range(Bytes::new(), Bytes::new()).map(|(k, _)| key_of(k))
    }

    /// The objects after this key, or all of them, in order of their keys.
    pub fn after(&self, key: Option<&Key>) -> impl Iterator<Item = (Key, Stored)> + '_ {
        // The least key above another is that key with a zero byte behind it.
        let from = key.map_or(Bytes::new(), |k| key_bytes(&k.storage, &format!("{}\0", k.name)));
        self.state.range(Bytes::new(), from).map(|(k, r)| (key_of(k), stored(r)))
    }

    /// The newest revision in it.
    pub fn revision(&self) -> Revision {
        self.state.revision()
    }
}

/// The objects of one kind in one cell, frozen at a revision. Holds nothing of the machine back.
#[derive(Clone)]
pub struct Snapshot {
    state: State,
    /// Objects that were otherwise at this revision, by name: later changes undone.
    undone: Vec<(Arc<str>, Option<Stored>)>,
    storage: Arc<str>,
    revision: Revision,
}

impl Snapshot {
    /// The present.
    pub(super) fn now(state: &State, storage: &str) -> Snapshot {
        Snapshot { state: state.clone(), undone: Vec::new(), storage: storage.into(), revision: state.revision() }
    }

    /// As it was at `revision`, given the changes since, oldest first.
    pub(super) fn before<'a>(
        state: &State,
        storage: &str,
        revision: Revision,
        since: impl Iterator<Item = &'a Applied>,
    ) -> Snapshot {
        let mut undone: BTreeMap<Arc<str>, Option<Stored>> = BTreeMap::new();
        for applied in since {
            // The oldest change says what was before all of them.
            let name: Arc<str> = name_of(storage, &applied.key).into();
            undone.entry(name).or_insert_with(|| applied.before.as_deref().map(stored));
        }
        let undone = undone.into_iter().collect();
        Snapshot { state: state.clone(), undone, storage: storage.into(), revision }
    }

    /// What the snapshot is of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The objects, in order of their names, after the given one.
    pub fn iter<'a>(&'a self, after: Option<&str>) -> Box<dyn Iterator<Item = (Arc<str>, Stored)> + Send + 'a> {
        let committed = scan(&self.state, &self.storage, after);
        if self.undone.is_empty() {
            return Box::new(committed);
        }
        let from = self.undone.partition_point(|(n, _)| after.is_some_and(|a| **n <= *a));
        let over = self.undone.get(from..).unwrap_or_default().to_vec();
        Box::new(Overlaid::new(committed, over))
    }
}

/// The objects of one kind in order of their names, after the given one.
pub(super) fn scan<'a>(
    state: &'a State,
    storage: &str,
    after: Option<&str>,
) -> impl Iterator<Item = (Arc<str>, Stored)> + Send + 'a {
    let prefix = key_bytes(storage, "");
    // The least key above `storage\0after` is that key with a zero byte behind it.
    let from = match after {
        Some(name) => key_bytes(storage, &format!("{name}\0")),
        None => prefix.clone(),
    };
    let skip = prefix.len();
    state.range(prefix, from).map(move |(k, r)| {
        let name = k.get(skip..).and_then(|n| std::str::from_utf8(n).ok()).unwrap_or_default();
        (Arc::from(name), stored(r))
    })
}

/// Objects with others in their place, in order of names.
pub(super) struct Overlaid<C: Iterator<Item = (Arc<str>, Stored)>> {
    under: Peekable<C>,
    over: Peekable<std::vec::IntoIter<(Arc<str>, Option<Stored>)>>,
}

impl<C: Iterator<Item = (Arc<str>, Stored)>> Overlaid<C> {
    /// `over` in the place of what is in `under`: another object, or none. Both in order of names.
    pub(super) fn new(under: C, over: Vec<(Arc<str>, Option<Stored>)>) -> Overlaid<C> {
        Overlaid { under: under.peekable(), over: over.into_iter().peekable() }
    }
}

impl<C: Iterator<Item = (Arc<str>, Stored)>> Iterator for Overlaid<C> {
    type Item = (Arc<str>, Stored);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((name, _)) = self.over.peek() else { return self.under.next() };
            match self.under.peek() {
                Some((u, _)) if u < name => return self.under.next(),
                Some((u, _)) if u == name => {
                    self.under.next();
                }
                _ => {}
            }
            if let Some((name, Some(s))) = self.over.next() {
                return Some((name, s));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(n: u64) -> Stored {
        let revision = Revision::from_u64(n).unwrap_or_default();
        Stored { revision, meta: Arc::default(), json: Bytes::new() }
    }

    #[test]
    fn what_lies_over_takes_the_place_of_what_lies_under_and_the_order_stays() {
        let under = ["a", "c", "d"].map(|n| (Arc::from(n), object(1)));
        let over =
            vec![("a".into(), None), ("b".into(), Some(object(2))), ("c".into(), Some(object(3))), ("e".into(), None)];
        let seen: Vec<(String, u64)> =
            Overlaid::new(under.into_iter(), over).map(|(n, s)| (n.to_string(), s.revision.get())).collect();
        assert_eq!(seen, [("b".to_owned(), 2), ("c".to_owned(), 3), ("d".to_owned(), 1)]);
    }

    #[test]
    fn a_key_reads_back_as_what_it_was_made_of() {
        let k = key_bytes("Deployment.apps", "web");
        assert_eq!(key_of(&k), Key { storage: "Deployment.apps".into(), name: "web".into() });
        assert_eq!(name_of("Deployment.apps", &k), "web");
    }
}
