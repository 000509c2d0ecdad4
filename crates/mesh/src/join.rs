//! Joining: one question of a machine that has no SVID yet, and one answer.
//!
//! A connection of its own kind (`/beemesh/join/1`), on which nothing else can be said. Who asks has proven a key
//! and nothing more, so all of it is bounded: the length, the time, how many ask at once and how many in a second. What is asked
//! and answered is opaque here ([`identity::JoinRequest`], [`identity::JoinAnswer`]).
//!
//! ```text
//! question  length (4), bytes
//! answer    1, length (4), bytes      or      2, length (4), why not
//! ```

use crate::bound::{Stranger, lock};
use crate::error::{Code, JoinError, printable};
use crate::peers::Inner;
use base::NodeId;
use bytes::Bytes;
use identity::Contact;
use iroh::endpoint::{Connection, RecvStream, SendStream, VarInt};
use std::sync::Arc;
use std::time::Instant;
use tokio::time::timeout;

/// What the connection is for.
pub(crate) const JOIN: &[u8] = b"/beemesh/join/1";
/// A question is at most this long: a request has three keys and some names.
pub const MAX_JOIN_REQUEST: usize = 64 * 1024;
/// An answer is at most this long: it lists contacts, token keys and expelled nodes, each to its own bound.
pub const MAX_JOIN_ANSWER: usize = 4 << 20;
/// Words of a refusal.
const MAX_WHY: usize = 2048;

const ANSWERED: u8 = 1;
const REFUSED: u8 = 2;

/// Answers one question; the connection is closed after it.
pub(crate) async fn answer(inner: Arc<Inner>, connection: Connection, node: NodeId, stranger: Stranger) {
    let within = inner.config.limits.join_within;
    let turned_away = |why: &str| {
        inner.counting.joins_turned_away.one();
        tracing::info!(?node, why, "a question to join was turned away");
        connection.close(VarInt::from_u32(Code::Busy as u32), why.as_bytes());
    };
    let asked = async {
        let (send, mut recv) = connection.accept_bi().await.ok()?;
        let question = read(&mut recv, MAX_JOIN_REQUEST).await?;
        Some((send, question))
    };
    // The question is there at once or not at all; only its answer may take long.
    let Ok(Some((mut send, question))) = timeout(inner.config.limits.hello_within, asked).await else {
        return turned_away("no question of at most 64 KiB came in time");
    };
    drop(stranger);
    let Ok(_place) = inner.joins.clone().try_acquire_owned() else {
        return turned_away("not here: too many machines ask to join at once: ask again in a while");
    };
    if !lock(&inner.join_bucket).take(Instant::now()) {
        return turned_away("not here: too many machines asked to join just now: ask again in a while");
    }
    inner.counting.joins_asked.one();
    let answered = timeout(within, inner.handler.join(node, Bytes::from(question))).await;
    let (kind, bytes) = match answered {
        Ok(Ok(answer)) if answer.len() <= MAX_JOIN_ANSWER => (ANSWERED, answer),
        Ok(Ok(_)) => (REFUSED, b"not here: the answer is longer than any may be".to_vec()),
        Ok(Err(why)) => (REFUSED, why.into_bytes()),
        Err(_) => (REFUSED, b"not here: it was not decided in time: ask again".to_vec()),
    };
    let bytes = if kind == REFUSED { &bytes[..bytes.len().min(MAX_WHY)] } else { &bytes[..] };
    let said = async {
        send.write_all(&[kind]).await.ok()?;
        write(&mut send, bytes).await?;
        // Who was answered closes; who does not is closed.
        connection.closed().await;
        Some(())
    };
    let _ = timeout(inner.config.limits.hello_within * 4, said).await;
    connection.close(VarInt::from_u32(Code::Done as u32), b"answered");
}

impl Inner {
    /// Asks a node of a mesh whether this machine may join.
    pub(crate) async fn ask_to_join(&self, contact: &Contact, question: &[u8]) -> Result<Vec<u8>, JoinError> {
        if question.len() > MAX_JOIN_REQUEST {
            return Err(JoinError::TooLarge { bytes: question.len() });
        }
        let node = contact.node;
        let no_answer = |why: String| JoinError::NoAnswer { node, addresses: contact.addresses.clone(), why };
        self.hint(node, &contact.addresses);
        let connection = self.connect(node, JOIN).await.map_err(|why| no_answer(why.to_string()))?;
        let asked = async {
            let (mut send, mut recv) = connection.open_bi().await.ok()?;
            write(&mut send, question).await?;
            let mut kind = [0];
            recv.read_exact(&mut kind).await.ok()?;
            let max = if kind[0] == ANSWERED { MAX_JOIN_ANSWER } else { MAX_WHY };
            Some((kind[0], read(&mut recv, max).await?))
        };
        let within = self.config.limits.join_within + self.config.limits.dial_within;
        let answered = timeout(within, asked).await;
        let broke = connection.close_reason();
        connection.close(VarInt::from_u32(Code::Done as u32), b"thank you");
        match (answered, broke) {
            (Ok(Some((ANSWERED, answer))), _) => Ok(answer),
            (Ok(Some((_, why))), _) => Err(JoinError::Refused { node, said: printable(&why) }),
            (Ok(None), Some(reason)) => Err(no_answer(crate::link::lost(node, &reason).to_string())),
            (Ok(None), None) => Err(no_answer("its answer is none".to_owned())),
            (Err(_), _) => Err(no_answer(format!("nothing came within {within:?}"))),
        }
    }
}

async fn write(send: &mut SendStream, bytes: &[u8]) -> Option<()> {
    let length = u32::try_from(bytes.len()).ok()?.to_be_bytes();
    send.write_all(&length).await.ok()?;
    send.write_all(bytes).await.ok()?;
    send.finish().ok()
}

async fn read(recv: &mut RecvStream, max: usize) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    recv.read_exact(&mut length).await.ok()?;
    let length = u32::from_be_bytes(length) as usize;
    if length > max {
        return None;
    }
    let mut bytes = vec![0; length];
    recv.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}
