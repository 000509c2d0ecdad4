//! Endpoints that people make by hand, for services without a selector, shown as EndpointSlices too.

use super::slices::{self, Group, Like};
use super::{Plan, Target, backends, endpoints, is_terminating, text};
use crate::pod::items;
use objects::Tree;
use serde_json::json;
use std::collections::BTreeMap;

/// The controller, in the label that says who makes a slice.
pub const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// A label of Endpoints that want no mirror.
pub const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that elect a leader are none.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// At most this many addresses of a subset are mirrored.
const ADDRESSES_MAX: usize = 1000;
/// Annotations that are not mirrored.
const NOT_MIRRORED: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];

/// What the mirror of an Endpoints object needs, given its service and all slices of its name.
pub fn plan(hand_made: Option<&Tree>, service: Option<&Tree>, have: &[Tree]) -> Plan {
    let mut plan = Plan::default();
    let mine: Vec<&Tree> = have
        .iter()
        .filter(|s| s["metadata"]["labels"][slices::MANAGED_BY] == CONTROLLER && !is_terminating(s))
        .collect();
    let mirrored = hand_made.filter(|e| {
        let meta = &e["metadata"];
        let no_selector = |s: &Tree| items_of(&s["spec"]["selector"]).next().is_none() && !is_terminating(s);
        !is_terminating(e)
            && meta["labels"][SKIP] != "true"
            && meta["annotations"][LEADER].is_null()
            && service.is_some_and(no_selector)
    });
    let Some(of) = mirrored else {
        for slice in mine {
            plan.delete(Target::of(slice));
        }
        return plan;
    };
    let reserved = [slices::SERVICE_NAME, slices::MANAGED_BY, endpoints::MANAGED_BY, backends::HEADLESS];
    let mut labels: objects::Map =
        items_of(&of["metadata"]["labels"]).filter(|(k, _)| !reserved.contains(&k.as_str())).map(owned).collect();
    labels.insert(slices::SERVICE_NAME.into(), of["metadata"]["name"].clone());
    labels.insert(slices::MANAGED_BY.into(), json!(CONTROLLER));
    let annotations = items_of(&of["metadata"]["annotations"]).filter(|(k, _)| !NOT_MIRRORED.contains(&k.as_str()));
    let annotations = Tree::Object(annotations.map(owned).collect());
    let labels = Tree::Object(labels);
    for family in ["IPv4", "IPv6"] {
        let own: Vec<&Tree> = mine.iter().copied().filter(|s| s["addressType"] == family).collect();
        let like = Like { owner: of, labels: &labels, annotations: &annotations, address_type: family };
        plan.actions.extend(slices::reconcile(&like, &own, groups(of, family), false));
    }
    plan
}

fn items_of(map: &Tree) -> impl Iterator<Item = (&String, &Tree)> {
    map.as_object().into_iter().flatten()
}

fn owned((key, value): (&String, &Tree)) -> (String, Tree) {
    (key.clone(), value.clone())
}

fn groups(of: &Tree, family: &str) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for subset in items(&of["subsets"]) {
        let mut ports = items(&subset["ports"]).to_vec();
        for port in &mut ports {
            if port["name"].is_null() {
                port["name"] = json!("");
            }
        }
        let ready = items(&subset["addresses"]).iter().map(|a| (a, true));
        let all = ready.chain(items(&subset["notReadyAddresses"]).iter().map(|a| (a, false)));
        let of_family = all.filter(|(a, _)| backends::is_v6(text(&a["ip"])) == (family == "IPv6"));
        for (address, ready) in of_family.take(ADDRESSES_MAX) {
            let mut endpoint = json!({"addresses": [address["ip"]], "conditions": {"ready": ready}});
            for field in ["hostname", "nodeName", "targetRef"] {
                if !address[field].is_null() {
                    endpoint[field] = address[field].clone();
                }
            }
            let key = Tree::Array(ports.clone()).to_string();
            let group = groups.entry(key).or_insert_with(|| Group { ports: ports.clone(), endpoints: Vec::new() });
            group.endpoints.push(endpoint);
        }
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::controllers::Action;

    fn hand_made() -> Tree {
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "db", "namespace": "d", "uid": "e", "labels": {"team": "a"}},
            "subsets": [{"addresses": [{"ip": "192.0.2.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}],
                "ports": [{"port": 5432, "protocol": "TCP"}]}]})
    }

    #[test]
    fn endpoints_made_by_hand_are_mirrored_by_family() {
        let service = json!({"metadata": {"name": "db"}, "spec": {}});
        let p = plan(Some(&hand_made()), Some(&service), &[]);
        let made: Vec<&Tree> = p
            .actions
            .iter()
            .map(|a| match a {
                Action::Create { tree } => tree,
                other => panic!("{other:?}"),
            })
            .collect();
        let shown: Vec<(&str, Vec<String>)> = made
            .iter()
            .map(|s| {
                let of = |e: &Tree| format!("{} {}", text(&e["addresses"][0]), e["conditions"]["ready"]);
                (text(&s["addressType"]), items(&s["endpoints"]).iter().map(of).collect())
            })
            .collect();
        assert_eq!(shown[0], ("IPv4", vec!["192.0.2.1 true".to_owned(), "192.0.2.2 false".to_owned()]));
        assert_eq!(shown[1], ("IPv6", vec!["fd00::1 true".to_owned()]));
        assert_eq!(made[0]["metadata"]["labels"]["team"], "a");
        assert_eq!(made[0]["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
        let have: Vec<Tree> = made.into_iter().cloned().collect();
        assert_eq!(plan(Some(&hand_made()), Some(&service), &have).actions, []);
    }

    #[test]
    fn what_is_not_made_by_hand_or_asks_for_none_has_no_mirror() {
        let bare = json!({"metadata": {"name": "db"}, "spec": {}});
        let selecting = json!({"metadata": {"name": "db"}, "spec": {"selector": {"a": "b"}}});
        let mut skip = hand_made();
        skip["metadata"]["labels"][SKIP] = json!("true");
        let mut elects = hand_made();
        elects["metadata"]["annotations"] = json!({LEADER: "{}"});
        let made = plan(Some(&hand_made()), Some(&bare), &[]).actions;
        let have: Vec<Tree> = made
            .into_iter()
            .filter_map(|a| match a {
                Action::Create { tree } => Some(tree),
                _ => None,
            })
            .collect();
        let none = |e: Option<&Tree>, s: Option<&Tree>| {
            let acts = plan(e, s, &have).actions;
            acts.len() == 2 && acts.iter().all(|a| matches!(a, Action::Delete { .. }))
        };
        assert!(none(Some(&hand_made()), Some(&selecting)));
        assert!(none(Some(&hand_made()), None));
        assert!(none(Some(&skip), Some(&bare)));
        assert!(none(Some(&elects), Some(&bare)));
        assert!(none(None, Some(&bare)));
    }
}
