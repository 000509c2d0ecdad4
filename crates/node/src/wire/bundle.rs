//! `/beemesh/bundle/1`: root's configuration, as a whole or as what changed.
//!
//! Whoever needs it says what it has ([`Have`]), and is told what is newer, at once and whenever there is something
//! newer. What is told is a head (after which number it goes, if it is not the whole; the number it makes), then
//! records in pieces (storage group-kind, name, the object or that it is gone), then their number.
//!
//! A change goes onto the very bundle it was made after, and onto no other: between two numbers a record may have
//! changed and changed back. One who has another asks for the whole ([`Took::Misfit`]). What comes of a change is what
//! the whole would have been: a bundle is what root held at its number, and nothing else.

use super::codec::{DecodeError, Read, Reader, VERSION, Wire, Writer, fields, fill, message};
use crate::bundle::{Bundle, Change, Record};
use base::Revision;
use bytes::Bytes;
use objects::Tree;
use std::collections::VecDeque;
use std::sync::Arc;

/// How many bundles before the newest are kept to tell what changed since: they share what did not.
pub const KEPT_MAX: usize = 64;

/// How many bytes of a bundle may be under way to a node.
pub const BUNDLE_BYTES_MAX: usize = 256 << 20;

/// From one who needs the bundle to one who has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Have {
    /// The number of what it has; 0 for nothing.
    pub number: Revision,
    /// It wants the whole: what changed did not fit.
    pub whole: bool,
}

fields!(Have { number: Revision, whole: bool });
message!(Have, "a question for the bundle");

/// The head of what is told.
struct Head {
    /// Of a change: the number it goes onto.
    after: Option<Revision>,
    number: Revision,
}

fields!(Head { after: Option<Revision>, number: Revision });

// The kinds of frames, after their version.
const HEAD: u8 = 1;
const RECORDS: u8 = 2;
const END: u8 = 3;

/// The newest bundle, and some before it, to tell others from.
#[derive(Default)]
pub struct Shelf {
    newest: Arc<Bundle>,
    /// The oldest first.
    older: VecDeque<Arc<Bundle>>,
}

impl Shelf {
    /// A newer bundle. One that is not newer is passed over.
    pub fn put(&mut self, bundle: Arc<Bundle>) {
        if bundle.number() <= self.newest.number() {
            return;
        }
        self.older.push_back(std::mem::replace(&mut self.newest, bundle));
        if self.older.len() > KEPT_MAX {
            self.older.pop_front();
        }
    }

    /// The newest.
    pub fn newest(&self) -> &Arc<Bundle> {
        &self.newest
    }

    /// What to tell one who has this; `None` if it has all there is.
    pub fn tell(&self, have: Have) -> Option<Telling> {
        if have.number >= self.newest.number() && !have.whole {
            return None;
        }
        let nothing = have.whole || have.number == Revision::ZERO;
        let held = self.older.iter().rev().find(|b| !nothing && b.number() == have.number);
        Some(match held {
            Some(held) => Telling::changed(held, &self.newest),
            None => Telling::whole(&self.newest),
        })
    }
}

/// A bundle, or what changed, on its way: frames, made when they are asked for.
pub struct Telling {
    head: Option<Head>,
    number: Revision,
    records: std::vec::IntoIter<Record>,
    told: u64,
    ended: bool,
}

impl Telling {
    /// All of it.
    pub fn whole(bundle: &Bundle) -> Telling {
        let records = bundle.records().map(|(storage, name, tree)| (storage.clone(), name.clone(), Some(tree.clone())));
        Telling::of(None, bundle.number(), records.collect())
    }

    /// What makes `new` of `old`.
    pub fn changed(old: &Bundle, new: &Bundle) -> Telling {
        Telling::of(Some(old.number()), new.number(), new.changed_since(old))
    }

    fn of(after: Option<Revision>, number: Revision, records: Vec<Record>) -> Telling {
        Telling { head: Some(Head { after, number }), number, records: records.into_iter(), told: 0, ended: false }
    }

    /// The number of what comes of it.
    pub fn number(&self) -> Revision {
        self.number
    }

    /// The next frame; `None` after the last.
    pub fn next_frame(&mut self) -> Option<Bytes> {
        let mut w = Writer::with_capacity(128);
        w.u8(VERSION);
        if let Some(head) = self.head.take() {
            head.write(w.u8(HEAD));
            return Some(w.finish());
        }
        if self.ended {
            return None;
        }
        if self.records.len() == 0 {
            self.ended = true;
            w.u8(END).u64(self.told);
            return Some(w.finish());
        }
        self.told += fill(w.u8(RECORDS), &mut self.records, |w, record| record.write(w)) as u64;
        Some(w.finish())
    }
}

/// What a frame came to.
pub enum Took {
    /// More frames follow.
    More,
    /// The bundle is this now.
    New(Arc<Bundle>),
    /// It was of nothing newer than what is held.
    Known,
    /// It goes onto another bundle than the one held, which stays: ask with this.
    Misfit(Have),
}

/// The bundle of one who is told of it.
pub struct Taking {
    held: Arc<Bundle>,
    coming: Option<Coming>,
    bytes_max: usize,
}

struct Coming {
    head: Head,
    bytes: usize,
    records: Vec<(Arc<str>, Arc<str>, Option<Tree>)>,
}

impl Taking {
    /// One who has this.
    pub fn new(held: Arc<Bundle>) -> Taking {
        Taking { held, coming: None, bytes_max: BUNDLE_BYTES_MAX }
    }

    /// The same, with another bound than [`BUNDLE_BYTES_MAX`] on what is under way.
    #[must_use]
    pub fn at_most(self, bytes_max: usize) -> Taking {
        Taking { bytes_max, ..self }
    }

    /// What it has.
    pub fn held(&self) -> &Arc<Bundle> {
        &self.held
    }

    /// What to ask with, when a stream begins. What was under way on an earlier one is given up.
    pub fn have(&mut self) -> Have {
        self.coming = None;
        Have { number: self.held.number(), whole: false }
    }

    /// Another bundle is held now, from elsewhere; an older one is passed over.
    pub fn put(&mut self, bundle: Arc<Bundle>) {
        if bundle.number() > self.held.number() {
            self.held = bundle;
        }
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// It cannot be read, is out of turn, or more is under way than the bound says: what is held stays as it is, and
    /// the stream is to be given up.
    pub fn frame(&mut self, frame: &Bytes) -> Result<Took, DecodeError> {
        let coming = self.coming.take();
        let (mut r, _) = Reader::versioned("a bundle", frame, VERSION)?;
        let took = match (r.u8()?, coming) {
            (HEAD, None) => {
                let head = Head::read(&mut r)?;
                self.coming = Some(Coming { head, bytes: frame.len(), records: Vec::new() });
                Took::More
            }
            (RECORDS, Some(mut coming)) => {
                coming.bytes += frame.len();
                if coming.bytes > self.bytes_max {
                    return Err(r.malformed());
                }
                for _ in 0..r.count(<(Arc<str>, Arc<str>, Option<Tree>)>::LEAST)? {
                    coming.records.push(record(&mut r)?);
                }
                self.coming = Some(coming);
                Took::More
            }
            (END, Some(coming)) => {
                if r.u64()? != coming.records.len() as u64 {
                    return Err(r.malformed());
                }
                self.take(coming)
            }
            (HEAD..=END, _) => return Err(r.malformed()),
            (other, _) => return Err(r.newer(other)),
        };
        r.end()?;
        Ok(took)
    }

    fn take(&mut self, coming: Coming) -> Took {
        let Coming { head, mut records, .. } = coming;
        if head.number <= self.held.number() {
            return Took::Known;
        }
        let base = match head.after {
            None => Bundle::default(),
            Some(after) if after == self.held.number() => (*self.held).clone(),
            Some(_) => return Took::Misfit(Have { number: self.held.number(), whole: true }),
        };
        let changes = records.iter_mut().map(|(storage, name, tree)| Change { storage, name, tree: tree.take() });
        self.held = Arc::new(base.with(head.number, changes));
        Took::New(self.held.clone())
    }
}

fn record(r: &mut Reader<'_>) -> Read<(Arc<str>, Arc<str>, Option<Tree>)> {
    Wire::read(r)
}
