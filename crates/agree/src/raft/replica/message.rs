//! What other replicas say.

use super::*;

impl Replica {
    pub(super) fn on_message(&mut self, now: Time, m: Message, fx: &mut Vec<Effect>) {
        if m.cell != self.config.cell || m.to != self.me() || m.from == self.me() || m.epoch < self.config.epoch {
            return;
        }
        let (from, term) = (m.from, m.term);
        if self.is_blank() && matches!(m.body, Body::AskVote { .. } | Body::AskPreVote(_) | Body::TimeoutNow) {
            return;
        }
        if self.lossy {
            if matches!(m.body, Body::Append { .. } | Body::AskVote { .. } | Body::AskPreVote(_) | Body::Piece { .. }) {
                self.say(from, Body::Lossy, fx);
            }
            return;
        }
        match m.body {
            Body::AskPreVote(c) => self.on_ask(now, from, term, MessageType::MsgRequestPreVote, c, false, fx),
            Body::AskVote { candidate, transfer } => {
                self.on_ask(now, from, term, MessageType::MsgRequestVote, candidate, transfer, fx);
            }
            Body::TimeoutNow if term == self.term() && self.raw.raft.leader_id == from.0 => {
                if self.voter.bound.is_empty() {
                    if self.may_campaign() {
                        self.voter.campaign_at = now + self.config.patience + self.jitter();
                        self.library(MessageType::MsgTimeoutNow, from, term, |_| {});
                    }
                } else {
                    self.unfollow_below(u64::MAX, fx);
                    self.voter.held = Some(self.held(from, term, Body::TimeoutNow));
                }
            }
            Body::TimeoutNow => {}
            Body::Append { prev_index, prev_term, commit, entries } => {
                // What a newer release wrote cannot be applied: the mesh level keeps it away.
                if entries.iter().any(|e| !change::is_known(e.kind, &e.payload)) {
                    return;
                }
                // Who the members are at its beginning stands in no entry.
                if self.is_blank() {
                    return self.say(from, Body::Blank, fx);
                }
                self.library(MessageType::MsgAppend, from, term, |m| {
                    m.index = prev_index;
                    m.log_term = prev_term;
                    m.commit = commit;
                    m.entries = entries.into_iter().map(to_library).collect();
                });
                self.after_leader_spoke(from, term, fx);
                self.tell_members(from, fx);
            }
            Body::Appended { index, commit } => {
                self.library(MessageType::MsgAppendResponse, from, term, |m| {
                    m.index = index;
                    m.commit = commit;
                });
                // The library takes the highest that was ever said; but who has started anew may know less. A late
                // answer that is too low costs one more append; one from before a start, too high, can hide what that
                // start has lost until the next entry.
                if self.is_leader()
                    && term == self.term()
                    && let Some(p) = self.raw.raft.mut_prs().get_mut(from.0)
                {
                    p.committed_index = commit;
                }
            }
            Body::AppendRefused { index, hint_index, hint_term, commit } => {
                self.library(MessageType::MsgAppendResponse, from, term, |m| {
                    m.index = index;
                    m.reject = true;
                    m.reject_hint = hint_index;
                    m.log_term = hint_term;
                    m.commit = commit;
                });
            }
            Body::PreVote(vote) => self.on_vote(MessageType::MsgRequestPreVoteResponse, from, term, vote),
            Body::Vote { vote, bound } => {
                if self.leader.floor_term < term {
                    (self.leader.floor_term, self.leader.floor) = (term, Revision::ZERO);
                }
                if vote.granted && self.leader.floor_term == term {
                    self.leader.floor = self.leader.floor.max(bound);
                }
                self.on_vote(MessageType::MsgRequestVoteResponse, from, term, vote);
            }
            Body::Piece { index, index_term, number, last, members, data } => {
                self.on_piece(from, term, (index, index_term), (number, last), members, data, fx);
            }
            Body::PieceArrived { index, next } => self.on_piece_arrived(now, from, term, index, next, fx),
            Body::Close { revision, .. } => self.on_asked_to_close(from, term, revision, fx),
            Body::Closed { revision } => self.on_closed(from, term, revision, fx),
            Body::Blank => self.on_blank(now, from, term, fx),
            Body::Members { index } => self.on_members(from, term, index),
            Body::Lossy => fx.push(Effect::PeerLossy { replica: from }),
        }
    }

    pub(super) fn held(&self, from: ReplicaId, term: u64, body: Body) -> Message {
        Message { cell: self.config.cell, epoch: self.config.epoch, from, to: self.me(), term, body }
    }

    /// Hands the library a message. Its errors are those of messages from strangers, which it ignores.
    pub(super) fn library(
        &mut self,
        kind: MessageType,
        from: ReplicaId,
        term: u64,
        fill: impl FnOnce(&mut eraftpb::Message),
    ) {
        let mut m = eraftpb::Message { from: from.0, to: self.me().0, term, ..eraftpb::Message::default() };
        m.set_msg_type(kind);
        fill(&mut m);
        let _ = self.raw.step(m);
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn on_ask(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: u64,
        kind: MessageType,
        c: Candidate,
        transfer: bool,
        fx: &mut Vec<Effect>,
    ) {
        if transfer {
            // The old leader ended its lease before it asked for this election, so no promise stands in
            // the way; but nothing may be answered on this voter's behalf after it has voted.
            if term <= self.term() {
                return;
            }
            if !self.voter.bound.is_empty() {
                self.unfollow_below(u64::MAX, fx);
                self.voter.held = Some(self.held(from, term, Body::AskVote { candidate: c, transfer }));
                return;
            }
        } else if self.lease_until(now).is_some() || !self.voter.bound.is_empty() || now < self.voter.hold_until {
            return;
        }
        self.library(kind, from, term, |m| {
            m.index = c.last_index;
            m.log_term = c.last_term;
            m.commit = c.commit;
            m.commit_term = c.commit_term;
            if transfer {
                m.context = TRANSFER.to_vec();
            }
        });
        let raft = &self.raw.raft;
        if kind == MessageType::MsgRequestVote && raft.vote == from.0 && raft.term == term {
            self.voter.campaign_at = now + self.config.patience + self.jitter();
        }
    }

    pub(super) fn on_vote(&mut self, kind: MessageType, from: ReplicaId, term: u64, vote: Vote) {
        self.library(kind, from, term, |m| {
            m.reject = !vote.granted;
            m.commit = vote.commit;
            m.commit_term = vote.commit_term;
        });
    }

    pub(super) fn after_leader_spoke(&mut self, from: ReplicaId, term: u64, fx: &mut Vec<Effect>) {
        let raft = &self.raw.raft;
        if raft.state == StateRole::Follower && raft.leader_id == from.0 && raft.term == term {
            self.unfollow_below(term, fx);
            self.follow(from, term, fx);
        }
    }
}
