//! How long to wait before something that failed is tried again: 10 s, doubled each time up to 5 min, and
//! forgotten after twice as long without a try (the kubelet's `flowcontrol.Backoff`).

use base::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// The first wait.
pub(super) const FIRST: Duration = Duration::from_secs(10);
/// The longest wait.
pub(super) const MOST: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    tried: Time,
}

/// Waits by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoffs(BTreeMap<String, Entry>);

impl Backoffs {
    /// Until when to wait after what happened at `event`, and how long that is in all; `None` if not at
    /// all.
    pub(super) fn wait(&self, name: &str, event: Time, now: Time) -> Option<(Duration, Time)> {
        let entry = self.0.get(name)?;
        let until = event + entry.delay;
        (event.since(entry.tried) <= MOST * 2 && now < until).then_some((entry.delay, until))
    }

    /// Until when to wait after the last try, however long ago it failed; `None` if not at all.
    pub(super) fn rest(&self, name: &str, now: Time) -> Option<Time> {
        let entry = self.0.get(name)?;
        Some(entry.tried + entry.delay).filter(|until| now < *until)
    }

    /// It is tried again now, for what happened at `event`: the next wait is longer.
    pub(super) fn next(&mut self, name: &str, event: Time, now: Time) {
        let delay = match self.0.get(name) {
            Some(entry) if event.since(entry.tried) <= MOST * 2 => (entry.delay * 2).min(MOST),
            _ => FIRST,
        };
        self.0.insert(name.to_owned(), Entry { delay, tried: now });
    }

    /// It went well: the next failure waits the shortest time again.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }
}

/// A wait that doubles with each failure in a row: when to try again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Retry {
    delay: Duration,
    /// Not before.
    pub(super) at: Time,
}

impl Retry {
    /// It failed: wait `first`, or twice as long as the last time, at most `most`.
    pub(super) fn failed(&mut self, now: Time, first: Duration, most: Duration) {
        self.delay = if self.delay.is_zero() { first } else { (self.delay * 2).min(most) };
        self.at = now + self.delay;
    }

    /// It went well.
    pub(super) fn done(&mut self) {
        *self = Retry::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_five_minutes_and_are_forgotten_after_ten() {
        let mut b = Backoffs::default();
        let mut now = Time::from_ms(1_000_000);
        assert_eq!(b.wait("c", now, now), None, "the first failure is tried again at once");
        let mut delays = Vec::new();
        for _ in 0..7 {
            b.next("c", now, now);
            let (delay, until) = b.wait("c", now, now).expect("it waits");
            delays.push(delay.as_secs());
            assert_eq!(b.wait("c", now, until), None);
            now = until;
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        let long_after = now + MOST * 3;
        assert_eq!(b.wait("c", long_after, long_after), None);
        b.next("c", long_after, long_after);
        assert_eq!(b.wait("c", long_after, long_after).map(|w| w.0), Some(FIRST));
    }
}
