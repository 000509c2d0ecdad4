//! The gateway's decisions: which cell a request belongs to, what to do when it was not answered, and how long
//! an answer about somebody's credentials and rights holds.

pub mod bound;
pub mod grant;
pub mod impersonate;
pub mod reserve;

pub mod across;

use crate::bundle::Bundle;
use crate::cell::Outcome;
use base::{CellId, Time};
use core::time::Duration;
use objects::kinds::Home;
use objects::request::Request;
use objects::status::Status;

/// The cell that decides a request. A namespace that root (as far as the bundle goes) does not have is
/// root's affair: a negative answer from a copy is confirmed by root itself, in which nothing of any
/// namespace lies, so that it answers as an empty namespace would and refuses creates.
pub fn home(request: &Request, bundle: &Bundle, root: CellId, registry: CellId) -> CellId {
    match request.kind.home {
        Home::Registry => registry,
        Home::Root => root,
        Home::Namespace | Home::Nowhere => request.decided_in().and_then(|n| bundle.cell_of(n)).unwrap_or(root),
    }
}

/// What a gateway does next.
pub enum Next {
    /// Give this outcome to the client.
    Give,
    /// Give it this refusal instead.
    Refuse(Box<Status>),
    /// Ask again at this moment, or as soon as anything about leaders or namespaces changes.
    WaitUntil(Time),
}

/// Hides changes of leader from clients: asks again, with the same request id, for a bounded time.
#[derive(Clone, Debug)]
pub struct Retry {
    until: Time,
    pause: Duration,
    /// An earlier attempt may have been executed.
    unknown: bool,
}

impl Retry {
    /// How long a gateway goes on asking.
    pub const PATIENCE: Duration = Duration::from_secs(30);
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_millis(500);

    /// A request that arrived now.
    pub fn new(now: Time) -> Retry {
        Retry { until: now + Retry::PATIENCE, pause: Retry::FIRST, unknown: false }
    }

    /// When it gives up.
    pub fn until(&self) -> Time {
        self.until
    }

    /// What to do with an outcome.
    pub fn next(&mut self, now: Time, outcome: &Outcome) -> Next {
        match outcome {
            Outcome::NotLeader => {}
            // Asking again with the same id finds out; the cell remembers what it executed.
            Outcome::Unknown => self.unknown = true,
            _ => return Next::Give,
        }
        if now >= self.until {
            return Next::Refuse(Box::new(if self.unknown {
                Status::timeout(
                    "the cell lost its leader while it decided this: it may or may not have been executed. Read the object before trying again",
                    0,
                )
            } else {
                Status::unavailable("no node leads the cell that decides this; nothing was executed. Try again later")
            }));
        }
        let at = now + self.pause;
        self.pause = (self.pause * 2).min(Retry::LONGEST);
        Next::WaitUntil(at.min(self.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_change_is_waited_out_and_then_told_truthfully() {
        let t0 = Time::from_ms(1000);
        let mut r = Retry::new(t0);
        assert!(matches!(r.next(t0, &Outcome::NotLeader), Next::WaitUntil(t) if t == t0 + Retry::FIRST));
        assert!(matches!(r.next(t0, &Outcome::Busy), Next::Give));
        let late = t0 + Retry::PATIENCE;
        assert!(matches!(r.next(late, &Outcome::NotLeader), Next::Refuse(s) if s.code == 503));
        r.next(t0, &Outcome::Unknown);
        assert!(matches!(r.next(late, &Outcome::NotLeader), Next::Refuse(s) if s.code == 504));
    }
}
