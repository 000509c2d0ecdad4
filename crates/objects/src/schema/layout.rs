//! The order of a struct's fields in protobuf, where embedded structs, which JSON does not show, are put back, and
//! in Go.

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

/// The fields in the order of the Go struct: as `told`; if nothing is, by their numbers, `kind` and `apiVersion`
/// first.
pub(super) fn order<T: AsRef<str>>(fields: &[Field], told: &[T]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..fields.len()).collect();
    order.sort_by_cached_key(|i| {
        let f = &fields[*i];
        let told = told.iter().position(|n| n.as_ref() == f.name);
        let first = ["kind", "apiVersion"].iter().position(|n| f.number == 0 && *n == f.name);
        (told, first.unwrap_or(2), [f.via.as_slice(), &[f.number]].concat())
    });
    order
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
