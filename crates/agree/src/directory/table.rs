//! What is held, by key; in buckets with a hash each, so that two tables find how they differ.

use super::message::BUCKETS;
use super::{Key, Version, mix};
use crate::codec::Writer;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use base::Time;
use bytes::Bytes;

/// What an entry takes beside its record's bytes, roughly: key, version, times, the tree's share.
pub const ENTRY_BYTES: usize = 192;
/// Keys of which no old version is let in again, at most; what would be let in again first goes first.
pub const FLOORS_MAX: usize = 8_192;

/// One record as it is held.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) version: Version,
    /// Its encoding, alone in its memory.
    pub(super) bytes: Bytes,
    /// When this version came.
    pub(super) since: Time,
    /// It speaks of this node, or of a cell kept here.
    pub(super) own: bool,
}

/// The table, and what has left it.
pub(super) struct Table {
    entries: BTreeMap<Key, Entry>,
    hashes: Box<[u64; BUCKETS]>,
    whole: u64,
    bytes: usize,
    counts: [usize; 3],
    floors: BTreeMap<Key, (Version, Time)>,
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            entries: BTreeMap::new(),
            hashes: Box::new([0; BUCKETS]),
            whole: 0,
            bytes: 0,
            counts: [0; 3],
            floors: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    pub(super) fn hashes(&self) -> &[u64; BUCKETS] {
        &self.hashes
    }

    /// Bytes of all entries, [`ENTRY_BYTES`] of each counted in.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many keys of this one's kind are held.
    pub(super) fn count(&self, of: &Key) -> usize {
        self.counts[kind(of)]
    }

    /// The keys in these buckets.
    pub(super) fn listing(&self, buckets: &[bool; BUCKETS]) -> Vec<(Key, Version)> {
        self.entries.iter().filter(|(k, _)| buckets[bucket(k)]).map(|(k, e)| (*k, e.version)).collect()
    }

    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        self.remove(&key);
        self.account(&key, entry.version);
        self.counts[kind(&key)] += 1;
        self.bytes += entry.bytes.len() + ENTRY_BYTES;
        self.entries.insert(key, entry);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.account(key, entry.version);
        self.counts[kind(key)] -= 1;
        self.bytes -= entry.bytes.len() + ENTRY_BYTES;
        Some(entry)
    }

    pub(super) fn set_own(&mut self, key: &Key, own: bool) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.own = own;
        }
    }

    /// The version that is to be surpassed: what is held, or what was, for some time after it left.
    pub(super) fn floor(&self, now: Time, key: &Key) -> Version {
        let held = self.entries.get(key).map(|e| e.version);
        let left = self.floors.get(key).filter(|(_, until)| now < *until).map(|(v, _)| *v);
        held.max(left).unwrap_or_default()
    }

    /// Lets nothing up to `version` in until then.
    pub(super) fn bar(&mut self, key: Key, version: Version, until: Time) {
        if self.floors.len() >= FLOORS_MAX && !self.floors.contains_key(&key) {
            let first = self.floors.iter().min_by_key(|(_, (_, until))| *until).map(|(k, _)| *k);
            first.map(|k| self.floors.remove(&k));
        }
        self.floors.insert(key, (version, until));
    }

    pub(super) fn forget_floors(&mut self, now: Time) {
        self.floors.retain(|_, (_, until)| now < *until);
    }

    pub(super) fn check(&self) {
        assert_eq!(self.counts.iter().sum::<usize>(), self.entries.len(), "entries counted wrong");
        assert!(self.floors.len() <= FLOORS_MAX, "more floors than the bound");
    }

    /// Asserts that the hashes are those of what is held: O(entries).
    pub(super) fn audit(&self) {
        let mut hashes = [0; BUCKETS];
        self.entries.iter().for_each(|(k, e)| hashes[bucket(k)] ^= item(k, e.version));
        assert_eq!(hashes, *self.hashes, "a bucket's hash is not that of what it holds");
        let bytes: usize = self.entries.values().map(|e| e.bytes.len() + ENTRY_BYTES).sum();
        assert_eq!(bytes, self.bytes, "bytes counted wrong");
    }

    fn account(&mut self, key: &Key, version: Version) {
        let hash = item(key, version);
        self.hashes[bucket(key)] ^= hash;
        self.whole ^= hash;
    }
}

fn kind(key: &Key) -> usize {
    match key {
        Key::Node(_) => 0,
        Key::Cell(_) => 1,
        Key::Hive(_) => 2,
    }
}

fn written(key: &Key) -> Writer {
    let mut w = Writer::with_capacity(64);
    key.write(&mut w);
    w
}

/// The bucket of a key.
pub(super) fn bucket(key: &Key) -> usize {
    mix(&written(key).0) as usize % BUCKETS
}

fn item(key: &Key, version: Version) -> u64 {
    let mut w = written(key);
    w.u64(version.0).u64(version.1).u64(version.2);
    mix(&w.0)
}

#[cfg(test)]
mod tests {
    use super::super::test_keys::node;
    use super::*;

    fn entry(v: u64) -> Entry {
        Entry { version: Version(v, 0, 0), bytes: Bytes::from_static(b"r"), since: Time::ZERO, own: false }
    }

    #[test]
    fn equal_tables_have_equal_hashes_however_they_came_to_be() {
        let (mut a, mut b) = (Table::new(), Table::new());
        (0..500).for_each(|n| a.insert(Key::Node(node(n)), entry(n)));
        (0..600).rev().for_each(|n| b.insert(Key::Node(node(n)), entry(1)));
        (0..500).for_each(|n| b.insert(Key::Node(node(n)), entry(n)));
        assert_ne!(a.whole(), b.whole());
        (500..600).for_each(|n| assert!(b.remove(&Key::Node(node(n))).is_some()));
        assert_eq!((a.whole(), a.hashes(), a.bytes()), (b.whole(), b.hashes(), b.bytes()));
        a.audit();
        b.audit();
        let fullest = (0..BUCKETS).map(|n| a.entries.keys().filter(|k| bucket(k) == n).count()).max();
        assert!(fullest < Some(12), "500 keys in 256 buckets are spread: {fullest:?}");
    }

    #[test]
    fn what_has_left_does_not_come_back_as_it_was() {
        let mut t = Table::new();
        let key = Key::Node(node(1));
        t.bar(key, Version(5, 0, 0), Time(10));
        assert_eq!(t.floor(Time(9), &key), Version(5, 0, 0));
        assert_eq!(t.floor(Time(10), &key), Version::default());
        (2..FLOORS_MAX as u64 + 2).for_each(|n| t.bar(Key::Node(node(n)), Version(1, 0, 0), Time(20)));
        assert_eq!(t.floor(Time(9), &key), Version::default(), "the one that would end first made room");
        t.check();
    }
}
