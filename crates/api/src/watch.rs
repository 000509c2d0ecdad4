//! A watch as an HTTP body: one frame an event, until the time is up, the events end, the server stops, or its
//! user may not have it any more.

use crate::port::{Event, Watch};
use crate::respond::Body;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Frame;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// Writes one event as a frame.
pub(crate) trait Frames: Send + Unpin + 'static {
    /// Appends the event's frame to `out`.
    fn frame(&mut self, event: &Event, out: &mut Vec<u8>);
    /// Appends the frame of the bookmark that ends the state sent first.
    fn initial_end(&mut self, revision: base::Revision, out: &mut Vec<u8>);
}

/// Pieces in which many frames are written together.
const PIECE_BYTES: usize = 32 << 10;

/// The body of a watch. It ends after `timeout`, or when `closed` resolves. `_held` is given back when
/// the body is dropped.
pub(crate) fn body<T: Send + Unpin + 'static>(
    watch: Watch,
    frames: impl Frames,
    timeout: Duration,
    closed: impl Future<Output = ()> + Send + 'static,
    held: T,
) -> Body {
    UnsyncBoxBody::new(Stream {
        watch,
        frames,
        timeout: Box::pin(tokio::time::sleep(timeout)),
        closed: Box::pin(closed),
        ended: false,
        _held: held,
    })
}

struct Stream<F, T> {
    watch: Watch,
    frames: F,
    timeout: Pin<Box<Sleep>>,
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    _held: T,
}

impl<F: Frames, T: Unpin> hyper::body::Body for Stream<F, T> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.ended || this.timeout.as_mut().poll(cx).is_ready() || this.closed.as_mut().poll(cx).is_ready() {
            this.ended = true;
            return Poll::Ready(None);
        }
        let mut out = Vec::new();
        while let Some(initial) = &mut this.watch.initial {
            match initial.next() {
                Some(object) => this.frames.frame(&Event::Added(object), &mut out),
                None => {
                    this.watch.initial = None;
                    if let Some(revision) = this.watch.initial_end.take() {
                        this.frames.initial_end(revision, &mut out);
                    }
                }
            }
            if out.len() >= PIECE_BYTES {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
        // What is there already goes out together; nothing waits for more.
        while out.len() < PIECE_BYTES {
            match this.watch.events.poll_recv(cx) {
                Poll::Ready(Some(event)) => {
                    this.frames.frame(&event, &mut out);
                    if matches!(event, Event::Error(_)) {
                        this.ended = true;
                        break;
                    }
                }
                Poll::Ready(None) => {
                    this.ended = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        match (out.is_empty(), this.ended) {
            (false, _) => Poll::Ready(Some(Ok(Frame::data(out.into())))),
            (true, true) => Poll::Ready(None),
            (true, false) => Poll::Pending,
        }
    }
}
