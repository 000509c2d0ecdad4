//! Hosting leases as controllers see them: which nodes are silent, and which pods need not wait for them.
//!
//! The decision is the architecture's (section 8, "Hosting leases"; section 5.6 for what is strong): `Ready` is for people,
//! the lease decides replacement. A pod that may run twice is missing as soon as its node's lease has lapsed, whatever it
//! tolerates; any other waits for its deletion, as in Kubernetes.

use super::{Pod, text};
use crate::pod::items;
use base::Wall;
use objects::Tree;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is known of the nodes that host pods, by the names of their Nodes. Of a node that is in none of the sets nothing is
/// known to be wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hosts {
    /// Silent for as long as a hosting lease lasts for a cell, and longer; and since when they were known to be, by the
    /// calendar.
    pub silent: BTreeMap<Arc<str>, Wall>,
    /// Not heard since this process began, which is not as long as that: they may be there, and may not.
    pub unheard: BTreeSet<Arc<str>>,
    /// Heard again a short while ago, after they had been silent: what their pods' status says may be from before.
    pub returned: BTreeSet<Arc<str>>,
}

/// The same, as a cell has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hosting {
    /// The nodes.
    pub hosts: Arc<Hosts>,
    /// Whether the leases of the silent ones have lapsed. A new leader takes every lease as renewed at its election: until
    /// they could have lapsed since, it replaces nobody, and takes no pod for surplus because of one that may be gone.
    pub lapsed: bool,
}

impl Hosting {
    /// The pod's node is silent: the pod serves nobody.
    pub fn is_silent(&self, pod: &Pod) -> bool {
        !pod.node.is_empty() && self.hosts.silent.contains_key(&*pod.node)
    }

    /// The pod is one that its node took with it into its silence. Who was made later was put there by somebody who did not
    /// ask the node; what is made in its place would be, too, without end.
    pub(crate) fn is_lost(&self, pod: &Pod) -> bool {
        // Objects are dated by whole seconds.
        let before = |since: &Wall| pod.meta.created.0 / 1000 < since.0 / 1000;
        !pod.node.is_empty() && self.hosts.silent.get(&*pod.node).is_some_and(before)
    }

    /// The pod's node is not known to be there.
    pub(crate) fn is_doubtful(&self, pod: &Pod) -> bool {
        self.is_silent(pod) || self.hosts.unheard.contains(&*pod.node)
    }

    /// The pod's node has been silent, and is not any more.
    pub(crate) fn has_returned(&self, pod: &Pod) -> bool {
        self.hosts.returned.contains(&*pod.node)
    }

    /// The nodes of which something else is known than `before`.
    pub fn differing<'a>(&'a self, before: &'a Hosting) -> BTreeSet<&'a str> {
        let (old, new) = (&before.hosts, &self.hosts);
        let sets = [(&old.unheard, &new.unheard), (&old.returned, &new.returned)];
        let mut all: BTreeSet<&str> = sets.iter().flat_map(|(a, b)| a.symmetric_difference(b)).map(|n| &**n).collect();
        let otherwise = |n: &&Arc<str>| before.lapsed != self.lapsed || old.silent.get(*n) != new.silent.get(*n);
        all.extend(old.silent.keys().chain(new.silent.keys()).filter(otherwise).map(|n| &**n));
        all
    }
}

/// Whether pods of a ReplicaSet may run twice for a while: they are of class `eventual`.
///
/// `deployment` is the set's owner, if it is one; `claim` finds a PersistentVolumeClaim of the namespace by its name. What
/// may be written by one node only, or is not known, must not run twice; nor what is recreated, since who wants that wants
/// no two beside one another.
pub fn may_run_twice(set: &Tree, deployment: Option<&Tree>, claim: &dyn Fn(&str) -> Option<Tree>) -> bool {
    // Where its pods run is not open.
    if !text(&set["spec"]["template"]["spec"]["nodeName"]).is_empty() {
        return false;
    }
    if deployment.is_some_and(|d| text(&d["spec"]["strategy"]["type"]) == "Recreate") {
        return false;
    }
    let volumes = items(&set["spec"]["template"]["spec"]["volumes"]);
    let claimed = volumes.iter().filter_map(|v| v["persistentVolumeClaim"]["claimName"].as_str());
    claimed.into_iter().all(|name| claim(name).is_some_and(|c| is_shared(&c)))
}

/// Every mode in which a claim may be mounted lets several nodes have it.
fn is_shared(claim: &Tree) -> bool {
    let modes = items(&claim["spec"]["accessModes"]);
    !modes.is_empty() && modes.iter().all(|m| matches!(text(m), "ReadOnlyMany" | "ReadWriteMany"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_one_node_writes_and_what_is_recreated_does_not_run_twice() {
        let strategy = |s: &str| json!({"spec": {"strategy": {"type": s}}});
        let claims = |name: &str| {
            let modes = match name {
                "one" => json!(["ReadWriteOnce"]),
                "pod" => json!(["ReadWriteOncePod"]),
                "read" => json!(["ReadOnlyMany"]),
                "many" => json!(["ReadWriteMany", "ReadOnlyMany"]),
                "either" => json!(["ReadWriteMany", "ReadWriteOnce"]),
                _ => return None,
            };
            Some(json!({"spec": {"accessModes": modes}}))
        };
        for (deployment, claimed, want) in [
            (None, &[][..], true),
            (Some("RollingUpdate"), &[], true),
            (Some("Recreate"), &[], false),
            (None, &["read", "many"], true),
            (None, &["one"], false),
            (None, &["many", "pod"], false),
            (None, &["either"], false),
            (None, &["nowhere"], false),
        ] {
            let volumes: Vec<Tree> =
                claimed.iter().map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}})).collect();
            let own = json!({"name": "scratch", "emptyDir": {}});
            let each = json!({"name": "each", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}});
            let volumes: Vec<Tree> = volumes.into_iter().chain([own, each]).collect();
            let set = json!({"spec": {"template": {"spec": {"volumes": volumes}}}});
            let owner = deployment.map(strategy);
            assert_eq!(may_run_twice(&set, owner.as_ref(), &claims), want, "{deployment:?} {claimed:?}");
        }
    }

    #[test]
    fn a_set_that_names_its_node_waits_for_it() {
        let set = json!({"spec": {"template": {"spec": {"nodeName": "n"}}}});
        assert!(!may_run_twice(&set, None, &|_| None));
    }

    #[test]
    fn what_differs_is_told_by_node() {
        let set = |names: &[&str]| names.iter().map(|n| Arc::from(*n)).collect::<BTreeSet<Arc<str>>>();
        let of = |silent: &[&str], unheard: &[&str], lapsed| Hosting {
            hosts: Arc::new(Hosts {
                silent: set(silent).into_iter().map(|n| (n, Wall(1))).collect(),
                unheard: set(unheard),
                returned: BTreeSet::new(),
            }),
            lapsed,
        };
        let old = of(&["a", "b"], &["c"], false);
        let differing = |new: &Hosting| new.differing(&old).into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert!(differing(&old).is_empty());
        assert_eq!(differing(&of(&["a", "c"], &[], false)), ["b", "c"]);
        assert_eq!(differing(&of(&["a", "b"], &["c"], true)), ["a", "b"]);
    }
}
