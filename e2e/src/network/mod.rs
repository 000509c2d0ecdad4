//! A network of machines whose every way can be cut, slowed and lifted again while all runs, for stories of many
//! machines.
//!
//! ```no_run
//! use e2e::{Fault, Loss, Machine, Model, Network, Place};
//! # fn main() -> anyhow::Result<()> {
//! let place = Place::new("two-machines")?;
//! let network = Network::new(&["ant", "bee"])?;
//! let ant = Machine::plugged(&place, Model::new("ant")?, &network)?;
//! let bee = Machine::plugged(&place, Model::new("bee")?, &network)?;
//! ant.ok(&["getent", "hosts", "bee"])?;
//!
//! // A fault is a value: set, and lifted by the same value, or all at once by `heal`.
//! let deaf = Fault::one_way("ant", "bee");
//! network.set(&deaf)?;
//! network.lift(&deaf)?;
//!
//! // A machine is frozen and thawed, or its plug is pulled; the others and their disks are untouched.
//! bee.freeze()?;
//! bee.thaw()?;
//! bee.power_cut(Loss::Everything)?;
//! bee.boot()?;
//! # Ok(())
//! # }
//! ```
//!
//! # How to write a story of many machines
//!
//! - Name all machines when the network is made. A name has the same addresses ([`Network::address`],
//!   [`Network::address_v6`]) from then on, across power cuts, and each machine finds the others by name.
//! - [`Machine::plugged`](crate::Machine::plugged) makes a machine with a disk, processes and control groups of its
//!   own and plugs its `eth0` in. Model it [`forgetting`](crate::Model::forgetting) where a power cut shall take what
//!   was not synced. Start several on threads; most of a start is waiting.
//! - [`Options::with_pods`](crate::Options::with_pods) and [`Node`](crate::Node) start a `beemesh` on it with a
//!   containerd of its own. [`Machine::outside`](crate::Machine::outside) is where the test serves a
//!   [`Registry`](crate::Registry). `scenarios/hosts.rs` is a stage that has done all this.
//! - The test is plugged in too, as [`TEST`], so that kubectl reaches every machine's API. No fault between machines
//!   is one between a machine and the test, unless it names that.
//! - [`Network::behind`] puts a router with a [`Nat`] into a port and makes the network behind it.
//! - Wait for what a fault does, never for a time: until the switch has lost a frame ([`Network::traffic`]), until a
//!   command says something. A socket of the test's own inside a machine ([`Machine::inside`](crate::Machine::inside))
//!   is the lightest way to ask whether something passes.
//! - Nothing is to be cleaned up: handles take away what is theirs, and network cards, namespaces and processes go
//!   with the test's process however that ends. What lies on disks and in control groups of a test that was killed is
//!   removed by the next one's [`Place`](crate::Place).
//!
//! # What is not acted
//!
//! All machines share one kernel and one clock, so none can be minutes off. A frozen machine's kernel
//! would go on acknowledging for it; therefore its port is silent while it is frozen. Delays are exact to a
//! millisecond or two. The switch hands over some 70,000 frames a second, fewer than a cable would; nothing measured
//! here is a network's throughput.

mod fault;
mod namespace;
mod number;
mod router;
mod switch;
mod tap;

pub use fault::Fault;
pub use namespace::Namespace;
pub use router::Nat;
pub use switch::Traffic;

use crate::{process, until};
use anyhow::{Context, Result, bail};
use number::Number;
use router::Router;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use switch::Switch;

/// The name of the test's own port.
pub const TEST: &str = "test";

/// The ports before those of the machines: the test's, and that of the router to what is outside.
const TEST_PORT: usize = 0;
const ROUTER_PORT: usize = 1;
const FIRST_PORT: usize = 2;

/// A switch with machines at it. All of it goes when the last handle goes, and machines hold one.
#[derive(Debug)]
pub struct Network {
    // Before the switch: its cards are in there.
    router: Option<Router>,
    names: Vec<String>,
    switch: Switch,
    // After the switch, whose cards have the number in their names.
    number: Number,
}

impl Network {
    /// A network with a port for each of these names.
    ///
    /// # Errors
    /// Without root or `/dev/net/tun`; if a name is there twice, or is `test` or `router`, which each network has.
    pub fn new(names: &[&str]) -> Result<Arc<Network>> {
        Ok(Arc::new(Network::unconnected(names)?))
    }

    /// A network behind a router that translates addresses; `name` is the router's port in this one.
    ///
    /// # Errors
    /// As [`Network::new`], or if there is no such port; if this kernel cannot translate addresses.
    pub fn behind(self: &Arc<Network>, name: &str, nat: Nat, names: &[&str]) -> Result<Arc<Network>> {
        let mut network = Network::unconnected(names)?;
        network.router = Some(Router::start(self, name, nat, &network, ROUTER_PORT)?);
        Ok(Arc::new(network))
    }

    fn unconnected(names: &[&str]) -> Result<Network> {
        let names: Vec<String> = [TEST, "router"].iter().chain(names).map(|name| (*name).to_owned()).collect();
        if let Some(twice) = names.iter().enumerate().find_map(|(n, name)| names[..n].contains(name).then_some(name)) {
            bail!("two ports of a network are named {twice}");
        }
        if names.len() > usize::from(number::PORTS) {
            bail!("a network has {} ports at most", number::PORTS);
        }
        let network = Network { switch: Switch::new(&names)?, names, router: None, number: Number::free()? };
        let card = network.number.card();
        plug_here(&network, TEST_PORT, &card)?;
        // A machine's packets to another network end here, also where this machine forwards others.
        fs::write(format!("/proc/sys/net/ipv4/conf/{card}/forwarding"), "0")?;
        Ok(network)
    }

    /// The address of a name.
    ///
    /// # Errors
    /// If there is no such name.
    pub fn address(&self, name: &str) -> Result<Ipv4Addr> {
        Ok(self.number.address(self.port(name)?))
    }

    /// The address of a name, of the other family: a unique local one (RFC 4193).
    ///
    /// # Errors
    /// If there is no such name.
    pub fn address_v6(&self, name: &str) -> Result<Ipv6Addr> {
        Ok(self.number.address_v6(self.port(name)?))
    }

    /// Lets a fault be. Returns when it holds: no frame passes any more that it takes.
    ///
    /// # Errors
    /// If it names what is not plugged in here, or holds already.
    pub fn set(&self, fault: &Fault) -> Result<()> {
        if let Some(name) = fault.unknown(&self.names) {
            bail!("no port of the network is named {name}");
        }
        self.switch.faults(|faults| {
            if faults.contains(fault) {
                bail!("this fault is there already: {fault:?}");
            }
            faults.push(fault.clone());
            Ok(())
        })
    }

    /// Undoes a fault.
    ///
    /// # Errors
    /// If it was not set.
    pub fn lift(&self, fault: &Fault) -> Result<()> {
        self.switch.faults(|faults| {
            let at = faults.iter().position(|f| f == fault).with_context(|| format!("there is no {fault:?}"))?;
            faults.remove(at);
            Ok(())
        })
    }

    /// Undoes all faults.
    pub fn heal(&self) {
        self.switch.faults(Vec::clear);
    }

    /// What went from one name to another since the network is there.
    ///
    /// # Errors
    /// If there is no such name.
    pub fn traffic(&self, from: &str, to: &str) -> Result<Traffic> {
        Ok(self.switch.traffic(self.port(from)?, self.port(to)?))
    }

    fn port(&self, name: &str) -> Result<usize> {
        let at = self.names.iter().position(|n| n == name);
        at.with_context(|| format!("no port of the network is named {name}"))
    }
}

/// How long a network card's name may be taken by one that is on its way out.
const CARD_WITHIN: Duration = Duration::from_secs(10);

/// Plugs a network card of that name, in the namespace of this thread, into a port, with the port's addresses.
fn plug_here(network: &Network, port: usize, card: &str) -> Result<()> {
    // A process that is just being started may hold the card of an earlier network of this number until it is.
    let open = || match tap::open(card) {
        Err(e) if e.downcast_ref() == Some(&nix::errno::Errno::EBUSY) => Ok(None),
        other => other.map(Some),
    };
    network.switch.plug(port, until(&format!("the network card {card}"), CARD_WITHIN, open)?)?;
    ip(&["link", "set", card, "address", &network.number.hardware(port)])?;
    for address in network.number.addresses(port) {
        add_address(&address, card)?;
    }
    ip(&["link", "set", card, "up"])
}

/// Duplicates are not looked for, as that takes a second: these are of one number.
pub(crate) fn add_address(address: &str, card: &str) -> Result<()> {
    let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
    ip(&[&["addr", "add", address, "dev", card], nodad].concat())
}

pub(crate) fn ip(args: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(args);
    process::answer(command, &format!("ip {}", args.join(" ")), "").context("ip (package iproute2)")?.success()?;
    Ok(())
}

/// A machine's place at a switch.
#[derive(Debug)]
pub(crate) struct Plug {
    network: Arc<Network>,
    port: usize,
}

impl Plug {
    /// The port of that name.
    pub(crate) fn new(network: &Arc<Network>, name: &str) -> Result<Plug> {
        let port = network.port(name)?;
        if port < FIRST_PORT {
            bail!("the port {name} is no machine's");
        }
        Ok(Plug { network: network.clone(), port })
    }

    pub(crate) fn inside(&self) -> Ipv4Addr {
        self.network.number.address(self.port)
    }

    pub(crate) fn outside(&self) -> Ipv4Addr {
        self.network.number.address(TEST_PORT)
    }

    /// Addresses with the lengths of their prefixes.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.network.number.addresses(self.port).to_vec()
    }

    /// Where what is not of this network goes: to its router; without one to the test, which forwards nothing.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.network.number.address(if self.network.router.is_some() { ROUTER_PORT } else { TEST_PORT })
    }

    /// The lines of `/etc/hosts` that tell where the others are.
    pub(crate) fn hosts(&self) -> String {
        let all = self.network.names.iter().enumerate().skip(FIRST_PORT);
        let number = &self.network.number;
        all.map(|(port, name)| format!("{} {name}\n{} {name}\n", number.address(port), number.address_v6(port)))
            .collect()
    }

    /// Plugs it in, as eth0 of that namespace.
    pub(crate) fn plug(&self, into: &Namespace) -> Result<()> {
        into.inside(|| {
            self.network.switch.plug(self.port, tap::open("eth0")?)?;
            ip(&["link", "set", "eth0", "address", &self.network.number.hardware(self.port)])
        })
    }

    /// From now on nobody hears of the machine and it hears of nobody, or again.
    pub(crate) fn silence(&self, silent: bool) {
        self.network.switch.silence(self.port, silent);
    }

    /// Takes it out, when nothing runs there any more.
    pub(crate) fn pull(&self) {
        self.network.switch.unplug(self.port);
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        self.pull();
    }
}
