//! `/beemesh/cell/1`: what the replicas of cells, and the pairs that share a heartbeat, say to each other.
//!
//! Many messages ride in one frame. A frame is `version u8`, then each message as `kind u8` (1 between replicas, 2 a
//! heartbeat) and its bytes, a `u32` length before them, in agree's own layouts, which name their versions themselves.
//! A message between replicas says its cell, its epoch and both replicas; a heartbeat says the processes it is between.
//! Who sent it is known from the connection.
//!
//! Any of them may be lost. So one that this release cannot read is passed over, and the others of its frame are not.

use super::codec::{DecodeError, Reader, VERSION};
use super::frame::FRAME_BYTES_MAX;
use agree::heartbeat;
use agree::raft::{self, Body};
use bytes::Bytes;

/// A frame is sent when it has this length; one message may be longer.
pub const BATCH_BYTES: usize = 256 << 10;

/// A frame holds at most so many messages.
pub const BATCH_MAX: usize = 4096;

/// What is said between two nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Between two replicas of a cell: [`crate::cell::Effect::Send`], [`crate::cell::Input::Message`].
    Raft(raft::Message),
    /// Between the pairs of both nodes: [`heartbeat::Effect::Send`], [`heartbeat::Input::Message`].
    Heartbeat(heartbeat::Message),
}

/// Messages for one node, gathered into frames.
#[derive(Debug)]
pub struct Batch {
    frame: Vec<u8>,
    count: usize,
    bytes_max: usize,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch::new(BATCH_BYTES)
    }
}

impl Batch {
    /// Into frames of about so many bytes.
    pub fn new(bytes_max: usize) -> Batch {
        Batch { frame: Vec::new(), count: 0, bytes_max: bytes_max.min(FRAME_BYTES_MAX) }
    }

    /// Adds a message. What had been gathered comes out as a frame if both would be too long for one.
    #[must_use]
    pub fn push(&mut self, message: &Message) -> Option<Bytes> {
        let (kind, bytes) = match message {
            Message::Raft(m) => (1, m.encode()),
            Message::Heartbeat(m) => (2, m.encode()),
        };
        let full = self.count == BATCH_MAX || self.frame.len() + 5 + bytes.len() > self.bytes_max;
        let before = if full { self.take() } else { None };
        if self.count == 0 {
            self.frame.push(VERSION);
        }
        self.count += 1;
        self.frame.push(kind);
        // Far below 2^32: it is bounded by an entry of a log.
        self.frame.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.frame.extend_from_slice(&bytes);
        before
    }

    /// What has been gathered since the last frame; to be sent when nothing else is about to be pushed.
    pub fn take(&mut self) -> Option<Bytes> {
        let count = std::mem::take(&mut self.count);
        (count > 0).then(|| std::mem::take(&mut self.frame).into())
    }
}

/// The messages of a frame, in order, and of each that cannot be read why.
///
/// What a replica keeps for long (entries, of which the objects of its cell are made) has memory of its own, so that
/// a small object does not keep a whole frame.
///
/// # Errors
/// The frame itself is of a newer release, or damaged: nothing of it is to be taken.
pub fn messages(frame: &Bytes) -> Result<Vec<Result<Message, DecodeError>>, DecodeError> {
    let (mut r, _) = Reader::versioned("a frame of messages of cells", frame, VERSION)?;
    let mut out = Vec::new();
    while !r.is_at_end() {
        if out.len() == BATCH_MAX {
            return Err(r.malformed());
        }
        let kind = r.u8()?;
        let bytes = r.bytes()?;
        out.push(match kind {
            1 => raft::Message::decode(&bytes).map(|m| Message::Raft(apart(m))),
            2 => heartbeat::Message::decode(&bytes).map(Message::Heartbeat),
            other => Err(r.newer(other)),
        });
    }
    Ok(out)
}

fn apart(mut message: raft::Message) -> raft::Message {
    match &mut message.body {
        Body::Append { entries, .. } => {
            for entry in entries {
                entry.payload = Bytes::copy_from_slice(&entry.payload);
            }
        }
        Body::Piece { data, .. } => *data = Bytes::copy_from_slice(data),
        _ => {}
    }
    message
}
