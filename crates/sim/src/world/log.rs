//! A keeper's log and its disk in the world: how long a sync takes, and what the power leaves of it.

use super::{Event, Local, MS, World};
use crate::checks::{Checked, Violation, ensure};
use crate::ports::Bug;
use agree::log::{Answer, Command, Config, Log, Notice, Persist, Record, Recovered, Recovery, Refusal, Space, Ticket};
use base::CellId;
use base::disk::{self, Machine as _, Op, Recovery as _};
use node::cell::Input;

/// Small, so that old segments go in every run; and larger than the genesis of root, which is one write.
const SEGMENT_BYTES: u64 = 512 << 10;

impl World {
    /// Reads what the disk holds, as a node does when it starts.
    pub(super) fn open_log(&mut self, node: usize) -> Result<(Log, Recovered), Violation> {
        let k = &self.keepers[node];
        let config = Config {
            segment_bytes: SEGMENT_BYTES,
            frame_bytes: 256 << 10,
            slack_bytes: 0,
            // The operator has been told, and there are other keepers.
            accept_loss: k.rotten,
            ..Config::new(node as u128 + 1)
        };
        let mut recovery = Recovery::new(config, &k.disk.found());
        while let Some((segment, offset, bytes)) = recovery.next_read() {
            recovery.read(k.disk.read(segment, offset, bytes));
        }
        let opened = recovery.finish();
        let (log, found) = opened
            .map_err(|e| Violation { checker: "invariant", what: format!("node {node} cannot read its log: {e}") })?;
        ensure("invariant", found.holes.is_empty() || k.rotten, || {
            format!("node {node} took a torn write for a loss: {:?}", found.holes)
        })?;
        self.counts.torn += u64::from(found.torn.is_some());
        Ok((log, found))
    }

    /// A cell wants something written.
    pub(super) fn persist(&mut self, node: usize, mut persist: Persist) -> Checked {
        let cell = persist.cell;
        if let Some(truth) = self.truths.get_mut(&cell) {
            truth.log.logs(node, &persist.records)?;
        }
        let early = self.note_votes(node, cell, persist.ticket, &persist.records);
        if self.bug == Bug::VoteNotPersisted {
            forget_votes(&mut persist.records);
        }
        if self.bug == Bug::ChangeForgotten {
            forget_changes(&mut persist.records);
        }
        let ticket = persist.ticket;
        if let Some(seat) = self.keepers[node].up.as_mut().and_then(|u| u.seats.get_mut(&cell)) {
            seat.refused.remove(&ticket);
            if matches!(persist.records.first(), Some(Record::Forget { .. })) {
                seat.last = Some(ticket);
            }
        }
        self.command(node, Command::Persist(persist));
        if self.bug == Bug::AckBeforeFsync && early {
            self.local.push_back(Local::Cell(node, cell, Input::Durable(ticket)));
        }
        Ok(())
    }

    /// A cell has said what is live in a segment that is to go.
    pub(super) fn carried(&mut self, node: usize, cell: CellId, question: u64, mut persist: Persist) {
        self.counts.rewrites += 1;
        if self.bug == Bug::VoteNotPersisted {
            forget_votes(&mut persist.records);
        }
        self.command(node, Command::Carried { question, cell, answer: Answer::Live(persist) });
    }

    /// Whether no new vote is among these records, nor under way.
    fn note_votes(&mut self, node: usize, cell: CellId, ticket: Ticket, records: &[Record]) -> bool {
        let seat = self.keepers[node].up.as_mut().and_then(|u| u.seats.get_mut(&cell));
        let Some(seat) = seat else { return false };
        for record in records {
            if let Record::Hard { term, vote, .. } = record
                && seat.voted != (*term, *vote)
            {
                seat.voted = (*term, *vote);
                seat.votes.push(ticket);
            }
        }
        seat.votes.is_empty()
    }

    /// The log takes it once whoever says it is through with its step.
    pub(super) fn command(&mut self, node: usize, command: Command) {
        self.local.push_back(Local::Log(node, command));
    }

    /// Nothing more comes for now: what was gathered may go to the disk.
    pub(super) fn drained(&mut self, node: usize) -> Checked {
        self.step_log(node, disk::Input::Drained)?;
        self.work_disk(node)
    }

    pub(super) fn step_log(&mut self, node: usize, input: disk::Input<Command>) -> Checked {
        let now = self.keepers[node].now(self.now);
        let Some(up) = &mut self.keepers[node].up else { return Ok(()) };
        let mut fx = Vec::new();
        up.log.step(now, input, &mut fx);
        up.log.check();
        for effect in fx {
            match effect {
                disk::Effect::Disk(op) => {
                    if let Some(up) = &mut self.keepers[node].up {
                        up.ops.push_back(op);
                    }
                }
                disk::Effect::Notice(notice) => self.hear_log(node, notice)?,
                disk::Effect::Fatal(why) => return Err(Violation { checker: "invariant", what: why }),
            }
        }
        Ok(())
    }

    /// Lets the disk work: what takes long is answered later, the rest at once.
    fn work_disk(&mut self, node: usize) -> Checked {
        loop {
            let k = &mut self.keepers[node];
            let Some(up) = k.up.as_mut().filter(|u| !u.busy) else { return Ok(()) };
            let Some(op) = up.ops.front() else { return Ok(()) };
            if matches!(op, Op::Sync { .. } | Op::Prepare { .. }) {
                up.busy = true;
                let boot = k.boot;
                let dice = &mut self.dice.disk;
                let slow = self.faults && dice.happens(10_000);
                let delay = if slow { dice.range(100, 1_500) } else { dice.range(1, 2 + self.sync_ms) };
                self.at(delay * MS, Event::Disk { node, boot });
                return Ok(());
            }
            self.perform(node)?;
        }
    }

    /// What the disk was at is done.
    pub(super) fn disk_done(&mut self, node: usize) -> Checked {
        if let Some(up) = &mut self.keepers[node].up {
            up.busy = false;
        }
        self.perform(node)?;
        self.work_disk(node)?;
        self.settle()
    }

    fn perform(&mut self, node: usize) -> Checked {
        let k = &mut self.keepers[node];
        let Some(op) = k.up.as_mut().and_then(|u| u.ops.pop_front()) else { return Ok(()) };
        let done = k.disk.perform(op);
        self.step_log(node, disk::Input::Done(done))?;
        self.step_log(node, disk::Input::Drained)
    }

    fn hear_log(&mut self, node: usize, notice: Notice) -> Checked {
        let Some(up) = &mut self.keepers[node].up else { return Ok(()) };
        match notice {
            Notice::Durable { cell, ticket } => {
                if let Some(seat) = up.seats.get_mut(&cell) {
                    // What ends a life needs nothing of what came before.
                    let whole = seat.last == Some(ticket) || seat.refused.first().is_none_or(|t| *t > ticket);
                    ensure("invariant", whole, || {
                        format!("node {node} has {ticket:?} of {cell} on its disk, and refused {:?}", seat.refused)
                    })?;
                    seat.votes.retain(|t| *t > ticket);
                    self.local.push_back(Local::Cell(node, cell, Input::Durable(ticket)));
                }
            }
            Notice::Refused { why: Refusal::Closing | Refusal::Lossy | Refusal::TooLarge, .. } => {}
            Notice::Refused { cell, ticket, .. } => {
                if let Some(seat) = up.seats.get_mut(&cell) {
                    seat.refused.insert(ticket);
                }
                self.local.push_back(Local::Cell(node, cell, Input::NotWritten(ticket)));
            }
            Notice::Space(space) => {
                let ample = space == Space::Ample;
                let cells: Vec<CellId> = up.seats.keys().copied().collect();
                self.local.extend(cells.into_iter().map(|c| Local::Cell(node, c, Input::Space { ample })));
            }
            Notice::Carry { question, segment, cell, records } => {
                let input = Input::Rewrite { question, segment, records };
                if up.seats.contains_key(&cell) {
                    self.local.push_back(Local::Cell(node, cell, input));
                } else if up.recovered.contains_key(&cell) {
                    // Known from the log and not seated yet: what it has there may be live.
                    up.parked.push((cell, input));
                } else {
                    self.command(node, Command::Carried { question, cell, answer: Answer::Nothing });
                }
            }
            Notice::Damaged { segment, offset } => {
                let rotten = self.keepers[node].rotten;
                ensure("invariant", rotten, || {
                    format!("node {node} reads back segment {segment} at {offset} otherwise than it was written")
                })?;
            }
            Notice::Closed => {}
        }
        Ok(())
    }
}

/// The bug at the disk's port: for whom a replica has voted is not kept.
fn forget_votes(records: &mut [Record]) {
    for record in records {
        if let Record::Hard { vote, .. } = record {
            *vote = 0;
        }
    }
}

fn forget_changes(records: &mut [Record]) {
    for record in records {
        if let Record::Entry { kind, payload, .. } = record
            && *kind > 0
        {
            (*kind, *payload) = (0, bytes::Bytes::new());
        }
    }
}
