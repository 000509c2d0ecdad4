//! How frames are read, and how channels become frames: the same at both ends.

use bytes::Bytes;
use node::wire::frame::{Assembler, prefix};
use node::wire::pod::{Channel, DATA_BYTES_MAX, Frame};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Where nothing is said for so long, that is said: the transport gives up a stream on which nothing moves, and a shell
/// may be left alone over night.
pub(super) const BEAT: Duration = Duration::from_secs(60);

/// How long what a client said last may take to reach the pod, once the client is gone: as long as at the gateway.
pub(super) const LAST_WORDS_WITHIN: Duration = Duration::from_secs(10);

/// How many frames of a direction wait to be written, of [`DATA_BYTES_MAX`] each.
pub(super) const QUEUE: usize = 4;

/// Bytes read at a time.
const READ_BYTES: usize = 32 << 10;

/// The frames of a stream, one after the other.
pub(super) struct Frames<R> {
    from: R,
    assembler: Assembler,
    ready: VecDeque<Bytes>,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Of at most `bytes_max` each.
    pub(super) fn new(from: R, bytes_max: usize) -> Frames<R> {
        Frames { from, assembler: Assembler::new(bytes_max), ready: VecDeque::new(), buffer: vec![0; READ_BYTES] }
    }

    /// The next one; `None` at the end. Nothing is lost when a wait for one is given up.
    ///
    /// # Errors
    /// The stream broke, ended within a frame, or holds one that is too long.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            let n = self.from.read(&mut self.buffer).await?;
            if n == 0 {
                self.assembler.finish().map_err(|e| io::Error::new(io::ErrorKind::UnexpectedEof, e))?;
                return Ok(None);
            }
            let mut frames = Vec::new();
            self.assembler.push(self.buffer.get(..n).unwrap_or_default(), &mut frames).map_err(malformed)?;
            self.ready.extend(frames);
        }
    }

    /// The next one, read.
    ///
    /// # Errors
    /// As [`Frames::next`], or it is no frame.
    pub(super) async fn frame(&mut self) -> io::Result<Option<Frame>> {
        match self.next().await? {
            Some(bytes) => Frame::decode(&bytes).map(Some).map_err(malformed),
            None => Ok(None),
        }
    }
}

/// What cannot be read.
pub(super) fn malformed(why: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// A frame that only the other side ever sends.
pub(super) fn astray() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame came that is sent in the other direction only")
}

/// Writes a frame.
pub(super) async fn say(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    to.write_all(&prefix(frame.len()).map_err(malformed)?).await?;
    to.write_all(frame).await?;
    to.flush().await
}

/// Writes what comes until nobody sends any more, then ends the direction.
///
/// # Errors
/// The other side takes nothing more.
pub(super) async fn speak(mut frames: mpsc::Receiver<Bytes>, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        match timeout(BEAT, frames.recv()).await {
            Ok(Some(frame)) => say(&mut to, &frame).await?,
            Ok(None) => return to.shutdown().await,
            Err(_) => say(&mut to, &Frame::Beat.encode()).await?,
        }
    }
}

/// Hands a frame to [`speak`]; waits while many wait.
///
/// # Errors
/// Nobody speaks any more.
pub(super) async fn tell(to: &mpsc::Sender<Bytes>, frame: Frame) -> io::Result<()> {
    to.send(frame.encode()).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// Tells the bytes of a channel, and its end; a channel that breaks has ended. One that is not there has neither.
///
/// # Errors
/// As [`tell`].
pub(super) async fn tell_all(
    from: Option<impl AsyncRead + Unpin>,
    channel: Channel,
    to: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; DATA_BYTES_MAX];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let bytes = Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default());
        tell(to, Frame::Data { channel, bytes }).await?;
    }
    tell(to, Frame::End { channel }).await
}

/// A connection, and what goes when it does.
pub(super) struct Held<T, G>(pub(super) T, pub(super) G);

impl<T: AsyncRead + Unpin, G: Unpin> AsyncRead for Held<T, G> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin, G: Unpin> AsyncWrite for Held<T, G> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
