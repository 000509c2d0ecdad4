//! Protobuf's wire format: tags, varints and lengths, read forwards and written backwards.

/// A field's value as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(#[allow(dead_code)] u32),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Value::Bytes(b) => Ok(b),
            _ => Err(String::from("proto: wrong wireType, a length was expected")),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| String::from("proto: a string is not UTF-8"))
    }

    pub(super) fn varint(self) -> Result<u64, String> {
        match self {
            Value::Varint(n) => Ok(n),
            _ => Err(String::from("proto: wrong wireType, a varint was expected")),
        }
    }

    pub(super) fn fixed64(self) -> Result<u64, String> {
        match self {
            Value::Fixed64(n) => Ok(n),
            _ => Err(String::from("proto: wrong wireType, 64 bits were expected")),
        }
    }
}

/// Reads a message's fields in the order sent.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

const SHORT: &str = "unexpected EOF";

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The next field's number and value.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number =
            u32::try_from(tag >> 3).ok().filter(|n| *n != 0).ok_or_else(|| format!("proto: illegal tag {tag}"))?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let n = self.varint()?;
                let n = usize::try_from(n).map_err(|_| SHORT.to_owned())?;
                Value::Bytes(self.take(n)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            wire => return Err(format!("proto: illegal wireType {wire}")),
        };
        Ok(Some((number, value)))
    }

    /// A varint that is not a field of its own: packed lists.
    pub(super) fn varint(&mut self) -> Result<u64, String> {
        let mut n = 0u64;
        for (i, b) in self.rest.iter().enumerate().take(10) {
            n |= u64::from(b & 0x7f) << (7 * i);
            if b & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(n);
            }
        }
        Err(if self.rest.len() < 10 { SHORT.to_owned() } else { String::from("proto: integer overflow") })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or_else(|| SHORT.to_owned())?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| SHORT.to_owned())
    }
}

/// A buffer filled from its end: a message is written last field first and its length after it, so
/// nothing is measured or copied twice.
#[derive(Default)]
pub(super) struct Back {
    reversed: Vec<u8>,
}

impl Back {
    pub(super) fn len(&self) -> usize {
        self.reversed.len()
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.reversed.extend(bytes.iter().rev());
    }

    pub(super) fn varint(&mut self, mut n: u64) {
        let mut bytes = [0u8; 10];
        let mut len = 0;
        loop {
            bytes[len] = (n & 0x7f) as u8;
            n >>= 7;
            if n == 0 {
                break;
            }
            bytes[len] |= 0x80;
            len += 1;
        }
        self.raw(&bytes[..=len]);
    }

    pub(super) fn varint_field(&mut self, number: u32, n: u64) {
        self.varint(n);
        self.varint(u64::from(number) << 3);
    }

    pub(super) fn fixed64_field(&mut self, number: u32, n: u64) {
        self.raw(&n.to_le_bytes());
        self.varint(u64::from(number) << 3 | 1);
    }

    pub(super) fn bytes_field(&mut self, number: u32, bytes: &[u8]) {
        let end = self.len();
        self.raw(bytes);
        self.close(number, end);
    }

    /// Puts length and tag before what was written since the buffer had the length `end`.
    pub(super) fn close(&mut self, number: u32, end: usize) {
        self.varint((self.len() - end) as u64);
        self.varint(u64::from(number) << 3 | 2);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.reversed.reverse();
        self.reversed
    }
}
