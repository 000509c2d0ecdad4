//! What a node does about what it is told of who keeps a cell ([`crate::wire::keep`]).
//!
//! It does what a leader asks for, if it fits to what is there: nobody's records are taken over by another life, and a
//! life ends only when it is named. A leader that is one no more may ask late; what such an order begins holds nothing,
//! votes for nobody, and is ended by whoever leads in truth, once it says that it is there.

use super::Input;
use crate::cell::{Cell, Purpose};
use crate::wire::keep::Message;
use base::{CellId, NodeId, ReplicaId};

/// What is on this node of a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Here {
    /// Nothing.
    Nothing,
    /// Records that cannot be gone on from, or not yet: they are left as they are.
    Closed,
    /// A life of it.
    Life {
        /// Which.
        replica: ReplicaId,
        /// It leads.
        leads: bool,
        /// The epoch of the members in force, if these are what it would begin with again, and no others vote as well.
        confirms: Option<u64>,
    },
}

impl Here {
    /// What a replica is like.
    pub fn of(cell: &Cell) -> Here {
        let (replica, keepers) = (cell.member().replica(), cell.member().cell().keepers());
        let confirms = replica.members_are_durable() && keepers.before.is_none();
        Here::Life { replica: replica.id(), leads: cell.is_leading(), confirms: confirms.then_some(keepers.now.epoch) }
    }
}

/// What to do about a message.
#[derive(Clone, Debug)]
pub enum Do {
    /// Begin this life, as a replica that waits for a snapshot.
    Begin {
        /// The cell.
        cell: CellId,
        /// The life.
        replica: ReplicaId,
        /// What it is for.
        purpose: Purpose,
    },
    /// Say this to the node that spoke.
    Answer(Message),
    /// [`crate::cell::Input::End`], to the replica here; then say [`Message::Ended`] to the node that spoke.
    End(CellId),
    /// Tell the machine beside the replica here.
    Tell(CellId, Input),
}

/// The cell that a message is about, if it is about one.
pub fn cell_of(message: &Message) -> Option<CellId> {
    match message {
        Message::Beacon(_) => None,
        Message::Seat { cell, .. }
        | Message::Confirm { cell, .. }
        | Message::Confirmed { cell, .. }
        | Message::Former { cell, .. }
        | Message::End { cell, .. }
        | Message::Ended { cell, .. } => Some(*cell),
    }
}

/// Whom a life that has no leader for long tells that it is there ([`Message::Former`]), the `times`-th time, from 0: those
/// it knows as keepers, and every other time, or if it knows none, all nodes. Those it knows may all have gone since, and
/// nobody passes on what is for a leader.
pub fn tell_former(cell: &Cell, times: u64, all: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let own = cell.config().node;
    let known = cell.member().cell().keepers().now.keepers.iter().map(|k| k.node).filter(|n| *n != own);
    let known: Vec<NodeId> = known.collect();
    if known.is_empty() || times % 2 == 1 {
        return all.into_iter().filter(|n| *n != own).collect();
    }
    known
}

/// What to do about a message of a node, as things are here.
pub fn told(from: NodeId, message: &Message, here: Here) -> Option<Do> {
    match (message.clone(), here) {
        (Message::Seat { cell, replica, purpose }, Here::Nothing) => {
            Some(Do::Begin { cell, replica, purpose: Purpose::decode(&purpose)? })
        }
        (Message::Seat { cell, replica, .. }, Here::Life { replica: other, .. }) if other != replica => {
            Some(Do::Answer(Message::Former { cell, replica: other }))
        }
        (Message::Confirm { cell, epoch }, Here::Life { replica, confirms: Some(has), .. }) if has >= epoch => {
            Some(Do::Answer(Message::Confirmed { cell, replica, epoch: has }))
        }
        (Message::End { cell, replica }, Here::Life { replica: here, leads, .. }) if here == replica => {
            // Whoever leads is no former keeper: the order is of one who does not know.
            (!leads).then_some(Do::End(cell))
        }
        (Message::End { .. }, Here::Closed) => None,
        (Message::End { cell, replica }, _) => Some(Do::Answer(Message::Ended { cell, replica })),
        (Message::Confirmed { cell, replica, epoch }, Here::Life { leads: true, .. }) => {
            Some(Do::Tell(cell, Input::Confirmed { replica, epoch }))
        }
        (Message::Former { cell, replica }, Here::Life { leads: true, .. }) => {
            Some(Do::Tell(cell, Input::Former(from, replica)))
        }
        (Message::Ended { cell, replica }, Here::Life { leads: true, .. }) => {
            Some(Do::Tell(cell, Input::Ended(from, replica)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cell::{Config, Role};
    use agree::descriptor::Keeper;
    use base::{Chance, Now, Revision, Time, Uid, Wall};
    use std::sync::Arc;

    const CELL: CellId = CellId(Uid(7));
    const LEADER: NodeId = NodeId([1; 32]);
    const A: ReplicaId = ReplicaId(10);
    const B: ReplicaId = ReplicaId(11);

    fn life(leads: bool, confirms: Option<u64>) -> Here {
        Here::Life { replica: A, leads, confirms }
    }

    fn done(message: Message, here: Here) -> String {
        told(LEADER, &message, here).map_or_else(|| "nothing".to_owned(), |d| format!("{d:?}"))
    }

    fn seat(replica: ReplicaId) -> Message {
        let purpose = Purpose { role: Role::Registry, since: Revision::ZERO }.encode();
        Message::Seat { cell: CELL, replica, purpose }
    }

    #[test]
    fn a_life_begins_where_there_is_none_and_never_in_the_place_of_another() {
        assert!(done(seat(A), Here::Nothing).starts_with("Begin"));
        assert_eq!(done(seat(A), life(false, None)), "nothing", "it has begun");
        assert!(done(seat(B), life(false, None)).contains("Former"), "who orders it is told of the one that is there");
        assert_eq!(done(seat(A), Here::Closed), "nothing", "records that cannot be read are somebody's");
        let garbled = Message::Seat { cell: CELL, replica: A, purpose: vec![9, 9].into() };
        assert_eq!(done(garbled, Here::Nothing), "nothing");
    }

    #[test]
    fn a_life_ends_only_if_it_is_named_and_does_not_lead() {
        let end = |replica| Message::End { cell: CELL, replica };
        assert!(done(end(A), life(false, Some(3))).starts_with("End"));
        assert_eq!(done(end(A), life(true, Some(3))), "nothing");
        assert!(done(end(B), life(false, Some(3))).contains("Ended"), "another life: the named one is not here");
        assert!(done(end(A), Here::Nothing).contains("Ended"));
        assert_eq!(done(end(A), Here::Closed), "nothing");
    }

    #[test]
    fn whoever_hears_of_no_leader_asks_those_it_knows_and_then_everybody() {
        let (now, node) = (Now { mono: Time::from_ms(1), wall: Wall(1) }, |n| NodeId([n; 32]));
        let mut config = Config::new(CELL, Role::Registry, node(1), Arc::default());
        let ask = |config: Config, times| {
            let cell = Cell::new(config, None, Arc::default(), None, &Chance::from_u64(1), now).unwrap();
            tell_former(&cell, times, (1..=4).map(node))
        };
        config.founders = vec![];
        assert_eq!(ask(config.clone(), 0), [node(2), node(3), node(4)], "it knows nobody");
        config.founders = [1, 3].map(|n| Keeper { replica: ReplicaId(n), node: node(n as u8), votes: true }).to_vec();
        assert_eq!(ask(config.clone(), 0), [node(3)]);
        assert_eq!(ask(config.clone(), 1), [node(2), node(3), node(4)]);
        assert_eq!(ask(config, 2), [node(3)]);
    }

    #[test]
    fn only_what_is_on_the_disk_is_confirmed() {
        let confirm = Message::Confirm { cell: CELL, epoch: 5 };
        assert_eq!(done(confirm.clone(), life(false, None)), "nothing");
        assert_eq!(done(confirm.clone(), life(false, Some(4))), "nothing");
        assert!(done(confirm.clone(), life(false, Some(6))).contains("epoch: 6"));
        assert_eq!(done(confirm, Here::Nothing), "nothing");
    }

    #[test]
    fn what_is_for_a_leader_is_passed_over_by_others() {
        for message in [
            Message::Confirmed { cell: CELL, replica: B, epoch: 5 },
            Message::Former { cell: CELL, replica: B },
            Message::Ended { cell: CELL, replica: B },
        ] {
            assert!(done(message.clone(), life(true, None)).starts_with("Tell"));
            assert_eq!(done(message.clone(), life(false, None)), "nothing");
            assert_eq!(done(message, Here::Nothing), "nothing");
        }
    }
}
