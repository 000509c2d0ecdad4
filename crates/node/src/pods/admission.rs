//! What this node cannot honour, whatever room it has: such a pod fails before anything of it is made,
//! rather than run otherwise than it asks.
//!
//! Source: the kubelet's `sysctl/allowlist.go` and `lifecycle/predicate.go`.

use super::Refusal;
use objects::Tree;
use objects::kinds::tree::Fields;
use objects::status::quote;

/// Sysctls that belong to a pod alone and touch no other.
const SAFE_SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
];

/// Why a pod cannot run on any node like this one.
pub(super) fn refuse(pod: &Tree) -> Option<Refusal> {
    let spec = pod.at("spec");
    let refuse = |reason: &str, message: String| {
        let uid = pod.at("metadata").text("uid").to_owned();
        Some(Refusal { uid, reason: reason.to_owned(), message })
    };
    for sysctl in spec.at("securityContext").list("sysctls") {
        let name = sysctl.text("name").replace('/', ".");
        let quoted = quote(&name);
        let host = match name.split('.').next() {
            Some("net") if spec.flag("hostNetwork") => Some("Net"),
            Some("kernel") if spec.flag("hostIPC") => Some("IPC"),
            _ => None,
        };
        if let Some(host) = host {
            return refuse(
                "SysctlForbidden",
                format!("forbidden sysctl: {quoted} not allowed with host {host} enabled"),
            );
        }
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return refuse("SysctlForbidden", format!("forbidden sysctl: {quoted} not allowlisted"));
        }
    }
    if !matches!(spec.at("os").text("name"), "" | "linux") {
        return refuse("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS".to_owned());
    }
    if spec.at("securityContext").text("supplementalGroupsPolicy") == "Strict" {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return refuse("SupplementalGroupsPolicyNotSupported", message.to_owned());
    }
    None
}

/// Why the sandbox of a pod cannot be made as it asks.
pub(super) fn unsupported(pod: &Tree) -> Option<String> {
    let spec = pod.at("spec");
    if spec.at("hostUsers").as_bool() == Some(false) {
        return Some("can't set `spec.hostUsers: false`, runtime does not support user namespaces".to_owned());
    }
    if !spec.list("resourceClaims").is_empty() {
        return Some("resource claims are not supported on this node".to_owned());
    }
    match spec.text("runtimeClassName") {
        "" => None,
        name => Some(format!("failed to get sandbox runtime: no runtime for {} is configured", quote(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (spec, want) in [
            (json!({}), None),
            (json!({"securityContext": {"sysctls": [{"name": "net/ipv4/tcp_syncookies", "value": "1"}]}}), None),
            (
                json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
                Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted"),
            ),
            (
                json!({"hostNetwork": true, "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}}),
                Some("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled"),
            ),
            (json!({"os": {"name": "windows"}}), Some("Failed to admit pod as the OS field doesn't match node OS")),
        ] {
            let got = refuse(&json!({"metadata": {"uid": "u"}, "spec": spec}));
            assert_eq!(got.as_ref().map(|r| r.message.as_str()), want, "{spec}");
        }
    }
}
