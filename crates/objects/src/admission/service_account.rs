//! ServiceAccount: every pod runs as one that exists, and finds its token, the root certificate and its
//! namespace where clients look for them.

use super::Outcome;
use crate::Tree;
use crate::decide::{Visit, generated_suffix};
use crate::kinds::tree::{self, Fields};
use crate::status::Status;
use serde_json::json;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour, and a little more so that renewal has begun before anybody counts an hour.
const TOKEN_SECONDS: i64 = 3607;
/// Pods that a node made by itself; the API only mirrors them.
const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn admit(visit: &Visit<'_>, pod: &mut Tree) -> Outcome<()> {
    let pod_name = pod.at("metadata").text("name").to_owned();
    let refuse = |why: String| Err(Box::new(Status::forbidden(visit.kind, &pod_name, &why)));
    if pod.at("metadata").at("annotations").has(MIRROR) {
        if !pod.at("spec").text("serviceAccountName").is_empty() {
            return refuse("a mirror pod may not reference service accounts".into());
        }
        return Ok(());
    }
    let spec = tree::child(pod, "spec");
    let name = match spec.text("serviceAccountName") {
        "" => "default".to_owned(),
        n => n.to_owned(),
    };
    for f in ["serviceAccountName", "serviceAccount"] {
        tree::set(spec, f, name.as_str());
    }
    let Some(account) = visit.view.get("ServiceAccount", &name) else {
        let place = visit.namespace();
        return refuse(format!("error looking up service account {place}/{name}: serviceaccount \"{name}\" not found"));
    };
    let account = account.tree();
    let automount = spec.at("automountServiceAccountToken").as_bool();
    if automount.or(account.at("automountServiceAccountToken").as_bool()).unwrap_or(true) {
        mount(spec, &format!("{VOLUME_PREFIX}{}", generated_suffix(visit.req.suffix, 100)));
    }
    if spec.list("imagePullSecrets").is_empty() && !account.list("imagePullSecrets").is_empty() {
        tree::set(spec, "imagePullSecrets", account.list("imagePullSecrets").to_vec());
    }
    Ok(())
}

/// Mounts the token volume in every container that has nothing at its place.
fn mount(spec: &mut Tree, fresh: &str) {
    let existing = spec.list("volumes").iter().map(|v| v.text("name")).find(|n| n.starts_with(VOLUME_PREFIX));
    let name = existing.unwrap_or(fresh).to_owned();
    let (existing, mut needed) = (existing.is_some(), false);
    for field in ["initContainers", "containers"] {
        for c in tree::items(spec, field) {
            let mut mounts = c.list("volumeMounts").to_vec();
            if mounts.iter().any(|m| m.text("mountPath") == MOUNT_PATH) {
                continue;
            }
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            tree::set(c, "volumeMounts", mounts);
            needed = true;
        }
    }
    if existing || !needed {
        return;
    }
    let mut volumes = spec.list("volumes").to_vec();
    volumes.push(json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}}));
    tree::set(spec, "volumes", volumes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_with_something_there_already_gets_no_mount() {
        let mut spec = json!({"containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": MOUNT_PATH}]}]});
        let before = spec.clone();
        mount(&mut spec, "kube-api-access-x");
        assert_eq!(spec, before);
        let mut spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "b"}]});
        mount(&mut spec, "kube-api-access-x");
        assert_eq!(spec["volumes"][0]["name"], "kube-api-access-x");
        assert_eq!(spec["initContainers"][0]["volumeMounts"][0]["mountPath"], MOUNT_PATH);
    }
}
