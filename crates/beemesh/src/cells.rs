//! What is told of the cells kept here: who keeps them besides, what this node is among them, how far it has come.

use crate::backend::Node;
use crate::driver::seat::Seat;
use agree::descriptor::Keeper;
use agree::raft;
use base::{CellId, NodeId};
use decide::keepers::Reason;
use node::cell::{Cell, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What it says of a cell that could not be started: what the cell holds stays as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailedReport {
    /// The cell's id.
    pub(crate) id: String,
    /// `root`, `registry` or `namespace`.
    pub(crate) role: String,
    /// The namespace's name.
    pub(crate) namespace: String,
    /// What is wrong with it.
    pub(crate) why: String,
}

/// What it says of a cell. Fields are only ever added.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CellReport {
    /// The cell's id.
    pub(crate) id: String,
    /// `root`, `registry` or `namespace`.
    pub(crate) role: String,
    /// The namespace's name.
    pub(crate) namespace: String,
    /// `leader`, `follower`, `learner`, `candidate`.
    pub(crate) part: String,
    /// How many vote.
    pub(crate) voters: usize,
    /// Raft's term.
    pub(crate) term: u64,
    /// The last entry committed.
    pub(crate) commit: u64,
    /// The last entry applied.
    pub(crate) applied: u64,
    /// Its newest revision.
    pub(crate) revision: u64,
    /// How many objects it holds.
    pub(crate) objects: usize,
    /// Bytes of them.
    pub(crate) bytes: u64,
    /// Requests that wait for it.
    pub(crate) waiting: usize,
    /// Rises by one with each change of keepers. 0 while a learner does not know who they are.
    #[serde(default)]
    pub(crate) epoch: u64,
    /// The keepers are being changed: those of the epoch before vote as well, yet.
    #[serde(default)]
    pub(crate) changing: bool,
    /// Who keeps it, as far as is known here.
    #[serde(default)]
    pub(crate) keepers: Vec<KeeperReport>,
    /// At the leader: how many entries the keeper furthest behind has not got, none if there is no other. Elsewhere: how
    /// many entries that are known to be committed are not applied here.
    #[serde(default)]
    pub(crate) lag: Option<u64>,
    /// At the leader: what was thought last about who is to keep it.
    #[serde(default)]
    pub(crate) thoughts: Vec<String>,
}

/// A keeper of a cell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeeperReport {
    /// Which node.
    pub(crate) node_id: String,
    /// Its name, if root is known to have given it one.
    pub(crate) name: Option<String>,
    /// Whether it votes, or learns.
    pub(crate) votes: bool,
    /// Whether it leads, as far as is known here.
    pub(crate) leads: bool,
    /// At the leader: how many entries it has not got.
    pub(crate) lag: Option<u64>,
}

/// The role of a cell and its namespace, in words.
pub(crate) fn named(role: &Role) -> (&str, &str) {
    match role {
        Role::Root => ("root", ""),
        Role::Registry => ("registry", ""),
        Role::Namespace(name) => ("namespace", name),
    }
}

pub(crate) fn of_failed((id, role, why): (CellId, Role, String)) -> FailedReport {
    let (role, namespace) = named(&role);
    FailedReport { id: id.to_string(), role: role.into(), namespace: namespace.into(), why }
}

/// A cell as it is at this moment. Its keepers have no names yet.
pub(crate) fn of_cell(cell: &Cell) -> CellReport {
    let (replica, keepers) = (cell.member().replica(), cell.member().cell().keepers());
    let (applied, commit) = replica.progress();
    let (role, namespace) = named(&cell.config().role);
    let leader = match replica.role() {
        raft::Role::Leader => Some(replica.id()),
        raft::Role::Follower { leader } => leader,
        raft::Role::Candidate => None,
    };
    let here = |k: &&Keeper| k.replica == replica.id();
    let votes = keepers.now.keepers.iter().find(here).is_some_and(|k| k.votes);
    let last = replica.last().0;
    let told = |k: &Keeper| KeeperReport {
        node_id: k.node.to_string(),
        name: None,
        votes: k.votes,
        leads: leader == Some(k.replica),
        lag: replica.peer(k.replica).filter(|_| !here(&k)).map(|peer| last.saturating_sub(peer.matched)),
    };
    let keepers_told: Vec<KeeperReport> = keepers.now.keepers.iter().map(told).collect();
    CellReport {
        id: cell.config().cell.to_string(),
        role: role.into(),
        namespace: namespace.into(),
        part: part(replica.role(), votes).into(),
        voters: replica.members().voters.len(),
        term: replica.term(),
        commit,
        applied,
        revision: cell.state().revision().get(),
        objects: cell.state().len(),
        bytes: cell.state().bytes(),
        waiting: cell.waiting(),
        epoch: keepers.now.epoch,
        changing: keepers.before.is_some(),
        lag: match replica.role() {
            raft::Role::Leader => keepers_told.iter().filter_map(|k| k.lag).max(),
            _ => Some(commit.saturating_sub(applied)),
        },
        keepers: keepers_told,
        thoughts: Vec::new(),
    }
}

/// What a replica is to its cell.
fn part(role: raft::Role, votes: bool) -> &'static str {
    match (role, votes) {
        (raft::Role::Leader, _) => "leader",
        (_, false) => "learner",
        (raft::Role::Candidate, true) => "candidate",
        (raft::Role::Follower { .. }, true) => "follower",
    }
}

/// The cells kept here, their keepers by name as far as root is known here.
pub(crate) fn cells(backend: &Node, own_name: &str) -> Vec<CellReport> {
    let driver = backend.driver();
    let bundle = driver.bundle();
    let mut names: BTreeMap<NodeId, String> =
        bundle.members().map(|(name, member)| (member.node, name.to_string())).collect();
    names.entry(driver.node()).or_insert_with(|| own_name.to_owned());
    let told = |reason: Reason| match reason.node.map(|node| names.get(&node).cloned().unwrap_or_else(|| node.short()))
    {
        Some(node) => format!("{node}: {}", reason.text),
        None => reason.text.to_owned(),
    };
    let report = |seat: &Arc<Seat<Cell>>| {
        let mut report = seat.look(of_cell);
        for keeper in &mut report.keepers {
            keeper.name = keeper.node_id.parse().ok().and_then(|id: NodeId| names.get(&id).cloned());
        }
        report.thoughts = driver.reasons(seat.id()).into_iter().map(told).collect();
        report
    };
    driver.all().iter().map(report).collect()
}

impl KeeperReport {
    /// Its name, or the beginning of its id.
    pub(crate) fn called(&self) -> String {
        let short = || self.node_id.parse().map_or_else(|_| self.node_id.clone(), |id: NodeId| id.short());
        self.name.clone().unwrap_or_else(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_vote_learns_and_whoever_leads_leads() {
        let follows = raft::Role::Follower { leader: None };
        for (role, votes, said) in [
            (raft::Role::Leader, true, "leader"),
            (raft::Role::Leader, false, "leader"),
            (follows, true, "follower"),
            (follows, false, "learner"),
            (raft::Role::Candidate, true, "candidate"),
        ] {
            assert_eq!(part(role, votes), said);
        }
    }
}
