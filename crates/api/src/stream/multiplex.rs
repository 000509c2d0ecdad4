//! A SPDY session on a real connection: one task moves the bytes, streams are read and written like any
//! other.

use super::spdy::{Bounds, Headers, Role, Session, StreamId, StreamRead};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A peer silent for so long is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(30);
/// A peer that has said nothing at all for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(90);

/// How long a peer may take to see that the connection is closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// A connection. Streams live on when it is dropped; the last of them ends the connection.
pub struct Connection {
    shared: Arc<Shared>,
}

/// One stream of a connection. Dropping it lets go of it: the peer hears that it is over.
pub struct Stream {
    shared: Arc<Shared>,
    id: StreamId,
    headers: Headers,
}

struct Shared(Mutex<Inner>);

struct Inner {
    session: Session,
    driver: Option<Waker>,
    acceptor: Option<Waker>,
    readers: BTreeMap<StreamId, Waker>,
    writers: BTreeMap<StreamId, Waker>,
    /// Connections and streams in use.
    handles: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while holding it but a broken invariant, and then the bytes are still there.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn wake_driver(&mut self) {
        if let Some(w) = self.driver.take() {
            w.wake();
        }
    }

    fn wake_writers(&mut self) {
        for (_, w) in std::mem::take(&mut self.writers) {
            w.wake();
        }
    }

    fn wake_all(&mut self) {
        self.wake_writers();
        for (_, w) in std::mem::take(&mut self.readers) {
            w.wake();
        }
        if let Some(w) = self.acceptor.take() {
            w.wake();
        }
    }
}

impl Connection {
    /// Begins a connection over `io`, and spawns the task that moves its bytes.
    pub fn start(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, role: Role, bounds: Bounds) -> Connection {
        let inner = Inner {
            session: Session::new(role, bounds),
            driver: None,
            acceptor: None,
            readers: BTreeMap::new(),
            writers: BTreeMap::new(),
            handles: 1,
        };
        let shared = Arc::new(Shared(Mutex::new(inner)));
        let now = Instant::now();
        tokio::spawn(Driver {
            io,
            shared: shared.clone(),
            heard: now,
            pinged: 0,
            timer: Box::pin(tokio::time::sleep_until(now + PING_AFTER)),
            deaf: false,
            closing: false,
        });
        Connection { shared }
    }

    /// The next stream the peer opens, already answered; `None` once the connection is over.
    pub async fn accept(&self) -> Option<Stream> {
        std::future::poll_fn(|cx| {
            let mut inner = self.shared.lock();
            match inner.session.opened() {
                Some(id) => {
                    let headers = inner.session.headers(id).cloned().unwrap_or_default();
                    inner.session.reply(id, &Headers::new());
                    inner.handles += 1;
                    inner.wake_driver();
                    Poll::Ready(Some(Stream { shared: self.shared.clone(), id, headers }))
                }
                None if inner.session.is_over() => Poll::Ready(None),
                None => {
                    inner.acceptor = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// `NotConnected` if the connection is over or ending.
    pub fn open(&self, headers: Headers) -> io::Result<Stream> {
        let mut inner = self.shared.lock();
        let id = inner
            .session
            .open(headers.clone(), false)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the SPDY connection takes no new streams"))?;
        inner.handles += 1;
        inner.wake_driver();
        Ok(Stream { shared: self.shared.clone(), id, headers })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.handles -= 1;
        inner.wake_driver();
    }
}

impl Stream {
    /// The first header of a name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.session.release(self.id);
        inner.readers.remove(&self.id);
        inner.writers.remove(&self.id);
        inner.handles -= 1;
        inner.wake_driver();
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.shared.lock();
        let waited = !inner.session.wants_input();
        match inner.session.read(self.id, buf.initialize_unfilled()) {
            StreamRead::Data(n) => {
                buf.advance(n);
                // Windows may have been granted, or the wire may be read again.
                if waited || !inner.session.output().is_empty() {
                    inner.wake_driver();
                }
                Poll::Ready(Ok(()))
            }
            StreamRead::End => Poll::Ready(Ok(())),
            StreamRead::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            StreamRead::Pending => {
                inner.readers.insert(self.id, cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut inner = self.shared.lock();
        match inner.session.write(self.id, bytes) {
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Some(0) => {
                inner.writers.insert(self.id, cx.waker().clone());
                Poll::Pending
            }
            Some(n) => {
                inner.wake_driver();
                Poll::Ready(Ok(n))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was taken is written as soon as the wire takes it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.shared.lock();
        inner.session.finish(self.id);
        inner.wake_driver();
        Poll::Ready(Ok(()))
    }
}

/// The task that moves a connection's bytes. It ends when the wire does, or when nobody holds the
/// connection or a stream of it any more and all is written.
struct Driver<T> {
    io: T,
    shared: Arc<Shared>,
    heard: Instant,
    pinged: u32,
    timer: Pin<Box<Sleep>>,
    /// The peer takes nothing more. What it said before is still to be read.
    deaf: bool,
    /// The wire is being closed; the timer says until when.
    closing: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.closing {
            let mut inner = this.shared.lock();
            inner.driver = Some(cx.waker().clone());
            if drive(&mut this.io, &mut inner, &mut this.heard, &mut this.deaf, cx).is_err() {
                inner.session.end();
            }
            while this.timer.as_mut().poll(cx).is_ready() {
                let now = Instant::now();
                if now.duration_since(this.heard) >= GONE_AFTER {
                    inner.session.end();
                } else if now.duration_since(this.heard) >= PING_AFTER {
                    this.pinged = this.pinged.wrapping_add(1);
                    inner.session.ping(this.pinged & 0x3fff_ffff);
                    cx.waker().wake_by_ref();
                }
                this.timer.as_mut().reset(now + PING_AFTER);
            }
            if inner.handles == 0 && inner.session.output().is_empty() {
                inner.session.end();
            }
            if !inner.session.is_over() {
                return Poll::Pending;
            }
            inner.wake_all();
            this.closing = true;
            this.timer.as_mut().reset(Instant::now() + CLOSE_WITHIN);
        }
        if this.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        Pin::new(&mut this.io).poll_shutdown(cx).map(|_| ())
    }
}

fn drive<T: AsyncRead + AsyncWrite + Unpin>(
    io: &mut T,
    inner: &mut Inner,
    heard: &mut Instant,
    deaf: &mut bool,
    cx: &mut Context<'_>,
) -> io::Result<()> {
    // A bound on how much one turn moves, so that other connections of this thread get theirs.
    for _ in 0..32 {
        let mut moved = false;
        while !inner.session.output().is_empty() {
            if *deaf {
                inner.session.output().clear();
                inner.wake_writers();
                break;
            }
            match Pin::new(&mut *io).poll_write(cx, inner.session.output()) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) if n > 0 => drop(inner.session.output().drain(..n)),
                // A peer that hangs up has had its last word before, and how a process ended may be in it.
                Poll::Ready(_) => *deaf = true,
            }
            inner.wake_writers();
            moved = true;
        }
        if inner.session.output().is_empty() && !*deaf {
            let _ = Pin::new(&mut *io).poll_flush(cx)?;
        }
        if inner.session.wants_input() {
            let mut space = [0; 16 << 10];
            let mut buf = ReadBuf::new(&mut space);
            if Pin::new(&mut *io).poll_read(cx, &mut buf)?.is_ready() {
                if buf.filled().is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *heard = Instant::now();
                // A violation's GOAWAY is in the output; what is broken is told to the streams.
                let taken = inner.session.receive(buf.filled());
                if let Err(violation) = taken {
                    tracing::debug!(%violation, "a SPDY peer does not keep to the protocol");
                    let _ = Pin::new(&mut *io).poll_write(cx, inner.session.output())?;
                    return Err(io::ErrorKind::InvalidData.into());
                }
                inner.wake_all();
                moved = true;
            }
        }
        if !moved {
            return Ok(());
        }
    }
    cx.waker().wake_by_ref();
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair(size: usize) -> (Connection, Connection) {
        let (a, b) = tokio::io::duplex(size);
        (Connection::start(a, Role::Client, Bounds::default()), Connection::start(b, Role::Server, Bounds::default()))
    }

    #[tokio::test]
    async fn a_megabyte_goes_both_ways_at_once_through_a_narrow_wire() {
        let (client, server) = pair(1000);
        let echo = tokio::spawn(async move {
            let stream = server.accept().await.unwrap();
            assert_eq!(stream.header("port"), Some("80"));
            let (mut r, mut w) = tokio::io::split(stream);
            tokio::io::copy(&mut r, &mut w).await.unwrap();
            w.shutdown().await.unwrap();
            assert!(server.accept().await.is_none());
        });
        let stream = client.open(vec![("port".into(), "80".into())]).unwrap();
        let (mut r, mut w) = tokio::io::split(stream);
        let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let sent = data.clone();
        let writer = tokio::spawn(async move {
            w.write_all(&sent).await.unwrap();
            w.shutdown().await.unwrap();
            w
        });
        let mut back = Vec::new();
        r.read_to_end(&mut back).await.unwrap();
        assert!(back == data);
        drop((writer.await.unwrap(), r, client));
        echo.await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_stops_holds_its_writer_and_not_the_memory() {
        let (client, server) = pair(64 << 10);
        let mut stream = client.open(vec![]).unwrap();
        let held = server.accept().await.unwrap();
        let mut written = 0;
        while let Ok(n) = tokio::time::timeout(Duration::from_millis(50), stream.write(&[0; 10_000])).await {
            written += n.unwrap();
            assert!(written < 2 << 20, "nothing holds the writer");
        }
        drop(held);
        assert!(stream.read(&mut [0; 1]).await.is_err());
    }

    #[tokio::test]
    async fn a_wire_that_breaks_is_told_to_every_stream() {
        let (a, mut b) = tokio::io::duplex(1000);
        let client = Connection::start(a, Role::Client, Bounds::default());
        let mut stream = client.open(vec![]).unwrap();
        b.write_all(&[0x80, 99, 0, 0, 0, 0, 0, 0]).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(client.open(vec![]).is_err() && client.accept().await.is_none());
    }

    /// A wire whose other side has said something and hung up: it takes nothing, and what it said is there.
    struct HungUp(Vec<u8>);

    impl AsyncRead for HungUp {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if self.0.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let n = self.0.len().min(buf.remaining());
            buf.put_slice(&self.0.drain(..n).collect::<Vec<u8>>());
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for HungUp {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn the_last_words_of_a_peer_that_hung_up_are_read() {
        let mut peer = Session::new(Role::Server, Bounds::default());
        let mut words = Session::new(Role::Client, Bounds::default());
        let id = words.open(vec![], false).unwrap();
        peer.receive(&std::mem::take(words.output())).unwrap();
        peer.reply(id, &vec![]);
        peer.write(id, b"exit 3").unwrap();
        peer.finish(id);
        let client = Connection::start(HungUp(std::mem::take(peer.output())), Role::Client, Bounds::default());
        let mut stream = client.open(vec![]).unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "exit 3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_speaks_again_is_given_up() {
        let (a, _b) = tokio::io::duplex(1000);
        let client = Connection::start(a, Role::Client, Bounds::default());
        assert!(client.accept().await.is_none());
    }
}
