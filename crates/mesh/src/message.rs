//! Messages: a queue here, one QUIC stream for each protocol of a link, a handler there.
//!
//! A protocol's messages share one stream, so that they stay in order; protocols have a stream each, so that
//! none waits for another. A stream begins with its header ([`crate::stream`]); then each message follows its
//! length, 4 bytes, big-endian. It is never ended before the link is, and never opened twice.
//!
//! Nothing here is sent again: a message that was in a connection when that ended may be lost.

use crate::link::Link;
use crate::peer::PeerState;
use crate::peers::Inner;
use crate::stream::{self, Kind};
use crate::{Protocol, Why};
use bytes::{Bytes, BytesMut};
use iroh::endpoint::{ReadError, ReadExactError, RecvStream, WriteError};
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Written at once at most: enough for QUIC to fill its packets, little enough to be dropped from a queue
/// rather than to be waited for.
const BATCH_MESSAGES: usize = 32;
const BATCH_BYTES: usize = 256 * 1024;

/// What a peer sent. While it is held its bytes count against what that peer may have in flight; whoever keeps
/// the bytes for longer than it works on them copies them, or takes them out by [`Message::into_bytes`] and
/// bounds them itself.
#[derive(Debug)]
pub struct Message {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Message {
    /// The bytes alone: from here on nothing bounds how many there are.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl Deref for Message {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes one protocol's messages to a link until it ends.
pub(crate) async fn write(inner: Arc<Inner>, peer: Arc<PeerState>, link: Arc<Link>, protocol: usize) {
    let (Some(name), Some(spoken)) = (inner.names.get(protocol), link.majors.get(protocol)) else { return };
    let Some(filled) = peer.filled.get(protocol) else { return };
    let mut stream = None;
    let mut batch = Vec::new();
    loop {
        let mut bytes = 0;
        while batch.len() < 2 * BATCH_MESSAGES
            && bytes < BATCH_BYTES
            && peer.uses(&link)
            && let Some((major, message)) = peer.pop(protocol)
        {
            inner.unqueued(message.len());
            if *spoken != Some(major) {
                inner.counting.messages_dropped_not_spoken.one();
                continue;
            }
            bytes += message.len();
            // `Mesh::send` took nothing that is longer than a u32 can say.
            batch.push(Bytes::copy_from_slice(&(message.len() as u32).to_be_bytes()));
            batch.push(message);
        }
        if batch.is_empty() {
            tokio::select! {
                () = filled.notified() => continue,
                _ = link.connection.closed() => {
                    // It may have been this one that was woken for what the next link is to write.
                    filled.notify_one();
                    return;
                }
            }
        }
        let messages = batch.len() / 2;
        link.used.again();
        let written = async {
            if stream.is_none() {
                let mut opened = link.connection.open_uni().await?;
                let header = stream::header(Kind::Messages, Protocol::new(name, spoken.unwrap_or_default()));
                opened.write_all(&header).await?;
                stream = Some(opened);
            }
            match &mut stream {
                Some(stream) => stream.write_all_chunks(&mut batch).await,
                None => Err(WriteError::ClosedStream),
            }
        };
        match written.await {
            Ok(()) => inner.counting.messages_sent.add(messages),
            Err(error) => {
                inner.counting.messages_interrupted.add(messages);
                if !matches!(error, WriteError::ConnectionLost(_)) {
                    inner.violated(&link, "it stopped a stream of messages");
                }
                filled.notify_one();
                return;
            }
        }
        batch.clear();
    }
}

/// Takes a link's streams of messages until it ends.
pub(crate) async fn accept(inner: Arc<Inner>, peer: Arc<PeerState>, link: Arc<Link>) {
    let taken = Arc::new(Mutex::new(vec![false; inner.names.len()]));
    while let Ok(recv) = link.connection.accept_uni().await {
        let (inner, peer, link, taken) = (inner.clone(), peer.clone(), link.clone(), taken.clone());
        tokio::spawn(async move {
            if let Err(Broken(what)) = read(&inner, &peer, &link, &taken, recv).await {
                inner.violated(&link, what);
            }
        });
    }
}

/// What no release does.
struct Broken(&'static str);

async fn read(
    inner: &Arc<Inner>,
    peer: &Arc<PeerState>,
    link: &Arc<Link>,
    taken: &Mutex<Vec<bool>>,
    mut recv: RecvStream,
) -> Result<(), Broken> {
    let header = timeout(inner.config.limits.hello_within, stream::read_header(&mut recv)).await;
    let (kind, name, major) = match header {
        Ok(Ok(header)) => header,
        Ok(Err(what)) => return Err(Broken(what)),
        Err(_) => return Err(Broken("a stream of messages did not say what it is in time")),
    };
    let protocol = inner.names.iter().position(|n| *n == name);
    let Some(protocol) = protocol.filter(|p| kind == Kind::Messages && link.majors.get(*p) == Some(&Some(major)))
    else {
        return Err(Broken("a stream of messages is of a protocol that was not agreed on"));
    };
    let twice = crate::bound::lock(taken).get_mut(protocol).is_none_or(|t| std::mem::replace(t, true));
    if twice {
        return Err(Broken("it opened a second stream of messages for one protocol"));
    }
    let Some(budget) = peer.budgets.get(protocol) else { return Ok(()) };
    let named = Protocol::new(inner.names[protocol], major);
    let bytes_max = inner.config.limits.message_bytes_max;
    loop {
        let mut length = [0; 4];
        match recv.read_exact(&mut length).await {
            Ok(()) => {}
            Err(error) => return ended(&error),
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > bytes_max {
            return Err(Broken("a message is longer than any may be"));
        }
        // Room first, bytes after: what the handler does not let go of is not read on, and QUIC tells the peer.
        let Some(room) = room(budget, length).await else { return Ok(()) };
        let mut bytes = BytesMut::zeroed(length);
        match recv.read_exact(&mut bytes).await {
            Ok(()) => {}
            Err(error) => return ended(&error),
        }
        // What arrives on a link that was replaced might overtake, or be overtaken by, what comes on the new one.
        if !peer.uses(link) {
            return Ok(());
        }
        link.used.again();
        inner.handler.message(&link.peer(), named, Message { bytes: bytes.freeze(), _room: room });
        inner.counting.messages_received.one();
    }
}

async fn room(budget: &Arc<Semaphore>, bytes: usize) -> Option<Option<OwnedSemaphorePermit>> {
    let Ok(bytes) = u32::try_from(bytes) else { return None };
    if bytes == 0 {
        return Some(None);
    }
    budget.clone().acquire_many_owned(bytes).await.ok().map(Some)
}

/// A stream of messages ends with its link, and not before.
fn ended(error: &ReadExactError) -> Result<(), Broken> {
    match error {
        ReadExactError::ReadError(ReadError::ConnectionLost(_)) => Ok(()),
        _ => Err(Broken("it ended a stream of messages")),
    }
}

impl Inner {
    /// The peer did what no release does: counted, said, and the link is closed.
    pub(crate) fn violated(&self, link: &Link, what: &'static str) {
        if link.connection.close_reason().is_some() {
            return;
        }
        let why = Why::Violation { node: link.node, what };
        self.counting.violations.one();
        self.tell(&why);
        link.close(why);
    }
}
