//! People who make, change and remove Services in all namespaces, a few of which want the same.

use super::{Happening, MS, SECOND, World};
use base::Chance;
use objects::Tree;
use objects::request::{Body, PatchType, Verb};
use serde_json::json;

/// People stop here: what services give up is returned before the end.
const QUIET: u64 = 38 * SECOND;

impl World {
    pub(super) fn serve(&mut self) {
        let namespaces: Vec<_> = self.names.keys().cloned().collect();
        let now = self.now;
        let Some(s) = self.control.as_mut().filter(|_| now < QUIET) else { return };
        let dice = &mut s.dice_of_services;
        let pause = dice.range(20, 600) * MS;
        if let Some(namespace) = dice.pick(&namespaces) {
            let name = ["red", "green", "blue"][dice.below(3) as usize];
            let (verb, body) = match dice.below(10) {
                0..=4 => {
                    let tree = json!({"apiVersion": "v1", "kind": "Service",
                        "metadata": {"name": name, "namespace": &**namespace}, "spec": spec(dice, true)});
                    (Verb::Create, Body::Object { tree, strict: Vec::new() })
                }
                5..=7 => {
                    let patch = json!({"spec": spec(dice, false)}).to_string();
                    (Verb::Patch, Body::Patch { kind: PatchType::Merge, bytes: patch.into() })
                }
                _ => (Verb::Delete, Body::None),
            };
            self.want_in(namespace, "Service", verb, name, body);
        }
        self.control(pause, Happening::Services);
    }
}

/// Of the ports and addresses that people choose there are few, so that they meet.
fn spec(dice: &mut Chance, is_new: bool) -> Tree {
    let mut port = json!({"port": 80, "protocol": "TCP"});
    let ty = ["ClusterIP", "NodePort", "NodePort", "LoadBalancer", "ExternalName"][dice.below(5) as usize];
    // Also where it means nothing, and may come to mean something.
    if ty != "ClusterIP" && dice.below(2) == 0 {
        port["nodePort"] = json!(30_080 + dice.below(3));
    }
    let mut spec = json!({"type": ty, "ports": [port], "externalName": Tree::Null});
    if ty == "ExternalName" {
        spec["externalName"] = json!("elsewhere.example.com");
    }
    if ty == "LoadBalancer" && dice.below(2) == 0 {
        spec["externalTrafficPolicy"] = json!("Local");
    }
    if dice.below(if is_new { 4 } else { 12 }) == 0 {
        // Of those nobody gets unasked, or of all.
        let of_all = dice.below(1 << 16);
        let address = [format!("10.43.0.{}", 10 + of_all % 2), format!("10.43.{}.{}", of_all / 256, of_all % 256)];
        spec["clusterIP"] = json!(address[dice.below(2) as usize]);
    }
    spec
}
