//! Where a machine sits: an inbox with a bound, and whoever posts to an idle machine steps it on its
//! own thread.
//!
//! A request does not hop: the connection's thread that posts it runs the cell's step, and the log's
//! thread that reports a commit runs the apply. A machine that is already being stepped by another
//! thread gets the input queued and that thread takes it along. So no machine needs a thread, and
//! thousands of idle ones cost their bytes only.

use base::{Now, Time};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A pure machine with the four doors.
pub(crate) trait Machine: Send + 'static {
    /// What it is told.
    type Input: Send;
    /// What it wants done.
    type Effect: Send;
    /// What it is called.
    type Id: Copy + Send + Sync;
    /// One bounded step.
    fn step(&mut self, now: Now, input: Self::Input, effects: &mut Vec<Self::Effect>);
    /// The moment it wants to be stepped without any other input; `None` for never.
    fn next_deadline(&self) -> Option<Time>;
    /// Asserts its invariants; O(what the last step changed).
    fn check(&self);
}

/// The time, for all machines that are called by an `Id`.
pub(crate) trait Times<Id>: Send + Sync + 'static {
    /// The present.
    fn now(&self) -> Now;
    /// The machine's deadline is now this.
    fn wake_at(&self, id: Id, deadline: Option<Time>);
}

/// What a seat needs of the world.
pub(crate) trait World<M: Machine>: Times<M::Id> {
    /// Does what the machine asked for. Called in the order the effects were emitted, on the stepping
    /// thread; must not block. May post to any seat.
    fn perform(&self, seat: &Arc<Seat<M>>, effects: &mut Vec<M::Effect>);
}

/// A machine, its inbox and its world.
pub(crate) struct Seat<M: Machine> {
    id: M::Id,
    inbox: Mutex<Inbox<M::Input>>,
    machine: Mutex<Stepped<M>>,
    world: Arc<dyn World<M>>,
    bound: usize,
}

struct Inbox<I> {
    waiting: VecDeque<I>,
    /// A thread is stepping the machine, or is about to, and will look here again before it stops.
    taken: bool,
}

struct Stepped<M: Machine> {
    machine: M,
    effects: Vec<M::Effect>,
    deadline: Option<Time>,
}

impl<M: Machine> Seat<M> {
    /// Seats a machine whose inbox holds `bound` refusable inputs.
    pub(crate) fn new(id: M::Id, machine: M, world: Arc<dyn World<M>>, bound: usize) -> Arc<Seat<M>> {
        Arc::new(Seat {
            id,
            inbox: Mutex::new(Inbox { waiting: VecDeque::new(), taken: false }),
            machine: Mutex::new(Stepped { machine, effects: Vec::new(), deadline: None }),
            world,
            bound,
        })
    }

    /// What the machine is called.
    pub(crate) fn id(&self) -> M::Id {
        self.id
    }

    /// Posts an input that may be refused.
    ///
    /// # Errors
    /// The input itself if the inbox is full: the sender answers "busy".
    pub(crate) fn offer(self: &Arc<Self>, input: M::Input) -> Result<(), M::Input> {
        {
            let mut inbox = lock(&self.inbox);
            if inbox.waiting.len() >= self.bound {
                return Err(input);
            }
            inbox.waiting.push_back(input);
            if inbox.taken {
                return Ok(());
            }
            inbox.taken = true;
        }
        run(self.clone());
        Ok(())
    }

    /// Posts an input that must arrive: a completion, of which there are never more than the machine
    /// itself asked for, or news whose sender keeps at most one in flight.
    pub(crate) fn post(self: &Arc<Self>, input: M::Input) {
        {
            let mut inbox = lock(&self.inbox);
            inbox.waiting.push_back(input);
            if inbox.taken {
                return;
            }
            inbox.taken = true;
        }
        run(self.clone());
    }

    /// Looks at the machine between two steps. For status pages; waits for a step that is under way.
    pub(crate) fn look<R>(&self, f: impl FnOnce(&M) -> R) -> R {
        f(&lock(&self.machine).machine)
    }

    fn drain(self: &Arc<Self>) {
        let mut stepped = lock(&self.machine);
        loop {
            let batch = {
                let mut inbox = lock(&self.inbox);
                if inbox.waiting.is_empty() {
                    inbox.taken = false;
                    break;
                }
                std::mem::take(&mut inbox.waiting)
            };
            let stepped = &mut *stepped;
            for input in batch {
                stepped.machine.step(self.world.now(), input, &mut stepped.effects);
                if cfg!(debug_assertions) {
                    stepped.machine.check();
                }
                if !stepped.effects.is_empty() {
                    self.world.perform(self, &mut stepped.effects);
                    debug_assert!(stepped.effects.is_empty(), "an effect was left undone");
                }
            }
            let deadline = stepped.machine.next_deadline();
            if deadline != stepped.deadline {
                stepped.deadline = deadline;
                self.world.wake_at(self.id, deadline);
            }
        }
    }
}

/// A machine that panicked has broken an invariant of ours; its process is ended by the panic hook, so
/// a poisoned lock is never seen by a thread that could go on.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

trait Runnable: Send {
    fn run(self: Box<Self>);
}

struct Turn<M: Machine>(Arc<Seat<M>>);

impl<M: Machine> Runnable for Turn<M> {
    fn run(self: Box<Self>) {
        self.0.drain();
    }
}

thread_local! {
    /// The turns this thread has taken on. Machines post to one another while being stepped: the turns
    /// run one after the other, not inside one another, so the stack stays flat and no machine is ever
    /// re-entered.
    static TURNS: RefCell<Option<VecDeque<Box<dyn Runnable>>>> = const { RefCell::new(None) };
}

fn run<M: Machine>(seat: Arc<Seat<M>>) {
    let nested = TURNS.with_borrow_mut(|turns| match turns {
        Some(waiting) => {
            waiting.push_back(Box::new(Turn(seat.clone())));
            true
        }
        None => {
            *turns = Some(VecDeque::new());
            false
        }
    });
    if nested {
        return;
    }
    seat.drain();
    loop {
        let next = TURNS.with_borrow_mut(|turns| match turns.as_mut().and_then(VecDeque::pop_front) {
            Some(turn) => Some(turn),
            None => {
                *turns = None;
                None
            }
        });
        match next {
            Some(turn) => turn.run(),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Passes a number on to its peer until it is 0.
    struct Bouncer {
        seen: u64,
    }
    enum Said {
        Pass(u64),
    }
    impl Machine for Bouncer {
        type Input = u64;
        type Effect = Said;
        type Id = ();
        fn step(&mut self, _now: Now, n: u64, effects: &mut Vec<Said>) {
            self.seen += 1;
            if n > 0 {
                effects.push(Said::Pass(n - 1));
            }
        }
        fn next_deadline(&self) -> Option<Time> {
            None
        }
        fn check(&self) {}
    }

    #[derive(Default)]
    struct Table {
        peers: Mutex<Vec<Arc<Seat<Bouncer>>>>,
        depth: AtomicU64,
        deepest: AtomicU64,
    }
    impl Times<()> for Table {
        fn now(&self) -> Now {
            Now::default()
        }
        fn wake_at(&self, (): (), _: Option<Time>) {}
    }
    impl World<Bouncer> for Table {
        fn perform(&self, seat: &Arc<Seat<Bouncer>>, effects: &mut Vec<Said>) {
            let depth = self.depth.fetch_add(1, Ordering::SeqCst) + 1;
            self.deepest.fetch_max(depth, Ordering::SeqCst);
            for Said::Pass(n) in effects.drain(..) {
                let peer = self.peers.lock().unwrap().iter().find(|p| !Arc::ptr_eq(p, seat)).cloned();
                peer.unwrap().post(n);
            }
            self.depth.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn machines_that_post_to_each_other_take_turns_on_one_flat_stack() {
        let table = Arc::new(Table::default());
        let a = Seat::new((), Bouncer { seen: 0 }, table.clone(), 10);
        let b = Seat::new((), Bouncer { seen: 0 }, table.clone(), 10);
        table.peers.lock().unwrap().extend([a.clone(), b.clone()]);
        a.post(100_000);
        assert_eq!((a.look(|m| m.seen), b.look(|m| m.seen)), (50_001, 50_000));
        assert_eq!(table.deepest.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn every_input_posted_from_many_threads_is_stepped_once() {
        let table = Arc::new(Table::default());
        let a = Seat::new((), Bouncer { seen: 0 }, table, usize::MAX);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..10_000).for_each(|_| a.post(0)));
            }
        });
        assert_eq!(a.look(|m| m.seen), 40_000);
    }

    #[test]
    fn an_offer_to_a_full_inbox_comes_back() {
        let table = Arc::new(Table::default());
        let a = Seat::new((), Bouncer { seen: 0 }, table, 0);
        assert_eq!(a.offer(7), Err(7));
        assert_eq!(a.look(|m| m.seen), 0);
    }
}
