//! How long certificates live and when they are renewed. Pure: the present is an argument.

use base::Wall;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How far a peer's clock may lie behind the issuer's: validity begins this much before the present.
pub const SKEW: Duration = Duration::from_secs(300);

/// The root authority. As long as machines live; a machine whose clock starts a day late still believes it.
const ROOT: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// A cell's issuing certificate.
pub const ISSUER: Duration = Duration::from_secs(90 * 24 * 3600);
/// An issuing certificate with less than this left is renewed.
pub const ISSUER_RENEWED_AT_LEFT: Duration = Duration::from_secs(30 * 24 * 3600);
/// A node's or a workload's SVID.
pub const SVID: Duration = HOUR;
/// The API server's certificate.
pub const GATEWAY: Duration = DAY;
/// A person's client certificate.
pub const PERSON: Duration = Duration::from_secs(365 * 24 * 3600);

/// When something is good: from `not_before` to `not_after`, both included, whole seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    /// The first good moment.
    pub not_before: Wall,
    /// The last good moment.
    pub not_after: Wall,
}

impl Lifetime {
    /// Of a root authority made at `now`.
    pub fn root(now: Wall) -> Lifetime {
        Lifetime { not_before: now - DAY, not_after: now + ROOT }.whole_seconds()
    }

    /// Of anything else made at `now` that lives `span`, but never longer than who signs it.
    pub fn of(now: Wall, span: Duration, signer: Lifetime) -> Lifetime {
        Lifetime { not_before: (now - SKEW).max(signer.not_before), not_after: (now + span).min(signer.not_after) }
            .whole_seconds()
    }

    /// Good at `now`?
    pub fn covers(&self, now: Wall) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// When an SVID, a gateway's or a person's certificate is renewed: half way.
    pub fn half(&self) -> Wall {
        self.not_before + self.not_after.since(self.not_before) / 2
    }

    /// Is what is renewed half way due at `now`? Also when the clock was set back before its beginning.
    pub fn is_due(&self, now: Wall) -> bool {
        now < self.not_before || now >= self.half()
    }

    /// Is an issuing certificate due for renewal at `now`?
    pub fn issuer_is_due(&self, now: Wall) -> bool {
        !self.covers(now) || self.not_after.since(now) < ISSUER_RENEWED_AT_LEFT
    }

    /// X.509 knows whole seconds only.
    fn whole_seconds(self) -> Lifetime {
        let whole = |w: Wall| Wall(w.0 / 1000 * 1000);
        Lifetime { not_before: whole(self.not_before), not_after: whole(self.not_after) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_769_846_400_000);

    #[test]
    fn an_issuer_is_renewed_when_under_thirty_days_are_left() {
        let life = Lifetime::of(NOW, ISSUER, Lifetime::root(NOW));
        for (days, due) in [(0, false), (59, false), (60, false), (61, true), (91, true)] {
            assert_eq!(life.issuer_is_due(NOW + DAY * days), due, "after {days} days");
        }
        assert!(life.issuer_is_due(NOW - DAY), "a clock set back makes a new one rather than none");
    }

    #[test]
    fn nothing_outlives_who_signed_it() {
        let signer = Lifetime { not_before: NOW, not_after: NOW + HOUR / 2 };
        let life = Lifetime::of(NOW, SVID, signer);
        assert_eq!(life, signer);
        assert_eq!(life.half(), NOW + HOUR / 4);
    }

    #[test]
    fn both_ends_are_good() {
        let life = Lifetime { not_before: Wall(1000), not_after: Wall(3000) };
        for (at, good) in [(999, false), (1000, true), (3000, true), (3001, false)] {
            assert_eq!(life.covers(Wall(at)), good, "{at}");
        }
    }
}
