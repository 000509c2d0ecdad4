//! The other end of a connection: who it proved to be, how far it is, and whether it still reads.

use crate::authenticate::{certificate_end, certificate_user};
use base::Wall;
use objects::request::User;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Beyond this round trip, bytes saved are worth the time it takes to save them.
const NEAR: Duration = Duration::from_millis(2);

/// What is known of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The address it dialled, as this machine sees it.
    pub(crate) local: Option<SocketAddr>,
    /// The user of its certificate, which TLS has verified.
    pub(crate) user: Option<Arc<User>>,
    /// The end of the certificate that names the user: TLS looked at it once, at the beginning.
    pub(crate) until: Option<Wall>,
    /// Whether it is near enough that compression costs more than it saves.
    pub(crate) near: bool,
    /// Set once the connection carries a stream whose reader may well pause (exec, a followed log): its
    /// bytes are not kept here, so it may take as long as it likes.
    pub(crate) patient: Arc<AtomicBool>,
}

impl Peer {
    /// `handshake` is the time from accepting the connection to the end of the TLS handshake: a client
    /// answers once in it, so it bounds the round trip from above.
    pub(crate) fn new(
        remote: SocketAddr,
        local: Option<SocketAddr>,
        tls: &rustls::ServerConnection,
        handshake: Duration,
    ) -> Peer {
        let certificate = tls.peer_certificates().and_then(<[_]>::first);
        let user = certificate.and_then(|c| certificate_user(c)).map(Arc::new);
        let until = certificate.filter(|_| user.is_some()).and_then(|c| certificate_end(c));
        let same_machine = remote.ip().to_canonical().is_loopback() || local.is_some_and(|l| l.ip() == remote.ip());
        // Half of a handshake is spent computing signatures, at both ends: a few milliseconds at most.
        let near = same_machine || handshake < NEAR.saturating_add(Duration::from_millis(4));
        Peer { local, user, until, near, patient: Arc::default() }
    }
}

/// A stream that fails when its client leaves bytes unread for longer than a limit: an answer's buffers
/// are not kept for a client that has stopped.
pub(crate) struct WriteDeadline<S> {
    inner: S,
    limit: Duration,
    patient: Arc<AtomicBool>,
    /// Set while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteDeadline<S> {
    pub(crate) fn new(inner: S, limit: Duration, patient: Arc<AtomicBool>) -> WriteDeadline<S> {
        WriteDeadline { inner, limit, patient, waiting: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() || self.patient.load(Ordering::Relaxed) {
            self.waiting = None;
            return result;
        }
        let limit = self.limit;
        let sleep = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read what it asked for")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, result)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_reading_is_cut_and_one_that_reads_is_not() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut near = WriteDeadline::new(near, Duration::from_secs(5), Arc::default());
        near.write_all(b"12345678").await.unwrap();
        let reader = tokio::spawn(async move {
            let mut buf = [0; 8];
            far.read_exact(&mut buf).await.unwrap();
            far
        });
        near.write_all(b"abcdefgh").await.unwrap();
        let _far = reader.await.unwrap();
        let e = near.write_all(b"more").await.unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
    }
}
