//! What a node is, as scheduling sees it: read from its Node object, and the pods it has room taken by.

use crate::pod::{self, HostPort, Resources, items};
use base::NodeId;
use objects::Tree;
use std::collections::BTreeMap;

/// The annotation of a Node that says whose key it is: the [`NodeId`] of the machine behind it, in hex. A
/// Node without it has no machine behind it, and is never asked for a bid.
pub const NODE_ID: &str = "beemesh.io/node-id";

/// The machine behind a Node object; `None` if there is none.
pub fn node_id(node: &Tree) -> Option<NodeId> {
    node["metadata"]["annotations"][NODE_ID].as_str()?.parse().ok()
}

/// What a node knows of itself when it bids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its labels, foreign ones too.
    pub labels: BTreeMap<String, String>,
    /// `spec.taints`, foreign ones too.
    pub taints: Vec<Tree>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// What it can give away in all: `status.allocatable`.
    pub allocatable: Resources,
    /// The pods bound to it that have not finished, and those it holds a reservation for, by uid.
    pub hosted: BTreeMap<String, Hosted>,
}

impl NodeFacts {
    /// What a Node object says. Who is hosted it does not say: nobody.
    pub fn of(node: &Tree) -> NodeFacts {
        NodeFacts {
            name: node["metadata"]["name"].as_str().unwrap_or_default().into(),
            labels: labels(node),
            taints: items(&node["spec"]["taints"]).to_vec(),
            unschedulable: node["spec"]["unschedulable"] == true,
            allocatable: Resources::of(&node["status"]["allocatable"]),
            hosted: BTreeMap::new(),
        }
    }
}

/// A pod that takes room on the node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hosted {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it asks for in all.
    pub requests: Resources,
    /// The host's ports it takes.
    pub ports: Vec<HostPort>,
    /// Its required anti-affinity terms: whom it refuses beside it.
    pub refuses: Vec<Tree>,
}

impl Hosted {
    /// A pod as it would be hosted.
    pub fn of(pod: &Tree) -> Hosted {
        let spec = &pod["spec"];
        Hosted {
            namespace: pod["metadata"]["namespace"].as_str().unwrap_or_default().into(),
            labels: labels(pod),
            requests: pod::requests(spec),
            ports: pod::host_ports(spec),
            refuses: items(&spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"])
                .to_vec(),
        }
    }
}

/// An object's labels.
pub(super) fn labels(object: &Tree) -> BTreeMap<String, String> {
    let l = object["metadata"]["labels"].as_object().into_iter().flatten();
    l.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_object_says_who_it_is_and_what_it_can_give() {
        let id = NodeId([7; 32]);
        let node = json!({
            "metadata": {"name": "n", "labels": {"zone": "a"}, "annotations": {NODE_ID: id.to_string()}},
            "spec": {"unschedulable": true, "taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"cpu": "2", "pods": "110"}},
        });
        let f = NodeFacts::of(&node);
        assert_eq!((f.name.as_str(), f.unschedulable, f.taints.len()), ("n", true, 1));
        assert_eq!(f.labels.get("zone").map(String::as_str), Some("a"));
        assert_eq!(f.allocatable.get("cpu").milli_value(), 2000);
        assert_eq!(node_id(&node), Some(id));
    }

    #[test]
    fn a_node_made_by_hand_has_no_machine_behind_it() {
        assert_eq!(node_id(&json!({"metadata": {"name": "n"}})), None);
        assert_eq!(node_id(&json!({"metadata": {"annotations": {NODE_ID: "no id"}}})), None);
    }
}
