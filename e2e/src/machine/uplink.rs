//! What a machine's `eth0` is plugged into: a cable to the test alone, or a network of machines.

use super::cable::Cable;
use crate::network::{Namespace, Plug};
use anyhow::Result;
use nix::unistd::Pid;
use std::net::Ipv4Addr;

#[derive(Debug)]
pub(super) enum Uplink {
    Cable(Cable),
    Plug(Plug),
}

impl Uplink {
    /// The machine's address.
    pub(super) fn inside(&self) -> Ipv4Addr {
        match self {
            Uplink::Cable(cable) => cable.inside(),
            Uplink::Plug(plug) => plug.inside(),
        }
    }

    /// The test's address.
    pub(super) fn outside(&self) -> Ipv4Addr {
        match self {
            Uplink::Cable(cable) => cable.outside(),
            Uplink::Plug(plug) => plug.outside(),
        }
    }

    /// Where the machine sends what is for elsewhere.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        match self {
            Uplink::Cable(cable) => cable.outside(),
            Uplink::Plug(plug) => plug.gateway(),
        }
    }

    /// The machine's addresses with the lengths of their prefixes.
    pub(super) fn addresses(&self) -> Vec<String> {
        match self {
            Uplink::Cable(cable) => vec![format!("{}/30", cable.inside())],
            Uplink::Plug(plug) => plug.addresses(),
        }
    }

    /// Lines of `/etc/hosts`, of machines that it may speak to.
    pub(super) fn hosts(&self) -> String {
        match self {
            Uplink::Cable(_) => String::new(),
            Uplink::Plug(plug) => plug.hosts(),
        }
    }

    /// Plugs it in, as eth0 where that process is.
    pub(super) fn plug(&self, into: Pid) -> Result<()> {
        match self {
            Uplink::Cable(cable) => cable.plug(into.as_raw().unsigned_abs()),
            Uplink::Plug(plug) => plug.plug(&Namespace::of(into)?),
        }
    }

    /// Nothing passes, and nobody hears a last word of the machine's; or everything passes again.
    pub(super) fn silence(&self, silent: bool) -> Result<()> {
        match self {
            Uplink::Cable(cable) => cable.silence(silent),
            Uplink::Plug(plug) => {
                plug.silence(silent);
                Ok(())
            }
        }
    }

    /// Takes it out, when nothing runs there any more.
    pub(super) fn pull(&self) {
        match self {
            // It goes with the machine's end of it.
            Uplink::Cable(_) => {}
            Uplink::Plug(plug) => plug.pull(),
        }
    }
}
