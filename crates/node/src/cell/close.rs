//! closed(T): the leader's promise that nothing at or below T is still to come, for those who read over
//! many cells (architecture, section 5.5).

use super::records::{Change, Snapshot};
use super::{Cell, Collect, Effect, Outcome, Subscription};
use agree::raft;
use base::{Now, Revision};
use objects::read::WatchPlan;
use objects::status::Status;
use std::sync::Arc;
use std::time::Duration;

/// Asked to close further above its clock than this, a cell does not: no number from outside moves a
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
        self.close(now);
        self.release_collects(fx);
    }

    pub(super) fn on_close(&mut self, now: Now, at: Revision, fx: &mut Vec<Effect>) {
        if !self.leading {
            return;
        }
        // Asked by a clock far ahead: what can be promised is promised, and the rest when it is asked for again.
        let at = if at.wall() > now.wall + AHEAD { Revision::end_of(now.wall) } else { at };
        if at <= self.closed {
            return fx.push(Effect::Closed { revision: self.closed });
        }
        self.to_close = self.to_close.max(at);
        // A promise is written before it is given: while the log does not take what was written before, it is asked
        // for again and again, and none of that is to pile up.
        if !self.unwritten.lags() {
            self.close(now);
        }
    }

    /// Closes the highest revision asked for: a lower one would take the place of what is being closed.
    pub(super) fn close(&mut self, now: Now) {
        let at = self.collects.iter().map(|c| c.at).max().unwrap_or_default().max(self.to_close);
        if at > self.closed {
            self.member.cell_mut().mint_above(at);
            self.raft(now, raft::Input::Close { revision: at });
        }
    }

    /// A quorum holds the promise; it counts here once every entry it covers is applied and told.
    pub(super) fn on_closed(&mut self, revision: Revision, index: u64) {
        self.closing = Some((revision, index));
    }

    pub(super) fn settle_closing(&mut self, fx: &mut Vec<Effect>) {
        if let Some((revision, index)) = self.closing
            && self.member.cell().applied().0 >= index
        {
            self.closed = self.closed.max(revision);
            self.closing = None;
            fx.push(Effect::Closed { revision: self.closed });
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
        let from = c.after.unwrap_or(c.at);
        match (self.member.cell().history().since(c.storage.as_bytes(), from), c.after) {
            (Ok(since), Some(_)) => {
                Outcome::Recalled(since.take_while(|e| e.revision <= c.at).map(Change::of).collect())
            }
            (Ok(since), None) => Outcome::Collected(Snapshot::before(self.state(), &c.storage, c.at, since)),
            (Err(gone), _) => Outcome::Refused(Box::new(WatchPlan::expired(gone.asked, gone.oldest))),
        }
    }

    /// Somebody here tells others what happens to a resource, however many they are.
    pub(super) fn on_subscribe(&mut self, storage: Arc<str>, after: Option<Revision>, fx: &mut Vec<Effect>) {
        let backlog = match after {
            None => Vec::new(),
            Some(from) => match self.member.cell().history().since(storage.as_bytes(), from) {
                Ok(since) => since.map(Change::of).collect(),
                Err(gone) => {
                    let begin = Subscription::Gone { oldest: gone.oldest };
                    return fx.push(Effect::Subscribed { storage, after, begin });
                }
            },
        };
        self.next_watch += 1;
        let serial = self.next_watch;
        self.subscribed.insert(storage.clone(), serial);
        let begin = Subscription::Open { revision: self.known(), backlog: backlog.into(), serial };
        fx.push(Effect::Subscribed { storage, after, begin });
    }
}
