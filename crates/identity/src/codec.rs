//! The bytes of everything that travels between nodes: one header, few building blocks, one way to write
//! each value, so that what is signed is what was read. Nothing here trusts a length it is told.

use base::{CellId, NodeId, Uid, Wall};
use std::net::{IpAddr, SocketAddr};

/// Why bytes from elsewhere say nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    /// A release that knows more made it.
    #[error("the {what} was made by a newer release (form {form}, this one reads up to {known}): update beemesh here")]
    Newer {
        /// What it is.
        what: &'static str,
        /// The form it has.
        form: u8,
        /// The newest form this release reads.
        known: u8,
    },
    /// Not what any release writes.
    #[error(
        "the {what} cannot be used ({why}), and nothing was done with it: have it sent again, and if that does not help, compare the releases of both nodes"
    )]
    Damaged {
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A kind of message: its first byte, its newest form, its name in errors and the most bytes it may have.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    tag: u8,
    form: u8,
    what: &'static str,
    most: usize,
}

// Kept for ever: peers and disks hold these. A tag is never used for anything else.
pub(crate) const SVID_REQUEST: Kind = Kind { tag: 1, form: 1, what: "request for an SVID", most: 1024 };
pub(crate) const GATEWAY_REQUEST: Kind =
    Kind { tag: 2, form: 1, what: "request for a gateway's certificate", most: 32 * 1024 };
pub(crate) const ISSUER_REQUEST: Kind =
    Kind { tag: 3, form: 1, what: "request for an issuing certificate", most: 1024 };
pub(crate) const CHAIN: Kind = Kind { tag: 4, form: 1, what: "certificate chain", most: 64 * 1024 };
pub(crate) const TICKET_RECORD: Kind = Kind { tag: 5, form: 1, what: "record of a ticket", most: 64 * 1024 };
/// Inside the printed form, which has a header of its own.
pub(crate) const TICKET: Kind = Kind { tag: 0, form: 1, what: "ticket", most: 4096 };
pub(crate) const JOIN_REQUEST: Kind = Kind { tag: 6, form: 1, what: "request to join", most: 64 * 1024 };
pub(crate) const JOIN_ANSWER: Kind = Kind { tag: 7, form: 1, what: "answer to a joining node", most: 4 << 20 };
pub(crate) const TOKEN_KEY: Kind = Kind { tag: 8, form: 1, what: "public token key", most: 1 << 20 };
pub(crate) const PERSON_REQUEST: Kind =
    Kind { tag: 10, form: 1, what: "request for a person's certificate", most: 1024 };
pub(crate) const REVOCATIONS: Kind = Kind { tag: 9, form: 1, what: "list of expelled nodes", most: 1 << 20 };

impl Kind {
    pub(crate) fn damaged(self, why: &'static str) -> MessageError {
        MessageError::Damaged { what: self.what, why }
    }
}

/// Builds one message.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(kind: Kind) -> Writer {
        Writer(vec![kind.tag, kind.form])
    }

    /// Without a header, for what has one of its own.
    pub(crate) fn bare() -> Writer {
        Writer(Vec::new())
    }

    /// Seven bits a byte, low ones first, the top bit says that more follow (LEB128).
    pub(crate) fn number(mut self, mut n: u64) -> Writer {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
        self
    }

    pub(crate) fn count(self, n: usize) -> Writer {
        self.number(n as u64)
    }

    pub(crate) fn byte(mut self, b: u8) -> Writer {
        self.0.push(b);
        self
    }

    pub(crate) fn fixed(mut self, bytes: &[u8]) -> Writer {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Writer {
        self.count(bytes.len()).fixed(bytes)
    }

    pub(crate) fn node(self, node: NodeId) -> Writer {
        self.fixed(&node.0)
    }

    pub(crate) fn cell(self, cell: CellId) -> Writer {
        self.fixed(&cell.0.0.to_be_bytes())
    }

    pub(crate) fn wall(self, at: Wall) -> Writer {
        self.number(at.0)
    }

    pub(crate) fn ip(self, ip: IpAddr) -> Writer {
        match ip {
            IpAddr::V4(ip) => self.byte(4).fixed(&ip.octets()),
            IpAddr::V6(ip) => self.byte(6).fixed(&ip.octets()),
        }
    }

    pub(crate) fn address(self, address: SocketAddr) -> Writer {
        self.ip(address.ip()).fixed(&address.port().to_be_bytes())
    }

    /// A value that may be missing.
    pub(crate) fn maybe<T>(self, value: Option<T>, write: impl FnOnce(Writer, T) -> Writer) -> Writer {
        match value {
            None => self.byte(0),
            Some(value) => write(self.byte(1), value),
        }
    }

    pub(crate) fn list<T>(
        self,
        items: impl ExactSizeIterator<Item = T>,
        write: impl Fn(Writer, T) -> Writer,
    ) -> Writer {
        let begun = self.count(items.len());
        items.fold(begun, write)
    }

    pub(crate) fn so_far(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Reads one message.
pub(crate) struct Reader<'a> {
    kind: Kind,
    whole: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn open(kind: Kind, whole: &'a [u8]) -> Result<Reader<'a>, MessageError> {
        if whole.len() > kind.most {
            return Err(kind.damaged("it is longer than any of its kind"));
        }
        match whole {
            [tag, form, rest @ ..] if *tag == kind.tag => {
                if *form > kind.form {
                    return Err(MessageError::Newer { what: kind.what, form: *form, known: kind.form });
                }
                if *form == 0 {
                    return Err(kind.damaged("it has a form that never was"));
                }
                Ok(Reader { kind, whole, rest })
            }
            _ => Err(kind.damaged("it is something else")),
        }
    }

    /// Without a header, for what has one of its own.
    pub(crate) fn bare(kind: Kind, whole: &'a [u8]) -> Reader<'a> {
        Reader { kind, whole, rest: whole }
    }

    pub(crate) fn damaged(&self, why: &'static str) -> MessageError {
        self.kind.damaged(why)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], MessageError> {
        match self.rest.split_at_checked(n) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.damaged("it ends too early")),
        }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, MessageError> {
        let [byte] = self.fixed()?;
        Ok(byte)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.damaged("it ends too early"))
    }

    pub(crate) fn number(&mut self) -> Result<u64, MessageError> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                break;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(self.damaged("a number is not written as numbers are"))
    }

    pub(crate) fn count(&mut self, most: usize) -> Result<usize, MessageError> {
        let n = self.number()?;
        // Everything counted has a byte at least: a count beyond what is left is not worth believing.
        match usize::try_from(n) {
            Ok(n) if n <= most && n <= self.rest.len() => Ok(n),
            _ => Err(self.damaged("a length in it is beyond its bounds")),
        }
    }

    pub(crate) fn bytes(&mut self, most: usize) -> Result<&'a [u8], MessageError> {
        let n = self.count(most)?;
        self.take(n)
    }

    pub(crate) fn text(&mut self, most: usize) -> Result<&'a str, MessageError> {
        let bytes = self.bytes(most)?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged("a text in it is none"))
    }

    pub(crate) fn node(&mut self) -> Result<NodeId, MessageError> {
        self.fixed().map(NodeId)
    }

    pub(crate) fn cell(&mut self) -> Result<CellId, MessageError> {
        Ok(CellId(Uid(u128::from_be_bytes(self.fixed()?))))
    }

    pub(crate) fn wall(&mut self) -> Result<Wall, MessageError> {
        self.number().map(Wall)
    }

    pub(crate) fn ip(&mut self) -> Result<IpAddr, MessageError> {
        match self.byte()? {
            4 => Ok(IpAddr::from(self.fixed::<4>()?)),
            6 => Ok(IpAddr::from(self.fixed::<16>()?)),
            _ => Err(self.damaged("an address of no known family")),
        }
    }

    pub(crate) fn address(&mut self) -> Result<SocketAddr, MessageError> {
        let ip = self.ip()?;
        Ok(SocketAddr::new(ip, u16::from_be_bytes(self.fixed()?)))
    }

    pub(crate) fn maybe<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, MessageError>,
    ) -> Result<Option<T>, MessageError> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(self.damaged("neither there nor missing")),
        }
    }

    pub(crate) fn list<T>(
        &mut self,
        most: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, MessageError>,
    ) -> Result<Vec<T>, MessageError> {
        let n = self.count(most)?;
        (0..n).map(|_| read(self)).collect()
    }

    /// What has been read so far: what a signature that follows is over.
    pub(crate) fn so_far(&self) -> &'a [u8] {
        self.whole.get(..self.whole.len() - self.rest.len()).unwrap_or_default()
    }

    /// Nothing may follow.
    pub(crate) fn end(self) -> Result<(), MessageError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged("something follows it")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let written = Writer::bare().number(n).done();
            let mut reader = Reader::bare(CHAIN, &written);
            assert_eq!(reader.number(), Ok(n));
            assert_eq!(reader.end(), Ok(()));
        }
        for other in [&[0x80, 0x00][..], &[0x80], &[], &[0xff; 10], &[0xff; 11]] {
            assert!(Reader::bare(CHAIN, other).number().is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_length_is_not_believed_before_its_bytes_are_there() {
        let huge = Writer::bare().number(1 << 40).done();
        assert!(Reader::bare(CHAIN, &huge).bytes(usize::MAX).is_err());
        assert!(Reader::bare(CHAIN, &huge).list(usize::MAX, |r| r.byte()).is_err());
        let five = Writer::bare().bytes(b"12345").done();
        assert!(Reader::bare(CHAIN, &five).bytes(4).is_err(), "beyond its bound");
        assert_eq!(Reader::bare(CHAIN, &five).bytes(5), Ok(&b"12345"[..]));
    }

    #[test]
    fn a_message_of_a_newer_release_is_told_from_a_damaged_one() {
        let mut bytes = Writer::new(CHAIN).done();
        assert!(Reader::open(CHAIN, &bytes).is_ok());
        bytes[1] = 2;
        assert!(matches!(Reader::open(CHAIN, &bytes), Err(MessageError::Newer { form: 2, known: 1, .. })));
        assert!(matches!(Reader::open(TOKEN_KEY, &bytes), Err(MessageError::Damaged { .. })));
    }
}
