//! From a ticket to a node that is known: its files, a crash at any point, and renewal by asking.
#![allow(clippy::unwrap_used, missing_docs)]

mod scratch;

use base::{CellId, NodeId, Uid, Wall};
use identity::join::Mesh;
use identity::upkeep::{TRIES_AGAIN_AFTER, Want};
use identity::{
    Asked, AskedGateway, AskedIssuer, AskedPerson, Asking, Contact, GRACE, GatewayNames, Identity, IdentityError,
    Invitation, IssuerScope, JoinAnswer, JoinRequest, Known, Peer, Revocations, Roles, SpiffeId, Ticket, TokenRequest,
    Upkeep, verify_join,
};
use scratch::Scratch;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

const NOW: Wall = Wall(1_769_846_400_000);
const HOUR: Duration = Duration::from_secs(3600);
const ROOT: CellId = CellId(Uid(6));
const REGISTRY: CellId = CellId(Uid(7));

/// The founder, as the others see it: what it does, each node that keeps root and the registry does.
struct Founder {
    _data: Scratch,
    identity: Identity,
}

impl Founder {
    fn new() -> Founder {
        let data = Scratch::new();
        let identity = Identity::found(data.path(), Some("quiet-otter.mesh"), None, NOW).unwrap();
        Founder { _data: data, identity }
    }

    fn ticket(&self, roles: Roles) -> Ticket {
        let contact = Contact { node: self.identity.node_id(), addresses: vec!["192.0.2.7:7443".parse().unwrap()] };
        Ticket::make(Invitation {
            trust_domain: self.identity.trust_domain().clone(),
            roots: self.identity.root_hashes(),
            root: ROOT,
            root_epoch: 1,
            contacts: vec![contact],
            roles,
            expires: NOW + HOUR,
        })
        .unwrap()
    }

    /// Everything that happens between a request and its answer, over bytes.
    fn admit(&self, ticket: &Ticket, request: &JoinRequest, now: Wall) -> JoinAnswer {
        let request = JoinRequest::decode(&request.encode()).unwrap();
        let trust_domain = self.identity.trust_domain();
        let known = self.identity.known();
        let mesh = Mesh { trust_domain, root_epoch: 1, revocations: &known.revocations };
        let granted = verify_join(mesh, Some(&ticket.record(false).unwrap()), &request, request.node, now).unwrap();
        let registry = self.identity.issuer(REGISTRY, &IssuerScope::Registry, now).unwrap();
        let id = SpiffeId::Node { trust_domain: trust_domain.clone(), node: granted.node };
        let gateway = request.wanted.gateway.as_ref().map(|bytes| {
            let asked = AskedGateway::decode(bytes).unwrap();
            registry.certify_gateway(&asked, &asked.names, now).unwrap()
        });
        self.identity.remember(Known { token_keys: request.wanted.token_keys.clone(), ..Known::default() }).unwrap();
        let answer = JoinAnswer {
            at: now,
            trust_domain: trust_domain.clone(),
            bundle_pem: self.identity.bundle_pem().to_owned(),
            svid: registry.certify(&request.wanted.svid, &id, granted.roles, now).unwrap(),
            gateway,
            admin: request.wanted.admin.as_ref().map(|bytes| {
                let asked = AskedPerson::decode(bytes).unwrap();
                self.identity.root().unwrap().certify_person(&asked, now).unwrap()
            }),
            token_issuer: self.identity.tokens().issuer().to_owned(),
            token_keys: self.identity.tokens().own(),
            root: ROOT,
            registry: REGISTRY,
            contacts: ticket.invitation().contacts.clone(),
            revocations: Revocations::new(1, [(NodeId([0xee; 32]), now)]),
        };
        JoinAnswer::decode(&answer.encode()).unwrap()
    }

    fn joined(&self, data: &Scratch, roles: Roles) -> Identity {
        let ticket: Ticket = self.ticket(roles).to_string().parse().unwrap();
        let joining = Identity::begin_join(data.path(), NOW).unwrap();
        let asked: Asked = joining.ask(&ticket, asking(roles, Some(names())), NOW).unwrap();
        let answer = self.admit(&ticket, asked.request(), NOW);
        Identity::complete_join(&joining, &asked, &answer, NOW).unwrap()
    }
}

fn asking(roles: Roles, gateway: Option<GatewayNames>) -> Asking {
    let admin = roles.contains(Roles::AUTHORITY).then(|| ("admin".to_owned(), "system:masters".to_owned()));
    let addresses = vec!["192.0.2.2:7443".parse().unwrap(), "0.0.0.0:7443".parse().unwrap()];
    Asking { name: "node-2".into(), roles, gateway, addresses, admin }
}

fn names() -> GatewayNames {
    GatewayNames { hosts: vec!["node-2".into()], ..GatewayNames::default() }
}

fn token_request() -> TokenRequest {
    let object = |name: &str| identity::BoundObject { name: name.into(), uid: "1".into() };
    TokenRequest {
        audiences: vec![identity::DEFAULT_TOKEN_ISSUER.into()],
        life: HOUR,
        warn_after: None,
        namespace: "web".into(),
        service_account: object("default"),
        pod: None,
        secret: None,
        node: None,
    }
}

#[test]
fn a_joined_authority_has_an_administrator_of_its_own_and_others_none() {
    let founder = Founder::new();
    for (roles, has) in [(Roles::ALL, true), (Roles::KEEPER | Roles::GATEWAY, false)] {
        let data = Scratch::new();
        founder.joined(&data, roles);
        let admin = Identity::resume(data.path(), NOW).unwrap().admin();
        assert_eq!(admin.is_some(), has);
        if let Some(admin) = admin {
            let proven = founder.identity.verifier().client(&admin.chain, NOW).unwrap();
            let groups = vec!["system:masters".to_owned()];
            assert_eq!(proven.peer, Peer::Person { name: "admin".into(), groups });
        }
    }
}

#[test]
fn a_joined_node_is_known_and_knows_the_others_also_after_a_restart() {
    let (founder, data) = (Founder::new(), Scratch::new());
    let roles = Roles::KEEPER | Roles::GATEWAY;
    let joined = founder.joined(&data, roles);
    let resumed = Identity::resume(data.path(), NOW + HOUR * 3).unwrap();
    for node in [&joined, &resumed] {
        assert_eq!(node.node_id(), joined.node_id());
        assert_eq!(node.trust_domain(), founder.identity.trust_domain());
        assert_eq!(node.bundle_pem(), founder.identity.bundle_pem());
        assert_eq!(node.roles(), roles);
        assert!(node.root().is_err() && node.gateway().is_some());
        // What it shows, a node that has never heard of it believes.
        let svid = node.svid().unwrap();
        let seen = founder.identity.verifier().link(&svid.chain, node.node_id(), &Revocations::default(), NOW, GRACE);
        assert_eq!(seen.unwrap().node(), Some((node.node_id(), roles)));
        // Tokens of either are believed by the other.
        let (token, _) = founder.identity.tokens().issue(&token_request(), NOW).unwrap();
        assert!(node.tokens().verify(&token, &[], NOW).is_ok());
        let (token, _) = node.tokens().issue(&token_request(), NOW).unwrap();
        assert!(founder.identity.tokens().verify(&token, &[], NOW).is_ok());
        assert_eq!(node.known().contacts[0].node, founder.identity.node_id());
        assert!(node.known().revocations.is_expelled(NodeId([0xee; 32])));
    }
    let again = Identity::begin_join(data.path(), NOW).unwrap_err();
    assert!(again.to_string().contains("quiet-otter.mesh"), "{again}");
    for file in fs::read_dir(data.path().join("identity")).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        assert_ne!(file.file_name(), "joining.json");
    }
}

#[test]
fn a_join_that_was_interrupted_is_done_again_as_the_same_machine() {
    let (founder, data) = (Founder::new(), Scratch::new());
    // Somebody tried to found here first, and did not get far.
    Identity::found(data.path(), None, None, NOW).unwrap();
    fs::remove_file(data.path().join("identity/mesh.json")).unwrap();
    let ticket = founder.ticket(Roles::ALL);
    let first = Identity::begin_join(data.path(), NOW).unwrap();
    let asked = first.ask(&ticket, asking(Roles::WORKER, None), NOW).unwrap();
    let lost = founder.admit(&ticket, asked.request(), NOW);
    assert!(!Identity::is_founded(data.path()).unwrap());
    let refused = Identity::found(data.path(), None, None, NOW).unwrap_err();
    assert!(matches!(refused, IdentityError::Joining { .. }), "no second mesh by accident: {refused}");

    let second = Identity::begin_join(data.path(), NOW).unwrap();
    assert_eq!(second.node_id(), first.node_id());
    let asked = second.ask(&ticket, asking(Roles::WORKER, None), NOW).unwrap();
    let refused = Identity::complete_join(&second, &asked, &lost, NOW).unwrap_err();
    assert!(matches!(refused, IdentityError::NotAsAsked { .. }), "the first request's key is gone: {refused}");
    let answer = founder.admit(&ticket, asked.request(), NOW);
    let joined = Identity::complete_join(&second, &asked, &answer, NOW).unwrap();
    assert_eq!((joined.node_id(), joined.roles()), (first.node_id(), Roles::WORKER));
    assert!(joined.root().is_err() && joined.gateway().is_none());
}

#[test]
fn what_an_interrupted_join_left_is_no_part_of_a_mesh_founded_later() {
    let (founder, data) = (Founder::new(), Scratch::new());
    founder.joined(&data, Roles::ALL);
    // As if the power had gone just before the last file, and the operator had changed their mind.
    fs::remove_file(data.path().join("identity/mesh.json")).unwrap();
    let founded = Identity::found(data.path(), None, None, NOW).unwrap();
    assert!(founded.svid().is_none() && founded.gateway().is_none());
    assert_eq!(*founded.known(), Known::default());
}

#[test]
fn an_answer_that_is_not_believed_writes_nothing() {
    let (founder, stranger, data) = (Founder::new(), Founder::new(), Scratch::new());
    let ticket = founder.ticket(Roles::ALL);
    let joining = Identity::begin_join(data.path(), NOW).unwrap();
    let asked = joining.ask(&ticket, asking(Roles::WORKER, None), NOW).unwrap();
    let good = founder.admit(&ticket, asked.request(), NOW);
    let foreign = stranger.admit(&ticket, asked.request(), NOW);
    let mixed = JoinAnswer { svid: foreign.svid.clone(), ..good.clone() };
    for (what, answer, now) in
        [("another mesh", &foreign, NOW), ("its SVID", &mixed, NOW), ("a clock", &good, NOW + Duration::from_secs(400))]
    {
        assert!(Identity::complete_join(&joining, &asked, answer, now).is_err(), "{what}");
        assert!(!Identity::is_founded(data.path()).unwrap(), "{what}");
        assert!(!data.path().join("identity/svid.json").exists(), "{what}");
    }
    assert!(Identity::complete_join(&joining, &asked, &good, NOW).is_ok());
}

#[test]
fn a_joined_node_renews_by_asking() {
    let (founder, data) = (Founder::new(), Scratch::new());
    let node = Arc::new(founder.joined(&data, Roles::ALL));
    let upkeep = Upkeep::joined(node.clone(), REGISTRY, Some(names())).unwrap();
    assert_eq!(upkeep.wants(NOW), []);
    let (next, failures) = upkeep.renew(NOW);
    assert!(failures.is_empty() && !node.svid_is_due(NOW) && next < NOW + HOUR / 2, "{next:?} {failures:?}");
    assert!(node.svid_is_due(next));
    assert_eq!(upkeep.wants(next), [Want::Svid]);
    assert!(upkeep.renew(next).0 <= next + TRIES_AGAIN_AFTER, "asked again soon if nobody answers");

    let registry = founder.identity.issuer(REGISTRY, &IssuerScope::Registry, next).unwrap();
    let request = node.svid_request().unwrap();
    let chain = registry.certify(&request.encode().unwrap(), &node.spiffe_id(), Roles::WORKER, next).unwrap();
    node.take_svid(&request, chain.clone(), next).unwrap();
    assert_eq!((upkeep.wants(next), node.roles()), (vec![], Roles::WORKER));
    let refused = node.take_svid(&node.svid_request().unwrap(), chain, next).unwrap_err();
    assert!(refused.to_string().contains("stays in use"), "{refused}");

    let half = upkeep.gateway().lifetime().half();
    assert_eq!(upkeep.wants(half), [Want::Svid, Want::Gateway]);
    let request = upkeep.gateway_request().unwrap().unwrap();
    let asked = AskedGateway::decode(&request.encode().unwrap()).unwrap();
    let chain = registry.certify_gateway(&asked, &names(), half).unwrap();
    upkeep.take_gateway(&request, chain, half).unwrap();
    assert_eq!(upkeep.wants(half), [Want::Svid]);
    assert!(upkeep.gateway().lifetime().covers(half + HOUR * 23));
    let resumed = Identity::resume(data.path(), half).unwrap();
    assert_eq!(resumed.gateway().unwrap().lifetime, upkeep.gateway().lifetime());
    assert_eq!(resumed.roles(), Roles::WORKER);
}

#[test]
fn a_joined_keeper_asks_for_its_issuing_key_and_uses_it_to_its_end() {
    let (founder, data) = (Founder::new(), Scratch::new());
    let node = Arc::new(founder.joined(&data, Roles::ALL));
    let upkeep = Upkeep::joined(node.clone(), REGISTRY, None).unwrap();
    let (cell, web) = (CellId(Uid(9)), IssuerScope::Namespace("web".into()));
    let refused = upkeep.issuer(cell, &web, NOW).unwrap_err();
    assert!(refused.to_string().contains("role authority"), "{refused}");
    assert_eq!(upkeep.wants(NOW), [Want::Issuer(cell, web.clone())]);

    let ask = |now: Wall| {
        let request = node.issuer_request(cell, &web).unwrap();
        let asked = AskedIssuer::decode(&request.encode().unwrap()).unwrap();
        let certificate = founder.identity.root().unwrap().certify_issuer(&asked, now).unwrap();
        upkeep.take_issuer(request, certificate, now).unwrap().number()
    };
    assert_eq!(ask(NOW), 0);
    assert_eq!(upkeep.wants(NOW), []);
    let id = SpiffeId::parse("spiffe://quiet-otter.mesh/ns/web/sa/web").unwrap();
    let svid = upkeep.issuer(cell, &web, NOW).unwrap().svid(&id, Roles::NONE, NOW).unwrap();
    let proven = founder.identity.verifier().client(&svid.chain, NOW).unwrap();
    assert_eq!(proven.issued_by, Some(node.node_id()));

    let late = NOW + HOUR * 24 * 61;
    assert_eq!(upkeep.issuer(cell, &web, late).unwrap().number(), 0, "due, and good");
    assert!(upkeep.wants(late).contains(&Want::Issuer(cell, web.clone())));
    assert_eq!(ask(late), 1);
    assert_eq!(node.issuer(cell, &web, late).unwrap().number(), 1, "on disk");
    assert!(upkeep.issuer(cell, &web, late + HOUR * 24 * 91).is_err(), "over");
    upkeep.forget(cell).unwrap();
    assert_eq!(upkeep.wants(late), [Want::Svid]);

    // A keeper of the registry needs nobody for its SVID from then on, and stays what it was.
    let request = node.issuer_request(REGISTRY, &IssuerScope::Registry).unwrap();
    let asked = AskedIssuer::decode(&request.encode().unwrap()).unwrap();
    let certificate = founder.identity.root().unwrap().certify_issuer(&asked, late).unwrap();
    upkeep.take_issuer(request, certificate, late).unwrap();
    assert_eq!(upkeep.wants(late), []);
    assert!(upkeep.renew(late).1.is_empty() && !node.svid_is_due(late));
    assert_eq!(node.roles(), Roles::ALL);
}

#[test]
fn a_founder_issues_its_own_svid() {
    let data = Scratch::new();
    let node = Arc::new(Identity::found(data.path(), Some("quiet-otter.mesh"), None, NOW).unwrap());
    assert!(node.svid().is_none() && node.svid_is_due(NOW) && node.roles().is_empty());
    Upkeep::start(node.clone(), REGISTRY, names(), NOW).unwrap();
    assert_eq!(node.roles(), Roles::ALL);
    let proven = node.verifier().node(&node.svid().unwrap().chain, NOW, GRACE).unwrap();
    assert_eq!(proven.node(), Some((node.node_id(), Roles::ALL)));
}

#[test]
fn what_is_known_of_the_others_only_moves_forward() {
    let (founder, data) = (Founder::new(), Scratch::new());
    let node = founder.joined(&data, Roles::ALL);
    let newer = Revocations::new(5, [(NodeId([1; 32]), NOW)]);
    node.remember(Known { revocations: newer.clone(), ..Known::default() }).unwrap();
    node.remember(Known { revocations: Revocations::new(4, []), ..Known::default() }).unwrap();
    assert_eq!(node.known().revocations, newer);
    let (token, _) = founder.identity.tokens().issue(&token_request(), NOW).unwrap();
    assert!(node.tokens().verify(&token, &[], NOW).is_err(), "its key is known no more");
    assert_eq!(Identity::resume(data.path(), NOW).unwrap().known(), node.known());
}

#[test]
fn a_damaged_file_of_a_joined_node_is_named() {
    let (founder, data, other) = (Founder::new(), Scratch::new(), Scratch::new());
    founder.joined(&data, Roles::ALL);
    founder.joined(&other, Roles::ALL);
    for name in ["svid.json", "gateway.json", "known.json"] {
        let file = data.path().join("identity").join(name);
        let whole = fs::read(&file).unwrap();
        for damaged in [&whole[..whole.len() / 2], b"{}"] {
            fs::write(&file, damaged).unwrap();
            let refused = Identity::resume(data.path(), NOW).unwrap_err();
            assert!(
                matches!(refused, IdentityError::Corrupt { .. }) && refused.to_string().contains(name),
                "{refused}"
            );
        }
        fs::write(&file, &whole).unwrap();
    }
    let theirs: serde_json::Value =
        serde_json::from_slice(&fs::read(other.path().join("identity/svid.json")).unwrap()).unwrap();
    let file = data.path().join("identity/svid.json");
    let mut ours: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    ours["chain"] = theirs["chain"].clone();
    fs::write(&file, ours.to_string()).unwrap();
    let refused = Identity::resume(data.path(), NOW).unwrap_err();
    assert!(refused.to_string().contains("do not belong together"), "{refused}");
}
