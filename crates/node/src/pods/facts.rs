//! What the machine is told of the node it runs on.

use base::runtime::Dns;
use decide::pod::Resources;
use std::net::IpAddr;
use std::sync::Arc;

/// The node, as whoever drives the machine finds it. Told at the start and whenever it changes.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// The name of its Node object.
    pub name: Arc<str>,
    /// Its addresses, the preferred family first; at most one of each.
    pub addresses: Vec<IpAddr>,
    /// What the host's `/etc/resolv.conf` says.
    pub resolv_conf: String,
    /// What the host's `/etc/hosts` says: pods with the host's network get it with their aliases.
    pub hosts_file: String,
    /// `status.allocatable`: stands in where a container asks for its limit and has none.
    pub allocatable: Resources,
    /// All memory of the machine.
    pub memory_bytes: u64,
    /// Folder of all pods' logs: `/var/log/pods`.
    pub logs: String,
    /// Folder of seccomp profiles that pods name by file.
    pub seccomp: String,
    /// Where pods find the API: `KUBERNETES_SERVICE_HOST` and `_PORT`.
    pub api: Option<(String, u16)>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Servers that resolve names of services. None: pods get the host's `resolv.conf` instead.
    pub cluster_dns: Vec<IpAddr>,
    /// Above all pods' cgroups, relative to the root of the hierarchy: `/beemesh`.
    pub cgroup_root: String,
    /// The runtime has systemd make cgroups: they are named as slices.
    pub systemd: bool,
    /// A container runtime answers. Without one nothing is started, stopped or believed.
    pub runtime: bool,
}

impl NodeFacts {
    /// The host's `resolv.conf`, read as the kubelet reads it: comments dropped, the last `search` line
    /// counts, options once each.
    pub(super) fn dns(&self) -> Dns {
        let mut dns = Dns::default();
        for line in self.resolv_conf.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
                Some("search") => {
                    let domains = words.filter(|w| *w != ".").map(|w| w.strip_suffix('.').unwrap_or(w).to_owned());
                    dns.searches = domains.collect();
                }
                Some("options") => words.for_each(|w| add_option(&mut dns.options, w)),
                _ => {}
            }
        }
        dns
    }

    /// Addresses with those of the node's preferred family first, one of each.
    pub(super) fn by_family(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let six_first = self.addresses.first().is_some_and(IpAddr::is_ipv6);
        let one = |six: bool| addresses.iter().find(|a| a.is_ipv6() == six).copied();
        one(six_first).into_iter().chain(one(!six_first)).collect()
    }
}

/// Adds a resolver option, in place of one of the same name.
pub(super) fn add_option(options: &mut Vec<String>, option: &str) {
    let name = |o: &str| o.split(':').next().unwrap_or_default().to_owned();
    match options.iter_mut().find(|o| name(o) == name(option)) {
        Some(slot) => *slot = option.to_owned(),
        None => options.push(option.to_owned()),
    }
}
