//! Scheduling: a pod is awarded once; a node runs only what is committed as bound to it, and never more than
//! it has; a promise is not kept for ever; and who can be served is.

use super::{Checked, Violation, ensure};
use agree::cell::{After, Member};
use base::{Revision, Uid};
use decide::pod::is_finished;
use decide::schedule::{Hosted, NodeFacts, fit};
use objects::Tree;
use std::collections::{BTreeMap, BTreeSet};

const POD: &[u8] = b"Pod";

/// What was committed of a pod.
#[derive(Clone, Debug, Default)]
struct Known {
    name: String,
    node: Option<String>,
    tree: Tree,
    gone: bool,
}

/// The pods as committed, in the order of the log.
#[derive(Default)]
pub struct Award {
    index: u64,
    /// The revision of the newest state seen.
    revision: Revision,
    pods: BTreeMap<Uid, Known>,
    /// How many were bound.
    pub awards: u64,
}

fn fails(what: String) -> Violation {
    Violation { checker: "award", what }
}

impl Award {
    /// Looks at a replica after its step.
    ///
    /// # Errors
    /// A pod was bound a second time.
    pub fn observe(&mut self, member: &Member) -> Checked {
        let index = member.cell().applied().0;
        if index <= self.index {
            return Ok(());
        }
        self.index = index;
        let news = member.cell().history().since(POD, self.revision);
        let news = news.map_err(|gone| fails(format!("what a replica has applied is not to be seen: {gone}")))?;
        for a in news {
            let (record, gone) = match &a.after {
                After::Put(r) => (r, false),
                After::Deleted(r) => (r, true),
            };
            let tree: Tree = serde_json::from_slice(&record.value).unwrap_or_default();
            let uid = tree["metadata"]["uid"].as_str().and_then(|u| u.parse().ok()).unwrap_or_default();
            let node = tree["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()).map(str::to_owned);
            let name = tree["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let known = self.pods.entry(uid).or_insert_with(|| Known { name, ..Known::default() });
            if known.node.is_some() && known.node != node {
                return Err(fails(format!("pod {} was bound to {:?}, and then to {node:?}", known.name, known.node)));
            }
            self.awards += u64::from(known.node.is_none() && node.is_some());
            known.node = node;
            known.tree = tree;
            known.gone = gone;
        }
        self.revision = member.cell().state().revision();
        Ok(())
    }

    /// A node begins to run a pod, beside others.
    ///
    /// # Errors
    /// The pod is not bound to it by anything committed, or there is no room for it.
    pub fn runs(&self, node: &NodeFacts, uid: Uid, others: &BTreeSet<Uid>) -> Checked {
        let bound = self.pods.get(&uid).and_then(|p| p.node.as_deref());
        ensure("award", bound == Some(node.name.as_str()), || {
            format!("{} runs a pod that is committed as bound to {bound:?}", node.name)
        })?;
        let mut sum = decide::pod::Resources::default();
        let all = others.iter().chain([&uid]);
        for pod in all.clone().filter_map(|u| self.pods.get(u)) {
            sum.add(&Hosted::of(&pod.tree).requests);
        }
        for (name, used) in &sum.0 {
            let have = node.allocatable.get(name);
            ensure("award", *used <= have, || format!("{} has {have} of {name} and runs {used} of it", node.name))?;
        }
        let count = all.count() as i64;
        let most = node.allocatable.get("pods").value();
        ensure("award", count <= most, || format!("{} takes {most} pods and runs {count}", node.name))
    }

    /// The pods that are to run on a node.
    pub fn bound_to(&self, node: &str) -> BTreeSet<Uid> {
        let here = |p: &&Known| !p.gone && p.node.as_deref() == Some(node) && !is_finished(&p.tree);
        self.pods.iter().filter(|(_, p)| here(p)).map(|(uid, _)| *uid).collect()
    }

    /// A pod as it is committed, or was last; and whether it is gone.
    pub fn pod(&self, uid: Uid) -> Option<(&Tree, bool)> {
        self.pods.get(&uid).map(|p| (&p.tree, p.gone))
    }

    /// The pods there are.
    pub fn living(&self) -> impl Iterator<Item = &Tree> {
        self.pods.values().filter(|p| !p.gone).map(|p| &p.tree)
    }

    /// The names and uids of the pods there are, and the node of each.
    pub fn pods(&self) -> impl Iterator<Item = (&str, Uid, Option<&str>)> {
        self.pods.iter().filter(|(_, p)| !p.gone).map(|(uid, p)| (p.name.as_str(), *uid, p.node.as_deref()))
    }

    /// The end of a run, when nothing has happened for longer than any pause: nobody waits for whom there
    /// is room.
    ///
    /// # Errors
    /// Somebody does.
    pub fn served(&self, nodes: &[NodeFacts]) -> Checked {
        let mut nodes = nodes.to_vec();
        for node in &mut nodes {
            let here = self.bound_to(&node.name);
            node.hosted = self
                .pods
                .iter()
                .filter(|(uid, _)| here.contains(uid))
                .map(|(uid, p)| (uid.to_string(), Hosted::of(&p.tree)))
                .collect();
        }
        for pod in self.pods.values().filter(|p| !p.gone && p.node.is_none()) {
            let room = nodes.iter().find(|n| fit(n, &pod.tree).is_empty());
            if let Some(node) = room {
                return Err(fails(format!("pod {} waits for a node at the end, and {} has room", pod.name, node.name)));
            }
        }
        Ok(())
    }
}
