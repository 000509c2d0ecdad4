//! What is committed in a cell, of some kinds: each change in the order of the log, and what there is.

use super::{Checked, Violation};
use agree::cell::{After, Member};
use base::Revision;
use objects::Tree;
use std::collections::BTreeMap;

/// A change.
pub struct Change {
    /// The storage group-kind.
    pub storage: &'static str,
    /// The object before it.
    pub before: Option<Tree>,
    /// The object after it.
    pub after: Option<Tree>,
}

/// The objects there are.
pub struct Committed {
    kinds: &'static [&'static str],
    index: u64,
    revision: Revision,
    objects: BTreeMap<(&'static str, String), Tree>,
}

impl Committed {
    /// Nothing yet; of these storage group-kinds it will be kept.
    pub fn new(kinds: &'static [&'static str]) -> Committed {
        Committed { kinds, index: 0, revision: Revision::ZERO, objects: BTreeMap::new() }
    }

    /// Looks at a replica after its step: what it has applied and nobody had before it. Each change is handed on
    /// when everything before it is in, and itself.
    ///
    /// # Errors
    /// Whatever `look` finds.
    pub fn observe(&mut self, member: &Member, mut look: impl FnMut(&Committed, &Change) -> Checked) -> Checked {
        let index = member.cell().applied().0;
        if index <= self.index {
            return Ok(());
        }
        self.index = index;
        let mut news: Vec<(Revision, &'static str, String, Option<Tree>)> = Vec::new();
        for storage in self.kinds {
            let all = member.cell().history().since(storage.as_bytes(), self.revision);
            let all = all.map_err(|gone| Violation {
                checker: "invariant",
                what: format!("what a replica has applied is not to be seen: {gone}"),
            })?;
            news.extend(all.map(|a| {
                let name = String::from_utf8_lossy(a.key.get(storage.len() + 1..).unwrap_or_default()).into_owned();
                let after = match &a.after {
                    After::Put(r) => Some(serde_json::from_slice(&r.value).unwrap_or_default()),
                    After::Deleted(_) => None,
                };
                (a.revision, *storage, name, after)
            }));
        }
        self.revision = member.cell().state().revision();
        news.sort_by_key(|n| n.0);
        for (_, storage, name, after) in news {
            let key = (storage, name);
            let before = match &after {
                Some(tree) => self.objects.insert(key, tree.clone()),
                None => self.objects.remove(&key),
            };
            look(self, &Change { storage, before, after })?;
        }
        Ok(())
    }

    /// All of a kind.
    pub fn all<'a>(&'a self, storage: &'static str) -> impl Iterator<Item = &'a Tree> + 'a {
        let from = (storage, String::new());
        self.objects.range(from..).take_while(move |(k, _)| k.0 == storage).map(|(_, tree)| tree)
    }

    /// The object of that uid.
    pub fn of_uid(&self, uid: &str) -> Option<&Tree> {
        self.objects.values().find(|t| t["metadata"]["uid"] == uid)
    }
}

/// The uid of its controller.
pub fn controller(tree: &Tree) -> Option<&str> {
    let owners = tree["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|o| o["controller"] == true)?["uid"].as_str()
}

/// The object's uid.
pub fn uid(tree: &Tree) -> &str {
    tree["metadata"]["uid"].as_str().unwrap_or_default()
}

/// Whether it is being deleted.
pub fn is_going(tree: &Tree) -> bool {
    !tree["metadata"]["deletionTimestamp"].is_null()
}
