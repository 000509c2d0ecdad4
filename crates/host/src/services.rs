//! Addresses of services that lead to this node's own gateway: what pods and the host send there is
//! delivered to the gateway instead. Until services carry traffic that is how pods reach the API.
//!
//! The rules are iptables', which the pods' network needs anyway, in one chain that is replaced as a whole.

use crate::iptables::{Chain, run};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Packets from pods and from the host itself come by.
const CHAIN: Chain = Chain { name: "BEEMESH-SERVICES", from: &["PREROUTING", "OUTPUT"] };

/// A TCP port of a service's address, and where what is sent there is delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// The service's address and port.
    pub service: SocketAddr,
    /// The gateway, of the same family. An unspecified address is whichever of the machine's own addresses
    /// the packet meets first, for a gateway that listens on all of them.
    pub to: SocketAddr,
}

/// Has exactly these in force, whatever was before.
///
/// # Errors
/// What iptables said. What was in force still is, or nothing of it.
pub async fn redirect(redirects: &[Redirect]) -> io::Result<()> {
    for v4 in [true, false] {
        let of_family: Vec<_> = redirects.iter().filter(|r| r.service.is_ipv4() == v4).collect();
        if of_family.is_empty() && !CHAIN.is_there(v4).await {
            continue;
        }
        CHAIN.lay(v4, &rules(&of_family)).await?;
        for redirect in of_family {
            route(redirect.service.ip()).await;
        }
    }
    Ok(())
}

/// Whether exactly what was asked for is still in force: others flush rules, too.
pub async fn is_in_force(redirects: &[Redirect]) -> bool {
    for v4 in [true, false] {
        let of_family: Vec<_> = redirects.iter().filter(|r| r.service.is_ipv4() == v4).collect();
        if !of_family.is_empty() && !CHAIN.is_in_force(v4, &rules(&of_family)).await {
            return false;
        }
    }
    true
}

/// Why pods cannot reach the API where it listens, and what to do; nothing if they can.
pub fn unreachable(redirect: &Redirect) -> Option<String> {
    let Redirect { service, to } = redirect;
    let remedy = "give --api an address of this machine, or all of them (0.0.0.0)";
    if to.ip().is_loopback() {
        // A packet from a pod that is sent on to a loopback address is dropped by the kernel.
        return Some(format!("the API listens on {to}, which only this machine itself reaches, pods do not: {remedy}"));
    }
    (service.is_ipv4() != to.is_ipv4() && !to.ip().is_unspecified()).then(|| {
        format!("the API listens on {to} and the service's address {service} is of the other family: {remedy}")
    })
}

/// Takes everything away again.
pub async fn forget() {
    CHAIN.forget().await;
}

fn rules(redirects: &[&Redirect]) -> Vec<String> {
    redirects.iter().map(|redirect| rule(redirect)).collect()
}

fn rule(Redirect { service, to }: &Redirect) -> String {
    let (ip, port) = (service.ip(), service.port());
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let sent = match to.ip().is_unspecified() {
        true => format!("REDIRECT --to-ports {}", to.port()),
        false => format!("DNAT --to-destination {to}"),
    };
    format!("-d {ip}/{bits} -p tcp -m tcp --dport {port} -j {sent}")
}

/// A machine without a default route does not send anything to a service's address, and so nothing comes
/// by the rules. Machines with one need no more.
async fn route(service: IpAddr) {
    let (family, to) =
        if service.is_ipv4() { ("-4", format!("{service}/32")) } else { ("-6", format!("{service}/128")) };
    if run("ip", &[family, "route", "get", &service.to_string()], "").await.is_err()
        && let Err(e) = run("ip", &[family, "route", "replace", &to, "dev", "lo"], "").await
    {
        tracing::warn!("this machine itself cannot reach {service}, pods can: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_that_pods_cannot_reach_is_told() {
        let at = |to: &str| {
            let way = Redirect { service: "10.43.0.1:443".parse().unwrap(), to: to.parse().unwrap() };
            unreachable(&way)
        };
        for (to, why) in [
            ("192.168.1.7:6443", None),
            ("0.0.0.0:6443", None),
            ("[::]:6443", None),
            ("127.0.0.1:6443", Some("only this machine itself")),
            ("[::1]:6443", Some("only this machine itself")),
            ("[fd00::1]:6443", Some("of the other family")),
        ] {
            let told = at(to);
            assert_eq!(told.is_some(), why.is_some(), "{to}");
            assert!(told.unwrap_or_default().contains(why.unwrap_or_default()), "{to}");
        }
    }

    #[test]
    fn the_chain_is_replaced_as_a_whole() {
        let redirect =
            |service: &str, to: &str| Redirect { service: service.parse().unwrap(), to: to.parse().unwrap() };
        let of_node = redirect("10.43.0.1:443", "192.168.1.7:6443");
        let of_any = redirect("10.43.0.10:443", "0.0.0.0:6443");
        assert_eq!(
            CHAIN.text(&rules(&[&of_node, &of_any])),
            "*nat\n:BEEMESH-SERVICES - [0:0]\n\
             -A BEEMESH-SERVICES -d 10.43.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 192.168.1.7:6443\n\
             -A BEEMESH-SERVICES -d 10.43.0.10/32 -p tcp -m tcp --dport 443 -j REDIRECT --to-ports 6443\nCOMMIT\n"
        );
        let v6 = redirect("[fd00::1]:443", "[fd00:7::1]:6443");
        assert!(rule(&v6).contains("-d fd00::1/128 ") && rule(&v6).ends_with("[fd00:7::1]:6443"));
        assert_eq!(CHAIN.text(&[]), "*nat\n:BEEMESH-SERVICES - [0:0]\nCOMMIT\n");
    }
}
