//! Errands on their way: at most so many at a time, each given up after a while.

use super::Effect;
use super::sources::Key;
use crate::errand::{Errand, ErrandId};
use base::Time;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What has not been answered by then is taken as refused, and asked again by whoever wants it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who waits for an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A ConfigMap, a Secret, the services of a namespace.
    Source(Key),
    /// A token of a pod, by its place among the pod's tokens.
    Token(Arc<str>, usize),
    /// A pod's status.
    Status(Arc<str>),
    /// A pod's removal.
    Delete(Arc<str>),
    /// An event, by its number.
    Event(u64),
}

#[derive(Debug)]
struct Open {
    purpose: Purpose,
    /// Not yet, while it waits for its turn.
    until: Option<Time>,
}

/// The errands. What waits is bounded by who asks: each has at most one errand open for each thing it
/// wants.
#[derive(Debug)]
pub(super) struct Post {
    most: usize,
    next: u64,
    sent: usize,
    open: BTreeMap<ErrandId, Open>,
    turn: VecDeque<(ErrandId, Box<Errand>)>,
}

impl Post {
    pub(super) fn new(most: usize) -> Post {
        Post { most, next: 1, sent: 0, open: BTreeMap::new(), turn: VecDeque::new() }
    }

    /// Sends an errand, at once or when others have been answered.
    pub(super) fn send(&mut self, now: Time, purpose: Purpose, errand: Errand, fx: &mut Vec<Effect>) {
        let id = ErrandId(self.next);
        self.next += 1;
        self.open.insert(id, Open { purpose, until: None });
        self.turn.push_back((id, Box::new(errand)));
        self.pump(now, fx);
    }

    fn pump(&mut self, now: Time, fx: &mut Vec<Effect>) {
        while self.sent < self.most {
            let Some((id, errand)) = self.turn.pop_front() else { break };
            let Some(open) = self.open.get_mut(&id) else { continue };
            open.until = Some(now + PATIENCE);
            self.sent += 1;
            fx.push(Effect::Errand { id, errand });
        }
    }

    /// An errand was answered: who waited for it. `None` if nobody does any more.
    pub(super) fn answered(&mut self, now: Time, id: ErrandId, fx: &mut Vec<Effect>) -> Option<Purpose> {
        let open = self.open.remove(&id)?;
        if open.until.is_some() {
            self.sent -= 1;
        }
        self.pump(now, fx);
        Some(open.purpose)
    }

    /// Errands that have waited too long.
    pub(super) fn overdue(&self, now: Time) -> Vec<ErrandId> {
        self.open.iter().filter(|(_, o)| o.until.is_some_and(|u| u <= now)).map(|(id, _)| *id).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.open.values().filter_map(|o| o.until).min()
    }

    pub(super) fn check(&self) {
        assert!(self.sent <= self.most, "{} errands are under way, at most {} may be", self.sent, self.most);
        let sent = self.open.values().filter(|o| o.until.is_some()).count();
        assert_eq!(sent, self.sent, "errands under way are miscounted");
    }
}
