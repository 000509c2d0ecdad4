//! One replica of a cell's log: Raft behind our own inputs, effects and bytes.
//!
//! [`Replica`] wraps the `raft` library and adds what the library leaves open or does by counting ticks:
//!
//! - **Time.** Nothing ticks. Elections, check-quorum, leases and the refusal of votes go by [`base::Now`] and
//!   [`Replica::next_deadline`]; jitter comes from the seeded chance handed in. (The library draws its own
//!   election timeouts from the thread's generator, but only its `tick` reads them, and that is never
//!   called.)
//! - **Heartbeats** are those of the pair of nodes ([`crate::heartbeat`]): the library's own are never
//!   sent. What they did besides is done on [`Input::Answered`]: paused probes go on, lost appends and lost
//!   commit indexes are sent again.
//! - **The lease.** A leader holds it for [`Config::lease`] from the *send* time of heartbeats that a
//!   quorum has answered in its term. A voter on whose behalf a heartbeat was answered is *bound*: it
//!   neither grants a vote nor campaigns until the pair machine has said that it answers no more
//!   ([`Input::Unfollowed`]) and [`Config::promise`] has passed since the last answer. So binding is said once,
//!   not once a heartbeat. After a start a voter keeps still for the longest promise that a peer may count on: it
//!   may have answered just before.
//! - **Reads** wait for the lease, or for answers of a quorum to heartbeats sent after the read came
//!   (ReadIndex; Ongaro's dissertation, 6.4), and for the entries committed before it to be applied.
//! - **Order.** What may only leave when something is durable names its ticket ([`Effect::Send`]'s
//!   `after`).
//!
//! One voter or five take the same path.

pub mod members;
pub mod message;
mod replica;
mod storage;
#[cfg(test)]
mod tests;

pub use members::Members;
pub use message::{Body, Message, Vote};
pub use replica::Replica;

use crate::log::{Record, Ticket};
use alloc::vec::Vec;
use base::{CellId, ReplicaId, Revision, Time};
use bytes::Bytes;
use core::time::Duration;

/// How a replica behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cell.
    pub cell: CellId,
    /// This life of this member. Not 0.
    pub replica: ReplicaId,
    /// The descriptor's epoch, carried by every message.
    pub epoch: u64,
    /// How long after its node's last answer to a leader's heartbeat a voter refuses others. Longer finds
    /// a dead leader later.
    pub promise: Duration,
    /// How long from the send time of an answered heartbeat a leader counts on it. At most 10/11 of
    /// `promise`, so that steady clocks may differ in rate by 5% each way.
    pub lease: Duration,
    /// Elections begin up to this long after they may: wide enough that two seldom begin within one round
    /// trip and one fsync.
    pub election_spread: Duration,
    /// How long a candidate waits for votes before it asks again, and a leader without answers of a
    /// quorum goes on before it steps down.
    pub patience: Duration,
    /// At most this many bytes of entries in one message (one entry may be larger).
    pub append_bytes: u64,
    /// At most this many appends to one peer without an answer.
    pub appends_in_flight: usize,
    /// At most this many bytes proposed and not committed; more are refused as [`Why::Busy`].
    pub uncommitted_bytes: u64,
    /// At most this many reads waiting; more are refused as [`Why::Busy`].
    pub reads_waiting: usize,
    /// At most this many applied entries are kept in memory for members that lag...
    pub entries_kept: usize,
    /// ...and at most this many bytes of them.
    pub bytes_kept: usize,
}

impl Config {
    /// The defaults: a dead leader is replaced within 4 to 5 seconds, with heartbeats every half second.
    pub fn new(cell: CellId, replica: ReplicaId) -> Config {
        Config {
            cell,
            replica,
            epoch: 1,
            promise: Duration::from_millis(2_200),
            lease: Duration::from_millis(2_000),
            election_spread: Duration::from_millis(1_000),
            patience: Duration::from_millis(2_500),
            append_bytes: 256 << 10,
            appends_in_flight: 64,
            uncommitted_bytes: 16 << 20,
            reads_waiting: 4_096,
            entries_kept: 4_096,
            bytes_kept: 4 << 20,
        }
    }
}

/// What a replica finds on disk when it starts: the outcome of recovering its records
/// ([`crate::cell::Cell::recover`] makes it), or a beginning ([`Durable::founding`]).
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// The index and term of the checkpoint the entries follow.
    pub base: (u64, u64),
    /// The entries after it, without gap.
    pub entries: Vec<message::Entry>,
    /// The last hard state: term, vote (0 for nobody), commit.
    pub hard: (u64, u64, u64),
    /// The membership at `base`.
    pub members: Members,
    /// The greatest bound promised.
    pub bound: Revision,
    /// Something acknowledged has been lost.
    pub lossy: bool,
}

impl Durable {
    /// The beginning of a cell with these members. Every founding member starts from the same ones.
    pub fn founding(members: Members) -> Durable {
        Durable { members, ..Durable::default() }
    }
}

/// Why a replica could not be made. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The only keeper lost what it acknowledged: nobody can give it back.
    #[error(
        "{cell:?}: the log of its only keeper has lost records that were acknowledged; the cell was not \
         started. Restore this node's data directory from where it is whole, or move it away and begin anew"
    )]
    SoleKeeperLossy {
        /// The cell.
        cell: CellId,
    },
    /// The configuration contradicts itself.
    #[error("{cell:?}: {what}; the cell was not started")]
    Config {
        /// The cell.
        cell: CellId,
        /// What is wrong.
        what: &'static str,
    },
    /// The library refused what was recovered.
    #[error("{cell:?}: its recovered log does not hold together ({what}); the cell was not started")]
    Log {
        /// The cell.
        cell: CellId,
        /// The library's words.
        what: alloc::string::String,
    },
}

/// One binding of a voter to a leader, from [`Effect::Follow`] to [`Input::Unfollowed`]. Rises within one
/// start of a replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FollowId(pub u64);

/// A caller's name for a proposal or a read. Unique among those without an outcome.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CallId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed: [`Replica::next_deadline`] has come.
    Tick,
    /// A message came from another replica.
    Message(Message),
    /// All records of this ticket, and of every earlier one, are durable.
    Durable(Ticket),
    /// Log this. Answered by [`Effect::Committed`] with the same id, or [`Effect::Dropped`].
    Propose {
        /// The caller's name for it.
        id: CallId,
        /// What to log; not empty.
        payload: Bytes,
    },
    /// Change who votes and who learns. Answered by [`Effect::Changed`] with the same id once it is applied, or
    /// [`Effect::Dropped`]. A joint state is left by the leader itself.
    Change {
        /// The caller's name for it.
        id: CallId,
        /// The change.
        change: members::Change,
    },
    /// Confirm that a read from the state applied so far is linearizable. Answered by
    /// [`Effect::ReadReady`] or [`Effect::Dropped`].
    Read {
        /// The caller's name for it.
        id: CallId,
    },
    /// A heartbeat sent to `from`'s node at `sent` was answered on `from`'s behalf, in this term.
    Answered {
        /// The replica answered for.
        from: ReplicaId,
        /// The term of this leader that the answer names.
        term: u64,
        /// When the answered heartbeat was *sent*, on this node's steady clock.
        sent: Time,
    },
    /// `from`'s node answers, but `from` does not follow this leader: it should hear of it.
    Strayed {
        /// The replica.
        from: ReplicaId,
    },
    /// `from`'s process is another than the one that answered heartbeats before.
    Restarted {
        /// The replica.
        from: ReplicaId,
    },
    /// The node answers no heartbeat for this binding any more, and last did at `last`.
    Unfollowed {
        /// The binding, from [`Effect::Follow`].
        id: FollowId,
        /// The last answer, on this node's steady clock; `None` if there was none.
        last: Option<Time>,
    },
    /// Hand leadership to a voter. The lease ends at once and does not come back in this term.
    Transfer {
        /// To whom.
        to: ReplicaId,
    },
    /// The leader's cell has promised to mint nothing at or below `revision` any more: have a quorum hold
    /// it. Answered by [`Effect::Closed`] if that succeeds, else not at all: ask again with a later one.
    Close {
        /// T of closed(T).
        revision: Revision,
    },
    /// A piece of a snapshot, as asked for by [`Effect::WantPiece`].
    Piece {
        /// For whom.
        to: ReplicaId,
        /// The snapshot's index.
        index: u64,
        /// The piece's number.
        number: u32,
        /// The piece and whether it is the last; `None` if that snapshot is kept no more.
        data: Option<(Bytes, bool)>,
    },
    /// The pieces of the snapshot at `index`, all handed over by [`Effect::StagePiece`], make a whole, which
    /// `checkpoint` describes. `None`: they do not.
    Staged {
        /// The snapshot's index.
        index: u64,
        /// The body of the checkpoint that makes it the state.
        checkpoint: Option<Bytes>,
    },
}

/// What to do, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Write these records to the log, after those of every earlier ticket, and say [`Input::Durable`].
    Persist {
        /// Names this write.
        ticket: Ticket,
        /// In this order.
        records: Vec<Record>,
    },
    /// Send, but not before `after` is durable. May be lost; never may it overtake its ticket.
    Send {
        /// The write it rests on.
        after: Option<Ticket>,
        /// The message; `to` says where.
        message: Message,
    },
    /// Apply: the next entry of the log, committed and durable here. Empty payloads occur, and change
    /// nothing.
    Committed {
        /// Its index: one more than the last.
        index: u64,
        /// Its term.
        term: u64,
        /// What was proposed.
        payload: Bytes,
        /// Our own proposal, if it was.
        id: Option<CallId>,
    },
    /// An entry that changes the members was applied: the next entry of the log, like one of [`Effect::Committed`].
    Changed {
        /// Its index: one more than the last.
        index: u64,
        /// Its term.
        term: u64,
        /// The members from here on.
        members: Members,
        /// The change's context; empty when a joint state is left.
        context: Bytes,
        /// Our own proposal, if it was.
        id: Option<CallId>,
    },
    /// The read may be answered from the state as applied by the effects before this one.
    ReadReady {
        /// The read.
        id: CallId,
    },
    /// The proposal or read has no outcome here.
    Dropped {
        /// The proposal or read.
        id: CallId,
        /// Why, and what that says about its having happened.
        why: Why,
    },
    /// This replica's part has changed.
    Role(Role),
    /// This replica leads, every entry of earlier terms is applied, and proposals and reads are taken. Mint
    /// above `floor` and above every revision applied.
    Leading {
        /// The term.
        term: u64,
        /// The greatest bound among the voters that elected it.
        floor: Revision,
    },
    /// Tell the pair machines of these members' nodes that this replica leads in `term`: their answers come
    /// back as [`Input::Answered`].
    Lead {
        /// The term.
        term: u64,
        /// Everyone else who was not told of in this term before.
        to: Vec<ReplicaId>,
    },
    /// It leads these no more: its term is over, or they are no members.
    Unlead {
        /// The term.
        term: u64,
        /// Those it led.
        to: Vec<ReplicaId>,
    },
    /// From now on the heartbeats of `leader`'s node may be answered on this replica's behalf, as long as
    /// they say that it leads in `term`.
    Follow {
        /// Names the binding.
        id: FollowId,
        /// The leader.
        leader: ReplicaId,
        /// Its term.
        term: u64,
    },
    /// Answer no more for this binding, then say [`Input::Unfollowed`].
    Unfollow {
        /// The binding.
        id: FollowId,
        /// The leader.
        leader: ReplicaId,
        /// Its term.
        term: u64,
    },
    /// A read waits for answers to heartbeats not yet sent: send one now.
    BeatNow {
        /// To whose nodes.
        to: Vec<ReplicaId>,
    },
    /// closed(T, term, index) counts: a quorum holds it.
    Closed {
        /// T.
        revision: Revision,
        /// The leader's term.
        term: u64,
        /// All at or below T lies at or below this index.
        index: u64,
    },
    /// Make a piece of a snapshot; say [`Input::Piece`]. Piece 0 begins one of the state as applied by the
    /// effects before this one, which is that of `index`; it is kept until [`Effect::SnapshotDone`].
    WantPiece {
        /// For whom.
        to: ReplicaId,
        /// The snapshot's index.
        index: u64,
        /// The number of the piece.
        number: u32,
    },
    /// No more pieces of this snapshot are wanted for this member.
    SnapshotDone {
        /// For whom it was.
        to: ReplicaId,
        /// The snapshot's index.
        index: u64,
    },
    /// Stage a piece of the leader's snapshot beside the present state; the first (`number` 0) discards
    /// whatever was staged. After the last say [`Input::Staged`].
    StagePiece {
        /// The snapshot's index.
        index: u64,
        /// The number of the piece.
        number: u32,
        /// Whether it is the last.
        last: bool,
        /// The membership at `index`; of piece 0 only.
        members: Members,
        /// The piece.
        data: Bytes,
    },
    /// What was staged for `index` is now the state.
    Install {
        /// The snapshot's index.
        index: u64,
        /// That entry's term.
        term: u64,
    },
    /// A member says it has lost what it acknowledged: it must be replaced by a new life.
    PeerLossy {
        /// The member.
        replica: ReplicaId,
    },
}

/// Another member, as the leader knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// All up to this index is durable there.
    pub matched: u64,
    /// The send time of the last heartbeat that was answered on its behalf, on this node's steady clock; `None` if none was
    /// in this term.
    pub answered: Option<Time>,
}

/// What a replica is at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It follows, or waits for somebody to follow.
    Follower {
        /// The leader it knows of.
        leader: Option<ReplicaId>,
    },
    /// It asks to be elected.
    Candidate,
    /// It leads. [`Effect::Leading`] says when it may be used.
    Leader,
}

/// Why a proposal or read has no outcome here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Not proposed: another leads, if anybody does.
    NotLeader {
        /// Who, as far as is known.
        leader: Option<ReplicaId>,
    },
    /// Not proposed: a bound is reached, or leadership is being handed over. Try again shortly.
    Busy,
    /// Not proposed: these members cannot be changed so.
    Refused,
    /// Proposed, and another entry was committed in its place: it never happens.
    Overwritten,
    /// Proposed, and leadership was lost: it may yet happen. Ask again with the same request id.
    Unknown,
}

impl Why {
    /// Whether the proposal certainly never takes effect.
    pub fn is_certain(self) -> bool {
        self != Why::Unknown
    }
}
