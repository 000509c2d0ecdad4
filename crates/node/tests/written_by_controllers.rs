//! What a kube-apiserver 1.37.0 answered while kube-controller-manager wrote to the same objects, compared
//! with a cell and the controllers beside it.
//!
//! How far its controllers had come when it answered is chance. So each of these requests is first made
//! without effect (`dryRun=All`) after every single step of ours, until the answer is the observed one: what
//! was observed has to be one of the states that are passed through.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../objects/tests/cell/mod.rs"]
#[allow(dead_code)]
mod cell;
#[path = "../../objects/tests/golden/compare.rs"]
mod compare;
mod controlled;

use cell::{Call, Mesh};
use compare::{diff, normalise};
use controlled::World;
use objects::Tree;
use objects::request::{Request, User};
use std::time::Duration;

/// behaviours.json, by index: what controllers had written to.
const WRITTEN: [usize; 7] = [46, 47, 49, 59, 94, 95, 97];
/// Of these what lies outside the status: theirs was observed in the midst of a sync, of which
/// kube-controller-manager writes the condition before, ours together with the counts.
const UNDER_WAY: [usize; 2] = [47, 49];
/// The Node that was created, and what a change of it showed of those of `kube-controller-manager` that had been at
/// it: nobody had ever said how it is.
const NODE: (usize, usize) = (23, 111);
/// A list in which one object is a controller's.
const ROOT_CA: usize = 26;

fn load(text: &str) -> Vec<Tree> {
    serde_json::from_str(text).unwrap()
}

/// The request of an entry about a namespaced object in `gold`.
fn request(mesh: &mut Mesh, entry: &Tree, query: &str, w: &World) -> Option<Request> {
    let path = entry["path"].as_str()?;
    if !path.contains("/namespaces/gold/") || path.contains("/token") || path.contains("/exec") {
        return None;
    }
    any_request(mesh, entry, query, w)
}

fn any_request(mesh: &mut Mesh, entry: &Tree, query: &str, w: &World) -> Option<Request> {
    let path = format!("{}{query}", entry["path"].as_str()?);
    let headers = &entry["headers"];
    let body = match &entry["body"] {
        Tree::Null => Vec::new(),
        Tree::String(text) => text.clone().into_bytes(),
        tree => serde_json::to_vec(tree).unwrap(),
    };
    mesh.now = w.now.wall;
    let call = Call {
        method: entry["method"].as_str()?,
        path: &path,
        content_type: headers["Content-Type"].as_str().unwrap_or("application/json"),
        user: User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() },
        body,
    };
    mesh.request(&call).ok().filter(|r| r.kind.served)
}

/// What differs between an answer and the observed one.
fn difference(ours: &Tree, theirs: &Tree) -> String {
    let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
    for tree in [&mut ours, &mut theirs] {
        normalise("", tree);
        unhash(tree);
    }
    let mut out = String::new();
    diff("", &ours, &theirs, &mut out);
    out
}

/// A ReplicaSet's name ends with the hash of its template, which is each implementation's own.
fn unhash(tree: &mut Tree) {
    match tree {
        Tree::Object(map) => map.values_mut().for_each(unhash),
        Tree::Array(items) => items.iter_mut().for_each(unhash),
        Tree::String(text) => {
            for before in ["ReplicaSet \"m-", "replica set \"m-"] {
                if let Some(at) = text.find(before).map(|at| at + before.len()) {
                    let end = text[at..].find('"').map_or(text.len(), |e| at + e);
                    text.replace_range(at..end, "<hash>");
                }
            }
        }
        _ => {}
    }
}

#[test]
fn what_controllers_had_written_is_what_ours_write() {
    let (mut w, mut mesh) = (World::of("gold"), Mesh::new());
    w.settle();
    let behaviours = load(include_str!("../../objects/tests/golden/behaviours.json"));
    let items = behaviours[ROOT_CA]["response"]["items"].as_array().unwrap();
    let mut theirs = items.iter().find(|i| i["metadata"]["name"] == "kube-root-ca.crt").cloned().unwrap();
    let mut ours = w.get("ConfigMap", "kube-root-ca.crt").unwrap();
    for one in [&mut ours, &mut theirs] {
        one["data"]["ca.crt"] = "<certificate>".into();
        // In a list an item does not say what it is.
        one.as_object_mut().unwrap().retain(|k, _| k != "kind" && k != "apiVersion");
    }
    assert_eq!(difference(&ours, &theirs), "", "kube-root-ca.crt");

    for entry in load(include_str!("../../objects/tests/golden/created_with_defaults.json")) {
        if let Some(request) = request(&mut mesh, &entry, "?fieldValidation=Strict", &w) {
            let name = format!("{} {}", request.kind.kind, entry["path"]);
            w.request(request).unwrap_or_else(|s| panic!("{name}: {s:?}"));
        }
    }
    // They had some seconds before what follows.
    w.pass(Duration::from_secs(2));
    let mut report = String::new();
    for (index, entry) in behaviours.iter().enumerate() {
        let Some(request) = request(&mut mesh, entry, "", &w) else { continue };
        if WRITTEN.contains(&index) {
            let met = meet(&mut w, &request, &entry["response"], UNDER_WAY.contains(&index));
            if let Err(difference) = met {
                report.push_str(&format!("behaviours {index} {}\n{difference}", entry["path"]));
            }
        }
        let _ = w.request(request);
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn what_controllers_had_written_to_a_node_is_what_ours_write() {
    let (mut w, mut mesh) = (World::registry(), Mesh::new());
    let created = load(include_str!("../../objects/tests/golden/created_with_defaults.json"));
    let behaviours = load(include_str!("../../objects/tests/golden/behaviours.json"));
    let (created, changed) = (&created[NODE.0], &behaviours[NODE.1]);
    let request = any_request(&mut mesh, created, "", &w).unwrap();
    assert_eq!(difference(&w.request(request).unwrap(), &created["response"]), "");
    w.settle();
    let request = any_request(&mut mesh, changed, "", &w).unwrap();
    assert_eq!(difference(&w.request(request).unwrap(), &changed["response"]), "");
}

/// Goes on until a request would be answered as it was; otherwise says how it would have been at best.
fn meet(w: &mut World, request: &Request, want: &Tree, under_way: bool) -> Result<(), String> {
    let shown = |tree: &Tree| {
        let mut tree = tree.clone();
        if under_way {
            tree["status"].take();
            for entry in tree["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
                entry["fieldsV1"]["f:status"].take();
            }
        }
        tree
    };
    let want = &shown(want);
    let mut best: Option<String> = None;
    for idle in 0..20 {
        for _ in 0..2_000 {
            let mut dry = request.clone();
            dry.options.dry_run = true;
            let ours = w.request(dry).unwrap_or_else(|s| s.to_tree());
            let different = difference(&shown(&ours), want);
            if different.is_empty() {
                return Ok(());
            }
            if best.as_ref().is_none_or(|b| different.lines().count() <= b.lines().count()) {
                best = Some(different);
            }
            if !w.go_on() {
                break;
            }
        }
        if idle > 0 {
            w.pass(Duration::from_millis(50));
        }
    }
    Err(best.unwrap_or_default())
}
