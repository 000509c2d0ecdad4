//! What the machines of a node want to know of its hive's Nodes, out of a reflector's changes: whom a scheduler may
//! ask, where the API is served, which taints drive pods away, and what this node's own object says.
//!
//! Until a list is through nothing is told: somebody who is told of half of the nodes takes the others for gone.

use crate::controllers::Taints;
use crate::errand;
use crate::reflector::{Change, Config};
use crate::scheduling::Candidate;
use base::NodeId;
use decide::schedule::NodeFacts;
use objects::Tree;
use objects::kinds;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// How many Nodes are known at most: far more than a hive has.
const NODES_MAX: usize = 8192;

/// The reflector's configuration for the Nodes of a registry, which schedulers may read as a whole. `None`: this release
/// knows no Nodes.
pub fn reflected() -> Option<Config> {
    let kind = kinds::by_kind("", "v1", "Node")?;
    Some(Config { user: errand::scheduler(), kind, namespace: None, objects_max: NODES_MAX })
}

/// Something of the Nodes that is otherwise than it was told last.
#[derive(Clone, PartialEq, Debug)]
pub enum News {
    /// The nodes that may be asked for a bid, in order of their names.
    Candidates(Arc<[Candidate]>),
    /// Where the API is served.
    Gateways(Vec<IpAddr>),
    /// The taints of nodes that drive pods away.
    Taints(Taints),
    /// What this node's own object says.
    Own(NodeFacts),
}

/// What of a Node is of use.
#[derive(PartialEq)]
struct Seen {
    candidate: Option<Candidate>,
    addresses: Vec<IpAddr>,
    taints: Option<Vec<Tree>>,
}

/// The Nodes, as far as they are of use here.
pub struct Nodes {
    own: NodeId,
    synced: bool,
    all: BTreeMap<Arc<str>, Seen>,
    candidates: Option<Arc<[Candidate]>>,
    gateways: Option<Vec<IpAddr>>,
    taints: Option<Taints>,
    facts: Option<NodeFacts>,
}

impl Nodes {
    /// Nothing is known yet, for this node.
    pub fn new(own: NodeId) -> Nodes {
        Nodes { own, synced: false, all: BTreeMap::new(), candidates: None, gateways: None, taints: None, facts: None }
    }

    /// These Nodes are otherwise. What is new of it.
    pub fn changed(&mut self, changes: &[Change]) -> Vec<News> {
        let mut differs = false;
        for c in changes {
            let new = c.after.as_deref().map(Seen::of);
            differs |= self.all.get(&c.name) != new.as_ref();
            match new {
                Some(new) => self.all.insert(c.name.clone(), new),
                None => self.all.remove(&c.name),
            };
        }
        if differs && self.synced { self.news() } else { Vec::new() }
    }

    /// A list is through. What is new of it.
    pub fn synced(&mut self) -> Vec<News> {
        if std::mem::replace(&mut self.synced, true) { Vec::new() } else { self.news() }
    }

    /// The nodes that may be asked for a bid; `None` before they are known.
    pub fn candidates(&self) -> Option<&Arc<[Candidate]>> {
        self.candidates.as_ref()
    }

    /// The machine behind a Node, if it is known.
    pub fn machine(&self, name: &str) -> Option<NodeId> {
        self.all.get(name)?.candidate.as_ref().map(|c| c.id)
    }

    /// Where the API is served; `None` before that is known.
    pub fn gateways(&self) -> Option<&[IpAddr]> {
        self.gateways.as_deref()
    }

    /// The taints that drive pods away; `None` before they are known.
    pub fn taints(&self) -> Option<&Taints> {
        self.taints.as_ref()
    }

    /// What this node's own object says, or last said; `None` before it was ever seen.
    pub fn own(&self) -> Option<&NodeFacts> {
        self.facts.as_ref()
    }

    fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        let candidates: Arc<[Candidate]> = self.all.values().filter_map(|s| s.candidate.clone()).collect();
        let own = candidates.iter().find(|c| c.id == self.own).map(|c| &c.facts);
        if let Some(own) = own.filter(|own| self.facts.as_ref() != Some(own)) {
            self.facts = Some(own.clone());
            news.push(News::Own(own.clone()));
        }
        if self.candidates.as_ref() != Some(&candidates) {
            self.candidates = Some(candidates.clone());
            news.push(News::Candidates(candidates));
        }
        let gateways: Vec<IpAddr> = self.all.values().flat_map(|s| s.addresses.iter().copied()).collect();
        if self.gateways.as_ref() != Some(&gateways) {
            self.gateways = Some(gateways.clone());
            news.push(News::Gateways(gateways));
        }
        let driving = self.all.iter().filter_map(|(name, s)| Some((Box::from(&**name), s.taints.clone()?)));
        let taints: Taints = Arc::new(driving.collect());
        if self.taints.as_ref() != Some(&taints) {
            self.taints = Some(taints.clone());
            news.push(News::Taints(taints));
        }
        news
    }
}

impl Seen {
    fn of(node: &Tree) -> Seen {
        let taints = node["spec"]["taints"].as_array().filter(|all| all.iter().any(|t| t["effect"] == "NoExecute"));
        Seen { candidate: Candidate::of(node), addresses: internal_addresses(node), taints: taints.cloned() }
    }
}

/// Where a Node says that its machine is reached.
pub fn internal_addresses(node: &Tree) -> Vec<IpAddr> {
    let all = node["status"]["addresses"].as_array().into_iter().flatten();
    all.filter(|a| a["type"] == "InternalIP").filter_map(|a| a["address"].as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use decide::schedule::NODE_ID;
    use serde_json::json;

    fn id(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn node(n: u8) -> Tree {
        json!({"metadata": {"name": format!("n{n}"), "annotations": {NODE_ID: id(n).to_string()}},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.0.2.{n}")},
                {"type": "Hostname", "address": "n"}]}})
    }

    fn change(n: u8, after: Option<Tree>) -> Change {
        Change { name: format!("n{n}").into(), before: None, after: after.map(Arc::new) }
    }

    fn names(news: &[News]) -> Vec<&'static str> {
        let name = |n: &News| match n {
            News::Candidates(_) => "candidates",
            News::Gateways(_) => "gateways",
            News::Taints(_) => "taints",
            News::Own(_) => "own",
        };
        news.iter().map(name).collect()
    }

    #[test]
    fn nothing_is_told_before_all_are_known_and_then_only_what_differs() {
        let mut nodes = Nodes::new(id(1));
        assert_eq!(nodes.changed(&[change(1, Some(node(1))), change(2, Some(node(2)))]), []);
        assert!(nodes.candidates().is_none());
        assert_eq!(names(&nodes.synced()), ["own", "candidates", "gateways", "taints"]);
        assert_eq!(nodes.candidates().unwrap().iter().map(|c| c.id).collect::<Vec<_>>(), [id(1), id(2)]);
        assert_eq!(nodes.synced(), []);
        // An image more is nothing to anybody here.
        let mut other = node(2);
        other["status"]["images"] = json!([{"names": ["a"]}]);
        assert_eq!(nodes.changed(&[change(2, Some(other.clone()))]), []);
        other["spec"]["taints"] = json!([{"key": "k", "effect": "NoExecute"}, {"key": "l", "effect": "NoSchedule"}]);
        assert_eq!(names(&nodes.changed(&[change(2, Some(other))])), ["candidates", "taints"]);
        assert_eq!(nodes.taints().unwrap()["n2"].len(), 2);
        let mut own = node(1);
        own["spec"]["unschedulable"] = json!(true);
        assert_eq!(names(&nodes.changed(&[change(1, Some(own))])), ["own", "candidates"]);
        assert_eq!(names(&nodes.changed(&[change(2, None)])), ["candidates", "gateways", "taints"]);
        assert_eq!((nodes.machine("n1"), nodes.machine("n2")), (Some(id(1)), None));
        assert_eq!(nodes.gateways(), Some(&["192.0.2.1".parse().unwrap()][..]));
        // What it last was is what it bids by, also while nobody has its object.
        assert_eq!(names(&nodes.changed(&[change(1, None)])), ["candidates", "gateways"]);
        assert!(nodes.own().unwrap().unschedulable);
    }
}
