//! A cell and its replica, made again of what the log holds.

use super::commit::{Commit, Write};
use super::state::{Record, State};
use super::store::{Carried, Cell, CheckpointBody, Config};
use crate::codec::DecodeError;
use crate::log;
use crate::raft::{Durable, message};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use base::{CellId, ReplicaId, Revision};
use bytes::Bytes;

/// A cell could not be made of its log. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoverError {
    /// Something in it cannot be read.
    #[error("{cell:?} was not started: {source}")]
    Unreadable {
        /// The cell.
        cell: CellId,
        /// What, and why.
        #[source]
        source: DecodeError,
    },
    /// The log speaks of the cell, but not of its beginning.
    #[error(
        "{cell:?} was not started: its log holds no checkpoint, so its members are not known. Restore this \
         node's data directory, or let it join the cell again"
    )]
    NoCheckpoint {
        /// The cell.
        cell: CellId,
    },
}

/// What the log says of an object: the revision of a change, and the record it left, if any.
type Fact = (Bytes, Revision, Option<Arc<Record>>);

/// What an object is known to be: its newest revision wins, wherever it stands in the log.
type Known = BTreeMap<Bytes, (Revision, Option<Arc<Record>>)>;

impl Cell {
    /// The cell as its checkpoint has it, and what a replica needs to go on from there; the entries after
    /// it are applied when the replica hands them out. `records` are those of the cell in log order;
    /// `lossy` says that some that were acknowledged are missing.
    ///
    /// # Errors
    /// [`RecoverError`].
    pub fn recover(config: Config, records: &[log::Record], lossy: bool) -> Result<(Cell, Durable), RecoverError> {
        let cell = config.cell;
        let mut found = Found::default();
        for record in records.iter().filter(|r| r.cell() == cell) {
            if record.replica().is_some_and(|r| r != config.replica) && !matches!(record, log::Record::Forget { .. }) {
                continue;
            }
            found.take(record).map_err(|source| RecoverError::Unreadable { cell, source })?;
        }
        let Some((base, body)) = found.checkpoint.take() else { return Err(RecoverError::NoCheckpoint { cell }) };
        let known = found.known(base.0, &body).map_err(|source| RecoverError::Unreadable { cell, source })?;

        let entries = found.entries.split_off(&(base.0 + 1));
        let gapless = entries.keys().zip(base.0 + 1..).take_while(|(i, n)| *i == n).count();
        // A gap is a loss, whether or not the log noticed one.
        // So is a commit index beyond the end: it is written of durable entries only.
        let lossy = lossy || gapless < entries.len() || found.hard.2 > base.0 + gapless as u64;
        let durable = Durable {
            base,
            entries: entries.into_values().take(gapless).collect(),
            hard: found.hard,
            members: body.members.clone(),
            bound: found.bound,
            lossy,
        };
        let mut state = State::default();
        for (key, (_, record)) in known {
            if let Some(record) = record {
                state.put(key, record);
            }
        }
        let mut out = Cell::new(config);
        out.restore(base, body, state, None);
        // Any of them may have been carried behind the entry that deletes it.
        out.carried_until = base.0 + gapless as u64;
        Ok((out, durable))
    }
}

/// What the log says of a cell before it is made again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// The life of its member.
    pub replica: ReplicaId,
    /// [`Config::purpose`]; empty if a release wrote it that knew none.
    pub purpose: Bytes,
}

/// What the log says of a cell before it is made again: `None` if nothing is left of it, or nothing says how it began.
///
/// # Errors
/// If its newest checkpoint cannot be read.
pub fn recorded(cell: CellId, records: &[log::Record]) -> Result<Option<Recorded>, RecoverError> {
    let mut newest = None;
    for record in records.iter().filter(|r| r.cell() == cell) {
        match record {
            log::Record::Checkpoint { replica, body, .. } => newest = Some((*replica, body)),
            log::Record::Forget { .. } => newest = None,
            _ => {}
        }
    }
    let Some((replica, body)) = newest else { return Ok(None) };
    let body = CheckpointBody::decode(body).map_err(|source| RecoverError::Unreadable { cell, source })?;
    Ok(Some(Recorded { replica, purpose: body.kept.map(|(_, purpose)| purpose).unwrap_or_default() }))
}

#[derive(Default)]
struct Found {
    entries: BTreeMap<u64, message::Entry>,
    hard: (u64, u64, u64),
    bound: Revision,
    checkpoint: Option<((u64, u64), CheckpointBody)>,
    facts: Vec<Fact>,
    staged: BTreeMap<u64, Vec<Fact>>,
}

impl Found {
    fn take(&mut self, record: &log::Record) -> Result<(), DecodeError> {
        match record {
            log::Record::Entry { term, index, kind, payload, .. } => {
                // The same entry again, carried forward, voids nothing: what follows it still does.
                if self.entries.get(index).is_none_or(|e| e.term != *term) {
                    self.entries.split_off(index);
                    let entry = message::Entry { term: *term, index: *index, kind: *kind, payload: payload.clone() };
                    self.entries.insert(*index, entry);
                }
            }
            log::Record::Hard { term, vote, commit, .. } => self.hard = (*term, *vote, *commit),
            log::Record::Bound { revision, .. } => self.bound = self.bound.max(*revision),
            log::Record::Forget { .. } => *self = Found::default(),
            log::Record::Checkpoint { applied_index, applied_term, body, .. } => {
                let body = CheckpointBody::decode(body)?;
                if body.installs != 0 {
                    self.entries.clear();
                    self.facts = self.staged.remove(&body.installs).unwrap_or_default();
                    self.staged.clear();
                }
                self.checkpoint = Some(((*applied_index, *applied_term), body));
            }
            log::Record::Carried { record, .. } => match Carried::decode(record)? {
                Carried::Object { key, record } => self.facts.push((key, record.revision, Some(record))),
                Carried::Deleted { key, revision } => self.facts.push((key, revision, None)),
                Carried::Staged { number, key, record } => {
                    self.staged.entry(number).or_default().push((key, record.revision, Some(record)));
                }
            },
        }
        Ok(())
    }

    /// The objects as the checkpoint has them: of what was carried and of the entries under it. Those
    /// entries' preconditions held, or the checkpoint says that they did not: what they were judged by may be
    /// gone. What was carried of changes beyond the checkpoint waits for their entries, which come again.
    fn known(&mut self, applied: u64, body: &CheckpointBody) -> Result<Known, DecodeError> {
        let mut known = Known::new();
        for (key, revision, record) in self.facts.drain(..).filter(|f| f.1 <= body.revision) {
            learn(&mut known, &key, revision, record);
        }
        for entry in self.entries.range(..=applied).map(|(_, e)| e) {
            if entry.payload.is_empty() || entry.kind != 0 || body.skipped.binary_search(&entry.index).is_ok() {
                continue;
            }
            for c in Commit::decode(&entry.payload)?.changes {
                let record = match c.write {
                    Write::Put { created, meta, value } => {
                        Some(Arc::new(Record { revision: c.revision, created, meta, value }))
                    }
                    Write::Delete { .. } => None,
                };
                learn(&mut known, &c.key, c.revision, record);
            }
        }
        Ok(known)
    }
}

fn learn(known: &mut Known, key: &Bytes, revision: Revision, record: Option<Arc<Record>>) {
    match known.get_mut(key) {
        Some(k) if k.0 >= revision => {}
        Some(k) => *k = (revision, record),
        None => {
            known.insert(key.clone(), (revision, record));
        }
    }
}
