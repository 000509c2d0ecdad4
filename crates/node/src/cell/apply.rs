//! What comes back from agreement: entries applied, writes durable, leadership gained and lost.

use super::records::{self, Change, Objects};
use super::room;
use super::{Asked, Cell, Effect, Outcome, Pending, Reply, ReplyTo, Role, Waiting};
use crate::bundle::{self, Bundle};
use agree::cell::{self as agreed, Commit, Outcome as Applied};
use agree::log::{Record as LogRecord, Ticket};
use agree::raft::{self, CallId, Why};
use base::{Now, Revision};
use objects::decision::Record;
use objects::request::{Key, Stored};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait before a log without room is asked again.
pub(super) const WRITE_AGAIN: Duration = Duration::from_secs(2);

/// The log is told anew how much is live once it has changed by this much.
const LIVE_STEP: u64 = 1 << 20;

impl Cell {
    /// Does what the member wants done, in its order, until it wants nothing more.
    pub(super) fn pump(&mut self, now: Now, fx: &mut Vec<Effect>) {
        loop {
            while !self.member_effects.is_empty() {
                let effects = std::mem::take(&mut self.member_effects);
                for effect in effects {
                    self.on_member(now, effect, fx);
                }
            }
            // Who follows tells once what a batch came to; one that has heard of no leader since it started may be far behind.
            if self.config.role == Role::Root && self.leader().is_some() {
                self.tell_bundle(fx);
            }
            // Only now: entries of one batch are applied together and told one by one, and a promise is told
            // behind all it covers.
            self.settle_closing(fx);
            self.release_futures(now, fx);
            if self.member_effects.is_empty() {
                break;
            }
        }
        let live = self.state().bytes();
        if live.abs_diff(self.live_told) >= LIVE_STEP {
            self.live_told = live;
            fx.push(Effect::Live { bytes: live });
        }
    }

    fn on_member(&mut self, now: Now, effect: agreed::Effect, fx: &mut Vec<Effect>) {
        match effect {
            agreed::Effect::Replica(effect) => self.on_raft(now, effect, fx),
            agreed::Effect::Applied { id, outcome, .. } => {
                self.on_applied(now, id, outcome, fx);
            }
            agreed::Effect::Changed { revision, .. } => {
                fx.push(Effect::Kept(self.member.cell().keepers().clone()));
                self.renew_bundle(revision, Vec::new(), fx);
            }
            agreed::Effect::Replaced { .. } => {
                fx.push(Effect::Kept(self.member.cell().keepers().clone()));
                self.make_bundle();
                if self.config.role == Role::Root {
                    fx.push(Effect::Bundle(self.bundle.clone()));
                }
                self.subscribed.clear();
                fx.push(Effect::Replaced);
            }
            agreed::Effect::Rewritten { id, first, ticket } => {
                // On a full disk this is what makes room.
                for effect in fx.iter_mut() {
                    if let Effect::Persist { ticket, vital, .. } = effect
                        && *ticket >= first
                    {
                        *vital = true;
                    }
                }
                // The write that carries what is live is the last one asked for: it goes with the answer.
                let carrying = |e: &Effect| matches!(e, Effect::Persist { ticket: t, .. } if *t == ticket);
                let records = match fx.iter().rposition(carrying).map(|i| fx.remove(i)) {
                    Some(Effect::Persist { records, .. }) => records,
                    _ => Vec::new(),
                };
                fx.push(Effect::Carried { question: id, ticket, records });
            }
            agreed::Effect::Over { ticket } => {
                self.step_down(fx);
                self.over = Some(ticket);
                // A log that has lost what it held refuses whatever else there is, for good; and nothing of it is needed.
                let last = fx.iter().rposition(|e| matches!(e, Effect::Persist { ticket: t, .. } if *t == ticket));
                last.map(|at| fx.remove(at));
                if let Some(records) = self.unwritten.leave_only(ticket) {
                    fx.push(Effect::Resume);
                    fx.push(Effect::Persist { ticket, records, vital: true });
                }
            }
            agreed::Effect::Stopped { index, error } => {
                self.step_down(fx);
                fx.push(Effect::Stopped { why: format!("{:?}: entry {index}: {error}", self.config.cell) });
            }
        }
    }

    fn on_raft(&mut self, now: Now, effect: raft::Effect, fx: &mut Vec<Effect>) {
        match effect {
            raft::Effect::Persist { ticket, records } => {
                if self.unwritten.push(ticket, &records) {
                    let vital = self.is_vital(&records);
                    fx.push(Effect::Persist { ticket, records, vital });
                }
            }
            raft::Effect::Send { after: Some(ticket), message } if ticket > self.durable => {
                self.outbox.push_back((ticket, message));
            }
            raft::Effect::Send { message, .. } => self.send(message, fx),
            raft::Effect::ReadReady { id } => {
                let ready = self.hold.confirmed(id.0);
                self.give(ready, fx);
            }
            raft::Effect::Dropped { id, why } => self.on_dropped(now, id, why, fx),
            raft::Effect::Role(role) if role != raft::Role::Leader => self.step_down(fx),
            raft::Effect::Role(_) => {}
            raft::Effect::Closed { revision, index, .. } => self.on_closed(revision, index),
            raft::Effect::Leading { term, floor } => {
                self.leading = true;
                self.term = term;
                // What the leader before has promised, perhaps one of the voters alone holds: it is promised anew, so
                // that reads at such a revision need not wait until somebody asks. Not beyond the present: bounds
                // are held some way ahead of what is asked.
                self.to_close = self.to_close.max(floor.min(Revision::end_of(now.wall)));
                self.close(now);
                self.begin(now);
                self.bind(now);
                if self.config.role == Role::Root {
                    fx.push(Effect::Bundle(self.bundle.clone()));
                }
                fx.push(Effect::Leading(true));
                fx.push(Effect::Committed { term, objects: self.objects(), changes: Arc::default() });
            }
            raft::Effect::PeerLossy { replica } => fx.push(Effect::KeeperLossy { replica }),
            other => self.beat(now, other, fx),
        }
    }

    /// While the disk has room everything may wait its turn. When it is full, only what takes nothing new
    /// is served from the reserve: votes, terms, checkpoints, compaction, and entries by which something goes.
    fn is_vital(&self, records: &[LogRecord]) -> bool {
        let deletes = |payload| Commit::decode(payload).is_ok_and(|c| room::is_vital(&c));
        records.iter().all(|r| match r {
            LogRecord::Entry { kind: 0, payload, .. } => payload.is_empty() || (!self.ample && deletes(payload)),
            _ => true,
        })
    }

    pub(super) fn on_durable(&mut self, now: Now, ticket: Ticket, fx: &mut Vec<Effect>) {
        self.durable = self.durable.max(ticket);
        self.unwritten.durable(ticket);
        if self.over.take_if(|over| *over <= ticket).is_some() {
            fx.push(Effect::Ended);
        }
        while self.outbox.front().is_some_and(|(t, _)| *t <= ticket) {
            if let Some((_, message)) = self.outbox.pop_front() {
                self.send(message, fx);
            }
        }
        self.raft(now, raft::Input::Durable(ticket));
    }

    pub(super) fn on_space(&mut self, now: Now, ample: bool) {
        self.ample = ample;
        if ample {
            self.unwritten.hurry(now.mono);
        }
    }

    /// What is under way is little (it is bounded, and nothing new is taken while the log has no room): it
    /// may use the reserve.
    pub(super) fn write_again(&mut self, now: Now, fx: &mut Vec<Effect>) {
        if self.unwritten.again_at().is_none_or(|t| t > now.mono) {
            return;
        }
        fx.push(Effect::Resume);
        let again = self.unwritten.again();
        fx.extend(again.map(|(ticket, records)| Effect::Persist { ticket, records, vital: true }));
    }

    /// A new leader takes requests. The first one of all commits the genesis.
    fn begin(&mut self, now: Now) {
        // Emptied is not new: what was deleted does not come back.
        if self.state().revision() > Revision::ZERO {
            self.genesis = None;
        }
        // Kept until it is there: what a leader proposes may fall with it.
        let Some(genesis) = self.genesis.clone() else { return };
        self.member.cell_mut().mint_above(genesis.above());
        let records = genesis.objects().into_iter().filter_map(|(kind, tree)| {
            let name = tree["metadata"]["name"].as_str()?;
            let key = Key { storage: kind.storage.into(), name: name.into() };
            let revision = self.member.cell_mut().mint(now.wall);
            let s = Stored::from_tree(kind, tree, revision);
            Some(Record { key, expected: None, revision, object: Some((s.meta, s.json)) })
        });
        let mut records = records.collect();
        self.add_foundings(now, &mut records);
        self.commit(now, None, records);
    }

    /// While its Namespace is going, or a reservation of its own is being returned, a cell binds every later leader to
    /// know that: an entry that changes nothing carries the bundle's number, and whoever is behind it decides nothing.
    /// What was made in the namespace, or uses the reservation, lies before it in the log.
    pub(super) fn bind(&mut self, now: Now) {
        let Role::Namespace(name) = &self.config.role else { return };
        let cell = self.config.cell;
        let at = self.bundle.terminating(name, cell).max(self.bundle.ending(cell));
        let Some(at) = at.map(Revision::get) else { return };
        if self.leading && at > self.bound.max(self.known_of_root()) {
            self.bound = at;
            self.commit(now, None, Vec::new());
        }
    }

    fn objects(&self) -> Objects {
        Objects::of(self.state(), self.known_of_root())
    }

    /// An entry of the log is applied: told to those who watch, and answered if it was proposed here.
    fn on_applied(&mut self, now: Now, id: Option<CallId>, outcome: Applied, fx: &mut Vec<Effect>) {
        let again = match outcome {
            Applied::Applied(changes) => {
                self.announce(changes.iter().map(Change::of).collect(), fx);
                false
            }
            // A repeated request took effect as an earlier entry: its answer is that one's, not this one's,
            // whose revisions were never written.
            Applied::Conflict(_) | Applied::Repeated => true,
            Applied::Nothing => false,
        };
        if std::mem::take(&mut self.rebind) {
            self.bind(now);
        }
        let Some(id) = id else { return };
        self.flight.applied(id.0);
        let waiting = self.proposed.remove(id);
        if again {
            // What it was decided on did not come to be, or came to be before: it is decided again, and so is
            // whatever was answered on it.
            self.again(now, waiting.map(|w| w.asked), id, fx);
            return;
        }
        let ready = self.hold.applied(id.0);
        if let Some(Waiting { asked, answer }) = waiting {
            self.reply(asked.to, Outcome::Done(answer), fx);
        }
        self.give(ready, fx);
    }

    /// An entry took no effect: its own request, and those that were answered on it, are decided again.
    fn again(&mut self, now: Now, own: Option<Asked>, entry: CallId, fx: &mut Vec<Effect>) {
        let fell = self.hold.fell(entry.0).into_iter().map(|p| p.asked);
        let all: Vec<Asked> = own.into_iter().chain(fell).collect();
        for asked in all {
            self.decide(now, Asked { tries: asked.tries + 1, ..asked }, fx);
        }
    }

    /// Tells the bundle, the leader's own machines and the watchers.
    fn announce(&mut self, changes: Vec<Change>, fx: &mut Vec<Effect>) {
        if self.config.role == Role::Root {
            let shared: Vec<bundle::Change<'_>> = changes
                .iter()
                .filter(|c| Bundle::holds(&c.key.storage))
                .map(|c| bundle::Change {
                    storage: &c.key.storage,
                    name: &c.key.name,
                    tree: c.after.as_ref().map(Stored::tree),
                })
                .collect();
            // Numbered by these changes, not by the state: entries of one batch are applied together
            // and told one by one, and two bundles must not share a number.
            let number = changes.iter().map(|c| c.revision).max().unwrap_or_default();
            self.renew_bundle(number, shared, fx);
        }
        let mut by_storage: BTreeMap<Arc<str>, Vec<Change>> = BTreeMap::new();
        for c in &changes {
            if self.subscribed.contains_key(&c.key.storage) {
                by_storage.entry(c.key.storage.clone()).or_default().push(c.clone());
            }
        }
        for (storage, changes) in by_storage {
            fx.push(Effect::Events { storage, changes: changes.into() });
        }
        // The leader's machines come last: what they do about it may end the namespace, and whoever watches is
        // to hear of its last objects before that.
        if self.leading {
            let objects = self.objects();
            fx.push(Effect::Committed { term: self.term, objects, changes: changes.into() });
        }
    }

    /// Root's configuration after an entry. Its number is that of the state there, whether or not what changed is part of
    /// it: a member that is told the state as a whole numbers it so, too.
    fn renew_bundle(&mut self, number: Revision, shared: Vec<bundle::Change<'_>>, fx: &mut Vec<Effect>) {
        if self.config.role != Role::Root || number <= self.bundle.number() {
            return;
        }
        self.bundle = Arc::new(self.bundle.with(number, shared));
        if self.leading {
            self.tell_bundle(fx);
        }
    }

    /// Tells the bundle, if it is newer than the one told last.
    fn tell_bundle(&mut self, fx: &mut Vec<Effect>) {
        if self.bundle.number() > self.bundle_told {
            self.bundle_told = self.bundle.number();
            fx.push(Effect::Bundle(self.bundle.clone()));
        }
    }

    fn on_dropped(&mut self, now: Now, id: CallId, why: Why, fx: &mut Vec<Effect>) {
        if self.flight.withdraw(id.0) {
            // What was proposed on top of it fails its preconditions and is decided again.
            if let Some(waiting) = self.proposed.remove(id) {
                let outcome = match why {
                    Why::NotLeader { .. } | Why::Overwritten => Outcome::NotLeader,
                    Why::Busy | Why::Refused => Outcome::Busy,
                    Why::Unknown => Outcome::Unknown,
                };
                self.reply(waiting.asked.to, outcome, fx);
            } else {
                // One of the cell's own, for which nobody else asks again.
                (self.bound, self.rebind) = (0, true);
            }
            if why == Why::Busy {
                return self.again(now, None, id, fx);
            }
            // Leadership is going: what was answered on it is for the next leader to say.
            for pending in self.hold.fell(id.0) {
                self.reply(pending.asked.to, Outcome::NotLeader, fx);
            }
            return;
        }
        // A read has no effect: it may always be asked again.
        for pending in self.hold.refused(id.0) {
            self.reply(pending.asked.to, Outcome::NotLeader, fx);
        }
    }

    /// Leadership is gone, and with it whatever was decided and not committed.
    fn step_down(&mut self, fx: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.leading) {
            return;
        }
        self.flight.clear();
        self.bound = 0;
        let mut lost: Vec<(ReplyTo, Outcome)> = Vec::new();
        lost.extend(self.proposed.take().map(|w| (w.asked.to, Outcome::Unknown)));
        lost.extend(self.hold.clear().into_iter().map(|p| (p.asked.to, Outcome::NotLeader)));
        self.closing = None;
        self.to_close = Revision::ZERO;
        lost.extend(std::mem::take(&mut self.collects).into_iter().map(|c| (c.to, Outcome::NotLeader)));
        lost.extend(std::mem::take(&mut self.futures).into_iter().map(|f| (f.to, Outcome::NotLeader)));
        for (to, outcome) in lost {
            self.reply(to, outcome, fx);
        }
        fx.push(Effect::Leading(false));
    }

    pub(super) fn give(&mut self, ready: Vec<Pending>, fx: &mut Vec<Effect>) {
        for pending in ready {
            self.finish(pending, fx);
        }
    }

    pub(super) fn reply(&mut self, to: ReplyTo, outcome: Outcome, fx: &mut Vec<Effect>) {
        fx.push(Effect::Reply(Reply { to, outcome }));
    }

    /// The state as a whole is new: root's bundle is made of it.
    pub(super) fn make_bundle(&mut self) {
        if self.config.role != Role::Root {
            return;
        }
        let state = self.state();
        let trees: Vec<_> = bundle::SECTIONS
            .iter()
            .flat_map(|storage| records::scan(state, storage, None).map(|(name, s)| (*storage, name, s.tree())))
            .collect();
        let changes = trees.iter().map(|(storage, name, t)| bundle::Change { storage, name, tree: Some(t.clone()) });
        self.bundle = Arc::new(Bundle::default().with(state.revision(), changes));
    }
}
