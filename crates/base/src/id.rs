//! Ids: two that could be swapped are two types.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// A text that should have been an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: expected {expected}")]
pub struct IdError {
    what: &'static str,
    expected: &'static str,
    text: String,
}

/// A Kubernetes uid: 128 bits, printed as an RFC 9562 version 4 UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uid(pub u128);

impl Uid {
    /// The uid whose free bits are those of `chance`; version and variant bits are set.
    pub const fn from_chance(chance: u128) -> Uid {
        Uid(chance & !(0xf000 << 64) & !(0b11 << 62) | (0x4000 << 64) | (0b10 << 62))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (v >> 96) as u32,
            (v >> 80) as u16,
            (v >> 64) as u16,
            (v >> 48) as u16,
            v & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uid {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Uid, IdError> {
        let err = || IdError { what: "uid", expected: "8-4-4-4-12 hexadecimal digits", text: s.into() };
        let b = s.as_bytes();
        if b.len() != 36 {
            return Err(err());
        }
        let mut v: u128 = 0;
        for (i, &c) in b.iter().enumerate() {
            if matches!(i, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return Err(err());
                }
                continue;
            }
            v = v << 4 | u128::from((c as char).to_digit(16).ok_or_else(err)?);
        }
        Ok(Uid(v))
    }
}

/// A cell's id: the uid of what it was made for (a Namespace, a workload), or of the founding for the
/// root and a registry. Never a name: a namespace made again under its old name is another cell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CellId(pub Uid);

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cell {:08x}", (self.0.0 >> 96) as u32)
    }
}

impl FromStr for CellId {
    type Err = IdError;
    fn from_str(s: &str) -> Result<CellId, IdError> {
        s.parse().map(CellId)
    }
}

/// A machine's identity: its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The first eight hexadecimal digits: enough to tell nodes apart in a log line, never to decide by.
    pub fn short(&self) -> String {
        self.0[..4].iter().map(|b| alloc::format!("{b:02x}")).collect()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.short())
    }
}

impl FromStr for NodeId {
    type Err = IdError;
    fn from_str(s: &str) -> Result<NodeId, IdError> {
        let err = || IdError { what: "node id", expected: "64 hexadecimal digits", text: s.into() };
        let digits = s.as_bytes();
        if digits.len() != 64 {
            return Err(err());
        }
        let mut out = [0; 32];
        for (i, pair) in digits.chunks(2).enumerate() {
            let hi = (pair[0] as char).to_digit(16).ok_or_else(err)?;
            let lo = (pair[1] as char).to_digit(16).ok_or_else(err)?;
            out[i] = (hi << 4 | lo) as u8;
        }
        Ok(NodeId(out))
    }
}

/// One life of one member of a cell in Raft's sense. A member that lost anything it acknowledged comes
/// back under another replica id. Never 0 (Raft's "nobody").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplicaId(pub u64);

/// One client request, however often it is retried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RequestId(pub u128);

/// One start of one beemesh process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BootId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn ids_read_back_what_they_print() {
        let uid = Uid::from_chance(u128::MAX);
        assert_eq!(uid.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uid.to_string().parse(), Ok(uid));
        let node = NodeId([0xa5; 32]);
        assert_eq!(node.to_string().parse(), Ok(node));
        assert_eq!(node.short(), "a5a5a5a5");
    }

    #[test]
    fn what_is_not_an_id_is_refused_by_name() {
        for bad in ["", "ffffffff-ffff-4fff-bfff-fffffffffff", "fffffffff-fff-4fff-bfff-ffffffffffff", "é"] {
            assert!(bad.parse::<Uid>().is_err(), "{bad}");
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }
}
