//! The machine's clocks.

use base::{Now, Time, Wall};
use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The present on both clocks: CLOCK_BOOTTIME, which counts suspended time too, and the calendar.
pub(crate) fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}

fn mono() -> Time {
    // Cannot fail on any Linux that runs containers: the clock exists since 2.6.39.
    let t = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    Time(u64::try_from(t.as_nanos()).unwrap_or(u64::MAX))
}

/// The calendar as this machine believes it; 1970 if it believes less.
pub(crate) fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
