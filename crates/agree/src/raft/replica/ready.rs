//! What the library hands out: records, messages, entries, a change of part.

use super::*;

impl Replica {
    pub(super) fn on_durable(&mut self, ticket: Ticket, fx: &mut Vec<Effect>) {
        let mut number = None;
        while let Some((_, n)) = self.outstanding.pop_front_if(|o| o.0 <= ticket) {
            number = n.or(number);
        }
        if let Some(number) = number {
            self.raw.on_persist_ready(number);
        }
        if self.changing.take_if(|t| *t <= ticket).is_some()
            && let Some(leader) = replica(self.raw.raft.leader_id).filter(|l| *l != self.me())
        {
            self.tell_members(leader, fx);
        }
        if let Some((_, index)) = self.installing.take_if(|i| i.0 <= ticket) {
            self.raw.advance_apply_to(index);
        }
        while let Some((_, bound)) = self.bounds.pop_front_if(|b| b.0 <= ticket) {
            self.voter.revision = bound;
        }
        while let Some((_, to, term, revision)) = self.closing.pop_front_if(|c| c.0 <= ticket) {
            if term == self.term() {
                self.hold_closed(to, revision, fx);
            }
        }
    }

    pub(super) fn drain(&mut self, now: Time, fx: &mut Vec<Effect>) {
        loop {
            self.note_role(now, fx);
            if self.raw.has_ready() {
                self.take_ready(now, fx);
                continue;
            }
            if self.is_leader() && !self.leader.ready && self.raw.raft.apply_to_current_term() {
                self.leader.ready = true;
                let floor = self.leader.floor.max(self.voter.revision_asked);
                fx.push(Effect::Leading { term: self.term(), floor });
            }
            if !self.conclude_change(now) {
                break;
            }
        }
        if self.is_leader() {
            self.answer_reads(now, fx);
        }
    }

    pub(super) fn take_ready(&mut self, now: Time, fx: &mut Vec<Effect>) {
        let mut ready = self.raw.ready();
        let mut records = Vec::new();
        let (cell, replica) = (self.config.cell, self.me());
        if let Some(hard) = ready.hs() {
            self.raw.mut_store().set_hard(hard.clone());
        }
        if ready.must_sync() {
            // A commit index alone is worth no write: it is found again. It rides along with others, and of
            // durable entries only, so that one beyond the end of a log tells of a loss.
            let hard = self.raw.store().hard();
            let hard = (hard.term, hard.vote, hard.commit.min(self.raw.raft.raft_log.persisted));
            if self.hard_logged != hard {
                let (term, vote, commit) = hard;
                records.push(Record::Hard { cell, replica, term, vote, commit });
                self.hard_logged = hard;
            }
        }
        let installed = (!ready.snapshot().is_empty()).then(|| {
            let metadata = ready.snapshot().get_metadata();
            let members = Members::from_conf_state(metadata.get_conf_state());
            (metadata.index, metadata.term, members)
        });
        if let Some((index, term, members)) = installed.clone() {
            let body = Bytes::copy_from_slice(ready.snapshot().get_data());
            records.push(Record::Checkpoint { cell, replica, applied_index: index, applied_term: term, body });
            self.raw.mut_store().install(index, term, members);
        }
        records.extend(ready.entries().iter().map(|e| self.entry_record(e)));
        self.raw.mut_store().append(ready.entries());

        let number = ready.number();
        if !records.is_empty() {
            let ticket = self.ticket();
            self.outstanding.push_back((ticket, Some(number)));
            fx.push(Effect::Persist { ticket, records });
        } else if let Some(last) = self.outstanding.back_mut() {
            // Nothing of its own to write, but nothing after an unwritten one counts as persisted.
            last.1 = Some(number);
        }
        let after = self.outstanding.back().map(|o| o.0);
        if let Some((index, term, _)) = installed {
            self.installing = after.map(|t| (t, index));
            (self.changed, self.changing) = (index, after);
            self.applied = index;
            fx.push(Effect::Install { index, term });
        }
        for m in ready.take_messages() {
            self.send(now, m, None, fx);
        }
        for m in ready.take_persisted_messages() {
            self.send(now, m, after, fx);
        }
        for e in ready.take_committed_entries() {
            self.apply(e, fx);
        }
        self.raw.advance_append_async(ready);
        if after.is_none() {
            self.raw.on_persist_ready(number);
        }
        if self.installing.is_none() {
            self.raw.advance_apply_to(self.applied);
        }
    }

    pub(super) fn apply(&mut self, e: eraftpb::Entry, fx: &mut Vec<Effect>) {
        self.applied = e.index;
        self.raw.mut_store().set_applied(e.index, e.term);
        let id = match self.proposals.remove(&e.index) {
            Some((term, id)) if term == e.term => Some(id),
            Some((_, id)) => {
                fx.push(Effect::Dropped { id, why: Why::Overwritten });
                None
            }
            None => None,
        };
        if e.get_entry_type() != EntryType::EntryNormal {
            return self.apply_change(&e, id, fx);
        }
        fx.push(Effect::Committed { index: e.index, term: e.term, payload: e.data.into(), id });
    }

    /// Says what changed in part, term or leader since it was last noted.
    pub(super) fn note_role(&mut self, now: Time, fx: &mut Vec<Effect>) {
        let raft = &self.raw.raft;
        let present = (raft.state, raft.term, raft.leader_id);
        let before = core::mem::replace(&mut self.seen, present);
        if before == present {
            return;
        }
        let (led, leads) = (before.0 == StateRole::Leader, present.0 == StateRole::Leader);
        if led && (!leads || before.1 != present.1) {
            self.stop_leading(now, before.1, fx);
        }
        if present.1 > before.1 {
            // Nobody may be answered for a leader of an earlier term.
            self.unfollow_below(present.1, fx);
        }
        if leads && !(led && before.1 == present.1) {
            let floor = if self.leader.floor_term == present.1 { self.leader.floor } else { Revision::ZERO };
            self.leader = Leader { since: now, floor, floor_term: present.1, ..Leader::default() };
            self.leader.led = self.others();
            fx.push(Effect::Lead { term: present.1, to: self.leader.led.clone() });
        }
        if role_of(before.0, before.2) != role_of(present.0, present.2) {
            fx.push(Effect::Role(role_of(present.0, present.2)));
        }
        if !leads && self.voter.campaign_at == Time::NEVER && self.voter.bound.values().all(|b| b.withdrawing) {
            self.voter.campaign_at = now + self.config.patience + self.jitter();
        }
    }

    pub(super) fn stop_leading(&mut self, now: Time, term: u64, fx: &mut Vec<Effect>) {
        let to = core::mem::take(&mut self.leader.led);
        if !to.is_empty() {
            fx.push(Effect::Unlead { term, to });
        }
        let leader = replica(self.raw.raft.leader_id);
        for (_, (_, id)) in core::mem::take(&mut self.proposals) {
            fx.push(Effect::Dropped { id, why: Why::Unknown });
        }
        for read in core::mem::take(&mut self.reads) {
            fx.push(Effect::Dropped { id: read.id, why: Why::NotLeader { leader } });
        }
        for (to, s) in core::mem::take(&mut self.leader.sending) {
            fx.push(Effect::SnapshotDone { to, index: s.index });
        }
        self.leader = Leader::default();
        self.voter.campaign_at = now + self.config.patience + self.jitter();
    }

    pub(super) fn send(&mut self, now: Time, m: eraftpb::Message, after: Option<Ticket>, fx: &mut Vec<Effect>) {
        let Some(to) = replica(m.to) else { return };
        let candidate =
            Candidate { last_index: m.index, last_term: m.log_term, commit: m.commit, commit_term: m.commit_term };
        let vote = Vote { granted: !m.reject, commit: m.commit, commit_term: m.commit_term };
        let body = match m.get_msg_type() {
            MessageType::MsgAppend => Body::Append {
                prev_index: m.index,
                prev_term: m.log_term,
                commit: m.commit,
                entries: m.entries.into_iter().map(from_library).collect(),
            },
            MessageType::MsgAppendResponse if m.reject => Body::AppendRefused {
                index: m.index,
                hint_index: m.reject_hint,
                hint_term: m.log_term,
                commit: m.commit,
            },
            MessageType::MsgAppendResponse => Body::Appended { index: m.index, commit: m.commit },
            MessageType::MsgRequestPreVote => Body::AskPreVote(candidate),
            MessageType::MsgRequestPreVoteResponse => Body::PreVote(vote),
            MessageType::MsgRequestVote => Body::AskVote { candidate, transfer: m.context == TRANSFER },
            MessageType::MsgRequestVoteResponse => Body::Vote { vote, bound: self.voter.revision_asked },
            MessageType::MsgTimeoutNow => Body::TimeoutNow,
            MessageType::MsgSnapshot => return self.begin_snapshot(now, to, m.get_snapshot(), fx),
            // Heartbeats are the pair's; proposals and reads are never forwarded.
            _ => return,
        };
        let message =
            Message { cell: self.config.cell, epoch: self.config.epoch, from: self.me(), to, term: m.term, body };
        fx.push(Effect::Send { after, message });
    }
}
