//! What nodes and hives say of themselves: the directory's signed records.
//!
//! A record says one thing about one subject, is numbered by whoever signs it, and is believed for its signature alone:
//! whoever passes it on adds nothing. Reading one is total and bounded; whether its signature is good is for the caller to
//! ask ([`super::Keys`]).

use super::Version;
use crate::codec::{DecodeError, Reader, Writer};
use alloc::string::String;
use alloc::vec::Vec;
use base::{CellId, NodeId, Uid};
use bytes::Bytes;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses in one record, at most.
pub const ADDRESSES_MAX: usize = 16;
/// Bytes of one address as written, at most: a relay's URL is the longest.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// Bytes of a node's proof of membership, at most: an X.509 SVID with its chain.
pub const PROOF_BYTES_MAX: usize = 4 << 10;
/// Bytes of a signature, at most.
pub const SIGNATURE_BYTES_MAX: usize = 512;
/// Contacts of a hive, at most.
pub const CONTACTS_MAX: usize = 16;
/// Bytes of a node's record, at most.
pub const NODE_BYTES_MAX: usize = 10 << 10;
/// Bytes of a hive's record, at most.
pub const HIVE_BYTES_MAX: usize = 2 << 10;

/// Where a node may be reached, and how. Written as `kind u8` and its bytes, so that a release passes on and keeps kinds
/// that it does not know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Address {
    /// Kind 1. QUIC to this address; from anywhere, as far as the node knows.
    Public(SocketAddr),
    /// Kind 2. QUIC to this address, from the same network only.
    Local(SocketAddr),
    /// Kind 3. Through the relay with this URL.
    Relay(String),
    /// A kind of a newer release.
    Other {
        /// The kind.
        kind: u8,
        /// What it says.
        bytes: Bytes,
    },
}

/// What a node may be used for (section 9 of the architecture). Bits of newer releases are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Roles(pub u32);

impl Roles {
    /// Keeps root.
    pub const AUTHORITY: Roles = Roles(1);
    /// Keeps cells.
    pub const KEEPER: Roles = Roles(2);
    /// Serves the Kubernetes API.
    pub const GATEWAY: Roles = Roles(4);
    /// Runs pods.
    pub const WORKER: Roles = Roles(8);

    /// Whether all of `other` are among these.
    pub const fn has(self, other: Roles) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }
}

/// A node, in its own words. Version 1: `version u8`, `node 32 bytes`, `boot u64`, `serial u64`, `hive u128`, `roles u32`,
/// the addresses (a `u32` count; each `kind u8` and bytes), `proof` bytes; then the signature's bytes. What is signed is
/// everything before the signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRecord {
    /// The node; its key signs.
    pub node: NodeId,
    /// Rises with every start of its process, and is kept on its disk.
    pub boot: u64,
    /// Rises with every record within a boot.
    pub serial: u64,
    /// The registry of its hive.
    pub hive: CellId,
    /// What it may be used for; believed as far as the proof goes.
    pub roles: Roles,
    /// Best first; [`ADDRESSES_MAX`] at most.
    pub addresses: Vec<Address>,
    /// What shows that the mesh took it in, into that hive, for these roles (its SVID). Empty where whoever judges knows
    /// the members otherwise. [`PROOF_BYTES_MAX`] at most.
    pub proof: Bytes,
    /// By the node's key.
    pub signature: Bytes,
}

/// A hive, in root's words. Version 1: `version u8`, `hive u128`, `serial u64`, the contacts (a `u32` count; each 32 bytes);
/// then the signature's bytes. What is signed is everything before the signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HiveRecord {
    /// Its registry: the cell that owns its Node objects.
    pub hive: CellId,
    /// Rises with every record of this hive.
    pub serial: u64,
    /// Nodes through which it is found, sorted, each once; [`CONTACTS_MAX`] at most.
    pub contacts: Vec<NodeId>,
    /// By root.
    pub signature: Bytes,
}

impl Address {
    fn write(&self, w: &mut Writer) {
        let socket = |w: &mut Writer, kind: u8, a: &SocketAddr| {
            let mut bytes = Vec::with_capacity(18);
            match a.ip() {
                IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
            }
            bytes.extend_from_slice(&a.port().to_le_bytes());
            w.u8(kind).bytes(&bytes);
        };
        match self {
            Address::Public(a) => socket(w, 1, a),
            Address::Local(a) => socket(w, 2, a),
            Address::Relay(url) => {
                w.u8(3).bytes(url.as_bytes());
            }
            Address::Other { kind, bytes } => {
                w.u8(*kind).bytes(bytes);
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Address, DecodeError> {
        let (kind, bytes) = (r.u8()?, r.bytes()?);
        if bytes.len() > ADDRESS_BYTES_MAX {
            return Err(r.malformed());
        }
        let socket = |bytes: &[u8]| {
            let (ip, port) = bytes.split_last_chunk::<2>()?;
            let ip = match ip.len() {
                4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
                16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
                _ => return None,
            };
            Some(SocketAddr::new(ip, u16::from_le_bytes(*port)))
        };
        match kind {
            1 => socket(&bytes).map(Address::Public).ok_or_else(|| r.malformed()),
            2 => socket(&bytes).map(Address::Local).ok_or_else(|| r.malformed()),
            3 => {
                let url = core::str::from_utf8(&bytes).ok().filter(|u| u.bytes().all(|b| b.is_ascii_graphic()));
                url.map(|u| Address::Relay(u.into())).ok_or_else(|| r.malformed())
            }
            _ => Ok(Address::Other { kind, bytes: Bytes::copy_from_slice(&bytes) }),
        }
    }
}

impl NodeRecord {
    /// What the signature is made over.
    pub fn signed_bytes(&self) -> Bytes {
        self.unsigned().finish()
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = self.unsigned();
        w.bytes(&self.signature);
        w.finish()
    }

    /// Reads a record that fills `bytes`, sharing none of their memory.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &Bytes) -> Result<NodeRecord, DecodeError> {
        let (mut r, _) = Reader::versioned("a node's record", bytes, 1)?;
        let (node, boot, serial) = (NodeId(r.array()?), r.u64()?, r.u64()?);
        let (hive, roles) = (CellId(Uid(r.u128()?)), Roles(r.u32()?));
        let n = r.count(5)?;
        if n > ADDRESSES_MAX || bytes.len() > NODE_BYTES_MAX {
            return Err(r.malformed());
        }
        let addresses = (0..n).map(|_| Address::read(&mut r)).collect::<Result<_, _>>()?;
        let (proof, signature) = (r.bytes()?, signature(&mut r)?);
        if proof.len() > PROOF_BYTES_MAX {
            return Err(r.malformed());
        }
        r.end()?;
        let proof = Bytes::copy_from_slice(&proof);
        Ok(NodeRecord { node, boot, serial, hive, roles, addresses, proof, signature })
    }

    /// Whether it keeps the bounds, so that others will read it.
    pub fn is_bounded(&self) -> bool {
        NodeRecord::decode(&self.encode()).is_ok()
    }

    /// Its version; `bytes` are the record's own.
    pub fn version(&self, bytes: &[u8]) -> Version {
        Version(self.boot, self.serial, super::mix(bytes))
    }

    fn unsigned(&self) -> Writer {
        let mut w = Writer::with_capacity(256 + self.proof.len());
        w.u8(1);
        w.0.extend_from_slice(&self.node.0);
        w.u64(self.boot).u64(self.serial).u128(self.hive.0.0).u32(self.roles.0).count(self.addresses.len());
        self.addresses.iter().for_each(|a| a.write(&mut w));
        w.bytes(&self.proof);
        w
    }
}

impl HiveRecord {
    /// What the signature is made over.
    pub fn signed_bytes(&self) -> Bytes {
        self.unsigned().finish()
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = self.unsigned();
        w.bytes(&self.signature);
        w.finish()
    }

    /// Reads a record that fills `bytes`, sharing none of their memory.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &Bytes) -> Result<HiveRecord, DecodeError> {
        let (mut r, _) = Reader::versioned("a hive's record", bytes, 1)?;
        let (hive, serial) = (CellId(Uid(r.u128()?)), r.u64()?);
        let n = r.count(32)?;
        let contacts = (0..n).map(|_| r.array().map(NodeId)).collect::<Result<Vec<_>, _>>()?;
        if n > CONTACTS_MAX || !contacts.is_sorted_by(|a, b| a < b) || bytes.len() > HIVE_BYTES_MAX {
            return Err(r.malformed());
        }
        let signature = signature(&mut r)?;
        r.end()?;
        Ok(HiveRecord { hive, serial, contacts, signature })
    }

    /// Its version; `bytes` are the record's own.
    pub fn version(&self, bytes: &[u8]) -> Version {
        Version(self.serial, 0, super::mix(bytes))
    }

    fn unsigned(&self) -> Writer {
        let mut w = Writer::with_capacity(64 + 32 * self.contacts.len());
        w.u8(1).u128(self.hive.0.0).u64(self.serial).count(self.contacts.len());
        self.contacts.iter().for_each(|c| w.0.extend_from_slice(&c.0));
        w
    }
}

fn signature(r: &mut Reader<'_>) -> Result<Bytes, DecodeError> {
    let signature = r.bytes()?;
    if signature.len() > SIGNATURE_BYTES_MAX { Err(r.malformed()) } else { Ok(Bytes::copy_from_slice(&signature)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn node() -> NodeRecord {
        NodeRecord {
            node: NodeId([7; 32]),
            boot: 3,
            serial: 9,
            hive: CellId(Uid(5)),
            roles: Roles::KEEPER.and(Roles::WORKER),
            addresses: vec![
                Address::Public(SocketAddr::from(([192, 0, 2, 1], 7443))),
                Address::Local(SocketAddr::from((Ipv6Addr::LOCALHOST, 7443))),
                Address::Relay("https://relay.example/".into()),
                Address::Other { kind: 77, bytes: Bytes::from_static(b"later") },
            ],
            proof: Bytes::from_static(b"svid"),
            signature: Bytes::from_static(b"signature"),
        }
    }

    fn hive() -> HiveRecord {
        let contacts = vec![NodeId([1; 32]), NodeId([2; 32])];
        HiveRecord { hive: CellId(Uid(5)), serial: 4, contacts, signature: Bytes::from_static(b"root") }
    }

    #[test]
    fn records_have_the_bytes_they_always_had() {
        let (n, h) = (node().encode(), hive().encode());
        let text = format!("{}\n{}\n", hex(&n), hex(&h));
        assert_eq!(text, include_str!("../../tests/golden/directory-records-v1.hex"));
        assert_eq!(NodeRecord::decode(&n), Ok(node()));
        assert_eq!(HiveRecord::decode(&h), Ok(hive()));
        assert!(n.starts_with(&node().signed_bytes()) && h.starts_with(&hive().signed_bytes()));
    }

    #[test]
    fn a_shorter_longer_or_newer_record_is_refused() {
        for bytes in [node().encode(), hive().encode()] {
            let is_refused = |b: &Bytes| NodeRecord::decode(b).is_err() && HiveRecord::decode(b).is_err();
            assert!((0..bytes.len()).all(|cut| is_refused(&bytes.slice(..cut))));
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert!(is_refused(&longer.into()));
            let mut newer = bytes.to_vec();
            newer[0] = 2;
            let newer = Bytes::from(newer);
            assert!(matches!(NodeRecord::decode(&newer), Err(DecodeError::Newer { version: 2, .. })));
        }
    }

    #[test]
    fn what_is_beyond_the_bounds_is_refused() {
        let many = NodeRecord { addresses: vec![Address::Relay("r".into()); ADDRESSES_MAX + 1], ..node() };
        let long = NodeRecord { addresses: vec![Address::Relay("r".repeat(ADDRESS_BYTES_MAX + 1))], ..node() };
        let proof = NodeRecord { proof: vec![0; PROOF_BYTES_MAX + 1].into(), ..node() };
        let signature = NodeRecord { signature: vec![0; SIGNATURE_BYTES_MAX + 1].into(), ..node() };
        let blank = NodeRecord { addresses: vec![Address::Relay("a b".into())], ..node() };
        assert!([many, long, proof, signature, blank].iter().all(|r| !r.is_bounded()));
        let most = NodeRecord {
            addresses: vec![Address::Relay("r".repeat(ADDRESS_BYTES_MAX)); ADDRESSES_MAX],
            proof: vec![0; PROOF_BYTES_MAX].into(),
            signature: vec![0; SIGNATURE_BYTES_MAX].into(),
            ..node()
        };
        assert!(most.is_bounded(), "what keeps each bound keeps the whole");
        let twice = HiveRecord { contacts: vec![NodeId([1; 32]); 2], ..hive() };
        assert!(HiveRecord::decode(&twice.encode()).is_err());
    }
}
