//! Room made for a pod by evicting others of lower priority, as kube-scheduler's DefaultPreemption chooses
//! them.
//!
//! A node alone decides what it runs: it says in its answer to a tender whom it would evict ([`victims`]),
//! and evicts when its offer is taken. Between offers the leader chooses ([`better`]). Disruption budgets
//! are not asked: kube-scheduler, too, only prefers those it does not break.

use super::facts::{Hosted, NodeFacts};
use super::fit::fit;
use crate::pod::priority;
use base::Wall;
use objects::Tree;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// A pod that would be evicted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Victim {
    /// Its uid, as written.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: i64,
    /// When it was created.
    pub created: Wall,
}

/// Whom the node would evict to run a pod: as few as it can, the least important first. Those in `gone`
/// have to go whatever room there is (the leader says so). Those who are on their way out already make
/// room, too, and are not named. `None` if it could not run the pod even without everybody less important.
///
/// `kept` are not to be counted on: rooms that are only reserved.
pub fn victims(
    node: &NodeFacts,
    pod: &Tree,
    gone: &BTreeSet<String>,
    kept: &dyn Fn(&str) -> bool,
) -> Option<Vec<Victim>> {
    let own = priority(&pod["spec"]);
    let mut lower: Vec<(String, Hosted)> = node
        .hosted
        .iter()
        .filter(|(uid, h)| h.priority < own && !kept(uid))
        .map(|(u, h)| (u.clone(), h.clone()))
        .collect();
    if gone.iter().any(|g| node.hosted.contains_key(g) && !lower.iter().any(|(uid, _)| uid == g)) {
        return None;
    }
    let mut rest = node.clone();
    rest.hosted.retain(|uid, _| !lower.iter().any(|(l, _)| l == uid));
    if !fit(&rest, pod).is_empty() {
        return None;
    }
    // The most important are given back first.
    lower.sort_by(|(a, x), (b, y)| (Reverse(x.priority), x.created, a).cmp(&(Reverse(y.priority), y.created, b)));
    let mut victims = Vec::new();
    for (uid, hosted) in lower {
        if hosted.going {
            continue;
        }
        if !gone.contains(&uid) {
            rest.hosted.insert(uid.clone(), hosted.clone());
            if fit(&rest, pod).is_empty() {
                continue;
            }
            rest.hosted.remove(&uid);
        }
        let Hosted { namespace, name, priority, created, .. } = hosted;
        victims.push(Victim { uid, namespace, name, priority, created });
    }
    Some(victims)
}

/// The order of offers, the best first: whose most important victim is the least important; whose victims
/// together are; who has the fewest; whose most important one has run the shortest.
pub fn better(a: &[Victim], b: &[Victim]) -> std::cmp::Ordering {
    // Every victim counts, one of a negative priority, too.
    let sum = |v: &[Victim]| v.iter().map(|v| v.priority - i64::from(i32::MIN)).sum::<i64>();
    let most = |v: &[Victim]| v.iter().map(|v| v.priority).max();
    let oldest = |v: &[Victim]| v.iter().filter(|x| Some(x.priority) == most(v)).map(|v| v.created).min();
    (most(a), sum(a), a.len(), Reverse(oldest(a))).cmp(&(most(b), sum(b), b.len(), Reverse(oldest(b))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pod::Resources;
    use serde_json::json;

    fn pod(cpu: &str, priority: i64) -> Tree {
        json!({"metadata": {"namespace": "d"}, "spec": {"priority": priority,
            "containers": [{"resources": {"requests": {"cpu": cpu}}}]}})
    }

    /// A node with 4 processors and these pods: name, processors, priority, age in hours.
    fn node(pods: &[(&str, &str, i64, u64)]) -> NodeFacts {
        let mut n = NodeFacts {
            name: "n".into(),
            allocatable: Resources::of(&json!({"cpu": "4", "pods": "10"})),
            ..NodeFacts::default()
        };
        for (name, cpu, priority, age) in pods {
            let mut h = Hosted::of(&pod(cpu, *priority));
            h.created = Wall(1_000_000_000 - age * 3_600_000);
            n.hosted.insert((*name).into(), h);
        }
        n
    }

    fn chosen(n: &NodeFacts, p: &Tree, gone: &[&str]) -> Option<Vec<String>> {
        let gone = gone.iter().map(|g| (*g).to_owned()).collect();
        Some(victims(n, p, &gone, &|_| false)?.into_iter().map(|v| v.uid).collect())
    }

    #[test]
    fn as_few_go_as_need_be_and_the_least_important_first() {
        let full = [("a", "1", 0, 1), ("b", "1", 5, 1), ("c", "1", 0, 9), ("d", "1", 9, 1)];
        let none: [&str; 0] = [];
        for (pods, cpu, priority, gone, want) in [
            (&full[..], "1", 10, &none[..], Some(vec!["a"])),
            (&full[..], "2", 10, &none[..], Some(vec!["c", "a"])),
            (&full[..], "3", 10, &none[..], Some(vec!["b", "c", "a"])),
            (&full[..], "1", 5, &none[..], Some(vec!["a"])),
            (&full[..], "3", 5, &none[..], None),
            (&full[..], "1", 0, &none[..], None),
            (&full[..], "5", 10, &none[..], None),
            // Who has to go makes the room that is needed.
            (&full[..], "1", 10, &["b"][..], Some(vec!["b"])),
            (&full[..1], "1", 10, &["a"][..], Some(vec!["a"])),
            (&full[..], "1", 9, &["d"][..], None),
            (&full[..], "1", 10, &["elsewhere"][..], Some(vec!["a"])),
        ] {
            let want = want.map(|w| w.into_iter().map(String::from).collect::<Vec<_>>());
            assert_eq!(chosen(&node(pods), &pod(cpu, priority), gone), want, "{cpu} at {priority}, {gone:?}");
        }
    }

    #[test]
    fn who_is_on_the_way_out_makes_room_and_what_is_only_reserved_does_not() {
        let mut n = node(&[("a", "2", 0, 1), ("b", "2", 0, 1)]);
        n.hosted.get_mut("a").unwrap().going = true;
        assert_eq!(chosen(&n, &pod("2", 10), &[]), Some(vec![]));
        assert_eq!(chosen(&n, &pod("3", 10), &[]), Some(vec!["b".to_owned()]));
        assert_eq!(victims(&n, &pod("3", 10), &BTreeSet::new(), &|uid| uid == "b"), None);
    }

    #[test]
    fn the_offer_that_hurts_least_is_the_best() {
        let v = |list: &[(i64, u64)]| -> Vec<Victim> {
            let of = |(priority, age): &(i64, u64)| Victim {
                uid: String::new(),
                namespace: String::new(),
                name: String::new(),
                priority: *priority,
                created: Wall(1_000_000 - age),
            };
            list.iter().map(of).collect()
        };
        for (best, other) in [
            (v(&[]), v(&[(-5, 0)])),
            (v(&[(1, 0), (1, 0), (1, 0)]), v(&[(2, 0)])),
            (v(&[(2, 0), (0, 0)]), v(&[(2, 0), (1, 0)])),
            (v(&[(2, 0)]), v(&[(2, 0), (-3, 0)])),
            (v(&[(2, 3)]), v(&[(2, 9)])),
        ] {
            assert!(better(&best, &other).is_lt(), "{best:?} {other:?}");
            assert!(better(&other, &best).is_gt());
        }
    }
}
