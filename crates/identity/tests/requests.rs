//! Keys stay where they are made: what travels is a request, what comes back is a certificate, and neither
//! is of use to anybody else.
#![allow(clippy::unwrap_used, missing_docs)]

mod scratch;

use base::{CellId, NodeId, Uid, Wall};
use identity::{
    AskedGateway, AskedIssuer, GatewayNames, GatewayRequest, Identity, IdentityError, IssuerRequest, IssuerScope,
    MessageError, Peer, Roles, SpiffeId, SvidRequest, request,
};
use scratch::Scratch;
use std::time::Duration;

const NOW: Wall = Wall(1_769_846_400_000);
const REGISTRY: CellId = CellId(Uid(7));
const OTHER: NodeId = NodeId([0xcd; 32]);

fn found(data: &Scratch) -> Identity {
    Identity::found(data.path(), Some("quiet-otter.mesh"), None, NOW).unwrap()
}

fn node(id: NodeId) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://quiet-otter.mesh/node/{id}")).unwrap()
}

fn names(host: &str) -> GatewayNames {
    GatewayNames {
        hosts: vec![host.to_owned()],
        addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        ..GatewayNames::default()
    }
}

#[test]
fn a_node_elsewhere_gets_an_svid_with_its_roles_for_its_own_key() {
    let data = Scratch::new();
    let mesh = found(&data);
    let registry = mesh.issuer(REGISTRY, &IssuerScope::Registry, NOW).unwrap();
    let roles: Roles = "gateway,worker".parse().unwrap();

    let request = SvidRequest::make(&node(OTHER)).unwrap();
    let chain = registry.certify(&request.encode().unwrap(), request.id(), roles, NOW).unwrap();
    let chain = request::decode_chain(&request::encode_chain(&chain)).unwrap();
    let (credential, proven) = request.complete(chain.clone(), mesh.verifier(), NOW).unwrap();
    assert_eq!(proven.peer, Peer::Node { node: OTHER, roles });
    assert_eq!(proven.issued_by, Some(mesh.node_id()));
    assert_eq!(credential.chain, chain);
    assert!(!proven.lifetime.covers(NOW + Duration::from_secs(3601)));

    let another = SvidRequest::make(&node(OTHER)).unwrap();
    let refused = another.complete(chain.clone(), mesh.verifier(), NOW).unwrap_err();
    assert!(refused.to_string().contains("another key"), "{refused}");
    let refused = SvidRequest::make(&node(NodeId([1; 32]))).unwrap().complete(chain, mesh.verifier(), NOW).unwrap_err();
    assert!(matches!(refused, IdentityError::NotAsAsked { .. }), "{refused}");
}

#[test]
fn a_request_is_good_for_the_name_it_was_made_for_only() {
    let data = Scratch::new();
    let registry = found(&data).issuer(REGISTRY, &IssuerScope::Registry, NOW).unwrap();
    let bytes = SvidRequest::make(&node(OTHER)).unwrap().encode().unwrap();
    let refused = registry.certify(&bytes, &node(NodeId([1; 32])), Roles::ALL, NOW).unwrap_err();
    assert!(matches!(refused, IdentityError::Message(MessageError::Damaged { .. })), "{refused}");

    let certify = |bytes: &[u8]| registry.certify(bytes, &node(OTHER), Roles::ALL, NOW);
    assert!(certify(&bytes).is_ok());
    for at in 0..bytes.len() {
        assert!(certify(&bytes[..at]).is_err(), "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert!(certify(&flipped).is_err(), "flipped at {at}");
    }
    assert!(certify(&[&bytes[..], &[0]].concat()).is_err());
    let mut newer = bytes;
    newer[1] = 2;
    let refused = certify(&newer).unwrap_err();
    assert!(refused.to_string().contains("newer release"), "{refused}");
}

#[test]
fn a_workload_has_no_roles() {
    let data = Scratch::new();
    let web = found(&data).issuer(CellId(Uid(9)), &IssuerScope::Namespace("web".into()), NOW).unwrap();
    let id = SpiffeId::parse("spiffe://quiet-otter.mesh/ns/web/sa/web").unwrap();
    assert!(matches!(web.svid(&id, Roles::WORKER, NOW), Err(IdentityError::BeyondScope { .. })));
    assert!(web.svid(&id, Roles::NONE, NOW).is_ok());
}

#[test]
fn a_keeper_elsewhere_gets_an_issuing_certificate_and_issues_with_it() {
    let data = Scratch::new();
    let mesh = found(&data);
    let web = IssuerScope::Namespace("web".into());
    let request = IssuerRequest::make(OTHER, CellId(Uid(9)), web.clone(), 3).unwrap();
    let asked = AskedIssuer::decode(&request.encode().unwrap()).unwrap();
    assert_eq!((asked.keeper, asked.cell, &asked.scope, asked.number), (OTHER, CellId(Uid(9)), &web, 3));

    let certificate = mesh.root().unwrap().certify_issuer(&asked, NOW).unwrap();
    let issuer = request.complete(certificate.clone(), mesh.verifier(), NOW).unwrap();
    let id = SpiffeId::parse("spiffe://quiet-otter.mesh/ns/web/sa/web").unwrap();
    let svid = issuer.svid(&id, Roles::NONE, NOW).unwrap();
    assert_eq!(mesh.verifier().client(&svid.chain, NOW).unwrap().issued_by, Some(OTHER));

    for (keeper, cell, scope, number) in [
        (OTHER, 9, web.clone(), 3),
        (OTHER, 9, IssuerScope::Registry, 3),
        (NodeId([1; 32]), 9, web.clone(), 3),
        (OTHER, 8, web.clone(), 3),
        (OTHER, 9, web.clone(), 4),
    ] {
        let other = IssuerRequest::make(keeper, CellId(Uid(cell)), scope, number).unwrap();
        let refused = other.complete(certificate.clone(), mesh.verifier(), NOW).unwrap_err();
        assert!(matches!(refused, IdentityError::NotAsAsked { .. }), "{refused}");
    }
    let strangers = Scratch::new();
    let stranger = found(&strangers);
    let again = IssuerRequest::make(OTHER, CellId(Uid(9)), web, 3).unwrap();
    let asked = AskedIssuer::decode(&again.encode().unwrap()).unwrap();
    let certificate = stranger.root().unwrap().certify_issuer(&asked, NOW).unwrap();
    assert!(again.complete(certificate, mesh.verifier(), NOW).is_err(), "another mesh's root");
}

#[test]
fn no_bit_of_an_issuers_request_can_be_changed() {
    let request = IssuerRequest::make(OTHER, CellId(Uid(9)), IssuerScope::Namespace("web".into()), 3).unwrap();
    let bytes = request.encode().unwrap();
    for at in 0..bytes.len() {
        assert!(AskedIssuer::decode(&bytes[..at]).is_err(), "cut at {at}");
        for bit in [0x01, 0x80] {
            let mut flipped = bytes.clone();
            flipped[at] ^= bit;
            assert!(AskedIssuer::decode(&flipped).is_err(), "flipped at {at}");
        }
    }
}

#[test]
fn a_gateway_elsewhere_is_certified_under_its_own_names_only() {
    let data = Scratch::new();
    let mesh = found(&data);
    let registry = mesh.issuer(REGISTRY, &IssuerScope::Registry, NOW).unwrap();
    let request = GatewayRequest::make(names("Node-2")).unwrap();
    let bytes = request.encode().unwrap();
    let asked = AskedGateway::decode(&bytes).unwrap();
    assert_eq!(asked.names, names("node-2"));

    let chain = registry.certify_gateway(&asked, &names("node-2"), NOW).unwrap();
    let credential = request.complete(chain, mesh.verifier(), NOW).unwrap();
    assert!(credential.lifetime.covers(NOW + Duration::from_secs(23 * 3600)));
    let node_svid = registry.svid(&node(OTHER), Roles::GATEWAY, NOW).unwrap();
    assert!(request.complete(node_svid.chain, mesh.verifier(), NOW).is_err(), "another key");

    let refused = registry.certify_gateway(&asked, &names("node-1"), NOW).unwrap_err();
    assert!(refused.to_string().contains("node-2 is not this node's"), "{refused}");
    let fewer = GatewayNames { addresses: vec![], ..names("node-2") };
    let refused = registry.certify_gateway(&asked, &fewer, NOW).unwrap_err();
    assert!(refused.to_string().contains("192.0.2.7"), "{refused}");

    for at in 0..bytes.len() {
        assert!(AskedGateway::decode(&bytes[..at]).is_err(), "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x20;
        assert!(AskedGateway::decode(&flipped).is_err(), "flipped at {at}");
    }
}

#[test]
fn what_is_no_hosts_name_and_what_is_too_much_is_refused_where_it_is_stated() {
    for bad in ["no de", "*.example.org", "a..b", "-a"] {
        assert!(GatewayRequest::make(names(bad)).is_err(), "{bad}");
    }
    let twice = GatewayNames { addresses: vec!["192.0.2.7".parse().unwrap(); 300], ..names("node-2") };
    assert!(GatewayRequest::make(twice).is_ok());
    let many = GatewayNames { hosts: (0..65).map(|i| format!("n{i}")).collect(), ..GatewayNames::default() };
    let refused = GatewayRequest::make(many).unwrap_err();
    assert!(refused.to_string().contains("more than 64"), "{refused}");
}

#[test]
fn a_chain_that_travels_is_bounded() {
    let one = rustls::pki_types::CertificateDer::from(vec![1; 16 * 1024]);
    let four = request::encode_chain(&vec![one.clone(); 4]);
    assert!(four.len() > 64 * 1024 && request::decode_chain(&four).is_err(), "longer than any chain");
    assert!(request::decode_chain(&request::encode_chain(&vec![one; 3])).is_ok());
    let many = vec![rustls::pki_types::CertificateDer::from(vec![1]); 5];
    assert!(request::decode_chain(&request::encode_chain(&many)).is_err());
}

/// Kept for ever: peers of this release ask like this. Signatures differ each time, so reading is what counts.
#[test]
fn requests_of_this_release_are_read_by_every_later_one() {
    let data = Scratch::new();
    let registry = found(&data).issuer(REGISTRY, &IssuerScope::Registry, NOW).unwrap();
    let bytes = |text: &str| -> Vec<u8> {
        let text = text.trim().as_bytes();
        text.chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
    };
    let svid = bytes(include_str!("golden/svid-request.1"));
    assert!(registry.certify(&svid, &node(OTHER), Roles::ALL, NOW).is_ok());
    let issuer = AskedIssuer::decode(&bytes(include_str!("golden/issuer-request.1"))).unwrap();
    assert_eq!((issuer.keeper, issuer.cell, issuer.number), (OTHER, CellId(Uid(9)), 3));
    assert_eq!(issuer.scope, IssuerScope::Namespace("web".into()));
    let gateway = AskedGateway::decode(&bytes(include_str!("golden/gateway-request.1"))).unwrap();
    assert_eq!(gateway.names, names("node-2"));
}
