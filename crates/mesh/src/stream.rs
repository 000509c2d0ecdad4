//! Streams: a pair of byte streams to a peer, each with QUIC's own back-pressure.
//!
//! Every stream of a link but the control stream begins with a header that says what it is:
//!
//! ```text
//! kind (1): 1 messages, 2 a stream;  name length (1), name;  major (2, big-endian)
//! ```

use crate::link::Link;
use crate::peers::Inner;
use crate::{OpenError, Peer, Protocol};
use iroh::endpoint::{RecvStream, SendStream, VarInt};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, timeout};

/// What a stream of a link is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Messages = 1,
    Stream = 2,
}

/// The code of a stream that was turned away or given up. Kept for ever.
const REFUSED: u32 = 1;
const GIVEN_UP: u32 = 2;

pub(crate) fn header(kind: Kind, protocol: Protocol) -> Vec<u8> {
    let name = protocol.name.as_bytes();
    // A name has at most 32 bytes (`Config::names`).
    [&[kind as u8, name.len() as u8], name, &protocol.major.to_be_bytes()].concat()
}

pub(crate) async fn read_header(recv: &mut RecvStream) -> Result<(Kind, String, u16), &'static str> {
    let cut = |_| "a stream ended before it said what it is";
    let mut head = [0; 2];
    recv.read_exact(&mut head).await.map_err(cut)?;
    let kind = match head[0] {
        1 => Kind::Messages,
        2 => Kind::Stream,
        _ => return Err("a stream is of no kind that is known"),
    };
    let length = usize::from(head[1]);
    if !(1..=crate::config::MAX_NAME).contains(&length) {
        return Err("a stream names no protocol");
    }
    let mut rest = vec![0; length + 2];
    recv.read_exact(&mut rest).await.map_err(cut)?;
    let (name, major) = rest.split_at(length);
    let name = std::str::from_utf8(name).map_err(|_| "a stream names no protocol")?;
    let major = <[u8; 2]>::try_from(major).map(u16::from_be_bytes).unwrap_or_default();
    Ok((kind, name.to_owned(), major))
}

/// Counts a stream of a link; the link is in use as long as one is there.
struct Open {
    streams: Arc<AtomicUsize>,
    link: Arc<Link>,
}

impl Open {
    fn new(link: &Arc<Link>) -> Arc<Open> {
        link.streams.fetch_add(1, Ordering::Relaxed);
        Arc::new(Open { streams: link.streams.clone(), link: link.clone() })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
        self.link.used.again();
    }
}

/// Both directions of a stream, and whose it is.
#[derive(Debug)]
pub struct Streams {
    /// Who is there, as proven when the stream began.
    pub peer: Arc<Peer>,
    /// What is spoken.
    pub protocol: Protocol,
    /// To the peer.
    pub send: StreamSender,
    /// From the peer.
    pub receive: StreamReceiver,
}

impl Streams {
    fn new(link: &Arc<Link>, protocol: Protocol, send: SendStream, recv: RecvStream, idle: Duration) -> Streams {
        let open = Open::new(link);
        Streams {
            peer: link.peer(),
            protocol,
            send: StreamSender { inner: send, idle: Idle::new(idle), open: open.clone(), finished: false },
            receive: StreamReceiver { inner: recv, idle: Idle::new(idle), _open: open },
        }
    }
}

/// The direction to the peer. Dropped without [`AsyncWrite::poll_shutdown`] it is reset, so that the
/// peer does not take what was cut off for a whole.
pub struct StreamSender {
    inner: SendStream,
    idle: Idle,
    open: Arc<Open>,
    finished: bool,
}

/// The direction from the peer. Dropped before its end, it tells the peer to stop.
pub struct StreamReceiver {
    inner: RecvStream,
    idle: Idle,
    _open: Arc<Open>,
}

impl fmt::Debug for StreamSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream to {:?}", self.open.link.node)
    }
}

impl fmt::Debug for StreamReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream from {:?}", self._open.link.node)
    }
}

/// Ends what nothing moves on: a wait that began and came to nothing for so long.
struct Idle {
    after: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(after: Duration) -> Idle {
        Idle { after, timer: None }
    }

    /// Passes a finished poll on, and turns one that waits into an error when it has waited too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.timer = None;
            return polled;
        }
        let after = self.after;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + after)));
        match timer.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let why = format!("nothing moved on the stream for {after:?}: it was given up");
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
            }
        }
    }
}

impl AsyncRead for StreamReceiver {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = AsyncRead::poll_read(Pin::new(&mut this.inner), cx, buf);
        let polled = this.idle.watch(cx, polled);
        if let Poll::Ready(Err(e)) = &polled
            && e.kind() == io::ErrorKind::TimedOut
        {
            // An error means that it has ended by itself meanwhile.
            let _ = this.inner.stop(VarInt::from_u32(GIVEN_UP));
        }
        polled
    }
}

impl StreamSender {
    fn watched<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let polled = self.idle.watch(cx, polled);
        if let Poll::Ready(Err(e)) = &polled
            && e.kind() == io::ErrorKind::TimedOut
        {
            let _ = self.inner.reset(VarInt::from_u32(GIVEN_UP));
        }
        polled
    }
}

impl StreamSender {
    /// Resolves once the peer takes no more of this direction: it has dropped its [`StreamReceiver`], or the link is
    /// gone. Also while a write waits, or nothing is written at all.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.inner.stopped();
        async move {
            // How it came about is for whoever reads or writes to say.
            let _ = stopped.await;
        }
    }
}

impl AsyncWrite for StreamSender {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = AsyncWrite::poll_write(Pin::new(&mut this.inner), cx, buf);
        this.watched(cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        AsyncWrite::poll_flush(Pin::new(&mut this.inner), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = AsyncWrite::poll_shutdown(Pin::new(&mut this.inner), cx);
        this.finished |= matches!(polled, Poll::Ready(Ok(())));
        polled
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        // What was finished may still be on its way, and a reset would take it back.
        if self.finished {
            return;
        }
        // Fails if the peer stopped it, or the link is gone.
        let _ = self.inner.reset(VarInt::from_u32(GIVEN_UP));
    }
}

/// Opens a stream on a link. It waits while the peer has as many of ours open as it allows.
pub(crate) async fn open(inner: &Inner, link: &Arc<Link>, protocol: Protocol) -> Result<Streams, OpenError> {
    let node = link.node;
    let place = inner.names.iter().position(|n| *n == protocol.name);
    if place.and_then(|p| link.majors.get(p)) != Some(&Some(protocol.major)) {
        return Err(OpenError::NotSpoken { protocol, node });
    }
    let no_link = |error: iroh::endpoint::ConnectionError| OpenError::NoLink { protocol, why: link.ended(&error) };
    let (mut send, recv) = link.connection.open_bi().await.map_err(no_link)?;
    if send.write_all(&header(Kind::Stream, protocol)).await.is_err() {
        return Err(no_link(link.connection.closed().await));
    }
    link.used.again();
    inner.counting.streams_opened.one();
    Ok(Streams::new(link, protocol, send, recv, inner.config.limits.stream_idle))
}

/// Takes a link's streams until it ends. How many there are at once is QUIC's to bound.
pub(crate) async fn accept(inner: Arc<Inner>, link: Arc<Link>) {
    while let Ok((mut send, mut recv)) = link.connection.accept_bi().await {
        let (inner, link) = (inner.clone(), link.clone());
        tokio::spawn(async move {
            let read = timeout(inner.config.limits.hello_within, read_header(&mut recv)).await;
            let spoken = read.ok().and_then(Result::ok).and_then(|(kind, name, major)| {
                let place = inner.names.iter().position(|n| *n == name)?;
                let agreed = kind == Kind::Stream && link.majors.get(place) == Some(&Some(major));
                agreed.then(|| Protocol::new(inner.names[place], major))
            });
            let Some(protocol) = spoken else {
                inner.counting.streams_refused.one();
                let _ = send.reset(VarInt::from_u32(REFUSED));
                let _ = recv.stop(VarInt::from_u32(REFUSED));
                return;
            };
            link.used.again();
            inner.counting.streams_accepted.one();
            let streams = Streams::new(&link, protocol, send, recv, inner.config.limits.stream_idle);
            inner.handler.stream(streams);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streams_first_bytes_are_kept_for_ever() {
        assert_eq!(header(Kind::Messages, Protocol::new("cell", 0x0102)), b"\x01\x04cell\x01\x02");
        assert_eq!(header(Kind::Stream, Protocol::new("pair", 1)), b"\x02\x04pair\x00\x01");
    }
}
