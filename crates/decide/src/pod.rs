//! A pod as scheduling and controllers see it: read from its tree once.

use base::Quantity;
use objects::Tree;
use std::collections::BTreeMap;

/// Amounts of resources by name (`cpu`, `memory`, `ephemeral-storage`, `pods`, `example.com/gpu`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Resources(pub BTreeMap<String, Quantity>);

impl Resources {
    /// The amounts of a tree such as `resources.requests` or `status.allocatable`. What is no quantity
    /// is left out: validation refused it long before.
    pub fn of(tree: &Tree) -> Resources {
        let amounts = tree.as_object().into_iter().flatten().filter_map(|(k, v)| {
            let q = match v {
                Tree::String(s) => Quantity::parse(s).ok()?,
                Tree::Number(n) => Quantity::parse(&n.to_string()).ok()?,
                _ => return None,
            };
            Some((k.clone(), q))
        });
        Resources(amounts.collect())
    }

    /// The amount of one resource; zero if it is not named.
    pub fn get(&self, name: &str) -> Quantity {
        self.0.get(name).copied().unwrap_or(ZERO)
    }

    /// Adds every amount of `other`. An amount past the range of quantities stays at its bound.
    pub fn add(&mut self, other: &Resources) {
        for (name, q) in &other.0 {
            let sum = self.get(name);
            self.0.insert(name.clone(), sum.checked_add(*q).unwrap_or(sum.max(*q)));
        }
    }

    /// Takes every amount of `other` away.
    pub fn sub(&mut self, other: &Resources) {
        for (name, q) in &other.0 {
            if let Some(rest) = self.get(name).checked_sub(*q) {
                self.0.insert(name.clone(), rest);
            }
        }
    }

    /// For every resource the greater of the two amounts.
    pub fn raise(&mut self, other: &Resources) {
        for (name, q) in &other.0 {
            let most = self.get(name).max(*q);
            self.0.insert(name.clone(), most);
        }
    }
}

const ZERO: Quantity = Quantity::new(0, base::quantity::Format::DecimalSi);

/// A port of the host that a pod takes for itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostPort {
    /// The address; `0.0.0.0` is all of them.
    pub ip: String,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Whether two pods cannot have them on one node.
    pub fn clashes(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == "0.0.0.0" || other.ip == "0.0.0.0")
    }
}

/// What a pod asks of the node it runs on, in all: the rule of KEP-753. Containers run together;
/// a restartable init container (a sidecar) runs with everything that starts after it; the others run
/// alone, one after the other. So a resource's demand is the most that ever runs at once. Requests given
/// at pod level (KEP-2837) stand in for the sum where they are given. Overhead is added.
pub fn requests(spec: &Tree) -> Resources {
    let of = |c: &Tree| requests_of(&c["resources"]);
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for c in items(&spec["initContainers"]) {
        if c["restartPolicy"] == "Always" {
            sidecars.add(&of(c));
            peak.raise(&sidecars);
        } else {
            let mut alone = of(c);
            alone.add(&sidecars);
            peak.raise(&alone);
        }
    }
    let mut together = sidecars;
    for c in items(&spec["containers"]) {
        together.add(&of(c));
    }
    together.raise(&peak);
    for (name, q) in requests_of(&spec["resources"]).0 {
        together.0.insert(name, q);
    }
    together.add(&Resources::of(&spec["overhead"]));
    together
}

/// A container's requests, its limits standing in where it gives a limit only.
fn requests_of(resources: &Tree) -> Resources {
    let mut all = Resources::of(&resources["limits"]);
    all.0.extend(Resources::of(&resources["requests"]).0);
    all
}

/// The ports of the host a pod takes.
pub fn host_ports(spec: &Tree) -> Vec<HostPort> {
    let containers = items(&spec["containers"])
        .iter()
        .chain(items(&spec["initContainers"]).iter().filter(|c| c["restartPolicy"] == "Always"));
    let mut ports: Vec<HostPort> = containers
        .flat_map(|c| items(&c["ports"]))
        .filter_map(|p| {
            let port = u16::try_from(p["hostPort"].as_u64()?).ok().filter(|p| *p != 0)?;
            Some(HostPort {
                ip: p["hostIP"].as_str().filter(|s| !s.is_empty()).unwrap_or("0.0.0.0").into(),
                protocol: p["protocol"].as_str().unwrap_or("TCP").into(),
                port,
            })
        })
        .collect();
    ports.sort();
    ports.dedup();
    ports
}

/// What a pod that says nothing of its priority has.
pub fn priority(spec: &Tree) -> i64 {
    spec["priority"].as_i64().unwrap_or(0)
}

/// Whether a pod may have others evicted for it: not with `preemptionPolicy: Never`.
pub fn may_preempt(spec: &Tree) -> bool {
    spec["preemptionPolicy"] != "Never"
}

/// Whether a pod has run to its end and holds nothing of its node any more.
pub fn is_finished(pod: &Tree) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// Whether the condition `Ready` is true.
pub fn is_ready(pod: &Tree) -> bool {
    items(&pod["status"]["conditions"]).iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// A list's items; none for what is no list.
pub fn items(tree: &Tree) -> &[Tree] {
    tree.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn container(cpu: &str) -> Tree {
        json!({"resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn a_pod_asks_for_the_most_that_ever_runs_at_once() {
        let sidecar = json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}});
        for (init, main, want) in [
            (vec![], vec![container("1"), container("500m")], "1500m"),
            (vec![container("2")], vec![container("1")], "2"),
            (vec![sidecar.clone(), container("2")], vec![container("1")], "2100m"),
            (vec![container("2"), sidecar.clone()], vec![container("1")], "2"),
            (vec![sidecar], vec![container("1")], "1100m"),
        ] {
            let r = requests(&json!({"initContainers": init, "containers": main}));
            assert_eq!(r.get("cpu"), Quantity::parse(want).unwrap(), "{want}");
        }
    }

    #[test]
    fn a_limit_without_a_request_is_one_and_pod_level_requests_stand_in_for_the_sum() {
        let spec = json!({"containers": [{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}}}],
            "overhead": {"memory": "1Gi"}});
        assert_eq!(requests(&spec).get("cpu").milli_value(), 100);
        assert_eq!(requests(&spec).get("memory").to_string(), "2Gi");
        let mut pod_level = spec;
        pod_level["resources"] = json!({"requests": {"cpu": "3"}});
        assert_eq!(requests(&pod_level).get("cpu").milli_value(), 3000);
    }

    #[test]
    fn host_ports_clash_on_one_address_or_on_all() {
        let spec = json!({"containers": [{"ports": [{"containerPort": 1}, {"hostPort": 80}, {"hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"}]}]});
        let ports = host_ports(&spec);
        assert_eq!(ports.len(), 2);
        let other = HostPort { ip: "10.0.0.1".into(), protocol: "TCP".into(), port: 80 };
        assert!(ports.iter().any(|p| p.clashes(&other)));
        assert!(!other.clashes(&HostPort { ip: "10.0.0.2".into(), ..other.clone() }));
    }
}
