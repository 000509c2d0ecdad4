//! Those who ask: clients of one object at a time, and one who watches a namespace.

use super::{Event, MS, OPERATIONS, PATIENCE, QUIET, SERVING, World};
use crate::checks::Checked;
use crate::checks::register::{Asked, Told};
use crate::client::{self, Heard, NAMESPACE};
use crate::keeper::EPOCH_MS;
use crate::ports::Bug;
use base::{CellId, Wall};
use node::cell::{Change, Input, Outcome, Reply, ReplyTo};
use objects::request::{Request, Verb};
use std::sync::Arc;

impl World {
    pub(super) fn client(&mut self, client: usize) {
        if self.clients[client].operation.is_none() {
            let most = if self.faults { OPERATIONS.1 } else { OPERATIONS.0 };
            if self.now >= QUIET {
                return;
            }
            let known: Vec<(Arc<str>, CellId)> = self.names.iter().map(|(n, c)| (n.clone(), *c)).collect();
            let own = known.iter().find(|(n, _)| &**n == NAMESPACE).filter(|_| self.dice.clients.below(2) == 0);
            let Some((namespace, cell)) = own.or_else(|| self.dice.clients.pick(&known)).cloned() else {
                return self.at(100 * MS, Event::Client { client });
            };
            if self.operations >= most {
                return self.at(100 * MS, Event::Client { client });
            }
            self.operations += 1;
            let wall = Wall(EPOCH_MS + self.now / MS);
            let floor = self.truths.get(&cell).map(|t| t.register.floor()).unwrap_or_default();
            let number = self.operations;
            // Mostly whoever answered last; not always, so that others are asked as well.
            let size = self.keepers.len() as u64;
            let any = self.dice.clients.below(size) as usize;
            let known = self.answers.get(&cell).filter(|_| self.dice.clients.below(4) > 0).copied();
            self.clients[client].target = known.unwrap_or(any);
            self.clients[client].begin(&mut self.dice.clients, number, wall, (namespace, cell), floor);
        } else {
            self.counts.retries += 1;
            // Everybody has their turn: by chance alone the one who leads may be missed for seconds.
            self.clients[client].target = (self.clients[client].target + 1) % self.keepers.len();
        }
        self.attempts += 1;
        let c = &mut self.clients[client];
        c.attempt = self.attempts;
        let (node, attempt) = (c.target, c.attempt);
        let Some(operation) = &c.operation else { return };
        let (request, cell) = (operation.request.clone(), operation.cell);
        let delay = self.dice.clients.range(1, 10);
        self.at(delay * MS, Event::Arrives { node, cell, attempt, request });
        self.at(PATIENCE, Event::Answered { client, attempt, heard: Heard::Again });
    }

    pub(super) fn arrives(&mut self, node: usize, cell: CellId, attempt: u64, request: Arc<Request>) -> Checked {
        // A caller that has gone has taken its request with it.
        let waits = self.clients.iter().any(|c| c.attempt == attempt) || self.watcher.attempt == attempt;
        if self.keepers[node].up.is_none() || !waits {
            return Ok(());
        }
        let Some(replica) = self.keepers[node].cell(cell) else {
            // Not kept there: whoever asked hears that much.
            self.answer(attempt, Heard::Again);
            return Ok(());
        };
        if self.bug == Bug::ReadWithoutQuorum && request.verb == Verb::Get {
            let key = format!("ConfigMap\0{}", request.name.as_deref().unwrap_or_default());
            let told = match replica.state().get(key.as_bytes()) {
                // The revision is the record's; stored bytes carry it too.
                Some(r) => client::told(200, &r.value),
                None => Told::Refused(404),
            };
            self.answer(attempt, Heard::Told(told));
            return Ok(());
        }
        self.tell(node, cell, Input::Request { to: ReplyTo(attempt), request })
    }

    pub(super) fn reply(&mut self, node: usize, reply: Reply) -> Checked {
        let attempt = reply.to.0;
        if self.answered_pods(attempt, &reply.outcome) {
            return Ok(());
        }
        if let Some(checked) = self.answered_gateway(attempt, &reply.outcome) {
            return checked;
        }
        if self.watcher.attempt == attempt {
            self.watcher.attempt = 0;
            match &reply.outcome {
                Outcome::Watch(opened) => {
                    let boot = self.keepers[node].boot;
                    if let Some(truth) = self.watcher.cell.and_then(|c| self.truths.get(&c)) {
                        self.watcher.open(&truth.applied, (node, boot), opened)?;
                    }
                }
                // The history is gone, or the answer is: from the state again.
                Outcome::Refused(s) if s.code == 410 => self.watcher.seen = None,
                _ => {}
            }
            return Ok(());
        }
        self.answer(attempt, client::heard(reply.outcome));
        Ok(())
    }

    fn answer(&mut self, attempt: u64, heard: Heard) {
        let Some(client) = self.clients.iter().position(|c| c.attempt == attempt) else { return };
        // The way back may lose it, and then the client asks again.
        if self.faults && self.dice.clients.happens(20_000) {
            return;
        }
        let delay = self.dice.clients.range(1, 10);
        self.at(delay * MS, Event::Answered { client, attempt, heard });
    }

    pub(super) fn answered(&mut self, client: usize, attempt: u64, heard: Heard) -> Checked {
        if self.clients[client].attempt != attempt {
            return Ok(());
        }
        self.clients[client].attempt = 0;
        let told = match heard {
            Heard::Told(told) => told,
            Heard::Again => {
                let pause = self.dice.clients.range(5, 200);
                self.at(pause * MS, Event::Client { client });
                return Ok(());
            }
        };
        let Some(operation) = self.clients[client].operation.take() else { return Ok(()) };
        self.answers.insert(operation.cell, self.clients[client].target);
        let Some(truth) = self.truths.get_mut(&operation.cell) else { return Ok(()) };
        truth.acknowledged.told(&truth.applied, &operation.asked, &told)?;
        truth.register.told(&truth.applied, &operation.name, &operation.asked, &told, operation.floor)?;
        self.clients[client].learn(&operation, &told);
        match (&told, &operation.asked) {
            (Told::Refused(_), _) => self.counts.refusals += 1,
            (_, Asked::Get | Asked::List) => self.counts.reads += 1,
            _ => self.counts.writes += 1,
        }
        if self.now >= SERVING && !matches!(told, Told::Refused(503 | 504 | 429)) {
            self.served += 1;
        }
        // Without faults slower, so that the operations left last to the end.
        let pause = if self.faults { self.dice.clients.range(20, 200) } else { self.dice.clients.range(100, 400) };
        self.at(pause * MS, Event::Client { client });
        Ok(())
    }

    pub(super) fn watch(&mut self) {
        self.at(250 * MS, Event::Watch);
        let Some(cell) = self.names.get(NAMESPACE).copied().filter(|_| self.watcher.at.is_none()) else { return };
        self.attempts += 1;
        self.watcher.cell = Some(cell);
        self.watcher.attempt = self.attempts;
        let node = self.dice.clients.below(self.keepers.len() as u64) as usize;
        let wall = Wall(EPOCH_MS + self.now / MS);
        let request = client::watch(&mut self.dice.clients, wall, self.watcher.seen);
        let arrives = Event::Arrives { node, cell, attempt: self.attempts, request: Arc::new(request) };
        self.at(MS, arrives);
    }

    /// The watch ends, if it was open there: it is to be opened again.
    pub(super) fn unwatch(&mut self, node: usize, cell: Option<CellId>) {
        self.unwatch_nodes(node, cell);
        let concerned = cell.is_none() || self.watcher.cell == cell;
        if concerned && self.watcher.at.is_some_and(|a| a.0 == node) {
            self.watcher.end();
        }
    }

    pub(super) fn events(&mut self, node: usize, cell: CellId, changes: &[Change]) -> Checked {
        let own = self.watcher.cell == Some(cell) && self.watcher.at == Some((node, self.keepers[node].boot));
        let Some(truth) = self.truths.get(&cell).filter(|_| own) else { return Ok(()) };
        self.events += 1;
        if self.bug == Bug::EventLost && self.events.is_multiple_of(20) {
            return Ok(());
        }
        self.watcher.hear(&truth.applied, changes)
    }
}
