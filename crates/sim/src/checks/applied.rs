//! State Machine Safety: what one replica has applied, no other applies differently (Ongaro and
//! Ousterhout, figure 3). On the way the truth is kept: every change of a ConfigMap, in order.

use super::{Checked, Violation, ensure};
use agree::cell::{After, Member};
use base::Revision;
use std::collections::BTreeMap;

/// The resource the clients use.
pub const RESOURCE: &str = "ConfigMap";

/// A change that was applied somewhere.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Its number.
    pub revision: Revision,
    /// Of which object.
    pub name: String,
    /// What it says now; `None` if it is gone.
    pub value: Option<String>,
}

/// A state in short: the term of its last entry, its revision, how many objects it has, their bytes.
type Digest = (u64, Revision, usize, u64);

/// What was applied in one cell.
pub struct Applied {
    /// The resource whose changes are kept.
    resource: &'static str,
    index: u64,
    /// The revision of that state: other resources move it, too.
    revision: Revision,
    digests: BTreeMap<u64, (usize, Digest)>,
    changes: Vec<Changed>,
    by_name: BTreeMap<String, Vec<(Revision, Option<String>)>>,
    by_value: BTreeMap<String, Revision>,
}

fn fails(what: String) -> Violation {
    Violation { checker: "applied", what }
}

/// What a ConfigMap of the clients says.
pub fn value_of(json: &[u8]) -> String {
    let tree: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    tree["data"]["v"].as_str().unwrap_or_default().to_owned()
}

impl Applied {
    /// Nothing yet; of this resource the changes will be kept.
    pub fn new(resource: &'static str) -> Applied {
        Applied {
            resource,
            index: 0,
            revision: Revision::ZERO,
            digests: BTreeMap::new(),
            changes: Vec::new(),
            by_name: BTreeMap::new(),
            by_value: BTreeMap::new(),
        }
    }

    /// Looks at a replica after its step.
    ///
    /// # Errors
    /// It has applied something else than another did.
    pub fn observe(&mut self, node: usize, member: &Member) -> Checked {
        let (index, term) = member.cell().applied();
        if index == 0 {
            return Ok(());
        }
        let state = member.cell().state();
        if index > self.index {
            self.index = index;
            self.extend(node, member)?;
            self.revision = state.revision();
        }
        let digest = (term, state.revision(), state.len(), state.bytes());
        let (first, known) = *self.digests.entry(index).or_insert((node, digest));
        ensure("applied", known == digest, || {
            format!(
                "at index {index} node {first} was at {known:?} and node {node} is at {digest:?} (term, revision, objects, bytes)"
            )
        })
    }

    fn extend(&mut self, node: usize, member: &Member) -> Checked {
        let history = member.cell().history();
        let Ok(news) = history.since(self.resource.as_bytes(), self.revision) else {
            // It came here by a snapshot of a leader that has applied all of it and told nobody else.
            return Err(fails(format!("node {node} is ahead of everybody and does not know how it came there")));
        };
        for a in news {
            let name = String::from_utf8_lossy(a.key.get(self.resource.len() + 1..).unwrap_or_default()).into_owned();
            let value = match &a.after {
                After::Put(r) => Some(value_of(&r.value)),
                After::Deleted(_) => None,
            };
            if let Some(v) = value.as_ref().filter(|v| !v.is_empty())
                && let Some(at) = self.by_value.insert(v.clone(), a.revision)
            {
                return Err(fails(format!("the write of {v:?} took effect twice, at {at:?} and {:?}", a.revision)));
            }
            self.by_name.entry(name.clone()).or_default().push((a.revision, value.clone()));
            self.changes.push(Changed { revision: a.revision, name, value });
        }
        Ok(())
    }

    /// The changes that came as the n-th and later.
    pub fn from(&self, n: usize) -> &[Changed] {
        self.changes.get(n..).unwrap_or_default()
    }

    /// The number of the last change.
    pub fn last(&self) -> Revision {
        self.changes.last().map_or(Revision::ZERO, |c| c.revision)
    }

    /// The index up to which somebody has applied.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The changes after `from` up to `to`, in order.
    pub fn between(&self, from: Revision, to: Revision) -> &[Changed] {
        let first = self.changes.partition_point(|c| c.revision <= from);
        let end = self.changes.partition_point(|c| c.revision <= to);
        self.changes.get(first..end).unwrap_or_default()
    }

    /// Every object there was at a revision, and its own.
    pub fn state_at(&self, at: Revision) -> BTreeMap<String, Revision> {
        let newest = |all: &Vec<(Revision, Option<String>)>| {
            let (revision, value) = all.iter().rev().find(|(r, _)| *r <= at)?;
            value.is_some().then_some(*revision)
        };
        self.by_name.iter().filter_map(|(n, all)| Some((n.clone(), newest(all)?))).collect()
    }

    /// When a client's value was written, if it was.
    pub fn written(&self, value: &str) -> Option<Revision> {
        self.by_value.get(value).copied()
    }

    /// What an object was from each moment on, beginning with how it stood at `floor`: the moment, its
    /// revision and value if it was there.
    pub fn since(&self, name: &str, floor: Revision) -> Vec<(Revision, Option<(Revision, &str)>)> {
        let all = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        let after = all.partition_point(|(r, _)| *r <= floor);
        let seen = |(r, v): &(Revision, Option<String>)| v.is_some().then_some(*r);
        let first = after.checked_sub(1).and_then(|i| all.get(i));
        let mut out = vec![(floor, first.and_then(|f| Some((seen(f)?, f.1.as_deref()?))))];
        let later = all.get(after..).unwrap_or_default();
        out.extend(later.iter().map(|c| (c.0, seen(c).and_then(|r| Some((r, c.1.as_deref()?))))));
        out
    }
}
