//! The bridge that the pods of this node are on, made before the first of them.
//!
//! The plugin would make it with the first pod, and the kernel then asks for one to two seconds whether anybody
//! else on it has the node's IPv6 address. Until it knows, that address is nobody's: pods find no way out, and
//! the node itself speaks to pods from an address of another of its interfaces, which they cannot answer; a
//! connection that was begun so is never made, however long it tries. Nobody else has an address of the node's
//! own block, so nobody is asked.

use super::Network;
use crate::iptables::run;
use nix::net::if_::if_nametoindex;
use std::fs;
use std::io;
use std::path::Path;

impl Network {
    /// Whether there is a bridge of that name.
    pub(super) fn has_bridge(&self) -> bool {
        if_nametoindex(self.bridge.as_str()).is_ok()
    }

    /// Has the bridge stand with the node's own addresses; one that is there keeps what it has besides.
    ///
    /// # Errors
    /// What `ip` said: the plugin makes the bridge then.
    pub(super) async fn make_bridge(&self) -> io::Result<()> {
        let bridge = self.bridge.as_str();
        let gateway = self.gateway();
        if !self.has_bridge() {
            // An address of its own: otherwise it takes the lowest of those on it, another one with every pod.
            let [a, b, c, d] = gateway.octets();
            let mac = format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
            run("ip", &["link", "add", bridge, "address", &mac, "type", "bridge"], "").await?;
        }
        let detection = Path::new("/proc/sys/net/ipv6/conf").join(bridge).join("accept_dad");
        if detection.exists() {
            fs::write(detection, "0")?;
        }
        if let Some(mtu) = self.mtu {
            run("ip", &["link", "set", bridge, "mtu", &mtu.to_string()], "").await?;
        }
        let v4 = format!("{gateway}/{}", self.v4.1);
        run("ip", &["address", "replace", &v4, "dev", bridge], "").await?;
        run("ip", &["link", "set", bridge, "up"], "").await?;
        if let (Some(gateway), Some((_, bits))) = (self.gateway_v6(), self.v6) {
            let v6 = format!("{gateway}/{bits}");
            run("ip", &["address", "replace", &v6, "dev", bridge, "nodad"], "").await?;
        }
        Ok(())
    }
}
