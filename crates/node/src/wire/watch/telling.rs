//! The cell's side of a stream.

use super::{Begin, CALLS_MAX, Call, End, FromCell, WAITING_BYTES_MAX};
use crate::cell::{Change, Outcome, Subscription};
use crate::wire::ask::{Redirect, Sending};
use crate::wire::codec::{VERSION, Wire, Writer, fill};
use base::Revision;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The cell's side of a stream: what waits to be told, in order.
///
/// Bytes are made when they are asked for: what many gateways wait for is held once.
pub struct Telling {
    queue: VecDeque<Waiting>,
    /// What waits weighs this, about.
    bytes: usize,
    bytes_max: usize,
    /// Answers whose head was told, and which go on.
    answers: VecDeque<(Call, Sending)>,
    /// The next frame is a piece of an answer, if there is one.
    turn: bool,
    /// What is told of, and the newest serial that was.
    open: BTreeMap<Arc<str>, u64>,
    ended: bool,
}

/// Something that waits to be told.
enum Waiting {
    /// A frame.
    Frame(Bytes),
    /// The head of an answer, and the rest of it.
    Head(Bytes, Call, Box<Sending>),
    /// Changes, the first of which are told.
    Changes { storage: Arc<str>, variant: u8, changes: Arc<[Change]>, told: usize, bytes: usize },
}

// The numbers of the variants that are written in pieces, without a copy of what they hold.
const BACKLOG: u8 = 3;
const EVENTS: u8 = 4;

/// What a change weighs besides its objects.
const CHANGE_BYTES: usize = 200;

impl Telling {
    /// The side of a replica whose keepers are of this epoch, on a node with this bundle. At most
    /// [`WAITING_BYTES_MAX`] bytes wait.
    pub fn new(epoch: u64, bundle: Revision) -> Telling {
        let mut telling = Telling {
            queue: VecDeque::new(),
            bytes: 0,
            bytes_max: WAITING_BYTES_MAX,
            answers: VecDeque::new(),
            turn: false,
            open: BTreeMap::new(),
            ended: false,
        };
        telling.say(&FromCell::Welcome { epoch, bundle });
        telling
    }

    /// The same with another bound.
    #[must_use]
    pub fn at_most(self, bytes_max: usize) -> Telling {
        Telling { bytes_max, ..self }
    }

    /// Whether changes of a resource are told on this stream.
    pub fn wants(&self, storage: &str) -> bool {
        self.open.contains_key(storage)
    }

    /// What is told of on this stream, and the newest serial of each.
    pub fn watched(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.open.iter().map(|(storage, serial)| (storage, *serial))
    }

    /// How many bytes wait, about.
    pub fn waiting(&self) -> usize {
        self.bytes
    }

    /// Whether the end was told or waits to be: what is told from now on is passed over.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// [`crate::cell::Effect::Subscribed`], in answer to this stream's question. A cell answers each question once, in
    /// the order in which they were asked, and does not say whose it was: whoever asks for several streams knows.
    pub fn subscribed(&mut self, storage: &Arc<str>, after: Option<Revision>, begin: &Subscription) {
        let storage = storage.clone();
        match begin {
            Subscription::Gone { oldest } => {
                self.say(&FromCell::Subscribed { storage, after, begin: Begin::Gone { oldest: *oldest } });
            }
            Subscription::Open { revision, backlog, serial } => {
                let (revision, serial) = (*revision, *serial);
                self.opened(&storage, serial);
                let begin = Begin::Open { revision, serial, backlog: backlog.len() as u64 };
                self.say(&FromCell::Subscribed { storage: storage.clone(), after, begin });
                // The history holds its objects anyway.
                let bytes = backlog.len() * CHANGE_BYTES;
                let (variant, changes) = (BACKLOG, backlog.clone());
                self.put(bytes, Waiting::Changes { storage, variant, changes, told: 0, bytes });
            }
        }
    }

    /// [`crate::cell::Effect::Events`]: told if something of that resource is watched on this stream.
    pub fn events(&mut self, storage: &Arc<str>, changes: &Arc<[Change]>) {
        if self.wants(storage) {
            let objects = changes.iter().flat_map(|c| [&c.before, &c.after]).flatten();
            let bytes = changes.len() * CHANGE_BYTES + objects.map(|o| o.json.len()).sum::<usize>();
            let (storage, variant, changes) = (storage.clone(), EVENTS, changes.clone());
            self.put(bytes, Waiting::Changes { storage, variant, changes, told: 0, bytes });
        }
    }

    /// [`crate::cell::Effect::Progress`]: told as events are.
    pub fn progress(&mut self, storage: &Arc<str>, revision: Revision) {
        if self.wants(storage) {
            self.say(&FromCell::Progress { storage: storage.clone(), revision });
        }
    }

    /// [`crate::cell::Effect::Closed`].
    pub fn closed(&mut self, revision: Revision) {
        self.say(&FromCell::Closed { revision });
    }

    /// The node's bundle has this number now.
    pub fn bundle(&mut self, number: Revision) {
        self.say(&FromCell::Bundle { number });
    }

    /// What became of a [`super::ToCell::Watch`].
    pub fn answer(&mut self, call: Call, bundle: Revision, redirect: Option<Redirect>, outcome: Outcome) {
        let going = self.queue.iter().filter(|w| matches!(w, Waiting::Head(..))).count() + self.answers.len();
        let outcome = match outcome {
            Outcome::Watch(_) if going >= CALLS_MAX => Outcome::Busy,
            Outcome::Watch(opened) => {
                self.opened(&opened.kind.storage.into(), opened.serial);
                Outcome::Watch(opened)
            }
            other => other,
        };
        let mut sending = Sending::new(bundle, redirect, outcome);
        let Some(frame) = sending.next_frame() else { return };
        let frame = FromCell::Answer { call, frame }.encode();
        let waiting = match sending.is_over() {
            true => Waiting::Frame(frame.clone()),
            false => Waiting::Head(frame.clone(), call, Box::new(sending)),
        };
        self.put(frame.len(), waiting);
    }

    /// [`super::ToCell::Leave`]: the rest of that answer is not told.
    pub fn leave(&mut self, call: Call) {
        self.answers.retain(|(c, _)| *c != call);
        for waiting in &mut self.queue {
            if let Waiting::Head(frame, c, _) = waiting
                && *c == call
            {
                *waiting = Waiting::Frame(frame.clone());
            }
        }
    }

    /// [`super::ToCell::Unsubscribe`]: whether the resource is told of no more on this stream. One that was opened since is.
    pub fn unsubscribe(&mut self, storage: &str, serial: u64) -> bool {
        if self.open.get(storage).is_some_and(|newest| *newest <= serial) {
            self.open.remove(storage);
        }
        !self.wants(storage)
    }

    /// Nothing more is told but what waits, and why.
    pub fn end(&mut self, why: End) {
        if self.ended {
            return;
        }
        self.answers.clear();
        self.open.clear();
        self.queue.push_back(Waiting::Frame(FromCell::End(why).encode()));
        self.ended = true;
    }

    /// The next frame to be sent; `None` while nothing waits. After the end nothing ever does.
    pub fn next_frame(&mut self) -> Option<Bytes> {
        let piece_first = std::mem::take(&mut self.turn) || self.queue.is_empty();
        if piece_first
            && let Some((call, mut sending)) = self.answers.pop_front()
            && let Some(frame) = sending.next_frame()
        {
            if !sending.is_over() {
                self.answers.push_back((call, sending));
            }
            return Some(FromCell::Answer { call, frame }.encode());
        }
        self.turn = true;
        match self.queue.pop_front()? {
            Waiting::Frame(frame) => {
                self.bytes = self.bytes.saturating_sub(frame.len());
                Some(frame)
            }
            Waiting::Head(frame, call, sending) => {
                self.bytes = self.bytes.saturating_sub(frame.len());
                if !self.ended {
                    self.answers.push_back((call, *sending));
                }
                Some(frame)
            }
            Waiting::Changes { storage, variant, changes, told, bytes } => {
                let (frame, told) = piece(&storage, variant, &changes, told);
                if told < changes.len() {
                    self.queue.push_front(Waiting::Changes { storage, variant, changes, told, bytes });
                } else {
                    self.bytes = self.bytes.saturating_sub(bytes);
                }
                Some(frame)
            }
        }
    }

    fn opened(&mut self, storage: &Arc<str>, serial: u64) {
        if !self.ended {
            let newest = self.open.entry(storage.clone()).or_default();
            *newest = serial.max(*newest);
        }
    }

    fn say(&mut self, message: &FromCell) {
        let frame = message.encode();
        self.put(frame.len(), Waiting::Frame(frame));
    }

    fn put(&mut self, bytes: usize, waiting: Waiting) {
        // Nothing happened: nothing is told.
        if self.ended || matches!(&waiting, Waiting::Changes { changes, .. } if changes.is_empty()) {
            return;
        }
        self.bytes += bytes;
        self.queue.push_back(waiting);
        if self.bytes > self.bytes_max {
            // What waits is not worth the wait: the gateway resumes from what it was told.
            self.queue.clear();
            self.bytes = 0;
            self.end(End::Slow);
        }
    }
}

/// A frame of changes, from one on, and how many are told with it.
fn piece(storage: &Arc<str>, variant: u8, changes: &[Change], told: usize) -> (Bytes, usize) {
    let mut w = Writer::with_capacity(1024);
    w.u8(VERSION).u8(variant);
    storage.write(&mut w);
    let rest = changes.get(told..).unwrap_or_default();
    let count = fill(&mut w, rest.iter(), |w, change| change.write(w));
    (w.finish(), told + count)
}
