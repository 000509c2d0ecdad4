//! An acknowledgement is a promise: what a client was told is written stays written, in every replica's
//! state; and what it was told is refused never happens.

use super::applied::{Applied, RESOURCE};
use super::register::{Asked, Told};
use super::{Checked, ensure};
use agree::cell::Member;
use base::Revision;
use std::collections::{BTreeMap, BTreeSet};

/// What was promised.
#[derive(Default)]
pub struct Acknowledged {
    /// Values by when they were written.
    written: BTreeMap<Revision, String>,
    refused: BTreeSet<String>,
}

impl Acknowledged {
    /// A client is told what became of its write.
    ///
    /// # Errors
    /// It is not so.
    pub fn told(&mut self, truth: &Applied, asked: &Asked, told: &Told) -> Checked {
        let Some(value) = asked.value() else { return Ok(()) };
        match told {
            Told::Object(_, at, _) => {
                let written = truth.written(value);
                ensure("acknowledged", written.is_some_and(|w| w <= *at), || {
                    format!("{value:?} was acknowledged at {at:?} and was written {written:?}")
                })?;
                self.written.insert(written.unwrap_or_default(), value.to_owned());
            }
            // Too old to know: it may have been executed.
            Told::Refused(504) => {}
            Told::Refused(_) => {
                self.refused.insert(value.to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// The end of a run: a replica's state is that of everything acknowledged and of nothing refused.
    ///
    /// # Errors
    /// It is not.
    pub fn kept(&self, truth: &Applied, node: usize, member: &Member) -> Checked {
        for v in &self.refused {
            ensure("acknowledged", truth.written(v).is_none(), || {
                format!("{v:?} was refused, and then it was written")
            })?;
        }
        for (at, v) in &self.written {
            ensure("acknowledged", truth.written(v) == Some(*at), || format!("{v:?}, acknowledged, is gone"))?;
        }
        let prefix = format!("{RESOURCE}\0");
        let have: BTreeMap<String, Revision> = member
            .cell()
            .state()
            .scan(prefix.as_bytes())
            .map(|(k, r)| (String::from_utf8_lossy(k.get(prefix.len()..).unwrap_or_default()).into_owned(), r.revision))
            .collect();
        let want = truth.state_at(Revision::MAX);
        ensure("acknowledged", have == want, || {
            format!("at the end node {node} has {have:?}, where what was acknowledged makes {want:?}")
        })
    }
}
