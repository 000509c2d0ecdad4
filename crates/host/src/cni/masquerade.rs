//! What pods send beyond the node's own pods leaves with the node's address.
//!
//! One chain for the node's whole block: the plugin's own way is a chain for each address of each pod, which
//! takes some twenty runs of iptables for a pod to start and as many for it to go, and what somebody
//! flushed of it would never come back.

use super::Network;
use crate::iptables::Chain;
use std::io;

const CHAIN: Chain = Chain { name: "BEEMESH-MASQUERADE", from: &["POSTROUTING"] };

impl Network {
    /// Has the rules in force, whatever was before.
    ///
    /// # Errors
    /// What iptables said first; what is wrong with one family keeps nothing from the other.
    pub(super) async fn masquerade(&self) -> io::Result<()> {
        let mut all = Ok(());
        for (v4, rules) in self.rules() {
            if !CHAIN.is_in_force(v4, &rules).await {
                all = all.and(CHAIN.lay(v4, &rules).await);
            }
        }
        all
    }

    fn rules(&self) -> Vec<(bool, Vec<String>)> {
        let mut all = vec![(true, self.block_v4(), "224.0.0.0/4")];
        all.extend(self.block_v6().map(|block| (false, block, "ff00::/8")));
        let rules = |(v4, block, many): (bool, String, &str)| {
            // Among pods others may still have their say: a port of the host that leads a pod to itself.
            (v4, vec![format!("-s {block} -d {block} -j RETURN"), format!("-s {block} ! -d {many} -j MASQUERADE")])
        };
        all.into_iter().map(rules).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn what_leaves_the_block_is_masqueraded() {
        let v6 = Some(("fd00:7::42".parse().unwrap(), 64));
        let network = Network::new((Ipv4Addr::new(10, 42, 7, 129), 25), v6);
        let v4 = ["-s 10.42.7.128/25 -d 10.42.7.128/25 -j RETURN", "-s 10.42.7.128/25 ! -d 224.0.0.0/4 -j MASQUERADE"];
        let v6 = ["-s fd00:7::/64 -d fd00:7::/64 -j RETURN", "-s fd00:7::/64 ! -d ff00::/8 -j MASQUERADE"];
        let is: Vec<(bool, Vec<String>)> =
            [(true, v4), (false, v6)].map(|(f, r)| (f, r.map(str::to_owned).into())).into();
        assert_eq!(network.rules(), is);
        assert_eq!(Network::new((Ipv4Addr::new(10, 42, 7, 0), 24), None).rules().len(), 1);
    }
}
