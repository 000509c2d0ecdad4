//! Pod affinity and anti-affinity (`core/v1` PodAffinity, PodAntiAffinity): whom a pod wants beside it.
//!
//! Whether two pods are beside each other is a question of topology. Where the domain is the host, the
//! bidder decides; where it is wider, the leader of the pod's cell does (see [`super::Topology`]), which
//! knows the pods of its own namespace. Of pods of other namespaces only the nodes that run them know:
//! [`beside`] is what a node tells of them.

use super::facts::{Labels, NodeFacts};
use super::fit::selector_matches;
use crate::pod::items;
use objects::Tree;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
/// How much a required affinity of a pod that runs counts for one that it wants beside it:
/// kube-scheduler's `hardPodAffinityWeight`.
const REQUIRED_WEIGHT: i64 = 1;

/// The labels of all namespaces, as root has them: what a `namespaceSelector` selects by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Namespaces(pub Arc<BTreeMap<String, Labels>>);

impl Namespaces {
    /// Whether a selector selects a namespace. One that is not known (yet) has no label but its name.
    fn is_selected(&self, selector: &Tree, name: &str) -> bool {
        match self.0.get(name) {
            Some(labels) => selector_matches(selector, labels),
            None => {
                selector_matches(selector, &Labels::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]))
            }
        }
    }
}

/// One term: pods of these namespaces with these labels, in the same domain of this topology.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The node label whose values are the domains.
    pub topology: String,
    selector: Tree,
    named: BTreeSet<String>,
    /// Null if there is none.
    by_selector: Tree,
}

impl Term {
    fn of(tree: &Tree, owner: &str) -> Term {
        let mut named: BTreeSet<String> =
            items(&tree["namespaces"]).iter().filter_map(Tree::as_str).map(Into::into).collect();
        if named.is_empty() && tree["namespaceSelector"].is_null() {
            named.insert(owner.to_owned());
        }
        Term {
            topology: tree["topologyKey"].as_str().unwrap_or_default().into(),
            selector: tree["labelSelector"].clone(),
            named,
            by_selector: tree["namespaceSelector"].clone(),
        }
    }

    /// Whether a pod of this namespace and labels is meant.
    pub fn means(&self, namespaces: &Namespaces, namespace: &str, labels: &Labels) -> bool {
        let there = self.named.contains(namespace)
            || (!self.by_selector.is_null() && namespaces.is_selected(&self.by_selector, namespace));
        there && selector_matches(&self.selector, labels)
    }

    /// Whether pods of other namespaces than this may be meant.
    fn looks_beyond(&self, namespace: &str) -> bool {
        !self.by_selector.is_null() || self.named.iter().any(|n| n != namespace)
    }
}

/// All terms of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Affinity {
    /// Required: such a pod must be in the domain.
    pub wants: Vec<Term>,
    /// Required: no such pod may be in the domain.
    pub refuses: Vec<Term>,
    /// Preferred: what one such pod in the domain is worth, less than zero for anti-affinity.
    pub likes: Vec<(i64, Term)>,
}

impl Affinity {
    /// A pod's terms.
    pub fn of(pod: &Tree) -> Affinity {
        let owner = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        let both = &pod["spec"]["affinity"];
        let required = |of: &Tree| items(&of[REQUIRED]).iter().map(|t| Term::of(t, owner)).collect();
        let preferred = |of: &'static str, sign: i64| {
            items(&both[of][PREFERRED])
                .iter()
                .map(move |w| (sign * w["weight"].as_i64().unwrap_or(0), Term::of(&w["podAffinityTerm"], owner)))
        };
        Affinity {
            wants: required(&both["podAffinity"]),
            refuses: required(&both["podAntiAffinity"]),
            likes: preferred("podAffinity", 1).chain(preferred("podAntiAffinity", -1)).collect(),
        }
    }

    /// Whether nothing is said of others.
    pub fn is_empty(&self) -> bool {
        self.wants.is_empty() && self.refuses.is_empty() && self.likes.is_empty()
    }

    /// Whether pods of other namespaces than the pod's own may be meant by a term that is required.
    pub fn looks_beyond(&self, namespace: &str) -> bool {
        self.wants.iter().chain(&self.refuses).any(|t| t.looks_beyond(namespace))
    }

    /// Whether a pod is meant by all that is wanted: only such a pod counts for any of it.
    pub(super) fn is_wanted(&self, namespaces: &Namespaces, namespace: &str, labels: &Labels) -> bool {
        !self.wants.is_empty() && self.wants.iter().all(|t| t.means(namespaces, namespace, labels))
    }

    /// What a pod that runs (`other`, of a namespace and labels) is worth to this one, by the topology.
    pub(super) fn worth(
        &self,
        (namespace, labels): (&str, &Labels),
        other: &Affinity,
        (of, has): (&str, &Labels),
        namespaces: &Namespaces,
        add: &mut dyn FnMut(&str, i64),
    ) {
        for (weight, term) in self.likes.iter().filter(|(_, t)| t.means(namespaces, of, has)) {
            add(&term.topology, *weight);
        }
        for (weight, term) in other.likes.iter().filter(|(_, t)| t.means(namespaces, namespace, labels)) {
            add(&term.topology, *weight);
        }
        for term in other.wants.iter().filter(|t| t.means(namespaces, namespace, labels)) {
            add(&term.topology, REQUIRED_WEIGHT);
        }
    }
}

/// What a node tells of the pods of other namespaces that it runs, for one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// How many of them are meant by all that the pod requires beside it.
    pub wanted: u32,
    /// For each of its required anti-affinity terms, in order, how many of them are meant.
    pub unwanted: Vec<u32>,
    /// The topologies over which they refuse the pod.
    pub refused: BTreeSet<String>,
    /// What they are worth to the pod, and it to them, by topology.
    pub worth: BTreeMap<String, i64>,
}

/// What of the pods of other namespaces on the node counts for a pod.
pub fn beside(node: &NodeFacts, pod: &Tree) -> Beside {
    let affinity = Affinity::of(pod);
    let own = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let labels = super::facts::labels(pod);
    let mut told = Beside { unwanted: vec![0; affinity.refuses.len()], ..Beside::default() };
    for other in node.hosted.values().filter(|h| h.namespace != own) {
        told.wanted += u32::from(affinity.is_wanted(&node.namespaces, &other.namespace, &other.labels));
        for (count, term) in told.unwanted.iter_mut().zip(&affinity.refuses) {
            *count += u32::from(term.means(&node.namespaces, &other.namespace, &other.labels));
        }
        for term in other.affinity.refuses.iter().filter(|t| t.means(&node.namespaces, own, &labels)) {
            told.refused.insert(term.topology.clone());
        }
        let worth = &mut told.worth;
        let theirs = (other.namespace.as_str(), &other.labels);
        affinity.worth((own, &labels), &other.affinity, theirs, &node.namespaces, &mut |topology, weight| {
            *worth.entry(topology.into()).or_default() += weight;
        });
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Hosted;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_term_means_pods_of_its_own_namespace_of_named_ones_and_of_selected_ones() {
        let namespaces = Namespaces(Arc::new(BTreeMap::from([
            ("a".to_owned(), labels(&[("team", "x")])),
            ("b".to_owned(), labels(&[("team", "y")])),
        ])));
        let app = json!({"matchLabels": {"app": "web"}});
        for (namespaces_named, by, means) in [
            (json!(null), json!(null), [true, false, false]),
            (json!(["b"]), json!(null), [false, true, false]),
            (json!([]), json!({}), [true, true, true]),
            (json!(null), json!({"matchLabels": {"team": "y"}}), [false, true, false]),
            (json!(["a"]), json!({"matchLabels": {"team": "y"}}), [true, true, false]),
            (json!(null), json!({"matchLabels": {"kubernetes.io/metadata.name": "new"}}), [false, false, true]),
        ] {
            let term = Term::of(
                &json!({"topologyKey": "zone", "labelSelector": app, "namespaces": namespaces_named, "namespaceSelector": by}),
                "a",
            );
            let web = labels(&[("app", "web")]);
            assert_eq!(["a", "b", "new"].map(|n| term.means(&namespaces, n, &web)), means, "{namespaces_named} {by}");
            assert!(!term.means(&namespaces, "a", &labels(&[("app", "db")])));
        }
    }

    #[test]
    fn a_node_tells_of_the_pods_of_other_namespaces_only() {
        let term = |ns: &str, key: &str| json!({"topologyKey": key, "namespaces": [ns], "labelSelector": {"matchLabels": {"app": "db"}}});
        let pod = json!({"metadata": {"namespace": "a", "labels": {"app": "web"}}, "spec": {"affinity": {
            "podAffinity": {REQUIRED: [term("b", "zone")], PREFERRED: [{"weight": 7, "podAffinityTerm": term("b", "rack")}]},
            "podAntiAffinity": {REQUIRED: [term("c", "zone"), term("b", "rack")]}}}});
        let db = |ns: &str| Hosted::of(&json!({"metadata": {"namespace": ns, "labels": {"app": "db"}}}));
        let averse =
            Hosted::of(&json!({"metadata": {"namespace": "c"}, "spec": {"affinity": {"podAntiAffinity": {REQUIRED: [
            {"topologyKey": "zone", "namespaceSelector": {}, "labelSelector": {"matchLabels": {"app": "web"}}}]}}}}));
        let mut node = NodeFacts::default();
        for (uid, hosted) in [("1", db("a")), ("2", db("b")), ("3", db("b")), ("4", averse)] {
            node.hosted.insert(uid.into(), hosted);
        }
        assert_eq!(
            beside(&node, &pod),
            Beside {
                wanted: 2,
                unwanted: vec![0, 2],
                refused: BTreeSet::from(["zone".to_owned()]),
                worth: BTreeMap::from([("rack".to_owned(), 14)]),
            }
        );
        assert!(Affinity::of(&pod).looks_beyond("a"));
    }
}
