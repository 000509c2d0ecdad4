//! Time as plain numbers, so that a test can write it and a log can print it.
//!
//! Two clocks exist and are never mixed. [`Time`] runs steadily (CLOCK_BOOTTIME: it counts suspended
//! time too) and is what deadlines, leases and timeouts are made of. [`Wall`] is the calendar as this
//! machine believes it, may jump, and is only ever printed, minted into revisions, or compared with
//! bounds that expect it to lie.

use alloc::string::String;
use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment on the steady clock: nanoseconds since an arbitrary start (the machine's boot).
///
/// Two nodes' `Time`s cannot be compared. A `u64` of nanoseconds lasts 584 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// The start of the clock.
    pub const ZERO: Time = Time(0);
    /// Later than any moment: a deadline that never comes.
    pub const NEVER: Time = Time(u64::MAX);

    /// The moment `ms` milliseconds after the start.
    pub const fn from_ms(ms: u64) -> Time {
        Time(ms.saturating_mul(1_000_000))
    }

    /// Whole milliseconds since the start, rounded down.
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, d: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, d: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// Milliseconds of Unix time as this machine believes it. May jump either way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub u64);

impl Wall {
    /// RFC 3339 in UTC with whole seconds, as `metav1.Time` prints it: `2026-01-31T08:00:00Z`.
    pub fn rfc3339(self) -> String {
        self.format(self.0 / 1000 * 1000)
    }

    /// RFC 3339 in UTC with six decimals, as `metav1.MicroTime` prints it.
    pub fn rfc3339_micro(self) -> String {
        let mut s = self.rfc3339();
        s.pop();
        s.push_str(&alloc::format!(".{:03}000Z", self.0 % 1000));
        s
    }

    fn format(self, ms: u64) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
            .ok()
            .and_then(|t| t.format(&Rfc3339).ok())
            .unwrap_or_else(|| String::from("9999-12-31T23:59:59Z"))
    }

    /// Reads RFC 3339 with any offset and any number of decimals; `None` if it is not that or lies
    /// before 1970. What is finer than a millisecond is dropped.
    pub fn parse_rfc3339(s: &str) -> Option<Wall> {
        let t = OffsetDateTime::parse(s, &Rfc3339).ok()?;
        u64::try_from(t.unix_timestamp_nanos() / 1_000_000).ok().map(Wall)
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Wall {
    type Output = Wall;
    fn add(self, d: Duration) -> Wall {
        Wall(self.0.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Wall {
    type Output = Wall;
    fn sub(self, d: Duration) -> Wall {
        Wall(self.0.saturating_sub(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339_micro())
    }
}

/// The present on both clocks, as handed to every step of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// The steady clock.
    pub mono: Time,
    /// The calendar as believed here.
    pub wall: Wall,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_prints_and_reads_back_as_kubernetes_writes_it() {
        let w = Wall(1_769_846_400_123);
        assert_eq!(w.rfc3339(), "2026-01-31T08:00:00Z");
        assert_eq!(w.rfc3339_micro(), "2026-01-31T08:00:00.123000Z");
        assert_eq!(Wall::parse_rfc3339("2026-01-31T10:00:00.1239+02:00"), Some(w));
        assert_eq!(Wall::parse_rfc3339("2026-01-31"), None);
        assert_eq!(Wall::parse_rfc3339("1969-01-31T10:00:00Z"), None);
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Time::NEVER + Duration::from_secs(1), Time::NEVER);
        assert_eq!(Time::ZERO - Duration::from_secs(1), Time::ZERO);
        assert_eq!(Time::from_ms(5).since(Time::from_ms(9)), Duration::ZERO);
    }
}
