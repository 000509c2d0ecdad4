//! Where the simulator stands in for the world, and the known bugs that can be put back there.
//!
//! A checker that never fails proves nothing. Each bug here breaks a promise of the world or of the
//! driver around a cell, never the cell itself, and a test names the checker that must catch it.

/// A bug at one of the simulator's ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bug {
    /// None: the world keeps its promises.
    #[default]
    None,
    /// The disk says that a write is durable as soon as it is handed over: an acknowledgement before
    /// fsync.
    AckBeforeFsync,
    /// What the disk keeps of a hard state is its term and commit index: for whom a replica has voted is
    /// gone after a power cut.
    VoteNotPersisted,
    /// A gateway answers a get from the replica beside it, whether that leads or not: a read without
    /// quorum.
    ReadWithoutQuorum,
    /// A leader's promise that nothing is still to come at or below T is acknowledged for the voters and does
    /// not come to them: over a change of leader closed(T) is forgotten.
    ClosedForgotten,
    /// One change in twenty is not handed to the watchers.
    EventLost,
    /// A node is told that a pod is bound to it as soon as the binding is asked for: an award before its
    /// commit.
    AwardBeforeCommit,
    /// A container runtime says that it has stopped a container, and shows it so, and it runs on.
    StopForgotten,
    /// One entry in twenty is not told to the controllers beside the cell that has applied it.
    CommitUntold,
    /// Controllers are told that something was made and not at which revision: they go by what they have seen
    /// before it.
    CreationForgotten,
    /// A gateway makes up what root would hand out, instead of asking it.
    RootUnasked,
    /// What the disk gives back of a change of keepers is an empty entry: after a power cut those vote who voted before.
    ChangeForgotten,
    /// A member is ended as soon as a leader is asked to name it no more: a wipe without the word of a quorum.
    EndUnasked,
    /// A node that is ordered to keep a cell, and has nothing of it, founds it.
    FoundedAnew,
    /// A node that is told to end a life ends the one it has, whichever that is.
    AnotherEnded,
    /// A life without a leader does not say that it is there.
    FormerUnsaid,
    /// One change in five of the Nodes is not handed to those who watch them.
    NodeUntold,
    /// No sign of life of a node comes to the registry's leader.
    SignLost,
}

impl Bug {
    /// Every bug, and none.
    pub const ALL: [Bug; 18] = [
        Bug::None,
        Bug::AckBeforeFsync,
        Bug::VoteNotPersisted,
        Bug::ReadWithoutQuorum,
        Bug::ClosedForgotten,
        Bug::EventLost,
        Bug::AwardBeforeCommit,
        Bug::StopForgotten,
        Bug::CommitUntold,
        Bug::CreationForgotten,
        Bug::RootUnasked,
        Bug::ChangeForgotten,
        Bug::EndUnasked,
        Bug::FoundedAnew,
        Bug::AnotherEnded,
        Bug::FormerUnsaid,
        Bug::NodeUntold,
        Bug::SignLost,
    ];

    /// The bug of that name.
    pub fn named(name: &str) -> Option<Bug> {
        Bug::ALL.into_iter().find(|b| format!("{b:?}") == name)
    }
}
