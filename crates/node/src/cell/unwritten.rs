//! The cell's writes that are not durable yet, and what becomes of them when the log has no room.
//!
//! A write that is refused takes all later ones with it, until the log is told to go on; those before it may be on
//! their way to the disk all the same. So the cell waits until it knows of every one of its writes, and only then
//! asks again, for those that were refused. Asking earlier would write some of them twice: the first of two copies
//! would undo what comes after it, for as long as the second is not there.

use agree::log::{Record, Ticket};
use base::Time;
use std::collections::VecDeque;

struct Write {
    ticket: Ticket,
    records: Vec<Record>,
    /// The log has it, and has said nothing of it yet.
    under_way: bool,
}

/// Writes in the order of their tickets.
#[derive(Default)]
pub(super) struct Unwritten {
    writes: VecDeque<Write>,
    /// The log refused one of them: when it is asked again, once it has said something of all.
    again_at: Option<Time>,
    /// The last write that was refused and is not durable yet.
    refused: Option<Ticket>,
}

impl Unwritten {
    /// Whether some were refused, and not asked for again.
    pub(super) fn holds(&self) -> bool {
        self.again_at.is_some()
    }

    /// Whether the log has not caught up yet with something it refused. As long as it has not, nothing is to be begun
    /// that can be left.
    pub(super) fn lags(&self) -> bool {
        self.refused.is_some()
    }

    /// A new write. Returns whether it is to be asked for now: behind a refused one it waits its turn.
    pub(super) fn push(&mut self, ticket: Ticket, records: &[Record]) -> bool {
        let under_way = !self.holds();
        self.writes.push_back(Write { ticket, records: records.to_vec(), under_way });
        under_way
    }

    /// Everything up to this ticket is durable.
    pub(super) fn durable(&mut self, ticket: Ticket) {
        // A refused write takes those behind it with it: what waits here is behind what is durable.
        while self.writes.front().is_some_and(|w| w.ticket <= ticket && w.under_way) {
            self.writes.pop_front();
        }
        self.refused.take_if(|refused| *refused <= ticket);
    }

    /// The log refused this one: to be asked for at that time.
    pub(super) fn refused(&mut self, ticket: Ticket, again_at: Time) {
        let Ok(at) = self.writes.binary_search_by_key(&ticket, |w| w.ticket) else { return };
        self.writes[at].under_way = false;
        self.again_at.get_or_insert(again_at);
        self.refused = self.refused.max(Some(ticket));
    }

    /// Nothing before this write is needed any more, whether it was refused or is under way. Returns what the log is asked
    /// for once more; it is to be told to go on before.
    pub(super) fn leave_only(&mut self, ticket: Ticket) -> Option<Vec<Record>> {
        self.writes.retain(|w| w.ticket >= ticket);
        (self.again_at, self.refused) = (None, None);
        let write = self.writes.front_mut()?;
        write.under_way = true;
        Some(write.records.clone())
    }

    /// The log has room now.
    pub(super) fn hurry(&mut self, now: Time) {
        if self.holds() {
            self.again_at = Some(now);
        }
    }

    /// When the log is to be asked again.
    pub(super) fn again_at(&self) -> Option<Time> {
        // The log says something of all that is under way: that comes first.
        self.again_at.filter(|_| self.writes.iter().all(|w| !w.under_way))
    }

    /// The log is told to go on. Returns what it is asked for once more.
    pub(super) fn again(&mut self) -> impl Iterator<Item = (Ticket, Vec<Record>)> + '_ {
        self.again_at = None;
        self.writes.iter_mut().map(|write| {
            write.under_way = true;
            (write.ticket, write.records.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    fn asked(unwritten: &mut Unwritten) -> Vec<u64> {
        unwritten.again().map(|(ticket, _)| ticket.0).collect()
    }

    #[test]
    fn a_refused_write_is_asked_for_once_all_before_it_are_known() {
        let mut u = Unwritten::default();
        for ticket in 1..=3 {
            assert!(u.push(Ticket(ticket), &[]));
        }
        // On a full disk the log sheds what is not vital, and goes on with what is.
        u.refused(Ticket(2), at(10));
        assert_eq!(u.again_at(), None, "1 and 3 are under way");
        assert!(!u.push(Ticket(4), &[]), "it would be refused");
        u.refused(Ticket(3), at(11));
        assert_eq!(u.again_at(), None, "1 is under way");
        u.durable(Ticket(1));
        assert_eq!(u.again_at(), Some(at(10)));
        assert_eq!(asked(&mut u), [2, 3, 4]);
        assert!(!u.holds() && u.push(Ticket(5), &[]));
        u.durable(Ticket(5));
        assert!(asked(&mut u).is_empty());
    }

    #[test]
    fn what_is_written_last_does_not_wait_for_what_is_never_taken() {
        let mut u = Unwritten::default();
        u.push(Ticket(1), &[]);
        u.push(Ticket(2), &[]);
        u.refused(Ticket(2), at(10));
        assert!(!u.push(Ticket(3), &[]));
        assert_eq!(u.leave_only(Ticket(3)), Some(vec![]));
        assert!(!u.holds() && !u.lags());
        u.refused(Ticket(1), at(11));
        assert_eq!(u.again_at(), None, "nobody asks for it any more");
        u.durable(Ticket(3));
        assert_eq!(u.leave_only(Ticket(3)), None);
    }

    #[test]
    fn a_write_refused_after_later_ones_is_asked_for_with_them() {
        let mut u = Unwritten::default();
        for ticket in 1..=2 {
            u.push(Ticket(ticket), &[]);
        }
        u.refused(Ticket(2), at(10));
        u.hurry(at(5));
        u.refused(Ticket(1), at(12));
        assert_eq!(u.again_at(), Some(at(5)));
        assert_eq!(asked(&mut u), [1, 2]);
        assert_eq!(u.again_at(), None);
        assert!(u.lags(), "they are asked for, not written");
        u.durable(Ticket(1));
        assert!(u.lags());
        u.durable(Ticket(2));
        assert!(!u.lags());
    }
}
