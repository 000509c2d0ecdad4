//! The cable between a machine and the test: a veth pair, with addresses nobody else here uses.

use crate::network::ip;
use anyhow::{Context, Result, bail};
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Set aside for tests of network devices (RFC 2544): no network that a test could reach by mistake.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// So many pairs of addresses fit in 198.18.0.0/15 in blocks of four.
const PAIRS: u32 = 1 << 15;

/// A place in the numbering, and the cable of that number.
#[derive(Debug)]
pub(super) struct Cable {
    number: u32,
    /// A name in the kernel that this process holds, in this network namespace: whoever has it has the number.
    _held: UnixDatagram,
}

impl Cable {
    /// Finds a free number.
    pub(super) fn number() -> Result<Cable> {
        for number in 0..PAIRS {
            let name = SocketAddr::from_abstract_name(format!("beemesh-e2e-cable-{number}"))?;
            match UnixDatagram::bind_addr(&name) {
                Ok(held) => return Ok(Cable { number, _held: held }),
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(e) => return Err(e).context("cannot hold a number for a cable"),
            }
        }
        bail!("{PAIRS} test machines are there already")
    }

    /// The test's address.
    pub(super) fn outside(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The machine's address.
    pub(super) fn inside(&self) -> Ipv4Addr {
        self.address(2)
    }

    fn address(&self, of_four: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(FIRST) + self.number * 4 + of_four)
    }

    fn link(&self) -> String {
        format!("bm-e2e-{}", self.number)
    }

    /// Plugs it in: one end here, the other as eth0 where that process is.
    pub(super) fn plug(&self, into: u32) -> Result<()> {
        let link = self.link();
        // The kernel takes a cable away some time after the machine at its end has gone.
        let _ = ip(&["link", "delete", &link]);
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &into.to_string()])?;
        ip(&["addr", "add", &format!("{}/30", self.outside()), "dev", &link])?;
        ip(&["link", "set", &link, "up"])
    }

    /// Pulls it out: nothing passes, and nobody hears a last word of the machine's. Or puts it back.
    pub(super) fn silence(&self, silent: bool) -> Result<()> {
        ip(&["link", "set", &self.link(), if silent { "down" } else { "up" }])
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // It goes with the machine anyway, only later.
        let _ = ip(&["link", "delete", &self.link()]);
    }
}
