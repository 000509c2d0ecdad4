//! What a cell answers.

use super::{Change, Kept, ReplyTo, Snapshot};
use base::Revision;
use objects::allotment::Wanted;
use objects::decision::{Answer, Stream, Token};
use objects::kinds::Kind;
use objects::read::{ListAnswer, ListPlan, WatchPlan};
use objects::status::Status;
use std::sync::Arc;

/// What became of a request.
pub enum Outcome {
    /// Refused, for good.
    Refused(Box<Status>),
    /// Done, or read.
    Done(Answer),
    /// A list: run the plan over the snapshot, on the caller's own thread.
    List {
        /// What is wanted.
        plan: ListPlan,
        /// The objects of the kind, frozen.
        snapshot: Snapshot,
    },
    /// A list whose plan was run where the cell is: what [`Outcome::List`] becomes on its way to another node.
    Listed {
        /// The objects.
        found: ListAnswer<Kept>,
        /// Texts for Warning headers.
        warnings: Vec<String>,
    },
    /// What there is of a resource at the revision asked for, for a read over many cells.
    Collected(Snapshot),
    /// What happened to a resource between the revisions asked for, for a watch over many cells.
    Recalled(Vec<Change>),
    /// A list over all namespaces, authorised and checked: their cells are to be asked.
    ListAll(ListPlan),
    /// A watch over all namespaces, authorised and checked: their cells are to be asked.
    WatchAll(WatchPlan),
    /// A watch is open: [`super::Effect::Events`] of the resource that come after this effect are its
    /// continuation.
    Watch(Box<Opened>),
    /// A token is to be signed.
    Token(Token),
    /// A stream is to be opened at the pod's node.
    Stream(Stream),
    /// Not decided: root is to be asked for this first, and then the cell again, with what root gave
    /// ([`crate::gateway::reserve`]).
    Reserve(Box<Wanted>),
    /// Not decided: another replica leads, or none does. Certainly not proposed; try the leader.
    NotLeader,
    /// Not decided: as many requests as the cell takes are waiting. Certainly not proposed; try again
    /// later.
    Busy,
    /// Proposed, and leadership was lost: it may or may not happen. Ask again with the same request id.
    Unknown,
}

/// A watch that was just opened.
pub struct Opened {
    /// The kind asked for (a view may differ from what is stored).
    pub kind: &'static Kind,
    /// Which objects, and whether bookmarks are wanted.
    pub plan: WatchPlan,
    /// The state to send first, if the watch starts with one.
    pub state: Option<Snapshot>,
    /// What happened between its start and now.
    pub backlog: Vec<Change>,
    /// All up to here is in `state` or `backlog`.
    pub revision: Revision,
    /// Rises with every watch opened here: [`super::Input::Unsubscribe`] names the last it knows of.
    pub serial: u64,
}

impl Outcome {
    /// Whether the request was certainly not executed and may be repeated as it is.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Outcome::NotLeader | Outcome::Busy)
    }
}

/// An answer on its way.
pub struct Reply {
    /// To whom.
    pub to: ReplyTo,
    /// What.
    pub outcome: Outcome,
}

/// How a subscription begins.
#[derive(Clone, Debug)]
pub enum Subscription {
    /// [`super::Effect::Events`] of the resource that come after this effect are its continuation.
    Open {
        /// All up to here is in `backlog`, or was before what was asked for.
        revision: Revision,
        /// What happened after the revision asked for.
        backlog: Arc<[Change]>,
        /// As of a watch that is opened ([`Opened::serial`]).
        serial: u64,
    },
    /// What happened up to here is forgotten: nothing was subscribed.
    Gone {
        /// The oldest revision one can begin after.
        oldest: Revision,
    },
}
