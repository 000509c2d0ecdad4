//! Chance from one seed, in named streams.
//!
//! A machine never asks the world for chance: it is built with a [`Chance`]. Streams are named, so that
//! one more draw for one purpose does not shift the draws of any other (omicron's planner does the
//! same).

use alloc::vec::Vec;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A seeded source of chance. ChaCha12: unguessable if the seed is, and the same for ever from one seed.
#[derive(Clone, Debug)]
pub struct Chance {
    seed: [u8; 32],
    rng: ChaCha12Rng,
}

impl Chance {
    /// The source a seed stands for. A node draws its seed from the operating system once per start.
    pub fn new(seed: [u8; 32]) -> Chance {
        Chance { seed, rng: ChaCha12Rng::from_seed(seed) }
    }

    /// The source of a small number, for tests and simulator runs.
    pub fn from_u64(seed: u64) -> Chance {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Chance::new(bytes)
    }

    /// An independent source that depends on the seed and the names only, not on what was drawn so far.
    pub fn stream(&self, name: &str) -> Chance {
        // FNV-1a picks the stream; the seed of the result is drawn from it, so that streams of streams
        // are independent too.
        let mut h: u64 = 0xcbf2_9ce4_8422_2325;
        for b in name.bytes() {
            h = (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut rng = ChaCha12Rng::from_seed(self.seed);
        rng.set_stream(h | 1);
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        Chance::new(seed)
    }

    /// Any `u64`, each as likely.
    pub fn u64(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Any `u128`, each as likely.
    pub fn u128(&mut self) -> u128 {
        (u128::from(self.u64()) << 64) | u128::from(self.u64())
    }

    /// A number in `0..n`, each as likely; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // Lemire's method without the rejection step: the bias is below n / 2^64.
        ((u128::from(self.u64()) * u128::from(n)) >> 64) as u64
    }

    /// A number in `lo..hi`, each as likely; `lo` if the range is empty.
    pub fn range(&mut self, lo: u64, hi: u64) -> u64 {
        lo + self.below(hi.saturating_sub(lo))
    }

    /// True `per_million` times in a million.
    pub fn happens(&mut self, per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(per_million)
    }

    /// Fills `out` with chance.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.rng.fill_bytes(out);
    }

    /// One of `items`, each as likely; `None` if there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let i = self.below(items.len() as u64) as usize;
        items.get(i)
    }

    /// At most `n` of the indices below `len`, without repetition, in random order.
    pub fn sample(&mut self, len: usize, n: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..len).collect();
        for i in 0..n.min(len) {
            let j = i + self.below((len - i) as u64) as usize;
            all.swap(i, j);
        }
        all.truncate(n);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_chance_for_ever() {
        // These numbers are part of every recorded seed: if they change, no old run replays.
        let mut c = Chance::from_u64(7);
        assert_eq!([c.u64(), c.u64()], GOLDEN);
        let mut s = Chance::from_u64(7).stream("uids");
        assert_eq!(s.u64(), GOLDEN_STREAM);
    }
    const GOLDEN: [u64; 2] = [15_275_289_290_002_133_535, 16_977_796_898_406_435_185];
    const GOLDEN_STREAM: u64 = 18_300_467_456_458_192_137;

    #[test]
    fn a_draw_from_one_stream_moves_no_other() {
        let mut a = Chance::from_u64(7);
        let before = a.stream("x").u64();
        a.u64();
        assert_eq!(a.stream("x").u64(), before);
        assert_ne!(a.stream("y").u64(), before);
    }

    #[test]
    fn a_sample_has_no_repetition_and_no_more_than_there_are() {
        let mut c = Chance::from_u64(1);
        let mut s = c.sample(5, 9);
        s.sort_unstable();
        assert_eq!(s, [0, 1, 2, 3, 4]);
        assert_eq!(c.sample(100, 3).len(), 3);
        assert!(c.sample(0, 3).is_empty());
    }
}
