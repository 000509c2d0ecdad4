//! PersistentVolumeClaims and PersistentVolumes.

use super::field::{self, Path};
use super::pod::{defaults, placement, volumes};
use super::resources::{self, quantity};
use super::tree::{self, Fields, text};
use super::{Context, FieldError, Rules, meta, names, selector};
use crate::Tree;
use serde_json::json;

/// PersistentVolumeClaim's rules.
pub struct PersistentVolumeClaim;
/// PersistentVolume's rules.
pub struct PersistentVolume;

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn access_modes(owner: &Tree, wanted: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let modes = owner.list("accessModes");
    if modes.is_empty() {
        errs.push(field::required(path, wanted));
    }
    for mode in modes.iter().map(text).filter(|m| !MODES.contains(m)) {
        errs.push(field::not_supported(path, mode, MODES));
    }
    let sole = |m: &&str| *m == "ReadWriteOncePod";
    let other = |m: &&str| MODES.contains(m) && *m != "ReadWriteOncePod";
    if modes.iter().map(text).any(|m| sole(&m)) && modes.iter().map(text).any(|m| other(&m)) {
        errs.push(field::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

fn volume_mode(owner: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let mode = owner.text("volumeMode");
    if owner.has("volumeMode") && mode != "Block" && mode != "Filesystem" {
        errs.push(field::not_supported(&path.child("volumeMode"), mode, &["Block", "Filesystem"]));
    }
}

fn storage(value: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if let Some(q) = quantity(value).filter(|q| q.signum() <= 0) {
        errs.push(field::invalid(path, q.to_string(), "must be greater than zero"));
    }
}

/// Checks a PersistentVolumeClaimSpec, which also stands in pods and StatefulSets.
pub fn spec(spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    access_modes(spec, "at least 1 access mode is required", &path.child("accessModes"), errs);
    selector::validate(spec.at("selector"), &path.child("selector"), errs);
    let size = spec.at("resources").at("requests").at("storage");
    let at = path.child("resources");
    if size.is_null() {
        errs.push(field::required(&at.key("storage"), ""));
    } else {
        storage(size, &at.key("storage"), errs);
    }
    if !spec.text("storageClassName").is_empty() {
        field::each(&path.child("storageClassName"), spec.text("storageClassName"), names::subdomain, errs);
    }
    volume_mode(spec, path, errs);
    for name in ["dataSource", "dataSourceRef"] {
        let (source, at) = (spec.at(name), path.child(name));
        if source.is_null() {
            continue;
        }
        for field in ["name", "kind"] {
            if source.text(field).is_empty() {
                errs.push(field::required(&at.child(field), ""));
            }
        }
        let group = source.text("apiGroup");
        if group.is_empty() && source.text("kind") != "PersistentVolumeClaim" {
            errs.push(field::invalid(
                &at,
                source.text("kind"),
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            ));
        }
        if !group.is_empty() {
            field::each(&at.child("apiGroup"), group, names::subdomain, errs);
        }
    }
}

impl Rules for PersistentVolumeClaim {
    fn default(&self, obj: &mut Tree) {
        defaults::claim_spec(tree::child(obj, "spec"));
        let status = tree::child(obj, "status");
        tree::default_text(status, "phase", "Pending");
        resources::default_list(status, "capacity");
    }

    fn prepare_create(&self, obj: &mut Tree, _cx: &Context<'_>) {
        tree::set(obj, "status", json!({"phase": "Pending"}));
        data_sources(tree::child(obj, "spec"));
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        if cx.subresource == "status" {
            tree::keep(new, old, "spec");
        } else {
            tree::keep(new, old, "status");
            data_sources(tree::child(new, "spec"));
        }
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        spec(obj.at("spec"), &Path::Root.child("spec"), errs);
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let path = Path::Root.child("spec");
        if cx.subresource == "status" {
            return;
        }
        meta::again(new, self.names(), true, errs);
        self.validate(new, cx, errs);
        let (is, was) = (new.at("spec"), old.at("spec"));
        let size = |spec: &Tree| quantity(spec.at("resources").at("requests").at("storage"));
        let bound = new.at("status").text("phase") == "Bound";
        let mut rest = is.clone();
        if was.text("volumeName").is_empty() {
            tree::keep(&mut rest, was, "volumeName");
        }
        if bound {
            tree::keep(&mut rest, was, "volumeAttributesClassName");
            if is.at("resources").has("requests") {
                let requests = tree::child(tree::child(&mut rest, "resources"), "requests");
                tree::keep(requests, was.at("resources").at("requests"), "storage");
            }
        }
        if !tree::same(&rest, was) {
            let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            errs.push(field::forbidden(&path, detail));
        }
        let held = quantity(old.at("status").at("capacity").at("storage")).unwrap_or_default();
        if size(is) < size(was) && size(is).is_some_and(|s| s <= held) {
            let at = path.child("resources.requests.storage");
            errs.push(field::forbidden(&at, "field can not be less than status.capacity"));
        }
        let mode = Path::Root.child("volumeMode");
        field::immutable(&mode, is.at("volumeMode"), was.at("volumeMode"), errs);
    }
}

/// What a claim may be filled from by `dataSource`: another claim or a snapshot.
fn is_source(source: &Tree) -> bool {
    let group = source.text("apiGroup");
    (group.is_empty() && source.text("kind") == "PersistentVolumeClaim")
        || (group == "snapshot.storage.k8s.io" && source.text("kind") == "VolumeSnapshot")
}

/// `dataSource` and `dataSourceRef` say the same where either can say it.
fn data_sources(spec: &mut Tree) {
    if spec.has("dataSource") && !is_source(spec.at("dataSource")) {
        tree::remove(spec, "dataSource");
    }
    if spec.has("dataSource") && !spec.has("dataSourceRef") {
        let source = spec.at("dataSource").clone();
        tree::set(spec, "dataSourceRef", source);
    } else if spec.has("dataSourceRef")
        && !spec.has("dataSource")
        && spec.at("dataSourceRef").text("namespace").is_empty()
    {
        let source = spec.at("dataSourceRef");
        let known = is_source(source);
        if known {
            let source = source.clone();
            tree::set(spec, "dataSource", source);
        }
    }
}

impl Rules for PersistentVolume {
    fn default(&self, obj: &mut Tree) {
        let spec = tree::child(obj, "spec");
        tree::default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        tree::default_to(spec, "volumeMode", "Filesystem");
        resources::default_list(spec, "capacity");
        if let Some(host) = tree::existing(spec, "hostPath") {
            tree::default_to(host, "type", "");
        }
        defaults::drivers(spec);
        tree::default_text(tree::child(obj, "status"), "phase", "Pending");
    }

    fn prepare_create(&self, obj: &mut Tree, cx: &Context<'_>) {
        tree::set(obj, "status", json!({"phase": "Pending", "lastPhaseTransitionTime": cx.now.rfc3339()}));
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
        if cx.subresource != "status" {
            tree::keep(new, old, "status");
            return;
        }
        tree::keep(new, old, "spec");
        let status = tree::child(new, "status");
        let was = old.at("status");
        if status.text("phase") != was.text("phase") {
            if tree::same(status.at("lastPhaseTransitionTime"), was.at("lastPhaseTransitionTime")) {
                tree::set(status, "lastPhaseTransitionTime", cx.now.rfc3339());
            }
        } else if !status.has("lastPhaseTransitionTime") {
            tree::keep(status, was, "lastPhaseTransitionTime");
        }
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let path = Path::Root.child("spec");
        let spec = obj.at("spec");
        access_modes(spec, "", &path.child("accessModes"), errs);
        let at = path.child("capacity");
        let sizes: Vec<&str> = spec.entries("capacity").map(|(k, _)| k).collect();
        if sizes.is_empty() {
            errs.push(field::required(&at, ""));
        }
        if sizes != ["storage"] {
            errs.push(field::not_supported(&at, spec.at("capacity"), &["storage"]));
        }
        for (key, value) in spec.entries("capacity") {
            storage(value, &at.key(key), errs);
        }
        if !spec.text("persistentVolumeReclaimPolicy").is_empty() {
            let policies = ["Delete", "Recycle", "Retain"];
            field::one_of(
                &path.child("persistentVolumeReclaimPolicy"),
                spec.text("persistentVolumeReclaimPolicy"),
                &policies,
                false,
                errs,
            );
        }
        if spec.at("nodeAffinity").has("required") {
            let parent = path.child("nodeAffinity");
            placement::node_selector(spec.at("nodeAffinity").at("required"), &parent.child("required"), errs);
        }
        let mut count = 0;
        for name in defaults::VOLUME_SOURCES.iter().copied().chain(["local"]).filter(|n| spec.has(n)) {
            let (source, at) = (spec.at(name), path.child(name));
            count += 1;
            if count > 1 {
                errs.push(field::forbidden(&at, "may not specify more than 1 volume type"));
                continue;
            }
            match name {
                "hostPath" => volumes::host_path(source, &at, errs),
                "nfs" => volumes::nfs(source, &at, errs),
                "local" => {
                    if source.text("path").is_empty() {
                        errs.push(field::required(&at.child("path"), ""));
                    } else {
                        volumes::no_backsteps(source.text("path"), &at.child("path"), errs);
                    }
                    if !spec.at("nodeAffinity").has("required") {
                        errs.push(field::required(&path.child("nodeAffinity"), "Local volume requires node affinity"));
                    }
                }
                "csi" => {
                    volumes::driver(source.text("driver"), &at.child("driver"), errs);
                    if source.text("volumeHandle").is_empty() {
                        errs.push(field::required(&at.child("volumeHandle"), ""));
                    }
                }
                _ => {}
            }
        }
        if count == 0 {
            errs.push(field::required(&path, "must specify a volume type"));
        }
        let recycle = spec.text("persistentVolumeReclaimPolicy") == "Recycle";
        if recycle && spec.at("hostPath").text("path").trim_end_matches('/').is_empty() && spec.has("hostPath") {
            let at = path.child("persistentVolumeReclaimPolicy");
            errs.push(field::forbidden(&at, "may not be 'recycle' for a hostPath mount of '/'"));
        }
        if !spec.text("storageClassName").is_empty() {
            field::each(&path.child("storageClassName"), spec.text("storageClassName"), names::subdomain, errs);
        }
        volume_mode(spec, &path, errs);
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if cx.subresource == "status" {
            return;
        }
        meta::again(new, self.names(), false, errs);
        self.validate(new, cx, errs);
        let path = Path::Root.child("spec");
        let (is, was) = (new.at("spec"), old.at("spec"));
        let sources = defaults::VOLUME_SOURCES.iter().copied().chain(["local"]);
        if sources.into_iter().any(|n| !tree::same(is.at(n), was.at(n))) {
            let at = path.child("persistentvolumesource");
            errs.push(field::forbidden(&at, "spec.persistentvolumesource is immutable after creation"));
        }
        field::immutable(&path.child("volumeMode"), is.at("volumeMode"), was.at("volumeMode"), errs);
        if was.has("nodeAffinity") && !tree::same(is.at("nodeAffinity"), was.at("nodeAffinity")) {
            errs.push(field::invalid(&path.child("nodeAffinity"), is.at("nodeAffinity"), field::IMMUTABLE));
        }
    }
}
