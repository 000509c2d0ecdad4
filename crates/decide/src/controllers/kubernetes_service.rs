//! The service `kubernetes` in namespace `default`: where pods find the API.

use super::{Action, Plan, mirroring, slices};
use objects::Tree;
use serde_json::json;
use std::net::Ipv4Addr;

/// The name of the service, its Endpoints and its slice.
pub const NAME: &str = "kubernetes";

/// What there is of it.
#[derive(Default)]
pub struct Have<'a> {
    /// The service.
    pub service: Option<&'a Tree>,
    /// Its Endpoints.
    pub endpoints: Option<&'a Tree>,
    /// Its EndpointSlice.
    pub slice: Option<&'a Tree>,
}

/// What it needs: the service at `address`, and the gateways behind it, whose addresses are in order and
/// all of which listen on `port`. Nothing, as long as no gateway is known.
pub fn plan(have: &Have<'_>, address: Ipv4Addr, gateways: &[Ipv4Addr], port: u16) -> Plan {
    let mut plan = Plan::default();
    if gateways.is_empty() {
        return plan;
    }
    let address = address.to_string();
    let ports = json!([{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]);
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "ports": ports, "sessionAffinity": "None"}});
    put(have.service, service, &[&["spec", "ports"], &["spec", "type"]], &mut plan);
    let shown = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let addresses: Vec<Tree> = gateways.iter().map(|g| json!({"ip": g.to_string()})).collect();
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": NAME, "namespace": "default", "labels": {mirroring::SKIP: "true"}},
        "subsets": [{"addresses": addresses, "ports": shown}]});
    put(have.endpoints, endpoints, &[&["subsets"], &["metadata", "labels"]], &mut plan);
    let points: Vec<Tree> =
        gateways.iter().map(|g| json!({"addresses": [g.to_string()], "conditions": {"ready": true}})).collect();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": NAME, "namespace": "default", "labels": {slices::SERVICE_NAME: NAME}},
        "addressType": "IPv4", "endpoints": points, "ports": shown});
    put(have.slice, slice, &[&["endpoints"], &["ports"], &["metadata", "labels"]], &mut plan);
    plan
}

/// Makes the object, or these parts of it as they should be.
fn put(have: Option<&Tree>, want: Tree, parts: &[&[&str]], plan: &mut Plan) {
    let Some(have) = have else {
        plan.actions.push(Action::Create { tree: want });
        return;
    };
    let mut tree = have.clone();
    for path in parts {
        let wanted = path.iter().fold(&want, |t, key| &t[*key]);
        *path.iter().fold(&mut tree, |t, key| &mut t[*key]) = wanted.clone();
    }
    if tree != *have {
        plan.actions.push(Action::Update { tree });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 1);

    fn made(have: &Have<'_>, gateways: &[Ipv4Addr]) -> Vec<Tree> {
        let act = |a: Action| match a {
            Action::Create { tree } | Action::Update { tree } => tree,
            other => panic!("{other:?}"),
        };
        plan(have, ADDRESS, gateways, 6443).actions.into_iter().map(act).collect()
    }

    #[test]
    fn the_three_objects_are_made_once_and_follow_the_gateways() {
        let one = [Ipv4Addr::new(192, 0, 2, 2)];
        assert!(made(&Have::default(), &[]).is_empty(), "no gateway is known yet");
        let all = made(&Have::default(), &one);
        let [service, endpoints, slice] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(service["spec"]["clusterIP"], "10.43.0.1");
        let have = Have { service: Some(service), endpoints: Some(endpoints), slice: Some(slice) };
        assert!(made(&have, &one).is_empty());
        let two = [one[0], Ipv4Addr::new(192, 0, 2, 3)];
        let changed = made(&have, &two);
        assert_eq!(changed.len(), 2, "the service stays");
        assert_eq!(changed[0]["subsets"][0]["addresses"][1]["ip"], "192.0.2.3");
        assert_eq!(changed[1]["endpoints"][1]["addresses"][0], "192.0.2.3");
    }
}
