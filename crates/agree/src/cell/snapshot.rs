//! A cell as it travels to a member that lags: objects, requests and watch history, in bounded pieces.
//!
//! A piece is `version u8` (1) and items: `1 head` (a checkpoint's body without requests, the reach of the
//! request table, the history's floor), `2 request`, `3 object`, `4 resource` (name, the floor of its
//! history), `5 event` (key, revision, `before u8` and the record, `after u8` 1 put or 2 deleted and the
//! record; of the resource named last). The head stands first.

use super::history::{Bounds, History};
use super::requests::{Requests, read_one, write_one};
use super::state::{After, Applied, State};
use super::store::{Carried, CheckpointBody, Config, read_object, write_object};
use crate::codec::{DecodeError, Reader, Writer};
use crate::log;
use crate::raft::Members;
use crate::raft::message::revision;
use alloc::vec::Vec;
use base::{CellId, Wall};
use bytes::Bytes;

/// How large a piece grows: the last item may go beyond.
const PIECE_BYTES: usize = 256 << 10;

/// A snapshot being sent, from a state that does not move.
pub(super) struct Outgoing {
    state: State,
    history: History,
    requests: Requests,
    body: CheckpointBody,
    at: Place,
    made: Option<(u32, Bytes, bool)>,
}

#[derive(Clone)]
enum Place {
    Head,
    Requests(usize),
    Objects(Bytes),
    Events { resource: usize, event: usize },
    End,
}

impl Outgoing {
    pub(super) fn new(state: State, history: History, mut body: CheckpointBody) -> Outgoing {
        let requests = core::mem::take(&mut body.requests);
        Outgoing { state, history, requests, body, at: Place::Head, made: None }
    }

    /// The piece of that number and whether it is the last; `None` if there are not so many. The one after the one
    /// made last is made at once, as is that one again; any other costs all before it.
    pub(super) fn piece(&mut self, number: u32) -> Option<(Bytes, bool)> {
        let next = self.made.as_ref().map_or(0, |(n, ..)| n + 1);
        if number < next.saturating_sub(1) || next == 0 {
            (self.at, self.made) = (Place::Head, None);
        }
        while self.made.as_ref().is_none_or(|(n, ..)| *n < number) {
            if matches!(self.at, Place::End) {
                return None;
            }
            self.make();
        }
        self.made.as_ref().map(|(_, data, last)| (data.clone(), *last))
    }

    fn make(&mut self) {
        let number = self.made.take().map_or(0, |(n, ..)| n + 1);
        let mut w = Writer::with_capacity(PIECE_BYTES + 4096);
        w.u8(1);
        while w.0.len() < PIECE_BYTES && !matches!(self.at, Place::End) {
            self.at = self.write_some(&mut w);
        }
        let last = matches!(self.at, Place::End);
        self.made = Some((number, w.finish(), last));
    }

    fn write_some(&self, w: &mut Writer) -> Place {
        match &self.at {
            Place::Head => {
                w.u8(1).bytes(&self.body.encode()).u64(self.requests.reach().0).u64(self.history.floor().get());
                Place::Requests(0)
            }
            Place::Requests(from) => {
                let mut next = *from;
                for (id, done) in self.requests.some(*from, 256) {
                    write_one(w.u8(2), id, done);
                    next += 1;
                }
                if next < self.requests.len() { Place::Requests(next) } else { Place::Objects(Bytes::new()) }
            }
            Place::Objects(from) => {
                for (key, record) in self.state.scan_from(b"", from) {
                    if w.0.len() >= PIECE_BYTES {
                        return Place::Objects(key.clone());
                    }
                    write_object(w.u8(3), key, record);
                }
                Place::Events { resource: 0, event: 0 }
            }
            Place::Events { resource, event } => {
                let Some((name, floor)) = self.history.resource_floors().nth(*resource) else { return Place::End };
                let Some(events) = self.history.resources().nth(*resource) else { return Place::End };
                w.u8(4).bytes(name).u64(floor.get());
                for (i, e) in events.focus().narrow(*event..).into_iter().enumerate() {
                    if w.0.len() >= PIECE_BYTES {
                        return Place::Events { resource: *resource, event: event + i };
                    }
                    write_event(w.u8(5), e);
                }
                Place::Events { resource: resource + 1, event: 0 }
            }
            Place::End => Place::End,
        }
    }
}

fn write_event(w: &mut Writer, e: &Applied) {
    w.bytes(&e.key).u64(e.revision.get());
    match &e.before {
        Some(before) => write_object(w.u8(1), &Bytes::new(), before),
        None => {
            w.u8(0);
        }
    }
    match &e.after {
        After::Put(record) => write_object(w.u8(1), &Bytes::new(), record),
        After::Deleted(record) => write_object(w.u8(2), &Bytes::new(), record),
    }
}

fn read_event(r: &mut Reader<'_>) -> Result<Applied, DecodeError> {
    let (key, at) = (r.bytes()?, revision(r)?);
    let before = if r.bool()? { Some(read_object(r)?.1) } else { None };
    let after = match r.u8()? {
        1 => After::Put(read_object(r)?.1),
        2 => After::Deleted(read_object(r)?.1),
        other => return Err(r.newer(other)),
    };
    Ok(Applied { key, revision: at, before, after })
}

/// A snapshot being received, beside the present state.
pub(super) struct Incoming {
    cell: CellId,
    /// The index of the snapshot, and the number its objects are staged under in the log.
    pub(super) index: u64,
    members: Members,
    bounds: Bounds,
    /// Its own, whatever the sender says.
    purpose: Bytes,
    state: State,
    head: Option<(CheckpointBody, History)>,
}

impl Incoming {
    pub(super) fn new(config: &Config, index: u64, members: Members) -> Incoming {
        let Config { cell, history, purpose, .. } = config.clone();
        Incoming { cell, index, members, bounds: history, purpose, state: State::default(), head: None }
    }

    /// Takes the next piece; the records that stage its objects in the log.
    pub(super) fn take(&mut self, data: &Bytes) -> Result<Vec<log::Record>, DecodeError> {
        let (mut r, _) = Reader::versioned("a piece of a snapshot", data, 1)?;
        let mut out = Vec::new();
        while !r.is_at_end() {
            let kind = r.u8()?;
            if kind == 1 {
                let body = CheckpointBody::decode(&r.bytes()?)?;
                let requests = Requests::with_reach(Wall(r.u64()?));
                let history = History::new(self.bounds.clone(), revision(&mut r)?);
                let members = self.members.clone();
                let kept = body.kept.map(|(keepers, _)| (keepers, self.purpose.clone()));
                let body = CheckpointBody { installs: self.index, members, kept, requests, ..body };
                self.head = Some((body, history));
                continue;
            }
            let Some((body, history)) = &mut self.head else { return Err(r.malformed()) };
            match kind {
                2 => {
                    let (id, done) = read_one(&mut r)?;
                    body.requests.push(id, done);
                }
                3 => {
                    let (key, record) = read_object(&mut r)?;
                    let staged = Carried::Staged { number: self.index, key: key.clone(), record: record.clone() };
                    out.push(log::Record::Carried { cell: self.cell, record: staged.encode() });
                    self.state.put(key, record);
                }
                4 => {
                    let (name, floor) = (r.bytes()?, revision(&mut r)?);
                    history.begin_resource(name, floor);
                }
                5 => history.push(read_event(&mut r)?),
                other => return Err(r.newer(other)),
            }
        }
        Ok(out)
    }

    /// Those of an old segment's records that staged it, to be written again.
    pub(super) fn carry(&self, segment: &[log::Record]) -> Vec<log::Record> {
        let staged = |record: &log::Record| {
            let log::Record::Carried { cell, record } = record else { return false };
            *cell == self.cell
                && matches!(Carried::decode(record), Ok(Carried::Staged { number, .. }) if number == self.index)
        };
        segment.iter().filter(|r| staged(r)).cloned().collect()
    }

    /// The body of the checkpoint that installs it; `None` if it has no head.
    pub(super) fn body(&self) -> Option<&CheckpointBody> {
        self.head.as_ref().map(|h| &h.0)
    }

    pub(super) fn into_parts(self) -> Option<(CheckpointBody, State, History)> {
        let (body, history) = self.head?;
        Some((body, self.state, history))
    }
}
