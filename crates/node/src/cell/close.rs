//! closed(T): the leader's promise that nothing at or below T is still to come, for those who read over
//! many cells (architecture, section 5.5).

use super::records::Snapshot;
use super::{Cell, Collect, Effect, Outcome};
use agree::raft;
use base::{Now, Revision};
use objects::read::WatchPlan;
use objects::status::Status;
use std::time::Duration;

/// Asked to close further above its clock than this, a cell refuses: no number from outside moves a
/// clock.
const AHEAD: Duration = Duration::from_millis(500);

impl Cell {
    pub(super) fn on_collect(&mut self, now: Now, collect: Collect, fx: &mut Vec<Effect>) {
        if !self.leading {
            return self.reply(collect.to, Outcome::NotLeader, fx);
        }
        if self.waiting() >= self.config.waiting_max {
            return self.reply(collect.to, Outcome::Busy, fx);
        }
        if collect.at.wall() > now.wall + AHEAD {
            let status = Status::too_large_resource_version(collect.at.get(), self.known().get());
            return self.reply(collect.to, Outcome::Refused(Box::new(status)), fx);
        }
        self.collects.push(collect);
        // The highest asked for: a lower one would take the place of what is being closed.
        let at = self.collects.iter().map(|c| c.at).max().unwrap_or_default();
        if at > self.closed {
            self.member.cell_mut().mint_above(at);
            self.raft(now, raft::Input::Close { revision: at });
        }
        self.release_collects(fx);
    }

    /// A quorum holds the promise; it counts here once every entry it covers is applied.
    pub(super) fn on_closed(&mut self, revision: Revision, index: u64, fx: &mut Vec<Effect>) {
        self.closing = Some((revision, index));
        self.settle_closing(fx);
    }

    pub(super) fn settle_closing(&mut self, fx: &mut Vec<Effect>) {
        if let Some((revision, index)) = self.closing
            && self.member.cell().applied().0 >= index
        {
            self.closed = self.closed.max(revision);
            self.closing = None;
            self.release_collects(fx);
        }
    }

    /// Up to where this leader's state is all there is.
    pub(super) fn known(&self) -> Revision {
        self.state().revision().max(self.closed)
    }

    fn release_collects(&mut self, fx: &mut Vec<Effect>) {
        for c in std::mem::take(&mut self.collects) {
            if c.at > self.closed {
                self.collects.push(c);
                continue;
            }
            let outcome = self.collected(&c);
            self.reply(c.to, outcome, fx);
        }
    }

    fn collected(&self, c: &Collect) -> Outcome {
        match self.member.cell().history().since(c.storage.as_bytes(), c.at) {
            Ok(since) => Outcome::Collected(Snapshot::before(self.state(), &c.storage, c.at, since)),
            Err(gone) => Outcome::Refused(Box::new(WatchPlan::expired(gone.asked, gone.oldest))),
        }
    }
}
