//! What a release has written, every later one reads: one folder of `golden` for each format, kept for ever.
//! The keys in it belong to meshes made for this test.
#![allow(clippy::unwrap_used, missing_docs)]

mod scratch;

use base::{CellId, NodeId, Uid, Wall};
use identity::{GRACE, Identity, IssuerScope, Peer, Roles, SpiffeId};
use scratch::Scratch;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// When the mesh of format 1 was founded.
const FOUNDED: Wall = Wall(1_769_846_400_000);

/// A data directory with the files of a folder of `golden`, as only their owner may read them.
fn laid_out(golden: &str) -> Scratch {
    let data = Scratch::new();
    let folder = data.path().join("identity");
    fs::create_dir(&folder).unwrap();
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden)).unwrap() {
        let file = file.unwrap();
        let copy = folder.join(file.file_name());
        fs::copy(file.path(), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
    }
    data
}

#[test]
fn format_1_is_read() {
    let data = laid_out("1");
    let identity = Identity::resume(data.path(), FOUNDED).unwrap();
    assert_eq!(identity.trust_domain().as_str(), "golden.mesh");
    assert_eq!(identity.node_id().to_string(), include_str!("golden/1.node-id").trim());
    let token = include_str!("golden/1.token").trim();
    assert_eq!(identity.tokens().verify(token, &[], FOUNDED).unwrap().sub, "system:serviceaccount:web:default");

    let web = IssuerScope::Namespace("web".into());
    let issuer = identity.issuer(CellId(Uid(7)), &web, FOUNDED).unwrap();
    assert_eq!(issuer.number(), 0, "the stored issuer is used, not replaced");
    let id = SpiffeId::parse("spiffe://golden.mesh/ns/web/sa/default").unwrap();
    let svid = issuer.svid(&id, Roles::NONE, FOUNDED).unwrap();
    let proven = identity.verifier().client(&svid.chain, FOUNDED).unwrap();
    assert!(matches!(proven.peer, Peer::Workload { namespace, .. } if namespace == "web"));
}

#[test]
fn format_1_of_a_joined_node_is_read() {
    let data = laid_out("1-joined");
    let late = FOUNDED + Duration::from_secs(12 * 3600);
    let identity = Identity::resume(data.path(), late).unwrap();
    assert_eq!(identity.node_id().to_string(), include_str!("golden/1-joined.node-id").trim());
    assert_eq!(identity.roles(), Roles::KEEPER | Roles::GATEWAY);
    let svid = identity.svid().unwrap();
    let known = identity.known();
    let proven = identity.verifier().link(&svid.chain, identity.node_id(), &known.revocations, late, GRACE).unwrap();
    assert_eq!(proven.issued_by, Some(known.contacts[0].node));
    assert!(identity.verifier().server(&identity.gateway().unwrap().chain, late).is_ok());
    assert!(known.revocations.is_expelled(NodeId([0xee; 32])));
    let token = include_str!("golden/1-joined.token").trim();
    assert!(identity.tokens().verify(token, &[], late).is_ok(), "another node's, whose key it knows");
}

#[test]
fn format_1_of_a_joining_node_is_read() {
    let data = Scratch::new();
    Identity::begin_join(data.path(), FOUNDED).unwrap();
    let file = data.path().join("identity/joining.json");
    fs::write(&file, include_str!("golden/1.joining.json")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = Identity::found(data.path(), None, None, FOUNDED).unwrap_err();
    assert!(refused.to_string().contains("golden.mesh"), "{refused}");
}
