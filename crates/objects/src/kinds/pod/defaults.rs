//! What Kubernetes fills into a PodSpec, wherever one stands.

use crate::Tree;
use crate::kinds::resources;
use crate::kinds::tree::{self, Fields, child, default_number, default_text, default_to, existing, items};
use serde_json::json;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a PodSpec that hold in templates too.
pub fn spec(spec: &mut Tree) {
    let account = match spec.text("serviceAccountName") {
        "" => spec.text("serviceAccount").to_owned(),
        name => name.to_owned(),
    };
    if !account.is_empty() {
        tree::set(spec, "serviceAccountName", account.clone());
        tree::set(spec, "serviceAccount", account);
    }
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    default_to(spec, "securityContext", json!({}));
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_text(spec, "schedulerName", "default-scheduler");
    resources::default_list(spec, "overhead");
    resources::default_requirements(spec, "resources");
    for volume in items(spec, "volumes") {
        self::volume(volume);
    }
    for list in CONTAINER_LISTS {
        for container in items(spec, list) {
            self::container(container);
        }
    }
}

/// Defaults of a Pod's own PodSpec, besides [`spec`]'s.
pub fn pod_only(spec: &mut Tree) {
    if spec.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        tree::set(spec, "terminationGracePeriodSeconds", 1);
    }
    default_to(spec, "enableServiceLinks", true);
    let host_network = spec.flag("hostNetwork");
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            requests_from_limits(container);
            if host_network {
                for port in items(container, "ports") {
                    if let Some(number) = port.int("containerPort") {
                        default_number(port, "hostPort", number);
                    }
                }
            }
        }
    }
}

fn requests_from_limits(container: &mut Tree) {
    let Some(resources) = existing(container, "resources") else { return };
    let Some(limits) = resources.at("limits").as_object().cloned() else { return };
    if limits.is_empty() {
        return;
    }
    let requests = tree::fields(child(resources, "requests"));
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

fn container(container: &mut Tree) {
    if container.text("imagePullPolicy").is_empty() {
        let policy = if is_latest(container.text("image")) { "Always" } else { "IfNotPresent" };
        tree::set(container, "imagePullPolicy", policy);
    }
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    resources::default_requirements(container, "resources");
    for port in items(container, "ports") {
        default_text(port, "protocol", "TCP");
    }
    for variable in items(container, "env") {
        if let Some(source) = existing(variable, "valueFrom") {
            field_source(source);
            if let Some(key) = existing(source, "fileKeyRef") {
                default_to(key, "optional", false);
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = existing(container, name) {
            default_number(probe, "timeoutSeconds", 1);
            default_number(probe, "periodSeconds", 10);
            default_number(probe, "successThreshold", 1);
            default_number(probe, "failureThreshold", 3);
            http_get(probe);
            if let Some(grpc) = existing(probe, "grpc") {
                default_to(grpc, "service", "");
            }
        }
    }
    if let Some(lifecycle) = existing(container, "lifecycle") {
        // Behind a gate that is closed by default; kept it would be checked and obeyed.
        tree::remove(lifecycle, "stopSignal");
        for name in ["postStart", "preStop"] {
            if let Some(handler) = existing(lifecycle, name) {
                http_get(handler);
            }
        }
    }
}

fn http_get(handler: &mut Tree) {
    if let Some(http) = existing(handler, "httpGet") {
        default_text(http, "path", "/");
        default_text(http, "scheme", "HTTP");
        tree::remove(http, "protocol");
    }
}

/// `fieldRef` and `resourceFieldRef`.
fn field_source(owner: &mut Tree) {
    if let Some(field) = existing(owner, "fieldRef") {
        default_text(field, "apiVersion", "v1");
    }
    if let Some(field) = existing(owner, "resourceFieldRef") {
        let divisor = resources::quantity(field.at("divisor"));
        tree::set(field, "divisor", divisor.map_or_else(|| "0".to_owned(), |d| d.to_string()));
    }
}

fn mode_and_fields(source: &mut Tree) {
    default_to(source, "defaultMode", 0o644);
    for item in items(source, "items") {
        field_source(item);
    }
}

/// The volume sources Kubernetes knows, by field.
pub const VOLUME_SOURCES: &[&str] = &[
    "hostPath",
    "emptyDir",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "azureFile",
    "configMap",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "projected",
    "portworxVolume",
    "scaleIO",
    "storageos",
    "csi",
    "ephemeral",
    "image",
];

fn volume(volume: &mut Tree) {
    if VOLUME_SOURCES.iter().all(|source| !volume.has(source)) {
        tree::set(volume, "emptyDir", json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI"] {
        if let Some(source) = existing(volume, name) {
            mode_and_fields(source);
        }
    }
    if let Some(empty) = existing(volume, "emptyDir")
        && let Some(limit) = resources::quantity(empty.at("sizeLimit"))
    {
        tree::set(empty, "sizeLimit", limit.to_string());
    }
    if let Some(host) = existing(volume, "hostPath") {
        default_to(host, "type", "");
    }
    if let Some(projected) = existing(volume, "projected") {
        default_to(projected, "defaultMode", 0o644);
        for source in items(projected, "sources") {
            if let Some(token) = existing(source, "serviceAccountToken") {
                default_to(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = existing(source, "downwardAPI") {
                for item in items(downward, "items") {
                    field_source(item);
                }
            }
            if let Some(certificate) = existing(source, "podCertificate") {
                default_to(certificate, "maxExpirationSeconds", 86400);
            }
        }
    }
    if let Some(ephemeral) = existing(volume, "ephemeral")
        && let Some(template) = existing(ephemeral, "volumeClaimTemplate")
    {
        child(template, "metadata");
        claim_spec(child(template, "spec"));
    }
    if let Some(image) = existing(volume, "image")
        && image.text("pullPolicy").is_empty()
    {
        let policy = if is_latest(image.text("reference")) { "Always" } else { "IfNotPresent" };
        tree::set(image, "pullPolicy", policy);
    }
    drivers(volume);
}

/// What is filled into the sources of particular storage systems, in volumes and PersistentVolumes.
pub fn drivers(owner: &mut Tree) {
    for (source, field, value) in [
        ("iscsi", "iscsiInterface", json!("default")),
        ("rbd", "pool", json!("rbd")),
        ("rbd", "user", json!("admin")),
        ("rbd", "keyring", json!("/etc/ceph/keyring")),
        ("azureDisk", "cachingMode", json!("ReadWrite")),
        ("azureDisk", "kind", json!("Shared")),
        ("azureDisk", "fsType", json!("ext4")),
        ("azureDisk", "readOnly", json!(false)),
        ("scaleIO", "storageMode", json!("ThinProvisioned")),
        ("scaleIO", "fsType", json!("xfs")),
    ] {
        if let Some(source) = existing(owner, source) {
            if source.at(field).as_str() == Some("") {
                tree::remove(source, field);
            }
            default_to(source, field, value);
        }
    }
}

/// Defaults of a PersistentVolumeClaimSpec.
pub fn claim_spec(spec: &mut Tree) {
    default_to(spec, "volumeMode", "Filesystem");
    resources::default_requirements(spec, "resources");
}

/// Whether an image's tag is `latest`: said so, or neither tag nor digest given.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return image.split('@').next().is_some_and(|name| tag(name) == Some("latest"));
    }
    tag(image).is_none_or(|tag| tag == "latest")
}

fn tag(image: &str) -> Option<&str> {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').map(|(_, tag)| tag)
}
