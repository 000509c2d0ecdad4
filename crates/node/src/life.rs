//! Signs of life: what every node says now and then to whoever leads its registry, and what is remembered of it there.
//!
//! That a node lives is soft state: no sign is ever written, and one may be lost. What follows from a long silence is
//! written ([`decide::controllers::node_lifecycle`]). A new leader has heard of nobody yet, and waits as long as for one
//! that has just fallen silent.

use agree::DecodeError;
use base::{BootId, NodeId, Now, Time, Wall};
use decide::controllers::node_lifecycle::GRACE;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a node gives a sign: three in a row may be lost.
pub const EVERY: Duration = Duration::from_secs(10);
const _: () = assert!(EVERY.as_secs() * 4 <= GRACE.as_secs());

/// Of so many nodes at most it is remembered when they were heard: far more than a hive has.
const HEARD_MAX: usize = 8192;

/// "I am here."
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignOfLife {
    /// Who says so. Nobody is believed who says it for another.
    pub node: NodeId,
    /// Which start of its process.
    pub boot: BootId,
    /// Rises with every sign of this start.
    pub sequence: u64,
    /// When it was sent, by the node's own calendar: for people. Nothing is decided by another node's clock.
    pub sent_at: Wall,
}

/// What errors call it.
const WHAT: &str = "a sign of life";
const VERSION: u8 = 1;
/// A version, an id of 32 bytes, and three numbers.
const BYTES: usize = 1 + 32 + 3 * 8;

impl SignOfLife {
    /// Its bytes: the version, the node's id, and boot, sequence and milliseconds since 1970 as little-endian numbers.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        out[0] = VERSION;
        out[1..33].copy_from_slice(&self.node.0);
        out[33..41].copy_from_slice(&self.boot.0.to_le_bytes());
        out[41..49].copy_from_slice(&self.sequence.to_le_bytes());
        out[49..].copy_from_slice(&self.sent_at.0.to_le_bytes());
        out
    }

    /// Reads one that fills `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<SignOfLife, DecodeError> {
        let malformed = |at| DecodeError::Malformed { what: WHAT, length: bytes.len(), at };
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&version) if version > VERSION => return Err(DecodeError::Newer { what: WHAT, version }),
            _ => return Err(malformed(0)),
        }
        let bytes: &[u8; BYTES] = bytes.try_into().map_err(|_| malformed(bytes.len().min(BYTES)))?;
        let number = |at: usize| {
            let mut n = [0; 8];
            n.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(n)
        };
        let mut node = [0; 32];
        node.copy_from_slice(&bytes[1..33]);
        Ok(SignOfLife { node: NodeId(node), boot: BootId(number(33)), sequence: number(41), sent_at: Wall(number(49)) })
    }
}

/// What makes a node give signs of life.
pub struct Pulse {
    node: NodeId,
    boot: BootId,
    given: u64,
    next: Time,
}

/// What a pulse is told.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
}

/// What a pulse wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send this to whoever leads the registry. It may be lost.
    Send(SignOfLife),
}

impl Pulse {
    /// The pulse of a node's process. Its first sign is due at once.
    pub fn new(node: NodeId, boot: BootId) -> Pulse {
        Pulse { node, boot, given: 0, next: Time::ZERO }
    }

    /// One bounded step.
    pub fn step(&mut self, now: Now, Input::Tick: Input, fx: &mut Vec<Effect>) {
        if now.mono < self.next {
            return;
        }
        self.given += 1;
        self.next = now.mono + EVERY;
        let sign = SignOfLife { node: self.node, boot: self.boot, sequence: self.given, sent_at: now.wall };
        fx.push(Effect::Send(sign));
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        Some(self.next)
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        assert!(self.given > 0 || self.next == Time::ZERO, "a pulse waits before its first sign");
    }
}

/// When nodes were heard last.
#[derive(Default)]
pub(crate) struct Heard(BTreeMap<NodeId, Last>);

struct Last {
    boot: BootId,
    sequence: u64,
    at: Time,
}

impl Heard {
    /// A sign has come, from this node as its connection proves.
    ///
    /// One that was overtaken by a later one of the same start says nothing new. When as many are known as are
    /// remembered, somebody new takes the place of whoever is silent for longest, if that one counts as silent.
    pub(crate) fn hear(&mut self, from: NodeId, sign: &SignOfLife, now: Time) {
        if sign.node != from {
            return;
        }
        let overtaken = |last: &Last| last.boot == sign.boot && last.sequence >= sign.sequence;
        if self.0.get(&from).is_some_and(overtaken) {
            return;
        }
        if self.0.len() >= HEARD_MAX && !self.0.contains_key(&from) {
            let oldest = self.0.iter().min_by_key(|(_, last)| last.at);
            let Some(silent) = oldest.filter(|(_, last)| now.since(last.at) >= GRACE).map(|(node, _)| *node) else {
                return;
            };
            self.0.remove(&silent);
        }
        self.0.insert(from, Last { boot: sign.boot, sequence: sign.sequence, at: now });
    }

    /// When a node was heard last, if it was.
    pub(crate) fn last(&self, node: NodeId) -> Option<Time> {
        self.0.get(&node).map(|last| last.at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sign(n: u8, boot: u64, sequence: u64) -> SignOfLife {
        SignOfLife { node: NodeId([n; 32]), boot: BootId(boot), sequence, sent_at: Wall(0x0102_0304) }
    }

    #[test]
    fn a_sign_of_version_1_is_read_for_ever_and_nothing_else_is_one() {
        let one = sign(7, 0x1122_3344_5566_7788, 9);
        let bytes = one.encode();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("../tests/golden/sign-of-life-v1.hex").trim_end());
        assert_eq!(SignOfLife::decode(&bytes), Ok(one));
        let malformed = |r| matches!(r, Err(DecodeError::Malformed { .. }));
        let newer = |r, v| matches!(r, Err(DecodeError::Newer { version, .. }) if version == v);
        assert!((0..BYTES).all(|cut| malformed(SignOfLife::decode(&bytes[..cut]))));
        let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        assert!(malformed(SignOfLife::decode(&longer)));
        let mut other = bytes;
        other[0] = 0;
        assert!(malformed(SignOfLife::decode(&other)));
        other[0] = 2;
        assert!(newer(SignOfLife::decode(&other), 2));
        assert!(newer(SignOfLife::decode(&[255]), 255), "a newer one may be shorter");
    }

    #[test]
    fn a_node_gives_a_sign_at_once_and_then_at_its_pace() {
        let mut pulse = Pulse::new(NodeId([1; 32]), BootId(5));
        let mut given = Vec::new();
        for second in 0..35 {
            let now = Now { mono: Time::ZERO + Duration::from_secs(100 + second), wall: Wall(second) };
            let mut fx = Vec::new();
            pulse.step(now, Input::Tick, &mut fx);
            pulse.check();
            given.extend(fx.into_iter().map(|Effect::Send(s)| (s.sequence, s.sent_at.0, s.boot.0)));
        }
        assert_eq!(given, [(1, 0, 5), (2, 10, 5), (3, 20, 5), (4, 30, 5)]);
        assert_eq!(pulse.next_deadline(), Some(Time::ZERO + Duration::from_secs(140)));
    }

    #[test]
    fn only_news_from_the_node_itself_counts() {
        let at = |s: u64| Time::ZERO + Duration::from_secs(s);
        let (me, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut heard = Heard::default();
        heard.hear(other, &sign(1, 1, 1), at(1));
        assert_eq!((heard.last(me), heard.last(other)), (None, None), "nobody speaks for another");
        heard.hear(me, &sign(1, 1, 5), at(2));
        for late in [5, 4] {
            heard.hear(me, &sign(1, 1, late), at(9));
            assert_eq!(heard.last(me), Some(at(2)), "it was overtaken");
        }
        heard.hear(me, &sign(1, 1, 6), at(10));
        assert_eq!(heard.last(me), Some(at(10)));
        heard.hear(me, &sign(1, 2, 1), at(11));
        assert_eq!(heard.last(me), Some(at(11)), "it has started anew");
    }

    #[test]
    fn of_too_many_the_one_that_is_silent_for_longest_is_forgotten_and_none_that_lives() {
        let id = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(n as u64).to_le_bytes());
            NodeId(id)
        };
        let mut heard = Heard::default();
        let say = |heard: &mut Heard, n, at| {
            let sign = SignOfLife { node: id(n), boot: BootId(1), sequence: 1, sent_at: Wall(0) };
            heard.hear(id(n), &sign, at);
        };
        for n in 0..HEARD_MAX {
            say(&mut heard, n, Time::ZERO + Duration::from_millis(n as u64));
        }
        say(&mut heard, HEARD_MAX, Time::ZERO + GRACE / 2);
        assert_eq!(heard.last(id(HEARD_MAX)), None);
        say(&mut heard, HEARD_MAX, Time::ZERO + GRACE);
        assert_eq!((heard.0.len(), heard.last(id(0))), (HEARD_MAX, None));
        assert!(heard.last(id(HEARD_MAX)).is_some() && heard.last(id(1)).is_some());
    }
}
