//! People who make, scale, change and remove Deployments, delete pods behind their backs, and make things that
//! belong to them.

use super::super::NAMESPACE_OF_PODS as NAMESPACE;
use super::{DEPLOYMENT, Happening, MS, POD, SECOND, SECRET, World};
use crate::checks::committed::{is_going, uid};
use base::Chance;
use objects::Tree;
use objects::request::{Body, PatchType, Verb};
use serde_json::json;

/// People stop here: a roll-out, and what waits for an answer that was lost, is over before the end.
const QUIET: u64 = 42 * SECOND;

impl World {
    pub(super) fn manage(&mut self) {
        let now = self.now;
        let Some(s) = self.control.as_mut().filter(|_| now < QUIET) else { return };
        let pause = s.dice.range(20, 500) * MS;
        let pick = |dice: &mut Chance, storage: &'static str| {
            let all: Vec<Tree> = s.committed.all(storage).filter(|t| !is_going(t)).cloned().collect();
            dice.pick(&all).cloned()
        };
        let dice = &mut s.dice;
        let (deployment, pod, secret) = (pick(dice, DEPLOYMENT), pick(dice, POD), pick(dice, SECRET));
        let name = |of: &Tree| of["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match (dice.below(20), deployment, pod, secret) {
            (0..=3, ..) | (_, None, ..) => {
                let tree = new_deployment(dice);
                self.want_of("Deployment", Verb::Create, "", object(tree));
            }
            (4..=7, Some(d), ..) => {
                let replicas = dice.below(5);
                self.want_of("Deployment", Verb::Patch, &name(&d), merge(&json!({"spec": {"replicas": replicas}})));
            }
            (8..=11, Some(d), ..) => {
                let image = ["a", "b", "c"][dice.below(3) as usize];
                let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
                let body = Body::Patch { kind: PatchType::Strategic, bytes: patch.to_string().into() };
                self.want_of("Deployment", Verb::Patch, &name(&d), body);
            }
            (12 | 13, Some(d), ..) => {
                let how = ["Background", "Foreground", "Orphan"][dice.below(3) as usize];
                let tree = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": how});
                self.want_of("Deployment", Verb::Delete, &name(&d), object(tree));
            }
            (14 | 15, _, Some(pod), _) => {
                let tree =
                    json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": dice.below(2) * 30});
                self.want_of("Pod", Verb::Delete, &name(&pod), object(tree));
            }
            (16 | 17, Some(d), ..) => {
                let tree = dependent(dice, now, &d);
                self.want_of("Secret", Verb::Create, "", object(tree));
            }
            (_, Some(d), _, Some(secret)) => {
                // It belongs to somebody else from now on, or to nobody.
                let owners = if dice.below(3) == 0 { Vec::new() } else { vec![owner(&d, false)] };
                let patch = merge(&json!({"metadata": {"ownerReferences": owners}}));
                self.want_of("Secret", Verb::Patch, &name(&secret), patch);
            }
            _ => {}
        }
        self.control(pause, Happening::People);
    }
}

fn object(tree: Tree) -> Body {
    Body::Object { tree, strict: Vec::new() }
}

fn merge(patch: &Tree) -> Body {
    Body::Patch { kind: PatchType::Merge, bytes: patch.to_string().into() }
}

fn owner(of: &Tree, blocks: bool) -> Tree {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": of["metadata"]["name"], "uid": uid(of),
        "blockOwnerDeletion": blocks})
}

/// One of two, so that the same name is used again.
fn new_deployment(dice: &mut Chance) -> Tree {
    let name = ["web", "api"][dice.below(2) as usize];
    let image = ["a", "b", "c"][dice.below(3) as usize];
    let mut spec = json!({
        "replicas": dice.below(5), "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": "10m"}}}]}},
    });
    match dice.below(4) {
        0 => spec["strategy"] = json!({"type": "Recreate"}),
        1 => spec["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
        _ => {}
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

/// Something that belongs to a Deployment, perhaps to one that was never there as well.
fn dependent(dice: &mut Chance, now: u64, of: &Tree) -> Tree {
    let mut owners = vec![owner(of, dice.below(2) == 0)];
    if dice.below(4) == 0 {
        let uid = base::Uid::from_chance(dice.u128()).to_string();
        let never = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "never", "uid": uid});
        owners.insert(dice.below(2) as usize, never);
        owners.drain(..dice.below(2) as usize);
    }
    let name = format!("s{}-{}", now / MS, dice.below(1_000));
    json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": owners}})
}
