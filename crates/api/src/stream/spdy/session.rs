//! One connection.

use super::frame::{self, FLAG_FIN, FLAG_UNIDIRECTIONAL, HEAD_BYTES, Head, Payload, kind};
use super::headers::{Deflater, Headers, Inflater};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};

/// Which side of a connection this is: it decides whose stream ids are odd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Opens streams with odd ids.
    Client,
    /// Opens streams with even ids.
    Server,
}

/// A stream of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u32);

/// How much a peer may make this side keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Streams open at once that the peer opened.
    pub streams: usize,
    /// Bytes of one header block, unpacked.
    pub header_bytes: usize,
    /// Bytes of one control frame.
    pub control_bytes: usize,
    /// Bytes received and not yet read, of one stream; beyond it no more input is wanted.
    pub stream_bytes: usize,
    /// Bytes written and not yet taken out, of all streams.
    pub output_bytes: usize,
    /// Whether both sides keep flow-control windows.
    pub windows: bool,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            streams: 256,
            header_bytes: 64 << 10,
            control_bytes: 64 << 10,
            stream_bytes: 256 << 10,
            output_bytes: 256 << 10,
            windows: false,
        }
    }
}

/// What a peer did that no peer may do. The connection is over; [`Session::output`] holds the GOAWAY that
/// says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation
pub enum Violation {
    #[error("a SPDY control frame of version {0}; only 3 is spoken here")]
    Version(u16),
    #[error("a SPDY control frame shorter than its kind allows")]
    ShortFrame,
    #[error("a SPDY control frame longer than allowed")]
    LongFrame,
    #[error("a SPDY header block that does not unpack")]
    HeaderBlock,
    #[error("a SPDY header block that unpacks to more than allowed")]
    HeadersTooLarge,
    #[error("a SPDY stream id that is not the peer's to open, or not above the last one")]
    StreamId,
    #[error("more SPDY bytes than the flow-control window allowed")]
    Window,
    #[error("a SPDY window beyond 2^31")]
    WindowOverflow,
    #[error("SPDY frames after the connection was over")]
    Over,
}

/// What a read of a stream finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamRead {
    /// So many bytes were copied.
    Data(usize),
    /// Nothing has come yet.
    Pending,
    /// Nothing will come any more.
    End,
    /// The peer, or the connection's end, broke the stream.
    Reset,
}

/// RST_STREAM's reasons.
mod reset {
    pub(super) const PROTOCOL_ERROR: u32 = 1;
    pub(super) const INVALID_STREAM: u32 = 2;
    pub(super) const REFUSED_STREAM: u32 = 3;
    pub(super) const CANCEL: u32 = 5;
    pub(super) const STREAM_ALREADY_CLOSED: u32 = 9;
}

/// The window both sides begin with.
const INITIAL_WINDOW: i64 = 64 << 10;
/// SETTINGS_INITIAL_WINDOW_SIZE.
const SETTING_INITIAL_WINDOW: u32 = 7;
/// At most so many bytes go into one data frame, so that streams take turns.
const DATA_BYTES: usize = 16 << 10;

#[derive(Debug, Default)]
struct Stream {
    headers: Headers,
    /// The peer has answered our SYN_STREAM, or we the peer's.
    replied: bool,
    inbound: VecDeque<Bytes>,
    inbound_bytes: usize,
    /// The peer sends nothing more.
    peer_finished: bool,
    /// We send nothing more.
    finished: bool,
    broken: bool,
    send_window: i64,
    receive_window: i64,
    /// Read, and not yet granted again.
    ungranted: u32,
}

/// One connection, as one of its two sides. See the module's words.
pub struct Session {
    role: Role,
    bounds: Bounds,
    input: BytesMut,
    /// Bytes still to come of the data frame being received: its stream and flags.
    data: Option<(u32, u8, usize)>,
    output: Vec<u8>,
    inflater: Inflater,
    deflater: Deflater,
    streams: BTreeMap<u32, Stream>,
    opened: VecDeque<StreamId>,
    next_id: u32,
    last_peer_id: u32,
    peer_initial_window: i64,
    send_window: i64,
    receive_window: i64,
    ungranted: u32,
    going_away: bool,
    over: bool,
}

impl Session {
    /// A connection that begins.
    pub fn new(role: Role, bounds: Bounds) -> Session {
        Session {
            role,
            bounds,
            input: BytesMut::new(),
            data: None,
            output: Vec::new(),
            inflater: Inflater::new(),
            deflater: Deflater::new(),
            streams: BTreeMap::new(),
            opened: VecDeque::new(),
            next_id: if role == Role::Client { 1 } else { 2 },
            last_peer_id: 0,
            peer_initial_window: INITIAL_WINDOW,
            send_window: INITIAL_WINDOW,
            receive_window: INITIAL_WINDOW,
            ungranted: 0,
            going_away: false,
            over: false,
        }
    }

    /// Takes bytes from the wire.
    ///
    /// # Errors
    /// What the peer did wrong. Streams are broken, and the connection is over once the output is sent.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        if self.over {
            return Err(Violation::Over);
        }
        self.input.extend_from_slice(bytes);
        let result = self.frames();
        if result.is_err() {
            let mut payload = [0; 8];
            payload[..4].copy_from_slice(&self.last_peer_id.to_be_bytes());
            payload[4..].copy_from_slice(&1u32.to_be_bytes());
            frame::control(&mut self.output, kind::GOAWAY, 0, &payload);
            self.end();
        }
        result
    }

    /// The wire is at its end, or broken: so is every stream that had not ended.
    pub fn end(&mut self) {
        self.over = true;
        self.input.clear();
        for s in self.streams.values_mut() {
            s.broken |= !s.peer_finished;
        }
    }

    /// Whether more bytes should be read from the wire now: not while a stream holds more than its bound
    /// unread.
    pub fn wants_input(&self) -> bool {
        !self.over && self.streams.values().all(|s| s.inbound_bytes < self.bounds.stream_bytes)
    }

    /// Bytes to be written to the wire. Whoever writes them takes them out.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Whether the connection is over.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// A stream that the peer opened and nobody has taken yet.
    pub fn opened(&mut self) -> Option<StreamId> {
        self.opened.pop_front()
    }

    /// The headers a stream was opened with.
    pub fn headers(&self, id: StreamId) -> Option<&Headers> {
        self.streams.get(&id.0).map(|s| &s.headers)
    }

    /// Opens a stream; `None` if the connection is over or has no ids left.
    pub fn open(&mut self, headers: Headers, finish: bool) -> Option<StreamId> {
        if self.over || self.going_away || self.next_id > 0x7fff_ffff {
            return None;
        }
        let id = self.next_id;
        self.next_id = self.next_id.saturating_add(2);
        let mut payload = id.to_be_bytes().to_vec();
        payload.extend_from_slice(&[0; 6]);
        payload.extend_from_slice(&self.deflater.block(&headers));
        frame::control(&mut self.output, kind::SYN_STREAM, if finish { FLAG_FIN } else { 0 }, &payload);
        let stream = Stream { headers, finished: finish, ..self.fresh() };
        self.streams.insert(id, stream);
        Some(StreamId(id))
    }

    /// Answers the peer's SYN_STREAM.
    pub fn reply(&mut self, id: StreamId, headers: &Headers) {
        let Some(s) = self.streams.get_mut(&id.0).filter(|s| !s.replied && !s.broken) else { return };
        s.replied = true;
        let mut payload = id.0.to_be_bytes().to_vec();
        payload.extend_from_slice(&self.deflater.block(headers));
        frame::control(&mut self.output, kind::SYN_REPLY, 0, &payload);
    }

    /// Whether a stream opened here has been answered.
    pub fn is_replied(&self, id: StreamId) -> bool {
        self.streams.get(&id.0).is_some_and(|s| s.replied)
    }

    /// Reads what has come of a stream.
    pub fn read(&mut self, id: StreamId, buf: &mut [u8]) -> StreamRead {
        let windows = self.bounds.windows;
        let Some(s) = self.streams.get_mut(&id.0) else { return StreamRead::Reset };
        let Some(first) = s.inbound.front_mut() else {
            return match (s.peer_finished, s.broken) {
                (true, _) => StreamRead::End,
                (false, true) => StreamRead::Reset,
                (false, false) => StreamRead::Pending,
            };
        };
        let n = first.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), first.get(..n)) {
            to.copy_from_slice(from);
        }
        first.advance(n);
        if first.is_empty() {
            s.inbound.pop_front();
        }
        s.inbound_bytes -= n;
        if windows {
            self.grant(id.0, n);
        }
        StreamRead::Data(n)
    }

    /// Writes to a stream: how many bytes were taken. 0 means that the output is full, or the peer's
    /// window; `None` that the stream is finished or broken.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> Option<usize> {
        let room = self.bounds.output_bytes.saturating_sub(self.output.len());
        let s = self.streams.get_mut(&id.0).filter(|s| !s.finished && !s.broken)?;
        if self.over {
            return None;
        }
        let window = if self.bounds.windows { s.send_window.min(self.send_window).max(0) } else { i64::MAX };
        let n = bytes.len().min(room).min(usize::try_from(window).unwrap_or(usize::MAX));
        for piece in bytes.get(..n).unwrap_or_default().chunks(DATA_BYTES) {
            frame::data(&mut self.output, id.0, 0, piece);
        }
        if self.bounds.windows {
            let n = i64::try_from(n).unwrap_or(i64::MAX);
            s.send_window -= n;
            self.send_window -= n;
        }
        Some(n)
    }

    /// Says that nothing more is written to a stream.
    pub fn finish(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id.0).filter(|s| !s.finished && !s.broken) else { return };
        s.finished = true;
        if !self.over {
            frame::data(&mut self.output, id.0, FLAG_FIN, &[]);
        }
    }

    /// Lets go of a stream. Unless both sides have finished, it is broken off.
    pub fn release(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id.0) else { return };
        let mut unread = 0;
        for piece in s.inbound.drain(..) {
            unread += piece.len();
        }
        s.inbound_bytes = 0;
        let open = !(s.broken || s.peer_finished && s.finished);
        if self.bounds.windows {
            self.grant(id.0, unread);
        }
        if open && !self.over {
            self.rst(id.0, reset::CANCEL);
        }
        self.streams.remove(&id.0);
        self.opened.retain(|o| *o != id);
    }

    /// Begins an orderly end: the peer may open no more streams.
    pub fn go_away(&mut self) {
        if self.going_away || self.over {
            return;
        }
        self.going_away = true;
        let mut payload = self.last_peer_id.to_be_bytes().to_vec();
        payload.extend_from_slice(&[0; 4]);
        frame::control(&mut self.output, kind::GOAWAY, 0, &payload);
    }

    /// Asks the peer whether it is there.
    pub fn ping(&mut self, id: u32) {
        let id = self.own_ping(id);
        if !self.over {
            frame::control(&mut self.output, kind::PING, 0, &id.to_be_bytes());
        }
    }

    /// What must hold between any two calls.
    pub fn check(&self) {
        for (id, s) in &self.streams {
            assert_eq!(s.inbound.iter().map(Bytes::len).sum::<usize>(), s.inbound_bytes, "bytes held of stream {id}");
            assert!(s.inbound.iter().all(|b| !b.is_empty()), "stream {id} holds an empty piece");
        }
        assert!(self.peers() <= self.bounds.streams, "more streams than allowed");
        assert!(self.opened.len() <= self.streams.len(), "streams opened that are not there");
    }

    /// A client's pings are odd, a server's even.
    fn own_ping(&self, id: u32) -> u32 {
        id << 1 | u32::from(self.role == Role::Client)
    }

    fn fresh(&self) -> Stream {
        Stream { send_window: self.peer_initial_window, receive_window: INITIAL_WINDOW, ..Stream::default() }
    }

    fn is_peers(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.role == Role::Server)
    }

    fn peers(&self) -> usize {
        self.streams.keys().filter(|id| self.is_peers(**id)).count()
    }

    fn frames(&mut self) -> Result<(), Violation> {
        loop {
            if let Some((stream, flags, left)) = self.data {
                let n = left.min(self.input.len());
                let piece = self.input.split_to(n).freeze();
                let done = n == left;
                self.data = if done { None } else { Some((stream, flags, left - n)) };
                self.on_data(stream, piece, done && flags & FLAG_FIN != 0)?;
                if !done {
                    return Ok(());
                }
                continue;
            }
            let Some(head) = self.input.first_chunk::<HEAD_BYTES>() else { return Ok(()) };
            match Head::decode(*head)? {
                Head::Data { stream, flags, length } => {
                    self.input.advance(HEAD_BYTES);
                    self.data = Some((stream, flags, length));
                }
                Head::Control { kind, flags, length } => {
                    if length > self.bounds.control_bytes {
                        return Err(Violation::LongFrame);
                    }
                    if self.input.len() < HEAD_BYTES + length {
                        return Ok(());
                    }
                    self.input.advance(HEAD_BYTES);
                    let payload = self.input.split_to(length).freeze();
                    self.on_control(kind, flags, &payload)?;
                }
            }
        }
    }

    fn on_data(&mut self, id: u32, piece: Bytes, finished: bool) -> Result<(), Violation> {
        let n = i64::try_from(piece.len()).unwrap_or(i64::MAX);
        if self.bounds.windows {
            self.receive_window -= n;
            if self.receive_window < 0 {
                return Err(Violation::Window);
            }
        }
        let Some(s) = self.streams.get_mut(&id) else {
            // Of a stream let go here the peer may not have heard yet; of one never opened it tells.
            let known = if self.is_peers(id) { id <= self.last_peer_id } else { id < self.next_id };
            if !known || id == 0 {
                self.rst(id, reset::INVALID_STREAM);
            }
            if self.bounds.windows {
                self.grant(id, piece.len());
            }
            return Ok(());
        };
        if s.peer_finished {
            self.rst(id, reset::STREAM_ALREADY_CLOSED);
            return Ok(());
        }
        if self.bounds.windows {
            s.receive_window -= n;
            if s.receive_window < 0 {
                return Err(Violation::Window);
            }
        }
        if !piece.is_empty() {
            s.inbound_bytes += piece.len();
            s.inbound.push_back(piece);
        }
        s.peer_finished |= finished;
        Ok(())
    }

    fn on_control(&mut self, frame_kind: u16, flags: u8, payload: &[u8]) -> Result<(), Violation> {
        let mut p = Payload(payload);
        match frame_kind {
            kind::SYN_STREAM => {
                let id = p.u31()?;
                p.skip(6)?;
                // The block is read even if the stream is refused: the next one builds on it.
                let headers = self.inflater.block(p.0, self.bounds.header_bytes)?;
                if id == 0 || !self.is_peers(id) || id <= self.last_peer_id {
                    return Err(Violation::StreamId);
                }
                self.last_peer_id = id;
                if self.going_away || self.peers() >= self.bounds.streams {
                    self.rst(id, reset::REFUSED_STREAM);
                    return Ok(());
                }
                let stream = Stream {
                    headers,
                    peer_finished: flags & FLAG_FIN != 0,
                    finished: flags & FLAG_UNIDIRECTIONAL != 0,
                    ..self.fresh()
                };
                self.streams.insert(id, stream);
                self.opened.push_back(StreamId(id));
            }
            kind::SYN_REPLY | kind::HEADERS => {
                let id = p.u31()?;
                self.inflater.block(p.0, self.bounds.header_bytes)?;
                let ours = !self.is_peers(id);
                match self.streams.get_mut(&id) {
                    Some(s) => {
                        if frame_kind == kind::SYN_REPLY && (!ours || s.replied) {
                            self.rst(id, reset::PROTOCOL_ERROR);
                            return Ok(());
                        }
                        s.replied |= frame_kind == kind::SYN_REPLY;
                        s.peer_finished |= flags & FLAG_FIN != 0;
                    }
                    None => {
                        if !ours && id > self.last_peer_id || ours && id >= self.next_id {
                            self.rst(id, reset::INVALID_STREAM);
                        }
                    }
                }
            }
            kind::RST_STREAM => {
                let id = p.u31()?;
                p.u32()?;
                if let Some(s) = self.streams.get_mut(&id) {
                    s.broken = true;
                }
            }
            kind::SETTINGS => {
                let n = p.u32()?;
                for _ in 0..n {
                    let id = p.u32()? & 0x00ff_ffff;
                    let value = p.u32()?;
                    if id == SETTING_INITIAL_WINDOW {
                        let new = i64::from(value);
                        if new > i64::from(i32::MAX) {
                            return Err(Violation::WindowOverflow);
                        }
                        let change = new - self.peer_initial_window;
                        self.peer_initial_window = new;
                        for s in self.streams.values_mut() {
                            s.send_window += change;
                        }
                    }
                }
            }
            kind::PING => {
                let id = p.u32()?;
                let ours = (id % 2 == 1) == (self.role == Role::Client);
                // Answers are as small as what asks for them, so a flood of pings is bounded by what is
                // left unwritten.
                if !ours && self.output.len() < self.bounds.output_bytes.saturating_mul(2) {
                    frame::control(&mut self.output, kind::PING, 0, &id.to_be_bytes());
                }
            }
            kind::GOAWAY => self.going_away = true,
            kind::WINDOW_UPDATE => {
                let id = p.u31()?;
                let delta = i64::from(p.u31()?);
                let window = match id {
                    0 => Some(&mut self.send_window),
                    id => self.streams.get_mut(&id).map(|s| &mut s.send_window),
                };
                if let Some(w) = window {
                    *w += delta;
                    if *w > i64::from(i32::MAX) {
                        return Err(Violation::WindowOverflow);
                    }
                }
            }
            // Kinds unknown are to be passed over (section 2.2.1).
            _ => {}
        }
        Ok(())
    }

    fn rst(&mut self, id: u32, why: u32) {
        // As with pings: a peer that provokes these and does not read gets no more of them.
        if self.output.len() < self.bounds.output_bytes.saturating_mul(2) {
            let mut payload = id.to_be_bytes().to_vec();
            payload.extend_from_slice(&why.to_be_bytes());
            frame::control(&mut self.output, kind::RST_STREAM, 0, &payload);
        }
        if let Some(s) = self.streams.get_mut(&id) {
            s.broken = true;
        }
    }

    /// Grants the peer again what has been read.
    fn grant(&mut self, id: u32, n: usize) {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        let threshold = u32::try_from(INITIAL_WINDOW / 2).unwrap_or(u32::MAX);
        self.ungranted = self.ungranted.saturating_add(n);
        if self.ungranted >= threshold {
            self.receive_window += i64::from(self.ungranted);
            window_update(&mut self.output, 0, std::mem::take(&mut self.ungranted));
        }
        if let Some(s) = self.streams.get_mut(&id).filter(|s| !s.peer_finished) {
            s.ungranted = s.ungranted.saturating_add(n);
            if s.ungranted >= threshold {
                s.receive_window += i64::from(s.ungranted);
                window_update(&mut self.output, id, std::mem::take(&mut s.ungranted));
            }
        }
    }
}

fn window_update(out: &mut Vec<u8>, id: u32, delta: u32) {
    let mut payload = id.to_be_bytes().to_vec();
    payload.extend_from_slice(&delta.to_be_bytes());
    frame::control(out, kind::WINDOW_UPDATE, 0, &payload);
}
