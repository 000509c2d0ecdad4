//! A leader's entries in flight: proposed, not yet applied.
//!
//! Decisions are made on committed state with these on top, so that two creates of one name that arrive
//! together see each other. They fall with the leadership.

use objects::request::{Key, Stored};
use std::collections::{BTreeMap, VecDeque};

/// What an entry makes of a key; `None` is a removal.
type Result = (Key, Option<Stored>);

/// The overlay of proposed results, oldest entry first.
#[derive(Default)]
pub(super) struct Flight {
    /// Newest result in flight for a key and the entry it is in; `None` is a removal.
    top: BTreeMap<Key, (u64, Option<Stored>)>,
    /// The results of each entry in flight, in the order proposed.
    entries: VecDeque<(u64, Vec<Result>)>,
}

impl Flight {
    /// Takes up the results of entry number `entry`; numbers rise.
    pub(super) fn push(&mut self, entry: u64, results: impl IntoIterator<Item = Result>) {
        let results: Vec<Result> = results.into_iter().collect();
        for (key, result) in &results {
            self.top.insert(key.clone(), (entry, result.clone()));
        }
        self.entries.push_back((entry, results));
    }

    /// Entry `entry` and all before it have been applied: committed state has them now.
    pub(super) fn applied(&mut self, entry: u64) {
        while self.entries.front().is_some_and(|(e, _)| *e <= entry) {
            let Some((e, results)) = self.entries.pop_front() else { return };
            for (key, _) in results {
                if self.top.get(&key).is_some_and(|(newest, _)| *newest == e) {
                    self.top.remove(&key);
                }
            }
        }
    }

    /// Entry `entry` will never be applied. What it covered shows again: the result of an older entry in
    /// flight, or what is committed. Later entries that were decided on it fail their preconditions. Says
    /// whether it was in flight.
    pub(super) fn withdraw(&mut self, entry: u64) -> bool {
        let Some(at) = self.entries.iter().position(|(e, _)| *e == entry) else { return false };
        let Some((_, results)) = self.entries.remove(at) else { return false };
        for (key, _) in results {
            if self.top.get(&key).is_none_or(|(newest, _)| *newest != entry) {
                continue;
            }
            let older = self.entries.iter().rev().find_map(|(e, results)| {
                let (_, result) = results.iter().rev().find(|(k, _)| *k == key)?;
                Some((*e, result.clone()))
            });
            match older {
                Some(older) => self.top.insert(key, older),
                None => self.top.remove(&key),
            };
        }
        true
    }

    /// Leadership is gone, and with it whatever was in flight.
    pub(super) fn clear(&mut self) {
        self.top.clear();
        self.entries.clear();
    }

    /// The newest entry in flight, if any.
    pub(super) fn newest(&self) -> Option<u64> {
        self.entries.back().map(|(e, _)| *e)
    }

    /// What an entry in flight makes of a key: `None` if none touches it, `Some(None)` if it removes it.
    pub(super) fn get(&self, key: &Key) -> Option<Option<&Stored>> {
        self.top.get(key).map(|(_, s)| s.as_ref())
    }

    /// Everything in flight of one storage group-kind after a name, by name.
    pub(super) fn range<'a>(
        &'a self,
        storage: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, Option<&'a Stored>)> + 'a {
        let from = Key { storage: storage.into(), name: after.unwrap_or("").into() };
        self.top
            .range(from..)
            .take_while(move |(k, _)| &*k.storage == storage)
            .filter(move |(k, _)| after.is_none_or(|a| &*k.name > a))
            .map(|(k, (_, s))| (k, s.as_ref()))
    }

    /// How many entries are in flight.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every key on top belongs to an entry in flight.
    pub(super) fn check(&self) {
        // Numbers rise.
        let flies = |e: &u64| self.entries.binary_search_by_key(e, |(x, _)| *x).is_ok();
        debug_assert!(self.top.values().all(|(e, _)| flies(e)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(name: &str) -> Key {
        Key { storage: "ConfigMap".into(), name: name.into() }
    }

    #[test]
    fn an_applied_entry_uncovers_nothing_that_a_later_one_changed_again() {
        let mut f = Flight::default();
        f.push(1, [(key("a"), None), (key("b"), None)]);
        f.push(2, [(key("a"), None)]);
        f.applied(1);
        assert_eq!(f.get(&key("a")), Some(None));
        assert_eq!(f.get(&key("b")), None);
        assert_eq!((f.newest(), f.len()), (Some(2), 1));
        f.applied(2);
        assert_eq!((f.get(&key("a")), f.newest()), (None, None));
    }

    #[test]
    fn an_entry_that_is_withdrawn_uncovers_the_older_one_below_it() {
        let mut f = Flight::default();
        f.push(1, [(key("a"), None)]);
        f.push(2, [(key("a"), None), (key("b"), None)]);
        f.push(3, [(key("b"), None)]);
        assert!(f.withdraw(2));
        assert_eq!((f.get(&key("a")), f.get(&key("b"))), (Some(None), Some(None)));
        f.check();
        assert!(!f.withdraw(2));
        f.applied(1);
        assert_eq!((f.get(&key("a")), f.get(&key("b"))), (None, Some(None)));
        assert!(f.withdraw(3));
        assert_eq!((f.get(&key("b")), f.len()), (None, 0));
    }

    #[test]
    fn a_range_sees_one_kind_and_only_names_after_the_given() {
        let mut f = Flight::default();
        let other = Key { storage: "Secret".into(), name: "b".into() };
        f.push(1, [(key("a"), None), (key("b"), None), (other, None)]);
        let names: Vec<_> = f.range("ConfigMap", Some("a")).map(|(k, _)| k.name.to_string()).collect();
        assert_eq!(names, ["b"]);
    }
}
