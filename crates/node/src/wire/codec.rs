//! How values are written between nodes: the numbers and byte strings of [`agree::codec`], and what is made of them.
//!
//! Numbers are little-endian and of fixed width, texts and byte strings have a `u32` length before them, a list its
//! `u32` count, an `Option` a `u8` that is 0 or 1. Of a struct its fields are written in the order in which [`fields!`]
//! names them, of an enum a `u8` for the variant and then its fields ([`variants!`]). Both take a value apart without
//! leaving anything out, so that a new field or variant does not compile without its place on the wire.
//!
//! A layout never changes: a new one is a new variant or a new version, and golden bytes of each are kept.

pub(super) use agree::codec::{DecodeError, Reader, Writer};

use super::frame::PIECE_BYTES;
use base::{BootId, CellId, NodeId, ReplicaId, RequestId, Revision, Uid, Wall};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// What reading comes to.
pub(super) type Read<T> = Result<T, DecodeError>;

/// The newest layout of every message that this release writes and reads.
pub(super) const VERSION: u8 = 1;

/// A value that travels.
pub(super) trait Wire: Sized {
    /// The fewest bytes that one takes: a list that claims more of them than there can be is refused before anything is
    /// reserved for it.
    const LEAST: usize;
    /// Of an enum, the numbers of its variants.
    #[cfg(test)]
    const VARIANTS: &'static [u8] = &[];
    fn write(&self, w: &mut Writer);
    fn read(r: &mut Reader<'_>) -> Read<Self>;
}

/// A message: its version, then itself.
pub(super) fn encode<T: Wire>(message: &T) -> Bytes {
    let mut w = Writer::with_capacity(128);
    w.u8(VERSION);
    message.write(&mut w);
    w.finish()
}

/// Reads a message that fills `bytes`.
pub(super) fn decode<T: Wire>(what: &'static str, bytes: &Bytes) -> Read<T> {
    let (mut r, _) = Reader::versioned(what, bytes, VERSION)?;
    let message = T::read(&mut r)?;
    r.end()?;
    Ok(message)
}

/// Writes items, their number before them, until what is written is as long as a piece is, or none is left. How many.
pub(super) fn fill<T>(
    w: &mut Writer,
    mut items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Writer, T),
) -> usize {
    let at = w.0.len();
    w.u32(0);
    let mut count = 0u32;
    while w.0.len() < PIECE_BYTES {
        let Some(item) = items.next() else { break };
        write(w, item);
        count += 1;
    }
    if let Some(slot) = w.0.get_mut(at..at + 4) {
        slot.copy_from_slice(&count.to_le_bytes());
    }
    count as usize
}

/// Gives a message type its two public doors.
macro_rules! message {
    ($type:ty, $what:literal) => {
        impl $type {
            /// Its bytes, to be sent as one frame.
            pub fn encode(&self) -> bytes::Bytes {
                $crate::wire::codec::encode(self)
            }

            /// Reads one that fills `bytes`.
            ///
            /// # Errors
            /// [`agree::DecodeError`]: the sender is of a newer release, or the bytes are damaged.
            pub fn decode(bytes: &bytes::Bytes) -> Result<Self, agree::DecodeError> {
                $crate::wire::codec::decode($what, bytes)
            }
        }
    };
}
pub(super) use message;

/// The layout of a struct: its fields, in the order written.
macro_rules! fields {
    ($type:ty { $($field:ident: $t:ty),* $(,)? }) => {
        impl $crate::wire::codec::Wire for $type {
            const LEAST: usize = 0 $(+ <$t as $crate::wire::codec::Wire>::LEAST)*;
            fn write(&self, w: &mut $crate::wire::codec::Writer) {
                let Self { $($field),* } = self;
                $($crate::wire::codec::Wire::write($field, w);)*
            }
            fn read(r: &mut $crate::wire::codec::Reader<'_>) -> $crate::wire::codec::Read<Self> {
                Ok(Self { $($field: <$t as $crate::wire::codec::Wire>::read(r)?),* })
            }
        }
    };
}
pub(super) use fields;

/// The layout of an enum: each variant's number and its fields, in the order written.
macro_rules! variants {
    ($type:ty { $(
        $number:literal => $variant:ident $(($($inner:ident),*))? $({ $($field:ident),* $(,)? })?
    ),* $(,)? }) => {
        impl $crate::wire::codec::Wire for $type {
            const LEAST: usize = 1;
            #[cfg(test)]
            const VARIANTS: &'static [u8] = &[$($number),*];
            fn write(&self, w: &mut $crate::wire::codec::Writer) {
                match self {
                    $(Self::$variant $(($($inner),*))? $({ $($field),* })? => {
                        w.u8($number);
                        $($($crate::wire::codec::Wire::write($inner, w);)*)?
                        $($($crate::wire::codec::Wire::write($field, w);)*)?
                    })*
                }
            }
            fn read(r: &mut $crate::wire::codec::Reader<'_>) -> $crate::wire::codec::Read<Self> {
                Ok(match r.u8()? {
                    $($number => {
                        $($(let $inner = $crate::wire::codec::Wire::read(r)?;)*)?
                        $($(let $field = $crate::wire::codec::Wire::read(r)?;)*)?
                        Self::$variant $(($($inner),*))? $({ $($field),* })?
                    })*
                    other => return Err(r.newer(other)),
                })
            }
        }
    };
}
pub(super) use variants;

macro_rules! numbers {
    ($($t:ident: $bytes:literal),*) => {$(
        impl Wire for $t {
            const LEAST: usize = $bytes;
            fn write(&self, w: &mut Writer) {
                w.$t(*self);
            }
            fn read(r: &mut Reader<'_>) -> Read<$t> {
                r.$t()
            }
        }
    )*};
}
numbers!(u8: 1, u32: 4, u64: 8, u128: 16);

/// Types that are written as another: how one becomes the other, and back where that can fail.
macro_rules! written_as {
    ($($t:ty as $n:ty: |$v:ident| $to:expr, |$w:ident| $from:expr;)*) => {$(
        impl $crate::wire::codec::Wire for $t {
            const LEAST: usize = <$n as $crate::wire::codec::Wire>::LEAST;
            fn write(&self, w: &mut $crate::wire::codec::Writer) {
                let $v = self;
                <$n as $crate::wire::codec::Wire>::write(&$to, w);
            }
            fn read(r: &mut $crate::wire::codec::Reader<'_>) -> $crate::wire::codec::Read<$t> {
                let $w = <$n as $crate::wire::codec::Wire>::read(r)?;
                let back: Option<$t> = $from;
                back.ok_or_else(|| r.malformed())
            }
        }
    )*};
}
pub(super) use written_as;

written_as! {
    u16 as u32: |v| u32::from(*v), |n| u16::try_from(n).ok();
    i64 as u64: |v| v.cast_unsigned(), |n| Some(n.cast_signed());
    usize as u64: |v| *v as u64, |n| usize::try_from(n).ok();
    bool as u8: |v| u8::from(*v), |n| match n { 0 => Some(false), 1 => Some(true), _ => None };
    Uid as u128: |v| v.0, |n| Some(Uid(n));
    CellId as Uid: |v| v.0, |n| Some(CellId(n));
    RequestId as u128: |v| v.0, |n| Some(RequestId(n));
    ReplicaId as u64: |v| v.0, |n| Some(ReplicaId(n));
    BootId as u64: |v| v.0, |n| Some(BootId(n));
    Wall as u64: |v| v.0, |n| Some(Wall(n));
    Revision as u64: |v| v.get(), |n| Revision::from_u64(n);
    Ipv4Addr as u32: |v| u32::from(*v), |n| Some(Ipv4Addr::from(n));
}

impl Wire for NodeId {
    const LEAST: usize = 32;
    fn write(&self, w: &mut Writer) {
        w.0.extend_from_slice(&self.0);
    }
    fn read(r: &mut Reader<'_>) -> Read<NodeId> {
        r.array().map(NodeId)
    }
}

impl Wire for Bytes {
    const LEAST: usize = 4;
    fn write(&self, w: &mut Writer) {
        w.bytes(self);
    }
    fn read(r: &mut Reader<'_>) -> Read<Bytes> {
        r.bytes()
    }
}

/// A text with its length before it, where it lies.
fn text<T: for<'a> From<&'a str>>(r: &mut Reader<'_>) -> Read<T> {
    let bytes = r.bytes()?;
    std::str::from_utf8(&bytes).map(T::from).map_err(|_| r.malformed())
}

macro_rules! texts {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            const LEAST: usize = 4;
            fn write(&self, w: &mut Writer) {
                w.bytes(self.as_bytes());
            }
            fn read(r: &mut Reader<'_>) -> Read<$t> {
                text(r)
            }
        }
    )*};
}
texts!(String, Arc<str>, Box<str>);

impl<T: Wire> Wire for Box<T> {
    const LEAST: usize = T::LEAST;
    fn write(&self, w: &mut Writer) {
        T::write(self, w);
    }
    fn read(r: &mut Reader<'_>) -> Read<Box<T>> {
        T::read(r).map(Box::new)
    }
}

impl<T: Wire> Wire for Arc<T> {
    const LEAST: usize = T::LEAST;
    fn write(&self, w: &mut Writer) {
        T::write(self, w);
    }
    fn read(r: &mut Reader<'_>) -> Read<Arc<T>> {
        T::read(r).map(Arc::new)
    }
}

impl<T: Wire> Wire for Option<T> {
    const LEAST: usize = 1;
    fn write(&self, w: &mut Writer) {
        w.u8(u8::from(self.is_some()));
        if let Some(value) = self {
            value.write(w);
        }
    }
    fn read(r: &mut Reader<'_>) -> Read<Option<T>> {
        if r.bool()? { T::read(r).map(Some) } else { Ok(None) }
    }
}

/// Writes a list.
pub(super) fn write_all<'a, T: Wire + 'a>(items: impl ExactSizeIterator<Item = &'a T>, w: &mut Writer) {
    w.count(items.len());
    items.for_each(|item| item.write(w));
}

/// Reads a list. What it is collected into grows as items are read, whatever their number is said to be.
pub(super) fn read_all<T: Wire, C: FromIterator<T>>(r: &mut Reader<'_>) -> Read<C> {
    (0..r.count(T::LEAST)?).map(|_| T::read(r)).collect()
}

impl<T: Wire> Wire for Vec<T> {
    const LEAST: usize = 4;
    fn write(&self, w: &mut Writer) {
        write_all(self.iter(), w);
    }
    fn read(r: &mut Reader<'_>) -> Read<Vec<T>> {
        read_all(r)
    }
}

impl<T: Wire> Wire for Arc<[T]> {
    const LEAST: usize = 4;
    fn write(&self, w: &mut Writer) {
        write_all(self.iter(), w);
    }
    fn read(r: &mut Reader<'_>) -> Read<Arc<[T]>> {
        read_all(r)
    }
}

impl<T: Wire + Ord> Wire for BTreeSet<T> {
    const LEAST: usize = 4;
    fn write(&self, w: &mut Writer) {
        write_all(self.iter(), w);
    }
    fn read(r: &mut Reader<'_>) -> Read<BTreeSet<T>> {
        read_all(r)
    }
}

impl<K: Wire + Ord, V: Wire> Wire for BTreeMap<K, V> {
    const LEAST: usize = 4;
    fn write(&self, w: &mut Writer) {
        w.count(self.len());
        for (key, value) in self {
            key.write(w);
            value.write(w);
        }
    }
    fn read(r: &mut Reader<'_>) -> Read<BTreeMap<K, V>> {
        (0..r.count(K::LEAST + V::LEAST)?).map(|_| Ok((K::read(r)?, V::read(r)?))).collect()
    }
}

macro_rules! tuples {
    ($(($($t:ident),*)),*) => {$(
        impl<$($t: Wire),*> Wire for ($($t,)*) {
            const LEAST: usize = 0 $(+ $t::LEAST)*;
            #[allow(non_snake_case)] // the types' names serve for the values
            fn write(&self, w: &mut Writer) {
                let ($($t,)*) = self;
                $($t.write(w);)*
            }
            fn read(r: &mut Reader<'_>) -> Read<Self> {
                Ok(($($t::read(r)?,)*))
            }
        }
    )*};
}
tuples!((A, B), (A, B, C));
