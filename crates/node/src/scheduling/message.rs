//! What a cell's leader and a node say to each other about pods.
//!
//! Plain values. A message names the tender, or the cell and the term of its leader, that it is about, so
//! that one which comes late or twice is known as what it is.

use crate::assignment::Assignment;
use base::{BootId, CellId, Uid};
use decide::schedule::{Beside, Reason, Tender, Victim};
use objects::request::Stored;
use std::sync::Arc;

/// From a cell's leader to a node.
#[derive(Clone, Debug)]
pub enum ToNode {
    /// Can you run this pod? Answered by [`ToLeader::Bid`], [`ToLeader::Unfit`] or [`ToLeader::NotNow`].
    Tender {
        /// Names the question.
        tender: Tender,
        /// The pod, as committed.
        pod: Stored,
        /// How it is asked.
        ask: Ask,
    },
    /// Your offer to evict pods for this one is taken: make room, and keep it for the pod. It is tendered for
    /// again when there is room.
    Preempt {
        /// The tender it was offered for.
        tender: Tender,
        /// The pod, as committed.
        pod: Stored,
        /// Who has to go whatever room there is.
        gone: Arc<[Uid]>,
    },
    /// The room that you made or keep for a pod is not needed.
    Withdraw {
        /// The tender that it was offered for.
        tender: Tender,
        /// The pod's.
        uid: Uid,
    },
    /// Your bid is taken, and the binding is about to be committed. Answered by [`ToLeader::Confirmed`] or
    /// [`ToLeader::Lapsed`].
    Confirm {
        /// The tender bid for.
        tender: Tender,
        /// The pod's.
        uid: Uid,
    },
    /// Nothing comes of your bid.
    Release {
        /// The tender bid for.
        tender: Tender,
        /// The pod's.
        uid: Uid,
    },
    /// Pods that are bound to you.
    Assigned(Assigned),
    /// Nothing new: this is the last I have told you. Said every [`Stands::EVERY`] as long as pods of the cell
    /// are bound to the node.
    Stands(Stands),
}

/// What is asked for by a tender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// A bid.
    Bid,
    /// No bid: the pod may not be there as long as these pods of its own cell are. Would you evict them, and
    /// whoever else there would have to be no room for? Answered by [`ToLeader::Unfit`].
    Without(Arc<[Uid]>),
    /// No bid: what of other namespaces is beside the pod on you? Answered by [`ToLeader::Unfit`].
    Look,
}

/// An [`Assignment`] in its place among all that a leader tells a node.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// The leader's term.
    pub term: u64,
    /// Counts what this leader has told this node, from 1 on, without gaps.
    pub number: u64,
    /// The start of the node that asked this leader last, if it ever did. What was on its way to an earlier
    /// start may be long out of date, and a node that has just started could not tell by number or term.
    pub boot: Option<BootId>,
    /// The pods.
    pub assignment: Assignment,
}

/// How far a leader has come in telling a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stands {
    /// Whose pods.
    pub cell: CellId,
    /// The leader's term.
    pub term: u64,
    /// [`Assigned::number`] of the last; 0 if there was none.
    pub number: u64,
}

/// From a node to the leader of a cell.
#[derive(Clone, PartialEq, Debug)]
pub enum ToLeader {
    /// I can, and have reserved what it needs for a few seconds.
    Bid {
        /// The tender.
        tender: Tender,
        /// How well I suit: 0 to 1,000.
        score: u32,
        /// What of other namespaces is beside it here.
        beside: Beside,
    },
    /// I cannot.
    Unfit {
        /// The tender.
        tender: Tender,
        /// Why.
        reasons: Vec<Reason>,
        /// I could, but for what is only reserved here: ask again soon.
        contended: bool,
        /// I could, if I evicted these.
        offer: Option<Vec<Victim>>,
        /// What of other namespaces is beside it here.
        beside: Beside,
    },
    /// I cannot say now: I have just started, or as many reservations are open as I keep.
    NotNow {
        /// The tender.
        tender: Tender,
    },
    /// The reservation is kept until I read in the cell what became of the pod.
    Confirmed {
        /// The tender.
        tender: Tender,
    },
    /// There is no such reservation any more.
    Lapsed {
        /// The tender.
        tender: Tender,
    },
    /// There is room now that I made for this pod.
    Made {
        /// The tender that was offered for.
        tender: Tender,
        /// The pod's.
        uid: Uid,
        /// The pod's.
        name: Arc<str>,
    },
    /// I have kept room for this pod for a while. Answered by [`ToNode::Withdraw`] if it is not to be there any
    /// more: that may have been said already, and lost on its way.
    Keeping {
        /// The tender that was offered for.
        tender: Tender,
        /// The pod's.
        uid: Uid,
        /// The pod's.
        name: Arc<str>,
    },
    /// Tell me everything: I have just started, or have missed something.
    Ask {
        /// The cell.
        cell: CellId,
        /// Which start of the node asks.
        boot: BootId,
    },
    /// I have kept a confirmed reservation for a while: what became of the pod? Answered by
    /// [`ToNode::Release`], or by telling the pod if it is bound to the node. Not answered while the binding
    /// is under way.
    WhatBecame {
        /// The tender it was confirmed for.
        tender: Tender,
        /// The pod's.
        uid: Uid,
        /// The pod's.
        name: Arc<str>,
    },
}

impl ToLeader {
    /// Whose leader it is for.
    pub fn cell(&self) -> CellId {
        match self {
            ToLeader::Bid { tender, .. }
            | ToLeader::Unfit { tender, .. }
            | ToLeader::NotNow { tender }
            | ToLeader::Confirmed { tender }
            | ToLeader::Lapsed { tender }
            | ToLeader::Made { tender, .. }
            | ToLeader::Keeping { tender, .. }
            | ToLeader::WhatBecame { tender, .. } => tender.cell,
            ToLeader::Ask { cell, .. } => *cell,
        }
    }
}

impl ToNode {
    /// From whose leader it comes.
    pub fn cell(&self) -> CellId {
        match self {
            ToNode::Tender { tender, .. }
            | ToNode::Preempt { tender, .. }
            | ToNode::Withdraw { tender, .. }
            | ToNode::Confirm { tender, .. }
            | ToNode::Release { tender, .. } => tender.cell,
            ToNode::Assigned(a) => a.assignment.cell,
            ToNode::Stands(s) => s.cell,
        }
    }

    /// In which term of its leadership it was said.
    pub fn term(&self) -> u64 {
        match self {
            ToNode::Tender { tender, .. }
            | ToNode::Preempt { tender, .. }
            | ToNode::Withdraw { tender, .. }
            | ToNode::Confirm { tender, .. }
            | ToNode::Release { tender, .. } => tender.term,
            ToNode::Assigned(a) => a.term,
            ToNode::Stands(s) => s.term,
        }
    }
}

impl Stands {
    /// How often it is said.
    pub const EVERY: std::time::Duration = std::time::Duration::from_secs(5);
}
