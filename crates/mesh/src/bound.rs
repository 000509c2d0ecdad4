//! Bounds on what strangers may cost.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The lock, also after a thread died with it: what it guards here is whole after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many a second, and a burst.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    burst: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, burst: u32, now: Instant) -> Bucket {
        Bucket { per_second: per_second.into(), burst: burst.into(), left: burst.into(), at: now }
    }

    /// One more, if there is one left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.left = (self.left + earned).min(self.burst);
        self.at = self.at.max(now);
        let some = self.left >= 1.0;
        if some {
            self.left -= 1.0;
        }
        some
    }
}

/// How many connections have not proven anything yet, in all and of each address.
#[derive(Debug)]
pub(crate) struct Strangers {
    max: usize,
    now: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// One of them. Dropped when it has proven itself, or is gone.
#[derive(Debug)]
pub(crate) struct Stranger {
    of: Arc<Strangers>,
    ip: Option<IpAddr>,
}

impl Strangers {
    pub(crate) fn new(max: usize) -> Arc<Strangers> {
        Arc::new(Strangers { max: max.max(1), now: Mutex::default() })
    }

    /// Lets one in, if there is room. `None` for an address stands for those that have none.
    pub(crate) fn admit(self: &Arc<Strangers>, ip: Option<IpAddr>) -> Option<Stranger> {
        let mut now = lock(&self.now);
        let of_it = ip.and_then(|ip| now.1.get(&ip)).copied().unwrap_or_default();
        if now.0 >= self.max || of_it >= (self.max / 8).max(1) {
            return None;
        }
        now.0 += 1;
        if let Some(ip) = ip {
            *now.1.entry(ip).or_default() += 1;
        }
        Some(Stranger { of: self.clone(), ip })
    }

    /// More than half full: whoever comes now shows first that it can be answered where it says it is.
    pub(crate) fn is_crowded(&self) -> bool {
        lock(&self.now).0 * 2 >= self.max
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut now = lock(&self.of.now);
        now.0 -= 1;
        if let Some(ip) = self.ip
            && let Some(n) = now.1.get_mut(&ip)
        {
            *n -= 1;
            if *n == 0 {
                now.1.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, 3, start);
        assert_eq!([0; 5].map(|_| bucket.take(start)), [true, true, true, false, false]);
        assert!(!bucket.take(start + Duration::from_millis(400)));
        assert!(bucket.take(start + Duration::from_millis(600)));
        let later = start + Duration::from_secs(3600);
        assert_eq!([0; 4].map(|_| bucket.take(later)), [true, true, true, false], "no more than the burst is saved");
    }

    #[test]
    fn one_address_cannot_take_all_the_room() {
        let strangers = Strangers::new(16);
        let ip = |n: u8| Some(IpAddr::from([10, 0, 0, n]));
        let first = strangers.admit(ip(1)).unwrap();
        let _second = strangers.admit(ip(1)).unwrap();
        assert!(strangers.admit(ip(1)).is_none());
        let others: Vec<_> = (2..16).map_while(|n| strangers.admit(ip(n))).collect();
        assert_eq!(others.len(), 14);
        assert!(strangers.admit(ip(99)).is_none() && strangers.is_crowded(), "all of it is taken");
        drop(first);
        assert!(strangers.admit(ip(1)).is_some());
        drop(others);
        assert_eq!(lock(&strangers.now).1.len(), 1);
    }
}
