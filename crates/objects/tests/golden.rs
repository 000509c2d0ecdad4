//! Replays what a kube-apiserver 1.37.0 was asked, and compares what it answered with what is decided
//! here: status, reason, message, causes, warnings and whole objects, after what differs from run to run
//! is made equal.
//!
//! Entries that do not agree yet are listed with the reason. The list only shrinks: an entry that starts
//! to agree must leave it, and one that stops fails the test.
#![allow(missing_docs, clippy::unwrap_used)]

mod cell;
#[path = "golden/compare.rs"]
mod compare;

use cell::{Call, Mesh};
use compare::{diff, normalise};
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
    (26, "kube-root-ca.crt is filled by a controller: see node's written_by_controllers"),
    (46, "controllers wrote to it: see node's written_by_controllers"),
    (47, "controllers wrote to it: see node's written_by_controllers"),
    (49, "controllers wrote to it: see node's written_by_controllers"),
    (59, "controllers wrote to it: see node's written_by_controllers"),
    (71, "the difference is printed as JSON, not as Go's structs"),
    (83, "custom resources"),
    (84, "custom resources"),
    (85, "custom resources"),
    (86, "custom resources"),
    (94, "controllers wrote to it: see node's written_by_controllers"),
    (95, "controllers wrote to it: see node's written_by_controllers"),
    (97, "controllers wrote to it: see node's written_by_controllers"),
    (111, "controllers wrote to it: see node's written_by_controllers"),
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
        for tree in [&mut ours, &mut theirs] {
            normalise("", tree);
            // In which order the rules of a review are found is not defined.
            for rules in ["resourceRules", "nonResourceRules"] {
                if let Some(rules) = tree["status"].get_mut(rules).and_then(Tree::as_array_mut) {
                    rules.sort_by_key(Tree::to_string);
                }
            }
        }
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
