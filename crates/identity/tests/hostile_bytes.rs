//! Whatever a peer sends, or a person types, is read or refused: no panic, no memory for lengths that lie.
#![allow(clippy::unwrap_used, missing_docs)]

mod scratch;

use base::{CellId, Chance, NodeId, Uid, Wall};
use identity::{
    AskedGateway, AskedIssuer, AskedPerson, GRACE, GatewayNames, GatewayRequest, Identity, IssuerRequest, IssuerScope,
    JoinAnswer, JoinRequest, PersonRequest, Revocations, Roles, SpiffeId, Ticket, TicketRecord, TrustedTokenKey,
    request,
};
use scratch::Scratch;

const NOW: Wall = Wall(1_769_846_400_000);

/// Everything that reads bytes from elsewhere.
fn read_by_all(identity: &Identity, bytes: &[u8]) {
    let _ = JoinRequest::decode(bytes);
    let _ = JoinAnswer::decode(bytes);
    let _ = TicketRecord::decode(bytes);
    let _ = TrustedTokenKey::decode(bytes);
    let _ = Revocations::decode(bytes);
    let _ = AskedIssuer::decode(bytes);
    let _ = AskedGateway::decode(bytes);
    let _ = AskedPerson::decode(bytes);
    if let Ok(chain) = request::decode_chain(bytes) {
        let _ = identity.verifier().link(&chain, identity.node_id(), &Revocations::default(), NOW, GRACE);
        let _ = identity.verifier().client(&chain, NOW);
        let _ = identity.verifier().server(&chain, NOW);
    }
    let _ = String::from_utf8_lossy(bytes).parse::<Ticket>();
}

fn hex(text: &str) -> Vec<u8> {
    let text = text.trim().as_bytes();
    text.chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
}

#[test]
fn rubbish_is_refused() {
    let data = Scratch::new();
    let identity = Identity::found(data.path(), Some("quiet-otter.mesh"), None, NOW).unwrap();
    let registry = identity.issuer(CellId(Uid(7)), &IssuerScope::Registry, NOW).unwrap();
    let id = SpiffeId::Node { trust_domain: identity.trust_domain().clone(), node: identity.node_id() };
    let chain = request::encode_chain(&registry.svid(&id, Roles::ALL, NOW).unwrap().chain);
    let issuer = IssuerRequest::make(NodeId([1; 32]), CellId(Uid(9)), IssuerScope::Registry, 1).unwrap();
    let good = [
        hex(include_str!("golden/join-request.1")),
        hex(include_str!("golden/join-answer.1")),
        hex(include_str!("golden/ticket-record.1")),
        include_bytes!("golden/ticket.1").to_vec(),
        Revocations::new(1, [(NodeId([1; 32]), NOW)]).encode(),
        identity.tokens().own()[0].encode(),
        issuer.encode().unwrap(),
        GatewayRequest::make(GatewayNames::default()).unwrap().encode().unwrap(),
        PersonRequest::make("admin", "system:masters").unwrap().encode().unwrap(),
        chain,
    ];
    let mut chance = Chance::from_u64(4);
    for _ in 0..4000 {
        let mut bytes = good[chance.below(good.len() as u64) as usize].clone();
        for _ in 0..=chance.below(4) {
            let at = chance.below(bytes.len() as u64) as usize;
            match chance.below(4) {
                0 => bytes[at] = chance.u64() as u8,
                1 => bytes[at] = 0xff,
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, chance.u64() as u8),
            }
        }
        read_by_all(&identity, &bytes);
    }
    for tag in 0..=u8::MAX {
        read_by_all(&identity, &[&[tag, 1][..], &[0xff; 64]].concat());
        read_by_all(&identity, &[tag]);
    }
    read_by_all(&identity, &[]);
    read_by_all(&identity, &vec![1; 8 << 20]);
}
