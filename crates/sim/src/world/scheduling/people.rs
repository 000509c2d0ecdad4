//! People who make, bind, cordon and remove, pods that come to their end, and nodes that fail.

use super::{Happening, MS, NAMESPACE, SECOND, World, host};
use base::Chance;
use objects::Tree;
use objects::request::Verb;
use serde_json::json;

/// People stop here: what waits longest, a back-off or a question, is over before the end.
const QUIET: u64 = 42 * SECOND;
/// Where controllers make pods nodes fail until then: who has ended thrice waits longer than the quiet lasts.
const FAULTS_OF_NODES: u64 = 28 * SECOND;
/// At most so many pods are there at a time.
const PODS_MAX: usize = 30;

impl World {
    pub(super) fn people(&mut self) {
        if self.now >= QUIET {
            return;
        }
        let now = self.now;
        let Some(s) = &mut self.pods else { return };
        let pause = s.dice.range(20, 400) * MS;
        let pods: Vec<(String, Option<String>)> =
            s.award.pods().map(|(name, _, node)| (name.to_owned(), node.map(str::to_owned))).collect();
        let any = s.dice.pick(&pods).map(|p| p.0.clone());
        let waiting: Vec<&String> = pods.iter().filter(|p| p.1.is_none()).map(|p| &p.0).collect();
        let waiting = s.dice.pick(&waiting).map(|n| (*n).clone());
        let host = s.dice.below(s.hosts.len() as u64) as usize;
        let roll = s.dice.below(20);
        match (roll, any, waiting) {
            (0..=9, ..) if pods.len() < PODS_MAX => {
                let tree = new_pod(&mut s.dice, now, None);
                self.want(Verb::Create, "", "", Some(tree));
            }
            (10, ..) if pods.len() < PODS_MAX => {
                let tree = new_pod(&mut s.dice, now, Some(host::name(host)));
                self.want(Verb::Create, "", "", Some(tree));
            }
            (11..=14, Some(name), _) => self.want(Verb::Delete, &name, "", None),
            (15, Some(name), _) => {
                let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
                self.want(Verb::Delete, &name, "", Some(options));
            }
            (16, _, Some(name)) => {
                let tree = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                    "target": {"kind": "Node", "name": host::name(host)}});
                self.want(Verb::Create, &name, "binding", Some(tree));
            }
            (17, ..) => {
                let cordoned = s.dice.below(2) == 0;
                self.cordon(host, cordoned);
            }
            (18 | 19, ..) => self.finish(host),
            _ => {}
        }
        self.scene(pause, Happening::People);
    }

    pub(super) fn fault_of_pods(&mut self) {
        let (now, faults) = (self.now, self.faults);
        let Some(s) = &mut self.pods else { return };
        if !faults || (self.control.is_some() && now >= FAULTS_OF_NODES) {
            return;
        }
        let pause = s.dice.range(100, 4_000) * MS;
        let host = s.dice.below(s.hosts.len() as u64) as usize;
        let long = s.dice.range(50, 8_000) * MS;
        let h = &mut s.hosts[host];
        match s.dice.below(6) {
            roll @ 0..=2 if h.up.is_some() => {
                self.crash_host(host, roll == 2);
                self.scene(long / 2, Happening::Restart { host });
            }
            3 => {
                // It is noticed some time, and some time that it is back.
                h.runtime_down_until = now + long / 4;
                s.away += 1;
                let (gone, back) = (s.dice.range(1, 300) * MS, s.dice.range(1, 300) * MS);
                self.scene(gone, Happening::Runtime { host });
                self.scene(long / 4 + back, Happening::Runtime { host });
            }
            4 => h.deaf_until = now + long,
            _ => h.mute_until = now + long,
        }
        self.scene(pause, Happening::Fault);
    }
}

/// A pod somebody wants, on this node if one is given.
fn new_pod(dice: &mut Chance, now: u64, node: Option<String>) -> Tree {
    let cpu = ["100m", "500m", "1", "1", "2", "3", "9"][dice.below(7) as usize];
    let image = ["a", "b"][dice.below(2) as usize];
    let mut container = json!({"name": "c", "image": image, "resources": {"requests": {"cpu": cpu}}});
    if dice.below(10) == 0 {
        container["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    }
    if dice.below(4) == 0 {
        container["env"] =
            json!([{"name": "CA", "valueFrom": {"configMapKeyRef": {"name": "kube-root-ca.crt", "key": "ca.crt"}}}]);
    }
    let mut spec = json!({"containers": [container], "automountServiceAccountToken": false});
    if dice.below(3) == 0 {
        spec["restartPolicy"] = json!("Never");
    }
    if let Some(all) = spec["containers"].as_array_mut().filter(|_| dice.below(4) == 0) {
        all.push(json!({"name": "d", "image": "a"}));
    }
    // Who matters more may have others evicted.
    if dice.below(8) == 0 {
        spec["priorityClassName"] = json!("system-cluster-critical");
    }
    if dice.below(6) == 0 {
        spec["topologySpreadConstraints"] = json!([{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {}}]);
    }
    if dice.below(6) == 0 {
        spec["nodeSelector"] = json!({"zone": if dice.below(2) == 0 { "even" } else { "odd" }});
    }
    if dice.below(8) == 0 {
        spec["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"alone": "yes"}}}]}});
    }
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
    }
    let name = format!("p{}-{}", now / MS, dice.below(1_000));
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"alone": if dice.below(4) == 0 { "yes" } else { "no" }}},
        "spec": spec})
}
