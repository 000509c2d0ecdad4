//! A queue with a bound, and an answer when it is reached.

use alloc::collections::VecDeque;

/// A first-in first-out queue of at most `bound` items. What does not fit is handed back, so that the
/// caller must answer for it.
#[derive(Clone, Debug)]
pub struct Bounded<T> {
    items: VecDeque<T>,
    bound: usize,
}

impl<T> Bounded<T> {
    /// An empty queue for at most `bound` items.
    pub const fn new(bound: usize) -> Bounded<T> {
        Bounded { items: VecDeque::new(), bound }
    }

    /// Appends `item`.
    ///
    /// # Errors
    /// The item itself, if the queue is full; the queue is unchanged.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.items.len() >= self.bound {
            return Err(item);
        }
        self.items.push_back(item);
        Ok(())
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// The oldest item, left in place.
    pub fn front(&self) -> Option<&T> {
        self.items.front()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether the next push would be refused.
    pub fn is_full(&self) -> bool {
        self.items.len() >= self.bound
    }

    /// The bound.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// All items from oldest to newest.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    /// Removes and returns every item.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.items.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_hands_the_item_back_and_keeps_the_rest() {
        let mut q = Bounded::new(2);
        assert_eq!((q.push(1), q.push(2), q.push(3)), (Ok(()), Ok(()), Err(3)));
        assert!(q.is_full());
        assert_eq!((q.pop(), q.push(4)), (Some(1), Ok(())));
        assert_eq!(q.drain().collect::<alloc::vec::Vec<_>>(), [2, 4]);
    }
}
