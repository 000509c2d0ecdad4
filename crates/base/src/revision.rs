//! Revisions: the number of one object change, printed as `resourceVersion`.
//!
//! 63 bits: 42 of Unix milliseconds, 10 of counter, 11 of origin. A hybrid logical clock (Kulkarni et
//! al., "Logical Physical Clocks", 2014) mints them, so they rise strictly within a cell, across its
//! leaders, and are roughly comparable between cells. They fit an `i64`, which some clients parse them
//! into.

use crate::time::Wall;
use core::fmt;

const COUNTER_BITS: u32 = 10;
const ORIGIN_BITS: u32 = 11;
const TICKS_BITS: u32 = 42 + COUNTER_BITS;

/// Which cell, or which branch of one, minted a revision: a tag of 11 bits, not an id; two cells may
/// share one. The top bit says branch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin(u16);

impl Origin {
    const BRANCH: u16 = 1 << (ORIGIN_BITS - 1);

    /// The tag of a cell's mainline, from ten bits of chance in its id.
    pub const fn mainline(tag: u16) -> Origin {
        Origin(tag & (Origin::BRANCH - 1))
    }

    /// The tag of a branch.
    pub const fn branch(tag: u16) -> Origin {
        Origin(tag & (Origin::BRANCH - 1) | Origin::BRANCH)
    }

    /// Whether a branch minted it.
    pub const fn is_branch(self) -> bool {
        self.0 & Origin::BRANCH != 0
    }
}

/// The number of one object change. 0 is before every change and never minted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(u64);

impl Revision {
    /// Before every change.
    pub const ZERO: Revision = Revision(0);
    /// The last number a revision can be: `2^63 - 1`.
    pub const MAX: Revision = Revision((1 << 63) - 1);

    /// The revision a number stands for; `None` from 2^63 on.
    pub const fn from_u64(n: u64) -> Option<Revision> {
        if n >> 63 == 0 { Some(Revision(n)) } else { None }
    }

    /// The number, as stored and printed.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The greatest revision any origin can mint in the given millisecond.
    pub const fn end_of(ms: Wall) -> Revision {
        Revision(((ms.0 << (COUNTER_BITS + ORIGIN_BITS)) | ((1 << (COUNTER_BITS + ORIGIN_BITS)) - 1)) & Revision::MAX.0)
    }

    /// The millisecond it was minted in, by the minting clock.
    pub const fn wall(self) -> Wall {
        Wall(self.0 >> (COUNTER_BITS + ORIGIN_BITS))
    }

    /// Who minted it.
    pub const fn origin(self) -> Origin {
        Origin((self.0 & ((1 << ORIGIN_BITS) - 1)) as u16)
    }

    const fn ticks(self) -> u64 {
        self.0 >> ORIGIN_BITS
    }

    const fn new(ticks: u64, origin: Origin) -> Revision {
        Revision((ticks << ORIGIN_BITS) | origin.0 as u64)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}.{}@{}", self.wall().0, self.ticks() & ((1 << COUNTER_BITS) - 1), self.origin().0)
    }
}

/// Mints revisions for one origin: each above all it minted or was told of, and not below the wall
/// clock. No number from outside the cell may be told to it: a lying client must not move the clock.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: Origin,
    /// In units of 1/1024 ms: milliseconds and counter in one, so that a full counter carries over.
    ticks: u64,
}

impl Clock {
    /// A clock that mints above `last`.
    pub const fn new(origin: Origin, last: Revision) -> Clock {
        Clock { origin, ticks: last.ticks() }
    }

    /// The next revision. A wall clock that stands still or runs back does not stop it: the counter
    /// rises, and carries into the milliseconds after 1,024.
    pub fn mint(&mut self, wall: Wall) -> Revision {
        self.ticks = (self.ticks + 1).max(wall.0 << COUNTER_BITS) & ((1 << TICKS_BITS) - 1);
        Revision::new(self.ticks, self.origin)
    }

    /// Nothing at or below `seen`, which came from this cell's own log or its voters, will be minted.
    pub fn observe(&mut self, seen: Revision) {
        self.ticks = self.ticks.max(seen.ticks());
    }

    /// The greatest revision that may have been minted so far.
    pub fn last(&self) -> Revision {
        Revision::new(self.ticks, self.origin)
    }

    /// How far the clock has run ahead of the wall, in milliseconds; 0 if it has not.
    pub fn ahead_ms(&self, wall: Wall) -> u64 {
        (self.ticks >> COUNTER_BITS).saturating_sub(wall.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn its_parts_read_back_and_it_fits_63_bits() {
        let r = Clock::new(Origin::branch(5), Revision::ZERO).mint(Wall((1 << 42) - 1));
        assert_eq!((r.wall(), r.origin(), r.origin().is_branch()), (Wall((1 << 42) - 1), Origin::branch(5), true));
        assert!(r < Revision::MAX && Revision::from_u64(r.get()) == Some(r));
        assert_eq!(Revision::from_u64(1 << 63), None);
        assert!(r <= Revision::end_of(Wall((1 << 42) - 1)));
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut c = Clock::new(Origin::mainline(1), Revision::ZERO);
        for _ in 0..1024 {
            assert_eq!(c.mint(Wall(7)).wall(), Wall(7));
        }
        assert_eq!((c.mint(Wall(7)).wall(), c.ahead_ms(Wall(7))), (Wall(8), 1));
    }

    proptest! {
        #[test]
        fn revisions_rise_strictly_whatever_the_wall_clock_does(walls in proptest::collection::vec(0u64..50, 1..300)) {
            let mut c = Clock::new(Origin::mainline(3), Revision::ZERO);
            let mut last = Revision::ZERO;
            for w in walls {
                let r = c.mint(Wall(w));
                prop_assert!(r > last);
                last = r;
            }
        }

        #[test]
        fn a_new_leader_mints_above_all_it_has_seen(seen in 0u64..(1 << 60), wall in 0u64..1000) {
            let seen = Revision::from_u64(seen).unwrap();
            let mut c = Clock::new(Origin::mainline(0), Revision::ZERO);
            c.observe(seen);
            prop_assert!(c.mint(Wall(wall)) > seen);
        }
    }
}
