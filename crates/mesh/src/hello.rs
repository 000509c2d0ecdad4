//! The hello: what two ends of a connection show each other before either says anything else.
//!
//! TLS has proven at this point that the other end has the key that its [`NodeId`] is. What is missing is whether
//! that node belongs to the mesh. Each end presents the chain of its SVID and signs, with the SVID's key, its
//! whole hello together with keying material that only the two ends of this TLS connection can compute (RFC
//! 5705, as RFC 9266 does it for channel bindings) and the side it is on. So a hello proves nothing on another connection, and
//! cannot be sent back to whoever made it.
//!
//! The one who dialled speaks first, the other answers, the first *settles*: from then on both know that both
//! believe. The stream stays open, and an SVID that is renewed is shown there again in the same way.
//!
//! ```text
//! frame     kind (1), length (4), body
//! hello     version (1), boot (8), dial (8), seen boot (8), seen dial (8), sequence (4), wall ms (8),
//!           protocols: count (1), each: name length (1), name, majors: count (1), each (2)
//!           chain: count (1), each: length (2), DER
//!           for later releases: length (2), bytes that this release passes over
//!           signature: length (2), bytes; over all that precedes it
//! settled   nothing
//! ```
//!
//! Numbers are big-endian. *boot* tells one start of a process from the next, *dial* counts the dials of one
//! start, *seen* is the highest dial of the other that has led to a link; [`crate::link`] chooses by them which of
//! two connections stays.

use crate::config::{MAX_MAJORS, MAX_NAME, MAX_PROTOCOLS, Protocol, is_name};
use crate::error::MeshError;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use base::{NodeId, Wall};
use identity::{Credential, Identity, Verifier};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::sync::Arc;

/// The form this release writes and reads.
const VERSION: u8 = 1;
/// No frame of the control stream is longer.
pub(crate) const MAX_FRAME: usize = 32 * 1024;
/// Leaf, issuer, and a root that proves nothing.
const MAX_CHAIN: usize = 3;
const MAX_CERTIFICATE: usize = 8 * 1024;
const MAX_SIGNATURE: usize = 128;
const LABEL: &[u8] = b"EXPORTER-beemesh-hello";
const CONTEXT: &[u8] = b"beemesh hello 1\0";

/// Kinds of frames.
pub(crate) const HELLO: u8 = 1;
pub(crate) const SETTLED: u8 = 2;

/// What this node presents: its SVID, and how it verifies others'.
pub struct Standing {
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) node: NodeId,
    key: EcdsaKeyPair,
}

impl Standing {
    /// What `identity` holds now.
    ///
    /// # Errors
    /// If it has no SVID, or one that cannot be used.
    pub fn of(identity: &Identity) -> Result<Standing, MeshError> {
        let svid = identity.svid().ok_or_else(|| MeshError::Svid("there is none yet".to_owned()))?;
        Standing::new(identity.verifier().clone(), &svid)
    }

    /// This SVID, and this verifier for the others'. It may have run out; peers grant a grace or refuse.
    ///
    /// # Errors
    /// If it is no node's, or its key does not sign.
    pub fn new(verifier: Arc<Verifier>, svid: &Credential) -> Result<Standing, MeshError> {
        let bad = |why: &dyn fmt::Display| MeshError::Svid(why.to_string());
        // What it says is asked here, not whether it is good now: at a moment when it was.
        let proven = verifier.client(&svid.chain, svid.lifetime.not_before).map_err(|e| bad(&e))?;
        let (node, _) = proven.node().ok_or_else(|| bad(&"it is no node's"))?;
        let der = svid.key_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_der()).map_err(|e| bad(&e))?;
        Ok(Standing { verifier, chain: svid.chain.clone(), node, key })
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SVID of {:?}", self.node)
    }
}

/// Which end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Dialed = 1,
    Accepted = 2,
}

impl Side {
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Dialed => Side::Accepted,
            Side::Accepted => Side::Dialed,
        }
    }
}

/// What only the two ends of one TLS connection know.
pub(crate) type Binding = [u8; 32];

/// The binding of this connection.
pub(crate) fn binding(connection: &iroh::endpoint::Connection) -> Option<Binding> {
    let mut binding = [0; 32];
    connection.export_keying_material(&mut binding, LABEL, b"").ok()?;
    Some(binding)
}

/// One start of a peer, and one of its dials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) boot: u64,
    pub(crate) dial: u64,
}

/// What one end says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    pub(crate) boot: u64,
    /// 0 from the one who accepted.
    pub(crate) dial: u64,
    pub(crate) seen: Seen,
    /// 0 at first, then counts.
    pub(crate) sequence: u32,
    pub(crate) wall: Wall,
    pub(crate) protocols: Vec<(String, Vec<u16>)>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// A hello as it came, nothing of it proven.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) hello: Hello,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

/// Why bytes are no hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Garbled(pub(crate) &'static str);

impl Hello {
    /// The body of its frame.
    pub(crate) fn seal(&self, standing: &Standing, side: Side, binding: &Binding) -> Result<Vec<u8>, MeshError> {
        let mut body = self.content();
        let signature = standing
            .key
            .sign(&SystemRandom::new(), &bound(side, binding, &body))
            .map_err(|_| MeshError::Svid("its key did not sign".to_owned()))?;
        put_bytes(&mut body, signature.as_ref());
        Ok(body)
    }

    fn content(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for number in [self.boot, self.dial, self.seen.boot, self.seen.dial] {
            out.extend(number.to_be_bytes());
        }
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.wall.0.to_be_bytes());
        // All counts and lengths are far below what their field can say: `Config::names` and a chain of ours.
        out.push(self.protocols.len() as u8);
        for (name, majors) in &self.protocols {
            out.push(name.len() as u8);
            out.extend(name.as_bytes());
            out.push(majors.len() as u8);
            majors.iter().for_each(|m| out.extend(m.to_be_bytes()));
        }
        out.push(self.chain.len() as u8);
        self.chain.iter().for_each(|der| put_bytes(&mut out, der));
        put_bytes(&mut out, b"");
        out
    }

    /// Reads a body.
    pub(crate) fn read(body: &[u8]) -> Result<Received, Garbled> {
        let mut r = Reader(body);
        if r.byte()? != VERSION {
            return Err(Garbled("its hello has a form this release does not know"));
        }
        let (boot, dial) = (r.u64()?, r.u64()?);
        let seen = Seen { boot: r.u64()?, dial: r.u64()? };
        let sequence = u32::from_be_bytes(r.fixed()?);
        let wall = Wall(r.u64()?);
        let mut protocols = Vec::new();
        // A release of tomorrow may speak more than this one could: what is beyond is read and left.
        for _ in 0..r.byte()? {
            let length = usize::from(r.byte()?);
            let name = r.take(length)?;
            let mut majors = Vec::new();
            for _ in 0..r.byte()? {
                majors.push(u16::from_be_bytes(r.fixed()?));
            }
            let name = std::str::from_utf8(name).ok().filter(|n| n.len() <= MAX_NAME && is_name(n));
            if let Some(name) = name
                && protocols.len() < 4 * MAX_PROTOCOLS
            {
                majors.truncate(4 * MAX_MAJORS);
                protocols.push((name.to_owned(), majors));
            }
        }
        let certificates = usize::from(r.byte()?);
        if !(1..=MAX_CHAIN).contains(&certificates) {
            return Err(Garbled("its chain has no certificate, or too many"));
        }
        let mut chain = Vec::new();
        for _ in 0..certificates {
            chain.push(CertificateDer::from(r.bytes(MAX_CERTIFICATE)?.to_vec()));
        }
        r.bytes(MAX_FRAME)?;
        let signed = body[..body.len() - r.0.len()].to_vec();
        let signature = r.bytes(MAX_SIGNATURE)?.to_vec();
        if !r.0.is_empty() {
            return Err(Garbled("bytes follow its hello"));
        }
        let hello = Hello { boot, dial, seen, sequence, wall, protocols, chain };
        Ok(Received { hello, signed, signature })
    }
}

impl Received {
    /// Whether the key of the chain's leaf signed this hello, on this connection, on this side. Says nothing of the
    /// chain: that is the verifier's.
    pub(crate) fn is_bound(&self, side: Side, binding: &Binding) -> bool {
        let Some(leaf) = self.hello.chain.first() else { return false };
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else { return false };
        let point = parsed.public_key().subject_public_key.data.as_ref();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
        key.verify(&bound(side, binding, &self.signed), &self.signature).is_ok()
    }
}

fn bound(side: Side, binding: &Binding, content: &[u8]) -> Vec<u8> {
    [CONTEXT, &[side as u8], binding, content].concat()
}

/// What two ends speak with each other: of each of `names` the highest major both have, if any.
pub(crate) fn negotiate(names: &[&'static str], ours: &[Protocol], theirs: &[(String, Vec<u16>)]) -> Vec<Option<u16>> {
    let highest = |name: &&'static str| {
        let theirs = theirs.iter().filter(|(n, _)| n == name).flat_map(|(_, majors)| majors);
        theirs.copied().filter(|m| ours.contains(&Protocol::new(name, *m))).max()
    };
    names.iter().map(highest).collect()
}

/// For a letter.
pub(crate) fn listed(protocols: &[(String, Vec<u16>)]) -> String {
    let one = |(name, majors): &(String, Vec<u16>)| {
        majors.iter().map(|m| format!("/beemesh/{name}/{m}")).collect::<Vec<_>>().join(" ")
    };
    protocols.iter().take(MAX_PROTOCOLS).map(one).collect::<Vec<_>>().join(" ")
}

/// Protocols as a hello lists them.
pub(crate) fn by_name(protocols: &[Protocol]) -> Vec<(String, Vec<u16>)> {
    let mut listed = std::collections::BTreeMap::<String, Vec<u16>>::new();
    for protocol in protocols {
        let majors = listed.entry(protocol.name.to_owned()).or_default();
        if !majors.contains(&protocol.major) {
            majors.push(protocol.major);
        }
    }
    listed.into_iter().collect()
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend(bytes);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Garbled> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Garbled("its hello is cut off"))?;
        self.0 = rest;
        Ok(head)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn byte(&mut self) -> Result<u8, Garbled> {
        Ok(self.fixed::<1>()?[0])
    }

    fn u64(&mut self) -> Result<u64, Garbled> {
        self.fixed().map(u64::from_be_bytes)
    }

    fn bytes(&mut self, max: usize) -> Result<&'a [u8], Garbled> {
        let length = usize::from(u16::from_be_bytes(self.fixed()?));
        if length > max {
            return Err(Garbled("a part of its hello is too long"));
        }
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Chance;

    fn hello() -> Hello {
        Hello {
            boot: 0x0102_0304_0506_0708,
            dial: 9,
            seen: Seen { boot: 10, dial: 11 },
            sequence: 12,
            wall: Wall(1_769_846_400_000),
            protocols: vec![("cell".into(), vec![1, 2]), ("pair".into(), vec![1])],
            chain: vec![CertificateDer::from(vec![0xaa; 3]), CertificateDer::from(vec![0xbb; 2])],
        }
    }

    fn sealed() -> Vec<u8> {
        let mut body = hello().content();
        put_bytes(&mut body, &[0xcc; 4]);
        body
    }

    #[test]
    fn a_hello_reads_back_what_it_wrote_and_its_bytes_are_kept_for_ever() {
        let received = Hello::read(&sealed()).unwrap();
        assert_eq!(received.hello, hello());
        assert_eq!(received.signature, [0xcc; 4]);
        assert_eq!(received.signed, hello().content());
        let hex: String = sealed().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("../tests/golden/hello-1.hex").trim());
    }

    #[test]
    fn no_bytes_make_a_reader_fail_otherwise_than_by_saying_so() {
        let whole = sealed();
        for cut in 0..whole.len() {
            assert!(Hello::read(&whole[..cut]).is_err(), "{cut}");
        }
        let mut chance = Chance::from_u64(1);
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..=chance.below(4) {
                let at = chance.below(bytes.len() as u64) as usize;
                bytes[at] = chance.u64() as u8;
            }
            if let Ok(read) = Hello::read(&bytes) {
                assert!(!read.is_bound(Side::Dialed, &[0; 32]), "three bytes are no certificate");
            }
        }
    }

    #[test]
    fn what_a_later_release_adds_is_passed_over_and_signed_all_the_same() {
        let mut body = hello().content();
        body.truncate(body.len() - 2);
        put_bytes(&mut body, b"something new");
        let content = body.clone();
        put_bytes(&mut body, &[0xcc; 4]);
        let received = Hello::read(&body).unwrap();
        assert_eq!((received.hello, received.signed), (hello(), content));
    }

    #[test]
    fn of_each_name_the_highest_common_major_is_spoken() {
        let ours = [Protocol::new("cell", 1), Protocol::new("cell", 2), Protocol::new("pair", 3)];
        let names = ["cell", "pair"];
        let theirs =
            |cell: &[u16], pair: &[u16]| vec![("cell".to_owned(), cell.to_vec()), ("pair".into(), pair.to_vec())];
        for (cell, pair, spoken) in [
            (&[1, 2, 3][..], &[3][..], [Some(2), Some(3)]),
            (&[1], &[4], [Some(1), None]),
            (&[], &[], [None, None]),
            (&[9, 1], &[2, 3], [Some(1), Some(3)]),
        ] {
            assert_eq!(negotiate(&names, &ours, &theirs(cell, pair)), spoken, "{cell:?} {pair:?}");
        }
        assert_eq!(negotiate(&names, &ours, &[("other".into(), vec![1])]), [None, None]);
        assert_eq!(listed(&by_name(&ours)), "/beemesh/cell/1 /beemesh/cell/2 /beemesh/pair/3");
    }
}
