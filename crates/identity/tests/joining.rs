//! A machine joins with a ticket: what it must show, what it must be shown, and every way to be refused.
#![allow(clippy::unwrap_used, missing_docs)]

mod scratch;

use base::{CellId, NodeId, Uid, Wall};
use identity::join::Mesh;
use identity::ticket::{MAX_USES, root_hash};
use identity::{
    AnswerRefusal, Contact, Granted, Identity, Invitation, IssuerScope, JoinAnswer, JoinRequest, NodeKey, Revocations,
    Roles, SpiffeId, SvidRequest, Ticket, TicketRecord, TicketRefusal, TrustDomain, TrustedTokenKey, Wanted,
    verify_join,
};
use scratch::Scratch;
use std::time::Duration;

const NOW: Wall = Wall(1_769_846_400_000);
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const ROOT: CellId = CellId(Uid(6));

const NOBODY: &Revocations = &Revocations::none();

fn domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

fn ours() -> TrustDomain {
    domain("quiet-otter.mesh")
}

fn mesh(trust_domain: &TrustDomain) -> Mesh<'_> {
    Mesh { trust_domain, root_epoch: 1, revocations: NOBODY }
}

fn invitation(roles: Roles) -> Invitation {
    Invitation {
        trust_domain: ours(),
        roots: vec![],
        root: ROOT,
        root_epoch: 1,
        contacts: vec![],
        roles,
        expires: NOW + HOUR,
    }
}

struct Joiner {
    key: NodeKey,
    ticket: Ticket,
    record: TicketRecord,
    svid: Vec<u8>,
}

impl Joiner {
    fn with(roles: Roles, reusable: bool) -> Joiner {
        let key = NodeKey::make().unwrap();
        let ticket = Ticket::make(invitation(roles)).unwrap();
        let record = ticket.record(reusable).unwrap();
        let id = SpiffeId::Node { trust_domain: ours(), node: key.id() };
        let svid = SvidRequest::make(&id).unwrap().encode().unwrap();
        Joiner { key, ticket, record, svid }
    }

    fn wanted(&self, roles: Roles, at: Wall) -> Wanted {
        Wanted {
            name: "node-2".into(),
            roles,
            at,
            svid: self.svid.clone(),
            gateway: None,
            token_keys: vec![],
            addresses: vec![],
            admin: None,
        }
    }

    fn request(&self, roles: Roles, at: Wall) -> JoinRequest {
        JoinRequest::make(&self.ticket, &self.key, self.wanted(roles, at)).unwrap()
    }

    fn joins(&self, now: Wall) -> Result<Granted, TicketRefusal> {
        verify_join(mesh(&ours()), Some(&self.record), &self.request(Roles::WORKER, now), self.key.id(), now)
    }
}

#[test]
fn a_ticket_admits_one_machine_as_often_as_it_asks_until_it_expires() {
    let mut joiner = Joiner::with(Roles::ALL, false);
    let granted = joiner.joins(NOW).unwrap();
    assert_eq!((granted.node, granted.name.as_str(), granted.roles), (joiner.key.id(), "node-2", Roles::WORKER));
    joiner.record = granted.consumed.unwrap();
    assert_eq!(joiner.record.used_by, [joiner.key.id()]);

    let again = joiner.joins(NOW + HOUR).unwrap();
    assert_eq!(again.consumed, None, "nothing to commit");
    assert!(matches!(joiner.joins(NOW + HOUR + MINUTE), Err(TicketRefusal::Expired { .. })));

    let first = joiner.key.id();
    joiner.key = NodeKey::make().unwrap();
    let id = SpiffeId::Node { trust_domain: ours(), node: joiner.key.id() };
    joiner.svid = SvidRequest::make(&id).unwrap().encode().unwrap();
    let refused = joiner.joins(NOW).unwrap_err();
    assert_eq!(refused, TicketRefusal::Used(first));
    assert!(refused.to_string().contains("--reusable"), "{refused}");
}

#[test]
fn a_reusable_ticket_counts_its_machines() {
    let mut joiner = Joiner::with(Roles::ALL, true);
    let others = |n: usize| {
        (0..n).map(|i| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&i.to_be_bytes());
            NodeId(id)
        })
    };
    joiner.record.used_by = others(MAX_USES - 1).collect();
    let last = joiner.joins(NOW).unwrap().consumed.unwrap();
    assert_eq!(last.used_by.len(), MAX_USES);
    assert_eq!(TicketRecord::decode(&last.encode()), Ok(last.clone()), "root can hold it");
    joiner.record.used_by = others(MAX_USES).collect();
    assert_eq!(joiner.joins(NOW), Err(TicketRefusal::UsedUp));
    joiner.record = last;
    assert!(joiner.joins(NOW).is_ok(), "one of them again");
}

#[test]
fn each_refusal_names_its_remedy() {
    let joiner = Joiner::with(Roles::KEEPER | Roles::WORKER, false);
    let node = joiner.key.id();
    let request = joiner.request(Roles::WORKER, NOW);
    let record = Some(&joiner.record);
    let stranger = Joiner::with(Roles::ALL, false);
    let (ours, loud) = (ours(), domain("loud-otter.mesh"));
    let recovered = Mesh { root_epoch: 2, ..mesh(&ours) };
    let expelled = Revocations::none().with(node, NOW, 1);
    let expelling = Mesh { revocations: &expelled, ..mesh(&ours) };
    let everything = joiner.request(Roles::ALL, NOW);
    let slow = joiner.request(Roles::WORKER, NOW - MINUTE * 7);
    let fast = joiner.request(Roles::WORKER, NOW + MINUTE * 7);
    for (what, said, words) in [
        (
            "of another mesh",
            verify_join(mesh(&loud), record, &request, node, NOW),
            ["loud-otter.mesh", "quiet-otter.mesh"],
        ),
        ("unknown", verify_join(mesh(&ours), None, &request, node, NOW), ["knows no ticket", "beemesh invite"]),
        (
            "another's record",
            verify_join(mesh(&ours), Some(&stranger.record), &request, node, NOW),
            ["knows no", "invite"],
        ),
        (
            "by another peer",
            verify_join(mesh(&ours), record, &request, stranger.key.id(), NOW),
            ["presented by", "own key"],
        ),
        ("expelled", verify_join(expelling, record, &request, node, NOW), ["was expelled", "empty its data directory"]),
        ("of an earlier epoch", verify_join(recovered, record, &request, node, NOW), ["recovered", "beemesh invite"]),
        (
            "late",
            verify_join(mesh(&ours), record, &joiner.request(Roles::WORKER, NOW + HOUR * 2), node, NOW + HOUR * 2),
            ["expired at 2026-01-31T09:00:00Z", "--ttl"],
        ),
        (
            "late by this clock alone",
            verify_join(mesh(&ours), record, &request, node, NOW + HOUR * 2),
            ["it is 2026-01-31T10:00:00Z here and 2026-01-31T08:00:00Z on", "clocks differ"],
        ),
        ("a slow clock", verify_join(mesh(&ours), record, &slow, node, NOW), ["differ by 420 s", "the same ticket"]),
        ("a fast clock", verify_join(mesh(&ours), record, &fast, node, NOW), ["differ by 420 s", "NTP"]),
        (
            "more roles",
            verify_join(mesh(&ours), record, &everything, node, NOW),
            ["--roles keeper,worker", "--roles authority,keeper,gateway,worker"],
        ),
    ] {
        let said = said.unwrap_err().to_string();
        assert!(words.iter().all(|w| said.contains(w)), "{what}: {said}");
    }
    let minutes = joiner.request(Roles::WORKER, NOW - MINUTE * 5);
    assert!(verify_join(mesh(&ours), record, &minutes, node, NOW).is_ok(), "as far apart as certificates allow");
}

#[test]
fn no_bit_of_a_request_can_be_changed() {
    let joiner = Joiner::with(Roles::ALL, false);
    let node = joiner.key.id();
    let bytes = joiner.request(Roles::ALL, NOW).encode();
    let judge = |bytes: &[u8]| -> Result<Granted, String> {
        let request = JoinRequest::decode(bytes).map_err(|e| e.to_string())?;
        verify_join(mesh(&ours()), Some(&joiner.record), &request, node, NOW).map_err(|e| e.to_string())
    };
    assert!(judge(&bytes).is_ok());
    for at in 0..bytes.len() {
        assert!(JoinRequest::decode(&bytes[..at]).is_err(), "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(judge(&flipped).is_err(), "flipped at {at}");
    }
    assert!(judge(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn nobody_joins_with_what_another_signed() {
    let (joiner, thief) = (Joiner::with(Roles::ALL, false), NodeKey::make().unwrap());
    let bytes = joiner.request(Roles::ALL, NOW).encode();
    // The thief relays the request under its own key: the ticket's signature does not follow.
    let mut stolen = bytes.clone();
    let at = bytes.windows(32).position(|w| w == joiner.key.id().0).unwrap();
    stolen[at..at + 32].copy_from_slice(&thief.id().0);
    let request = JoinRequest::decode(&stolen).unwrap();
    let refused = verify_join(mesh(&ours()), Some(&joiner.record), &request, thief.id(), NOW).unwrap_err();
    assert_eq!(refused, TicketRefusal::Tampered(thief.id()));
    // The holder of a ticket does not join as a node whose key it does not have.
    let victim = NodeKey::make().unwrap();
    let honest = JoinRequest::make(&joiner.ticket, &victim, joiner.wanted(Roles::ALL, NOW)).unwrap().encode();
    let forged = JoinRequest::make(&joiner.ticket, &joiner.key, joiner.wanted(Roles::ALL, NOW)).unwrap().encode();
    let mixed = [&honest[..honest.len() - 64], &forged[forged.len() - 64..]].concat();
    let request = JoinRequest::decode(&mixed).unwrap();
    let refused = verify_join(mesh(&ours()), Some(&joiner.record), &request, victim.id(), NOW).unwrap_err();
    assert_eq!(refused, TicketRefusal::Tampered(victim.id()));
    // A request for a key that somebody else has does not use the ticket up.
    let mut other = Joiner::with(Roles::ALL, false);
    other.svid = joiner.svid;
    assert!(matches!(other.joins(NOW), Err(TicketRefusal::Part(_))));
}

#[test]
fn what_cannot_be_a_name_or_a_role_is_refused_when_read() {
    let joiner = Joiner::with(Roles::ALL, false);
    for (name, roles) in [("Node_2", Roles::ALL), ("", Roles::ALL), ("node-2", Roles::NONE)] {
        let wanted = Wanted { name: name.into(), ..joiner.wanted(roles, NOW) };
        let bytes = JoinRequest::make(&joiner.ticket, &joiner.key, wanted).unwrap().encode();
        assert!(JoinRequest::decode(&bytes).is_err(), "{name:?} {roles}");
    }
}

/// Kept for ever: nodes of this release ask like this. Ed25519 signs alike each time.
#[test]
fn requests_of_this_release_are_read_by_every_later_one() {
    let key = NodeKey::from_pem(include_str!("golden/joiner.pem")).unwrap();
    let ticket = Ticket::of(invitation(Roles::ALL), [0x5e; 32]);
    let point = [&[4][..], &[0xab; 64]].concat();
    let token_key = TrustedTokenKey::decode(&[&[8, 1][..], &point, &[0, 0]].concat()).unwrap();
    let wanted = Wanted {
        name: "node-2".into(),
        roles: Roles::ALL,
        at: NOW,
        svid: vec![1, 2, 3],
        gateway: Some(vec![4, 5]),
        token_keys: vec![token_key],
        addresses: vec!["192.0.2.8:7443".parse().unwrap()],
        admin: Some(vec![6]),
    };
    let request = JoinRequest::make(&ticket, &key, wanted).unwrap();
    let hex: String = request.encode().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, include_str!("golden/join-request.1").trim());
    assert_eq!(JoinRequest::decode(&request.encode()), Ok(request));
}

fn answer() -> JoinAnswer {
    let point = [&[4][..], &[0xab; 64]].concat();
    JoinAnswer {
        at: NOW,
        trust_domain: ours(),
        bundle_pem: "pem".into(),
        svid: vec![vec![1, 2].into(), vec![3].into()],
        gateway: Some(vec![vec![4].into()]),
        admin: Some(vec![vec![5].into()]),
        token_issuer: "https://issuer".into(),
        token_keys: vec![TrustedTokenKey::decode(&[&[8, 1][..], &point, &[0, 0]].concat()).unwrap()],
        root: ROOT,
        registry: CellId(Uid(7)),
        contacts: vec![Contact { node: NodeId([0xcd; 32]), addresses: vec!["192.0.2.7:7443".parse().unwrap()] }],
        revocations: Revocations::new(3, [(NodeId([0xee; 32]), NOW)]),
    }
}

#[test]
fn an_answer_reads_back_what_it_said_and_nothing_else() {
    let bytes = answer().encode();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    // Kept for ever: nodes of this release answer like this.
    assert_eq!(hex, include_str!("golden/join-answer.1").trim());
    assert_eq!(JoinAnswer::decode(&bytes), Ok(answer()));
    for cut in 0..bytes.len() {
        assert!(JoinAnswer::decode(&bytes[..cut]).is_err(), "{cut}");
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x80;
        let _ = JoinAnswer::decode(&flipped); // Nothing but no panic: the connection it comes over is sealed.
    }
}

#[test]
fn an_answer_leaves_out_what_would_make_it_unreadable() {
    let many = JoinAnswer {
        token_keys: vec![answer().token_keys[0].clone(); 5000],
        contacts: vec![answer().contacts[0].clone(); 5000],
        ..answer()
    };
    let read = JoinAnswer::decode(&many.encode()).unwrap();
    assert_eq!((read.token_keys.len(), read.contacts.len()), (4096, 4096));
    let names: Vec<String> = (0..8192).map(|i| format!("{}-{i:04}", "n".repeat(58))).collect();
    let mut large = answer().token_keys[0].clone();
    large.namespaces = Some(names.into_iter().collect());
    let read = JoinAnswer::decode(&JoinAnswer { token_keys: vec![large; 100], ..answer() }.encode()).unwrap();
    assert_eq!(read.token_keys.len(), 3, "as many as fit; the bundle brings the others");
}

#[test]
fn a_machine_believes_only_the_mesh_its_ticket_names() {
    let (this, theirs) = (Scratch::new(), Scratch::new());
    let here = Identity::found(this.path(), Some("quiet-otter.mesh"), None, NOW).unwrap();
    let there = Identity::found(theirs.path(), Some("quiet-otter.mesh"), None, NOW).unwrap();
    let root = root_hash(here.root().unwrap().certificate_der());
    let ticket = Ticket::make(Invitation { roots: vec![root, [9; 32]], ..invitation(Roles::ALL) }).unwrap();
    let good = JoinAnswer { bundle_pem: here.bundle_pem().to_owned(), ..answer() };
    let verifier = good.verifier(&ticket, NOW).unwrap();
    let registry = here.issuer(CellId(Uid(7)), &IssuerScope::Registry, NOW).unwrap();
    let id = SpiffeId::Node { trust_domain: ours(), node: here.node_id() };
    assert!(verifier.client(&registry.svid(&id, Roles::ALL, NOW).unwrap().chain, NOW).is_ok());

    let both = format!("{}{}", here.bundle_pem(), there.bundle_pem());
    for (what, answer, words) in [
        (
            "another founder under the same name",
            JoinAnswer { bundle_pem: there.bundle_pem().to_owned(), ..answer() },
            "does not name",
        ),
        ("one smuggled in", JoinAnswer { bundle_pem: both, ..answer() }, "does not name"),
        ("none", JoinAnswer { bundle_pem: String::new(), ..answer() }, "does not name"),
        ("rubbish", JoinAnswer { bundle_pem: "-----BEGIN CERTIFICATE-----\n?".into(), ..answer() }, "cannot be used"),
        ("another name", JoinAnswer { trust_domain: "a.mesh".parse().unwrap(), ..good.clone() }, "a.mesh answered"),
        ("another root", JoinAnswer { root: CellId(Uid(8)), ..good.clone() }, "answered"),
        ("a clock", JoinAnswer { at: NOW + MINUTE * 6, ..good }, "differ by 360 s"),
    ] {
        let refused = answer.verifier(&ticket, NOW).unwrap_err();
        assert!(refused.to_string().contains(words), "{what}: {refused}");
        let _: AnswerRefusal = refused;
    }
}
