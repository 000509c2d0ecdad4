//! How numbers and byte strings are written into payloads, messages and checkpoints, here and by those who carry
//! agree's messages.
//!
//! Little-endian numbers of fixed width, and byte strings with a `u32` length before them. Every format
//! built from these begins with its own version byte. Reading shares the memory of the bytes it reads,
//! and never panics, whatever they are.

use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

/// Bytes that are not what they should have been.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// A release that knows more wrote it.
    #[error(
        "{what} of version {version} was written by a newer release of beemesh; nothing was changed: \
         start that release again, or a newer one"
    )]
    Newer {
        /// What was being read.
        what: &'static str,
        /// The version, or the number of the variant, that this release does not know.
        version: u8,
    },
    /// It ends early, goes on after its end, or holds a number out of range.
    #[error("{what} ({length} bytes) is malformed at byte {at}; it was ignored and nothing was changed")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// How many bytes there were.
        length: usize,
        /// Where reading stopped.
        at: usize,
    },
    /// It names something that this release does not know.
    #[error(
        "{what} names {name}, which this release of beemesh does not know; it was ignored and nothing was changed: \
         a newer release does"
    )]
    Unknown {
        /// What was being read.
        what: &'static str,
        /// What it names.
        name: String,
    },
}

/// Appends values to a buffer.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// An empty buffer with room for `n` bytes.
    pub fn with_capacity(n: usize) -> Writer {
        Writer(Vec::with_capacity(n))
    }

    /// Appends a number.
    pub fn u8(&mut self, n: u8) -> &mut Writer {
        self.0.push(n);
        self
    }

    /// Appends a number.
    pub fn u32(&mut self, n: u32) -> &mut Writer {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    /// Appends a number.
    pub fn u64(&mut self, n: u64) -> &mut Writer {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    /// Appends a number.
    pub fn u128(&mut self, n: u128) -> &mut Writer {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    /// A count or length. What is counted here is bounded far below 2^32 by its owner.
    pub fn count(&mut self, n: usize) -> &mut Writer {
        self.u32(u32::try_from(n).unwrap_or(u32::MAX))
    }

    /// Appends a byte string with its length before it.
    pub fn bytes(&mut self, b: &[u8]) -> &mut Writer {
        self.count(b.len());
        self.0.extend_from_slice(b);
        self
    }

    /// What was written.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.0)
    }
}

/// Reads values from a buffer.
pub struct Reader<'a> {
    what: &'static str,
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the beginning. `what` is what errors call it.
    pub fn new(what: &'static str, bytes: &'a Bytes) -> Reader<'a> {
        Reader { what, bytes, at: 0 }
    }

    /// A reader past a version byte, which must be `1..=newest`.
    ///
    /// # Errors
    /// [`DecodeError::Newer`], or there is no byte at all.
    pub fn versioned(what: &'static str, bytes: &'a Bytes, newest: u8) -> Result<(Reader<'a>, u8), DecodeError> {
        let mut r = Reader::new(what, bytes);
        let version = r.u8()?;
        if version == 0 || version > newest { Err(r.newer(version)) } else { Ok((r, version)) }
    }

    /// What errors call it.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// The error that reading stopped here.
    pub fn malformed(&self) -> DecodeError {
        DecodeError::Malformed { what: self.what, length: self.bytes.len(), at: self.at }
    }

    /// The error that a newer release wrote this version or variant.
    pub fn newer(&self, version: u8) -> DecodeError {
        DecodeError::Newer { what: self.what, version }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let chunk = self.bytes.get(self.at..).and_then(|b| b.first_chunk::<N>()).ok_or_else(|| self.malformed())?;
        self.at += N;
        Ok(*chunk)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`]: the bytes end before.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take()
    }

    /// The next number.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`]: the bytes end before.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take().map(u8::from_le_bytes)
    }

    /// The next byte, which must be 0 or 1.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`].
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    /// The next number.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`]: the bytes end before.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_le_bytes)
    }

    /// The next number.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`]: the bytes end before.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_le_bytes)
    }

    /// The next number.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`]: the bytes end before.
    pub fn u128(&mut self) -> Result<u128, DecodeError> {
        self.take().map(u128::from_le_bytes)
    }

    /// A count of items that take at least `least` bytes each: a lying count is refused before anything
    /// is reserved for it.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`]: fewer bytes are left than that many items take.
    pub fn count(&mut self, least: usize) -> Result<usize, DecodeError> {
        let n = self.u32()? as usize;
        if n.saturating_mul(least.max(1)) > self.bytes.len() - self.at { Err(self.malformed()) } else { Ok(n) }
    }

    /// The next byte string, sharing the memory of what is read.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`]: the bytes end before.
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let n = self.count(1)?;
        self.slice(n)
    }

    /// The next `n` bytes, sharing the memory of what is read.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`]: the bytes end before.
    pub fn slice(&mut self, n: usize) -> Result<Bytes, DecodeError> {
        if n > self.bytes.len() - self.at {
            return Err(self.malformed());
        }
        let out = self.bytes.slice(self.at..self.at + n);
        self.at += n;
        Ok(out)
    }

    /// A count and as many numbers.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`].
    pub fn u64s(&mut self) -> Result<Vec<u64>, DecodeError> {
        (0..self.count(8)?).map(|_| self.u64()).collect()
    }

    /// Whether nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Asserts that nothing is left.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`]: something is.
    pub fn end(self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.malformed()) }
    }
}
