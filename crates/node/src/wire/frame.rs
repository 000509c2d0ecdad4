//! Frames on a stream of bytes: a `u32` length, little-endian, then so many bytes.
//!
//! What a frame holds says its own version and kind. A stream is refused at the first frame that is longer than its
//! bound: nothing is reserved for a length that is only claimed.

use bytes::Bytes;
use std::fmt;

/// The longest frame there is. The longest message is an entry of a log, which holds the objects that one request
/// changed and the last images of those it removed: 8 MiB of either at most, and their headers.
pub const FRAME_BYTES_MAX: usize = 32 << 20;

/// What is cut for the way is cut into frames of this length; a single object may be longer. Others have their turn
/// between two of them.
pub const PIECE_BYTES: usize = 256 << 10;

/// So much is reserved for a frame before any of it has arrived.
const RESERVED: usize = 64 << 10;

/// Bytes that are no frame. The stream is of no use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// It is longer than this stream's bound.
    TooLong {
        /// What it says.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The stream ended within it.
    Cut {
        /// What had arrived.
        bytes: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong { bytes, max } => write!(
                f,
                "a frame of {bytes} bytes was refused, {max} is the most on this stream: nothing of it was read, and the stream is given up; open another"
            ),
            FrameError::Cut { bytes } => write!(
                f,
                "the stream ended within a frame, of which {bytes} bytes had arrived: they were given up; open another"
            ),
        }
    }
}

impl std::error::Error for FrameError {}

/// What goes before a frame of so many bytes.
///
/// # Errors
/// It is longer than [`FRAME_BYTES_MAX`]: it must not be sent, since nobody would read it.
pub fn prefix(bytes: usize) -> Result<[u8; 4], FrameError> {
    let too_long = FrameError::TooLong { bytes, max: FRAME_BYTES_MAX };
    if bytes > FRAME_BYTES_MAX {
        return Err(too_long);
    }
    u32::try_from(bytes).map(u32::to_le_bytes).map_err(|_| too_long)
}

/// Makes frames of a stream, whatever pieces it arrives in.
///
/// Holds at most one frame that is not whole. Each frame has memory of its own: one that is kept does not keep its
/// neighbours.
#[derive(Debug)]
pub struct Assembler {
    max: usize,
    length: [u8; 4],
    /// How much of the length has arrived.
    known: usize,
    body: Vec<u8>,
    failed: Option<FrameError>,
}

impl Assembler {
    /// Of a stream on which a frame has at most `max` bytes.
    pub fn new(max: usize) -> Assembler {
        Assembler { max: max.min(FRAME_BYTES_MAX), length: [0; 4], known: 0, body: Vec::new(), failed: None }
    }

    /// Takes what has arrived, and appends the frames that are whole with it.
    ///
    /// # Errors
    /// [`FrameError::TooLong`], then and ever after. Frames before it were appended.
    pub fn push(&mut self, mut chunk: &[u8], frames: &mut Vec<Bytes>) -> Result<(), FrameError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        loop {
            while self.known < self.length.len() {
                let Some((first, rest)) = chunk.split_first() else { return Ok(()) };
                if let Some(slot) = self.length.get_mut(self.known) {
                    *slot = *first;
                }
                (self.known, chunk) = (self.known + 1, rest);
            }
            let bytes = u32::from_le_bytes(self.length) as usize;
            if bytes > self.max {
                let failed = FrameError::TooLong { bytes, max: self.max };
                (self.failed, self.body) = (Some(failed), Vec::new());
                return Err(failed);
            }
            if self.body.capacity() == 0 {
                self.body.reserve(bytes.min(RESERVED));
            }
            let (own, rest) = chunk.split_at(chunk.len().min(bytes - self.body.len()));
            self.body.extend_from_slice(own);
            chunk = rest;
            if self.body.len() < bytes {
                return Ok(());
            }
            frames.push(std::mem::take(&mut self.body).into());
            self.known = 0;
        }
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`FrameError::Cut`]: within a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        match self.failed {
            Some(failed) => Err(failed),
            None if self.known == 0 => Ok(()),
            None => Err(FrameError::Cut { bytes: self.body.len() }),
        }
    }

    /// How many bytes of a frame that is not whole it holds.
    pub fn held(&self) -> usize {
        self.body.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Chance;

    fn stream(frames: &[&[u8]]) -> Vec<u8> {
        let framed = |f: &&[u8]| [prefix(f.len()).unwrap().to_vec(), f.to_vec()].concat();
        frames.iter().flat_map(framed).collect()
    }

    #[test]
    fn frames_come_out_whole_whatever_pieces_they_arrive_in() {
        let long = vec![7; 100_000];
        let sent: [&[u8]; 4] = [b"a", b"", &long, b"xyz"];
        let bytes = stream(&sent);
        for seed in 0..50 {
            let mut chance = Chance::from_u64(seed);
            let (mut assembler, mut out) = (Assembler::new(100_000), Vec::new());
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let most = if seed % 2 == 0 { 9 } else { 70_000 };
                let (piece, after) = rest.split_at(rest.len().min(chance.range(1, most) as usize));
                assembler.push(piece, &mut out).unwrap();
                rest = after;
                assert!(after.is_empty() || assembler.held() <= 100_000);
            }
            assert_eq!(out, sent);
            assert_eq!(assembler.finish(), Ok(()));
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_anything_is_reserved() {
        let (mut assembler, mut out) = (Assembler::new(10), Vec::new());
        let refused = Err(FrameError::TooLong { bytes: 11, max: 10 });
        let mut bytes = stream(&[b"ok"]);
        bytes.extend([11, 0, 0, 0]);
        assert_eq!(assembler.push(&bytes, &mut out), refused);
        assert_eq!(out, ["ok"]);
        assert_eq!(assembler.push(b"more", &mut out), refused, "it stays refused");
        assert_eq!(assembler.finish(), refused.map(drop));
        let mut greedy = Assembler::new(usize::MAX);
        greedy.push(&(FRAME_BYTES_MAX as u32).to_le_bytes(), &mut out).unwrap();
        assert!(greedy.body.capacity() <= RESERVED);
        assert!(prefix(FRAME_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn a_stream_that_ends_within_a_frame_is_told_from_one_that_ends_behind_it() {
        let bytes = stream(&[b"abc", b"de"]);
        for cut in 0..=bytes.len() {
            let (mut assembler, mut out) = (Assembler::new(10), Vec::new());
            assembler.push(&bytes[..cut], &mut out).unwrap();
            assert_eq!(assembler.finish().is_ok(), [0, 7, bytes.len()].contains(&cut), "cut at {cut}");
        }
    }
}
