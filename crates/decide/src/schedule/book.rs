//! A node's own account: what is bound to it, and what it has promised for a few seconds.
//!
//! A node alone decides what it runs. A bid reserves; a reservation that is not confirmed lapses; a
//! confirmed one is held until the node has read in the cell whether it was bound. So nothing is
//! promised twice, whoever crashes.
//!
//! A reservation is known by the tender it answers and by the pod's uid: both are the leader's, so a
//! message that comes late, twice or after a restart of either side never means another reservation
//! than the one it was sent for.
//!
//! Room that is being made for a pod by evicting others is kept for it: who matters less gets no bid for it
//! meanwhile. That is no reservation; the pod is tendered for again like any other, and may go elsewhere.

use super::admission::{Refusal, admit};
use super::facts::Labels;
use super::facts::{Hosted, NodeFacts};
use super::fit::{Reason, fit};
use super::neighbours::Namespaces;
use super::preempt::{Victim, victims};
use super::score::score;
use crate::pod::{may_preempt, priority};
use base::{CellId, Time};
use objects::Tree;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A tender: which cell's leader asked, in which term of its leadership, and the how manieth time in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tender {
    /// The pod's cell.
    pub cell: CellId,
    /// The leader's term.
    pub term: u64,
    /// Counts the leader's tenders.
    pub number: u64,
}

/// Why the book refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BookError {
    /// The node cannot run it. Nothing was reserved.
    Unfit {
        /// Why.
        reasons: Vec<Reason>,
        /// Without what is only reserved it could: ask again soon.
        contended: bool,
        /// It could, if these were evicted.
        offer: Option<Vec<Victim>>,
    },
    /// There is no such reservation (any more). Nothing changed; tender again.
    Lapsed,
    /// As many reservations as the book holds are open. Nothing was reserved; ask later.
    Full,
    /// The tender is overtaken: the pod is bound here already, or a later tender was answered. Nothing
    /// changed, and nobody waits for an answer.
    Late,
}

#[derive(Clone, Debug)]
struct Open {
    tender: Tender,
    /// The pod's.
    name: String,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Bid: lapses by itself.
    Reserved { until: Time },
    /// Confirmed: only the cell's word ends it. The cell is asked for it at this moment.
    Confirmed { ask: Time },
}

/// A pod for which room is being made.
#[derive(Clone, Debug)]
struct Nominee {
    tender: Tender,
    pod: Tree,
    hosted: Hosted,
    until: Time,
    /// The leader is asked at this moment whether it still is to be kept.
    ask: Time,
}

/// What a node has bound and reserved.
#[derive(Clone, Debug)]
pub struct Book {
    facts: NodeFacts,
    open: BTreeMap<String, Open>,
    nominees: BTreeMap<String, Nominee>,
}

impl Book {
    /// At most this many reservations are open at a time.
    pub const OPEN_MAX: usize = 1024;
    /// A bid that is not confirmed lapses after this.
    pub const HOLD: Duration = Duration::from_secs(5);
    /// A confirmed reservation, or room that is kept, of which nothing is heard is asked for every so often.
    pub const ASK: Duration = Duration::from_secs(10);
    /// Room is made for at most so many pods at a time.
    pub const NOMINEES_MAX: usize = 64;
    /// Room that is made for a pod is kept for so long after it was last asked for: longer than a leader
    /// pauses between two attempts.
    pub const KEEP: Duration = Duration::from_secs(30);

    /// A book for a node.
    pub fn new(facts: NodeFacts) -> Book {
        Book { facts, open: BTreeMap::new(), nominees: BTreeMap::new() }
    }

    /// What the node knows of itself, reservations counted as hosted.
    pub fn facts(&self) -> &NodeFacts {
        &self.facts
    }

    /// How many reservations are open.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The uids of the pods for which room is kept.
    pub fn kept_for(&self) -> impl Iterator<Item = &str> {
        self.nominees.keys().map(String::as_str)
    }

    /// Labels, taints and capacity have changed; what is hosted stays.
    pub fn update(&mut self, facts: NodeFacts) {
        let hosted = std::mem::take(&mut self.facts.hosted);
        let namespaces = std::mem::take(&mut self.facts.namespaces);
        self.facts = NodeFacts { hosted, namespaces, ..facts };
    }

    /// The namespaces there are.
    pub fn know(&mut self, namespaces: Namespaces) {
        self.facts.namespaces = namespaces;
    }

    /// Reserves room for a pod for [`Book::HOLD`], and scores the bid. The same tender again gives the
    /// same reservation; a later one for the same pod takes its place.
    ///
    /// # Errors
    /// See [`BookError`].
    pub fn bid(&mut self, now: Time, tender: Tender, uid: &str, pod: &Tree) -> Result<u32, BookError> {
        self.lapse(now);
        if let Some(open) = self.open.get_mut(uid) {
            if tender < open.tender {
                return Err(BookError::Late);
            }
            if tender == open.tender {
                if let State::Reserved { until } = &mut open.state {
                    *until = now + Book::HOLD;
                }
                return Ok(self.score_of(uid, pod));
            }
            // Who tenders again has given up what came before.
            self.drop_open(uid);
        } else if self.facts.hosted.contains_key(uid) {
            return Err(BookError::Late);
        }
        if self.open.len() >= Book::OPEN_MAX {
            return Err(BookError::Full);
        }
        let reasons = fit(&self.facts_for(uid, pod), pod);
        if !reasons.is_empty() {
            let offer = self.offer(uid, pod, &BTreeSet::new());
            return Err(BookError::Unfit { contended: self.is_contended(uid, pod), reasons, offer });
        }
        let bid = score(&self.facts, pod);
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().into();
        self.facts.hosted.insert(uid.into(), Hosted::of(pod));
        self.open.insert(uid.into(), Open { tender, name, state: State::Reserved { until: now + Book::HOLD } });
        Ok(bid)
    }

    /// Whom the node would evict to run a pod, those in `gone` among them; see [`victims`].
    pub fn offer(&self, uid: &str, pod: &Tree, gone: &BTreeSet<String>) -> Option<Vec<Victim>> {
        let lower = priority(&pod["spec"]);
        if !may_preempt(&pod["spec"]) || self.facts.hosted.values().all(|h| h.priority >= lower) {
            return None;
        }
        victims(&self.facts_for(uid, pod), pod, gone, &|uid| self.open.contains_key(uid))
    }

    /// The offer for a pod is taken: from now on the room is kept for it, and the victims count as going.
    /// Who they are is told as it now is. `None` if the node has nothing to offer any more.
    pub fn make_room(
        &mut self,
        now: Time,
        tender: Tender,
        uid: &str,
        pod: &Tree,
        gone: &BTreeSet<String>,
    ) -> Option<Vec<Victim>> {
        self.lapse(now);
        let later = self.nominees.get(uid).is_some_and(|n| n.tender > tender);
        let full = self.nominees.len() >= Book::NOMINEES_MAX && !self.nominees.contains_key(uid);
        if later || full || self.facts.hosted.contains_key(uid) {
            return None;
        }
        if !may_preempt(&pod["spec"]) {
            return None;
        }
        let victims = victims(&self.facts_for(uid, pod), pod, gone, &|uid| self.open.contains_key(uid))?;
        for victim in &victims {
            self.going(&victim.uid, true);
        }
        let (hosted, until, ask) = (Hosted::of(pod), now + Book::KEEP, now + Book::ASK);
        self.nominees.insert(uid.into(), Nominee { tender, pod: pod.clone(), hosted, until, ask });
        Some(victims)
    }

    /// A pod is on its way out, or after all is not.
    pub fn going(&mut self, uid: &str, going: bool) {
        if let Some(hosted) = self.facts.hosted.get_mut(uid) {
            hosted.going = going;
        }
    }

    /// The pods for which there is room now that was made for them: the tender it was made for, uid, name.
    pub fn made(&self) -> Vec<(Tender, String, String)> {
        let fits = |(uid, n): &(&String, &Nominee)| fit(&self.facts_for(uid, &n.pod), &n.pod).is_empty();
        self.nominees.iter().filter(fits).map(|(uid, n)| (n.tender, uid.clone(), n.hosted.name.clone())).collect()
    }

    /// The leader has chosen this bid and is about to commit the binding: the reservation no longer
    /// lapses by itself.
    ///
    /// # Errors
    /// [`BookError::Lapsed`].
    pub fn confirm(&mut self, now: Time, tender: Tender, uid: &str) -> Result<(), BookError> {
        self.lapse(now);
        let open = self.open.get_mut(uid).filter(|o| o.tender == tender).ok_or(BookError::Lapsed)?;
        if let State::Reserved { .. } = open.state {
            open.state = State::Confirmed { ask: now + Book::ASK };
        }
        Ok(())
    }

    /// The leader that made this tender chose another, or says that nothing came of it.
    pub fn release(&mut self, tender: Tender, uid: &str) {
        if self.open.get(uid).is_some_and(|o| o.tender == tender) {
            self.drop_open(uid);
        }
    }

    /// The room that was made for a pod by this tender, or an earlier one, is not needed any more.
    pub fn withdraw(&mut self, tender: Tender, uid: &str) {
        if self.nominees.get(uid).is_some_and(|n| n.tender <= tender) {
            self.nominees.remove(uid);
        }
    }

    /// The cell is gone, and with it every pod it might have bound.
    pub fn forget(&mut self, cell: CellId) {
        let of: Vec<String> =
            self.open.iter().filter(|(_, o)| o.tender.cell == cell).map(|(uid, _)| uid.clone()).collect();
        for uid in of {
            self.drop_open(&uid);
        }
        self.nominees.retain(|_, n| n.tender.cell != cell);
    }

    /// The cell says the pod is bound here. A pod that was bound without a bid (by the binding
    /// subresource, or with a preset node name) is admitted or refused now.
    ///
    /// # Errors
    /// The pod is to be failed, for this reason; it is never unbound.
    pub fn bound(&mut self, uid: &str, pod: &Tree) -> Result<(), Refusal> {
        self.nominees.remove(uid);
        let promised = self.open.remove(uid).is_some();
        if promised || self.facts.hosted.contains_key(uid) {
            return Ok(());
        }
        admit(&self.facts, pod)?;
        self.facts.hosted.insert(uid.into(), Hosted::of(pod));
        Ok(())
    }

    /// The node was already running this pod before it restarted: it is counted without question.
    pub fn found(&mut self, uid: &str, pod: &Tree) {
        self.open.remove(uid);
        self.nominees.remove(uid);
        self.facts.hosted.insert(uid.into(), Hosted::of(pod));
    }

    /// A pod's labels are now these, and it is being deleted or not: what others want beside them, or do
    /// not, and whose room is about to be free, goes by that.
    pub fn changed(&mut self, uid: &str, labels: Labels, going: bool) {
        if let Some(hosted) = self.facts.hosted.get_mut(uid) {
            hosted.labels = labels;
            hosted.going |= going;
        }
    }

    /// The pod has finished or is gone.
    pub fn ended(&mut self, uid: &str) {
        self.open.remove(uid);
        self.facts.hosted.remove(uid);
    }

    /// Drops reservations whose time is over.
    pub fn lapse(&mut self, now: Time) {
        let over = |o: &Open| matches!(o.state, State::Reserved { until } if until <= now);
        let over: Vec<String> = self.open.iter().filter(|(_, o)| over(o)).map(|(uid, _)| uid.clone()).collect();
        for uid in over {
            self.drop_open(&uid);
        }
        self.nominees.retain(|_, n| n.until > now);
    }

    /// The confirmed reservations whose cells are to be asked now what became of them, with the pods' uids
    /// and names; next after [`Book::ASK`].
    pub fn questions(&mut self, now: Time) -> Vec<(Tender, String, String)> {
        let mut due = Vec::new();
        for (uid, open) in &mut self.open {
            if let State::Confirmed { ask } = &mut open.state
                && *ask <= now
            {
                *ask = now + Book::ASK;
                due.push((open.tender, uid.clone(), open.name.clone()));
            }
        }
        due
    }

    /// The pods for which room is kept and whose leaders are to be asked now whether it still is wanted: a word
    /// of theirs may have been lost. The tender it was made for, uid, name; next after [`Book::ASK`].
    pub fn keeping(&mut self, now: Time) -> Vec<(Tender, String, String)> {
        let mut due = Vec::new();
        for (uid, nominee) in self.nominees.iter_mut().filter(|(_, n)| n.ask <= now) {
            nominee.ask = now + Book::ASK;
            due.push((nominee.tender, uid.clone(), nominee.hosted.name.clone()));
        }
        due
    }

    /// When the next reservation lapses or is to be asked for.
    pub fn next_deadline(&self) -> Option<Time> {
        let when = |o: &Open| match o.state {
            State::Reserved { until } => until,
            State::Confirmed { ask } => ask,
        };
        self.open.values().map(when).chain(self.nominees.values().map(|n| n.until.min(n.ask))).min()
    }

    /// Every open reservation is counted as hosted.
    pub fn check(&self) {
        assert!(self.open.keys().all(|uid| self.facts.hosted.contains_key(uid)), "a reservation holds no room");
        assert!(self.open.len() <= Book::OPEN_MAX, "more reservations are open than the bound says");
        assert!(self.nominees.len() <= Book::NOMINEES_MAX, "room is made for more pods than the bound says");
    }

    fn drop_open(&mut self, uid: &str) {
        if self.open.remove(uid).is_some() {
            self.facts.hosted.remove(uid);
        }
    }

    /// Whether what is reserved and not bound stands in the pod's way.
    fn is_contended(&self, uid: &str, pod: &Tree) -> bool {
        if self.open.is_empty() {
            return false;
        }
        let mut bound = self.facts_for(uid, pod).into_owned();
        bound.hosted.retain(|uid, _| !self.open.contains_key(uid));
        fit(&bound, pod).is_empty()
    }

    /// What there is for a pod: room that is kept for others who matter no less is taken.
    fn facts_for(&self, uid: &str, pod: &Tree) -> Cow<'_, NodeFacts> {
        let own = priority(&pod["spec"]);
        let before = |(other, n): &(&String, &Nominee)| {
            *other != uid && n.hosted.priority >= own && !self.facts.hosted.contains_key(*other)
        };
        let mut others = self.nominees.iter().filter(before).peekable();
        if others.peek().is_none() {
            return Cow::Borrowed(&self.facts);
        }
        let mut facts = self.facts.clone();
        facts.hosted.extend(others.map(|(uid, n)| (uid.clone(), n.hosted.clone())));
        Cow::Owned(facts)
    }

    /// How well the node suits a pod that is counted as hosted already.
    fn score_of(&mut self, uid: &str, pod: &Tree) -> u32 {
        let own = self.facts.hosted.remove(uid);
        let bid = score(&self.facts, pod);
        if let Some(own) = own {
            self.facts.hosted.insert(uid.into(), own);
        }
        bid
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pod::Resources;
    use base::Uid;
    use proptest::prelude::*;
    use serde_json::json;

    fn book() -> Book {
        Book::new(NodeFacts {
            name: "n".into(),
            allocatable: Resources::of(&json!({"cpu": "2", "pods": "10"})),
            ..NodeFacts::default()
        })
    }

    fn pod(cpu: &str) -> Tree {
        json!({"metadata": {"namespace": "d", "name": "p"}, "spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}})
    }

    fn tender(number: u64) -> Tender {
        Tender { cell: CellId(Uid(1)), term: 1, number }
    }

    const T0: Time = Time::ZERO;

    #[test]
    fn what_is_reserved_is_not_offered_twice() {
        let mut b = book();
        let score = b.bid(T0, tender(1), "a", &pod("1500m")).unwrap();
        assert!(
            matches!(b.bid(T0, tender(2), "b", &pod("1")), Err(BookError::Unfit { reasons, contended: true, .. }) if reasons[0].text == "Insufficient cpu")
        );
        assert_eq!(b.bid(T0, tender(1), "a", &pod("1500m")), Ok(score), "asked twice, it says the same");
        b.release(tender(1), "a");
        assert!(b.bid(T0, tender(2), "b", &pod("1")).is_ok());
    }

    #[test]
    fn an_unconfirmed_reservation_lapses_and_a_confirmed_one_waits_for_the_cell() {
        let mut b = book();
        b.bid(T0, tender(1), "a", &pod("1")).unwrap();
        b.bid(T0, tender(2), "c", &pod("1")).unwrap();
        b.confirm(T0, tender(2), "c").unwrap();
        let later = T0 + Duration::from_secs(6);
        assert_eq!(b.confirm(later, tender(1), "a"), Err(BookError::Lapsed));
        b.bid(later, tender(3), "d", &pod("1")).unwrap();
        assert!(b.bid(later, tender(4), "e", &pod("1")).is_err());
        assert_eq!(b.questions(later), []);
        assert_eq!(b.questions(T0 + Book::ASK), [(tender(2), "c".to_owned(), "p".to_owned())]);
        assert_eq!(b.questions(T0 + Book::ASK), [], "not twice in a row");
        b.bound("c", &pod("1")).unwrap();
        b.release(tender(3), "d");
        assert!(
            matches!(b.bid(later, tender(4), "e", &pod("2")), Err(BookError::Unfit { contended: false, .. })),
            "what stands in its way is bound"
        );
        b.ended("c");
        assert!(b.bid(later, tender(5), "e", &pod("1")).is_ok());
    }

    #[test]
    fn a_message_of_an_earlier_tender_touches_nothing() {
        let mut b = book();
        b.bid(T0, tender(1), "a", &pod("1")).unwrap();
        b.bid(T0, tender(2), "a", &pod("1")).unwrap();
        assert_eq!(b.confirm(T0, tender(1), "a"), Err(BookError::Lapsed));
        b.confirm(T0, tender(2), "a").unwrap();
        b.release(tender(1), "a");
        assert_eq!(b.bid(T0, tender(1), "a", &pod("1")), Err(BookError::Late));
        b.bid(T0, tender(2), "a", &pod("1")).unwrap();
        assert_eq!(b.questions(T0 + Book::ASK).len(), 1, "still confirmed");
        b.bound("a", &pod("1")).unwrap();
        assert_eq!(b.bid(T0, tender(2), "a", &pod("1")), Err(BookError::Late), "bound is not reserved again");
        b.release(tender(2), "a");
        assert!(b.facts().hosted.contains_key("a"));
    }

    fn matters(cpu: &str, priority: i64) -> Tree {
        let mut p = pod(cpu);
        p["spec"]["priority"] = json!(priority);
        p
    }

    #[test]
    fn room_that_is_made_for_a_pod_is_kept_from_those_who_matter_less() {
        let mut b = book();
        b.bound("low", &pod("2")).unwrap();
        let offer = |r: Result<u32, BookError>| match r {
            Err(BookError::Unfit { offer, .. }) => offer.map(|o| o.into_iter().map(|v| v.uid).collect::<Vec<_>>()),
            other => panic!("{other:?}"),
        };
        let mut never = matters("1", 9);
        never["spec"]["preemptionPolicy"] = json!("Never");
        assert_eq!(offer(b.bid(T0, tender(1), "x", &never)), None);
        assert_eq!(offer(b.bid(T0, tender(1), "x", &pod("1"))), None, "of its own priority it is no victim");
        assert_eq!(offer(b.bid(T0, tender(1), "high", &matters("2", 9))), Some(vec!["low".into()]));
        assert!(b.made().is_empty());
        let none = BTreeSet::new();
        let gone = b.make_room(T0, tender(1), "high", &matters("2", 9), &none).unwrap();
        assert_eq!(gone.len(), 1);
        assert_eq!(b.make_room(T0, tender(1), "high", &matters("2", 9), &none), Some(vec![]), "once is enough");
        b.ended("low");
        assert_eq!(b.made(), [(tender(1), "high".to_owned(), "p".to_owned())]);
        assert!(matches!(
            b.bid(T0, tender(2), "mid", &matters("1", 5)),
            Err(BookError::Unfit { contended: false, .. })
        ));
        b.bid(T0, tender(2), "higher", &matters("1", 10)).unwrap();
        b.release(tender(2), "higher");
        b.bid(T0, tender(3), "high", &matters("2", 9)).unwrap();
        b.bound("high", &matters("2", 9)).unwrap();
        assert!(b.made().is_empty());
        b.check();
    }

    #[test]
    fn room_that_was_made_is_free_when_it_is_withdrawn_or_not_asked_for_any_more() {
        for late in [false, true] {
            let mut b = book();
            b.bound("low", &pod("2")).unwrap();
            b.make_room(T0, tender(2), "high", &matters("2", 9), &BTreeSet::new()).unwrap();
            b.ended("low");
            b.withdraw(tender(1), "high");
            assert!(b.bid(T0, tender(3), "mid", &pod("1")).is_err());
            let now = if late { T0 + Book::KEEP } else { T0 };
            if !late {
                b.withdraw(tender(2), "high");
            }
            assert!(b.bid(now, tender(3), "mid", &pod("1")).is_ok());
        }
    }

    #[test]
    fn with_a_cell_its_reservations_go() {
        let mut b = book();
        b.bid(T0, tender(1), "a", &pod("1")).unwrap();
        b.confirm(T0, tender(1), "a").unwrap();
        b.forget(CellId(Uid(2)));
        assert_eq!(b.open(), 1);
        b.forget(CellId(Uid(1)));
        assert_eq!((b.open(), b.facts().hosted.len()), (0, 0));
    }

    #[test]
    fn a_pod_bound_by_somebody_else_is_admitted_or_failed_with_a_reason() {
        let mut b = book();
        b.bound("x", &pod("2")).unwrap();
        assert_eq!(b.bound("y", &pod("1")).unwrap_err().reason, "OutOfcpu");
        b.bound("x", &pod("2")).unwrap();
    }

    proptest! {
        #[test]
        fn the_book_never_promises_more_than_the_node_has(ops in proptest::collection::vec((0u8..7, 0u8..6, 0u64..8, 0u64..30), 1..200)) {
            let mut b = book();
            for (op, who, number, at) in ops {
                let uid = format!("p{who}");
                let now = Time::from_ms(at * 1000);
                match op {
                    0 | 1 => { let _ = b.bid(now, tender(number), &uid, &pod("700m")); }
                    2 => { let _ = b.confirm(now, tender(number), &uid); }
                    3 => b.release(tender(number), &uid),
                    4 => { let _ = b.bound(&uid, &pod("700m")); }
                    5 => { b.questions(now); }
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
