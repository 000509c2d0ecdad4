//! A pod as its sandbox: host name, `resolv.conf`, ports of the host, cgroup, labels.
//!
//! Source: the kubelet's `kuberuntime_sandbox.go`, `network/dns/dns.go`, `kubelet_pods.go`.

use super::facts::{NodeFacts, add_option};
use super::spec::{List, containers, host_network};
use super::{qos, security};
use base::runtime::{Dns, PodName, PortMapping, Sandbox};
use objects::Tree;
use objects::kinds::tree::Fields;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Label of a pod's name.
pub(super) const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label of a pod's namespace.
pub(super) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label of a pod's uid.
pub(super) const POD_UID: &str = "io.kubernetes.pod.uid";
/// Annotation of a sandbox: the node that made it. Whatever carries another name is not ours.
pub(super) const NODE: &str = "beemesh.io/node";
/// Annotation of a sandbox: the cell its pod belongs to.
pub(super) const CELL: &str = "beemesh.io/cell";
/// Annotation of a sandbox: the pod's object without its status, so that it can be run on by a node that
/// starts while it is cut off from the pod's cell.
pub(super) const OBJECT: &str = "beemesh.io/pod";
/// Annotation of a sandbox: where the pod's volumes lie.
pub(super) const VOLUMES: &str = "beemesh.io/volumes";

/// Most servers and domains of a `resolv.conf`, and characters of all domains.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;

/// The pod, as the runtime names it.
pub(super) fn pod_name(pod: &Tree) -> PodName {
    let meta = pod.at("metadata");
    PodName {
        namespace: meta.text("namespace").to_owned(),
        name: meta.text("name").to_owned(),
        uid: meta.text("uid").to_owned(),
    }
}

/// The sandbox of a pod, but for the annotations that say whose it is.
///
/// # Errors
/// It cannot be named, in the kubelet's words.
pub(super) fn sandbox(facts: &NodeFacts, pod: &Tree, attempt: u32) -> Result<Sandbox, String> {
    let spec = pod.at("spec");
    let name = pod_name(pod);
    let mut labels = strings(pod.at("metadata").at("labels"));
    labels.insert(POD_NAME.to_owned(), name.name.clone());
    labels.insert(POD_NAMESPACE.to_owned(), name.namespace.clone());
    labels.insert(POD_UID.to_owned(), name.uid.clone());
    let sysctls = spec.at("securityContext").list("sysctls").iter();
    Ok(Sandbox {
        attempt,
        hostname: kernel_hostname(facts, pod)?,
        log_directory: format!("{}/{}_{}_{}", facts.logs.trim_end_matches('/'), name.namespace, name.name, name.uid),
        dns: dns(facts, pod).0,
        ports: ports(pod),
        labels,
        annotations: strings(pod.at("metadata").at("annotations")),
        cgroup_parent: qos::cgroup(facts, pod),
        resources: qos::of_pod(pod),
        sysctls: sysctls.map(|s| (s.text("name").replace('/', "."), s.text("value").to_owned())).collect(),
        host: security::host_namespaces(pod),
        share_processes: spec.flag("shareProcessNamespace"),
        privileged: security::privileged(pod),
        security: security::of_sandbox(pod),
        handler: String::new(),
        pod: name,
    })
}

fn strings(map: &Tree) -> BTreeMap<String, String> {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// The pod's host name and domain, without and with which it is found.
pub(super) fn hostname(facts: &NodeFacts, pod: &Tree) -> (String, String) {
    let spec = pod.at("spec");
    let short = |name: &str| name.get(..63).unwrap_or(name).trim_end_matches(['-', '.']).to_owned();
    if let Some(name) = spec.at("hostnameOverride").as_str() {
        return (short(name), String::new());
    }
    let meta = pod.at("metadata");
    let name = match spec.text("hostname") {
        "" => meta.text("name"),
        name => name,
    };
    let domain = match spec.text("subdomain") {
        "" => String::new(),
        sub => format!("{sub}.{}.svc.{}", meta.text("namespace"), facts.cluster_domain),
    };
    (if name.len() > 63 { short(name) } else { name.to_owned() }, domain)
}

fn kernel_hostname(facts: &NodeFacts, pod: &Tree) -> Result<String, String> {
    if host_network(pod) {
        return Ok(String::new());
    }
    let (name, domain) = hostname(facts, pod);
    if domain.is_empty() || !pod.at("spec").flag("setHostnameAsFQDN") {
        return Ok(name);
    }
    let full = format!("{name}.{domain}");
    if full.len() > 64 {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long (64 characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

fn ports(pod: &Tree) -> Vec<PortMapping> {
    if host_network(pod) {
        return Vec::new();
    }
    let port = |p: &Tree, name: &str| p.int(name).and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
    let all = [List::Main, List::Init].into_iter().flat_map(|l| containers(pod, l));
    all.flat_map(|c| c.list("ports"))
        .filter(|p| port(p, "hostPort") != 0)
        .map(|p| PortMapping {
            protocol: match p.text("protocol") {
                "" => "TCP".to_owned(),
                other => other.to_owned(),
            },
            container_port: port(p, "containerPort"),
            host_port: port(p, "hostPort"),
            host_ip: p.text("hostIP").to_owned(),
        })
        .collect()
}

/// The pod's `resolv.conf`, and what did not fit into it, for an event. None with the host's network and
/// the host's own file.
pub(super) fn dns(facts: &NodeFacts, pod: &Tree) -> (Option<Dns>, Option<String>) {
    let spec = pod.at("spec");
    let cluster = match spec.text("dnsPolicy") {
        "None" => None,
        "Default" => Some(false),
        "ClusterFirstWithHostNet" => Some(true),
        _ => Some(!host_network(pod)),
    };
    let mut dns = match cluster {
        None => Dns::default(),
        Some(true) if !facts.cluster_dns.is_empty() => of_cluster(facts, pod),
        Some(_) if host_network(pod) && !spec.has("dnsConfig") => return (None, None),
        Some(_) => facts.dns(),
    };
    let own = spec.at("dnsConfig");
    let texts = |list: &str| own.list(list).iter().filter_map(Tree::as_str).map(str::to_owned).collect::<Vec<_>>();
    dns.servers.extend(texts("nameservers"));
    dns.searches.extend(texts("searches"));
    for option in own.list("options") {
        match option.text("value") {
            "" => add_option(&mut dns.options, option.text("name")),
            value => add_option(&mut dns.options, &format!("{}:{value}", option.text("name"))),
        }
    }
    once(&mut dns.servers);
    once(&mut dns.searches);
    let complaint = cut(&mut dns);
    (Some(dns), complaint)
}

fn of_cluster(facts: &NodeFacts, pod: &Tree) -> Dns {
    let domain = &facts.cluster_domain;
    let namespace = pod.at("metadata").text("namespace");
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    searches.extend(facts.dns().searches);
    Dns {
        servers: facts.cluster_dns.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

fn once(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|x| seen.insert(x.clone()));
}

/// Cuts to what resolvers take.
fn cut(dns: &mut Dns) -> Option<String> {
    let mut complaint = None;
    if dns.servers.len() > SERVERS_MAX {
        dns.servers.truncate(SERVERS_MAX);
        complaint = Some(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            dns.servers.join(" ")
        ));
    }
    let had = dns.searches.len();
    dns.searches.retain(|s| s.len() <= 253);
    dns.searches.truncate(SEARCHES_MAX);
    while dns.searches.join(" ").len() > SEARCH_CHARACTERS_MAX {
        dns.searches.pop();
    }
    if dns.searches.len() < had {
        complaint = Some(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            dns.searches.join(" ")
        ));
    }
    complaint
}

/// The pod's `/etc/hosts`.
pub(super) fn hosts_file(facts: &NodeFacts, pod: &Tree, addresses: &[IpAddr]) -> String {
    let mut out = String::new();
    if host_network(pod) {
        out.push_str("# Kubernetes-managed hosts file (host network).\n");
        out.push_str(&facts.hosts_file);
    } else {
        out.push_str("# Kubernetes-managed hosts file.\n");
        for (address, names) in [
            ("127.0.0.1", "localhost"),
            ("::1", "localhost ip6-localhost ip6-loopback"),
            ("fe00::0", "ip6-localnet"),
            ("fe00::0", "ip6-mcastprefix"),
            ("fe00::1", "ip6-allnodes"),
            ("fe00::2", "ip6-allrouters"),
        ] {
            out.push_str(&format!("{address}\t{names}\n"));
        }
        let (name, domain) = hostname(facts, pod);
        for address in addresses {
            match domain.as_str() {
                "" => out.push_str(&format!("{address}\t{name}\n")),
                domain => out.push_str(&format!("{address}\t{name}.{domain}\t{name}\n")),
            }
        }
    }
    let aliases = pod.at("spec").list("hostAliases");
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names: Vec<&str> = alias.list("hostnames").iter().filter_map(Tree::as_str).collect();
        out.push_str(&format!("{}\t{}\n", alias.text("ip"), names.join("\t")));
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn facts() -> NodeFacts {
        NodeFacts {
            resolv_conf: "# by hand\nnameserver 192.0.2.53\nsearch a.example. .\noptions ndots:2 edns0 ndots:3\n"
                .into(),
            hosts_file: "127.0.0.1 here\n".into(),
            cluster_domain: "cluster.local".into(),
            logs: "/var/log/pods/".into(),
            ..NodeFacts::default()
        }
    }

    fn pod(spec: Tree) -> Tree {
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})
    }

    fn said(dns: Option<Dns>) -> Option<(String, String, String)> {
        dns.map(|d| (d.servers.join(" "), d.searches.join(" "), d.options.join(" ")))
    }

    #[test]
    fn resolv_conf_follows_the_policy() {
        let with_dns = NodeFacts { cluster_dns: vec!["10.43.0.10".parse().unwrap()], ..facts() };
        let host = Some(("192.0.2.53".to_owned(), "a.example".to_owned(), "ndots:3 edns0".to_owned()));
        let cluster = Some((
            "10.43.0.10".to_owned(),
            "n.svc.cluster.local svc.cluster.local cluster.local a.example".to_owned(),
            "ndots:5".to_owned(),
        ));
        for (facts, spec, want) in [
            (&facts(), json!({"dnsPolicy": "ClusterFirst"}), host.clone()),
            (&facts(), json!({"dnsPolicy": "Default"}), host),
            (&with_dns, json!({"dnsPolicy": "ClusterFirst"}), cluster.clone()),
            (&with_dns, json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), cluster),
            (&with_dns, json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), None),
            (
                &with_dns,
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.1"], "searches": ["x"], "options": [{"name": "ndots", "value": "1"}]}}),
                Some(("1.1.1.1".to_owned(), "x".to_owned(), "ndots:1".to_owned())),
            ),
        ] {
            assert_eq!(said(dns(facts, &pod(spec.clone())).0), want, "{spec}");
        }
        let five = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1", "2", "3", "4", "5"]}});
        let (dns, complaint) = dns(&facts(), &pod(five));
        assert_eq!(dns.unwrap().servers, ["1", "2", "3"]);
        assert!(complaint.unwrap().starts_with("Nameserver limits were exceeded"));
    }

    #[test]
    fn a_pod_knows_its_name() {
        let long = "x".repeat(62) + "-y";
        for (spec, kernel) in [
            (json!({}), Ok("p".to_owned())),
            (json!({"hostname": "h", "subdomain": "s"}), Ok("h".to_owned())),
            (
                json!({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true}),
                Ok("h.s.n.svc.cluster.local".into()),
            ),
            (json!({"hostname": long}), Ok("x".repeat(62))),
            (json!({"hostnameOverride": "o.example"}), Ok("o.example".into())),
            (json!({"hostNetwork": true}), Ok(String::new())),
            (
                json!({"hostname": "x".repeat(60), "subdomain": "s", "setHostnameAsFQDN": true}),
                Err(format!(
                    "failed to construct FQDN from pod hostname and cluster domain, FQDN {}.s.n.svc.cluster.local is too long (64 characters is the max, 82 characters requested)",
                    "x".repeat(60)
                )),
            ),
        ] {
            assert_eq!(kernel_hostname(&facts(), &pod(spec.clone())), kernel, "{spec}");
        }
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let spec =
            json!({"hostname": "h", "subdomain": "s", "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["a", "b"]}]});
        let text = hosts_file(&facts(), &pod(spec), &["10.42.0.9".parse().unwrap()]);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.42.0.9\th.s.n.svc.cluster.local\th\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n192.0.2.9\ta\tb\n"));
        let host = hosts_file(&facts(), &pod(json!({"hostNetwork": true})), &[]);
        assert_eq!(host, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 here\n");
    }
}
