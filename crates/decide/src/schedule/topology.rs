//! What a leader decides of a pod's place among others: topology spread constraints, and pod (anti-)affinity
//! over domains of any size.
//!
//! The leader knows all nodes' labels and taints, and all pods of its own namespace, which is all that a
//! spread constraint counts. Pods of other namespaces matter to affinity only; the nodes that run them tell
//! of them ([`super::Beside`]). Words are kube-scheduler's PodTopologySpread and InterPodAffinity.

use super::affinity;
use super::facts::{Hosted, NodeFacts};
use super::fit::{HOSTNAME, REFUSED, REFUSES, Reason, reason, repels, selector_matches, tolerated};
use super::neighbours::{Beside, Namespaces};
use crate::pod::items;
use objects::Tree;
use std::collections::{BTreeMap, BTreeSet};

const ZONE: &str = "topology.kubernetes.io/zone";
const SKEWED: &str = "node(s) didn't match pod topology spread constraints";
const UNLABELLED: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
const UNMET: &str = "node(s) didn't match pod affinity rules";
/// What each of the two scores counts beside those of the bidder: kube-scheduler's weight of both.
const WEIGHT: i64 = 2;

/// A domain: a node label and its value.
type Domain = (String, String);

/// A topology spread constraint, counted.
struct Spread {
    max_skew: i64,
    key: String,
    hard: bool,
    min_domains: Option<i64>,
    /// How many pods that the constraint counts are in each domain that may count.
    counts: BTreeMap<String, i64>,
    /// 1 if the pod itself would count.
    own: i64,
}

/// A pod seen among all others.
pub struct Topology {
    spread: Vec<Spread>,
    /// The constraints are those every pod has that states none.
    implied: bool,
    /// The topologies of what it wants beside it.
    wants: Vec<String>,
    /// Where what it wants is, by term; somewhere at all; and whether it would be content with itself.
    wanted: Vec<BTreeSet<String>>,
    found: bool,
    first: bool,
    unwanted: BTreeSet<Domain>,
    refused: BTreeSet<Domain>,
    worth: BTreeMap<Domain, i64>,
}

/// What a pod is seen among.
pub struct Among<'a> {
    /// All nodes, by name.
    pub nodes: &'a BTreeMap<&'a str, &'a NodeFacts>,
    /// The pods of the pod's own namespace that run or are about to, by the name of their node.
    pub pods: &'a [(&'a str, &'a Hosted)],
    /// What nodes have told of the others, by their names.
    pub beside: &'a BTreeMap<&'a str, &'a Beside>,
    /// The namespaces there are.
    pub namespaces: &'a Namespaces,
}

impl Topology {
    /// Counts what matters to a pod.
    pub fn new(pod: &Tree, among: &Among<'_>) -> Topology {
        let new = Hosted::of(pod);
        let (spread, implied) = spread(pod, &new, among);
        let label = |node: &str, key: &str| among.nodes.get(node).and_then(|n| n.labels.get(key)).cloned();
        let affinity = &new.affinity;
        let mut all = Topology {
            spread,
            implied,
            wants: affinity.wants.iter().map(|t| t.topology.clone()).collect(),
            wanted: vec![BTreeSet::new(); affinity.wants.len()],
            found: false,
            first: affinity.is_wanted(among.namespaces, &new.namespace, &new.labels),
            unwanted: BTreeSet::new(),
            refused: BTreeSet::new(),
            worth: BTreeMap::new(),
        };
        let own = (new.namespace.as_str(), &new.labels);
        for (node, other) in among.pods {
            let theirs = (other.namespace.as_str(), &other.labels);
            if affinity.is_wanted(among.namespaces, theirs.0, theirs.1) {
                all.want(|key| label(node, key));
            }
            let refuses = affinity.refuses.iter().filter(|t| t.means(among.namespaces, theirs.0, theirs.1));
            all.unwanted.extend(refuses.filter_map(|t| Some((t.topology.clone(), label(node, &t.topology)?))));
            let refused = other.affinity.refuses.iter().filter(|t| t.means(among.namespaces, own.0, own.1));
            all.refused.extend(refused.filter_map(|t| Some((t.topology.clone(), label(node, &t.topology)?))));
            let worth = &mut all.worth;
            affinity.worth(own, &other.affinity, theirs, among.namespaces, &mut |key, weight| {
                if let Some(value) = label(node, key) {
                    *worth.entry((key.to_owned(), value)).or_default() += weight;
                }
            });
        }
        for (node, told) in among.beside {
            if told.wanted > 0 {
                all.want(|key| label(node, key));
            }
            let refuses = affinity.refuses.iter().zip(&told.unwanted).filter(|(_, n)| **n > 0);
            all.unwanted.extend(refuses.filter_map(|(t, _)| Some((t.topology.clone(), label(node, &t.topology)?))));
            all.refused.extend(told.refused.iter().filter_map(|key| Some((key.clone(), label(node, key)?))));
            for (key, weight) in &told.worth {
                if let Some(value) = label(node, key) {
                    *all.worth.entry((key.clone(), value)).or_default() += weight;
                }
            }
        }
        all
    }

    fn want(&mut self, label: impl Fn(&str) -> Option<String>) {
        for (values, key) in self.wanted.iter_mut().zip(&self.wants) {
            if let Some(value) = label(key) {
                values.insert(value);
                self.found = true;
            }
        }
    }

    /// Why the pod cannot be on a node. With `ask_first`, what is wanted beside it is left open: it may be
    /// where only the node knows.
    pub fn refuses(&self, node: &NodeFacts, ask_first: bool) -> Vec<Reason> {
        for spread in self.spread.iter().filter(|s| s.hard) {
            let Some(value) = node.labels.get(&spread.key) else { return vec![reason(UNLABELLED, false)] };
            let count = spread.counts.get(value).copied().unwrap_or(0);
            if count + spread.own - spread.least() > spread.max_skew {
                return vec![reason(SKEWED, true)];
            }
        }
        let lacks = |(values, key): (&BTreeSet<String>, &String)| match node.labels.get(key) {
            None => true,
            // The first pod of a group that wants to be together is let in: nobody could ever start otherwise.
            Some(value) => !ask_first && !values.contains(value) && (self.found || !self.first),
        };
        if self.wanted.iter().zip(&self.wants).any(lacks) {
            return vec![reason(UNMET, false)];
        }
        let within = |domains: &BTreeSet<Domain>| {
            domains.iter().any(|(key, value)| node.labels.get(key).is_some_and(|have| have == value))
        };
        if within(&self.unwanted) {
            return vec![reason(REFUSES, true)];
        }
        if within(&self.refused) {
            return vec![reason(REFUSED, true)];
        }
        Vec::new()
    }

    /// What the pod's neighbours and its spreading add to each node's bid, in tenths of what a bid counts:
    /// 0 to 4,000.
    pub fn scores(&self, nodes: &[&NodeFacts]) -> Vec<i64> {
        let affinity: Vec<i64> = nodes.iter().map(|n| self.worth_of(n)).collect();
        let (least, most) = bounds(&affinity);
        let affinity = affinity.iter().map(|s| if most > least { 1000 * (s - least) / (most - least) } else { 0 });
        let uneven: Vec<Option<i64>> = nodes.iter().map(|n| self.unevenness(n)).collect();
        let known: Vec<i64> = uneven.iter().flatten().copied().collect();
        let (least, most) = bounds(&known);
        let even = uneven.iter().map(|s| match s {
            None => 0,
            Some(_) if most == 0 => 1000,
            Some(s) => 1000 * (most + least - s) / most,
        });
        affinity.zip(even).map(|(a, e)| WEIGHT * (a + e)).collect()
    }

    fn worth_of(&self, node: &NodeFacts) -> i64 {
        let here = |(key, value): &Domain| node.labels.get(key).is_some_and(|have| have == value);
        self.worth.iter().filter(|(domain, _)| here(domain)).map(|(_, weight)| weight).sum()
    }

    /// How crowded the node's domains are; `None` for a node that lacks one of the labels.
    fn unevenness(&self, node: &NodeFacts) -> Option<i64> {
        let mut sum = 0.0;
        for spread in self.spread.iter().filter(|s| !s.hard) {
            let Some(value) = node.labels.get(&spread.key) else {
                if self.implied {
                    continue;
                }
                return None;
            };
            // The more domains there are, the more each pod in one of them weighs.
            let weight = (spread.counts.len() as f64 + 2.0).ln();
            let count = spread.counts.get(value).copied().unwrap_or(0);
            sum += count as f64 * weight + (spread.max_skew - 1) as f64;
        }
        Some((sum * 10.0).round() as i64)
    }
}

impl Spread {
    /// The fewest in any domain; none at all while there are fewer domains than there are to be.
    fn least(&self) -> i64 {
        if self.min_domains.is_some_and(|min| (self.counts.len() as i64) < min) {
            return 0;
        }
        self.counts.values().min().copied().unwrap_or(0)
    }
}

fn bounds(of: &[i64]) -> (i64, i64) {
    (of.iter().min().copied().unwrap_or(0), of.iter().max().copied().unwrap_or(0))
}

/// The pod's constraints, counted; of a pod that states none those of kube-scheduler's defaults
/// (`defaultingType: System`), which spread the pods of one controller. Whether they are those.
fn spread(pod: &Tree, new: &Hosted, among: &Among<'_>) -> (Vec<Spread>, bool) {
    let spec = &pod["spec"];
    let stated = items(&spec["topologySpreadConstraints"]);
    let nodes = || among.nodes.values();
    if stated.is_empty() {
        let Some(controller) = &new.controller else { return (Vec::new(), true) };
        let of = |(key, max_skew): (&str, i64)| {
            let mut counts: BTreeMap<String, i64> =
                nodes().filter_map(|n| Some((n.labels.get(key)?.clone(), 0))).collect();
            for (node, other) in among.pods {
                let value = among.nodes.get(node).and_then(|n| n.labels.get(key));
                let same = other.controller.as_ref() == Some(controller) && !other.going;
                if let Some(count) = value.filter(|_| same).and_then(|v| counts.get_mut(v)) {
                    *count += 1;
                }
            }
            Spread { max_skew, key: key.into(), hard: false, min_domains: None, counts, own: 1 }
        };
        return ([(HOSTNAME, 3), (ZONE, 5)].map(of).into(), true);
    }
    let is_hard = |c: &Tree| c["whenUnsatisfiable"] != "ScheduleAnyway";
    let key_of = |c: &Tree| c["topologyKey"].as_str().unwrap_or_default().to_owned();
    let of = |c: &Tree| {
        let hard = is_hard(c);
        let key = key_of(c);
        // A node counts if it has the labels of all constraints of this sort, and if the policies let it.
        let alike: Vec<String> = stated.iter().filter(|o| is_hard(o) == hard).map(key_of).collect();
        let counts_for = |n: &NodeFacts| {
            let affine = c["nodeAffinityPolicy"] == "Ignore" || affinity::may_run(spec, &n.name, &n.labels);
            let bearable =
                c["nodeTaintsPolicy"] != "Honor" || n.taints.iter().all(|t| !repels(t) || tolerated(spec, t));
            affine && bearable && alike.iter().all(|k| n.labels.contains_key(k))
        };
        let eligible: BTreeMap<&str, &String> =
            nodes().filter(|n| counts_for(n)).filter_map(|n| Some((n.name.as_str(), n.labels.get(&key)?))).collect();
        let mut counts: BTreeMap<String, i64> = eligible.values().map(|v| ((*v).clone(), 0)).collect();
        for (node, other) in among.pods {
            let counted = !other.going && selector_matches(&c["labelSelector"], &other.labels);
            if let Some(count) = eligible.get(node).filter(|_| counted).and_then(|v| counts.get_mut(*v)) {
                *count += 1;
            }
        }
        Spread {
            max_skew: c["maxSkew"].as_i64().unwrap_or(1),
            key,
            hard,
            min_domains: c["minDomains"].as_i64(),
            counts,
            own: i64::from(selector_matches(&c["labelSelector"], &new.labels)),
        }
    };
    (stated.iter().map(of).collect(), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Zone `a` has n1 and n2, zone `b` has n3; n4 has no zone.
    fn nodes() -> Vec<NodeFacts> {
        let node = |name: &str, zone: Option<&str>| {
            let mut labels = super::super::facts::Labels::from([(HOSTNAME.to_owned(), name.to_owned())]);
            labels.extend(zone.map(|z| ("zone".to_owned(), z.to_owned())));
            NodeFacts { name: name.into(), labels, ..NodeFacts::default() }
        };
        vec![node("n1", Some("a")), node("n2", Some("a")), node("n3", Some("b")), node("n4", None)]
    }

    fn pod(app: &str, spec: Tree) -> Tree {
        json!({"metadata": {"namespace": "d", "name": "p", "labels": {"app": app}}, "spec": spec})
    }

    fn hosted(app: &str) -> Hosted {
        Hosted::of(&pod(app, json!({})))
    }

    fn seen<T>(pod: &Tree, nodes: &[NodeFacts], pods: &[(&str, &Hosted)], f: impl FnOnce(&Topology) -> T) -> T {
        let by_name = nodes.iter().map(|n| (n.name.as_str(), n)).collect();
        let beside = BTreeMap::new();
        let namespaces = Namespaces::default();
        f(&Topology::new(pod, &Among { nodes: &by_name, pods, beside: &beside, namespaces: &namespaces }))
    }

    /// What is said of each node: empty for a node that will do.
    fn refusals(pod: &Tree, nodes: &[NodeFacts], pods: &[(&str, &Hosted)]) -> Vec<String> {
        seen(pod, nodes, pods, |t| {
            let text = |n: &NodeFacts| t.refuses(n, false).first().map(|r| r.text.clone()).unwrap_or_default();
            nodes.iter().map(text).collect()
        })
    }

    fn constraint(extra: Tree) -> Tree {
        let mut c = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "x"}}});
        for (k, v) in extra.as_object().into_iter().flatten() {
            c[k] = v.clone();
        }
        json!({"topologySpreadConstraints": [c]})
    }

    #[test]
    fn a_domain_that_has_more_than_others_takes_no_more() {
        let (x, y) = (hosted("x"), hosted("y"));
        let mut going = hosted("x");
        going.going = true;
        let nodes = nodes();
        let none = UNLABELLED;
        for (extra, pods, want) in [
            (json!({}), vec![], ["", "", "", none]),
            (json!({}), vec![("n1", &x)], [SKEWED, SKEWED, "", none]),
            (json!({}), vec![("n1", &y)], ["", "", "", none]),
            (json!({}), vec![("n1", &going)], ["", "", "", none]),
            (json!({}), vec![("n1", &x), ("n3", &x)], ["", "", "", none]),
            (json!({"maxSkew": 2}), vec![("n1", &x), ("n2", &x)], [SKEWED, SKEWED, "", none]),
            // Where a node has no such label nobody counts.
            (json!({}), vec![("n4", &x)], ["", "", "", none]),
            (json!({"topologyKey": HOSTNAME}), vec![("n1", &x), ("n2", &x), ("n3", &x)], [SKEWED, SKEWED, SKEWED, ""]),
            // Fewer domains than there are to be: what is nowhere counts as a domain with nobody in it.
            (json!({"minDomains": 3}), vec![("n1", &x), ("n3", &x)], [SKEWED, SKEWED, SKEWED, none]),
            (json!({"minDomains": 2}), vec![("n1", &x), ("n3", &x)], ["", "", "", none]),
            (json!({"whenUnsatisfiable": "ScheduleAnyway"}), vec![("n1", &x)], ["", "", "", ""]),
            // Not counted itself, a pod may go where the difference is not too great already.
            (json!({"labelSelector": {"matchLabels": {"app": "y"}}}), vec![("n1", &y)], ["", "", "", none]),
            (
                json!({"labelSelector": {"matchLabels": {"app": "y"}}}),
                vec![("n1", &y), ("n1", &y)],
                [SKEWED, SKEWED, "", none],
            ),
        ] {
            assert_eq!(refusals(&pod("x", constraint(extra.clone())), &nodes, &pods), want, "{extra}");
        }
    }

    #[test]
    fn nodes_the_pod_cannot_be_on_count_only_if_the_policies_say_so() {
        let x = hosted("x");
        let mut nodes = nodes();
        nodes[2].labels.insert("disk".into(), "slow".into());
        nodes[2].taints = vec![json!({"key": "k", "effect": "NoSchedule"})];
        let pods = [("n1", &x)];
        let fast = |mut spec: Tree| {
            spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] =
                json!([{"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]}]);
            spec
        };
        for (spec, first) in [
            (constraint(json!({})), SKEWED),
            (fast(constraint(json!({}))), ""),
            (fast(constraint(json!({"nodeAffinityPolicy": "Ignore"}))), SKEWED),
            (constraint(json!({"nodeTaintsPolicy": "Honor"})), ""),
        ] {
            assert_eq!(refusals(&pod("x", spec.clone()), &nodes, &pods)[0], first, "{spec}");
        }
    }

    fn term(app: &str, key: &str) -> Tree {
        json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
    }

    fn required(kind: &str, terms: Tree) -> Tree {
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}})
    }

    #[test]
    fn what_is_wanted_or_not_is_looked_for_in_the_whole_domain() {
        let (x, y) = (hosted("x"), hosted("y"));
        let averse = Hosted::of(&pod("y", required("podAntiAffinity", json!([term("x", "zone")]))));
        let nodes = nodes();
        for (kind, terms, pods, want) in [
            ("podAffinity", json!([term("y", "zone")]), vec![("n1", &y)], ["", "", UNMET, UNMET]),
            ("podAffinity", json!([term("y", "zone")]), vec![], [UNMET; 4]),
            // The first of its own kind is let in wherever there is a domain.
            ("podAffinity", json!([term("x", "zone")]), vec![], ["", "", "", UNMET]),
            ("podAffinity", json!([term("x", "zone")]), vec![("n3", &x)], [UNMET, UNMET, "", UNMET]),
            // Who is wanted must be meant by every term.
            ("podAffinity", json!([term("x", "zone"), term("y", "zone")]), vec![("n1", &x), ("n1", &y)], [UNMET; 4]),
            ("podAntiAffinity", json!([term("y", "zone")]), vec![("n1", &y)], [REFUSES, REFUSES, "", ""]),
            ("podAntiAffinity", json!([term("y", HOSTNAME)]), vec![("n1", &y)], [REFUSES, "", "", ""]),
            ("podAntiAffinity", json!([]), vec![("n2", &averse)], [REFUSED, REFUSED, "", ""]),
            ("podAntiAffinity", json!([]), vec![("n4", &averse)], [""; 4]),
        ] {
            assert_eq!(refusals(&pod("x", required(kind, terms.clone())), &nodes, &pods), want, "{kind} {terms}");
        }
    }

    #[test]
    fn what_nodes_tell_of_other_namespaces_counts_in_their_domains() {
        let nodes = nodes();
        let by_name: BTreeMap<&str, &NodeFacts> = nodes.iter().map(|n| (n.name.as_str(), n)).collect();
        let mut other = term("db", "zone");
        other["namespaces"] = json!(["data"]);
        let told = |wanted, unwanted, refused: &[&str]| Beside {
            wanted,
            unwanted,
            refused: refused.iter().map(|k| (*k).to_owned()).collect(),
            worth: BTreeMap::new(),
        };
        for (kind, beside, want) in [
            ("podAffinity", told(1, vec![], &[]), ["", "", UNMET, UNMET]),
            ("podAntiAffinity", told(0, vec![2], &[]), [REFUSES, REFUSES, "", ""]),
            ("podAntiAffinity", told(0, vec![0], &[HOSTNAME]), ["", REFUSED, "", ""]),
        ] {
            let beside = BTreeMap::from([("n2", &beside)]);
            let namespaces = Namespaces::default();
            let among = Among { nodes: &by_name, pods: &[], beside: &beside, namespaces: &namespaces };
            let t = Topology::new(&pod("x", required(kind, json!([other]))), &among);
            let text = |n: &NodeFacts| t.refuses(n, false).first().map(|r| r.text.clone()).unwrap_or_default();
            assert_eq!(nodes.iter().map(text).collect::<Vec<_>>(), want);
            assert_eq!(t.refuses(&nodes[2], true), [], "only the node may know");
        }
    }

    fn best(p: &Tree, nodes: &[NodeFacts], pods: &[(&str, &Hosted)]) -> Vec<i64> {
        seen(p, nodes, pods, |t| t.scores(&nodes.iter().collect::<Vec<_>>()))
    }

    #[test]
    fn what_is_preferred_and_what_is_emptier_scores_more() {
        let nodes = nodes();
        let (x, y) = (hosted("x"), hosted("y"));
        let soft = pod("x", constraint(json!({"whenUnsatisfiable": "ScheduleAnyway"})));
        let s = best(&soft, &nodes, &[("n1", &x)]);
        assert!(s[2] > s[0] && s[0] == s[1] && s[3] < s[2], "{s:?}");
        let prefers = |kind: &str| {
            pod(
                "x",
                json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 10, "podAffinityTerm": term("y", "zone")}]}}}),
            )
        };
        let s = best(&prefers("podAffinity"), &nodes, &[("n1", &y)]);
        assert!(s[0] == s[1] && s[0] > s[2], "{s:?}");
        let s = best(&prefers("podAntiAffinity"), &nodes, &[("n1", &y)]);
        assert!(s[0] == s[1] && s[0] < s[2], "{s:?}");
        // One that runs and would rather have such a pod beside it.
        let fond = Hosted::of(&prefers("podAffinity"));
        let s = best(&pod("y", json!({})), &nodes, &[("n3", &fond)]);
        assert!(s[2] > s[0], "{s:?}");
        assert!(s.iter().all(|s| (0..=4000).contains(s)));
    }

    #[test]
    fn pods_of_one_controller_are_spread_without_being_asked() {
        let nodes = nodes();
        let mut p = pod("x", json!({}));
        p["metadata"]["ownerReferences"] = json!([{"controller": true, "uid": "u"}]);
        let brother = Hosted::of(&p);
        let s = best(&p, &nodes, &[("n1", &brother)]);
        assert!(s[1] > s[0] && s[2] > s[0], "{s:?}");
        let stranger = hosted("x");
        let s = best(&p, &nodes, &[("n1", &stranger)]);
        assert!(s.iter().all(|one| *one == s[0]), "{s:?}");
    }
}
