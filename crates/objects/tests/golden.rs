//! Replays what a kube-apiserver 1.37.0 was asked, and compares what it answered with what is decided
//! here: status, reason, message, causes, warnings and whole objects, after what differs from run to run
//! is made equal.
//!
//! Entries that do not agree yet are listed with the reason. The list only shrinks: an entry that starts
//! to agree must leave it, and one that stops fails the test.
#![allow(missing_docs, clippy::unwrap_used)]

mod cell;

use cell::{Call, Mesh};
use objects::request::User;
use objects::{Tree, kinds, table, views};
use serde_json::json;
use std::collections::BTreeMap;

/// created_with_defaults.json, by index.
const CREATED_NOT_YET: &[(usize, &str)] = &[
    (20, "StorageObjectInUseProtection comes with the controller that takes its finalizer away"),
    (21, "StorageObjectInUseProtection comes with the controller that takes its finalizer away"),
    (26, "the kind is not served yet: its rules are incomplete"),
    (27, "the kind is not served yet: its rules are incomplete"),
    (28, "the kind is not served yet: its rules are incomplete"),
    (29, "the kind is not served yet: its rules are incomplete"),
    (30, "the kind is not served yet: its rules are incomplete"),
    (35, "the kind is not served yet: its rules are incomplete"),
    (36, "the kind is not served yet: its rules are incomplete"),
    (37, "the kind is not served yet: its rules are incomplete"),
    (38, "the kind is not served yet: its rules are incomplete"),
    (41, "the order in which rules are found is not defined"),
];

/// Entries of behaviours.json that a gateway answers before any cell is asked, or that a node answers:
/// not sent here.
const ELSEWHERE: &[(usize, &str)] = &[
    (1, "no such resource"),
    (6, "the body's version"),
    (8, "the body does not parse"),
    (9, "there is no body"),
    (13, "the query does not parse"),
    (17, "Content-Type"),
    (18, "Accept"),
    (21, "Accept"),
    (31, "a watch stream"),
    (33, "a watch stream"),
    (44, "Content-Type"),
    (54, "the body does not parse"),
    (61, "no such subresource"),
    (62, "no such method"),
    (63, "no such method"),
    (74, "the pod's node"),
    (75, "the pod's node"),
    (101, "no resource"),
    (103, "impersonation"),
    (104, "no such method"),
    (106, "no resource"),
    (108, "the pod's node"),
    (109, "a node's proxy"),
    (110, "no resource"),
];

/// behaviours.json, by index.
const BEHAVIOURS_NOT_YET: &[(usize, &str)] = &[
    (15, "400 here: no fault of the server's"),
    (26, "kube-root-ca.crt is filled by a controller"),
    (32, "400 here: no fault of the server's"),
    (42, "the order of keys in the patched object's text"),
    (46, "controllers wrote to it meanwhile"),
    (47, "controllers wrote to it meanwhile"),
    (49, "controllers wrote to it meanwhile"),
    (59, "controllers wrote to it meanwhile"),
    (71, "the difference is printed as JSON, not as Go's structs"),
    (83, "custom resources"),
    (84, "custom resources"),
    (85, "custom resources"),
    (86, "custom resources"),
    (94, "controllers wrote to it meanwhile"),
    (95, "controllers wrote to it meanwhile"),
    (97, "controllers wrote to it meanwhile"),
    (111, "controllers wrote to it meanwhile"),
];

fn admin() -> User {
    User {
        name: "admin".into(),
        groups: vec!["system:masters".into(), "system:authenticated".into()],
        extra: vec![(
            "authentication.kubernetes.io/credential-id".into(),
            vec!["X509SHA256=c766db10bdf2567e60347a2e1cac2ad58de455edcf4fb0cfe056e417349d9451".into()],
        )],
        ..User::default()
    }
}

#[test]
fn golden_answers_are_met() {
    let mut mesh = Mesh::new();
    mesh.insert(
        kinds::by_resource("", "v1", "namespaces").unwrap(),
        json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "gold"},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
    );
    let created: Vec<Tree> = serde_json::from_str(include_str!("golden/created_with_defaults.json")).unwrap();
    let behaviours: Vec<Tree> = serde_json::from_str(include_str!("golden/behaviours.json")).unwrap();
    let mut report = String::new();
    check("created_with_defaults", &created, "?fieldValidation=Strict", CREATED_NOT_YET, &mut mesh, &mut report);
    check("behaviours", &behaviours, "", BEHAVIOURS_NOT_YET, &mut mesh, &mut report);
    assert!(report.is_empty(), "{report}");
}

fn check(file: &str, entries: &[Tree], query: &str, not_yet: &[(usize, &str)], mesh: &mut Mesh, report: &mut String) {
    let listed: BTreeMap<usize, &str> = not_yet.iter().copied().collect();
    for (index, entry) in entries.iter().enumerate() {
        if file == "behaviours" && ELSEWHERE.iter().any(|(i, _)| *i == index) {
            continue;
        }
        let path = format!("{}{query}", entry["path"].as_str().unwrap());
        // Our revisions are much greater numbers, so the future is too.
        let path = path.replace("=99999999999", "=9000000000000000000");
        let headers = &entry["headers"];
        let user = match headers["Impersonate-User"].as_str() {
            Some(name) => User { name: name.into(), groups: vec!["system:authenticated".into()], ..User::default() },
            None => admin(),
        };
        let body = match &entry["body"] {
            Tree::Null => Vec::new(),
            Tree::String(text) => text.clone().into_bytes(),
            tree => serde_json::to_vec(tree).unwrap(),
        };
        mesh.now.0 += 1000;
        let answer = mesh.call(Call {
            method: entry["method"].as_str().unwrap(),
            path: &path,
            content_type: headers["Content-Type"].as_str().unwrap_or("application/json"),
            user,
            body,
        });
        let mut difference = String::new();
        let want = entry["status"].as_u64().unwrap();
        if u64::from(answer.status) != want {
            difference.push_str(&format!("  status {} for {want}\n", answer.status));
        }
        // A header given several times was noted once.
        let warning = entry["response_headers"]["warning"].as_str().or(entry["warning"].as_str());
        if let Some(text) = warning
            && !answer.warnings.iter().any(|w| format!("299 - {}", objects::status::quote(w)) == text)
        {
            difference.push_str(&format!("  warnings {:?} for {text}\n", answer.warnings));
        }
        let accept = headers["Accept"].as_str().unwrap_or_default();
        let shown = match accept.split(';').nth(1) {
            Some("as=PartialObjectMetadata") => views::partial(&answer.body),
            Some("as=Table") => {
                let kind = kinds::by_resource("", "v1", "configmaps").unwrap();
                table::table(kind, &answer.body, table::Include::None, mesh.now, true)
            }
            Some("as=PartialObjectMetadataList") => views::partial_list(&answer.body),
            _ => answer.body,
        };
        let (mut ours, mut theirs) = (shown, entry["response"].clone());
        normalise("", &mut ours);
        normalise("", &mut theirs);
        diff("", &ours, &theirs, &mut difference);
        match (difference.is_empty(), listed.get(&index)) {
            (true, Some(why)) => {
                report.push_str(&format!("{file} {index} agrees now and must leave the list ({why})\n"));
            }
            (false, None) => {
                report.push_str(&format!("{file} {index} {} {path}\n{difference}", entry["method"].as_str().unwrap()));
            }
            _ => {}
        }
    }
}

/// Makes equal what differs from run to run: uids, times, revisions, addresses, ports, random suffixes.
fn normalise(key: &str, tree: &mut Tree) {
    match tree {
        Tree::Object(map) => {
            for (k, v) in map.iter_mut() {
                normalise(k, v);
            }
        }
        Tree::Array(items) => items.iter_mut().for_each(|v| normalise(key, v)),
        Tree::String(text) => *text = normal_text(key, text),
        Tree::Number(_) if key == "nodePort" || key == "healthCheckNodePort" => *tree = json!(30000),
        _ => {}
    }
}

fn normal_text(key: &str, text: &str) -> String {
    match key {
        "uid"
        | "resourceVersion"
        | "creationTimestamp"
        | "deletionTimestamp"
        | "time"
        | "token"
        | "expirationTimestamp"
        | "lastTransitionTime"
        | "lastUpdateTime" => return format!("<{key}>"),
        // Ages count from the request that made the object.
        "cells" if text.ends_with('s') && text.trim_end_matches('s').parse::<u64>().is_ok() => return "<age>".into(),
        "clusterIP" | "clusterIPs" if text != "None" => return "<ip>".into(),
        _ => {}
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(i) = rest.char_indices().map(|(i, _)| i).find(|&i| is_uid(&rest[i..])) {
        out.push_str(&rest[..i]);
        out.push_str("<uid>");
        rest = &rest[i + 36..];
    }
    out.push_str(rest);
    for prefix in ["gen-", "kube-api-access-"] {
        if let Some(i) = out.find(prefix)
            && out.len() == i + prefix.len() + 5
        {
            out.truncate(i + prefix.len());
        }
    }
    out = out.replace("9000000000000000000", "99999999999");
    // Which revision is current differs.
    if let Some(i) = out.find(", current: ") {
        out.truncate(i);
    }
    out
}

fn is_uid(text: &str) -> bool {
    text.get(..36).is_some_and(|t| t.parse::<base::Uid>().is_ok())
}

fn diff(path: &str, ours: &Tree, theirs: &Tree, out: &mut String) {
    match (ours, theirs) {
        (Tree::Object(a), Tree::Object(b)) => {
            for (k, v) in a {
                match b.get(k) {
                    Some(w) => diff(&format!("{path}.{k}"), v, w, out),
                    None => out.push_str(&format!("  {path}.{k}: ours alone: {}\n", short(v))),
                }
            }
            for (k, w) in b.iter().filter(|(k, _)| !a.contains_key(*k)) {
                out.push_str(&format!("  {path}.{k}: theirs alone: {}\n", short(w)));
            }
        }
        (Tree::Array(a), Tree::Array(b)) if a.len() == b.len() => {
            for (i, (v, w)) in a.iter().zip(b).enumerate() {
                diff(&format!("{path}[{i}]"), v, w, out);
            }
        }
        (a, b) if a == b => {}
        (a, b) => out.push_str(&format!("  {path}: ours {}\n    theirs {}\n", short(a), short(b))),
    }
}

fn short(tree: &Tree) -> String {
    tree.to_string().chars().take(400).collect()
}
