//! Snapshots, piece by piece, out and in.

use super::*;

impl Replica {
    pub(super) fn begin_snapshot(&mut self, now: Time, to: ReplicaId, snapshot: &Snapshot, fx: &mut Vec<Effect>) {
        let metadata = snapshot.get_metadata();
        let (index, term) = (metadata.index, metadata.term);
        if let Some(old) = self.leader.sending.remove(&to) {
            fx.push(Effect::SnapshotDone { to, index: old.index });
        }
        let members = Members::from_conf_state(metadata.get_conf_state());
        let sending = Sending {
            index,
            term,
            members,
            number: 0,
            last: false,
            sent: now,
            progressed: now,
            again: false,
            most: 0,
            back: None,
        };
        self.leader.sending.insert(to, sending);
        fx.push(Effect::WantPiece { to, index, number: 0 });
    }

    pub(super) fn on_piece_made(
        &mut self,
        now: Time,
        to: ReplicaId,
        index: u64,
        number: u32,
        data: Option<(Bytes, bool)>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(s) = self.leader.sending.get_mut(&to).filter(|s| (s.index, s.number) == (index, number)) else {
            return;
        };
        let Some((data, last)) = data else { return self.end_snapshot(to, false, fx) };
        (s.last, s.sent) = (last, now);
        let members = if number == 0 { s.members.clone() } else { Members::default() };
        let body = Body::Piece { index, index_term: s.term, number, last, members, data };
        self.say(to, body, fx);
    }

    pub(super) fn on_piece_arrived(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: u64,
        index: u64,
        next: u32,
        fx: &mut Vec<Effect>,
    ) {
        if term > self.term() {
            return;
        }
        let Some(s) = self.leader.sending.get_mut(&from).filter(|s| s.index == index) else { return };
        if next == s.number + 1 {
            if s.last {
                return self.end_snapshot(from, true, fx);
            }
            (s.number, s.progressed, s.again, s.back) = (next, now, false, None);
            s.most = s.most.max(next);
            fx.push(Effect::WantPiece { to: from, index, number: next });
        } else if next != s.number && next <= s.most + 1 && (next == 0 || s.again) {
            // It has started anew and knows nothing of the pieces it took; or what was on its way to and from it then
            // made either believe otherwise. An answer that is older than it seems is corrected by the next one; to go
            // back means to make all pieces before that again, so it takes two.
            if next > s.number {
                s.progressed = now;
            } else if next > 0 && s.back.replace(next) != Some(next) {
                return;
            }
            (s.number, s.again, s.back) = (next, false, None);
            s.most = s.most.max(next);
            fx.push(Effect::WantPiece { to: from, index, number: next });
        }
    }

    pub(super) fn resend_piece(&mut self, now: Time, to: ReplicaId, fx: &mut Vec<Effect>) {
        let Some(s) = self.leader.sending.get_mut(&to) else { return };
        if now.since(s.progressed) > SNAPSHOT_PATIENCE {
            self.end_snapshot(to, false, fx);
        } else if now.since(s.sent) >= self.config.lease {
            (s.sent, s.again) = (now, true);
            fx.push(Effect::WantPiece { to, index: s.index, number: s.number });
        }
    }

    pub(super) fn end_snapshot(&mut self, to: ReplicaId, arrived: bool, fx: &mut Vec<Effect>) {
        if let Some(s) = self.leader.sending.remove(&to) {
            fx.push(Effect::SnapshotDone { to, index: s.index });
            let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
            self.raw.report_snapshot(to.0, status);
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn on_piece(
        &mut self,
        from: ReplicaId,
        term: u64,
        (index, index_term): (u64, u64),
        (number, last): (u32, bool),
        members: Members,
        data: Bytes,
        fx: &mut Vec<Effect>,
    ) {
        if self.is_leader() && term == self.term() {
            return;
        }
        // A piece says who leads, as an append does; the library is told by what is a heartbeat to it. It answers a
        // leader whose term is over: whoever is sent a snapshot is sent nothing else that could tell that leader.
        self.library(MessageType::MsgHeartbeat, from, term, |_| {});
        if term < self.term() {
            return;
        }
        self.after_leader_spoke(from, term, fx);
        if index <= self.raw.raft.raft_log.committed {
            // Already here: the library answers with what it has, and the leader goes on from there.
            let body = Body::PieceArrived { index, next: number + 1 };
            return self.say(from, body, fx);
        }
        // The first piece begins anew what is not whole: a snapshot that was given up and begun again at the same index
        // may be cut otherwise. One that comes late costs the sender two more questions.
        let other = |s: &Staging| (s.from, s.leader_term, s.index) != (from, term, index) || !s.whole;
        if number == 0 && self.staging.as_ref().is_none_or(other) {
            let members = members.clone();
            let (leader_term, next, whole) = (term, 0, false);
            self.staging = Some(Staging { from, leader_term, index, index_term, members, next, whole });
        }
        let next = match self.staging.as_mut().filter(|s| (s.from, s.leader_term, s.index) == (from, term, index)) {
            None => 0,
            Some(s) => {
                if number == s.next && !s.whole {
                    s.next += 1;
                    s.whole = last;
                    fx.push(Effect::StagePiece { index, number, last, members, data });
                }
                s.next
            }
        };
        self.say(from, Body::PieceArrived { index, next }, fx);
    }

    pub(super) fn on_staged(&mut self, index: u64, checkpoint: Option<Bytes>, fx: &mut Vec<Effect>) {
        let Some(s) = self.staging.take_if(|s| s.index == index && s.whole) else { return };
        let Some(body) = checkpoint else { return };
        let mut snapshot = Snapshot { data: body.into(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, s.index_term);
        metadata.conf_state = Some(s.members.to_conf_state());
        self.library(MessageType::MsgSnapshot, s.from, s.leader_term, |m| m.snapshot = Some(snapshot));
        self.after_leader_spoke(s.from, s.leader_term, fx);
    }
}
