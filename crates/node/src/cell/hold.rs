//! Answers that may not leave yet: they rest on entries in flight, or on a leadership to be confirmed.

use std::collections::BTreeMap;

/// An answer and what it waits for.
pub(super) struct Held<T> {
    /// The newest entry in flight it was decided on.
    pub(super) after: Option<u64>,
    /// The read that confirms leadership.
    pub(super) read: Option<u64>,
    /// The answer.
    pub(super) answer: T,
}

/// All answers held, each released once both its conditions are met.
pub(super) struct Hold<T> {
    next: u64,
    held: BTreeMap<u64, Held<T>>,
}

impl<T> Default for Hold<T> {
    fn default() -> Self {
        Hold { next: 0, held: BTreeMap::new() }
    }
}

impl<T> Hold<T> {
    /// Holds an answer. One that waits for nothing is released by the next call.
    pub(super) fn push(&mut self, held: Held<T>) {
        self.held.insert(self.next, held);
        self.next += 1;
    }

    /// Entries up to `entry` are applied.
    pub(super) fn applied(&mut self, entry: u64) -> Vec<T> {
        self.settle(|h| {
            if h.after.is_some_and(|a| a <= entry) {
                h.after = None;
            }
        })
    }

    /// Entry `entry` will never be applied, or changed nothing: the answers that rest on it are not true, and
    /// are taken out.
    pub(super) fn fell(&mut self, entry: u64) -> Vec<T> {
        // It was in flight until now, so whatever rests on a later one was decided on it, too.
        self.take(|h| h.after.is_some_and(|a| a >= entry))
    }

    /// Leadership was confirmed after reads up to `read` were asked for.
    pub(super) fn confirmed(&mut self, read: u64) -> Vec<T> {
        self.settle(|h| {
            if h.read.is_some_and(|r| r <= read) {
                h.read = None;
            }
        })
    }

    /// The read could not be confirmed: those that wait for it may not be given.
    pub(super) fn refused(&mut self, read: u64) -> Vec<T> {
        self.take(|h| h.read == Some(read))
    }

    /// Leadership is gone: none of them may be given.
    pub(super) fn clear(&mut self) -> Vec<T> {
        std::mem::take(&mut self.held).into_values().map(|h| h.answer).collect()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    fn take(&mut self, which: impl Fn(&Held<T>) -> bool) -> Vec<T> {
        let ids: Vec<u64> = self.held.iter().filter(|(_, h)| which(h)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.held.remove(&id)).map(|h| h.answer).collect()
    }

    fn settle(&mut self, mut change: impl FnMut(&mut Held<T>)) -> Vec<T> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let mut ready = Vec::new();
        for (id, h) in &mut self.held {
            change(h);
            if h.after.is_none() && h.read.is_none() {
                ready.push(*id);
            }
        }
        ready.into_iter().filter_map(|id| self.held.remove(&id)).map(|h| h.answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_leaves_once_both_its_entries_and_its_leadership_are_certain() {
        let mut h = Hold::default();
        h.push(Held { after: Some(5), read: Some(1), answer: "both" });
        h.push(Held { after: None, read: Some(2), answer: "read" });
        h.push(Held { after: Some(6), read: None, answer: "entry" });
        assert_eq!(h.applied(5), [""; 0]);
        assert_eq!(h.confirmed(1), ["both"]);
        assert_eq!(h.confirmed(2), ["read"]);
        assert_eq!(h.applied(9), ["entry"]);
        h.push(Held { after: Some(10), read: None, answer: "late" });
        assert_eq!((h.clear(), h.len()), (vec!["late"], 0));
    }

    #[test]
    fn an_answer_falls_with_any_entry_it_was_decided_on() {
        let mut h = Hold::default();
        h.push(Held { after: Some(1), read: Some(1), answer: "before" });
        h.push(Held { after: Some(2), read: Some(1), answer: "on it" });
        h.push(Held { after: Some(3), read: Some(1), answer: "on a later one" });
        h.push(Held { after: None, read: Some(1), answer: "on what is committed" });
        assert_eq!(h.fell(2), ["on it", "on a later one"]);
        assert_eq!(h.applied(9), [""; 0]);
        assert_eq!(h.confirmed(1), ["before", "on what is committed"]);
    }
}
