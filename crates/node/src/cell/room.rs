//! What a leader still takes when its disk is full: what makes room, and what goes with it.
//!
//! A delete is not always the removal of a record. A pod with grace, an object with finalizers and a namespace
//! are marked first and go later; and a delete gives back what a quota was charged. All of these write, a little
//! and for a while, and nothing is ever freed without them: they are served from the log's reserve.

use agree::cell::{Change, Commit, Expect, Write};
use objects::decision::Plan;
use objects::request::{Key, Meta, Request, Verb};

/// Whether what a request came to is part of a deletion. `finalizers` says how many an object has now.
pub(super) fn is_deletion(request: &Request, plan: &Plan, finalizers: impl Fn(&Key) -> usize) -> bool {
    match (request.verb, &*request.subresource) {
        (Verb::Delete | Verb::DeleteCollection, _) | (Verb::Create, "eviction") => true,
        (Verb::Update | Verb::Patch, sub) => plan.writes.first().is_some_and(|w| match &w.tree {
            // Its last finalizer is taken away.
            None => true,
            // It is on its way: whoever holds it says how far it is, or lets go.
            Some(tree) => {
                let meta = &tree["metadata"];
                let left = meta["finalizers"].as_array().map_or(0, Vec::len);
                meta.get("deletionTimestamp").is_some()
                    && (matches!(sub, "status" | "finalize") || left < finalizers(&w.key))
            }
        }),
        _ => false,
    }
}

/// Whether an entry is part of a deletion, or changes nothing: every object it changes goes or is on its way,
/// and what else it changes is there already (a quota, a budget).
pub(super) fn is_vital(commit: &Commit) -> bool {
    let goes = |c: &Change| match &c.write {
        Write::Delete { .. } => true,
        Write::Put { meta, .. } => Meta::decode(meta).is_some_and(|m| m.deletion.is_some()),
    };
    let all = commit.changes.iter().all(|c| goes(c) || matches!(c.expect, Expect::At(_)));
    commit.changes.is_empty() || (all && commit.changes.iter().any(goes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use base::{Revision, Wall};
    use bytes::Bytes;

    #[test]
    fn an_entry_is_vital_if_something_goes_by_it_and_nothing_new_comes() {
        let at = Revision::from_u64(7).unwrap();
        let put = |deletion: Option<Wall>, expect| {
            let meta = Meta { deletion, ..Meta::default() }.encode();
            let write = Write::Put { created: at, meta, value: Bytes::new() };
            Change { key: Bytes::new(), expect, revision: at, write }
        };
        let gone = || {
            let write = Write::Delete { meta: Bytes::new(), value: Bytes::new() };
            Change { key: Bytes::new(), expect: Expect::At(at), revision: at, write }
        };
        let marked = || put(Some(Wall(1)), Expect::At(at));
        let other = || put(None, Expect::At(at));
        let new = || put(None, Expect::Absent);
        for (changes, vital) in [
            (vec![], true),
            (vec![gone()], true),
            (vec![gone(), other()], true),
            (vec![marked()], true),
            (vec![marked(), other()], true),
            (vec![other()], false),
            (vec![new()], false),
            (vec![gone(), new()], false),
        ] {
            let shown = format!("{changes:?}");
            assert_eq!(is_vital(&Commit { changes, ..Commit::default() }), vital, "{shown}");
        }
    }
}
