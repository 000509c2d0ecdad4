//! A router that translates addresses, between a network and one behind it: two network cards in a namespace of
//! their own, and the kernel's connection tracking.

use super::{Namespace, Network, plug_here};
use crate::process;
use anyhow::{Context, Result};
use std::fs;
use std::process::Command;
use std::sync::Arc;

/// How a router chooses the port that stands for a machine behind it (RFC 4787, section 4.1). Either lets in only what
/// answers (address and port dependent filtering, section 5), and drops the rest without a word. IPv4 alone is
/// translated, and IPv6 ends at the router, as in most homes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nat {
    /// Another port for every peer: what a peer has learnt of the port is of no use to another.
    Symmetric,
    /// The same port for all peers: the machine's own. Two machines behind it that use one port share it as Linux has
    /// it: only the first keeps it.
    EndpointIndependent,
}

/// A running router. It goes when the handle goes.
#[derive(Debug)]
pub(super) struct Router {
    _namespace: Namespace,
    outside: Arc<Network>,
    /// Its port there.
    port: usize,
}

impl Router {
    /// Connects the port of that name of the network outside with a port of the one inside.
    pub(super) fn start(outside: &Arc<Network>, name: &str, nat: Nat, inside: &Network, port: usize) -> Result<Router> {
        let namespace = Namespace::new()?;
        let outer = outside.port(name)?;
        namespace.inside(|| {
            plug_here(outside, outer, "outside")?;
            plug_here(inside, port, "inside")?;
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            let mut nft = Command::new("nft");
            nft.args(["-f", "-"]);
            let loaded = process::answer(nft, "nft -f -", rules(nat)).context("nft (package nftables)")?;
            loaded.success().context("this kernel translates no addresses (nf_tables, nf_conntrack, nf_nat)")
        })?;
        Ok(Router { _namespace: namespace, outside: outside.clone(), port: outer })
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.outside.switch.unplug(self.port);
    }
}

/// What nobody asked for is dropped and not refused: connection tracking would keep the refused one for a connection,
/// and translate the machine's own to that peer in another way than all others.
fn rules(nat: Nat) -> String {
    let port = match nat {
        Nat::Symmetric => " random,fully-random",
        Nat::EndpointIndependent => "",
    };
    format!(
        "table ip translation {{
            chain out {{
                type nat hook postrouting priority srcnat; policy accept;
                oifname outside masquerade{port};
            }}
        }}
        table inet door {{
            chain to_the_router {{
                type filter hook input priority filter; policy drop;
                iifname {{ lo, inside }} accept;
                ct state established,related accept;
            }}
            chain through {{
                type filter hook forward priority filter; policy drop;
                iifname inside accept;
                ct state established,related accept;
            }}
        }}"
    )
}
