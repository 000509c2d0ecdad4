//! A node's own account: what is bound to it, and what it has promised for a few seconds.
//!
//! A node alone decides what it runs. A bid reserves; a reservation that is not confirmed lapses; a
//! confirmed one is held until the node has read in the cell whether it was bound. So nothing is
//! promised twice, whoever crashes.

use super::fit::{Hosted, NodeFacts, Reason, fit};
use super::score::score;
use base::Time;
use objects::Tree;
use std::collections::BTreeMap;
use std::time::Duration;

/// A promise to run one pod, by its number at this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reservation(pub u64);

/// Why the book refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BookError {
    /// The node cannot run it, for these reasons. Nothing was reserved.
    Unfit(Vec<Reason>),
    /// There is no such reservation (any more). Nothing changed; tender again.
    Lapsed,
    /// As many reservations as the book holds are open. Nothing was reserved; ask later.
    Full,
}

#[derive(Clone, Debug)]
struct Open {
    uid: String,
    /// When it lapses; `None` once confirmed: then only the cell's word ends it.
    until: Option<Time>,
}

/// What a node has bound and reserved.
#[derive(Clone, Debug)]
pub struct Book {
    facts: NodeFacts,
    open: BTreeMap<Reservation, Open>,
    next: u64,
    hold: Duration,
}

impl Book {
    /// At most this many reservations are open at a time.
    pub const OPEN_MAX: usize = 1024;

    /// A book for a node, whose bids hold for `hold`.
    pub fn new(facts: NodeFacts, hold: Duration) -> Book {
        Book { facts, open: BTreeMap::new(), next: 1, hold }
    }

    /// What the node knows of itself, reservations counted as hosted.
    pub fn facts(&self) -> &NodeFacts {
        &self.facts
    }

    /// Labels, taints and capacity have changed; what is hosted stays.
    pub fn update(&mut self, facts: NodeFacts) {
        let hosted = std::mem::take(&mut self.facts.hosted);
        self.facts = NodeFacts { hosted, ..facts };
    }

    /// Reserves room for a pod and scores the bid. Asked again for a pod that is reserved or bound
    /// already, it gives the same reservation.
    ///
    /// # Errors
    /// See [`BookError`].
    pub fn bid(&mut self, now: Time, uid: &str, pod: &Tree) -> Result<(Reservation, u32), BookError> {
        self.lapse(now);
        if let Some((id, _)) = self.open.iter().find(|(_, o)| o.uid == uid) {
            let id = *id;
            if let Some(open) = self.open.get_mut(&id)
                && let Some(until) = &mut open.until
            {
                *until = now + self.hold;
            }
            return Ok((id, score(&self.facts, pod)));
        }
        if self.open.len() >= Book::OPEN_MAX {
            return Err(BookError::Full);
        }
        let reasons = fit(&self.facts, pod);
        if !reasons.is_empty() {
            return Err(BookError::Unfit(reasons));
        }
        let bid = score(&self.facts, pod);
        let id = Reservation(self.next);
        self.next += 1;
        self.facts.hosted.insert(uid.into(), Hosted::of(pod));
        self.open.insert(id, Open { uid: uid.into(), until: Some(now + self.hold) });
        Ok((id, bid))
    }

    /// The leader has chosen this bid and is about to commit the binding: the reservation no longer
    /// lapses by itself.
    ///
    /// # Errors
    /// [`BookError::Lapsed`].
    pub fn confirm(&mut self, now: Time, id: Reservation) -> Result<(), BookError> {
        self.lapse(now);
        let open = self.open.get_mut(&id).ok_or(BookError::Lapsed)?;
        open.until = None;
        Ok(())
    }

    /// The leader chose another, or the cell says the pod is bound elsewhere or gone.
    pub fn release(&mut self, id: Reservation) {
        if let Some(open) = self.open.remove(&id) {
            self.facts.hosted.remove(&open.uid);
        }
    }

    /// The cell says the pod is bound here. A pod that was bound without a bid (by the binding
    /// subresource, or with a preset node name) is admitted or refused now.
    ///
    /// # Errors
    /// [`BookError::Unfit`]: the pod is to be failed, with these reasons; it is never unbound.
    pub fn bound(&mut self, uid: &str, pod: &Tree) -> Result<(), BookError> {
        let promised = self.open.iter().find(|(_, o)| o.uid == uid).map(|(id, _)| *id);
        if let Some(id) = promised {
            self.open.remove(&id);
            return Ok(());
        }
        if self.facts.hosted.contains_key(uid) {
            return Ok(());
        }
        // A cordon and taints that only keep new pods away do not undo somebody else's binding.
        let mut lenient = self.facts.clone();
        lenient.unschedulable = false;
        lenient.taints.retain(|t| t["effect"] == "NoExecute");
        let reasons = fit(&lenient, pod);
        if !reasons.is_empty() {
            return Err(BookError::Unfit(reasons));
        }
        self.facts.hosted.insert(uid.into(), Hosted::of(pod));
        Ok(())
    }

    /// The node was already running this pod before it restarted: it is counted without question.
    pub fn found(&mut self, uid: &str, pod: &Tree) {
        self.facts.hosted.insert(uid.into(), Hosted::of(pod));
    }

    /// The pod has finished or is gone.
    pub fn ended(&mut self, uid: &str) {
        self.open.retain(|_, o| o.uid != uid);
        self.facts.hosted.remove(uid);
    }

    /// Drops reservations whose time is over.
    pub fn lapse(&mut self, now: Time) {
        let over: Vec<Reservation> =
            self.open.iter().filter(|(_, o)| o.until.is_some_and(|t| t <= now)).map(|(id, _)| *id).collect();
        for id in over {
            self.release(id);
        }
    }

    /// When the next reservation lapses.
    pub fn next_deadline(&self) -> Option<Time> {
        self.open.values().filter_map(|o| o.until).min()
    }

    /// Every open reservation is counted as hosted.
    pub fn check(&self) {
        assert!(self.open.values().all(|o| self.facts.hosted.contains_key(&o.uid)), "a reservation holds no room");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pod::Resources;
    use proptest::prelude::*;
    use serde_json::json;

    fn book() -> Book {
        let facts = NodeFacts {
            name: "n".into(),
            allocatable: Resources::of(&json!({"cpu": "2", "pods": "10"})),
            ..NodeFacts::default()
        };
        Book::new(facts, Duration::from_secs(5))
    }

    fn pod(cpu: &str) -> Tree {
        json!({"metadata": {"namespace": "d"}, "spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}})
    }

    const T0: Time = Time::ZERO;

    #[test]
    fn what_is_reserved_is_not_offered_twice() {
        let mut b = book();
        let (first, _) = b.bid(T0, "a", &pod("1500m")).unwrap();
        assert!(matches!(b.bid(T0, "b", &pod("1")), Err(BookError::Unfit(r)) if r[0].text == "Insufficient cpu"));
        assert_eq!(b.bid(T0, "a", &pod("1500m")).unwrap().0, first);
        b.release(first);
        assert!(b.bid(T0, "b", &pod("1")).is_ok());
    }

    #[test]
    fn an_unconfirmed_reservation_lapses_and_a_confirmed_one_waits_for_the_cell() {
        let mut b = book();
        let (a, _) = b.bid(T0, "a", &pod("1")).unwrap();
        let (c, _) = b.bid(T0, "c", &pod("1")).unwrap();
        b.confirm(T0, c).unwrap();
        let later = T0 + Duration::from_secs(6);
        assert_eq!(b.confirm(later, a), Err(BookError::Lapsed));
        assert!(b.bid(later, "d", &pod("1")).is_ok());
        assert!(b.bid(later, "e", &pod("1")).is_err());
        b.bound("c", &pod("1")).unwrap();
        b.ended("c");
        assert!(b.bid(later, "e", &pod("1")).is_ok());
    }

    #[test]
    fn a_pod_bound_by_somebody_else_is_admitted_or_failed_with_reasons() {
        let mut b = book();
        b.bound("x", &pod("2")).unwrap();
        assert!(matches!(b.bound("y", &pod("1")), Err(BookError::Unfit(_))));
        b.bound("x", &pod("2")).unwrap();
    }

    proptest! {
        #[test]
        fn the_book_never_promises_more_than_the_node_has(ops in proptest::collection::vec((0u8..5, 0u8..6, 0u64..8), 1..200)) {
            let mut b = book();
            let mut last = None;
            for (op, who, at) in ops {
                let uid = format!("p{who}");
                let now = Time::from_ms(at * 1000);
                match op {
                    0 => last = b.bid(now, &uid, &pod("700m")).ok().map(|(r, _)| r),
                    1 => { last.map(|r| b.confirm(now, r)); }
                    2 => { if let Some(r) = last { b.release(r); } }
                    3 => { let _ = b.bound(&uid, &pod("700m")); }
                    _ => b.ended(&uid),
                }
                b.check();
                let mut used = Resources::default();
                for h in b.facts().hosted.values() { used.add(&h.requests); }
                prop_assert!(used.get("cpu").milli_value() <= 2000);
            }
        }
    }
}
