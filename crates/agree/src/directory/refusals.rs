//! What was not believed, and who said it.

use super::chain::Doubt;
use alloc::collections::BTreeMap;
use base::{NodeId, Time};
use core::time::Duration;

/// Nodes of which it is remembered what was refused from them, at most; of more, the one that lied longest ago goes, and
/// before it any that never lied.
pub const SPEAKERS_MAX: usize = 1_024;

/// Why something was refused; what is held stays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Refusal {
    /// It is not what it says it is, or passes a bound. A lie, unless a newer release sent it.
    Malformed,
    /// A signature is false. A lie: nobody passes on what was not verified.
    Signature,
    /// Too few of those who kept the cell have signed. A lie.
    Quorum,
    /// It is about something else than was asked for. A lie.
    WrongKey,
    /// Nobody asked.
    Unasked,
    /// The node is no member, or not of that hive or with those roles, as far as is known here.
    NotMember,
    /// A newer one is held, or was.
    Old,
    /// Links are missing between it and what is held.
    Gap,
    /// Two versions of one epoch: the *cell's keepers* have signed twice, not necessarily whoever tells of it.
    Fork,
    /// The node is of another hive.
    Foreign,
    /// There is no room.
    Full,
    /// Too much at once; it may be told again.
    Flood,
}

impl Refusal {
    /// How many there are.
    pub const COUNT: usize = 12;

    /// Whether only a liar (or broken software) says such a thing.
    pub const fn is_lie(self) -> bool {
        matches!(self, Refusal::Malformed | Refusal::Signature | Refusal::Quorum | Refusal::WrongKey)
    }
}

impl From<&Doubt> for Refusal {
    fn from(doubt: &Doubt) -> Refusal {
        match doubt {
            Doubt::Old { .. } => Refusal::Old,
            Doubt::Gap { .. } => Refusal::Gap,
            Doubt::Signature { .. } => Refusal::Signature,
            Doubt::Quorum(_) => Refusal::Quorum,
            Doubt::Fork { .. } => Refusal::Fork,
        }
    }
}

/// What was refused from one node since this process started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Refused {
    counts: [u32; Refusal::COUNT],
    lied: Option<Time>,
}

impl Refused {
    /// How often, for this reason.
    pub fn count(&self, why: Refusal) -> u32 {
        self.counts[why as usize]
    }

    /// When it last lied.
    pub fn lied(&self) -> Option<Time> {
        self.lied
    }
}

#[derive(Default)]
pub(super) struct Refusals(BTreeMap<NodeId, Refused>);

impl Refusals {
    pub(super) fn note(&mut self, now: Time, from: NodeId, why: Refusal) {
        if self.0.len() >= SPEAKERS_MAX && !self.0.contains_key(&from) {
            let least = self.0.iter().min_by_key(|(_, r)| r.lied).map(|(n, _)| *n);
            least.map(|n| self.0.remove(&n));
        }
        let refused = self.0.entry(from).or_default();
        let count = &mut refused.counts[why as usize];
        *count = count.saturating_add(1);
        if why.is_lie() {
            refused.lied = Some(now);
        }
    }

    pub(super) fn lied_within(&self, now: Time, span: Duration, node: &NodeId) -> bool {
        self.0.get(node).and_then(|r| r.lied).is_some_and(|at| now < at + span)
    }

    pub(super) fn all(&self) -> &BTreeMap<NodeId, Refused> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn liars_are_remembered_before_those_who_were_only_late() {
        let mut r = Refusals::default();
        let id = |n: u64| super::super::test_keys::node(n);
        r.note(Time(1), id(0), Refusal::Signature);
        (1..=2 * SPEAKERS_MAX as u64).for_each(|n| r.note(Time(2), id(n), Refusal::Old));
        assert_eq!(r.0.len(), SPEAKERS_MAX);
        assert_eq!(r.all()[&id(0)].count(Refusal::Signature), 1);
        let within = |at| r.lied_within(Time(at), Duration::from_nanos(10), &id(0));
        assert!(within(5) && !within(20));
    }
}
