//! A node evicts pods of its own to make room for one that matters more.
//!
//! It asks the cell that has the victim, whichever that is: first to say in the victim's status why, then to
//! delete it, with its own grace. What the runtime does then is no different from any other deletion. An
//! eviction that is refused is given up; it is planned again when the pod is tendered for again.

use super::errands::{About, Errands, Said};
use crate::errand::{Answered, Errand, ErrandId};
use base::Wall;
use decide::schedule::Victim;
use objects::Tree;
use std::collections::BTreeMap;

/// At most so many evictions are under way at a time.
const MAX: usize = 256;

/// What an errand is for.
enum Step {
    Say(Eviction),
    Delete(Eviction),
    Tell,
}

/// One victim.
struct Eviction {
    victim: Victim,
    /// The uid of the pod it makes room for.
    by: String,
}

/// All evictions under way.
#[derive(Default)]
pub(super) struct Evicting {
    asked: BTreeMap<ErrandId, Step>,
    next: u64,
}

/// What came of an answer.
pub(super) enum Outcome {
    /// The next errand.
    Next(ErrandId, Box<Errand>),
    /// The victim of this uid stays where it is.
    Stays(String),
    /// Nothing more.
    Over,
}

impl Evicting {
    /// Begins to evict a pod. `None` if as many are under way as the bound says.
    pub(super) fn begin(&mut self, node: &str, victim: Victim, by: &str, now: Wall) -> Option<(ErrandId, Box<Errand>)> {
        if self.asked.len() >= MAX {
            return None;
        }
        let errands = Errands::of_node(victim.namespace.as_str().into(), node);
        let errand = errands.disrupted(&victim.name, &victim.uid, now)?;
        Some(self.ask(Step::Say(Eviction { victim, by: by.to_owned() }), errand))
    }

    /// An errand was answered.
    pub(super) fn answered(&mut self, node: &str, id: ErrandId, answer: &Answered, now: Wall) -> Outcome {
        let Some(step) = self.asked.remove(&id) else { return Outcome::Over };
        let code = answer.as_ref().err().map(|s| s.code);
        let errands = |e: &Eviction| Errands::of_node(e.victim.namespace.as_str().into(), node);
        let next = match (step, code) {
            // It has gone by itself.
            (Step::Say(_) | Step::Delete(_), Some(404)) => None,
            // What its status says is for people only: it goes, whether that was written or not.
            (Step::Say(e), _) => {
                let errand = errands(&e).delete(&e.victim.name, &e.victim.uid);
                errand.map(|errand| (Step::Delete(e), errand))
            }
            (Step::Delete(e), None) => {
                let name = format!("{}.{:016x}", e.victim.name, fold(&e.victim.uid, &e.by));
                let note = format!("Preempted by pod {} on node {node}", e.by);
                let said = Said { warning: false, reason: "Preempted", action: "Preempting", note: &note };
                let revision =
                    |tree: &Tree| tree["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
                let revision = answer.as_ref().map(revision).unwrap_or_default();
                let Ok(uid) = e.victim.uid.parse() else { return Outcome::Over };
                let about = About { name: &e.victim.name, uid, revision };
                errands(&e).event(&name, &about, &said, now).map(|errand| (Step::Tell, errand))
            }
            (Step::Delete(e), Some(_)) => return Outcome::Stays(e.victim.uid),
            (Step::Tell, _) => None,
        };
        match next {
            Some((step, errand)) => {
                let (id, errand) = self.ask(step, errand);
                Outcome::Next(id, errand)
            }
            None => Outcome::Over,
        }
    }

    fn ask(&mut self, step: Step, errand: Errand) -> (ErrandId, Box<Errand>) {
        self.next += 1;
        self.asked.insert(ErrandId(self.next), step);
        (ErrandId(self.next), Box::new(errand))
    }

    pub(super) fn check(&self) {
        assert!(self.asked.len() <= MAX, "more evictions are under way than the bound says");
    }
}

/// One number for a victim and its preemptor (FNV-1a, 64 bits): told twice, the Event is one.
fn fold(victim: &str, by: &str) -> u64 {
    let bytes = victim.bytes().chain(by.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
