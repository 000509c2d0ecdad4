//! Between agreement's keys and bytes and the objects they are.

use agree::cell::state::{After, Applied};
use agree::cell::{Record, State};
use base::Revision;
use bytes::Bytes;
use objects::read::Listed;
use objects::request::{Key, Meta, Stored};
use objects::select::Selection;
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
        self.state.scan(b"").map(|(k, _)| key_of(k))
    }

    /// The objects after this key, or all of them, in order of their keys.
    pub fn after(&self, key: Option<&Key>) -> impl Iterator<Item = (Key, Stored)> + '_ {
        // The least key above another is that key with a zero byte behind it.
        let from = key.map_or(Bytes::new(), |k| key_bytes(&k.storage, &format!("{}\0", k.name)));
        self.state.scan_from(b"", &from).map(|(k, r)| (key_of(k), stored(r)))
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
    undone: Arc<[(Arc<str>, Option<Stored>)]>,
    storage: Arc<str>,
    revision: Revision,
}

impl Snapshot {
    /// The present.
    pub(super) fn now(state: &State, storage: &str) -> Snapshot {
        Snapshot { state: state.clone(), undone: Arc::default(), storage: storage.into(), revision: state.revision() }
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

    /// As another node has shown it: all of its objects, in order of their names, each once.
    pub fn shown(storage: Arc<str>, revision: Revision, objects: Vec<(Arc<str>, Stored)>) -> Snapshot {
        let undone = objects.into_iter().map(|(name, object)| (name, Some(object))).collect();
        Snapshot { state: State::default(), undone, storage, revision }
    }

    /// The storage group-kind of its objects.
    pub fn storage(&self) -> &Arc<str> {
        &self.storage
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
        Box::new(Overlaid::new(committed, self.undone_after(after).to_vec()))
    }

    /// The same, where they lie.
    pub fn lying<'a>(&'a self, after: Option<&str>) -> Box<dyn Iterator<Item = Lying<'a>> + Send + 'a> {
        let committed = range(&self.state, &self.storage, after);
        let committed = committed.map(|(name, record)| Lying { name, at: At::Record(record) });
        if self.undone.is_empty() {
            return Box::new(committed);
        }
        let undone = self.undone_after(after).iter();
        let lying = |name, s| Lying { name, at: At::Stored(s) };
        let over = undone.map(|(name, s)| (name.as_bytes(), s.as_ref().map(|s| lying(name.as_bytes(), s)))).collect();
        Box::new(Overlaid::new(committed.map(|object| (object.name, object)), over).map(|(_, object)| object))
    }

    fn undone_after(&self, after: Option<&str>) -> &[(Arc<str>, Option<Stored>)] {
        let from = self.undone.partition_point(|(n, _)| after.is_some_and(|a| **n <= *a));
        self.undone.get(from..).unwrap_or_default()
    }
}

/// The objects of one kind in order of their names, after the given one.
pub(super) fn scan<'a>(
    state: &'a State,
    storage: &str,
    after: Option<&str>,
) -> impl Iterator<Item = (Arc<str>, Stored)> + Send + 'a {
    range(state, storage, after).map(|(name, r)| (Arc::from(std::str::from_utf8(name).unwrap_or_default()), stored(r)))
}

/// Their records. A name is only text once it is looked at.
fn range<'a>(
    state: &'a State,
    storage: &str,
    after: Option<&str>,
) -> impl Iterator<Item = (&'a [u8], &'a Arc<Record>)> + Send + 'a {
    let prefix = key_bytes(storage, "");
    // The least key above `storage\0after` is that key with a zero byte behind it.
    let from = match after {
        Some(name) => key_bytes(storage, &format!("{name}\0")),
        None => prefix.clone(),
    };
    let skip = prefix.len();
    state.scan_from(&prefix, &from).map(move |(k, r)| (k.get(skip..).unwrap_or_default(), r))
}

/// An object of a [`Snapshot`] where it lies: nothing of it is read before it is asked for.
#[derive(Clone, Copy)]
pub struct Lying<'a> {
    name: &'a [u8],
    at: At<'a>,
}

#[derive(Clone, Copy)]
enum At<'a> {
    Record(&'a Arc<Record>),
    Stored(&'a Stored),
}

impl Lying<'_> {
    /// The number of its last change.
    pub fn revision(&self) -> Revision {
        match self.at {
            At::Record(record) => record.revision,
            At::Stored(stored) => stored.revision,
        }
    }

    /// The bytes of its header ([`Meta`]), as they are stored: they may be of a newer release.
    pub fn header(&self) -> Bytes {
        match self.at {
            At::Record(record) => record.meta.clone(),
            At::Stored(stored) => stored.meta.encode(),
        }
    }

    /// Its canonical JSON.
    pub fn json(&self) -> &Bytes {
        match self.at {
            At::Record(record) => &record.value,
            At::Stored(stored) => &stored.json,
        }
    }
}

impl Listed for Lying<'_> {
    type Kept = Kept;

    fn name(&self) -> &str {
        std::str::from_utf8(self.name).unwrap_or_default()
    }

    fn is_meant(&self, selection: &Selection, namespace: &str) -> bool {
        match self.at {
            At::Record(record) => selection.matches(&stored(record).meta, self.name(), namespace),
            At::Stored(stored) => selection.matches(&stored.meta, self.name(), namespace),
        }
    }

    fn keep(self) -> Kept {
        match self.at {
            At::Record(record) => Kept::Record(record.clone()),
            At::Stored(stored) => Kept::Stored(stored.json.clone()),
        }
    }
}

/// An object that was listed. It keeps that object's bytes and no others.
#[derive(Clone, Debug)]
pub enum Kept {
    /// As the cell has it.
    Record(Arc<Record>),
    /// As it was before.
    Stored(Bytes),
}

impl Kept {
    /// Its canonical JSON.
    pub fn json(&self) -> &Bytes {
        match self {
            Kept::Record(record) => &record.value,
            Kept::Stored(json) => json,
        }
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        self.json()
    }
}

/// Objects with others in their place, in order of names.
pub(super) struct Overlaid<C: Iterator, N, T> {
    under: Peekable<C>,
    over: Peekable<std::vec::IntoIter<(N, Option<T>)>>,
}

impl<N: Ord, T, C: Iterator<Item = (N, T)>> Overlaid<C, N, T> {
    /// `over` in the place of what is in `under`: another object, or none. Both in order of names.
    pub(super) fn new(under: C, over: Vec<(N, Option<T>)>) -> Overlaid<C, N, T> {
        Overlaid { under: under.peekable(), over: over.into_iter().peekable() }
    }
}

impl<N: Ord, T, C: Iterator<Item = (N, T)>> Iterator for Overlaid<C, N, T> {
    type Item = (N, T);

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
        let under = ["a", "c", "d"].map(|n| (Arc::<str>::from(n), object(1)));
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
