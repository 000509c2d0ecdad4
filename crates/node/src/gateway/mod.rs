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
    /// Since when it is known that too few keepers answer for anybody to lead.
    without: Option<Time>,
}

/// Too few of those who keep a cell answer for one of them to lead it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Absent {
    /// How many vote.
    pub voters: usize,
    /// The names of those that do not answer.
    pub names: Vec<String>,
}

impl Retry {
    /// How long a gateway goes on asking.
    pub const PATIENCE: Duration = Duration::from_secs(30);
    /// How long it waits for keepers that are known not to answer: longer than a leader is elected.
    pub const PATIENCE_WITHOUT: Duration = Duration::from_secs(5);
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_millis(500);

    /// A request that arrived now.
    pub fn new(now: Time) -> Retry {
        Retry { until: now + Retry::PATIENCE, pause: Retry::FIRST, unknown: false, without: None }
    }

    /// When it gives up.
    pub fn until(&self) -> Time {
        self.until
    }

    /// What to do with an outcome. `absent` is what is known of keepers that do not answer.
    pub fn next(&mut self, now: Time, outcome: &Outcome, absent: impl FnOnce() -> Option<Absent>) -> Next {
        match outcome {
            Outcome::NotLeader => {}
            // Asking again with the same id finds out; the cell remembers what it executed.
            Outcome::Unknown => self.unknown = true,
            // An answer that invites to try again would be taken for "not executed", and come with another id.
            Outcome::Busy if self.unknown => {}
            _ => return Next::Give,
        }
        let absent = absent();
        let without = absent.as_ref().map(|_| *self.without.get_or_insert(now));
        self.without = without;
        let in_vain = without.is_some_and(|since| now >= since + Retry::PATIENCE_WITHOUT);
        if now >= self.until || in_vain {
            let absent = absent.map(|Absent { voters, names }| {
                format!("{} of the {voters} keepers of this cell do not answer ({})", names.len(), names.join(", "))
            });
            return Next::Refuse(Box::new(if self.unknown {
                let why = absent.unwrap_or_else(|| "the cell lost its leader while it decided this".to_owned());
                let then = "it may or may not have been executed. Read the object before trying again";
                Status::timeout(&format!("{why}: {then}"), 0)
            } else if let Some(why) = absent {
                Status::unavailable(&format!(
                    "{why}: nothing was executed. It goes on by itself once a majority answers"
                ))
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
        let none = || None;
        assert!(matches!(r.next(t0, &Outcome::NotLeader, none), Next::WaitUntil(t) if t == t0 + Retry::FIRST));
        assert!(matches!(r.next(t0, &Outcome::Busy, none), Next::Give));
        let late = t0 + Retry::PATIENCE;
        assert!(matches!(r.next(late, &Outcome::NotLeader, none), Next::Refuse(s) if s.code == 503));
        r.next(t0, &Outcome::Unknown, none);
        assert!(matches!(r.next(t0, &Outcome::Busy, none), Next::WaitUntil(_)), "it may have been executed");
        assert!(matches!(r.next(late, &Outcome::NotLeader, none), Next::Refuse(s) if s.code == 504));
    }

    #[test]
    fn keepers_that_do_not_answer_are_named_and_not_waited_for_long() {
        let t0 = Time::from_ms(1000);
        let absent = || Some(Absent { voters: 3, names: vec!["bee".into(), "cow".into()] });
        let mut r = Retry::new(t0);
        assert!(matches!(r.next(t0, &Outcome::NotLeader, absent), Next::WaitUntil(_)));
        let soon = t0 + Retry::PATIENCE_WITHOUT;
        let Next::Refuse(status) = r.next(soon, &Outcome::NotLeader, absent) else { panic!("it goes on waiting") };
        assert_eq!(status.code, 503);
        assert!(
            status.message.starts_with("2 of the 3 keepers of this cell do not answer (bee, cow)"),
            "{}",
            status.message
        );
        // One that is back meanwhile is waited for as any leader is.
        let mut r = Retry::new(t0);
        r.next(t0, &Outcome::NotLeader, absent);
        r.next(t0, &Outcome::NotLeader, || None);
        assert!(matches!(r.next(soon, &Outcome::NotLeader, absent), Next::WaitUntil(_)));
    }
}
