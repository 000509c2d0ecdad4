//! The pods' network on this machine, as the runtime's CNI plugins are told: a bridge with an address,
//! addresses from the node's own blocks, and ports of the host that lead into pods.
//!
//! The plugins are the system's (containernetworking/plugins: bridge, host-local, portmap). What is the same for
//! all pods is laid once, before the first of them: the bridge itself, and how their packets leave the machine.

mod bridge;
mod masquerade;

use serde_json::json;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// The network's configuration, the only one in its directory.
const FILE: &str = "10-beemesh.conflist";

/// The network of one node's pods.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// The bridge's name, at most 15 bytes.
    pub bridge: String,
    /// The block of the pods' addresses and its prefix length (24); the first address is the node's own.
    pub v4: (Ipv4Addr, u8),
    /// The same in IPv6 (64).
    pub v6: Option<(Ipv6Addr, u8)>,
    /// Bytes of the largest packet; the bridge's own if not set.
    pub mtu: Option<u32>,
}

impl Network {
    /// A node's network with the usual bridge.
    pub fn new(v4: (Ipv4Addr, u8), v6: Option<(Ipv6Addr, u8)>) -> Network {
        Network { bridge: "beemesh0".into(), v4, v6, mtu: None }
    }

    /// The address by which pods reach this machine.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.first_v4() + 1)
    }

    fn gateway_v6(&self) -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from(self.first_v6()? + 1))
    }

    fn first_v4(&self) -> u32 {
        let (block, bits) = self.v4;
        u32::from(block) & u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0)
    }

    fn first_v6(&self) -> Option<u128> {
        let (block, bits) = self.v6?;
        Some(u128::from(block) & u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0))
    }

    fn block_v4(&self) -> String {
        format!("{}/{}", Ipv4Addr::from(self.first_v4()), self.v4.1)
    }

    fn block_v6(&self) -> Option<String> {
        Some(format!("{}/{}", Ipv6Addr::from(self.first_v6()?), self.v6?.1))
    }

    /// Lays what is the same for all pods. To be called before the first of them.
    ///
    /// # Errors
    /// What iptables said: pods would not reach other machines. Without a bridge the plugin makes one, which is
    /// logged.
    pub(crate) async fn lay(&self) -> io::Result<()> {
        if let Err(e) = self.make_bridge().await {
            tracing::warn!(
                "the bridge {} was not made: {e}. It comes with the first pod, which by IPv6 is not reached, and \
                 reaches nobody, for its first seconds",
                self.bridge
            );
        }
        self.masquerade().await
    }

    /// Lays again what somebody took away: others flush rules and delete links. To be called now and then.
    ///
    /// # Errors
    /// As [`Network::lay`].
    pub(crate) async fn keep(&self) -> io::Result<()> {
        if self.has_bridge() { self.masquerade().await } else { self.lay().await }
    }

    /// Writes the configuration where the runtime looks for it. `addresses` is where it is kept which
    /// address is whose: on a disk, since pods outlive what made them.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn write(&self, conf_dir: &Path, addresses: &Path) -> io::Result<()> {
        fs::create_dir_all(conf_dir)?;
        fs::create_dir_all(addresses)?;
        let text = self.conflist(addresses);
        let file = conf_dir.join(FILE);
        if fs::read_to_string(&file).is_ok_and(|there| there == text) {
            return Ok(());
        }
        // The runtime reads the directory when it changes, and must never see half a file. containerd 1.6 only
        // notices that something in there lost its name: the new file must come from within.
        let next = conf_dir.join(".next");
        fs::write(&next, text)?;
        fs::rename(next, file)
    }

    fn conflist(&self, addresses: &Path) -> String {
        let mut ranges = vec![json!([{"subnet": format!("{}/{}", self.v4.0, self.v4.1)}])];
        let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
        if let Some((block, bits)) = self.v6 {
            ranges.push(json!([{"subnet": format!("{block}/{bits}")}]));
            routes.push(json!({"dst": "::/0"}));
        }
        let mut bridge = json!({
            "type": "bridge",
            "bridge": self.bridge,
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": addresses,
                "ranges": ranges,
                "routes": routes,
            },
        });
        if let Some(mtu) = self.mtu {
            bridge["mtu"] = json!(mtu);
        }
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
        let list = json!({"cniVersion": "0.4.0", "name": self.bridge, "plugins": [bridge, portmap]});
        format!("{list:#}\n")
    }
}

/// Whether addresses of IPv6 can be given out: the kernel knows it, and nobody has switched it off.
pub(crate) fn has_v6() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|v| v.trim() == "0")
}

/// Lets packets through this machine, as pods need it; what cannot be set is logged, since a machine may
/// have no IPv6, or be set up by somebody who does not let us.
pub fn forward_packets() {
    let root = PathBuf::from("/proc/sys/net");
    // A machine that forwards ignores router advertisements, and would lose its own default route,
    // unless it is told to heed them all the same.
    for interface in fs::read_dir(root.join("ipv6/conf")).into_iter().flatten().flatten() {
        let accepts = interface.path().join("accept_ra");
        if fs::read_to_string(&accepts).is_ok_and(|v| v.trim() == "1") {
            set(&accepts, "2");
        }
    }
    set(&root.join("ipv4/ip_forward"), "1");
    for name in ["ipv6/conf/all/forwarding", "bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"] {
        let path = root.join(name);
        if path.exists() {
            set(&path, "1");
        }
    }
}

fn set(path: &Path, value: &str) {
    if fs::read_to_string(path).is_ok_and(|v| v.trim() == value) {
        return;
    }
    if let Err(e) = fs::write(path, value) {
        tracing::warn!("cannot write {value} to {}: {e}; pods may not reach other machines", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_plugins_are_told_the_nodes_own_blocks() {
        let mut network = Network::new((Ipv4Addr::new(10, 42, 7, 0), 24), Some(("fd00:7::".parse().unwrap(), 64)));
        network.mtu = Some(1400);
        let dir = tempfile::tempdir().unwrap();
        network.write(&dir.path().join("net.d"), &dir.path().join("addresses")).unwrap();
        let text = fs::read_to_string(dir.path().join("net.d/10-beemesh.conflist")).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(list["name"], "beemesh0");
        let bridge = &list["plugins"][0];
        assert_eq!(bridge["ipMasq"], Value::Null, "that would be rules for each pod");
        assert_eq!((&bridge["bridge"], &bridge["mtu"]), (&json!("beemesh0"), &json!(1400)));
        assert_eq!(bridge["ipam"]["ranges"], json!([[{"subnet": "10.42.7.0/24"}], [{"subnet": "fd00:7::/64"}]]));
        assert_eq!(bridge["ipam"]["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        assert_eq!(bridge["ipam"]["dataDir"], json!(dir.path().join("addresses")));
        assert_eq!(list["plugins"][1]["capabilities"]["portMappings"], true);
        assert_eq!(fs::read_dir(dir.path().join("net.d")).unwrap().count(), 1);
    }

    #[test]
    fn without_ipv6_there_is_none() {
        let network = Network::new((Ipv4Addr::new(10, 42, 0, 0), 24), None);
        assert!(!network.conflist(Path::new("/a")).contains("::"));
    }

    #[test]
    fn the_gateway_is_the_blocks_first_address() {
        for (block, bits, gateway) in [
            (Ipv4Addr::new(10, 42, 7, 0), 24, Ipv4Addr::new(10, 42, 7, 1)),
            (Ipv4Addr::new(10, 42, 7, 129), 25, Ipv4Addr::new(10, 42, 7, 129)),
            (Ipv4Addr::new(10, 42, 7, 9), 0, Ipv4Addr::new(0, 0, 0, 1)),
        ] {
            assert_eq!(Network::new((block, bits), None).gateway(), gateway);
        }
        let six = |bits| Network::new((Ipv4Addr::UNSPECIFIED, 8), Some(("fd00:7::99".parse().unwrap(), bits)));
        assert_eq!(six(64).gateway_v6(), Some("fd00:7::1".parse().unwrap()));
        assert_eq!(six(128).gateway_v6(), Some("fd00:7::9a".parse().unwrap()));
        assert_eq!(six(0).gateway_v6(), Some("::1".parse().unwrap()));
    }
}
