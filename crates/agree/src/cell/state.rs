//! A cell's objects: a persistent map, so that a snapshot costs one reference count and leaves the
//! machine while it goes on.

use super::commit::{Change, Commit, Expect, Write};
use alloc::sync::Arc;
use alloc::vec::Vec;
use base::Revision;
use bytes::Bytes;
use core::ops::Bound;
use imbl::OrdMap;

/// One object as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The number of its last change.
    pub revision: Revision,
    /// The number of its creation.
    pub created: Revision,
    /// The header: labels, owners and what else the upper layers want to read without the value.
    pub meta: Bytes,
    /// The canonical bytes.
    pub value: Bytes,
}

impl Record {
    /// Its weight in memory and in the log, without its key.
    pub fn len(&self) -> usize {
        self.meta.len() + self.value.len() + 16
    }

    /// Whether it holds no bytes of its own.
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty() && self.value.is_empty()
    }
}

/// The objects of a cell. Cloning takes an immutable snapshot, in constant time.
#[derive(Clone, Default, Debug)]
pub struct State {
    map: OrdMap<Bytes, Arc<Record>>,
    revision: Revision,
    bytes: u64,
}

/// The resource a key belongs to: what stands before its first zero byte.
pub fn resource(key: &[u8]) -> &[u8] {
    key.split(|b| *b == 0).next().unwrap_or_default()
}

/// The least key above all that begin with `prefix`; `None` if there is none.
fn beyond(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|b| *b < 0xff)?;
    let mut key = prefix.get(..=last)?.to_vec();
    *key.last_mut()? += 1;
    Some(key.into())
}

/// A change that was applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The object.
    pub key: Bytes,
    /// The change's number.
    pub revision: Revision,
    /// The object before, if it was there.
    pub before: Option<Arc<Record>>,
    /// What became of it.
    pub after: After,
}

/// What became of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum After {
    /// It is this.
    Put(Arc<Record>),
    /// It is gone; this was its last image, at the revision of its deletion.
    Deleted(Arc<Record>),
}

/// A precondition that does not hold, so that nothing of the entry was applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("commit not applied: the object under {key:?} was expected {expected:?} and is at {found:?}; nothing changed")]
pub struct Conflict {
    /// The object.
    pub key: Bytes,
    /// What the entry expected.
    pub expected: Expect,
    /// The object's revision; `None` if there is none.
    pub found: Option<Revision>,
}

impl State {
    /// The object under `key`.
    pub fn get(&self, key: &[u8]) -> Option<&Arc<Record>> {
        self.map.get(key)
    }

    /// The objects whose keys begin with `prefix`, in the order of keys.
    pub fn scan<'a>(&'a self, prefix: &[u8]) -> impl Iterator<Item = (&'a Bytes, &'a Arc<Record>)> + use<'a> {
        self.scan_from(prefix, prefix)
    }

    /// Those of [`State::scan`] from the key `from` on: a list that goes on where it was cut.
    ///
    /// No key is looked at on the way: that each is read from a place of its own would cost more than all else.
    pub fn scan_from<'a>(
        &'a self,
        prefix: &[u8],
        from: &[u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a Arc<Record>)> + use<'a> {
        let from = Bytes::copy_from_slice(from.max(prefix));
        let end = beyond(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        self.map.range((Bound::Included(from), end))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Bytes of all keys and records.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The greatest revision applied.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether every precondition of `commit` holds.
    ///
    /// # Errors
    /// The first that does not.
    pub fn expects(&self, commit: &Commit) -> Result<(), Conflict> {
        for c in &commit.changes {
            let found = self.get(&c.key).map(|r| r.revision);
            let holds = match c.expect {
                Expect::Any => true,
                Expect::Absent => found.is_none(),
                Expect::At(r) => found == Some(r),
            };
            if !holds {
                return Err(Conflict { key: c.key.clone(), expected: c.expect, found });
            }
        }
        Ok(())
    }

    /// Applies all of `commit`, or nothing.
    ///
    /// # Errors
    /// The precondition that does not hold. Every replica comes to the same answer.
    pub fn apply(&mut self, commit: &Commit) -> Result<Vec<Applied>, Conflict> {
        self.expects(commit)?;
        Ok(commit.changes.iter().map(|c| self.change(c)).collect())
    }

    fn change(&mut self, c: &Change) -> Applied {
        let image = |created, meta: &Bytes, value: &Bytes| {
            Arc::new(Record { revision: c.revision, created, meta: meta.clone(), value: value.clone() })
        };
        let before = self.get(&c.key).cloned();
        let after = match &c.write {
            Write::Put { created, meta, value } => After::Put(image(*created, meta, value)),
            Write::Delete { meta, value } => {
                let created = before.as_ref().map_or(Revision::ZERO, |b| b.created);
                After::Deleted(image(created, meta, value))
            }
        };
        match &after {
            After::Put(record) => self.put(c.key.clone(), record.clone()),
            After::Deleted(_) => self.remove(&c.key),
        }
        self.revision = self.revision.max(c.revision);
        Applied { key: c.key.clone(), revision: c.revision, before, after }
    }

    /// Puts a record as recovery or a snapshot has it.
    pub(crate) fn put(&mut self, key: Bytes, record: Arc<Record>) {
        self.revision = self.revision.max(record.revision);
        let key_len = key.len() as u64;
        self.bytes += key_len + record.len() as u64;
        if let Some(old) = self.map.insert(key, record) {
            self.bytes -= key_len + old.len() as u64;
        }
    }

    fn remove(&mut self, key: &Bytes) {
        if let Some(old) = self.map.remove(key) {
            self.bytes -= key.len() as u64 + old.len() as u64;
        }
    }

    /// Deletions leave no record: what is known of the greatest revision from elsewhere.
    pub(crate) fn raise_revision(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::commit::tests::revision_of as r;
    use super::*;
    use alloc::vec;

    fn change(key: &'static str, expect: Expect, at: u64, value: Option<&'static str>) -> Change {
        let write = match value {
            Some(v) => Write::Put { created: r(at), meta: Bytes::new(), value: Bytes::from_static(v.as_bytes()) },
            None => Write::Delete { meta: Bytes::new(), value: Bytes::from_static(b"last") },
        };
        Change { key: Bytes::from_static(key.as_bytes()), expect, revision: r(at), write }
    }

    fn commit(changes: Vec<Change>) -> Commit {
        Commit { changes, ..Commit::default() }
    }

    #[test]
    fn one_failed_precondition_undoes_the_whole_entry() {
        let mut s = State::default();
        s.apply(&commit(vec![change("a", Expect::Absent, 1, Some("1"))])).unwrap();
        let refused = s.apply(&commit(vec![
            change("b", Expect::Absent, 2, Some("2")),
            change("a", Expect::At(r(9)), 3, Some("3")),
        ]));
        assert_eq!(
            refused,
            Err(Conflict { key: Bytes::from_static(b"a"), expected: Expect::At(r(9)), found: Some(r(1)) })
        );
        assert_eq!((s.len(), s.revision()), (1, r(1)));
        assert!(s.apply(&commit(vec![change("a", Expect::Absent, 4, Some("4"))])).is_err());
    }

    #[test]
    fn a_change_tells_what_was_before_and_what_is_after() {
        let mut s = State::default();
        s.apply(&commit(vec![change("a", Expect::Any, 1, Some("one"))])).unwrap();
        let gone = s.apply(&commit(vec![change("a", Expect::At(r(1)), 2, None)])).unwrap();
        assert_eq!(gone[0].before.as_ref().unwrap().value, "one");
        assert!(matches!(&gone[0].after, After::Deleted(last) if last.value == "last" && last.revision == r(2)));
        assert!(s.is_empty() && s.revision() == r(2) && s.bytes() == 0);
    }

    #[test]
    fn a_snapshot_does_not_move() {
        let mut s = State::default();
        s.apply(&commit(vec![change("a", Expect::Any, 1, Some("one"))])).unwrap();
        let snapshot = s.clone();
        s.apply(&commit(vec![change("a", Expect::Any, 2, Some("two"))])).unwrap();
        assert_eq!(snapshot.get(b"a").unwrap().value, "one");
        assert_eq!(s.get(b"a").unwrap().value, "two");
    }

    #[test]
    fn a_scan_keeps_to_its_prefix_and_goes_on_where_it_was_cut() {
        let mut s = State::default();
        let keys = ["pods\0a", "pods\0b", "pods\0c", "podtemplates\0a", "po"];
        let all = keys.iter().zip(1..).map(|(k, at)| change(k, Expect::Any, at, Some(""))).collect();
        s.apply(&commit(all)).unwrap();
        let of = |it: &mut dyn Iterator<Item = (&Bytes, &Arc<Record>)>| it.map(|(k, _)| k.clone()).collect::<Vec<_>>();
        assert_eq!(of(&mut s.scan(b"pods\0")), ["pods\0a", "pods\0b", "pods\0c"]);
        assert_eq!(of(&mut s.scan_from(b"pods\0", b"pods\0b\0")), ["pods\0c"]);
        assert_eq!(of(&mut s.scan_from(b"pods\0", b"pods\0c\0")), [""; 0]);
        assert_eq!(of(&mut s.scan(b"pods\0d")), [""; 0]);
        assert_eq!(s.scan(b"").count(), s.len());
        assert_eq!(beyond(b"a\xff\xff"), Some(Bytes::from_static(b"b")));
        assert_eq!(beyond(b"\xff"), None);
        assert_eq!(resource(b"pods\0a\0b"), b"pods");
        assert_eq!(resource(b""), b"");
    }
}
