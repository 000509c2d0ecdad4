//! EndpointSlices of a service with a selector (KEP-752, KEP-1672).

use super::slices::{self, Group, Like};
use super::{Plan, Pod, backends, is_terminating, text};
use objects::Tree;
use serde_json::json;
use std::collections::BTreeMap;

/// The controller, in the label that says who makes a slice.
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// What the slices of a service need, given the pods it selects and all slices of its name.
pub fn plan(service: &Tree, pods: &[&Pod], have: &[Tree]) -> Plan {
    let mut plan = Plan::default();
    if backends::selector(service).is_none() || is_terminating(service) {
        return plan;
    }
    let mut labels = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.remove(backends::HEADLESS);
    if backends::is_headless(service) {
        labels.insert(backends::HEADLESS.into(), json!(""));
    }
    labels.insert(slices::SERVICE_NAME.into(), service["metadata"]["name"].clone());
    labels.insert(slices::MANAGED_BY.into(), json!(CONTROLLER));
    let labels = Tree::Object(labels);
    let mine: Vec<&Tree> = have
        .iter()
        .filter(|s| s["metadata"]["labels"][slices::MANAGED_BY] == CONTROLLER && !is_terminating(s))
        .collect();
    let families = backends::families(service);
    for family in &families {
        let own: Vec<&Tree> = mine.iter().copied().filter(|s| s["addressType"] == *family).collect();
        let like = Like { owner: service, labels: &labels, annotations: &Tree::Null, address_type: family };
        plan.actions.extend(slices::reconcile(&like, &own, groups(service, pods, family), true));
    }
    for slice in mine.iter().filter(|s| !families.contains(&text(&s["addressType"]))) {
        plan.delete(super::Target::of(slice));
    }
    if !plan.actions.is_empty() {
        plan.because(format!("the endpoint slices of {} have changed", text(&service["metadata"]["name"])));
    }
    plan
}

/// The pods as endpoints, those with the same ports together.
fn groups(service: &Tree, pods: &[&Pod], family: &str) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for pod in pods.iter().filter(|p| backends::counts(p, true)) {
        let Some(address) = backends::address(pod, family) else { continue };
        let mut ports = backends::ports(pod, service);
        for port in &mut ports {
            // Here a port without a name has an empty one.
            if port["name"].is_null() {
                port["name"] = json!("");
            }
        }
        let (serving, terminating) = (pod.is_ready(), pod.is_terminating());
        let ready = backends::takes_unready(service) || serving && !terminating;
        let mut endpoint = json!({"addresses": [address], "targetRef": backends::target_ref(pod, service),
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating}});
        if let Some(host) = backends::hostname(pod, service) {
            endpoint["hostname"] = json!(host);
        }
        if !pod.node.is_empty() {
            endpoint["nodeName"] = json!(*pod.node);
        }
        let key = Tree::Array(ports.clone()).to_string();
        groups.entry(key).or_insert_with(|| Group { ports, endpoints: Vec::new() }).endpoints.push(endpoint);
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::controllers::Action;
    use crate::pod::items;

    fn service() -> Tree {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "d", "uid": "s"},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.43.0.9", "ipFamilies": ["IPv4"],
                "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]}})
    }

    fn pod(n: usize, ready: bool, going: bool) -> Pod {
        let mut p = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{n}"), "uid": format!("{n:04}")},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": format!("10.42.{}.{}", n / 250, n % 250)}, {"ip": format!("fd00::{n:x}")}]}});
        if ready {
            p["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        }
        if going {
            p["metadata"]["deletionTimestamp"] = json!("2026-01-31T08:00:00Z");
        }
        Pod::of_tree(&p)
    }

    /// Carries out plans until one is empty, and counts what each of the first did.
    fn settle(service: &Tree, pods: &[Pod], slices: &mut Vec<Tree>) -> [usize; 3] {
        let mut did = [0; 3];
        let pods: Vec<&Pod> = pods.iter().collect();
        for a in plan(service, &pods, slices).actions {
            match a {
                Action::Create { mut tree } => {
                    did[0] += 1;
                    tree["metadata"]["name"] = json!(format!("web-{}", slices.len() + 100 * did[0]));
                    tree["metadata"]["uid"] = tree["metadata"]["name"].clone();
                    slices.push(tree);
                }
                Action::Update { tree } => {
                    did[1] += 1;
                    let at = slices.iter_mut().find(|s| s["metadata"]["uid"] == tree["metadata"]["uid"]).unwrap();
                    *at = tree;
                }
                Action::Delete { target, .. } => {
                    did[2] += 1;
                    slices.retain(|s| s["metadata"]["uid"] != target.uid.as_str());
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(plan(service, &pods, slices), Plan::default(), "nothing is left to do");
        did
    }

    fn sizes(slices: &[Tree]) -> Vec<usize> {
        slices.iter().map(|s| items(&s["endpoints"]).len()).collect()
    }

    #[test]
    fn an_endpoint_says_whether_it_is_ready_serves_and_ends() {
        for (ready, going, want) in [
            (true, false, json!({"ready": true, "serving": true, "terminating": false})),
            (false, false, json!({"ready": false, "serving": false, "terminating": false})),
            (true, true, json!({"ready": false, "serving": true, "terminating": true})),
        ] {
            let mut slices = Vec::new();
            settle(&service(), &[pod(1, ready, going)], &mut slices);
            assert_eq!(slices[0]["endpoints"][0]["conditions"], want);
            assert_eq!(slices[0]["ports"], json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
            assert_eq!(slices[0]["metadata"]["labels"][slices::SERVICE_NAME], "web");
            assert_eq!(slices[0]["metadata"]["ownerReferences"][0]["kind"], "Service");
        }
    }

    #[test]
    fn slices_hold_a_hundred_and_few_of_them_change_with_an_endpoint() {
        let mut slices = Vec::new();
        let mut pods: Vec<Pod> = (0..250).map(|n| pod(n, true, false)).collect();
        assert_eq!(settle(&service(), &pods, &mut slices), [3, 0, 0]);
        assert_eq!(sizes(&slices), [100, 100, 50]);
        pods.push(pod(900, true, false));
        assert_eq!(settle(&service(), &pods, &mut slices), [0, 1, 0]);
        assert_eq!(sizes(&slices), [100, 100, 51]);
        pods[0] = pod(0, false, false);
        assert_eq!(settle(&service(), &pods, &mut slices), [0, 1, 0]);
        pods.remove(0);
        pods.push(pod(901, true, false));
        assert_eq!(settle(&service(), &pods, &mut slices), [0, 1, 0], "the new one takes the place of the old");
        assert_eq!(sizes(&slices), [100, 100, 51]);
        pods.truncate(0);
        assert_eq!(settle(&service(), &pods, &mut slices), [1, 0, 3]);
        assert_eq!(sizes(&slices), [0], "an empty slice says that somebody looked");
        pods.push(pod(1, true, false));
        assert_eq!(settle(&service(), &pods, &mut slices), [1, 0, 1]);
    }

    #[test]
    fn each_family_has_its_slices_and_labels_follow_the_service() {
        let mut slices = Vec::new();
        let mut both = service();
        both["spec"]["ipFamilies"] = json!(["IPv6", "IPv4"]);
        let pods = [pod(1, true, false)];
        settle(&both, &pods, &mut slices);
        let kinds: Vec<&Tree> = slices.iter().map(|s| &s["addressType"]).collect();
        assert_eq!(kinds, ["IPv6", "IPv4"]);
        assert_eq!(slices[0]["endpoints"][0]["addresses"], json!(["fd00::1"]));
        assert_eq!(settle(&service(), &pods, &mut slices), [0, 0, 1]);
        let mut labelled = service();
        labelled["metadata"]["labels"] = json!({"team": "a"});
        assert_eq!(settle(&labelled, &pods, &mut slices), [0, 1, 0]);
        assert_eq!(slices[0]["metadata"]["labels"]["team"], "a");
        let foreign = json!({"metadata": {"labels": {slices::MANAGED_BY: "me"}}, "addressType": "IPv4"});
        slices.push(foreign.clone());
        assert_eq!(settle(&labelled, &pods, &mut slices), [0, 0, 0]);
        assert!(slices.contains(&foreign));
    }
}
