//! The order in which a pod's operations are performed.

use super::Runtime;
use base::runtime::{Answer, Failure, Op, Why};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// How many operations of one pod may wait.
pub(super) const WAITING_MAX: usize = 256;

/// What is asked, and whom to tell what it came to.
type Asked = (Op, Reply);
type Reply = Box<dyn FnOnce(Result<Answer, Failure>) + Send>;

/// One queue a pod, as long as it has something to do.
#[derive(Default)]
pub(super) struct Queues {
    pods: Mutex<BTreeMap<String, Queue<Asked>>>,
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queues").finish_non_exhaustive()
    }
}

impl Queues {
    pub(super) fn submit(&self, runtime: &Arc<Runtime>, pod: &str, op: Op, reply: Reply) {
        let Some(company) = company(&op) else {
            let runtime = runtime.clone();
            tokio::spawn(async move { reply(runtime.perform(op).await) });
            return;
        };
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = pods.entry(pod.to_owned()).or_default();
        if queue.waiting.len() >= WAITING_MAX {
            drop(pods);
            let message = format!("{WAITING_MAX} operations wait for pod {pod}: this one was not begun");
            return reply(Err(Failure { why: Why::Failed, message }));
        }
        queue.waiting.push_back((company, (op, reply)));
        let ready = queue.ready();
        drop(pods);
        ready.into_iter().for_each(|(op, reply)| self.begin(runtime, pod, op, reply));
    }

    fn begin(&self, runtime: &Arc<Runtime>, pod: &str, op: Op, reply: Reply) {
        let (runtime, pod) = (runtime.clone(), pod.to_owned());
        tokio::spawn(async move {
            reply(runtime.perform(op).await);
            let queues = &runtime.queues;
            let mut pods = queues.pods.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(queue) = pods.get_mut(&pod) else { return };
            queue.running -= 1;
            let ready = queue.ready();
            if queue.running == 0 {
                pods.remove(&pod);
            }
            drop(pods);
            ready.into_iter().for_each(|(op, reply)| queues.begin(&runtime, &pod, op, reply));
        });
    }
}

/// With whom an operation may be performed at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Company {
    /// With nobody.
    Alone,
    /// With others of its kind: the graces of containers that stop run side by side.
    Stops,
}

/// `None` for what waits for nobody.
fn company(op: &Op) -> Option<Company> {
    match op {
        Op::FindImage { .. }
        | Op::PullImage { .. }
        | Op::Exec { .. }
        | Op::Http { .. }
        | Op::Tcp { .. }
        | Op::Grpc { .. }
        | Op::Measure { .. }
        | Op::Tail { .. } => None,
        Op::StopContainer { .. } => Some(Company::Stops),
        Op::Volumes { .. }
        | Op::File { .. }
        | Op::EmptyMemory { .. }
        | Op::RemovePod { .. }
        | Op::RunSandbox(_)
        | Op::StopSandbox { .. }
        | Op::RemoveSandbox { .. }
        | Op::CreateContainer { .. }
        | Op::StartContainer { .. }
        | Op::RemoveContainer { .. } => Some(Company::Alone),
    }
}

/// What waits and how many are performed.
struct Queue<T> {
    waiting: VecDeque<(Company, T)>,
    running: usize,
    /// What those who run are.
    company: Company,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { waiting: VecDeque::new(), running: 0, company: Company::Alone }
    }
}

impl<T> Queue<T> {
    /// Takes out what may begin now; it counts as running.
    fn ready(&mut self) -> Vec<T> {
        let mut ready = Vec::new();
        while let Some((company, _)) = self.waiting.front() {
            let together = *company == Company::Stops && self.company == Company::Stops;
            if self.running > 0 && !together {
                break;
            }
            self.company = *company;
            self.running += 1;
            ready.extend(self.waiting.pop_front().map(|(_, work)| work));
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_after_the_other_but_stops_side_by_side() {
        use Company::{Alone, Stops};
        let mut queue = Queue::default();
        let work = [(Alone, "create"), (Alone, "start"), (Stops, "stop a"), (Stops, "stop b"), (Alone, "remove a")];
        queue.waiting.extend(work);
        let end = |queue: &mut Queue<&'static str>| {
            queue.running -= 1;
            queue.ready()
        };
        assert_eq!(queue.ready(), ["create"]);
        assert!(queue.ready().is_empty());
        assert_eq!(end(&mut queue), ["start"]);
        assert_eq!(end(&mut queue), ["stop a", "stop b"]);
        queue.waiting.push_back((Stops, "stop c"));
        assert!(end(&mut queue).is_empty(), "one of two has stopped, and what removes it waits for the other");
        assert_eq!(end(&mut queue), ["remove a"]);
        assert_eq!(end(&mut queue), ["stop c"]);
        assert!(end(&mut queue).is_empty() && queue.running == 0);
    }
}
