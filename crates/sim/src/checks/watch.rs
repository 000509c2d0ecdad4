//! A watch tells every change after the revision it began from, once and in order; resumed at another
//! leader it goes on without a gap (Kubernetes API concepts, "Efficient detection of changes").

use super::applied::{Applied, Changed};
use super::{Checked, ensure};
use base::Revision;
use node::cell::Change;
use std::collections::BTreeMap;

/// The watcher was told these changes, and with them everything from `from` up to `to`.
///
/// # Errors
/// They are not all the changes in between, once each and in order.
pub fn told(truth: &Applied, from: Revision, to: Revision, changes: &[Change]) -> Checked {
    let want = truth.between(from, to);
    let same = |(c, w): (&Change, &Changed)| {
        c.revision == w.revision && *c.key.name == *w.name && c.after.is_some() == w.value.is_some()
    };
    let holds = want.len() == changes.len() && changes.iter().zip(want).all(same);
    ensure("watch", holds, || {
        let told: Vec<_> = changes.iter().map(|c| (c.revision, &c.key.name)).collect();
        let want: Vec<_> = want.iter().map(|c| (c.revision, &c.name)).collect();
        format!("from {from:?} to {to:?} a watcher was told {told:?}, where {want:?} happened")
    })
}

/// The watcher was told this state to begin with.
///
/// # Errors
/// It was never the state at that revision.
pub fn began(truth: &Applied, at: Revision, state: &BTreeMap<String, Revision>) -> Checked {
    let want = truth.state_at(at);
    ensure("watch", *state == want, || format!("at {at:?} a watch began with {state:?}, where {want:?} was"))
}
