//! What a node's chain proves to another node: its roles, for a grace beyond its end, unless it was expelled.
#![allow(clippy::unwrap_used, missing_docs)]

mod scratch;

use base::{CellId, NodeId, Uid, Wall};
use identity::{Credential, GRACE, Identity, IssuerScope, Peer, Refusal, Revocations, Roles, SpiffeId};
use scratch::Scratch;
use std::time::Duration;

const NOW: Wall = Wall(1_769_846_400_000);
const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

fn found(data: &Scratch) -> (Identity, Credential) {
    let mesh = Identity::found(data.path(), Some("quiet-otter.mesh"), None, NOW).unwrap();
    let registry = mesh.issuer(CellId(Uid(7)), &IssuerScope::Registry, NOW).unwrap();
    let id = SpiffeId::Node { trust_domain: mesh.trust_domain().clone(), node: mesh.node_id() };
    let svid = registry.svid(&id, Roles::KEEPER | Roles::GATEWAY, NOW).unwrap();
    (mesh, svid)
}

#[test]
fn a_chain_proves_the_roles_it_says_and_none_without() {
    let data = Scratch::new();
    let (mesh, svid) = found(&data);
    let proven = mesh.verifier().node(&svid.chain, NOW, GRACE).unwrap();
    assert_eq!(proven.node(), Some((mesh.node_id(), Roles::KEEPER | Roles::GATEWAY)));
    assert_eq!(mesh.verifier().client(&svid.chain, NOW).unwrap().peer, proven.peer);

    let registry = mesh.issuer(CellId(Uid(7)), &IssuerScope::Registry, NOW).unwrap();
    let id = SpiffeId::Node { trust_domain: mesh.trust_domain().clone(), node: mesh.node_id() };
    let bare = registry.svid(&id, Roles::NONE, NOW).unwrap();
    let proven = mesh.verifier().node(&bare.chain, NOW, GRACE).unwrap();
    assert_eq!(proven.peer, Peer::Node { node: mesh.node_id(), roles: Roles::NONE });
}

#[test]
fn nodes_have_a_grace_and_clients_of_the_api_have_none() {
    let data = Scratch::new();
    let (mesh, svid) = found(&data);
    let verifier = mesh.verifier();
    let end = svid.lifetime.not_after;
    for (at, grace, as_node, as_client) in [
        (end, GRACE, true, true),
        (end + SECOND, GRACE, true, false),
        (end + GRACE, GRACE, true, false),
        (end + GRACE + SECOND, GRACE, false, false),
        (end + SECOND, Duration::ZERO, false, false),
        (end + HOUR, HOUR, true, false),
        (end + HOUR + SECOND, HOUR, false, false),
        (NOW - HOUR, GRACE, false, false),
    ] {
        assert_eq!(verifier.node(&svid.chain, at, grace).is_ok(), as_node, "{at:?} {grace:?}");
        assert_eq!(verifier.client(&svid.chain, at).is_ok(), as_client, "{at:?}");
    }
    let proven = verifier.node(&svid.chain, end + HOUR, GRACE).unwrap();
    assert_eq!(proven.lifetime.not_after, end + GRACE, "a connection may last that long");
    let late = verifier.node(&svid.chain, end + GRACE + SECOND, GRACE).unwrap_err();
    assert!(late.to_string().contains("must be renewed"), "{late}");
}

#[test]
fn only_a_nodes_chain_is_a_nodes() {
    let data = Scratch::new();
    let (mesh, _) = found(&data);
    let admin = mesh.root().unwrap().person("kubernetes-admin", "system:masters", NOW).unwrap();
    assert!(matches!(mesh.verifier().node(&admin.chain, NOW, GRACE), Err(Refusal::Purpose(_))));
    let web = mesh.issuer(CellId(Uid(9)), &IssuerScope::Namespace("web".into()), NOW).unwrap();
    let id = SpiffeId::parse("spiffe://quiet-otter.mesh/ns/web/sa/web").unwrap();
    let workload = web.svid(&id, Roles::NONE, NOW).unwrap();
    assert!(matches!(mesh.verifier().node(&workload.chain, NOW, GRACE), Err(Refusal::Purpose(_))));
}

#[test]
fn a_link_needs_the_chain_of_its_own_key() {
    let data = Scratch::new();
    let (mesh, svid) = found(&data);
    let nobody = Revocations::default();
    let verifier = mesh.verifier();
    assert!(verifier.link(&svid.chain, mesh.node_id(), &nobody, NOW, GRACE).is_ok());
    let thief = NodeId([1; 32]);
    let refused = verifier.link(&svid.chain, thief, &nobody, NOW, GRACE).unwrap_err();
    assert_eq!(refused, Refusal::OtherNode { proven: mesh.node_id(), presented: thief });
}

#[test]
fn two_founders_that_meet_hear_that_they_are_two_meshes() {
    let (here, there) = (Scratch::new(), Scratch::new());
    let (ours, _) = found(&here);
    let theirs = Identity::found(there.path(), Some("loud-otter.mesh"), None, NOW).unwrap();
    let registry = theirs.issuer(CellId(Uid(7)), &IssuerScope::Registry, NOW).unwrap();
    let svid = registry.svid(&theirs.spiffe_id(), Roles::ALL, NOW).unwrap();
    let link = |mesh: &Identity| mesh.verifier().link(&svid.chain, theirs.node_id(), &Revocations::none(), NOW, GRACE);
    let refused = link(&ours).unwrap_err();
    assert!(matches!(&refused, Refusal::OtherDomain(domain) if domain.as_str() == "loud-otter.mesh"));
    assert!(refused.to_string().contains("join it with a ticket"), "{refused}");
    // Under the same name it is another's signature all the same.
    let third = Scratch::new();
    let namesake = Identity::found(third.path(), Some("loud-otter.mesh"), None, NOW).unwrap();
    assert!(matches!(link(&namesake), Err(Refusal::Stranger(_))));
}

#[test]
fn an_expelled_node_is_refused_and_so_is_what_its_issuing_key_vouches_for() {
    let data = Scratch::new();
    let (mesh, svid) = found(&data);
    let me = mesh.node_id();
    let registry = mesh.issuer(CellId(Uid(7)), &IssuerScope::Registry, NOW).unwrap();
    let other = NodeId([1; 32]);
    let id = SpiffeId::Node { trust_domain: mesh.trust_domain().clone(), node: other };
    let vouched = registry.svid(&id, Roles::ALL, NOW).unwrap();

    let verifier = mesh.verifier();
    let check = |list: &Revocations, chain, node| verifier.link(chain, node, list, NOW, GRACE).map(|_| ());
    let expelled_other = Revocations::default().with(other, NOW, 1);
    assert!(!expelled_other.is_expelled(me));
    assert_eq!(check(&expelled_other, &svid.chain, me), Ok(()));
    assert_eq!(check(&expelled_other, &vouched.chain, other), Err(Refusal::Expelled(other)));
    let expelled_me = Revocations::default().with(me, NOW, 1);
    assert_eq!(check(&expelled_me, &svid.chain, me), Err(Refusal::Expelled(me)));
    let refused = check(&expelled_me, &vouched.chain, other).unwrap_err();
    assert_eq!(refused, Refusal::Expelled(me), "named by an expelled keeper");
    assert!(refused.to_string().contains("invite it again"), "{refused}");
    let admin = mesh.root().unwrap().person("kubernetes-admin", "system:masters", NOW).unwrap();
    assert_eq!(expelled_me.check(&verifier.client(&admin.chain, NOW).unwrap()), Ok(()), "root vouches for it");
}
