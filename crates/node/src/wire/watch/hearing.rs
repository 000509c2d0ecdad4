//! The gateway's side of a stream.

use super::{Begin, CALLS_MAX, Call, End, FromCell, ToCell};
use crate::cell::{Change, Outcome, Subscription};
use crate::gateway::across;
use crate::wire::ask::{ANSWER_BYTES_MAX, AnswerError, Heard, Receiving};
use base::{CellId, Revision};
use bytes::Bytes;
use objects::request::Request;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a gateway hears, whole.
pub enum Told {
    /// The stream stands.
    Welcome {
        /// The epoch of the cell's keepers, as the replica knows them.
        epoch: u64,
        /// The number of its node's bundle.
        bundle: Revision,
    },
    /// The answer to [`ToCell::Subscribe`].
    Subscribed {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// As it was asked for.
        after: Option<Revision>,
        /// How it begins.
        begin: Subscription,
    },
    /// Changes of a resource.
    Events {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// What changed, in order.
        changes: Arc<[Change]>,
    },
    /// Everything of a resource up to this revision has been told.
    Progress {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// The revision.
        revision: Revision,
    },
    /// Nothing at or below this revision is still to come, and all that was has been told.
    Closed {
        /// The revision.
        revision: Revision,
    },
    /// The answer to [`ToCell::Watch`]. What was told of its resource while it was under way is in its backlog, too:
    /// what is told from now on continues it.
    Answer {
        /// Which.
        call: Call,
        /// What.
        heard: Box<Heard>,
    },
    /// The replica's node has this bundle now.
    Bundle {
        /// The number.
        number: Revision,
    },
    /// Nothing more is told.
    End(End),
}

impl Told {
    /// What of it concerns watches over all namespaces.
    pub fn across(&self, cell: CellId) -> Option<across::Input> {
        Some(match self {
            Told::Subscribed { storage, after, begin } => {
                across::Input::Subscribed { cell, storage: storage.clone(), after: *after, begin: begin.clone() }
            }
            Told::Events { storage, changes } => {
                across::Input::Events { cell, storage: storage.clone(), changes: changes.clone() }
            }
            Told::Closed { revision } => across::Input::Closed { cell, revision: *revision },
            Told::End(_) => across::Input::Lost { cell },
            Told::Welcome { .. } | Told::Progress { .. } | Told::Answer { .. } | Told::Bundle { .. } => return None,
        })
    }
}

/// The gateway's side of a stream.
pub struct Hearing {
    next: u64,
    calls: BTreeMap<Call, Opening>,
    backlogs: BTreeMap<Arc<str>, Backlog>,
    bytes_max: usize,
    ended: bool,
}

/// An answer that is under way.
struct Opening {
    answer: Receiving,
    /// What was told of its resource since its head was.
    meanwhile: Vec<Change>,
    bytes: usize,
}

/// A subscription whose backlog is under way.
struct Backlog {
    after: Option<Revision>,
    revision: Revision,
    serial: u64,
    count: u64,
    changes: Vec<Change>,
    bytes: usize,
}

impl Default for Hearing {
    fn default() -> Hearing {
        Hearing::new(ANSWER_BYTES_MAX)
    }
}

impl Hearing {
    /// A stream of which at most so many bytes that are not whole are kept.
    pub fn new(bytes_max: usize) -> Hearing {
        Hearing { next: 1, calls: BTreeMap::new(), backlogs: BTreeMap::new(), bytes_max, ended: false }
    }

    /// The message that asks for a watch; `None` if as many wait as may ([`CALLS_MAX`]).
    pub fn watch(&mut self, request: Arc<Request>) -> Option<(Call, ToCell)> {
        if self.ended || self.calls.len() >= CALLS_MAX {
            return None;
        }
        let call = Call(self.next);
        self.next += 1;
        let answer = Receiving::new(self.bytes_max);
        self.calls.insert(call, Opening { answer, meanwhile: Vec::new(), bytes: 0 });
        Some((call, ToCell::Watch { call, request }))
    }

    /// Nobody waits for that answer any more: the message that says so, if it has not come.
    pub fn leave(&mut self, call: Call) -> Option<ToCell> {
        self.calls.remove(&call).map(|_| ToCell::Leave { call })
    }

    /// The calls that wait for an answer: when the stream ends, they are to be asked elsewhere. A watch changes
    /// nothing, so that may be done at once.
    pub fn waiting(&self) -> impl Iterator<Item = Call> + '_ {
        self.calls.keys().copied()
    }

    /// Takes a frame. What it makes whole, if it does.
    ///
    /// # Errors
    /// [`AnswerError`]: the stream is to be given up, and what was watched to be begun anew.
    pub fn frame(&mut self, frame: &Bytes) -> Result<Option<Told>, AnswerError> {
        if std::mem::replace(&mut self.ended, true) {
            return Err(AnswerError::OutOfTurn);
        }
        let told = self.take(FromCell::decode(frame)?, frame.len())?;
        self.ended = matches!(told, Some(Told::End(_)));
        let kept = self.calls.values().map(|c| c.answer.held() + c.bytes).sum::<usize>()
            + self.backlogs.values().map(|b| b.bytes).sum::<usize>();
        if kept > self.bytes_max {
            self.ended = true;
            return Err(AnswerError::TooLong { bytes: kept, max: self.bytes_max });
        }
        Ok(told)
    }

    fn take(&mut self, message: FromCell, bytes: usize) -> Result<Option<Told>, AnswerError> {
        Ok(Some(match message {
            FromCell::Welcome { epoch, bundle } => Told::Welcome { epoch, bundle },
            FromCell::Subscribed { storage, after, begin } => {
                if self.backlogs.contains_key(&storage) {
                    return Err(AnswerError::OutOfTurn);
                }
                let begin = match begin {
                    Begin::Gone { oldest } => Subscription::Gone { oldest },
                    Begin::Open { revision, serial, backlog: 0 } => {
                        Subscription::Open { revision, backlog: Arc::default(), serial }
                    }
                    Begin::Open { revision, serial, backlog: count } => {
                        let backlog = Backlog { after, revision, serial, count, changes: Vec::new(), bytes };
                        self.backlogs.insert(storage, backlog);
                        return Ok(None);
                    }
                };
                Told::Subscribed { storage, after, begin }
            }
            FromCell::Backlog { storage, changes } => {
                let backlog = self.backlogs.get_mut(&storage).ok_or(AnswerError::OutOfTurn)?;
                backlog.changes.extend(changes);
                backlog.bytes += bytes;
                match (backlog.changes.len() as u64).cmp(&backlog.count) {
                    std::cmp::Ordering::Less => return Ok(None),
                    std::cmp::Ordering::Greater => return Err(AnswerError::OutOfTurn),
                    std::cmp::Ordering::Equal => {}
                }
                let Some(Backlog { after, revision, serial, changes, .. }) = self.backlogs.remove(&storage) else {
                    return Err(AnswerError::OutOfTurn);
                };
                let begin = Subscription::Open { revision, backlog: changes.into(), serial };
                Told::Subscribed { storage, after, begin }
            }
            FromCell::Events { storage, .. } | FromCell::Progress { storage, .. }
                if self.backlogs.contains_key(&storage) =>
            {
                return Err(AnswerError::OutOfTurn);
            }
            FromCell::Events { storage, changes } => {
                for call in self.calls.values_mut().filter(|c| c.answer.watching() == Some(&*storage)) {
                    call.meanwhile.extend(changes.iter().cloned());
                    call.bytes += bytes;
                }
                Told::Events { storage, changes: changes.into() }
            }
            FromCell::Progress { storage, revision } => Told::Progress { storage, revision },
            // It covers what a backlog holds that is not whole.
            FromCell::Closed { .. } if !self.backlogs.is_empty() => return Err(AnswerError::OutOfTurn),
            FromCell::Closed { revision } => Told::Closed { revision },
            FromCell::Answer { call, frame } => {
                // Nobody may wait for it any more.
                let Some(opening) = self.calls.get_mut(&call) else { return Ok(None) };
                let Some(mut heard) = opening.answer.frame(&frame)? else { return Ok(None) };
                let meanwhile = self.calls.remove(&call).map(|c| c.meanwhile).unwrap_or_default();
                if let Outcome::Watch(opened) = &mut heard.outcome {
                    opened.backlog.extend(meanwhile);
                }
                Told::Answer { call, heard: Box::new(heard) }
            }
            FromCell::Bundle { number } => Told::Bundle { number },
            FromCell::End(why) => Told::End(why),
        }))
    }
}
