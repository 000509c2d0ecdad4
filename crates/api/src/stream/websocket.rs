//! Channels over a WebSocket: a byte before every message says which.
//!
//! Protocols: the bare one and `channel.k8s.io` (binary), `base64.channel.k8s.io` (a digit and base64 in
//! text), their v4 forms (the error channel carries a Status), and v5 (channel 255 closes another).

use super::remote::ClientEnds;
use crate::port::Remote;
use base64::Engine as _;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// A channel protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Protocol {
    /// As in `Sec-WebSocket-Protocol`; empty for the bare one.
    pub(crate) name: &'static str,
    /// Messages are texts: a digit, then base64.
    pub(crate) base64: bool,
    /// Which version of the channel protocol; the old ones are 1.
    pub(crate) version: u8,
}

const fn protocol(name: &'static str, base64: bool, version: u8) -> Protocol {
    Protocol { name, base64, version }
}

/// For exec and attach.
pub(crate) const REMOTE: [Protocol; 6] = [
    protocol("v5.channel.k8s.io", false, 5),
    protocol("v4.channel.k8s.io", false, 4),
    protocol("v4.base64.channel.k8s.io", true, 4),
    protocol("channel.k8s.io", false, 1),
    protocol("base64.channel.k8s.io", true, 1),
    protocol("", false, 1),
];
/// For port-forward.
pub(crate) const FORWARD: [Protocol; 3] =
    [protocol("v4.channel.k8s.io", false, 4), protocol("v4.base64.channel.k8s.io", true, 4), protocol("", false, 4)];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: closes the channel whose number is its payload.
const CLOSE: u8 = 255;

/// Bytes between a channel and the socket.
const PIPE_BYTES: usize = 64 << 10;
/// Bytes of one message to a client.
const MESSAGE_BYTES: usize = 16 << 10;

/// The client's ends over a WebSocket. Two tasks move the messages until either side is done.
pub(crate) fn ends<T>(socket: WebSocketStream<T>, ask: &Remote, protocol: Protocol) -> ClientEnds
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sink, stream) = socket.split();
    let channels = Channels::start(sink, protocol);
    let mut incoming = Vec::new();
    let mut reader = |number, wanted: bool| {
        wanted.then(|| {
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            incoming.push((number, far));
            Box::new(near) as Box<dyn AsyncRead + Send + Unpin>
        })
    };
    let stdin = reader(STDIN, ask.stdin);
    let resize = reader(RESIZE, ask.tty);
    let writer =
        |number, wanted: bool| wanted.then(|| Box::new(channels.writer(number)) as Box<dyn AsyncWrite + Send + Unpin>);
    let stdout = writer(STDOUT, ask.stdout);
    let stderr = writer(STDERR, ask.stderr && !ask.tty);
    // An empty message on the lowest channel tells the client that all is open.
    channels.hello(match (ask.stdout, ask.stderr && !ask.tty) {
        (true, _) => STDOUT,
        (false, true) => STDERR,
        _ => ERROR,
    });
    let error = Box::new(channels.writer(ERROR));
    let receiving = tokio::spawn(receive(stream, incoming, protocol));
    let gone = Box::pin(async move { drop(receiving.await) });
    ClientEnds { stdin, stdout, stderr, error, resize, version: protocol.version, gone }
}

/// The channels of forwarded ports: for the n-th port, its data both ways and its errors.
pub(crate) fn ports<T>(socket: WebSocketStream<T>, ports: &[u16], protocol: Protocol) -> Vec<PortEnds>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sink, stream) = socket.split();
    let channels = Channels::start(sink, protocol);
    let mut incoming = Vec::new();
    let mut out = Vec::new();
    for (n, port) in (0u8..).step_by(2).zip(ports) {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        incoming.push((n, far));
        // Both channels begin with the port they are for.
        for channel in [n, n.saturating_add(1)] {
            channels.first(channel, &port.to_le_bytes());
        }
        out.push(PortEnds {
            port: *port,
            from_client: near,
            to_client: channels.writer(n),
            errors: channels.writer(n.saturating_add(1)),
        });
    }
    tokio::spawn(receive(stream, incoming, protocol));
    out
}

/// See [`ports`].
pub(crate) struct PortEnds {
    pub(crate) port: u16,
    pub(crate) from_client: DuplexStream,
    pub(crate) to_client: DuplexStream,
    pub(crate) errors: DuplexStream,
}

/// The outgoing side: every channel has a pipe, one task sends what comes out of them.
struct Channels {
    messages: mpsc::Sender<Message>,
    protocol: Protocol,
}

impl Channels {
    fn start<S>(mut sink: SplitSink<WebSocketStream<S>, Message>, protocol: Protocol) -> Channels
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (messages, mut queue) = mpsc::channel(256);
        tokio::spawn(async move {
            while let Some(message) = queue.recv().await {
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            // Every channel is done: an orderly end.
            let _ = sink.send(Message::Close(Some(normal()))).await;
            let _ = sink.close().await;
        });
        Channels { messages, protocol }
    }

    /// Queues a message before any other; there is room for the first of every channel.
    fn first(&self, channel: u8, data: &[u8]) {
        let _ = self.messages.try_send(encode(self.protocol, channel, data));
    }

    fn hello(&self, channel: u8) {
        self.first(channel, &[]);
    }

    fn writer(&self, channel: u8) -> DuplexStream {
        let (near, mut far) = tokio::io::duplex(PIPE_BYTES);
        let (messages, protocol) = (self.messages.clone(), self.protocol);
        tokio::spawn(async move {
            let mut buf = vec![0; MESSAGE_BYTES];
            while let Ok(n @ 1..) = far.read(&mut buf).await {
                let message = encode(protocol, channel, buf.get(..n).unwrap_or_default());
                if messages.send(message).await.is_err() {
                    return;
                }
            }
        });
        near
    }
}

/// The close that says that all is well. Without a code, client-go takes the end for a failure.
pub(crate) fn normal() -> CloseFrame {
    CloseFrame { code: CloseCode::Normal, reason: "".into() }
}

/// Hands on what the client sends, until it closes. A channel whose reader is gone is passed over.
async fn receive<S>(
    mut stream: SplitStream<WebSocketStream<S>>,
    mut channels: Vec<(u8, DuplexStream)>,
    protocol: Protocol,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = stream.next().await {
        let Some((channel, data)) = decode(protocol, message) else { continue };
        if protocol.version >= 5 && channel == CLOSE {
            let closed = data.first().copied();
            // Dropping the pipe is the end of what its reader reads.
            channels.retain(|(number, _)| Some(*number) != closed);
        } else if let Some((_, pipe)) = channels.iter_mut().find(|(number, _)| *number == channel) {
            let _ = pipe.write_all(&data).await;
        }
    }
}

fn encode(protocol: Protocol, channel: u8, data: &[u8]) -> Message {
    if protocol.base64 {
        let mut text = channel.to_string();
        base64::engine::general_purpose::STANDARD.encode_string(data, &mut text);
        return Message::Text(text.into());
    }
    let mut bytes = Vec::with_capacity(data.len() + 1);
    bytes.push(channel);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.into())
}

fn decode(protocol: Protocol, message: Message) -> Option<(u8, Bytes)> {
    let bytes: Bytes = match message {
        Message::Binary(b) => b,
        Message::Text(t) => t.into(),
        _ => return None,
    };
    let channel = *bytes.first()?;
    let data = bytes.slice(1..);
    if !protocol.base64 {
        return Some((channel, data));
    }
    let channel = char::from(channel).to_digit(10).and_then(|d| u8::try_from(d).ok())?;
    let data = base64::engine::general_purpose::STANDARD.decode(data.trim_ascii()).ok()?;
    Some((channel, data.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_message_is_a_channel_and_bytes_in_either_alphabet() {
        for p in REMOTE {
            let m = encode(p, 1, b"hi\xff");
            assert_eq!(matches!(m, Message::Text(_)), p.base64, "{p:?}");
            assert_eq!(decode(p, m), Some((1, Bytes::from_static(b"hi\xff"))), "{p:?}");
        }
        let b64 = protocol("v4.base64.channel.k8s.io", true, 4);
        assert_eq!(encode(b64, 3, b"a"), Message::Text("3YQ==".into()));
        assert_eq!(decode(b64, Message::Text("0!!".into())), None);
        assert_eq!(decode(REMOTE[0], Message::Binary(Bytes::new())), None);
    }
}
