//! Ports that a node binds, and who has them.

use super::Check;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// A port and whom it is bound by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Port {
    /// What it is for: `API port`, `mesh port`.
    pub(crate) what: &'static str,
    /// Which flag chooses it.
    pub(crate) flag: &'static str,
    /// Where it is, or would be.
    pub(crate) at: SocketAddr,
    /// Over UDP; else over TCP.
    pub(crate) is_udp: bool,
    /// Who has it.
    pub(crate) bound: Vec<Bound>,
}

/// A process that has a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bound {
    /// Its number; `None` if whoever asks may not know.
    pub(crate) pid: Option<u32>,
    /// Its name.
    pub(crate) name: String,
}

impl Port {
    /// Looks who has a port.
    pub(crate) fn look(what: &'static str, flag: &'static str, at: SocketAddr, is_udp: bool) -> Port {
        let tables = if is_udp { ["udp", "udp6"] } else { ["tcp", "tcp6"] };
        let table = |name: &str| fs::read_to_string(Path::new("/proc/net").join(name)).unwrap_or_default();
        let inodes = tables.iter().flat_map(|name| holders(&table(name), at, is_udp));
        let mut bound: Vec<Bound> = inodes.map(holder).collect();
        bound.dedup();
        Port { what, flag, at, is_udp, bound }
    }
}

/// The inodes of sockets that are in the way of one at `at`, of a table of `/proc/net` (proc(5)): of TCP those that
/// listen.
fn holders(table: &str, at: SocketAddr, is_udp: bool) -> Vec<u64> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = fields.get(1)?.rsplit_once(':')?;
        let listens = is_udp || *fields.get(3)? == "0A";
        let is_there = u16::from_str_radix(port, 16).ok()? == at.port() && meets(address, at.ip());
        (listens && is_there).then(|| fields.get(9)?.parse().ok())?
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// Whether a socket at this address of a table is in the way of one at another. Of IPv6 any is taken to be.
fn meets(listed: &str, other: IpAddr) -> bool {
    let (8, Ok(word), IpAddr::V4(other)) = (listed.len(), u32::from_str_radix(listed, 16), other) else { return true };
    // As the kernel has it in memory.
    let listed = Ipv4Addr::from(word.to_ne_bytes());
    listed.is_unspecified() || other.is_unspecified() || listed == other
}

/// The process that has a socket.
fn holder(inode: u64) -> Bound {
    let socket = format!("socket:[{inode}]");
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_it = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|to| to.as_os_str() == socket.as_str())
    };
    match pids.find(has_it) {
        Some(pid) => {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Bound { pid: Some(pid), name: name.trim().to_owned() }
        }
        None => Bound { pid: None, name: "a process that only root may see".to_owned() },
    }
}

/// Whether a port is free, or the running node's.
pub(super) fn judge(port: &Port, node: Option<u32>) -> Check {
    let at = format!("{} ({})", port.at, if port.is_udp { "UDP" } else { "TCP" });
    let told = |b: &Bound| b.pid.map_or_else(|| b.name.clone(), |pid| format!("{} (process {pid})", b.name));
    let is_node = |b: &Bound| node.is_some() && (b.pid == node || b.pid.is_none());
    let others: Vec<String> = port.bound.iter().filter(|b| !is_node(b)).map(told).collect();
    match (node, port.bound.iter().any(is_node)) {
        (Some(_), true) => Check::ok(port.what, format!("{at}: the node has it")),
        (Some(_), false) => Check::fail(
            port.what,
            format!("{at}: the node runs and does not have it"),
            "stop the node and start it again; its log says why",
        ),
        (None, _) if others.is_empty() => Check::ok(port.what, format!("{at}: free")),
        (None, _) => Check::fail(
            port.what,
            format!("{at}: bound by {}", others.join(", ")),
            format!("end that, or choose another with {}", port.flag),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn at(port: u16) -> SocketAddr {
        ([0, 0, 0, 0], port).into()
    }

    #[test]
    fn a_table_of_the_kernel_says_which_sockets_have_a_port() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1001 1 0 100 0 0 10 0
   1: 0100007F:192B 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 1002 1 0 100 0 0 10 0
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1003 1 0 100 0 0 10 0
";
        assert_eq!(holders(tcp, at(6443), false), [1001], "one that listens");
        let udp = "   sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref
  1: 00000000000000000000000000000000:1D13 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 2001 2 0 0
";
        assert_eq!(holders(udp, at(7443), true), [2001]);
        for damaged in ["", "head\nx", "head\n0: 1:ZZ 0:0 0A a b c d e 7", "head\n 0: 00:192B 0:0 0A"] {
            assert_eq!(holders(damaged, at(6443), false), [0u64; 0], "{damaged:?}");
        }
    }

    #[test]
    fn sockets_at_two_addresses_are_not_in_each_others_way() {
        let loopback = format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]));
        for (listed, other, meet) in [
            (loopback.as_str(), "127.0.0.1", true),
            (&loopback, "0.0.0.0", true),
            (&loopback, "127.0.0.2", false),
            ("00000000", "127.0.0.2", true),
            ("00000000000000000000000000000000", "127.0.0.2", true),
            (&loopback, "::1", true),
        ] {
            assert_eq!(other.parse().map(|ip| meets(listed, ip)), Ok(meet), "{listed} {other}");
        }
    }

    #[test]
    fn this_process_is_found_by_the_ports_it_has() -> std::io::Result<()> {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        for port in [
            Port::look("API port", "--api", tcp.local_addr()?, false),
            Port::look("mesh port", "--listen", udp.local_addr()?, true),
        ] {
            assert!(port.bound.iter().any(|b| b.pid == Some(std::process::id())), "{port:?}");
            assert_eq!(judge(&port, Some(std::process::id())).level, Level::Ok);
            let taken = judge(&port, None);
            assert!(taken.level == Level::Fail && taken.remedy.contains(port.flag), "{taken:?}");
        }
        Ok(())
    }

    #[test]
    fn a_port_is_to_be_free_or_the_nodes() {
        let port = |bound: Vec<Bound>| Port {
            what: "API port",
            flag: "--api",
            at: ([0, 0, 0, 0], 6443).into(),
            is_udp: false,
            bound,
        };
        let of = |pid| Bound { pid, name: "other".into() };
        for (bound, node, level, words) in [
            (vec![], None, Level::Ok, "free"),
            (vec![of(Some(7))], None, Level::Fail, "bound by other (process 7)"),
            (vec![of(None)], None, Level::Fail, "bound by other"),
            (vec![of(Some(7))], Some(7), Level::Ok, "the node has it"),
            (vec![of(None)], Some(7), Level::Ok, "the node has it"),
            (vec![of(Some(8)), of(Some(7))], Some(7), Level::Ok, "the node has it"),
            (vec![], Some(7), Level::Fail, "does not have it"),
        ] {
            let check = judge(&port(bound), node);
            assert!(check.level == level && check.detail.contains(words), "{check:?}");
        }
    }
}
