//! Where nodes may be: hints, never trusted. Whoever answers at an address proves its key, so that a wrong hint
//! costs a knock at a wrong door and nothing else.
//!
//! Hints come from tickets, from the directory, from links that were there, and, if the node is told to listen,
//! from the local network by mDNS. There anybody can say anything, and flood: what mDNS says is asked for only
//! about nodes that are to be dialled.

use crate::MeshError;
use crate::peers::Inner;
use base::NodeId;
use futures_util::StreamExt;
use iroh_mdns_address_lookup::{DiscoveryEvent, MdnsAddressLookup};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

/// Of one node so many addresses are remembered, the latest.
pub const MAX_ADDRESSES: usize = 8;
/// Of so many nodes addresses are remembered, those heard of last.
pub const MAX_HINTED: usize = 16 * 1024;

/// What this mesh's nodes are called on the local network; iroh's own programs there use another name.
const LAN_NAME: &str = "beemesh";

#[derive(Debug, Default)]
pub(crate) struct Hints {
    nodes: HashMap<NodeId, (u64, Vec<SocketAddr>)>,
    by_age: BTreeMap<u64, NodeId>,
    age: u64,
}

impl Hints {
    /// Remembers addresses, before those known or after them. Says whether one was new, and how many nodes were forgotten for it.
    pub(crate) fn add(&mut self, node: NodeId, addresses: &[SocketAddr], first: bool) -> (bool, usize) {
        let usable: Vec<SocketAddr> = addresses.iter().copied().filter(is_usable).take(MAX_ADDRESSES).collect();
        if usable.is_empty() {
            return (false, 0);
        }
        self.age += 1;
        let (age, known) = self.nodes.entry(node).or_default();
        self.by_age.remove(age);
        *age = self.age;
        self.by_age.insert(self.age, node);
        let is_new = usable.iter().any(|a| !known.contains(a));
        let (head, tail) = if first { (usable, std::mem::take(known)) } else { (std::mem::take(known), usable) };
        for address in head.into_iter().chain(tail) {
            if known.len() < MAX_ADDRESSES && !known.contains(&address) {
                known.push(address);
            }
        }
        let mut forgotten = 0;
        while self.nodes.len() > MAX_HINTED
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.nodes.remove(&oldest);
            forgotten += 1;
        }
        (is_new, forgotten)
    }

    pub(crate) fn of(&self, node: NodeId) -> Vec<SocketAddr> {
        self.nodes.get(&node).map(|(_, addresses)| addresses.clone()).unwrap_or_default()
    }
}

fn is_usable(address: &SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// Announces this node on the local network and looks up others there when they are dialled. What is overheard
/// about nodes that have hints or a link already is added to those; strangers are not remembered, so that nobody
/// on the network can push out what tickets and the directory said.
pub(crate) fn listen(inner: &Arc<Inner>) -> Result<(), MeshError> {
    let lan = |why: &dyn std::fmt::Display| MeshError::Lan(why.to_string());
    let builder = MdnsAddressLookup::builder().service_name(LAN_NAME);
    let mdns = builder.build(inner.socket.id()).map_err(|e| lan(&e))?;
    inner.socket.look_up_by(mdns.clone())?;
    let weak: Weak<Inner> = Arc::downgrade(inner);
    let mut stop = inner.stop.subscribe();
    tokio::spawn(async move {
        let mut heard = mdns.subscribe().await;
        loop {
            let event = tokio::select! {
                event = heard.next() => event,
                _ = stop.changed() => return,
            };
            let (Some(event), Some(inner)) = (event, weak.upgrade()) else { return };
            if let DiscoveryEvent::Discovered { endpoint_info, .. } = event {
                let addresses: Vec<SocketAddr> = endpoint_info.data.ip_addrs().copied().collect();
                inner.overheard(NodeId(*endpoint_info.endpoint_id.as_bytes()), &addresses);
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: usize) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn the_latest_hints_are_kept_and_no_more_than_the_bound() {
        let mut hints = Hints::default();
        assert_eq!(hints.add(node(1), &[at(1), at(2)], true), (true, 0));
        assert_eq!(hints.add(node(1), &[at(2), at(3)], true), (true, 0));
        assert_eq!(hints.of(node(1)), [at(2), at(3), at(1)]);
        assert_eq!(hints.add(node(1), &[at(3)], true), (false, 0));
        assert_eq!(hints.add(node(1), &[at(4)], false), (true, 0));
        assert_eq!(hints.of(node(1)), [at(3), at(2), at(1), at(4)]);
        hints.add(node(1), &(100..200).map(at).collect::<Vec<_>>(), true);
        assert_eq!(hints.of(node(1)), (100..108).map(at).collect::<Vec<_>>());
    }

    #[test]
    fn beyond_the_bound_the_node_heard_of_longest_ago_is_forgotten() {
        let mut hints = Hints::default();
        for n in 0..MAX_HINTED {
            hints.add(node(n), &[at(1)], true);
        }
        hints.add(node(0), &[at(2)], true);
        assert_eq!(hints.add(node(MAX_HINTED), &[at(1)], true), (true, 1));
        assert!(hints.of(node(1)).is_empty() && !hints.of(node(0)).is_empty());
        assert_eq!((hints.nodes.len(), hints.by_age.len()), (MAX_HINTED, MAX_HINTED));
    }

    #[test]
    fn what_nobody_can_dial_is_no_hint() {
        let mut hints = Hints::default();
        let bad = ["0.0.0.0:1", "10.0.0.1:0", "255.255.255.255:7", "224.0.0.1:7", "[::]:7", "[ff02::1]:7"];
        let bad: Vec<SocketAddr> = bad.iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(hints.add(node(1), &bad, true), (false, 0));
        assert!(hints.of(node(1)).is_empty());
    }
}
