//! What pods need of a machine: control groups, a container runtime, and a network.

use super::look::{Node, Pods};
use super::{Check, Level};

/// Whether pods run here, or are to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// The node that runs here runs none.
    No,
    /// None runs yet.
    Perhaps,
    /// Without root there can be none.
    Impossible,
    /// The node that runs here is to run them.
    Yes,
}

pub(super) fn wanted(node: &Node, is_root: bool) -> Wanted {
    match node {
        Node::Runs(r) if r.report.runtime.as_deref() == Some("none") => Wanted::No,
        Node::Runs(_) => Wanted::Yes,
        Node::None | Node::Silent(_) if is_root => Wanted::Perhaps,
        Node::None | Node::Silent(_) => Wanted::Impossible,
    }
}

pub(super) fn judge(pods: &Pods, wanted: Wanted) -> Vec<Check> {
    if wanted == Wanted::No {
        return vec![Check::ok("pods", "this node runs none (--runtime none)")];
    }
    let mut checks = vec![cgroups(pods), runtime(pods, wanted), network(pods, wanted)];
    if wanted != Wanted::Yes {
        // A node that runs no pods works all the same.
        for check in checks.iter_mut().filter(|c| c.level == Level::Fail) {
            check.level = Level::Warn;
            check.remedy = format!("{}; or `beemesh up --runtime none`, for a node without pods", check.remedy);
        }
    }
    checks
}

fn cgroups(pods: &Pods) -> Check {
    let lacks: Vec<&str> =
        ["cpu", "memory", "pids"].into_iter().filter(|c| !pods.controllers.iter().any(|have| have == c)).collect();
    let version = format!("version {}", pods.cgroup_version);
    let remedy = "boot with cgroup_enable=memory where the kernel asks for it, and in a container have its runtime delegate the controllers";
    match lacks[..] {
        [] => Check::ok("cgroups", format!("{version}, with cpu, memory and pids")),
        // Limits of processes are the runtime's own, and pods run without.
        ["pids"] => {
            Check::warn("cgroups", format!("{version}, without pids: a pod may use up all process numbers"), remedy)
        }
        _ => Check::fail(
            "cgroups",
            format!("{version}, without {}: pods' limits cannot be set", lacks.join(", ")),
            remedy,
        ),
    }
}

fn runtime(pods: &Pods, wanted: Wanted) -> Check {
    match (&pods.answers, &pods.missing, wanted) {
        (Some(Ok(version)), ..) => Check::ok("containerd", format!("{version} answers at {}", pods.socket)),
        (Some(Err(why)), ..) => Check::fail(
            "containerd",
            format!("{} does not answer: {why}", pods.socket),
            "the node starts its own again by itself, and its log says why it cannot",
        ),
        (None, Some(missing), _) => {
            Check::fail("containerd", missing.clone(), "install what is missing, or give another runtime with --cri")
        }
        (None, None, Wanted::Yes) => Check::fail(
            "containerd",
            format!("there is no {}", pods.socket),
            "the node starts it by itself, and its log says why it cannot",
        ),
        (None, None, _) => {
            Check::ok("containerd", "installed, with all that it takes; `beemesh up` starts one of its own")
        }
    }
}

fn network(pods: &Pods, wanted: Wanted) -> Check {
    let v6 = if pods.has_v6 { "with IPv6" } else { "without IPv6" };
    if let Some(why) = &pods.iptables {
        let remedy =
            "load the kernel's modules for NAT (modprobe iptable_nat, or nf_tables and nft_chain_nat), as root";
        return Check::fail("network", format!("iptables cannot be used: {why}"), remedy);
    }
    match (&pods.forwarding, wanted) {
        (Some(true), _) => Check::ok("network", format!("packets are forwarded, {v6}; iptables can be used")),
        (Some(false), Wanted::Yes) => Check::fail(
            "network",
            "net.ipv4.ip_forward is 0: pods reach no other machine",
            "sysctl -w net.ipv4.ip_forward=1, and see who sets it back: the node sets it when it starts",
        ),
        (Some(false), _) => Check::ok("network", format!("net.ipv4.ip_forward is 0 and `beemesh up` sets it, {v6}")),
        (None, _) => Check::fail(
            "network",
            "the kernel does not say whether it forwards packets (net.ipv4.ip_forward)",
            "mount /proc",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Pods {
        Pods {
            cgroup_version: 2,
            controllers: ["cpu", "memory", "pids"].map(String::from).into(),
            socket: "/s".into(),
            answers: Some(Ok("containerd://1.6.20".into())),
            missing: None,
            forwarding: Some(true),
            has_v6: true,
            iptables: None,
        }
    }

    #[test]
    fn what_pods_need_fails_only_where_they_run() {
        let without = |c: &str| good().controllers.into_iter().filter(|have| have != c).collect();
        let failed = Some(Err("refused".to_owned()));
        for (pods, level, words) in [
            (good(), Level::Ok, "version 2, with cpu, memory and pids"),
            (Pods { controllers: without("pids"), ..good() }, Level::Warn, "without pids"),
            (Pods { controllers: without("memory"), ..good() }, Level::Fail, "without memory"),
            (Pods { answers: failed, ..good() }, Level::Fail, "/s does not answer: refused"),
            (Pods { answers: None, ..good() }, Level::Fail, "there is no /s"),
            (Pods { answers: None, missing: Some("lacks runc".into()), ..good() }, Level::Fail, "lacks runc"),
            (Pods { forwarding: Some(false), ..good() }, Level::Fail, "ip_forward is 0: pods"),
            (Pods { forwarding: None, ..good() }, Level::Fail, "does not say"),
            (Pods { iptables: Some("no".into()), ..good() }, Level::Fail, "cannot be used: no"),
        ] {
            let checks = judge(&pods, Wanted::Yes);
            let worst = checks.iter().max_by_key(|c| c.level);
            assert!(worst.is_some_and(|c| c.level == level), "{checks:?}");
            assert!(checks.iter().any(|c| c.level == level && c.detail.contains(words)), "{words}: {checks:?}");
            for wanted in [Wanted::Perhaps, Wanted::Impossible] {
                assert!(judge(&pods, wanted).iter().all(|c| c.level < Level::Fail), "{pods:?}");
            }
            assert!(judge(&pods, Wanted::No).iter().all(|c| c.level == Level::Ok));
        }
        let before = Pods { answers: None, forwarding: Some(false), ..good() };
        assert!(judge(&before, Wanted::Perhaps).iter().all(|c| c.level == Level::Ok), "the node sees to it");
    }
}
