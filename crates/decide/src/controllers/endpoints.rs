//! Endpoints of a service: one object with the addresses of its pods, ready ones and others.

use super::{Action, Plan, Pod, backends, text};
use objects::Tree;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// At most this many addresses; what is more is left out and said so.
pub const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Says who made an Endpoints object.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// The controller, in that label.
pub const CONTROLLER: &str = "endpoint-controller";

/// What the Endpoints of a service need, given the pods it selects.
pub fn plan(service: &Tree, pods: &[&Pod], have: Option<&Tree>) -> Plan {
    let mut plan = Plan::default();
    if backends::selector(service).is_none() || super::is_terminating(service) {
        return plan;
    }
    let (subsets, truncated) = subsets(service, pods);
    let mut labels = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    if backends::is_headless(service) {
        labels.insert(backends::HEADLESS.into(), json!(""));
    } else {
        labels.remove(backends::HEADLESS);
    }
    labels.insert(MANAGED_BY.into(), json!(CONTROLLER));
    let mut tree = match have {
        Some(have) => have.clone(),
        None => json!({"apiVersion": "v1", "kind": "Endpoints", "metadata":
            {"name": service["metadata"]["name"], "namespace": service["metadata"]["namespace"]}}),
    };
    let said = tree["metadata"]["annotations"][OVER_CAPACITY] == "truncated";
    if have.is_some_and(|h| h["metadata"]["labels"] == Tree::Object(labels.clone()))
        && same(&tree["subsets"], &subsets)
        && said == truncated
    {
        return plan;
    }
    tree["metadata"]["labels"] = Tree::Object(labels);
    match (truncated, tree["metadata"]["annotations"].as_object_mut()) {
        (true, Some(all)) => {
            all.insert(OVER_CAPACITY.into(), json!("truncated"));
        }
        (true, None) => tree["metadata"]["annotations"] = json!({OVER_CAPACITY: "truncated"}),
        (false, Some(all)) => {
            all.remove(OVER_CAPACITY);
        }
        (false, None) => {}
    }
    if let Some(map) = tree.as_object_mut() {
        if subsets.is_empty() {
            map.remove("subsets");
        } else {
            map.insert("subsets".into(), Tree::Array(subsets));
        }
    }
    plan.because(format!("the endpoints of {} have changed", text(&service["metadata"]["name"])));
    plan.actions.push(if have.is_some() { Action::Update { tree } } else { Action::Create { tree } });
    plan
}

fn same(have: &Tree, want: &[Tree]) -> bool {
    crate::pod::items(have) == want
}

/// The subsets, and whether some addresses did not find room: those of pods that are ready stay first.
fn subsets(service: &Tree, pods: &[&Pod]) -> (Vec<Tree>, bool) {
    let unready = backends::takes_unready(service);
    let family = backends::families(service).first().copied().unwrap_or("IPv4");
    let mut chosen: Vec<(&Pod, &str, bool)> = pods
        .iter()
        .filter(|p| backends::counts(p, unready))
        .filter_map(|p| Some((*p, backends::address(p, family)?, unready || p.is_ready())))
        .collect();
    chosen.sort_by_key(|(p, ip, ready)| (!ready, ip.parse::<std::net::IpAddr>().ok(), p.uid.clone()));
    let truncated = chosen.len() > ADDRESSES_MAX;
    chosen.truncate(ADDRESSES_MAX);
    // Each port with those who have it; ports that the same pods have stand together.
    let mut who: BTreeMap<String, (Tree, BTreeSet<usize>)> = BTreeMap::new();
    let portless = crate::pod::items(&service["spec"]["ports"]).is_empty() && backends::is_headless(service);
    for (i, (pod, ..)) in chosen.iter().enumerate() {
        let mut ports = backends::ports(pod, service);
        if portless {
            ports.push(Tree::Null);
        }
        for port in ports {
            who.entry(port.to_string()).or_insert_with(|| (port, BTreeSet::new())).1.insert(i);
        }
    }
    let mut together: BTreeMap<BTreeSet<usize>, Vec<Tree>> = BTreeMap::new();
    for (port, pods) in who.into_values() {
        together.entry(pods).or_default().push(port);
    }
    let address = |(pod, ip, _): &(&Pod, &str, bool)| {
        let mut a = json!({"ip": ip, "targetRef": backends::target_ref(pod, service)});
        if let Some(host) = backends::hostname(pod, service) {
            a["hostname"] = json!(host);
        }
        if !pod.node.is_empty() {
            a["nodeName"] = json!(*pod.node);
        }
        a
    };
    let subset = |(pods, ports): (BTreeSet<usize>, Vec<Tree>)| {
        let of = |ready: bool| -> Vec<Tree> {
            pods.iter().filter_map(|i| chosen.get(*i)).filter(|c| c.2 == ready).map(address).collect()
        };
        let mut s = json!({});
        for (field, list) in [("addresses", of(true)), ("notReadyAddresses", of(false))] {
            if !list.is_empty() {
                s[field] = Tree::Array(list);
            }
        }
        let ports: Vec<Tree> = ports.into_iter().filter(|p| !p.is_null()).collect();
        if !ports.is_empty() {
            s["ports"] = Tree::Array(ports);
        }
        s
    };
    (together.into_iter().map(subset).collect(), truncated)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn service(more: Tree) -> Tree {
        let mut s = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "d", "uid": "s", "labels": {"team": "a"}},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.43.0.9", "ipFamilies": ["IPv4"],
                "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}, {"name": "raw", "port": 9, "protocol": "TCP"}]}});
        for (k, v) in more.as_object().unwrap() {
            s["spec"][k] = v.clone();
        }
        s
    }

    fn pod(name: &str, ip: &str, ready: bool, port: Option<u16>) -> Pod {
        let mut p = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "uid": name},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}]}});
        if let Some(port) = port {
            p["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": port}]);
        }
        if ready {
            p["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        }
        Pod::of_tree(&p)
    }

    fn made(service: &Tree, pods: &[Pod], have: Option<&Tree>) -> Option<Tree> {
        let p = plan(service, &pods.iter().collect::<Vec<_>>(), have);
        match p.actions.as_slice() {
            [] => None,
            [Action::Create { tree } | Action::Update { tree }] => Some(tree.clone()),
            other => panic!("{other:?}"),
        }
    }

    fn shown(endpoints: &Tree) -> Vec<String> {
        let list = |s: &Tree, f: &str, key: &str| {
            crate::pod::items(&s[f]).iter().map(|a| a[key].to_string().replace('"', "")).collect::<Vec<_>>().join(",")
        };
        crate::pod::items(&endpoints["subsets"])
            .iter()
            .map(|s| {
                format!(
                    "{}|{}|{}",
                    list(s, "addresses", "ip"),
                    list(s, "notReadyAddresses", "ip"),
                    list(s, "ports", "port")
                )
            })
            .collect()
    }

    #[test]
    fn ports_that_the_same_pods_have_stand_together_and_unready_pods_apart() {
        let pods = [pod("a", "10.42.0.10", true, Some(80)), pod("b", "10.42.0.9", true, Some(80))];
        let e = made(&service(json!({})), &pods, None).unwrap();
        assert_eq!(shown(&e), ["10.42.0.9,10.42.0.10||80,9"]);
        assert_eq!(e["metadata"]["labels"], json!({"team": "a", MANAGED_BY: CONTROLLER}));
        assert_eq!(e["subsets"][0]["addresses"][0]["targetRef"]["name"], "b");
        assert_eq!(made(&service(json!({})), &pods, Some(&e)), None, "nothing to do twice");
        let pods = [
            pod("a", "10.42.0.1", true, Some(80)),
            pod("b", "10.42.0.2", false, Some(81)),
            pod("c", "10.42.0.3", true, None),
        ];
        let e = made(&service(json!({})), &pods, None).unwrap();
        assert_eq!(shown(&e), ["10.42.0.1||80", "10.42.0.1,10.42.0.3|10.42.0.2|9", "|10.42.0.2|81"]);
        let e = made(&service(json!({"publishNotReadyAddresses": true})), &pods[1..2], None).unwrap();
        assert_eq!(shown(&e), ["10.42.0.2||81,9"]);
    }

    #[test]
    fn a_headless_service_needs_no_ports_and_one_without_pods_has_no_subsets() {
        let headless = service(json!({"clusterIP": "None", "ports": null}));
        let e = made(&headless, &[pod("a", "10.42.0.1", true, None)], None).unwrap();
        assert_eq!(shown(&e), ["10.42.0.1||"]);
        assert_eq!(e["metadata"]["labels"][backends::HEADLESS], "");
        let emptied = made(&headless, &[], Some(&e)).unwrap();
        assert_eq!(emptied["subsets"], Tree::Null);
        assert_eq!(made(&headless, &[], Some(&emptied)), None);
    }

    #[test]
    fn services_whose_endpoints_others_make_are_left_alone() {
        let pods = [pod("a", "10.42.0.1", true, None)];
        assert_eq!(made(&service(json!({"selector": null})), &pods, None), None);
        assert_eq!(made(&service(json!({"type": "ExternalName"})), &pods, None), None);
    }

    #[test]
    fn past_a_thousand_addresses_the_rest_is_left_out_and_that_is_said() {
        let ip = |n: usize| format!("10.42.{}.{}", n / 250, n % 250);
        let pods: Vec<Pod> = (0..1001).map(|n| pod(&n.to_string(), &ip(n), n != 0, None)).collect();
        let e = made(&service(json!({})), &pods, None).unwrap();
        assert_eq!(e["metadata"]["annotations"][OVER_CAPACITY], "truncated");
        assert_eq!(
            crate::pod::items(&e["subsets"][0]["addresses"]).len(),
            1000,
            "the one that is not ready is left out"
        );
        let e = made(&service(json!({})), &pods[..3], Some(&e)).unwrap();
        assert_eq!(e["metadata"]["annotations"], json!({}));
    }
}
