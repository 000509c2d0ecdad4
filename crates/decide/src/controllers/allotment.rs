//! What a namespace has reserved in root and uses no more goes back ([`objects::allotment`] has the rules, and why
//! they need no clock).

use super::{Action, Plan};
use base::Wall;
use objects::Tree;
use objects::allotment::{Allotment, Item, Reserved, Wanted};
use std::collections::BTreeSet;
use std::time::Duration;

/// So much that services have already is reserved for them by one plan.
const ADOPTED: usize = 64;

/// What is known of an Allotment beside its record.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What the services of the namespace have, in what is committed.
    pub used: &'a BTreeSet<Item>,
    /// Reservations that were seen to be given up by a service.
    pub freed: &'a [Reserved],
    /// No leader of the cell that knows an older Allotment decides anything more, and what such leaders decided is in
    /// `used`.
    pub is_bound: bool,
    /// How long something may be reserved before its service is there. Nothing is unsafe if it takes longer: it is
    /// asked for once more.
    pub intent: Duration,
}

/// What is to become of an Allotment, given as its `record` as root has it, if it has one. `own` is the namespace.
pub fn plan(record: Option<&Tree>, own: &Wanted, known: Known<'_>, now: Wall) -> Plan {
    let mut plan = Plan::default();
    let mut new = record.map(Allotment::of).unwrap_or_default();
    let namespace = &own.namespace;
    // Of an older release, or of a record that was lost. One by one, since what others have is not to be had; who has
    // it first keeps it, and so do they.
    let lacking: Vec<Item> = known.used.iter().filter(|i| !new.holds(**i)).take(ADOPTED).copied().collect();
    for item in lacking {
        plan.because(format!("{item} is used in {namespace}, and root does not know"));
        plan.actions.push(Action::Reserve { wanted: Wanted { chosen: vec![item], ..own.clone() } });
    }
    if !plan.actions.is_empty() {
        return plan;
    }
    let Some(record) = record else { return plan };
    // Whether it stays, and how: `ending` is changed in place. `over`: it may go if it is not used.
    let mut settle = |what: &dyn std::fmt::Display, ending: &mut bool, is_used: bool, over: bool| {
        match (is_used, *ending) {
            (true, true) => {
                plan.because(format!("{what} is used in {namespace} after all"));
                *ending = false;
            }
            (false, true) if known.is_bound => {
                plan.because(format!("{what} is free for all namespaces"));
                return false;
            }
            (false, false) if over => {
                plan.because(format!("no service of {namespace} uses {what}"));
                *ending = true;
            }
            // In use, wanted soon, or it waits for the cell to bind its log, which is looked at then.
            _ => {}
        }
        true
    };
    // One idle block stays at hand: whoever deletes a service may make another.
    let mut idle = 0;
    new.blocks.retain_mut(|b| {
        let is_used = b.addresses().any(|ip| known.used.contains(&Item::Address(ip)));
        idle += usize::from(!is_used && !b.ending);
        settle(&format!("{}-{}", b.first, b.last), &mut b.ending, is_used, idle > 1)
    });
    let mut again = None;
    new.reserved.retain_mut(|r| {
        let is_used = known.used.contains(&r.item);
        let at = r.since + known.intent;
        let over = known.freed.contains(r) || at <= now;
        if !is_used && !r.ending && !over {
            again = Some(again.map_or(at, |a: Wall| a.min(at)));
        }
        settle(&r.item, &mut r.ending, is_used, over)
    });
    if let Some(at) = again {
        plan.look_again(at);
    }
    if !plan.reasons.is_empty() {
        let mut tree = record.clone();
        tree["spec"] = new.spec();
        plan.actions.push(Action::Update { tree });
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SINCE: Wall = Wall(1_795_000_000_000);
    const INTENT: Duration = Duration::from_secs(60);

    fn record(spec: &Tree) -> Tree {
        json!({"apiVersion": "beemesh.io/v1", "kind": "Allotment",
            "metadata": {"name": "u", "resourceVersion": "7"}, "spec": spec})
    }

    fn reserved(ending: bool) -> Tree {
        let mut reserved = json!({"item": 30080, "service": "s", "since": SINCE.rfc3339()});
        if ending {
            reserved["ending"] = json!(true);
        }
        json!({"blocks": [], "reserved": [reserved]})
    }

    fn own() -> Wanted {
        Wanted { namespace: "n".into(), uid: "u".into(), ..Wanted::default() }
    }

    /// What the plan makes of the record, if it changes anything.
    fn after(plan: &Plan) -> Option<Allotment> {
        plan.actions.first().map(|a| match a {
            Action::Update { tree } => {
                assert_eq!(tree["metadata"]["resourceVersion"], "7", "only as it was seen");
                Allotment::of(tree)
            }
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn it_is_called_ending_first_and_goes_when_the_log_is_bound() {
        let later = Some(SINCE + INTENT);
        for (is, ending, used, freed, is_bound, seconds, want) in [
            ("in use", false, true, true, true, 900, (None, None)),
            ("asked for just now", false, false, false, true, 59, (None, later)),
            ("asked for in vain", false, false, false, true, 60, (Some((true, true)), None)),
            ("given up", false, false, true, true, 1, (Some((true, true)), None)),
            ("ending, and the log is not bound", true, false, true, false, 900, (None, None)),
            ("ending, and bound", true, false, false, true, 1, (Some((false, false)), None)),
            ("ending, and used by what was on its way", true, true, true, true, 1, (Some((true, false)), None)),
        ] {
            let record = record(&reserved(ending));
            let used: BTreeSet<Item> = used.then_some(Item::Port(30080)).into_iter().collect();
            let freed = if freed { Allotment::of(&record).reserved } else { Vec::new() };
            let known = Known { used: &used, freed: &freed, is_bound, intent: INTENT };
            let plan = plan(Some(&record), &own(), known, SINCE + Duration::from_secs(seconds));
            let left = after(&plan).map(|a| (!a.reserved.is_empty(), a.reserved.iter().any(|r| r.ending)));
            assert_eq!((left, plan.again), want, "{is}");
        }
    }

    #[test]
    fn what_was_given_up_is_not_what_is_asked_for_again() {
        let record = record(&reserved(false));
        let mut freed = Allotment::of(&record).reserved;
        freed[0].service = "an earlier one".into();
        let known = Known { used: &BTreeSet::new(), freed: &freed, is_bound: true, intent: INTENT };
        assert_eq!(after(&plan(Some(&record), &own(), known, SINCE)), None);
    }

    #[test]
    fn blocks_that_nothing_uses_go_but_for_one() {
        let block = |n: u8| json!({"first": format!("10.43.{n}.0"), "last": format!("10.43.{n}.15")});
        let record = record(&json!({"blocks": [block(1), block(2), block(3)], "reserved": []}));
        let used = BTreeSet::from([Item::Address("10.43.2.9".parse().unwrap())]);
        let known = Known { used: &used, freed: &[], is_bound: true, intent: INTENT };
        let ending = after(&plan(Some(&record), &own(), known, SINCE)).unwrap();
        assert_eq!(ending.blocks.iter().map(|b| b.ending).collect::<Vec<_>>(), [false, false, true]);
        let mut ended = record.clone();
        ended["spec"] = ending.spec();
        let left = after(&plan(Some(&ended), &own(), known, SINCE)).unwrap();
        assert_eq!(left.blocks.len(), 2);
        ended["spec"] = left.spec();
        assert_eq!(after(&plan(Some(&ended), &own(), known, SINCE)), None);
    }

    #[test]
    fn what_services_have_already_is_asked_for() {
        let used = BTreeSet::from([Item::Port(30080), Item::Port(30081)]);
        let known = Known { used: &used, freed: &[], is_bound: true, intent: INTENT };
        let asked = |record: Option<&Tree>| -> Vec<Item> {
            let wanted = |a: &Action| match a {
                Action::Reserve { wanted } => wanted.chosen.clone(),
                other => panic!("{other:?}"),
            };
            plan(record, &own(), known, SINCE).actions.iter().flat_map(wanted).collect()
        };
        assert_eq!(asked(None), [Item::Port(30080), Item::Port(30081)]);
        assert_eq!(asked(Some(&record(&reserved(false)))), [Item::Port(30081)]);
    }
}
