//! The node's own Node object: made when the registry takes writes, kept true afterwards; and its Lease,
//! renewed now and then.

use crate::backend::{Node, system};
use crate::config::Config;
use crate::driver::clock;
use crate::lease;
use crate::node_object::{self, Facts, pod_networks};
use host::facts::Facts as Machine;
use objects::Tree;
use objects::kinds;
use objects::request::{Body, Options, Request, Verb};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the node looks whether its object is still true.
const EVERY: Duration = Duration::from_secs(10);
/// The pause after a first failure, doubled after each up to [`EVERY`].
const FIRST: Duration = Duration::from_millis(250);
/// How often somebody else may have been first with a change of the object before that counts as a failure.
const CONFLICTS: u32 = 5;

/// When the object is looked at again: a conflict says only that it has changed, and what it is now can be read at once.
#[derive(Default)]
struct Pace {
    conflicts: u32,
    failures: u32,
}

impl Pace {
    /// The pause after this; `chance` is any number, so that nodes that fail together do not come back together.
    fn after<T>(&mut self, done: &Result<T, (u16, String)>, chance: u64) -> Duration {
        match done {
            Ok(_) => {
                *self = Pace::default();
                EVERY
            }
            Err((409, _)) if self.conflicts < CONFLICTS => {
                self.conflicts += 1;
                Duration::ZERO
            }
            Err(_) => {
                let most = FIRST.saturating_mul(1 << self.failures.min(16)).min(EVERY);
                (self.conflicts, self.failures) = (0, self.failures.saturating_add(1));
                // Between a half and the whole of it.
                most / 2 + most.mul_f64((chance >> 11) as f64 / (1u64 << 54) as f64)
            }
        }
    }
}

/// What the container runtime says of itself: nothing while it does not answer.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct RuntimeFacts {
    /// `containerd://1.6.20`.
    pub(crate) version: Option<String>,
    /// Names and bytes of its images.
    pub(crate) images: Vec<(Vec<String>, u64)>,
}

/// Keeps the Node object until stopped; sends the pods' networks once they are known.
pub(crate) async fn run(
    config: Config,
    backend: Arc<Node>,
    mut runtime: watch::Receiver<RuntimeFacts>,
    registered: watch::Sender<Option<Tree>>,
    mut stopped: watch::Receiver<bool>,
) {
    let machine = machine();
    let mut renewed: Option<Instant> = None;
    let mut pace = Pace::default();
    loop {
        let facts = facts(&config, &machine, &runtime.borrow_and_update().clone());
        let done = once(&config, &backend, &facts).await;
        let pause = pace.after(&done, backend.driver().request_chance().2);
        match done {
            Ok(node) => {
                if renewed.is_none_or(|at| at.elapsed() >= lease::EVERY) {
                    match lease::renew(&backend, &node, clock::wall()).await {
                        Ok(()) => renewed = Some(Instant::now()),
                        Err(why) => {
                            tracing::debug!(node = %config.name, %why, "the node's Lease could not be renewed; trying again")
                        }
                    }
                }
                registered.send_if_modified(|known| {
                    let new = known.as_ref() != Some(&node);
                    *known = Some(node);
                    new
                });
            }
            Err((_, why)) if pause.is_zero() => {
                tracing::debug!(node = %config.name, %why, "the Node object was changed by others; looking again");
            }
            Err((_, why)) => {
                tracing::warn!(node = %config.name, %why, "the Node object could not be brought up to date; trying again");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = runtime.changed() => {}
            _ = stopped.changed() => return,
        }
    }
}

/// This machine, read once: it does not change while it runs.
pub(crate) fn machine() -> Machine {
    static READ: OnceLock<Machine> = OnceLock::new();
    READ.get_or_init(Machine::read).clone()
}

fn facts(config: &Config, machine: &Machine, runtime: &RuntimeFacts) -> Facts {
    let disk = host::facts::disk(&config.data).ok();
    let disk_bytes = disk.map_or(0, |d| d.bytes);
    let disk_free = disk.map_or(u64::MAX, |d| d.bytes_free);
    let mut pressure = Vec::new();
    // The kubelet's own thresholds (eviction signals nodefs.available and memory.available).
    if disk_free < disk_bytes / 10 {
        pressure.push(("DiskPressure", format!("{} MiB of the disk are free", disk_free >> 20)));
    }
    if let Some(free) = host::facts::memory_available().filter(|bytes| *bytes < 100 << 20) {
        pressure.push(("MemoryPressure", format!("{} MiB of memory are available", free >> 20)));
    }
    Facts {
        cpus: machine.cpus,
        memory_kib: machine.memory_bytes >> 10,
        disk_bytes,
        addresses: addresses(),
        runtime: runtime.version.clone(),
        images: runtime.images.clone(),
        info: vec![
            ("machineID", machine.machine_id.clone()),
            ("systemUUID", machine.system_uuid.clone()),
            ("bootID", machine.boot_id.clone()),
            ("kernelVersion", machine.kernel.clone()),
            ("osImage", machine.os_image.clone()),
            ("kubeletVersion", crate::backend::version().git_version),
            ("kubeProxyVersion", String::new()),
            ("operatingSystem", "linux".to_owned()),
            ("architecture", machine.architecture.to_owned()),
        ],
        pressure,
    }
}

/// All Nodes there are.
async fn nodes(config: &Config, backend: &Node) -> Result<Vec<Tree>, (u16, String)> {
    let list = ask(config, backend, Verb::List, "", Body::None).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

async fn once(config: &Config, backend: &Node, facts: &Facts) -> Result<Tree, (u16, String)> {
    let id = backend.identity().node_id();
    let have = match ask(config, backend, Verb::Get, "", Body::None).await {
        Ok(tree) => tree,
        Err((404, _)) => {
            let nodes = nodes(config, backend).await?;
            let domain = backend.identity().trust_domain().to_string();
            let cidrs = pod_networks(&domain, id, &nodes);
            let body = Body::Object { tree: node_object::fresh(config, id, &cidrs), strict: Vec::new() };
            ask(config, backend, Verb::Create, "", body).await?
        }
        Err(other) => return Err(other),
    };
    let mut want = have.clone();
    node_object::own(config, id, &[], &mut want);
    if want != have {
        let body = Body::Object { tree: want.clone(), strict: Vec::new() };
        want = ask(config, backend, Verb::Update, "", body).await?;
    }
    let mut with_status = want.clone();
    node_object::status(config, facts, clock::wall(), &mut with_status["status"]);
    if with_status != want {
        let body = Body::Object { tree: with_status, strict: Vec::new() };
        want = ask(config, backend, Verb::Update, "status", body).await?;
    }
    Ok(want)
}

async fn ask(config: &Config, backend: &Node, verb: Verb, sub: &str, body: Body) -> Result<Tree, (u16, String)> {
    let kind = kinds::by_kind("", "v1", "Node").ok_or((500, "there is no kind Node".to_owned()))?;
    let (id, uid, suffix) = backend.driver().request_chance();
    let request = Request {
        id,
        sent: clock::wall(),
        user: Arc::new(system()),
        verb,
        kind,
        namespace: None,
        name: (!matches!(verb, Verb::Create | Verb::List)).then(|| config.name.as_str().into()),
        subresource: sub.into(),
        options: Options { field_manager: "beemesh".into(), ..Options::default() },
        body,
        uid,
        suffix,
    };
    backend.tree(request).await.map_err(|s| (s.code, s.message))
}

/// Beginnings of the names of interfaces that lead to containers and virtual machines of this machine: their
/// addresses are known nowhere else.
const INWARD: [&str; 7] = ["beemesh", "cni", "docker", "veth", "virbr", "flannel", "cali"];

/// An address of this machine, and the interface that has it.
struct Held {
    interface: String,
    address: IpAddr,
    up: bool,
    /// It joins interfaces of this machine: containers' and virtual machines', as a rule.
    bridge: bool,
}

/// This machine's addresses other machines may reach it at, of each family first the one it goes out by.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let held = all.filter_map(|i| {
        let a = i.address?;
        let v4 = a.as_sockaddr_in().map(|s| IpAddr::V4(s.ip()));
        let address = v4.or_else(|| a.as_sockaddr_in6().map(|s| IpAddr::V6(s.ip())))?;
        let bridge = std::path::Path::new("/sys/class/net").join(&i.interface_name).join("bridge").exists();
        let up = i.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP);
        Some(Held { interface: i.interface_name, address, up, bridge })
    });
    let outward = [(Ipv4Addr::UNSPECIFIED.into(), V4_ELSEWHERE), (Ipv6Addr::UNSPECIFIED.into(), V6_ELSEWHERE)];
    let outward: Vec<IpAddr> = outward.into_iter().filter_map(|(from, to)| source(from, to).ok()).collect();
    reachable(&outward, held.collect())
}

/// Addresses that nobody has (RFC 5737, RFC 3849): the default route leads there.
const V4_ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const V6_ELSEWHERE: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// The address this machine sends from to another one. Nothing is sent.
fn source(from: IpAddr, to: IpAddr) -> std::io::Result<IpAddr> {
    let socket = std::net::UdpSocket::bind((from, 0))?;
    socket.connect((to, 9))?;
    Ok(socket.local_addr()?.ip())
}

fn reachable(outward: &[IpAddr], held: Vec<Held>) -> Vec<IpAddr> {
    let inward = |i: &Held| i.bridge || INWARD.iter().any(|name| i.interface.starts_with(name));
    let mut found: Vec<IpAddr> = held.into_iter().filter(|i| i.up && !inward(i)).map(|i| i.address).collect();
    found.sort();
    // A machine may go out by a bridge.
    let mut all: Vec<IpAddr> = outward.iter().copied().chain(found).collect();
    all.retain(|a| match a {
        IpAddr::V4(a) => !a.is_loopback() && *a != Ipv4Addr::UNSPECIFIED && !a.is_link_local(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unspecified() && !a.is_unicast_link_local(),
    });
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|a| seen.insert(*a));
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_conflict_is_tried_again_at_once_and_other_failures_later_and_later() {
        let mut pace = Pace::default();
        let err = |code| Err::<(), _>((code, String::new()));
        for _ in 0..3 {
            for _ in 0..CONFLICTS {
                assert_eq!(pace.after(&err(409), 7), Duration::ZERO);
            }
            assert!(pace.after(&err(409), 7) >= FIRST / 2, "somebody changes it all the time");
        }
        assert_eq!(pace.after(&Ok(()), 7), EVERY);
        for chance in [0, u64::MAX] {
            let mut pace = Pace::default();
            let pauses: Vec<Duration> = (0..10).map(|_| pace.after(&err(503), chance)).collect();
            let rises = |w: &[Duration]| w[0] <= w[1];
            assert!(pauses.windows(2).all(rises) && pauses[0] <= FIRST && pauses[9] >= EVERY / 2, "{pauses:?}");
            assert!(pauses.iter().all(|p| *p <= EVERY), "{pauses:?}");
        }
    }

    #[test]
    fn the_address_it_goes_out_by_comes_first_and_bridges_do_not_count() {
        let held = |interface: &str, address: &str, up, bridge| Held {
            interface: interface.into(),
            address: address.parse().unwrap(),
            up,
            bridge,
        };
        let all = || {
            vec![
                held("lo", "127.0.0.1", true, false),
                held("br-shop", "10.0.0.1", true, true),
                held("docker0", "10.1.0.1", true, false),
                held("wlan0", "10.2.0.1", false, false),
                held("eth1", "10.3.0.1", true, false),
                held("eth0", "192.168.1.7", true, false),
                held("eth0", "fe80::1", true, false),
                held("eth0", "fd00::7", true, false),
            ]
        };
        let ips = |list: &[&str]| -> Vec<IpAddr> { list.iter().map(|a| a.parse().unwrap()).collect() };
        let outward = ips(&["192.168.1.7", "fd00::7"]);
        assert_eq!(reachable(&outward, all()), ips(&["192.168.1.7", "fd00::7", "10.3.0.1"]));
        assert_eq!(reachable(&ips(&["10.0.0.1"]), all())[..2], ips(&["10.0.0.1", "10.3.0.1"]));
        assert_eq!(reachable(&[], all()), ips(&["10.3.0.1", "192.168.1.7", "fd00::7"]));
    }
}
