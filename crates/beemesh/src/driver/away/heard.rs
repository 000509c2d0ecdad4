//! Who is heard: nobody waits for a node that has fallen silent while another could answer.
//!
//! Every member says something once a second ([`crate::driver::keep`]). A link by which nothing comes any more is up for a
//! quarter of a minute yet, and whoever asked by it would wait so long.

use super::{Away, Driver, lock};
use crate::driver::clock;
use base::{CellId, NodeId, Time};
use node::gateway::Absent;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::timeout;

/// Silence after which nothing more is expected of a node: three words of it are missing.
const SILENT_AFTER: Duration = Duration::from_millis(3_200);
/// A node without a link is waited for so long, if others have one.
const LINKED_WITHIN: Duration = Duration::from_millis(500);
/// How often whoever waits looks at that.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Of so many nodes it is remembered when they were heard.
const HEARD_MAX: usize = 16 * 1024;

/// When each node was heard last.
#[derive(Default)]
pub(super) struct Hearing(Mutex<BTreeMap<NodeId, Time>>);

impl Hearing {
    pub(super) fn heard(&self, node: NodeId) {
        let mut all = lock(&self.0);
        if all.len() < HEARD_MAX || all.contains_key(&node) {
            all.insert(node, clock::now().mono);
        }
    }

    fn is_silent(&self, node: NodeId) -> bool {
        let now = clock::now().mono;
        lock(&self.0).get(&node).is_some_and(|at| now.since(*at) > SILENT_AFTER)
    }
}

impl Driver {
    /// Who of a cell's keepers does not answer, if these are so many that nobody can lead it: as far as a replica here knows.
    pub(crate) fn absent(&self, cell: CellId) -> Option<Absent> {
        let away = self.away()?;
        let voters = self.cell(cell)?.look(|c| {
            let keepers = &c.member().cell().keepers().now.keepers;
            let voters = || keepers.iter().filter(|k| k.votes).map(|k| k.node).collect::<Vec<_>>();
            c.leader().is_none().then(voters)
        })?;
        let silent: Vec<NodeId> =
            voters.iter().copied().filter(|node| *node != self.node() && !away.answers(*node)).collect();
        if voters.is_empty() || silent.len() * 2 < voters.len() {
            return None;
        }
        let bundle = self.bundle();
        let name = |node: &NodeId| {
            let known = bundle.members().find(|(_, member)| member.node == *node);
            known.map_or_else(|| node.short().to_string(), |(name, _)| name.to_string())
        };
        Some(Absent { voters: voters.len(), names: silent.iter().map(name).collect() })
    }
}

impl Away {
    /// Whether something would come of asking a node, as far as is known.
    pub(super) fn answers(&self, node: NodeId) -> bool {
        self.mesh.peer(node).is_some() && !self.hearing.is_silent(node)
    }

    /// Waits for what a node says, as long as it is heard and `goes_on` says so; `None` if it was given up.
    pub(super) async fn while_heard<T>(
        &self,
        node: NodeId,
        goes_on: impl Fn() -> bool,
        what: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::pin!(what);
        let began = clock::now().mono;
        loop {
            if let Ok(done) = timeout(LOOK_EVERY, &mut what).await {
                return Some(done);
            }
            let unlinked = self.mesh.peer(node).is_none()
                && clock::now().mono.since(began) > LINKED_WITHIN
                && self.places().others(node).any(|other| self.answers(other));
            if unlinked || self.hearing.is_silent(node) || !goes_on() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_never_heard_is_not_silent_yet() {
        let (hearing, node) = (Hearing::default(), NodeId([1; 32]));
        assert!(!hearing.is_silent(node));
        hearing.heard(node);
        assert!(!hearing.is_silent(node));
        let long_ago = Time(clock::now().mono.0.saturating_sub(10_000_000_000));
        lock(&hearing.0).insert(node, long_ago);
        assert_eq!(hearing.is_silent(node), clock::now().mono.since(long_ago) > SILENT_AFTER);
    }
}
