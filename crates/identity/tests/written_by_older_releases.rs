//! What a release has written, every later one reads: one folder of `golden` for each format, kept for ever.
//! The keys in it belong to meshes made for this test.
#![allow(clippy::unwrap_used, missing_docs)]

mod scratch;

use base::{CellId, Uid, Wall};
use identity::{Identity, IssuerScope, Peer, SpiffeId};
use scratch::Scratch;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// When the mesh of format 1 was founded.
const FOUNDED: Wall = Wall(1_769_846_400_000);

#[test]
fn format_1_is_read() {
    let data = Scratch::new();
    let folder = data.path().join("identity");
    fs::create_dir(&folder).unwrap();
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1")).unwrap() {
        let file = file.unwrap();
        let copy = folder.join(file.file_name());
        fs::copy(file.path(), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let identity = Identity::resume(data.path(), FOUNDED).unwrap();
    assert_eq!(identity.trust_domain().as_str(), "golden.mesh");
    assert_eq!(identity.node_id().to_string(), include_str!("golden/1.node-id").trim());
    let token = include_str!("golden/1.token").trim();
    assert_eq!(identity.tokens().verify(token, &[], FOUNDED).unwrap().sub, "system:serviceaccount:web:default");

    let web = IssuerScope::Namespace("web".into());
    let issuer = identity.issuer(CellId(Uid(7)), &web, FOUNDED).unwrap();
    assert_eq!(issuer.number(), 0, "the stored issuer is used, not replaced");
    let id = SpiffeId::parse("spiffe://golden.mesh/ns/web/sa/default").unwrap();
    let svid = issuer.svid(&id, FOUNDED).unwrap();
    let proven = identity.verifier().client(&svid.chain, FOUNDED).unwrap();
    assert!(matches!(proven.peer, Peer::Workload { namespace, .. } if namespace == "web"));
}
