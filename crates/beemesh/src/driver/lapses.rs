//! Hosting leases, joined to what works beside the cells that lead here: who was heard, whose leases have lapsed.
//!
//! Told while the table is held, so that no controllers are told of leases older than those they know. Their step asks for
//! errands only, which are carried out elsewhere.

use super::work::{Who, Work};
use super::{Driver, clock, lock, read};
use base::{CellId, NodeId};
use node::bundle::Bundle;
use node::controllers;
use node::leases::{Effect, Input};

impl Driver {
    /// A node has said something to this one, which may be the same.
    pub(super) fn spoke(&self, node: NodeId) {
        if let Some(work) = self.work.get() {
            work.leases_are(Input::Heard(node));
        }
    }
}

impl Work {
    /// Root says who is a member.
    pub(super) fn members_are(&self, bundle: &Bundle) {
        self.leases_are(Input::Members(bundle.members().map(|(name, m)| (name.clone(), m.node)).collect()));
    }

    /// A namespace's cell has begun to lead here, and its controllers know it.
    pub(super) fn hosts_for(&self, cell: CellId) {
        self.leases_are(Input::Leads(cell));
    }

    /// A cell leads here no more.
    pub(super) fn hosts_no_more(&self, cell: CellId) {
        self.leases_are(Input::Over(cell));
    }

    /// Steps the table of leases.
    pub(super) fn leases_are(&self, input: Input) {
        let mut leases = lock(&self.leases);
        let mut effects = Vec::new();
        leases.step(clock::now(), input, &mut effects);
        if cfg!(debug_assertions) {
            leases.check();
        }
        self.timers.set(Who::Leases, leases.next_deadline());
        for Effect::Tell { cell, hosting } in effects {
            let controllers = read(&self.leading).get(&cell).map(|l| l.controllers.clone());
            let Some(controllers) = controllers else { continue };
            if !hosting.hosts.silent.is_empty() {
                tracing::debug!(%cell, silent = ?hosting.hosts.silent, lapsed = hosting.lapsed, "hosting leases");
            }
            controllers.post(controllers::Input::Hosting(hosting));
        }
    }
}
