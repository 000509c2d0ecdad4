//! Linearizability: each answer is true of some moment between its request and itself (Herlihy and Wing,
//! "Linearizability: A Correctness Condition for Concurrent Objects").
//!
//! Revisions are versions, so no search is needed. What any client has been shown by the time a request
//! begins is its floor; its answer must be true of the state at the floor or of a later one. As one
//! log orders the whole cell, the floor is the cell's and not the key's: the condition checked is the
//! stronger one.

use super::applied::Applied;
use super::{Checked, Violation};
use base::Revision;

/// What a client asked.
#[derive(Clone, Debug)]
pub enum Asked {
    /// To create the object with this value.
    Create(String),
    /// To make it this value, if it is still at that revision (if one is given).
    Update(String, Option<Revision>),
    /// To delete it.
    Delete,
    /// What it is.
    Get,
    /// All there are.
    List,
}

impl Asked {
    /// The value that it writes.
    pub fn value(&self) -> Option<&str> {
        match self {
            Asked::Create(v) | Asked::Update(v, _) => Some(v),
            _ => None,
        }
    }
}

/// What a client was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// An object: the HTTP status, its revision and value.
    Object(u16, Revision, String),
    /// A success without an object.
    Success,
    /// A refusal: the HTTP status.
    Refused(u16),
    /// A list: its revision, and each name with its revision.
    Listed(Revision, Vec<(String, Revision)>),
}

/// What clients have been shown.
#[derive(Default)]
pub struct Register {
    shown: Revision,
}

impl Register {
    /// What a request that begins now must see at least.
    pub fn floor(&self) -> Revision {
        self.shown
    }

    /// A client is told something.
    ///
    /// # Errors
    /// It is true of no moment since the floor.
    pub fn told(&mut self, truth: &Applied, name: &str, asked: &Asked, told: &Told, floor: Revision) -> Checked {
        let wrong = || Violation {
            checker: "register",
            what: format!("{asked:?} of {name} was told {told:?}, which is true of no state since {floor:?}"),
        };
        // The earliest moment of which the answer is true: all that can be said to have been shown.
        let versions = truth.since(name, floor);
        let present = |v: &&(Revision, Option<(Revision, &str)>)| v.1.is_some();
        let moment = match (asked, told) {
            (Asked::Get, Told::Object(_, at, value)) => {
                versions.iter().find(|v| v.1 == Some((*at, value.as_str()))).map(|v| v.0)
            }
            (Asked::Get, Told::Refused(404)) => versions.iter().find(|v| v.1.is_none()).map(|v| v.0),
            (Asked::List, Told::Listed(at, items)) => {
                let then: Vec<_> = truth.state_at(*at).into_iter().collect();
                (*at >= floor && then == *items).then_some(*at)
            }
            (Asked::Create(v) | Asked::Update(v, _), Told::Object(_, at, value)) => {
                // A retry is answered with the object as it is by then, perhaps of a later write.
                let real = versions.iter().any(|v| v.1 == Some((*at, value.as_str())));
                truth.written(v).filter(|w| real && *w > floor)
            }
            (Asked::Create(v) | Asked::Update(v, _), Told::Success) => truth.written(v).filter(|at| *at > floor),
            (Asked::Delete, Told::Object(..) | Told::Success) => {
                versions.iter().skip(1).find(|v| v.1.is_none()).map(|v| v.0)
            }
            (Asked::Create(_), Told::Refused(409)) => versions.iter().find(present).map(|v| v.0),
            (Asked::Update(..) | Asked::Delete, Told::Refused(404)) => {
                versions.iter().find(|v| v.1.is_none()).map(|v| v.0)
            }
            (Asked::Update(_, Some(at)), Told::Refused(409)) => {
                versions.iter().find(|v| v.1.is_none_or(|(r, _)| r != *at)).map(|v| v.0)
            }
            // Nothing was said about the objects.
            (_, Told::Refused(503 | 504 | 429)) => Some(floor),
            _ => None,
        };
        let moment = moment.ok_or_else(wrong)?;
        self.shown = self.shown.max(moment);
        Ok(())
    }
}
