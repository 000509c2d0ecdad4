//! What a certificate chain proves, to our verifier and in a real TLS handshake.
#![allow(clippy::unwrap_used, missing_docs)]

mod scratch;

use base::{CellId, Uid, Wall};
use identity::{
    Credential, GatewayCertificate, GatewayNames, Identity, IdentityError, IssuerScope, Peer, Refusal, Roles, SpiffeId,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};
use scratch::Scratch;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const NOW: Wall = Wall(1_769_846_400_000);
const HOUR: Duration = Duration::from_secs(3600);

struct Mesh {
    _data: Scratch,
    identity: Identity,
}

impl Mesh {
    fn founded_at(now: Wall) -> Mesh {
        let data = Scratch::new();
        let identity = Identity::found(data.path(), Some("quiet-otter.mesh"), None, now).unwrap();
        Mesh { _data: data, identity }
    }

    fn workload(&self, namespace: &str, now: Wall) -> Credential {
        let issuer = self.identity.issuer(CellId(Uid(9)), &IssuerScope::Namespace(namespace.into()), now).unwrap();
        issuer.svid(&self.id(&format!("ns/{namespace}/sa/web")), Roles::NONE, now).unwrap()
    }

    fn id(&self, path: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://{}/{path}", self.identity.trust_domain())).unwrap()
    }

    fn verify(&self, credential: &Credential, now: Wall) -> Result<Peer, Refusal> {
        self.identity.verifier().client(&credential.chain, now).map(|p| p.peer)
    }
}

#[test]
fn each_kind_of_certificate_proves_who_holds_it() {
    let mesh = Mesh::founded_at(NOW);
    let admin = mesh.identity.root().unwrap().person("kubernetes-admin", "system:masters", NOW).unwrap();
    let person = Peer::Person { name: "kubernetes-admin".into(), groups: vec!["system:masters".into()] };
    assert_eq!(mesh.verify(&admin, NOW), Ok(person));

    let registry = mesh.identity.issuer(CellId(Uid(7)), &IssuerScope::Registry, NOW).unwrap();
    let node = mesh.identity.node_id();
    let svid = registry.svid(&mesh.id(&format!("node/{node}")), Roles::NONE, NOW).unwrap();
    assert_eq!(mesh.verify(&svid, NOW), Ok(Peer::Node { node, roles: Roles::NONE }));

    let workload = Peer::Workload { namespace: "web".into(), service_account: "web".into() };
    assert_eq!(mesh.verify(&mesh.workload("web", NOW), NOW), Ok(workload));
}

#[test]
fn an_svid_is_good_for_an_hour() {
    let mesh = Mesh::founded_at(NOW);
    let svid = mesh.workload("web", NOW);
    assert!(mesh.verify(&svid, NOW + HOUR).is_ok());
    let late = mesh.verify(&svid, NOW + HOUR + Duration::from_secs(1)).unwrap_err();
    assert!(late.to_string().contains("must be renewed"), "{late}");
    let early = mesh.verify(&svid, NOW - HOUR).unwrap_err();
    assert!(early.to_string().contains("compare the clocks"), "{early}");
}

#[test]
fn an_issuer_makes_nothing_beyond_its_scope() {
    let mesh = Mesh::founded_at(NOW);
    let keeper = mesh.identity.issuer(CellId(Uid(9)), &IssuerScope::Namespace("web".into()), NOW).unwrap();
    let node = format!("node/{}", mesh.identity.node_id());
    for path in ["ns/other/sa/web", node.as_str()] {
        let refused = keeper.svid(&mesh.id(path), Roles::NONE, NOW).unwrap_err();
        assert!(matches!(refused, IdentityError::BeyondScope { .. }), "{refused}");
    }
    assert!(keeper.gateway(&GatewayNames::default(), NOW).is_err());
    let foreign = SpiffeId::parse("spiffe://loud-otter.mesh/ns/web/sa/web").unwrap();
    assert!(keeper.svid(&foreign, Roles::NONE, NOW).is_err());
}

/// A stolen issuing key signs what its program would refuse: here by hand.
fn forged(mesh: &Mesh, scope: IssuerScope, uris: &[&str], person: Option<&str>) -> Credential {
    use rcgen::{
        CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        SanType,
    };
    let cell = CellId(Uid(9));
    let good = mesh.identity.issuer(cell, &scope, NOW).unwrap();
    let file = mesh._data.path().join(format!("identity/issuer-{cell}.json"));
    let stored: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let key = KeyPair::from_pem(stored["key"].as_str().unwrap()).unwrap();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, mesh.identity.trust_domain().as_str());
    subject.push(DnType::CommonName, stored["name"].as_str().unwrap());
    let mut above = CertificateParams::default();
    above.distinguished_name = subject;
    above.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = Issuer::new(above, key);

    let leaf_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name = DistinguishedName::new();
    if let Some(name) = person {
        leaf.distinguished_name.push(DnType::OrganizationName, "system:masters");
        leaf.distinguished_name.push(DnType::CommonName, name);
    }
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    leaf.use_authority_key_identifier_extension = true;
    leaf.subject_alt_names = uris.iter().map(|u| SanType::URI((*u).try_into().unwrap())).collect();
    let made = leaf.signed_by(&leaf_key, &issuer).unwrap();

    // Any credential of the same issuer lends its intermediate.
    let mut borrowed = match &scope {
        IssuerScope::Namespace(own) => good.svid(&mesh.id(&format!("ns/{own}/sa/web")), Roles::NONE, NOW).unwrap(),
        IssuerScope::Registry => good.gateway(&GatewayNames::default(), NOW).unwrap(),
    };
    borrowed.chain[0] = made.der().clone();
    borrowed
}

#[test]
fn a_stolen_issuing_key_can_name_nobody_beyond_its_scope() {
    let mesh = Mesh::founded_at(NOW);
    let web = || IssuerScope::Namespace("web".into());
    let own = "spiffe://quiet-otter.mesh/ns/web/sa/web";
    assert!(mesh.verify(&forged(&mesh, web(), &[own], None), NOW).is_ok(), "the forging itself works");

    let node = format!("spiffe://quiet-otter.mesh/node/{}", mesh.identity.node_id());
    let mallory = Some("mallory");
    for (scope, uris, person) in [
        (web(), vec!["spiffe://quiet-otter.mesh/ns/kube-system/sa/web"], None),
        (web(), vec![node.as_str()], None),
        (web(), vec![], mallory),
        (web(), vec![own], mallory),
        (IssuerScope::Registry, vec![], mallory),
        (IssuerScope::Registry, vec![node.as_str()], mallory),
        (IssuerScope::Registry, vec![own], None),
    ] {
        let refused = mesh.verify(&forged(&mesh, scope.clone(), &uris, person), NOW).unwrap_err();
        assert!(matches!(refused, Refusal::BeyondScope(_)), "{scope}, {uris:?}, {person:?}: {refused}");
    }
    let two = mesh.verify(&forged(&mesh, web(), &[own, "spiffe://quiet-otter.mesh/ns/a/sa/b"], None), NOW);
    assert!(matches!(two, Err(Refusal::Unreadable(_))), "{two:?}");
    let foreign = mesh.verify(&forged(&mesh, web(), &["spiffe://loud-otter.mesh/ns/web/sa/web"], None), NOW);
    assert!(matches!(foreign, Err(Refusal::OtherDomain(_))), "{foreign:?}");
}

#[test]
fn another_meshs_certificates_prove_nothing_here() {
    let (ours, theirs) = (Mesh::founded_at(NOW), Mesh::founded_at(NOW));
    let admin = theirs.identity.root().unwrap().person("kubernetes-admin", "system:masters", NOW).unwrap();
    // Same trust domain by name, same subjects, other keys.
    assert!(matches!(ours.verify(&admin, NOW), Err(Refusal::Stranger(_))));
    assert!(matches!(ours.verify(&theirs.workload("web", NOW), NOW), Err(Refusal::Stranger(_))));

    let mut mixed = ours.workload("web", NOW);
    mixed.chain[1] = theirs.workload("web", NOW).chain[1].clone();
    assert!(matches!(ours.verify(&mixed, NOW), Err(Refusal::Stranger(_))));
}

#[test]
fn a_chain_of_another_shape_is_refused() {
    let mesh = Mesh::founded_at(NOW);
    let good = mesh.workload("web", NOW);
    let [leaf, issuer] = [good.chain[0].clone(), good.chain[1].clone()];
    let root = mesh.identity.root().unwrap().certificate_der().clone();
    let verifier = mesh.identity.verifier();
    assert!(verifier.client(&[leaf.clone(), issuer.clone(), root.clone()], NOW).is_ok(), "the root may come along");
    for (name, chain) in [
        ("nothing", vec![]),
        ("no issuer", vec![leaf.clone()]),
        ("only root", vec![root.clone()]),
        ("only the issuer", vec![issuer.clone()]),
        ("the wrong way round", vec![issuer.clone(), leaf.clone()]),
        ("twice", vec![leaf.clone(), issuer.clone(), issuer.clone()]),
        ("a leaf under a leaf", vec![leaf.clone(), leaf.clone()]),
        ("rubbish", vec![vec![0x30, 0x80].into()]),
    ] {
        assert!(verifier.client(&chain, NOW).is_err(), "{name}");
    }
    let mut longer = leaf.to_vec();
    longer.push(0);
    assert!(verifier.client(&[longer.into(), issuer], NOW).is_err(), "bytes behind the certificate");
}

#[test]
fn a_gateways_certificate_is_no_clients() {
    let mesh = Mesh::founded_at(NOW);
    let registry = mesh.identity.issuer(CellId(Uid(7)), &IssuerScope::Registry, NOW).unwrap();
    let gateway = registry.gateway(&GatewayNames::default(), NOW).unwrap();
    assert!(matches!(mesh.verify(&gateway, NOW), Err(Refusal::Purpose(_))));
}

/// The present: rustls checks chains against the system's clock.
fn present() -> Wall {
    Wall(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

/// Shakes hands in memory. The server's view of the client, or who broke off and why.
fn handshake(
    mesh: &Mesh,
    gateway: &Arc<GatewayCertificate>,
    credential: Option<&Credential>,
    name: &str,
) -> Result<Option<Peer>, String> {
    let verifier = mesh.identity.verifier();
    let server = identity::tls::server_config(gateway.clone(), verifier.clone()).unwrap();
    let client = identity::tls::client_config(verifier, credential).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    while server.is_handshaking() || client.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(|e| format!("server: {e}"))?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(|e| format!("client: {e}"))?;
        }
    }
    let chain = server.peer_certificates();
    Ok(chain.map(|c| verifier.client(c, present()).unwrap().peer))
}

fn gateway_of(mesh: &Mesh) -> Credential {
    let registry = mesh.identity.issuer(CellId(Uid(7)), &IssuerScope::Registry, present()).unwrap();
    let names = GatewayNames {
        hosts: vec!["node-1".into()],
        addresses: vec!["10.43.0.1".parse().unwrap()],
        ..GatewayNames::default()
    };
    registry.gateway(&names, present()).unwrap()
}

#[test]
fn a_client_reaches_the_api_under_every_name_with_or_without_a_certificate() {
    let mesh = Mesh::founded_at(present());
    let gateway = Arc::new(GatewayCertificate::new(&gateway_of(&mesh)).unwrap());
    let admin = mesh.identity.root().unwrap().person("kubernetes-admin", "system:masters", present()).unwrap();
    for name in ["kubernetes", "kubernetes.default.svc.cluster.local", "localhost", "node-1", "10.43.0.1", "::1"] {
        assert_eq!(handshake(&mesh, &gateway, None, name), Ok(None), "{name}");
    }
    let seen = handshake(&mesh, &gateway, Some(&admin), "127.0.0.1").unwrap().unwrap();
    assert!(matches!(seen, Peer::Person { name, .. } if name == "kubernetes-admin"));
    let seen = handshake(&mesh, &gateway, Some(&mesh.workload("web", present())), "127.0.0.1").unwrap().unwrap();
    assert!(matches!(seen, Peer::Workload { namespace, .. } if namespace == "web"));
    let wrong = handshake(&mesh, &gateway, None, "example.org").unwrap_err();
    assert!(wrong.starts_with("client:"), "{wrong}");
}

#[test]
fn a_bad_client_certificate_ends_the_handshake() {
    let mesh = Mesh::founded_at(present());
    let gateway = Arc::new(GatewayCertificate::new(&gateway_of(&mesh)).unwrap());
    let stranger = Mesh::founded_at(present());
    let admin = stranger.identity.root().unwrap().person("kubernetes-admin", "system:masters", present()).unwrap();
    let refused = handshake(&mesh, &gateway, Some(&admin), "127.0.0.1").unwrap_err();
    assert!(refused.starts_with("server:"), "{refused}");
    let expired = mesh.identity.root().unwrap().person("old", "x", present() - HOUR * 24 * 366).unwrap();
    assert!(handshake(&mesh, &gateway, Some(&expired), "127.0.0.1").is_err());
}

#[test]
fn the_gateways_certificate_is_replaced_between_connections() {
    let mesh = Mesh::founded_at(present());
    let old = mesh.identity.issuer(CellId(Uid(7)), &IssuerScope::Registry, present()).unwrap();
    let expired = old.gateway(&GatewayNames::default(), present() - HOUR * 30).unwrap();
    let gateway = Arc::new(GatewayCertificate::new(&expired).unwrap());
    assert!(handshake(&mesh, &gateway, None, "localhost").is_err());
    let next = gateway_of(&mesh);
    gateway.replace(&next).unwrap();
    assert_eq!(gateway.lifetime(), next.lifetime);
    assert_eq!(handshake(&mesh, &gateway, None, "localhost"), Ok(None));
}
