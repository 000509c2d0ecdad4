//! `/beemesh/schedule/1`: what a cell's leader and a node say to each other about pods.
//!
//! A frame is one message. Any may be lost: each names the tender, or the cell and term, that it is about.

use super::codec::{fields, message, variants};
use crate::assignment::Assignment;
use crate::scheduling::message::{Ask, Assigned, Stands, ToLeader, ToNode};
use base::{BootId, CellId, Wall};
use decide::schedule::{Beside, Reason, Tender, Victim};
use objects::request::Stored;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One frame.
#[derive(Clone, Debug)]
pub enum Message {
    /// From a cell's leader to a node.
    ToNode(ToNode),
    /// From a node to the leader of a cell ([`ToLeader::cell`]).
    ToLeader(ToLeader),
}

variants!(Message { 1 => ToNode(message), 2 => ToLeader(message) });
message!(Message, "a message about pods");

fields!(Tender { cell: CellId, term: u64, number: u64 });
fields!(Victim { uid: String, namespace: String, name: String, priority: i64, created: Wall });
fields!(Reason { text: String, preemptible: bool });
fields!(Beside { wanted: u32, unwanted: Vec<u32>, refused: BTreeSet<String>, worth: BTreeMap<String, i64> });
variants!(Ask { 1 => Bid, 2 => Without(uids), 3 => Look });
fields!(Assignment { cell: CellId, namespace: Arc<str>, whole: bool, pods: Vec<(Arc<str>, Option<Stored>)> });
fields!(Assigned { term: u64, number: u64, boot: Option<BootId>, assignment: Assignment });
fields!(Stands { cell: CellId, term: u64, number: u64 });

variants!(ToNode {
    1 => Tender { tender, pod, ask },
    2 => Preempt { tender, pod, gone },
    3 => Withdraw { tender, uid },
    4 => Confirm { tender, uid },
    5 => Release { tender, uid },
    6 => Assigned(assigned),
    7 => Stands(stands),
});

variants!(ToLeader {
    1 => Bid { tender, score, beside },
    2 => Unfit { tender, reasons, contended, offer, beside },
    3 => NotNow { tender },
    4 => Confirmed { tender },
    5 => Lapsed { tender },
    6 => Made { tender, uid, name },
    7 => Keeping { tender, uid, name },
    8 => Ask { cell, boot },
    9 => WhatBecame { tender, uid, name },
});
