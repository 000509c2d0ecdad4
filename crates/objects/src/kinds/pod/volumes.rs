//! Volumes, the paths in them, and how containers mount them.

use super::env;
use crate::Tree;
use crate::kinds::field::{self, Path};
use crate::kinds::tree::{Fields, text};
use crate::kinds::{FieldError, NameRule, claim, names, resources};
use std::collections::{BTreeMap, BTreeSet};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// The valid volumes of a pod, by name.
pub type Volumes<'a> = BTreeMap<&'a str, &'a Tree>;

/// Kubernetes looks at the sources in this order.
const ORDER: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// Checks `volumes`; those without fault may be mounted. `pod` is the pod's name where there is one.
pub fn volumes<'a>(list: &'a [Tree], pod: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) -> Volumes<'a> {
    let created: BTreeSet<String> = list
        .iter()
        .filter(|v| v.has("ephemeral") && !pod.is_empty())
        .map(|v| format!("{pod}-{}", v.text("name")))
        .collect();
    let mut valid = Volumes::new();
    for (i, volume) in list.iter().enumerate() {
        let at = path.index(i);
        let before = errs.len();
        source(volume, pod, &at, errs);
        let name = volume.text("name");
        if name.is_empty() {
            errs.push(field::required(&at.child("name"), ""));
        } else {
            field::each(&at.child("name"), name, names::label, errs);
        }
        if valid.contains_key(name) {
            errs.push(field::duplicate(&at.child("name"), name));
        }
        if errs.len() == before {
            valid.insert(name, volume);
        }
        let claim = volume.at("persistentVolumeClaim").text("claimName");
        if created.contains(claim) {
            let parent = at.child("persistentVolumeClaim");
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errs.push(field::invalid(&parent.child("claimName"), claim, detail));
        }
    }
    valid
}

fn source(volume: &Tree, pod: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let mut count = 0;
    for kind in ORDER.iter().filter(|k| volume.has(k)) {
        let (source, at) = (volume.at(kind), path.child(kind));
        count += 1;
        if count > 1 {
            // Kubernetes misspells one of them.
            let at = if *kind == "downwardAPI" { path.child("downwarAPI") } else { at };
            errs.push(field::forbidden(&at, "may not specify more than 1 volume type"));
            continue;
        }
        match *kind {
            "emptyDir" => {
                if resources::quantity(source.at("sizeLimit")).is_some_and(|q| q.signum() < 0) {
                    let detail = "SizeLimit field must be a valid resource quantity";
                    errs.push(field::forbidden(&at.child("sizeLimit"), detail));
                }
            }
            "hostPath" => host_path(source, &at, errs),
            "secret" => {
                if source.text("secretName").is_empty() {
                    errs.push(field::required(&at.child("secretName"), ""));
                }
                keys(source, &at, errs);
            }
            "configMap" => {
                if source.text("name").is_empty() {
                    errs.push(field::required(&at.child("name"), ""));
                }
                keys(source, &at, errs);
            }
            "persistentVolumeClaim" if source.text("claimName").is_empty() => {
                errs.push(field::required(&at.child("claimName"), ""));
            }
            "downwardAPI" => {
                mode(source, "defaultMode", &at, errs);
                for file in source.list("items") {
                    downward_file(file, &at, errs);
                }
            }
            "projected" => projected(source, &at, errs),
            "nfs" => nfs(source, &at, errs),
            "iscsi" => iscsi(volume.text("name"), source, path, errs),
            "csi" => csi(source, &at, errs),
            "ephemeral" => ephemeral(volume, pod, path, errs),
            "image" => {
                let policies = ["Always", "IfNotPresent", "Never"];
                field::one_of(&at.child("pullPolicy"), source.text("pullPolicy"), &policies, true, errs);
            }
            _ => needs(kind, source, path, errs),
        }
    }
    if count == 0 {
        errs.push(field::required(path, "must specify a volume type"));
    }
}

/// What the sources of older storage systems cannot do without.
fn needs(kind: &str, source: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let (at, fields): (_, &[&str]) = match kind {
        "gcePersistentDisk" => ("persistentDisk", &["pdName"]),
        "awsElasticBlockStore" => (kind, &["volumeID"]),
        "gitRepo" => (kind, &["repository"]),
        "glusterfs" => ("glusterfs", &["endpoints", "path"]),
        "rbd" => (kind, &["image"]),
        "cinder" => (kind, &["volumeID"]),
        "azureFile" => (kind, &["secretName", "shareName"]),
        "azureDisk" => (kind, &["diskName", "diskURI"]),
        "vsphereVolume" => (kind, &["volumePath"]),
        "photonPersistentDisk" => (kind, &["pdID"]),
        "portworxVolume" => (kind, &["volumeID"]),
        "quobyte" => (kind, &["registry", "volume"]),
        "scaleIO" => (kind, &["gateway", "system", "volumeName"]),
        "flexVolume" => (kind, &["driver"]),
        _ => return,
    };
    let at = path.child(at);
    for name in fields {
        if source.text(name).is_empty() {
            errs.push(field::required(&at.child(name), ""));
        }
    }
    let lists: &[&str] = match kind {
        "rbd" | "cephfs" => &["monitors"],
        _ => &[],
    };
    for name in lists {
        if source.list(name).is_empty() {
            errs.push(field::required(&at.child(name), ""));
        }
    }
}

fn mode(owner: &Tree, name: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if let Some(mode) = owner.int(name).filter(|m| !(0..=0o777).contains(m)) {
        errs.push(field::invalid(&path.child(name), mode, FILE_MODE));
    }
}

fn keys(source: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    mode(source, "defaultMode", path, errs);
    let items = path.child("items");
    for (i, item) in source.list("items").iter().enumerate() {
        key_to_path(item, &items.index(i), errs);
    }
}

fn key_to_path(item: &Tree, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    for name in ["key", "path"] {
        if item.text(name).is_empty() {
            errs.push(field::required(&at.child(name), ""));
        }
    }
    local_file(item.text("path"), &at.child("path"), errs);
    mode(item, "mode", at, errs);
}

fn downward_file(file: &Tree, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    if file.text("path").is_empty() {
        errs.push(field::required(&at.child("path"), ""));
    }
    local_file(file.text("path"), &at.child("path"), errs);
    if file.has("fieldRef") {
        env::object_field(file.at("fieldRef"), env::FILE_FIELDS, &at.child("fieldRef"), errs);
        if file.has("resourceFieldRef") {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errs.push(field::invalid(at, "resource", detail));
        }
    } else if file.has("resourceFieldRef") {
        env::resource_field(file.at("resourceFieldRef"), true, &at.child("resourceFieldRef"), errs);
    } else {
        errs.push(field::required(at, "one of fieldRef and resourceFieldRef is required"));
    }
    mode(file, "mode", at, errs);
}

fn projected(projection: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    mode(projection, "defaultMode", path, errs);
    let mut paths = BTreeSet::new();
    let sources = path.child("sources");
    for (i, source) in projection.list("sources").iter().enumerate() {
        let at = sources.index(i);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            let (from, at) = (source.at(kind), at.child(kind));
            if from.is_null() {
                continue;
            }
            count += 1;
            if from.text("name").is_empty() {
                errs.push(field::required(&at.child("name"), ""));
            }
            let items = at.child("items");
            for (i, item) in from.list("items").iter().enumerate() {
                key_to_path(item, &items.index(i), errs);
                let file = item.text("path");
                if !file.is_empty() && !paths.insert(file) {
                    errs.push(field::invalid(path, from.text("name"), "conflicting duplicate paths"));
                }
            }
        }
        if source.has("downwardAPI") {
            count += 1;
            for file in source.at("downwardAPI").list("items") {
                downward_file(file, &at.child("downwardAPI"), errs);
                let name = file.text("path");
                if !name.is_empty() && !paths.insert(name) {
                    errs.push(field::invalid(path, name, "conflicting duplicate paths"));
                }
            }
        }
        if source.has("serviceAccountToken") {
            count += 1;
            let (token, at) = (source.at("serviceAccountToken"), at.child("serviceAccountToken"));
            token_seconds(token, &at, errs);
            if token.text("path").is_empty() {
                errs.push(field::required(&path.child("path"), ""));
            } else {
                local_file(token.text("path"), &path.child("path"), errs);
            }
        }
        for kind in ["clusterTrustBundle", "podCertificate"] {
            count += usize::from(source.has(kind));
        }
        if count > 1 {
            errs.push(field::forbidden(&at, "may not specify more than 1 volume type per source"));
        }
    }
}

/// Checks how long a token is to live; also for TokenRequests.
pub fn token_seconds(owner: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let at = path.child("expirationSeconds");
    match owner.int("expirationSeconds") {
        None => errs.push(field::required(&at, "")),
        Some(seconds) if seconds < 600 => {
            errs.push(field::invalid(&at, seconds, "may not specify a duration less than 10 minutes"));
        }
        Some(seconds) if seconds > 1 << 32 => {
            errs.push(field::invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds"));
        }
        Some(_) => {}
    }
}

/// Checks a `hostPath`; also in PersistentVolumes.
pub fn host_path(source: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if source.text("path").is_empty() {
        errs.push(field::required(&path.child("path"), ""));
        return;
    }
    no_backsteps(source.text("path"), &path.child("path"), errs);
    let kinds = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if source.has("type") && !kinds.contains(&source.text("type")) {
        errs.push(field::not_supported(&path.child("type"), source.text("type"), &kinds));
    }
}

/// Checks an `nfs` source; also in PersistentVolumes.
pub fn nfs(source: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    for name in ["server", "path"] {
        if source.text(name).is_empty() {
            errs.push(field::required(&path.child(name), ""));
        }
    }
    if !source.text("path").starts_with('/') {
        errs.push(field::invalid(&path.child("path"), source.text("path"), "must be an absolute path"));
    }
}

fn iscsi(volume: &str, source: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let at = path.child("iscsi");
    for name in ["targetPortal", "iqn"] {
        if source.text(name).is_empty() {
            errs.push(field::required(&at.child(name), ""));
        }
    }
    let name = |field: &str, value: &str, errs: &mut Vec<FieldError>| {
        let known = ["iqn", "eui", "naa"].iter().any(|p| value.starts_with(p));
        if !known {
            let detail = "must be valid format starting with iqn, eui, or naa";
            errs.push(field::invalid(&at.child(field), value, detail));
        } else if !is_initiator(value) {
            errs.push(field::invalid(&at.child(field), value, "must be valid format"));
        }
    };
    if !source.text("iqn").is_empty() {
        name("iqn", source.text("iqn"), errs);
    }
    let lun = source.int("lun").unwrap_or(0);
    if !(0..=255).contains(&lun) {
        errs.push(field::invalid(&at.child("lun"), lun, &names::in_range(0, 255)));
    }
    if (source.flag("chapAuthDiscovery") || source.flag("chapAuthSession")) && !source.has("secretRef") {
        errs.push(field::required(&at.child("secretRef"), ""));
    }
    if source.has("initiatorName") {
        name("initiatorname", source.text("initiatorName"), errs);
        if volume.len() + 1 + source.text("targetPortal").len() > 64 {
            let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
            errs.push(field::invalid(&path.child("name"), volume, detail));
        }
    }
}

/// `iqn.2001-04.com.example:disk1`, or `eui.` and 16 or `naa.` and 32 letters and digits.
fn is_initiator(name: &str) -> bool {
    let (kind, rest) = name.split_once('.').unwrap_or((name, ""));
    match kind {
        "eui" => rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_alphanumeric()),
        "naa" => rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_alphanumeric()),
        _ => {
            let Some((date, rest)) = rest.split_once('.') else { return false };
            let (authority, unique) = rest.split_once(':').unwrap_or((rest, ""));
            date.len() == 7
                && date.bytes().enumerate().all(|(i, b)| if i == 4 { b == b'-' } else { b.is_ascii_digit() })
                && !authority.is_empty()
                && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
                && !unique.is_empty()
                && !unique.contains([',', ';', '*', '&', '$', '|', ' ', '^'])
        }
    }
}

fn csi(source: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    driver(source.text("driver"), &path.child("driver"), errs);
    let secret = source.at("nodePublishSecretRef");
    if !secret.is_null() {
        if secret.text("name").is_empty() {
            let at = path.child("nodePublishSecretRef");
            errs.push(field::required(&at.child("name"), ""));
        } else {
            field::each(&path.child("name"), secret.text("name"), names::subdomain, errs);
        }
    }
}

/// Checks the name of a CSI driver.
pub fn driver(name: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if name.is_empty() {
        errs.push(field::required(path, ""));
        return;
    }
    if name.len() > 63 {
        errs.push(field::too_long(path, 63));
    }
    field::each(path, &name.to_lowercase(), names::subdomain, errs);
}

fn ephemeral(volume: &Tree, pod: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let at = path.child("ephemeral");
    let template = volume.at("ephemeral").at("volumeClaimTemplate");
    let at_template = at.child("volumeClaimTemplate");
    if template.is_null() {
        errs.push(field::required(&at_template, ""));
    } else {
        let metadata = at_template.child("metadata");
        crate::kinds::meta::labels(template.at("metadata").at("labels"), &metadata.child("labels"), errs);
        crate::kinds::meta::annotations(
            template.at("metadata").at("annotations"),
            &metadata.child("annotations"),
            errs,
        );
        claim::spec(template.at("spec"), &at_template.child("spec"), errs);
    }
    let name = volume.text("name");
    if !pod.is_empty() && !name.is_empty() {
        let claim = format!("{pod}-{name}");
        for message in NameRule::Subdomain.check(&claim, false) {
            let detail = format!("PVC name {}: {message}", field::quoted(&claim));
            errs.push(field::invalid(&path.child("name"), name, &detail));
        }
    }
}

/// Checks that a path is relative and does not climb.
pub fn local_path(target: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if target.starts_with('/') {
        errs.push(field::invalid(path, target, "must be a relative path"));
    }
    no_backsteps(target, path, errs);
}

fn local_file(target: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    local_path(target, path, errs);
    if target.starts_with("..") && !target.starts_with("../") {
        errs.push(field::invalid(path, target, "must not start with '..'"));
    }
}

/// Checks that a path does not climb.
pub fn no_backsteps(target: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if target.split('/').any(|part| part == "..") {
        errs.push(field::invalid(path, target, "must not contain '..'"));
    }
}

/// Checks `volumeMounts` and `volumeDevices` of a container.
pub fn mounts(container: &Tree, volumes: &Volumes<'_>, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let (mounts, devices) = (container.list("volumeMounts"), container.list("volumeDevices"));
    let list = path.child("volumeMounts");
    let mut points = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let at = list.index(i);
        let (name, point) = (mount.text("name"), mount.text("mountPath"));
        if name.is_empty() {
            errs.push(field::required(&at.child("name"), ""));
        }
        if !volumes.contains_key(name) {
            errs.push(field::not_found(&at.child("name"), name));
        }
        if point.is_empty() {
            errs.push(field::required(&at.child("mountPath"), ""));
        }
        if !points.insert(point) {
            errs.push(field::invalid(&at.child("mountPath"), point, "must be unique"));
        }
        if devices.iter().any(|d| d.text("name") == name) {
            errs.push(field::invalid(&at.child("name"), name, "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|d| d.text("devicePath") == point) {
            let detail = "must not already exist as a path in volumeDevices";
            errs.push(field::invalid(&at.child("mountPath"), point, detail));
        }
        // The paths of what follows lack the index in Kubernetes too.
        if !mount.text("subPath").is_empty() {
            local_path(mount.text("subPath"), &list.child("subPath"), errs);
        }
        let expression = mount.text("subPathExpr");
        if !expression.is_empty() {
            if !mount.text("subPath").is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                errs.push(field::invalid(&at.child("subPathExpr"), expression, detail));
            }
            local_path(expression, &list.child("subPathExpr"), errs);
        }
        propagation(mount, container, &list, errs);
    }
    block_devices(container, volumes, &path.child("volumeDevices"), errs);
}

fn propagation(mount: &Tree, container: &Tree, list: &Path<'_>, errs: &mut Vec<FieldError>) {
    let at = list.child("mountPropagation");
    let mode = mount.text("mountPropagation");
    if mount.has("mountPropagation") {
        let modes = ["Bidirectional", "HostToContainer", "None"];
        if !modes.contains(&mode) {
            errs.push(field::not_supported(&at, mode, &modes));
        }
        if mode == "Bidirectional" && !container.at("securityContext").flag("privileged") {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errs.push(field::forbidden(&at, detail));
        }
    }
    if mount.has("recursiveReadOnly") {
        let at = list.child("recursiveReadOnly");
        match mount.text("recursiveReadOnly") {
            "Disabled" => {}
            "Enabled" | "IfPossible" => {
                if !mount.flag("readOnly") {
                    errs.push(field::forbidden(&at, "may only be specified when readOnly is true"));
                }
                if mount.has("mountPropagation") && mode != "None" {
                    let detail = "may only be specified when mountPropagation is None or not specified";
                    errs.push(field::forbidden(&at, detail));
                }
            }
            other => errs.push(field::not_supported(&at, other, &["Disabled", "Enabled", "IfPossible"])),
        }
    }
}

fn block_devices(container: &Tree, volumes: &Volumes<'_>, list: &Path<'_>, errs: &mut Vec<FieldError>) {
    let (mut names_seen, mut paths_seen) = (BTreeSet::new(), BTreeSet::new());
    let mounts = container.list("volumeMounts");
    for (i, device) in container.list("volumeDevices").iter().enumerate() {
        let at = list.index(i);
        let (name, path) = (device.text("name"), device.text("devicePath"));
        if name.is_empty() {
            errs.push(field::required(&at.child("name"), ""));
        }
        if names_seen.contains(name) {
            errs.push(field::invalid(&at.child("name"), name, "must be unique"));
        }
        match volumes.get(name) {
            None => errs.push(field::not_found(&at.child("name"), name)),
            Some(volume) if !volume.has("persistentVolumeClaim") && !volume.has("ephemeral") => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errs.push(field::invalid(&at.child("name"), name, detail));
            }
            Some(_) => {}
        }
        if path.is_empty() {
            errs.push(field::required(&at.child("devicePath"), ""));
        }
        if paths_seen.contains(path) {
            errs.push(field::invalid(&at.child("devicePath"), path, "must be unique"));
        }
        if path.split('/').any(|part| part == "..") {
            errs.push(field::invalid(&at.child("devicePath"), path, "can not contain backsteps ('..')"));
        } else {
            paths_seen.insert(path);
        }
        if mounts.iter().any(|m| m.text("name") == name) {
            errs.push(field::invalid(&at.child("name"), name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|m| m.text("mountPath") == path) {
            let detail = "must not already exist as a path in volumeMounts";
            errs.push(field::invalid(&at.child("devicePath"), path, detail));
        }
        if !name.is_empty() {
            names_seen.insert(name);
        }
    }
}

/// Checks that the volumes `fileKeyRef`s name are emptyDirs of the pod.
pub fn file_keys(spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = path.child(list);
        for (i, container) in spec.list(list).iter().enumerate() {
            let container_path = containers.index(i);
            let env = container_path.child("env");
            for (j, variable) in container.list("env").iter().enumerate() {
                let reference = variable.at("valueFrom").at("fileKeyRef");
                if reference.is_null() {
                    continue;
                }
                let item = env.index(j);
                let at = item.child("valueFrom.fileKeyRef.volumeName");
                let name = reference.text("volumeName");
                match spec.list("volumes").iter().rfind(|v| text(v.at("name")) == name) {
                    None => errs.push(field::not_found(&at, name)),
                    Some(v) if !v.has("emptyDir") => {
                        errs.push(field::invalid(&at, name, "referenced volume must be of type emptyDir"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}
