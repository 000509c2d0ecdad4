//! Signatures for tests: a hash of who signs, what for and what. Node `n` has the key `n`; root has 0.

use super::{Key, Keys, NodeRecord, mix};
use alloc::vec::Vec;
use base::NodeId;
use bytes::Bytes;

/// The keys of node `n`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TestKeys(pub u64);

/// The node with this key.
pub(super) fn node(n: u64) -> NodeId {
    let mut id = [n as u8; 32];
    id[..8].copy_from_slice(&n.to_le_bytes());
    NodeId(id)
}

impl TestKeys {
    pub(super) fn signature(n: u64, about: Key, bytes: &[u8]) -> Bytes {
        let all: Vec<u8> = [&n.to_le_bytes()[..], about.context(), bytes].concat();
        Bytes::copy_from_slice(&mix(&all).to_le_bytes())
    }
}

impl Keys for TestKeys {
    fn sign(&self, about: Key, bytes: &[u8]) -> Bytes {
        Self::signature(self.0, about, bytes)
    }

    fn by_node(&self, node: &NodeId, about: Key, bytes: &[u8], signature: &[u8]) -> bool {
        let n = u64::from_le_bytes(node.0[..8].try_into().unwrap_or_default());
        Self::signature(n, about, bytes) == signature
    }

    fn by_root(&self, about: Key, bytes: &[u8], signature: &[u8]) -> bool {
        Self::signature(0, about, bytes) == signature
    }

    fn admits(&self, record: &NodeRecord) -> bool {
        record.proof != b"expelled"[..]
    }
}
