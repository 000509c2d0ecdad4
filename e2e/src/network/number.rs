//! Addresses that no other network of a test here has.

use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The private block (RFC 1918) that networks of tests are cut from: 10.77.N.0/24.
const BLOCK: [u8; 2] = [10, 77];
/// The same for IPv6 (RFC 4193): fd77:beee:e2e:N::/64.
const BLOCK_V6: [u16; 3] = [0xfd77, 0xbeee, 0x0e2e];
/// So many ports a network may have.
pub(super) const PORTS: u8 = 250;

/// A place in the numbering.
#[derive(Debug)]
pub(super) struct Number {
    number: u8,
    /// A name in the kernel that this process holds, in this network namespace: whoever has it has the number.
    _held: UnixDatagram,
}

impl Number {
    /// Finds a free one.
    pub(super) fn free() -> Result<Number> {
        for number in 0..=u8::MAX {
            let name = SocketAddr::from_abstract_name(format!("beemesh-e2e-network-{number}"))?;
            match UnixDatagram::bind_addr(&name) {
                Ok(held) => return Ok(Number { number, _held: held }),
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(e) => return Err(e).context("cannot hold a number for a network"),
            }
        }
        bail!("256 networks of tests are there already")
    }

    /// The name of the test's network card.
    pub(super) fn card(&self) -> String {
        format!("bm-e2e-net{}", self.number)
    }

    pub(super) fn address(&self, port: usize) -> Ipv4Addr {
        Ipv4Addr::new(BLOCK[0], BLOCK[1], self.number, host(port))
    }

    pub(super) fn address_v6(&self, port: usize) -> Ipv6Addr {
        let [a, b, c] = BLOCK_V6;
        Ipv6Addr::new(a, b, c, self.number.into(), 0, 0, 0, host(port).into())
    }

    /// Both, each with the length of its prefix.
    pub(super) fn addresses(&self, port: usize) -> [String; 2] {
        [format!("{}/24", self.address(port)), format!("{}/64", self.address_v6(port))]
    }

    /// The hardware address of a port's card: a locally administered one, the same after each boot, so that nobody
    /// asks a neighbour of old.
    pub(super) fn hardware(&self, port: usize) -> String {
        format!("02:be:e0:00:{:02x}:{:02x}", self.number, host(port))
    }
}

/// The last number of a port's addresses. The first ports have the first.
fn host(port: usize) -> u8 {
    u8::try_from(port + 1).unwrap_or(u8::MAX)
}
