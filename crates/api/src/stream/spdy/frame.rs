//! Frames: the eight bytes that begin each, and what follows in control frames.

use super::session::Violation;

/// The version in control frames: SPDY/3 and SPDY/3.1 have the same.
const VERSION: u16 = 3;
/// Bytes before every frame's payload.
pub(super) const HEAD_BYTES: usize = 8;

/// FIN: the sender sends nothing more on this stream.
pub(super) const FLAG_FIN: u8 = 1;
/// UNIDIRECTIONAL: the receiver sends nothing on this stream.
pub(super) const FLAG_UNIDIRECTIONAL: u8 = 2;

/// Kinds of control frames.
pub(super) mod kind {
    pub(in super::super) const SYN_STREAM: u16 = 1;
    pub(in super::super) const SYN_REPLY: u16 = 2;
    pub(in super::super) const RST_STREAM: u16 = 3;
    pub(in super::super) const SETTINGS: u16 = 4;
    pub(in super::super) const PING: u16 = 6;
    pub(in super::super) const GOAWAY: u16 = 7;
    pub(in super::super) const HEADERS: u16 = 8;
    pub(in super::super) const WINDOW_UPDATE: u16 = 9;
}

/// What the first eight bytes of a frame say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// Bytes of a stream.
    Data { stream: u32, flags: u8, length: usize },
    /// Anything else.
    Control { kind: u16, flags: u8, length: usize },
}

impl Head {
    pub(super) fn decode(b: [u8; HEAD_BYTES]) -> Result<Head, Violation> {
        let [b0, b1, b2, b3, flags, l0, l1, l2] = b;
        let length = (usize::from(l0) << 16) | (usize::from(l1) << 8) | usize::from(l2);
        if b0 & 0x80 == 0 {
            return Ok(Head::Data { stream: u32::from_be_bytes([b0, b1, b2, b3]), flags, length });
        }
        let version = u16::from_be_bytes([b0 & 0x7f, b1]);
        if version != VERSION {
            return Err(Violation::Version(version));
        }
        Ok(Head::Control { kind: u16::from_be_bytes([b2, b3]), flags, length })
    }
}

/// Appends a control frame. Its payload is ours and far below 2^24 bytes.
pub(super) fn control(out: &mut Vec<u8>, kind: u16, flags: u8, payload: &[u8]) {
    out.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    rest(out, flags, payload);
}

/// Appends a data frame of less than 2^24 bytes.
pub(super) fn data(out: &mut Vec<u8>, stream: u32, flags: u8, payload: &[u8]) {
    out.extend_from_slice(&(stream & 0x7fff_ffff).to_be_bytes());
    rest(out, flags, payload);
}

fn rest(out: &mut Vec<u8>, flags: u8, payload: &[u8]) {
    assert!(payload.len() < 1 << 24, "a frame's length has 24 bits");
    let [.., l0, l1, l2] = payload.len().to_be_bytes();
    out.extend_from_slice(&[flags, l0, l1, l2]);
    out.extend_from_slice(payload);
}

/// Reads a control frame's payload from its beginning.
pub(super) struct Payload<'a>(pub(super) &'a [u8]);

impl<'a> Payload<'a> {
    pub(super) fn u32(&mut self) -> Result<u32, Violation> {
        let (head, tail) = self.0.split_first_chunk::<4>().ok_or(Violation::ShortFrame)?;
        self.0 = tail;
        Ok(u32::from_be_bytes(*head))
    }

    /// A number whose first bit is reserved.
    pub(super) fn u31(&mut self) -> Result<u32, Violation> {
        Ok(self.u32()? & 0x7fff_ffff)
    }

    pub(super) fn skip(&mut self, n: usize) -> Result<(), Violation> {
        self.0 = self.0.get(n..).ok_or(Violation::ShortFrame)?;
        Ok(())
    }
}
