//! Addresses of services that lead to this node's own gateway: what pods and the host send there is
//! delivered to the gateway instead. Until services carry traffic that is how pods reach the API.
//!
//! The rules are iptables', which the pods' network needs anyway, in one chain that is replaced as a whole.

use crate::containerd::search_path;
use std::fmt::Write;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Our chain in the table `nat`.
const CHAIN: &str = "BEEMESH-SERVICES";
/// Where packets from pods and from the host itself come by.
const FROM: [&str; 2] = ["PREROUTING", "OUTPUT"];

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
    for is_v4 in [true, false] {
        let family = if is_v4 { "iptables" } else { "ip6tables" };
        let of_family: Vec<_> = redirects.iter().filter(|r| r.service.is_ipv4() == is_v4).collect();
        if of_family.is_empty() && !is_there(family).await {
            continue;
        }
        run(&format!("{family}-restore"), &["--noflush", "--wait"], &rules(&of_family)).await?;
        for from in FROM {
            let is_hooked = run(family, &["--wait", "-t", "nat", "-C", from, "-j", CHAIN], "").await.is_ok();
            if !is_hooked {
                run(family, &["--wait", "-t", "nat", "-I", from, "1", "-j", CHAIN], "").await?;
            }
        }
        for redirect in of_family {
            route(redirect.service.ip()).await;
        }
    }
    Ok(())
}

/// Whether exactly what was asked for is still in force: others flush rules, too.
pub async fn is_in_force(redirects: &[Redirect]) -> bool {
    for redirect in redirects {
        let family = if redirect.service.is_ipv4() { "iptables" } else { "ip6tables" };
        let rule = rule(redirect);
        let mut checks: Vec<Vec<&str>> = FROM.iter().map(|from| vec![*from, "-j", CHAIN]).collect();
        checks.push(std::iter::once(CHAIN).chain(rule.split(' ')).collect());
        for check in checks {
            let args: Vec<&str> = ["--wait", "-t", "nat", "-C"].into_iter().chain(check).collect();
            if run(family, &args, "").await.is_err() {
                return false;
            }
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
    for family in ["iptables", "ip6tables"] {
        for from in FROM {
            while run(family, &["--wait", "-t", "nat", "-D", from, "-j", CHAIN], "").await.is_ok() {}
        }
        for what in ["-F", "-X"] {
            let _ = run(family, &["--wait", "-t", "nat", what, CHAIN], "").await;
        }
    }
}

async fn is_there(family: &str) -> bool {
    run(family, &["--wait", "-t", "nat", "-S", CHAIN], "").await.is_ok()
}

/// Naming a chain empties it; all of it takes effect at once.
fn rules(redirects: &[&Redirect]) -> String {
    let mut rules = format!("*nat\n:{CHAIN} - [0:0]\n");
    for redirect in redirects {
        let _ = writeln!(rules, "-A {CHAIN} {}", rule(redirect));
    }
    rules.push_str("COMMIT\n");
    rules
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

async fn run(program: &str, args: &[&str], input: &str) -> io::Result<()> {
    let path = search_path().into_iter().map(|dir| dir.join(program)).find(|p| p.is_file());
    let path = path.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{program} is not installed")))?;
    let mut child =
        Command::new(path).args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let out = child.wait_with_output().await?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(io::Error::other(format!("{program} {}: {}", args.join(" "), said.trim())))
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
            rules(&[&of_node, &of_any]),
            "*nat\n:BEEMESH-SERVICES - [0:0]\n\
             -A BEEMESH-SERVICES -d 10.43.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 192.168.1.7:6443\n\
             -A BEEMESH-SERVICES -d 10.43.0.10/32 -p tcp -m tcp --dport 443 -j REDIRECT --to-ports 6443\nCOMMIT\n"
        );
        let v6 = redirect("[fd00::1]:443", "[fd00:7::1]:6443");
        assert!(rules(&[&v6]).contains("-d fd00::1/128 ") && rules(&[&v6]).contains("[fd00:7::1]:6443\n"));
        assert_eq!(rules(&[]), "*nat\n:BEEMESH-SERVICES - [0:0]\nCOMMIT\n");
    }
}
