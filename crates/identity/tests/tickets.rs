//! A ticket survives being copied by people, says when it did not, and keeps its secret to itself.
#![allow(clippy::unwrap_used, missing_docs)]

use base::{CellId, NodeId, Uid, Wall};
use identity::ticket::{MAX_ADDRESSES, MAX_CONTACTS};
use identity::{Contact, Invitation, Roles, Ticket, TicketError, TicketRecord};

const NOW: Wall = Wall(1_769_846_400_000);

fn invitation() -> Invitation {
    Invitation {
        trust_domain: "quiet-otter-3fa9.mesh".parse().unwrap(),
        roots: vec![[0xab; 32]],
        root: CellId(Uid(0x0123_4567_89ab_4def_8123_4567_89ab_cdef)),
        root_epoch: 1,
        contacts: vec![Contact { node: NodeId([0xcd; 32]), addresses: vec!["192.0.2.7:7443".parse().unwrap()] }],
        roles: Roles::ALL,
        expires: NOW,
    }
}

fn ticket() -> Ticket {
    Ticket::of(invitation(), [0x5e; 32])
}

#[test]
fn a_ticket_is_one_line_that_reads_back() {
    let ticket = ticket();
    let text = ticket.to_string();
    // Kept for ever: a ticket may be older than the release that reads it.
    assert_eq!(text, include_str!("golden/ticket.1").trim());
    assert_eq!(text.parse(), Ok(ticket.clone()));
    assert!(text.len() < 270 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{text}");
    assert!(!text["beemesh1".len()..].contains(['i', 'l', 'o', 'u']));

    let wrapped = format!("  {}\n {}\r\n", &text[..80], &text[80..]).to_uppercase();
    assert_eq!(wrapped.parse(), Ok(ticket.clone()));
    let dictated = text.replace('0', "O").replacen('1', "l", 9);
    assert_eq!(dictated.parse(), Ok(ticket));
}

#[test]
fn every_cut_and_every_slip_is_named_as_such() {
    let text = ticket().to_string();
    for end in "beemesh1".len()..text.len() {
        let said = text[..end].parse::<Ticket>().unwrap_err();
        assert!(matches!(said, TicketError::CutOff { have, .. } if have == end), "{end}: {said:?}");
    }
    for at in 0..text.len() {
        let other = if &text[at..=at] == "7" { "9" } else { "7" };
        let slip = format!("{}{other}{}", &text[..at], &text[at + 1..]);
        let said = slip.parse::<Ticket>().unwrap_err();
        match (at, &said) {
            (0..7, TicketError::NotATicket) | (7, TicketError::Newer) => {}
            // The length itself mistyped: it is told as what it looks like.
            (8..13, TicketError::CutOff { .. } | TicketError::Mistyped(None)) => {}
            (13.., TicketError::Mistyped(None)) => {}
            _ => panic!("{at}: {said:?}"),
        }
        let swapped =
            [&text[..at], text.get(at + 1..at + 2).unwrap_or(""), &text[at..=at], text.get(at + 2..).unwrap_or("")]
                .concat();
        if swapped != text {
            assert!(swapped.parse::<Ticket>().is_err(), "{at} swapped");
        }
    }
    assert_eq!(format!("{text}0").parse::<Ticket>(), Err(TicketError::Mistyped(None)));
    assert_eq!(text.replacen('5', "u", 1).parse::<Ticket>(), Err(TicketError::Mistyped(Some('u'))));
    for other in ["", "beemesh", "hello", "bee", &"x".repeat(1 << 20)] {
        assert_eq!(other.parse::<Ticket>(), Err(TicketError::NotATicket), "{}", other.len());
    }
}

#[test]
fn a_newer_releases_ticket_is_told_from_a_slip() {
    // As this release writes them, checksum included, but of version 2.
    let newer = include_str!("golden/ticket.newer").trim();
    let said = newer.parse::<Ticket>().unwrap_err();
    assert_eq!(said, TicketError::Newer);
    assert!(said.to_string().contains("newer release"));
    assert!(matches!(newer[..newer.len() - 1].parse::<Ticket>(), Err(TicketError::CutOff { .. })));
}

#[test]
fn contacts_are_hints_and_bounded() {
    let node = NodeId([1; 32]);
    let addresses: Vec<_> = (0..20).map(|i| format!("[2001:db8::{i}]:7443").parse().unwrap()).collect();
    let contact = Contact { node, addresses: [vec!["0.0.0.0:7443".parse().unwrap()], addresses].concat() };
    let ticket = Ticket::of(Invitation { contacts: vec![contact; 20], ..invitation() }, [1; 32]);
    assert_eq!(ticket.invitation().contacts.len(), MAX_CONTACTS);
    assert!(ticket.invitation().contacts.iter().all(|c| c.addresses.len() == MAX_ADDRESSES));
    assert_eq!(ticket.invitation().contacts[0].addresses[0], "[2001:db8::]:7443".parse().unwrap());
    assert_eq!(ticket.to_string().parse(), Ok(ticket));
}

#[test]
fn two_tickets_are_never_the_same_and_none_prints_its_secret() {
    let (a, b) = (Ticket::make(invitation()).unwrap(), Ticket::make(invitation()).unwrap());
    assert_ne!(a.id().unwrap(), b.id().unwrap());
    assert!(!format!("{:?}", ticket()).contains("94, 94"), "0x5e is 94");
    let record = ticket().record(false).unwrap();
    assert!(!record.encode().windows(32).any(|w| w == [0x5e; 32]), "root does not hold it");
    assert_eq!(record.id(), ticket().id().unwrap());
}

#[test]
fn a_record_reads_back_what_it_wrote_and_nothing_else() {
    let mut record = ticket().record(true).unwrap();
    record.used_by = vec![NodeId([1; 32]), NodeId([2; 32])];
    let bytes = record.encode();
    assert_eq!(TicketRecord::decode(&bytes), Ok(record));
    // Kept for ever: root holds these.
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, include_str!("golden/ticket-record.1").trim());
    for cut in 0..bytes.len() {
        assert!(TicketRecord::decode(&bytes[..cut]).is_err(), "{cut}");
    }
    assert!(TicketRecord::decode(&[&bytes[..], &[0]].concat()).is_err());
}
