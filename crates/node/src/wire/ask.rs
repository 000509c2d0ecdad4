//! `/beemesh/ask/1`: a question to a cell's replica, and its answer.
//!
//! One stream for each question: one frame of [`Question`] goes there, then the answer comes back. Its first frame
//! is the head, which is all of most answers. What is long follows in pieces of [`super::frame::PIECE_BYTES`]: the objects of a list
//! (their canonical JSON), the objects of a state (name, header, canonical JSON), what happened (each change), and
//! last the number of all of them. Pieces are made one at a time, as the other side takes them, of a snapshot that holds
//! nothing of the cell back ([`Sending`]), and put together again within a bound ([`Receiving`]).
//!
//! A list is run where the cell is: what it leaves out does not travel. Of a watch that begins with a state, only what
//! it selects does.

use super::codec::{DecodeError, Reader, VERSION, Wire, Writer, fields, fill, message, variants};
use super::values::read_json;
use crate::cell::{Change, Kept, Lying, Opened, Outcome, Snapshot};
use agree::descriptor::Descriptor;
use base::{CellId, NodeId, Revision};
use bytes::Bytes;
use objects::allotment::Wanted;
use objects::decision::{Answer, Stream, Token};
use objects::kinds::Kind;
use objects::read::{ListAnswer, ListPlan, Listed, WatchPlan};
use objects::request::{Request, Stored};
use objects::select::Selection;
use objects::status::Status;
use std::fmt;
use std::sync::Arc;

/// The longest frame that a question may be: a body of 3 MiB, and what it means as a tree.
pub const QUESTION_BYTES_MAX: usize = 8 << 20;

/// How much of an answer may be in memory at the one who asked.
pub const ANSWER_BYTES_MAX: usize = 256 << 20;

/// What a node asks a replica of a cell on another.
#[derive(Clone)]
pub struct Question {
    /// The cell.
    pub cell: CellId,
    /// The epoch of the descriptor by which the replica was found, 0 if by none. A replica that knows a higher one
    /// answers [`Outcome::NotLeader`] with a [`Redirect`].
    pub epoch: u64,
    /// The number of the sender's bundle. Whoever is asked and has less fetches what it lacks before it decides.
    pub bundle: Revision,
    /// The sender waits for so long, in milliseconds, and then gives up.
    pub patience_ms: u64,
    /// What.
    pub asked: Asked,
}

/// What is asked.
#[derive(Clone)]
pub enum Asked {
    /// [`crate::cell::Input::Request`]. A watch is asked for where it is told of: [`super::watch`].
    Request(Arc<Request>),
    /// [`crate::cell::Input::Collect`].
    Collect {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// The revision.
        at: Revision,
        /// Not the state, but what happened after this revision.
        after: Option<Revision>,
        /// Of a state: what of it is wanted. The cell shows all; what is not meant does not travel.
        only: Option<Only>,
    },
}

/// A part of a state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Only {
    /// Which objects.
    pub selection: Selection,
    /// Their namespace, as a selector by fields may ask for it.
    pub namespace: Arc<str>,
}

/// Where to ask instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// The epoch of the keepers that the sender knows of.
    pub epoch: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Who keeps the cell: sent to whoever came by a lower epoch.
    pub descriptor: Option<Descriptor>,
}

impl Redirect {
    /// What one is told who came by a descriptor of epoch `came_by`, 0 for none.
    pub fn new(came_by: u64, keepers: &Descriptor, leader: Option<NodeId>) -> Redirect {
        let descriptor = (came_by < keepers.epoch).then(|| keepers.clone());
        Redirect { epoch: keepers.epoch, leader, descriptor }
    }
}

/// An answer, as one node gives it to another.
pub struct Heard {
    /// The number of the answering node's bundle. Whoever has less fetches what it lacks.
    pub bundle: Revision,
    /// With [`Outcome::NotLeader`].
    pub redirect: Option<Redirect>,
    /// What became of the question. [`Outcome::List`] becomes [`Outcome::Listed`] on its way.
    pub outcome: Outcome,
}

variants!(Asked { 1 => Request(request), 2 => Collect { storage, at, after, only } });
fields!(Only { selection: Selection, namespace: Arc<str> });
fields!(Question { cell: CellId, epoch: u64, bundle: Revision, patience_ms: u64, asked: Asked });
message!(Question, "a question to a cell");
fields!(Redirect { epoch: u64, leader: Option<NodeId>, descriptor: Option<Descriptor> });

/// The first frame of an answer.
struct Head {
    bundle: Revision,
    redirect: Option<Redirect>,
    first: First,
}

/// What an answer begins with, and mostly all of it.
enum First {
    Refused(Box<Status>),
    Done(Answer),
    Listed { revision: Revision, continue_token: String, remaining: Option<u64>, warnings: Vec<String> },
    Collected { storage: Arc<str>, revision: Revision },
    Recalled,
    ListAll(ListPlan),
    WatchAll(WatchPlan),
    Watch { kind: &'static Kind, plan: WatchPlan, revision: Revision, serial: u64, state: Option<Revision> },
    Token(Token),
    Stream(Stream),
    Reserve(Box<Wanted>),
    NotLeader,
    Busy,
    Unknown,
}

variants!(First {
    1 => Refused(status),
    2 => Done(answer),
    3 => Listed { revision, continue_token, remaining, warnings },
    4 => Collected { storage, revision },
    5 => Recalled,
    6 => ListAll(plan),
    7 => WatchAll(plan),
    8 => Watch { kind, plan, revision, serial, state },
    9 => Token(token),
    10 => Stream(stream),
    11 => Reserve(wanted),
    12 => NotLeader,
    13 => Busy,
    14 => Unknown,
});
fields!(Head { bundle: Revision, redirect: Option<Redirect>, first: First });

// The kinds of frames of an answer, after their version.
const HEAD: u8 = 1;
const JSONS: u8 = 2;
const OBJECTS: u8 = 3;
const CHANGES: u8 = 4;
const END: u8 = 5;

/// An answer on its way: frames, one after the other, made when they are asked for.
pub struct Sending {
    head: Option<Head>,
    rest: Rest,
    /// How many items were made into frames.
    sent: u64,
    ended: bool,
}

#[derive(Default)]
struct Rest {
    listed: std::vec::IntoIter<Kept>,
    state: Option<Showing>,
    changes: std::vec::IntoIter<Change>,
}

/// A state that is shown piece by piece.
struct Showing {
    snapshot: Snapshot,
    /// What is shown of it; `None` is all.
    only: Option<Only>,
    /// The last name shown.
    after: Option<Arc<str>>,
}

impl Sending {
    /// The answer of a cell. `bundle` is the number of this node's; `redirect` goes with [`Outcome::NotLeader`].
    ///
    /// A list is run here, on the caller's thread: it looks at every object once.
    pub fn new(bundle: Revision, redirect: Option<Redirect>, outcome: Outcome) -> Sending {
        let mut rest = Rest::default();
        let first = match outcome {
            Outcome::Refused(status) => First::Refused(status),
            Outcome::Done(answer) => First::Done(answer),
            Outcome::List { plan, snapshot } => {
                let found = plan.run(snapshot.lying(plan.after.as_deref()), snapshot.revision());
                rest.list(found, plan.warnings)
            }
            Outcome::Listed { found, warnings } => rest.list(found, warnings),
            Outcome::Collected(snapshot) => {
                let first = First::Collected { storage: snapshot.storage().clone(), revision: snapshot.revision() };
                rest.state = Some(Showing { snapshot, only: None, after: None });
                first
            }
            Outcome::Recalled(changes) => {
                rest.changes = changes.into_iter();
                First::Recalled
            }
            Outcome::ListAll(plan) => First::ListAll(plan),
            Outcome::WatchAll(plan) => First::WatchAll(plan),
            Outcome::Watch(opened) => {
                let Opened { kind, plan, state, backlog, revision, serial } = *opened;
                let shown = state.as_ref().map(Snapshot::revision);
                let only = Some(Only { selection: plan.selection.clone(), namespace: plan.namespace.clone() });
                rest.state = state.map(|snapshot| Showing { snapshot, only, after: None });
                rest.changes = backlog.into_iter();
                First::Watch { kind, plan, revision, serial, state: shown }
            }
            Outcome::Token(token) => First::Token(token),
            Outcome::Stream(stream) => First::Stream(stream),
            Outcome::Reserve(wanted) => First::Reserve(wanted),
            Outcome::NotLeader => First::NotLeader,
            Outcome::Busy => First::Busy,
            Outcome::Unknown => First::Unknown,
        };
        Sending { head: Some(Head { bundle, redirect, first }), rest, sent: 0, ended: false }
    }

    /// Of a state, only what was asked for ([`Asked::Collect`]).
    #[must_use]
    pub fn only(mut self, only: Option<Only>) -> Sending {
        if let (Some(showing), Some(only)) = (&mut self.rest.state, only) {
            showing.only = Some(only);
        }
        self
    }

    /// The next frame; `None` after the last.
    pub fn next_frame(&mut self) -> Option<Bytes> {
        let mut w = Writer::with_capacity(128);
        w.u8(VERSION);
        if let Some(head) = self.head.take() {
            self.ended = !head.first.goes_on();
            head.write(w.u8(HEAD));
            return Some(w.finish());
        }
        if self.ended {
            return None;
        }
        let items = self.piece(&mut w);
        if items == 0 {
            self.ended = true;
            w.u8(END).u64(self.sent);
        }
        self.sent += items as u64;
        Some(w.finish())
    }

    /// Whether all of it was made into frames.
    pub fn is_over(&self) -> bool {
        self.head.is_none() && self.ended
    }

    /// The items of the next frame, written; none if nothing is left.
    fn piece(&mut self, w: &mut Writer) -> usize {
        if self.rest.listed.len() > 0 {
            return fill(w.u8(JSONS), &mut self.rest.listed, |w, kept| {
                w.bytes(kept.json());
            });
        }
        if let Some(showing) = &mut self.rest.state {
            let items = showing.piece(w);
            if items > 0 {
                return items;
            }
            self.rest.state = None;
        }
        if self.rest.changes.len() > 0 {
            return fill(w.u8(CHANGES), &mut self.rest.changes, |w, change| change.write(w));
        }
        0
    }
}

impl Rest {
    fn list(&mut self, found: ListAnswer<Kept>, warnings: Vec<String>) -> First {
        let ListAnswer { items, revision, continue_token, remaining } = found;
        self.listed = items.into_iter();
        First::Listed { revision, continue_token, remaining, warnings }
    }
}

impl Showing {
    fn piece(&mut self, w: &mut Writer) -> usize {
        let Showing { snapshot, only, after } = self;
        let only = only.as_ref().filter(|o| !o.selection.is_everything());
        let meant = |object: &Lying<'_>| only.is_none_or(|o| object.is_meant(&o.selection, &o.namespace));
        let from = after.take();
        let mut objects = snapshot.lying(from.as_deref()).filter(meant).peekable();
        if objects.peek().is_none() {
            return 0;
        }
        // As a name and a `Stored` are read, without looking into its header.
        fill(w.u8(OBJECTS), &mut objects, |w, object| {
            w.bytes(object.name().as_bytes()).u64(object.revision().get());
            w.bytes(&object.header()).bytes(object.json());
            *after = Some(object.name().into());
        })
    }
}

impl First {
    /// Whether more frames follow.
    fn goes_on(&self) -> bool {
        match self {
            First::Listed { .. } | First::Collected { .. } | First::Recalled | First::Watch { .. } => true,
            First::Refused(_)
            | First::Done(_)
            | First::ListAll(_)
            | First::WatchAll(_)
            | First::Token(_)
            | First::Stream(_)
            | First::Reserve(_)
            | First::NotLeader
            | First::Busy
            | First::Unknown => false,
        }
    }
}

/// An answer that cannot be put together. Whether the question was executed is not known by it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnswerError {
    /// A frame cannot be read.
    Decode(DecodeError),
    /// It is longer than there is room for.
    TooLong {
        /// What has arrived.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// A frame came that does not belong there, or the count at the end is another.
    OutOfTurn,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::Decode(why) => write!(f, "an answer of a cell could not be read: {why}"),
            AnswerError::TooLong { bytes, max } => write!(
                f,
                "an answer of a cell was given up after {bytes} bytes, {max} is the most that is kept of one: nothing was changed by reading it; list in parts, with a limit"
            ),
            AnswerError::OutOfTurn => f.write_str(
                "the frames of a cell's answer do not fit together: it was given up; what it was asked for may have been executed",
            ),
        }
    }
}

impl std::error::Error for AnswerError {}

impl From<DecodeError> for AnswerError {
    fn from(why: DecodeError) -> AnswerError {
        AnswerError::Decode(why)
    }
}

/// An answer that is put together of its frames.
pub struct Receiving {
    bytes_max: usize,
    bytes: usize,
    head: Option<Head>,
    jsons: Vec<Kept>,
    objects: Vec<(Arc<str>, Stored)>,
    changes: Vec<Change>,
    over: bool,
}

impl Receiving {
    /// Of which at most so many bytes are kept.
    pub fn new(bytes_max: usize) -> Receiving {
        Receiving {
            bytes_max,
            bytes: 0,
            head: None,
            jsons: Vec::new(),
            objects: Vec::new(),
            changes: Vec::new(),
            over: false,
        }
    }

    /// How many bytes of it are kept.
    pub fn held(&self) -> usize {
        self.bytes
    }

    /// The storage group-kind of the watch whose answer is under way: what is told of it from now on goes behind.
    pub(crate) fn watching(&self) -> Option<&'static str> {
        match self.head.as_ref()?.first {
            First::Watch { kind, .. } => Some(kind.storage),
            _ => None,
        }
    }

    /// Takes the next frame. The answer, when it is whole.
    ///
    /// # Errors
    /// [`AnswerError`]: nothing more is to be taken.
    pub fn frame(&mut self, frame: &Bytes) -> Result<Option<Heard>, AnswerError> {
        self.bytes += frame.len();
        if self.bytes > self.bytes_max {
            return Err(AnswerError::TooLong { bytes: self.bytes, max: self.bytes_max });
        }
        if std::mem::replace(&mut self.over, true) {
            return Err(AnswerError::OutOfTurn);
        }
        let (mut r, _) = Reader::versioned("an answer of a cell", frame, VERSION)?;
        let heard = self.read(&mut r)?;
        r.end()?;
        self.over = heard.is_some();
        Ok(heard)
    }

    fn read(&mut self, r: &mut Reader<'_>) -> Result<Option<Heard>, AnswerError> {
        let kind = r.u8()?;
        let first = self.head.as_ref().map(|h| &h.first);
        match (kind, first) {
            (HEAD, None) => {
                let head = Head::read(r)?;
                if head.first.goes_on() {
                    self.head = Some(head);
                    return Ok(None);
                }
                return self.heard(head).map(Some);
            }
            (JSONS, Some(First::Listed { .. })) => {
                for _ in 0..r.count(4)? {
                    self.jsons.push(Kept::Stored(read_json(r)?));
                }
            }
            (OBJECTS, Some(First::Collected { .. } | First::Watch { state: Some(_), .. })) => {
                for _ in 0..r.count(<(Arc<str>, Stored)>::LEAST)? {
                    let (name, object) = <(Arc<str>, Stored)>::read(r)?;
                    // They are looked up by their order.
                    if self.objects.last().is_some_and(|(last, _)| *last >= name) {
                        return Err(AnswerError::OutOfTurn);
                    }
                    self.objects.push((name, object));
                }
            }
            (CHANGES, Some(First::Recalled | First::Watch { .. })) => {
                for _ in 0..r.count(Change::LEAST)? {
                    self.changes.push(Change::read(r)?);
                }
            }
            (END, Some(_)) => {
                let all = self.jsons.len() + self.objects.len() + self.changes.len();
                if r.u64()? != all as u64 {
                    return Err(AnswerError::OutOfTurn);
                }
                return self.head.take().map(|head| self.heard(head)).transpose();
            }
            (HEAD..=END, _) => return Err(AnswerError::OutOfTurn),
            (other, _) => return Err(r.newer(other).into()),
        }
        Ok(None)
    }

    fn heard(&mut self, head: Head) -> Result<Heard, AnswerError> {
        let Head { bundle, redirect, first } = head;
        let objects = std::mem::take(&mut self.objects);
        let changes = std::mem::take(&mut self.changes);
        let outcome = match first {
            First::Refused(status) => Outcome::Refused(status),
            First::Done(answer) => Outcome::Done(answer),
            First::Listed { revision, continue_token, remaining, warnings } => {
                let items = std::mem::take(&mut self.jsons);
                Outcome::Listed { found: ListAnswer { items, revision, continue_token, remaining }, warnings }
            }
            First::Collected { storage, revision } => Outcome::Collected(Snapshot::shown(storage, revision, objects)),
            First::Recalled => Outcome::Recalled(changes),
            First::ListAll(plan) => Outcome::ListAll(plan),
            First::WatchAll(plan) => Outcome::WatchAll(plan),
            First::Watch { kind, plan, revision, serial, state } => {
                let state = state.map(|at| Snapshot::shown(kind.storage.into(), at, objects));
                Outcome::Watch(Box::new(Opened { kind, plan, state, backlog: changes, revision, serial }))
            }
            First::Token(token) => Outcome::Token(token),
            First::Stream(stream) => Outcome::Stream(stream),
            First::Reserve(wanted) => Outcome::Reserve(wanted),
            First::NotLeader => Outcome::NotLeader,
            First::Busy => Outcome::Busy,
            First::Unknown => Outcome::Unknown,
        };
        Ok(Heard { bundle, redirect, outcome })
    }
}
