//! What a pod refers to by name in its own namespace.

use crate::Tree;
use crate::kinds::tree::Fields;

/// A kind of object that pods refer to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Referent {
    /// In `imagePullSecrets`, environments and volumes.
    Secret,
    /// In environments and volumes.
    ConfigMap,
    /// In volumes; that of an ephemeral volume is named after the pod.
    PersistentVolumeClaim,
    /// What it runs as.
    ServiceAccount,
}

/// Whether a pod refers to the object of that kind and name.
pub fn refers_to(pod: &Tree, what: Referent, name: &str) -> bool {
    let spec = pod.at("spec");
    !name.is_empty()
        && match what {
            Referent::ServiceAccount => spec.text("serviceAccountName") == name,
            Referent::PersistentVolumeClaim => spec.list("volumes").iter().any(|v| {
                v.at("persistentVolumeClaim").text("claimName") == name
                    || (v.has("ephemeral")
                        && name.strip_prefix(pod.at("metadata").text("name")).and_then(|n| n.strip_prefix('-'))
                            == Some(v.text("name")))
            }),
            Referent::Secret => {
                spec.list("imagePullSecrets").iter().any(|s| s.text("name") == name)
                    || environments(spec).any(|(of, key)| {
                        of.at("secretRef").text("name") == name || key.at("secretKeyRef").text("name") == name
                    })
                    || spec.list("volumes").iter().any(|v| volume_secrets(v).any(|s| s == name))
            }
            Referent::ConfigMap => {
                environments(spec).any(|(of, key)| {
                    of.at("configMapRef").text("name") == name || key.at("configMapKeyRef").text("name") == name
                }) || spec.list("volumes").iter().any(|v| {
                    v.at("configMap").text("name") == name
                        || v.at("projected").list("sources").iter().any(|s| s.at("configMap").text("name") == name)
                })
            }
        }
}

/// Whether a pod refers to any object of that kind.
pub fn refers_to_any(pod: &Tree, what: Referent) -> bool {
    let spec = pod.at("spec");
    let volumes = spec.list("volumes");
    match what {
        Referent::ServiceAccount => !spec.text("serviceAccountName").is_empty(),
        Referent::PersistentVolumeClaim => volumes.iter().any(|v| v.has("persistentVolumeClaim")),
        Referent::Secret => {
            !spec.list("imagePullSecrets").is_empty()
                || environments(spec).any(|(of, key)| of.has("secretRef") || key.has("secretKeyRef"))
                || volumes.iter().any(|v| volume_secrets(v).next().is_some())
        }
        Referent::ConfigMap => {
            environments(spec).any(|(of, key)| of.has("configMapRef") || key.has("configMapKeyRef"))
                || volumes
                    .iter()
                    .any(|v| v.has("configMap") || v.at("projected").list("sources").iter().any(|s| s.has("configMap")))
        }
    }
}

/// Of each container and each of its sources of environment: the one as `envFrom` has it, the other as
/// `valueFrom` has it; what is not there is null.
fn environments(spec: &Tree) -> impl Iterator<Item = (&Tree, &Tree)> {
    let containers = ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|f| spec.list(f));
    containers.flat_map(|c| {
        let from = c.list("envFrom").iter().map(|of| (of, &Tree::Null));
        from.chain(c.list("env").iter().map(|e| (&Tree::Null, e.at("valueFrom"))))
    })
}

/// The secrets a volume names, whatever its driver.
fn volume_secrets(volume: &Tree) -> impl Iterator<Item = &str> {
    let referring = ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];
    let own = [
        volume.at("secret").text("secretName"),
        volume.at("azureFile").text("secretName"),
        volume.at("csi").at("nodePublishSecretRef").text("name"),
    ];
    let drivers = referring.into_iter().map(|d| volume.at(d).at("secretRef").text("name"));
    let projected = volume.at("projected").list("sources").iter().map(|s| s.at("secret").text("name"));
    own.into_iter().chain(drivers).chain(projected).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_place_where_a_pod_names_an_object_counts() {
        use Referent::*;
        let container = |c: Tree| json!({"containers": [{"name": "x"}, c]});
        let volume = |v: Tree| json!({"volumes": [{"name": "v0", "emptyDir": {}}, v]});
        let cases = [
            (json!({"serviceAccountName": "n"}), ServiceAccount),
            (json!({"imagePullSecrets": [{"name": "n"}]}), Secret),
            (container(json!({"envFrom": [{"secretRef": {"name": "n"}}]})), Secret),
            (container(json!({"env": [{"valueFrom": {"secretKeyRef": {"name": "n"}}}]})), Secret),
            (json!({"initContainers": [{"envFrom": [{"secretRef": {"name": "n"}}]}]}), Secret),
            (json!({"ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "n"}}]}]}), Secret),
            (volume(json!({"secret": {"secretName": "n"}})), Secret),
            (volume(json!({"azureFile": {"secretName": "n"}})), Secret),
            (volume(json!({"csi": {"nodePublishSecretRef": {"name": "n"}}})), Secret),
            (volume(json!({"rbd": {"secretRef": {"name": "n"}}})), Secret),
            (
                volume(json!({"projected": {"sources": [{"configMap": {"name": "o"}}, {"secret": {"name": "n"}}]}})),
                Secret,
            ),
            (container(json!({"envFrom": [{"configMapRef": {"name": "n"}}]})), ConfigMap),
            (container(json!({"env": [{"valueFrom": {"configMapKeyRef": {"name": "n"}}}]})), ConfigMap),
            (volume(json!({"configMap": {"name": "n"}})), ConfigMap),
            (volume(json!({"projected": {"sources": [{"configMap": {"name": "n"}}]}})), ConfigMap),
            (volume(json!({"persistentVolumeClaim": {"claimName": "n"}})), PersistentVolumeClaim),
        ];
        for (spec, of) in cases {
            let pod = json!({"metadata": {"name": "p"}, "spec": spec});
            for what in [Secret, ConfigMap, PersistentVolumeClaim, ServiceAccount] {
                assert_eq!(refers_to(&pod, what, "n"), what == of, "{what:?} in {pod}");
                assert!(!refers_to(&pod, what, "other") && !refers_to(&pod, what, ""), "{what:?} in {pod}");
            }
            assert!(refers_to_any(&pod, of), "{of:?} in {pod}");
        }
        let ephemeral = json!({"metadata": {"name": "p"}, "spec": volume(json!({"name": "v", "ephemeral": {}}))});
        assert!(refers_to(&ephemeral, PersistentVolumeClaim, "p-v"));
        assert!(!refers_to(&ephemeral, PersistentVolumeClaim, "p-v0"));
    }
}
