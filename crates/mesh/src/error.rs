//! What can go wrong between nodes, as letters.

use crate::Protocol;
use base::NodeId;
use identity::{IdentityError, Refusal};
use std::net::SocketAddr;
use std::time::Duration;

/// Why the transport did not start, or did not take what it was given.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The address cannot be used. Nothing was started.
    #[error(
        "cannot listen at {addresses} (UDP): {why}. If another beemesh runs here, stop it; otherwise choose another address. Nothing was started"
    )]
    Bind {
        /// The addresses asked for.
        addresses: String,
        /// What the system said.
        why: String,
    },
    /// The node's key cannot be used. Nothing was started.
    #[error("the node's key cannot be used by the transport: {0}. Nothing was started")]
    Key(String),
    /// The SVID is not this node's, or cannot be used. The one before stays in use.
    #[error("the SVID cannot be used by the transport: {0}. The one before, if any, stays in use")]
    Svid(String),
    /// The protocols cannot be spoken. Nothing was started.
    #[error("the protocols to speak cannot be used: {why}. Nothing was started")]
    Protocols {
        /// What is wrong.
        why: String,
    },
    /// The local network cannot be announced to. Nothing was started.
    #[error(
        "cannot announce this node on the local network (mDNS): {0}. Start without it, and give addresses by a ticket. Nothing was started"
    )]
    Lan(String),
    /// A credential's key could not be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Why there is no link to a peer, or no longer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Why {
    /// Nobody said where it is.
    #[error("no address of {0:?} is known: a hint, the directory or the local network has to name one")]
    NoAddress(NodeId),
    /// It did not answer.
    #[error("{node:?} was not reached ({why}): it is off, or nothing passes between here and there")]
    Unreachable {
        /// Whom.
        node: NodeId,
        /// What the network said.
        why: String,
    },
    /// It was reached and said nothing in time.
    #[error("{node:?} did not finish its hello within {within:?}")]
    Silent {
        /// Who.
        node: NodeId,
        /// The time it had.
        within: Duration,
    },
    /// What it presented does not prove that it belongs here.
    #[error("{node:?} was refused: {refusal}.{clocks}")]
    Identity {
        /// Who.
        node: NodeId,
        /// Why its chain proves nothing.
        refusal: Box<Refusal>,
        /// Empty, or a sentence about both clocks.
        clocks: String,
    },
    /// Its SVID is good, and it did not sign this connection with it.
    #[error("{0:?} presented an SVID and did not sign this connection with its key: it was refused")]
    Unbound(NodeId),
    /// This node has no SVID.
    #[error("this node has no SVID: it has not joined, or its SVID could not be issued")]
    NoIdentity,
    /// The two speak nothing in common.
    #[error("{node:?} and this node speak no protocol in common (here: {ours}; there: {theirs}): update the older one")]
    NothingInCommon {
        /// With whom.
        node: NodeId,
        /// What this node speaks.
        ours: String,
        /// What that node speaks.
        theirs: String,
    },
    /// It sent what no release sends.
    #[error("{node:?} broke the protocol ({what}): the link was closed")]
    Violation {
        /// Who.
        node: NodeId,
        /// How.
        what: &'static str,
    },
    /// The peer closed, or refused, and said why. Its words, not ours.
    #[error("{node:?} closed the link: {said}")]
    Closed {
        /// Who.
        node: NodeId,
        /// The code it gave; see the decision page for what they mean.
        code: u64,
        /// What it said, cut and made printable.
        said: String,
    },
    /// The link broke.
    #[error("the link to {node:?} was lost ({why})")]
    Lost {
        /// To whom.
        node: NodeId,
        /// What QUIC said.
        why: String,
    },
    /// There is a link to it already.
    #[error("there is a link to {0:?} already: the other one is used")]
    Duplicate(NodeId),
    /// Its SVID ran out, the grace included.
    #[error("the SVID of {0:?} ran out and was not renewed on the link in time")]
    Expired(NodeId),
    /// It, or who vouches for it, was expelled.
    #[error("{node:?} was cut off: {refusal}")]
    Expelled {
        /// Who.
        node: NodeId,
        /// The refusal in full.
        refusal: Box<Refusal>,
    },
    /// The caller had it closed.
    #[error("the link to {0:?} was closed by this node's own decision")]
    Dismissed(NodeId),
    /// Nobody used it.
    #[error("the link to {0:?} was not in use and was closed")]
    Idle(NodeId),
    /// The peer started anew.
    #[error("{0:?} has started anew")]
    Restarted(NodeId),
    /// A bound of this node's was reached.
    #[error("this node has no room for {node:?}: {what}")]
    Busy {
        /// For whom.
        node: NodeId,
        /// Which bound.
        what: &'static str,
    },
    /// This node ends.
    #[error("this node's transport is closed")]
    Stopping,
}

/// Why a message was not taken. Nothing of it is sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// It is longer than any message may be.
    #[error("a message of {protocol} with {bytes} bytes was not sent: {bytes_max} are the most. Open a stream for it")]
    TooLarge {
        /// Of which protocol.
        protocol: Protocol,
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// This node, or the peer, does not speak it, or another major of it was agreed on.
    #[error("a message of {protocol} to {node:?} was not sent: the two do not speak it with each other")]
    NotSpoken {
        /// Which.
        protocol: Protocol,
        /// To whom.
        node: NodeId,
    },
    /// A bound that all peers share is reached.
    #[error("a message to {node:?} was not sent: {what}. Send it again later")]
    Full {
        /// To whom.
        node: NodeId,
        /// Which bound.
        what: &'static str,
    },
    /// It is to this very node.
    #[error("a message was not sent: it is to this node itself, which no link leads to")]
    Myself,
    /// The transport is closed.
    #[error("a message was not sent: this node's transport is closed")]
    Stopping,
}

/// Why no stream was opened. Nothing was sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no link, and none could be made.
    #[error("no stream of {protocol}: {why}")]
    NoLink {
        /// Of which protocol.
        protocol: Protocol,
        /// Why not.
        why: Why,
    },
    /// The two do not speak it with each other.
    #[error("no stream of {protocol} to {node:?}: the two do not speak it with each other")]
    NotSpoken {
        /// Which.
        protocol: Protocol,
        /// To whom.
        node: NodeId,
    },
    /// It took too long: the peer is far, or lets this node have no more streams at once.
    #[error(
        "no stream of {protocol} to {node:?} within {within:?}: the peer was not reached, or has as many streams of this node open as it allows. Try again"
    )]
    Timeout {
        /// Of which protocol.
        protocol: Protocol,
        /// To whom.
        node: NodeId,
        /// The time there was.
        within: Duration,
    },
    /// It is to this very node.
    #[error("no stream: it would be to this node itself, which no link leads to")]
    Myself,
}

/// Why a question to join was not answered. Whether the mesh acted on it is not known: asking again is safe, since a
/// ticket is used once by one machine however often that machine asks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JoinError {
    /// The request is too long.
    #[error("the request to join has {bytes} bytes and {bytes_max} are the most: nothing was sent", bytes_max = crate::MAX_JOIN_REQUEST)]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The node was not reached, or broke off.
    #[error("{node:?} at {addresses:?} did not answer ({why}): try another contact, or this one again")]
    NoAnswer {
        /// Who.
        node: NodeId,
        /// Where.
        addresses: Vec<SocketAddr>,
        /// What happened.
        why: String,
    },
    /// It answered that it will not. Its words, not ours.
    #[error("{node:?} refused: {said}")]
    Refused {
        /// Who.
        node: NodeId,
        /// What it said, cut and made printable.
        said: String,
    },
}

/// Codes a link is closed with. Kept for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    Stopping = 1,
    Identity = 2,
    Duplicate = 3,
    Idle = 4,
    Violation = 5,
    Expelled = 6,
    Expired = 7,
    Busy = 8,
    NoIdentity = 9,
    NothingInCommon = 10,
    Silent = 11,
    Dismissed = 12,
    Done = 13,
}

impl Why {
    /// What the peer is told with.
    pub(crate) fn code(&self) -> Code {
        match self {
            Why::Identity { .. } | Why::Unbound(_) => Code::Identity,
            Why::NoIdentity => Code::NoIdentity,
            Why::NothingInCommon { .. } => Code::NothingInCommon,
            Why::Violation { .. } => Code::Violation,
            Why::Duplicate(_) | Why::Restarted(_) => Code::Duplicate,
            Why::Expired(_) => Code::Expired,
            Why::Expelled { .. } => Code::Expelled,
            Why::Dismissed(_) => Code::Dismissed,
            Why::Idle(_) => Code::Idle,
            Why::Silent { .. } => Code::Silent,
            Why::Busy { .. } => Code::Busy,
            Why::NoAddress(_) | Why::Unreachable { .. } | Why::Closed { .. } | Why::Lost { .. } | Why::Stopping => {
                Code::Stopping
            }
        }
    }
}

/// What a stranger says, fit for a log: one line, printable, at most 300 characters.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1200)]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// An error with what is behind it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        let next = e.to_string();
        if !said.contains(&next) {
            said = format!("{said}: {next}");
        }
        source = e.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_says_is_one_short_line() {
        assert_eq!(printable(b"no\n\x1b[31mway\xff"), "no  [31mway\u{fffd}");
        assert_eq!(printable(&[b'a'; 5000]).len(), 300);
    }
}
