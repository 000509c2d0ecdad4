//! A mesh is founded once, is the same after a restart, and its files are trusted only as they were written.
#![allow(clippy::unwrap_used, missing_docs)]

mod scratch;

use base::{CellId, Uid, Wall};
use identity::{Identity, IdentityError, IssuerScope};
use scratch::Scratch;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

const NOW: Wall = Wall(1_769_846_400_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn found(data: &Path) -> Identity {
    Identity::found(data, Some("quiet-otter.mesh"), None, NOW).unwrap()
}

#[test]
fn a_mesh_is_the_same_after_a_restart() {
    let data = Scratch::new();
    let before = found(data.path());
    let after = Identity::resume(data.path(), NOW + DAY).unwrap();
    assert_eq!(after.trust_domain().as_str(), "quiet-otter.mesh");
    assert_eq!(after.node_id(), before.node_id());
    assert_eq!(after.bundle_pem(), before.bundle_pem());
    assert_eq!(after.tokens().trusted(), before.tokens().trusted());
    let signature = after.node_key().sign(b"hello").unwrap();
    assert!(identity::node_signed(before.node_id(), b"hello", &signature));
    assert!(!identity::node_signed(before.node_id(), b"hellO", &signature));
}

#[test]
fn a_second_founding_is_refused_and_changes_nothing() {
    let data = Scratch::new();
    let before = found(data.path());
    let refused = Identity::found(data.path(), None, None, NOW).unwrap_err();
    assert!(refused.to_string().contains("quiet-otter.mesh"), "{refused}");
    assert_eq!(Identity::resume(data.path(), NOW).unwrap().node_id(), before.node_id());
}

#[test]
fn an_interrupted_founding_is_done_again() {
    let data = Scratch::new();
    found(data.path());
    fs::remove_file(data.path().join("identity/mesh.json")).unwrap();
    assert!(!Identity::is_founded(data.path()).unwrap());
    assert!(matches!(Identity::resume(data.path(), NOW), Err(IdentityError::NotFounded { .. })));
    let again = Identity::found(data.path(), None, None, NOW).unwrap();
    assert!(again.trust_domain().as_str().ends_with(".mesh"));
}

#[test]
fn every_file_is_for_its_owner_alone() {
    let data = Scratch::new();
    let identity = found(data.path());
    identity.issuer(CellId(Uid(7)), &IssuerScope::Registry, NOW).unwrap();
    let folder = data.path().join("identity");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|f| f.unwrap()).collect();
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

#[test]
fn a_key_open_to_others_is_not_used() {
    let data = Scratch::new();
    found(data.path());
    let file = data.path().join("identity/root.json");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Identity::resume(data.path(), NOW).unwrap_err();
    assert!(matches!(refused, IdentityError::TooPermissive { mode: 0o640, .. }), "{refused}");
    assert!(refused.to_string().contains("root.json"));
}

#[test]
fn a_damaged_file_is_named_and_left_alone() {
    for name in ["mesh.json", "node.json", "root.json", "tokens.json"] {
        let data = Scratch::new();
        found(data.path());
        let file = data.path().join("identity").join(name);
        let whole = fs::read(&file).unwrap();
        for damaged in [&whole[..whole.len() / 2], b"", b"{}", b"[1]"] {
            fs::write(&file, damaged).unwrap();
            let refused = Identity::resume(data.path(), NOW).unwrap_err();
            assert!(matches!(refused, IdentityError::Corrupt { .. }), "{name}: {refused:?}");
            assert!(refused.to_string().contains(name), "{refused}");
            assert_eq!(fs::read(&file).unwrap(), damaged);
        }
        fs::write(&file, &whole).unwrap();
        assert!(Identity::resume(data.path(), NOW).is_ok(), "{name}");
    }
}

#[test]
fn another_nodes_certificate_beside_our_key_is_damage() {
    let (ours, theirs) = (Scratch::new(), Scratch::new());
    found(ours.path());
    found(theirs.path());
    fs::copy(theirs.path().join("identity/root.json"), ours.path().join("identity/root.json")).unwrap();
    assert!(matches!(Identity::resume(ours.path(), NOW), Err(IdentityError::Corrupt { .. })));
}

#[test]
fn a_file_of_a_newer_release_is_left_to_it() {
    let data = Scratch::new();
    found(data.path());
    let file = data.path().join("identity/node.json");
    let newer = fs::read_to_string(&file).unwrap().replace("beemesh/node-key/1", "beemesh/node-key/2");
    fs::write(&file, newer).unwrap();
    let refused = Identity::resume(data.path(), NOW).unwrap_err();
    assert!(matches!(refused, IdentityError::UnknownFormat { .. }), "{refused}");
}

#[test]
fn an_issuer_is_kept_until_thirty_days_are_left() {
    let data = Scratch::new();
    let identity = found(data.path());
    let cell = CellId(Uid(7));
    let web = IssuerScope::Namespace("web".into());
    let number = |scope, days| identity.issuer(cell, scope, NOW + DAY * days).unwrap().number();
    assert_eq!([number(&web, 0), number(&web, 59), number(&web, 61), number(&web, 62)], [0, 0, 1, 1]);
    let other = IssuerScope::Namespace("other".into());
    assert_eq!(number(&other, 62), 2, "another scope is another certificate");
    identity.forget_issuer(cell).unwrap();
    identity.forget_issuer(cell).unwrap();
    assert_eq!(number(&web, 62), 0);
}

#[test]
fn a_node_without_the_root_key_says_who_has_it() {
    let data = Scratch::new();
    found(data.path());
    fs::remove_file(data.path().join("identity/root.json")).unwrap();
    let identity = Identity::resume(data.path(), NOW).unwrap();
    let refused = identity.issuer(CellId(Uid(7)), &IssuerScope::Registry, NOW).unwrap_err();
    assert!(refused.to_string().contains("role authority"), "{refused}");
}
