//! The state machine under a cell's log.

use super::commit::Commit;
use super::forward::Under;
use super::history::{Bounds, History};
use super::keepers::{Changed, Keepers};
use super::requests::Requests;
use super::state::{After, Applied, Conflict, Record, State};
use crate::codec::{DecodeError, Reader, Writer};
use crate::descriptor::Keeper;
use crate::log;
use crate::raft::Members;
use crate::raft::message::revision;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use base::{CellId, Clock, NodeId, Origin, ReplicaId, Revision, Wall};
use bytes::Bytes;

/// A checkpoint is due after this many entries...
const CHECKPOINT_ENTRIES: u64 = 10_000;
/// ...or this many bytes of payload, whichever comes first.
const CHECKPOINT_BYTES: u64 = 16 << 20;

/// What a cell is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cell.
    pub cell: CellId,
    /// This life of this member.
    pub replica: ReplicaId,
    /// Where it lives.
    pub node: NodeId,
    /// The tag in the revisions it mints.
    pub origin: Origin,
    /// How much history is kept.
    pub history: Bounds,
    /// What the cell is for, in the words of whoever keeps it: every checkpoint says it, so that a node that starts
    /// knows what to make of what it finds ([`super::recorded`]). A few dozen bytes.
    pub purpose: Bytes,
}

impl Config {
    /// A cell whose tag is taken from its id, with the default history, and with no purpose.
    pub fn new(cell: CellId, replica: ReplicaId, node: NodeId) -> Config {
        let origin = Origin::mainline((cell.0.0 >> 96) as u16);
        Config { cell, replica, node, origin, history: Bounds::default(), purpose: Bytes::new() }
    }
}

/// What became of an entry. The same on each replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It held no commit: a new leader's own entry.
    Nothing,
    /// These changes happened.
    Applied(Vec<Applied>),
    /// A precondition does not hold; nothing happened.
    Conflict(Conflict),
    /// An earlier entry carried out the same request; nothing happened.
    Repeated,
}

/// The objects of a cell, the requests it carried out, its recent history, its clock, and how far its log
/// is applied.
#[derive(Debug)]
pub struct Cell {
    pub(super) config: Config,
    pub(super) state: State,
    pub(super) history: History,
    pub(super) requests: Requests,
    pub(super) applied: (u64, u64),
    /// Entries at or below `applied` that changed nothing though they hold a commit: recovery must not
    /// take their changes for facts. Next to none: leaders decide on what they know to hold.
    pub(super) skipped: BTreeSet<u64>,
    pub(super) bundle: u64,
    keepers: Keepers,
    clock: Clock,
    /// Objects were carried forward while entries up to here were not applied yet: what those delete
    /// needs a mark after what was carried.
    pub(super) carried_until: u64,
    pub(super) under: Under,
    entries_since_checkpoint: u64,
    bytes_since_checkpoint: u64,
}

impl Cell {
    /// A cell before its first entry.
    pub fn new(config: Config) -> Cell {
        let history = History::new(config.history.clone(), Revision::ZERO);
        let clock = Clock::new(config.origin, Revision::ZERO);
        let keepers = Keepers::unknown(config.cell);
        Cell {
            config,
            state: State::default(),
            history,
            requests: Requests::default(),
            applied: (0, 0),
            skipped: BTreeSet::new(),
            bundle: 0,
            keepers,
            clock,
            carried_until: 0,
            under: Under::default(),
            entries_since_checkpoint: 0,
            bytes_since_checkpoint: 0,
        }
    }

    /// The objects; clone it for a snapshot.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The recent history; clone it for a snapshot.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The requests carried out lately.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The last entry applied: (index, term).
    pub fn applied(&self) -> (u64, u64) {
        self.applied
    }

    /// The greatest bundle number in the log as applied.
    pub fn bundle(&self) -> u64 {
        self.bundle
    }

    /// Who keeps it, as its log says so far.
    pub fn keepers(&self) -> &Keepers {
        &self.keepers
    }

    /// It begins with these.
    pub(super) fn begin_with(&mut self, keepers: Keepers) {
        self.keepers = keepers;
    }

    /// The clock, to see how far it has run ahead of the wall.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Mints a revision above all applied, minted and promised. For leaders only.
    pub fn mint(&mut self, wall: Wall) -> Revision {
        self.clock.mint(wall)
    }

    /// Nothing at or below `revision` will be minted: on becoming leader, the voters' bounds; before
    /// asking to close, T.
    pub fn mint_above(&mut self, revision: Revision) {
        self.clock.observe(revision);
    }

    /// Drops history that has grown too old; a resource in which nothing happens has no other occasion.
    pub fn expire(&mut self, wall: Wall) {
        self.history.expire(wall);
    }

    /// Applies the next entry. The second part of the answer must be logged ([`crate::raft::Replica::persist`]);
    /// it is all but always empty.
    ///
    /// # Errors
    /// [`DecodeError`]: a newer release wrote the entry, or memory is damaged. Nothing was changed, and
    /// nothing may be applied after it.
    pub fn apply(
        &mut self,
        index: u64,
        term: u64,
        payload: &Bytes,
    ) -> Result<(Outcome, Vec<log::Record>), DecodeError> {
        assert_eq!(index, self.applied.0 + 1, "entries are applied in order");
        let outcome = if payload.is_empty() { Outcome::Nothing } else { self.commit(&Commit::decode(payload)?) };
        self.applied = (index, term);
        self.entries_since_checkpoint += 1;
        self.bytes_since_checkpoint += payload.len() as u64;
        let mut marks = Vec::new();
        match &outcome {
            Outcome::Nothing => {}
            Outcome::Conflict(_) | Outcome::Repeated => {
                self.skipped.insert(index);
            }
            Outcome::Applied(changes) => {
                for change in changes {
                    if index <= self.carried_until && matches!(change.after, After::Deleted(_)) {
                        let record = Carried::Deleted { key: change.key.clone(), revision: change.revision };
                        marks.push(log::Record::Carried { cell: self.config.cell, record: record.encode() });
                    }
                    self.history.push(change.clone());
                }
            }
        }
        Ok((outcome, marks))
    }

    /// Applies the next entry, which changed who the members are to `members`.
    ///
    /// # Errors
    /// As [`Cell::apply`].
    pub fn change(&mut self, index: u64, term: u64, members: &Members, context: &Bytes) -> Result<(), DecodeError> {
        assert_eq!(index, self.applied.0 + 1, "entries are applied in order");
        let changed = if context.is_empty() { None } else { Some(Changed::decode(context)?) };
        if let Some(c) = &changed {
            self.state.raise_revision(c.floor);
            self.clock.observe(c.floor);
        }
        self.keepers.changed(members, changed.map(|c| c.descriptor));
        self.applied = (index, term);
        self.entries_since_checkpoint += 1;
        Ok(())
    }

    fn commit(&mut self, commit: &Commit) -> Outcome {
        self.bundle = self.bundle.max(commit.bundle);
        if commit.request.is_some_and(|r| matches!(self.requests.look(&r), super::Seen::Done(_))) {
            return Outcome::Repeated;
        }
        let changes = match self.state.apply(commit) {
            Ok(changes) => changes,
            Err(conflict) => return Outcome::Conflict(conflict),
        };
        let revision = self.state.revision();
        self.clock.observe(revision);
        match &commit.request {
            Some(r) => {
                let keys = commit.changes.iter().map(|c| Bytes::copy_from_slice(&c.key)).collect();
                self.requests.insert(r.id, keys, commit.last_revision().unwrap_or(revision));
            }
            None => self.requests.forget_before(revision),
        }
        Outcome::Applied(changes)
    }

    /// Whether enough was applied since the last checkpoint for another: also so much that writing
    /// checkpoints, which hold the requests of a minute, is never the greater part of what is written.
    pub fn checkpoint_due(&self) -> bool {
        (self.entries_since_checkpoint >= CHECKPOINT_ENTRIES || self.bytes_since_checkpoint >= CHECKPOINT_BYTES)
            && self.bytes_since_checkpoint >= self.under.bytes
    }

    /// A checkpoint of what is applied, to be logged.
    pub fn checkpoint(&mut self, members: &Members) -> log::Record {
        let body = self.checkpoint_body(members, 0).encode();
        self.rest_on(body.len() as u64);
        log::Record::Checkpoint {
            cell: self.config.cell,
            replica: self.config.replica,
            applied_index: self.applied.0,
            applied_term: self.applied.1,
            body,
        }
    }

    /// What is now is what the newest checkpoint in the log says, in `bytes` bytes.
    fn rest_on(&mut self, bytes: u64) {
        self.under = Under { index: self.applied.0, state: self.state.clone(), bytes };
        self.entries_since_checkpoint = 0;
        self.bytes_since_checkpoint = 0;
    }

    pub(super) fn checkpoint_body(&self, members: &Members, installs: u64) -> CheckpointBody {
        CheckpointBody {
            installs,
            revision: self.state.revision(),
            bundle: self.bundle,
            members: members.clone(),
            kept: Some((self.keepers.clone(), self.config.purpose.clone())),
            skipped: self.skipped.iter().copied().collect(),
            requests: self.requests.clone(),
        }
    }

    /// Becomes what a checkpoint and the objects under it say.
    pub(super) fn restore(
        &mut self,
        applied: (u64, u64),
        body: CheckpointBody,
        state: State,
        history: Option<History>,
    ) {
        self.applied = applied;
        self.state = state;
        self.state.raise_revision(body.revision);
        let revision = self.state.revision();
        self.history = history.unwrap_or_else(|| History::new(self.config.history.clone(), revision));
        self.requests = body.requests;
        self.skipped = body.skipped.into_iter().collect();
        self.bundle = body.bundle;
        let Config { cell, replica, node, .. } = self.config;
        // Whoever wrote it so kept the cell alone.
        let alone = || Keepers::founding(cell, alloc::vec![Keeper { replica, node, votes: true }]);
        self.keepers = body.kept.map_or_else(alone, |(keepers, _)| keepers);
        self.clock.observe(revision);
        self.rest_on(0);
    }
}

/// The body of a checkpoint. Version 1: `version u8`, `installs u64`, `revision u64`, `bundle u64`, members, the
/// skipped entries (a count and their indexes), requests. Version 2 has behind the members who keeps the cell (the
/// descriptor and the one before it, each as bytes, the second empty unless the members are joint) and what for (bytes).
#[derive(Clone, Debug)]
pub(super) struct CheckpointBody {
    /// Not 0: the objects staged under this number are the state, and all that stood before is void.
    pub(super) installs: u64,
    pub(super) revision: Revision,
    pub(super) bundle: u64,
    pub(super) members: Members,
    /// Who keeps the cell, and what for. Unknown to version 1, which knew one keeper.
    pub(super) kept: Option<(Keepers, Bytes)>,
    pub(super) skipped: Vec<u64>,
    pub(super) requests: Requests,
}

impl CheckpointBody {
    pub(super) fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(if self.kept.is_some() { 2 } else { 1 }).u64(self.installs).u64(self.revision.get()).u64(self.bundle);
        self.members.write(&mut w);
        if let Some((keepers, purpose)) = &self.kept {
            keepers.write(&mut w);
            w.bytes(purpose);
        }
        w.count(self.skipped.len());
        self.skipped.iter().for_each(|i| {
            w.u64(*i);
        });
        self.requests.write(&mut w);
        w.finish()
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<CheckpointBody, DecodeError> {
        let (mut r, version) = Reader::versioned("a checkpoint", bytes, 2)?;
        let (installs, revision, bundle) = (r.u64()?, revision(&mut r)?, r.u64()?);
        let members = Members::read(&mut r)?;
        let kept = if version < 2 { None } else { Some((Keepers::read(&mut r)?, r.bytes()?)) };
        let skipped = r.u64s()?;
        let requests = Requests::read(&mut r)?;
        r.end()?;
        Ok(CheckpointBody { installs, revision, bundle, members, kept, skipped, requests })
    }
}

/// The body of a carried record. Version 1: `version u8`, `kind u8` (1 object, 2 deleted, 3 staged), of a staged one
/// `number u64`, then `key`, `revision u64` and, but of a deleted one, `created u64`, `meta`, `value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Carried {
    /// A live object.
    Object { key: Bytes, record: Arc<Record> },
    /// The object is gone since `revision` or before, whatever was carried of it.
    Deleted { key: Bytes, revision: Revision },
    /// An object of the snapshot that a checkpoint may install under this number.
    Staged { number: u64, key: Bytes, record: Arc<Record> },
}

impl Carried {
    pub(super) fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(64);
        match self {
            Carried::Object { key, record } => write_object(w.u8(1).u8(1), key, record),
            Carried::Deleted { key, revision } => {
                w.u8(1).u8(2).bytes(key).u64(revision.get());
            }
            Carried::Staged { number, key, record } => write_object(w.u8(1).u8(3).u64(*number), key, record),
        }
        w.finish()
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<Carried, DecodeError> {
        let (mut r, _) = Reader::versioned("a carried record", bytes, 1)?;
        let carried = match r.u8()? {
            1 => {
                let (key, record) = read_object(&mut r)?;
                Carried::Object { key, record }
            }
            2 => Carried::Deleted { key: r.bytes()?, revision: revision(&mut r)? },
            3 => {
                let number = r.u64()?;
                let (key, record) = read_object(&mut r)?;
                Carried::Staged { number, key, record }
            }
            other => return Err(r.newer(other)),
        };
        r.end()?;
        Ok(carried)
    }
}

pub(super) fn write_object(w: &mut Writer, key: &Bytes, record: &Record) {
    w.bytes(key).u64(record.revision.get()).u64(record.created.get()).bytes(&record.meta).bytes(&record.value);
}

pub(super) fn read_object(r: &mut Reader<'_>) -> Result<(Bytes, Arc<Record>), DecodeError> {
    let key = r.bytes()?;
    let (at, created) = (revision(r)?, revision(r)?);
    Ok((key, Arc::new(Record { revision: at, created, meta: r.bytes()?, value: r.bytes()? })))
}
