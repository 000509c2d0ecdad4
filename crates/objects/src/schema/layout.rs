//! The order of a struct's fields in protobuf: embedded structs, which JSON does not show, put back.

use super::Field;

/// A field number of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// The number.
    pub number: u32,
    /// What it holds.
    pub holds: Holds,
}

/// What a [`Slot`] holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holds {
    /// The field at this index of [`super::ObjectType::fields`].
    Field(usize),
    /// A message for an embedded struct; its fields are the parent's own in JSON.
    Embedded(Vec<Slot>),
}

/// The slots of a struct's message by ascending number, as gogo-protobuf writes them. Fields without a
/// number (`kind`, `apiVersion`) have none.
pub(super) fn of(fields: &[Field]) -> Vec<Slot> {
    let mut slots = Vec::new();
    for (i, f) in fields.iter().enumerate().filter(|(_, f)| f.number != 0) {
        insert(&mut slots, &f.via, f.number, i);
    }
    slots
}

fn insert(slots: &mut Vec<Slot>, via: &[u32], number: u32, field: usize) {
    let first = via.first().copied().unwrap_or(number);
    let at = match slots.binary_search_by_key(&first, |s| s.number) {
        Ok(at) => at,
        Err(at) => {
            let holds = if via.is_empty() { Holds::Field(field) } else { Holds::Embedded(Vec::new()) };
            slots.insert(at, Slot { number: first, holds });
            at
        }
    };
    if let (Holds::Embedded(inner), Some((_, rest))) = (&mut slots[at].holds, via.split_first()) {
        insert(inner, rest, number, field);
    }
}
