//! What a cell is for, as its log says it: so that a node that starts knows what to seat, with root out of reach.

use super::Role;
use base::Revision;
use bytes::Bytes;
use std::sync::Arc;

/// What a cell is for. Version 1: `version u8`, `role u8` (1 root, 2 registry, 3 namespace), `since u64` little-endian,
/// and a namespace's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Purpose {
    /// Its role.
    pub role: Role,
    /// Root's revision that named it, and above which all its own lie; nothing for those that are not named by root.
    /// Whoever knows root as of this or later and finds it not named there knows that it is over.
    pub since: Revision,
}

const VERSION: u8 = 1;

impl Purpose {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let (kind, name) = match &self.role {
            Role::Root => (1, ""),
            Role::Registry => (2, ""),
            Role::Namespace(name) => (3, &**name),
        };
        let since = self.since.get().to_le_bytes();
        [&[VERSION, kind][..], &since, name.as_bytes()].concat().into()
    }

    /// Reads what [`Purpose::encode`] wrote; `None` of what is nothing, or says more than this release knows.
    pub fn decode(bytes: &[u8]) -> Option<Purpose> {
        let (&[version, kind], rest) = bytes.split_first_chunk()?;
        let (since, name) = rest.split_first_chunk()?;
        let since = Revision::from_u64(u64::from_le_bytes(*since))?;
        let name = std::str::from_utf8(name).ok()?;
        let role = match kind {
            1 if name.is_empty() => Role::Root,
            2 if name.is_empty() => Role::Registry,
            3 if !name.is_empty() => Role::Namespace(Arc::from(name)),
            _ => return None,
        };
        (version == VERSION).then_some(Purpose { role, since })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_purpose_has_the_bytes_it_always_had() {
        let purpose = Purpose { role: Role::Namespace("shop".into()), since: Revision::from_u64(0x0102).unwrap() };
        assert_eq!(&purpose.encode()[..], b"\x01\x03\x02\x01\0\0\0\0\0\0shop");
        for role in [Role::Root, Role::Registry, Role::Namespace("a".into())] {
            let purpose = Purpose { role, since: Revision::ZERO };
            assert_eq!(Purpose::decode(&purpose.encode()), Some(purpose));
        }
    }

    #[test]
    fn what_is_no_purpose_is_none() {
        let good = Purpose { role: Role::Namespace("shop".into()), since: Revision::ZERO }.encode();
        assert!((0..=10).all(|cut| Purpose::decode(&good[..cut]).is_none()));
        for (at, byte) in [(0, 0), (0, 2), (1, 0), (1, 1), (1, 4), (9, 0x80), (10, 0xff)] {
            let mut bad = good.to_vec();
            bad[at] = byte;
            assert_eq!(Purpose::decode(&bad), None, "{at} {byte}");
        }
    }
}
