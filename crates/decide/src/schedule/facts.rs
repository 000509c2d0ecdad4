//! What a node is, as scheduling sees it: read from its Node object, and the pods it has room taken by.

use super::neighbours::{Affinity, Namespaces};
use crate::pod::{self, HostPort, Resources, items};
use base::{NodeId, Wall};
use objects::Tree;
use std::collections::BTreeMap;

/// An object's labels.
pub type Labels = BTreeMap<String, String>;

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
    pub labels: Labels,
    /// `spec.taints`, foreign ones too.
    pub taints: Vec<Tree>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// What it can give away in all: `status.allocatable`.
    pub allocatable: Resources,
    /// The pods bound to it that have not finished, and those it holds a reservation for, by uid.
    pub hosted: BTreeMap<String, Hosted>,
    /// The namespaces there are.
    pub namespaces: Namespaces,
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
            namespaces: Namespaces::default(),
        }
    }
}

/// A pod that takes room on the node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hosted {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// What it asks for in all.
    pub requests: Resources,
    /// The host's ports it takes.
    pub ports: Vec<HostPort>,
    /// Whom it wants beside it, and whom it does not.
    pub affinity: Affinity,
    /// The uid of its controller, if it has one.
    pub controller: Option<String>,
    /// `spec.priority`.
    pub priority: i64,
    /// When it was created.
    pub created: Wall,
    /// It is being deleted.
    pub going: bool,
}

impl Hosted {
    /// A pod as it would be hosted.
    pub fn of(pod: &Tree) -> Hosted {
        let (spec, meta) = (&pod["spec"], &pod["metadata"]);
        let text = |t: &Tree| t.as_str().unwrap_or_default().to_owned();
        Hosted {
            namespace: text(&meta["namespace"]),
            name: text(&meta["name"]),
            labels: labels(pod),
            requests: pod::requests(spec),
            ports: pod::host_ports(spec),
            affinity: Affinity::of(pod),
            controller: items(&meta["ownerReferences"])
                .iter()
                .find(|o| o["controller"] == true)
                .map(|o| text(&o["uid"])),
            priority: pod::priority(spec),
            created: meta["creationTimestamp"].as_str().and_then(Wall::parse_rfc3339).unwrap_or_default(),
            going: !meta["deletionTimestamp"].is_null(),
        }
    }
}

/// An object's labels.
pub(super) fn labels(object: &Tree) -> Labels {
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
