//! Volumes, claims and what provides them.

use super::{Printer, flag, joined, or};
use crate::Tree;
use crate::kinds::tree::{Fields, text};
use serde_json::json;

pub(super) fn cells(p: &Printer<'_>) -> Option<Vec<Tree>> {
    let (spec, status) = (p.spec(), p.status());
    let phase = |terminating: bool| {
        if terminating { json!("Terminating") } else { status.at("phase").clone() }
    };
    let going = p.obj.at("metadata").has("deletionTimestamp");
    Some(match p.kind.storage {
        "PersistentVolume" => {
            let claim = spec.at("claimRef");
            let claimed = if claim.is_null() {
                String::new()
            } else {
                format!("{}/{}", claim.text("namespace"), claim.text("name"))
            };
            vec![
                p.name(),
                json!(spec.at("capacity").text("storage")),
                json!(modes(spec.list("accessModes"))),
                json!(spec.text("persistentVolumeReclaimPolicy")),
                phase(going),
                json!(claimed),
                json!(class(p)),
                or(spec.text("volumeAttributesClassName"), "<unset>"),
                json!(status.text("reason")),
                p.age(),
                or(spec.text("volumeMode"), "<unset>"),
            ]
        }
        "PersistentVolumeClaim" => {
            let bound = !spec.text("volumeName").is_empty();
            let (capacity, access) = if bound {
                (status.at("capacity").text("storage").to_owned(), modes(status.list("accessModes")))
            } else {
                (String::new(), String::new())
            };
            vec![
                p.name(),
                phase(going),
                json!(spec.text("volumeName")),
                json!(capacity),
                json!(access),
                json!(class(p)),
                or(spec.text("volumeAttributesClassName"), "<unset>"),
                p.age(),
                or(spec.text("volumeMode"), "<unset>"),
            ]
        }
        "StorageClass.storage.k8s.io" => {
            let default = p.obj.at("metadata").at("annotations").text("storageclass.kubernetes.io/is-default-class");
            let name = p.obj.at("metadata").text("name");
            vec![
                json!(if default == "true" { format!("{name} (default)") } else { name.to_owned() }),
                p.obj.at("provisioner").clone(),
                or(p.obj.text("reclaimPolicy"), "Delete"),
                or(p.obj.text("volumeBindingMode"), "Immediate"),
                flag(p.obj, "allowVolumeExpansion"),
                p.age(),
            ]
        }
        "VolumeAttributesClass.storage.k8s.io" => vec![p.name(), json!(p.obj.text("driverName")), p.age()],
        "CSIDriver.storage.k8s.io" => {
            let requests: Vec<String> =
                spec.list("tokenRequests").iter().map(|t| t.text("audience").to_owned()).collect();
            let modes = joined(spec.list("volumeLifecycleModes").iter().map(text), ",");
            vec![
                p.name(),
                json!(spec.at("attachRequired").as_bool().unwrap_or(true)),
                flag(spec, "podInfoOnMount"),
                flag(spec, "storageCapacity"),
                or(&requests.join(","), "<unset>"),
                flag(spec, "requiresRepublish"),
                or(&modes, "<none>"),
                p.age(),
            ]
        }
        "CSINode.storage.k8s.io" => vec![p.name(), json!(spec.list("drivers").len()), p.age()],
        "VolumeAttachment.storage.k8s.io" => vec![
            p.name(),
            spec.at("attacher").clone(),
            json!(spec.at("source").text("persistentVolumeName")),
            json!(spec.text("nodeName")),
            flag(status, "attached"),
            p.age(),
        ],
        _ => return None,
    })
}

/// The class of a volume or claim; an annotation older than the field wins.
fn class(p: &Printer<'_>) -> String {
    let old = p.obj.at("metadata").at("annotations").text("volume.beta.kubernetes.io/storage-class");
    if old.is_empty() { p.spec().text("storageClassName").to_owned() } else { old.to_owned() }
}

fn modes(all: &[Tree]) -> String {
    let has = |m: &str| all.iter().any(|x| x == m);
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    joined(short.into_iter().filter(|(m, _)| has(m)).map(|(_, s)| s), ",")
}
