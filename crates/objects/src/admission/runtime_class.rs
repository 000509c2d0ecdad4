//! RuntimeClass: a pod names one that exists, and carries its overhead and where it can run.

use super::Outcome;
use crate::Tree;
use crate::decide::Visit;
use crate::kinds::tree::{self, Fields};
use crate::status::Status;

pub(super) fn admit(visit: &Visit<'_>, pod: &mut Tree) -> Outcome<()> {
    let name = pod.at("spec").text("runtimeClassName").to_owned();
    let pod_name = pod.at("metadata").text("name").to_owned();
    let refuse = |why: String| Err(Box::new(Status::forbidden(visit.kind, &pod_name, &why)));
    if name.is_empty() {
        return Ok(());
    }
    let Some(class) = visit.view.shared().get("RuntimeClass.node.k8s.io", &name) else {
        return refuse(format!("pod rejected: RuntimeClass \"{name}\" not found"));
    };
    let overhead = class.at("overhead").at("podFixed");
    let spec = tree::child(pod, "spec");
    if overhead.is_object() {
        if spec.has("overhead") && spec.at("overhead") != overhead {
            return refuse("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        tree::set(spec, "overhead", overhead.clone());
    } else if spec.has("overhead") {
        return refuse("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into());
    }
    let scheduling = class.at("scheduling");
    for (key, value) in scheduling.entries("nodeSelector") {
        let own = spec.at("nodeSelector").get(key);
        if own.is_some_and(|own| own != value) {
            return refuse(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                tree::text(value),
                own.map_or("", tree::text)
            ));
        }
        tree::set(tree::child(spec, "nodeSelector"), key, value.clone());
    }
    let wanted = scheduling.list("tolerations");
    if !wanted.is_empty() {
        let mut all = spec.list("tolerations").to_vec();
        all.extend(wanted.iter().filter(|t| !spec.list("tolerations").contains(t)).cloned());
        tree::set(spec, "tolerations", all);
    }
    Ok(())
}
