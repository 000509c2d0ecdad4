//! One replica of one cell: from a request to its answer.
//!
//! On the leader a request is decided in one visit, on committed state plus the leader's own entries in
//! flight, by `objects`' pure functions. What it decides is proposed as one entry that holds results;
//! the entry is answered when it has been committed and applied here. A refusal, a read, a write that
//! changes nothing are reads: they are answered once every entry they rest on is applied and
//! leadership is confirmed. Elsewhere than on the leader a request comes back as [`Outcome::NotLeader`].
//!
//! One voter or five, one machine or many: the same path.

mod apply;
mod close;
mod flight;
mod founding;
mod hold;
mod keepers;
mod outcome;
mod proposed;
mod purpose;
mod records;
mod request;
mod room;
mod unwritten;

pub use outcome::{Opened, Outcome, Reply, Subscription};
pub use purpose::Purpose;
pub use records::{Change, Kept, Lying, Objects, Snapshot};

use crate::bundle::Bundle;
use crate::genesis::Genesis;
use agree::cell::{self as agreed, Member};
use agree::descriptor::Keeper;
use agree::heartbeat;
use agree::log::{Record as LogRecord, Ticket};
use agree::raft::{self, CallId, FollowId};
use base::{CellId, Chance, NodeId, Now, ReplicaId, Revision, Time};
use flight::Flight;
use hold::Hold;
use objects::decision::Answer;
use objects::request::{Config as Settings, Request};
use proposed::Proposed;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use unwritten::Unwritten;

/// What a cell is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// Cluster-scoped objects but Nodes; its commits make the bundle.
    Root,
    /// The Nodes of a hive.
    Registry,
    /// The objects of one namespace.
    Namespace(Arc<str>),
}

/// Which waiting caller an answer is for. Chosen by the driver, unique while it waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplyTo(pub u64);

/// What a cell is told.
pub enum Input {
    /// Time has passed.
    Tick,
    /// Somebody wants something.
    Request {
        /// Whom to answer.
        to: ReplyTo,
        /// What they want.
        request: Arc<Request>,
    },
    /// Somebody reads over many cells: promise to mint nothing at or below `at` any more, and show what
    /// there is of a resource at that revision (architecture, 5.5).
    Collect {
        /// Whom to answer.
        to: ReplyTo,
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// The revision.
        at: Revision,
        /// Not the state, but what happened after this revision, up to `at`.
        after: Option<Revision>,
    },
    /// Promise to mint nothing at or below `at` any more. Answered by [`Effect::Closed`], or not at all by a
    /// cell that does not lead here; one whose clock is far behind promises up to its own present.
    Close {
        /// The revision.
        at: Revision,
    },
    /// Tell the changes of a resource from now on, and those after this revision first. Answered by
    /// [`Effect::Subscribed`].
    Subscribe {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// What was told before; `None` for whatever comes.
        after: Option<Revision>,
    },
    /// Everything persisted up to this ticket is on the disk.
    Durable(Ticket),
    /// The log had no room: it has not written this ticket and will not unless asked again, and says the same of
    /// every later one. Of earlier ones it may say it later, or that they are durable.
    NotWritten(Ticket),
    /// Whether the disk has room for more than votes, deletes and compaction.
    Space {
        /// It has.
        ample: bool,
    },
    /// From another replica of this cell, by the node it lives on.
    Message {
        /// The node that is proven to be at the other end.
        from: NodeId,
        /// What it says.
        message: raft::Message,
    },
    /// Let these keep the cell from now on. Nothing happens unless it leads here and no other change is under way; what
    /// became of it is told by [`Effect::Kept`].
    Keep {
        /// The epoch of the descriptor that this was decided on: of another one nothing is changed.
        epoch: u64,
        /// All of them, this one among them unless it is to go.
        keepers: Vec<Keeper>,
    },
    /// This node keeps the cell no more, and a quorum of those who do says so: forget it. Answered by
    /// [`Effect::Ended`].
    End,
    /// From the machines that share heartbeats with other nodes.
    Heartbeat(raft::Input),
    /// A newer bundle.
    Bundle(Arc<Bundle>),
    /// Nobody behind this gateway wants the resource any longer, as far as it knows.
    Unsubscribe {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// The last watch it knows of: one that was opened since is not unsubscribed.
        serial: u64,
    },
    /// Say up to where everything of the resource has been told.
    Progress(Arc<str>),
    /// These records of the cell lie in a segment that the log wants to give up. Answered by
    /// [`Effect::Carried`].
    Rewrite {
        /// Names the question.
        question: u64,
        /// The segment: several questions may be asked of one.
        segment: u64,
        /// The records.
        records: Vec<LogRecord>,
    },
}

/// What a cell wants done, in this order.
pub enum Effect {
    /// Answer somebody.
    Reply(Reply),
    /// Write these records to the log after those of every earlier ticket, and say [`Input::Durable`].
    Persist {
        /// Names this write.
        ticket: Ticket,
        /// In this order.
        records: Vec<LogRecord>,
        /// Served from the reserve when the disk is full.
        vital: bool,
    },
    /// The refusal of a write was seen: what is persisted from here on is to be written.
    Resume,
    /// The answer to [`Input::Rewrite`] while what the cell wrote before waits for the log: to be asked again.
    CarriedLater {
        /// The question.
        question: u64,
    },
    /// The answer to [`Input::Rewrite`]: what is still live, to be written as vital.
    Carried {
        /// The question.
        question: u64,
        /// Names this write.
        ticket: Ticket,
        /// In this order.
        records: Vec<LogRecord>,
    },
    /// The cell holds this many live bytes in the log.
    Live {
        /// How many.
        bytes: u64,
    },
    /// Send to a node. May be lost.
    Send {
        /// The node.
        to: NodeId,
        /// The message.
        message: raft::Message,
    },
    /// To the machine that shares a heartbeat with that node.
    Pair {
        /// The node.
        node: NodeId,
        /// What it is told.
        input: heartbeat::Input,
    },
    /// Who keeps the cell has changed, here, or is known from a snapshot.
    Kept(agreed::Keepers),
    /// Nothing is left of the cell on this node: it may be dropped.
    Ended,
    /// A member says that it has lost what it acknowledged: another life has to take its place.
    KeeperLossy {
        /// The member.
        replica: ReplicaId,
    },
    /// Root's configuration is now this; tell every cell.
    Bundle(Arc<Bundle>),
    /// These changes of a subscribed resource were committed, in order.
    Events {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// What changed.
        changes: Arc<[Change]>,
    },
    /// An entry was applied while the cell leads here: what its controllers and its scheduling work on.
    /// Told in the order of the log, and only between [`Effect::Leading`] true and false; what there was
    /// before is in `objects` of the first.
    Committed {
        /// The term it leads in: greater than that of every leader before.
        term: u64,
        /// All objects, as they are after it, or after a later entry of the same batch.
        objects: Objects,
        /// What changed; nothing, when the cell has just begun to lead, and when the entry only binds to a
        /// bundle.
        changes: Arc<[Change]>,
    },
    /// The answer to [`Input::Subscribe`].
    Subscribed {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// As it was asked for.
        after: Option<Revision>,
        /// How the subscription begins.
        begin: Subscription,
    },
    /// Nothing at or below this revision is still to come, and all that was has been told.
    Closed {
        /// The revision.
        revision: Revision,
    },
    /// Everything of the resource up to this revision has been told.
    Progress {
        /// The resource's storage group-kind.
        storage: Arc<str>,
        /// The revision.
        revision: Revision,
    },
    /// The state was replaced by a leader's snapshot: whoever watches begins anew.
    Replaced,
    /// The cell leads here and takes requests, or does so no more.
    Leading(bool),
    /// An entry of the log cannot be read by this release: this member has stopped, before it.
    Stopped {
        /// Why.
        why: String,
    },
}

/// How a cell behaves.
#[derive(Clone)]
pub struct Config {
    /// Its id.
    pub cell: CellId,
    /// What it is for.
    pub role: Role,
    /// Root's revision that named it ([`Purpose::since`]).
    pub since: Revision,
    /// This node.
    pub node: NodeId,
    /// This life of this member.
    pub replica: ReplicaId,
    /// The cell's founding keepers, this one among them; nobody, if it is told by others who they are.
    pub founders: Vec<Keeper>,
    /// The replica's own settings.
    pub raft: raft::Config,
    /// Settings of the mesh that decisions depend on.
    pub settings: Arc<Settings>,
    /// At most this many requests wait; the next is [`Outcome::Busy`].
    pub waiting_max: usize,
    /// How long a read of a revision that is not there yet waits for it.
    pub future: core::time::Duration,
    /// A leader whose clock ran this far ahead of its wall takes no writes until the wall has caught up.
    pub ahead_ms_max: u64,
}

impl Config {
    /// The defaults of architecture, sections 4 and 5.3, for a cell of one member that root does not name.
    pub fn new(cell: CellId, role: Role, node: NodeId, settings: Arc<Settings>) -> Config {
        let replica = ReplicaId(1);
        Config {
            cell,
            role,
            since: Revision::ZERO,
            node,
            replica,
            founders: vec![Keeper { replica, node, votes: true }],
            raft: raft::Config::new(cell, replica),
            settings,
            waiting_max: 1024,
            future: core::time::Duration::from_secs(3),
            ahead_ms_max: 500,
        }
    }

    /// The same of a member that is in this life.
    #[must_use]
    pub fn in_life(self, replica: ReplicaId) -> Config {
        Config { replica, raft: raft::Config { replica, ..self.raft }, ..self }
    }

    fn agreed(&self) -> agreed::Config {
        let mut c = agreed::Config::new(self.cell, self.replica, self.node);
        c.purpose = Purpose { role: self.role.clone(), since: self.since }.encode();
        // Events come in storms: they must not push out what others watch.
        c.history.own.insert("Event".into(), (core::time::Duration::from_secs(300), 8 << 20));
        c
    }
}

/// What the log held of a cell when the node started.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its records, in log order.
    pub records: Vec<LogRecord>,
    /// Some that were acknowledged are missing.
    pub lossy: bool,
}

/// A request and who waits for its answer.
struct Asked {
    to: ReplyTo,
    /// To decide again, if what it was decided on did not come to be, and how often that has happened.
    request: Arc<Request>,
    tries: u32,
}

/// An answer that waits for what it rests on.
struct Pending {
    asked: Asked,
    finding: Finding,
}

/// What a decision came to that changes nothing.
enum Finding {
    Done(Answer),
    Refused(Box<objects::status::Status>),
    Other(Box<Outcome>),
    List(objects::read::ListPlan),
    Watch(objects::read::WatchPlan),
}

/// A proposal whose caller waits.
struct Waiting {
    asked: Asked,
    answer: Answer,
}

/// A read of a revision that is not there yet.
struct Future {
    to: ReplyTo,
    request: Arc<Request>,
    asked: Revision,
    until: Time,
}

/// A read over many cells that waits for this one to be closed.
struct Collect {
    to: ReplyTo,
    storage: Arc<str>,
    at: Revision,
    after: Option<Revision>,
}

/// One replica of one cell.
pub struct Cell {
    config: Config,
    member: Member,
    member_effects: Vec<agreed::Effect>,
    bundle: Arc<Bundle>,
    /// Of root: the number of the bundle that was told last.
    bundle_told: Revision,
    genesis: Option<Genesis>,
    leading: bool,
    /// The term it leads in, or last led in.
    term: u64,
    /// The change of its Namespace that an entry of this leadership, applied or not, binds to.
    bound: u64,
    /// Such an entry was proposed and not taken: it is to be proposed again.
    rebind: bool,
    /// The disk has room for everything.
    ample: bool,
    next_call: u64,
    flight: Flight,
    proposed: Proposed,
    hold: Hold<Pending>,
    futures: Vec<Future>,
    collects: Vec<Collect>,
    /// Nothing at or below this is still to come, and all that was is applied here.
    closed: Revision,
    /// The same of a promise whose entries are not all applied yet, and the last of them.
    closing: Option<(Revision, u64)>,
    /// The highest revision it was asked to close, by [`Input::Close`].
    to_close: Revision,
    /// Resources somebody watches, and the last watch opened of each.
    subscribed: BTreeMap<Arc<str>, u64>,
    next_watch: u64,
    /// Messages that rest on a write which is not durable yet.
    outbox: VecDeque<(Ticket, raft::Message)>,
    /// Writes not durable yet: asked for again if the log had no room.
    unwritten: Unwritten,
    durable: Ticket,
    /// The write by which this life is forgotten.
    over: Option<Ticket>,
    /// Where replicas live that the log does not name yet.
    heard: keepers::Heard,
    /// Where those are who are led, and the leaders that were followed: it is told there when it is over.
    led: BTreeMap<ReplicaId, NodeId>,
    followed: BTreeMap<FollowId, NodeId>,
    /// Live bytes as last told to the log.
    live_told: u64,
}

impl Cell {
    /// The member as it was when it stopped, or a founding one with the genesis its first leader commits.
    ///
    /// # Errors
    /// What was found cannot be gone on from; nothing was changed.
    pub fn new(
        config: Config,
        found: Option<Found>,
        bundle: Arc<Bundle>,
        genesis: Option<Genesis>,
        chance: &Chance,
        now: Now,
    ) -> Result<Cell, agreed::member::Error> {
        let raft = config.raft.clone();
        let member = match found {
            Some(f) => Member::recover(config.agreed(), raft, &f.records, f.lossy, chance, now)?,
            None if config.founders.is_empty() => Member::join(config.agreed(), raft, chance, now)?,
            None => {
                let keepers = agreed::Keepers::founding(config.cell, config.founders.clone());
                Member::found(config.agreed(), raft, keepers, chance, now)?
            }
        };
        let mut cell = Cell {
            config,
            member,
            member_effects: Vec::new(),
            bundle,
            bundle_told: Revision::ZERO,
            genesis,
            leading: false,
            term: 0,
            bound: 0,
            rebind: false,
            ample: true,
            next_call: 1,
            flight: Flight::default(),
            proposed: Proposed::default(),
            hold: Hold::default(),
            futures: Vec::new(),
            collects: Vec::new(),
            closed: Revision::ZERO,
            closing: None,
            to_close: Revision::ZERO,
            subscribed: BTreeMap::new(),
            next_watch: 0,
            outbox: VecDeque::new(),
            unwritten: Unwritten::default(),
            durable: Ticket(0),
            over: None,
            heard: keepers::Heard::default(),
            led: BTreeMap::new(),
            followed: BTreeMap::new(),
            live_told: 0,
        };
        cell.make_bundle();
        Ok(cell)
    }

    /// One bounded step.
    pub fn step(&mut self, now: Now, input: Input, fx: &mut Vec<Effect>) {
        match input {
            Input::Tick => {
                self.write_again(now, fx);
                self.raft(now, raft::Input::Tick);
            }
            Input::Request { to, request } => self.on_request(now, to, request, fx),
            Input::Collect { to, storage, at, after } => {
                self.on_collect(now, Collect { to, storage, at, after }, fx);
            }
            Input::Close { at } => self.on_close(now, at, fx),
            Input::Subscribe { storage, after } => self.on_subscribe(storage, after, fx),
            Input::Durable(ticket) => self.on_durable(now, ticket, fx),
            Input::NotWritten(ticket) => self.unwritten.refused(ticket, now.mono + apply::WRITE_AGAIN),
            Input::Space { ample } => self.on_space(now, ample),
            Input::Message { from, message } => self.on_message(now, from, message),
            Input::End if self.over.is_some() => {}
            Input::End => self.member.step(now, agreed::Input::End, &mut self.member_effects),
            Input::Keep { epoch, keepers } => self.on_keep(now, epoch, &keepers),
            Input::Heartbeat(input) => {
                if let raft::Input::Unfollowed { id, .. } = input {
                    self.followed.remove(&id);
                }
                self.raft(now, input);
            }
            Input::Bundle(bundle) => {
                if bundle.number() > self.bundle.number() {
                    self.bundle = bundle;
                    self.bind(now);
                }
            }
            Input::Unsubscribe { storage, serial } => {
                if self.subscribed.get(&storage).is_some_and(|newest| *newest <= serial) {
                    self.subscribed.remove(&storage);
                }
            }
            Input::Progress(storage) => {
                let revision = self.state().revision();
                fx.push(Effect::Progress { storage, revision });
            }
            // An answer would wait behind a write that was refused, and the next one behind it. And what would be carried
            // behind the word that this life is over would begin it again: there is nothing left to ask soon.
            Input::Rewrite { question, .. } if self.unwritten.lags() || self.over.is_some() => {
                fx.push(Effect::CarriedLater { question });
            }
            Input::Rewrite { question, segment, records } => {
                let input = agreed::Input::Rewrite { id: question, segment, records };
                self.member.step(now, input, &mut self.member_effects);
            }
        }
        self.pump(now, fx);
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let future = self.futures.iter().map(|f| f.until).min();
        [self.member.next_deadline(), future, self.unwritten.again_at()].into_iter().flatten().min()
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        self.member.check();
        self.flight.check();
        self.proposed.check();
        assert!(self.member_effects.is_empty(), "an effect of the member was left undone");
        assert!(self.leading || self.flight.len() == 0, "entries in flight without leading");
        assert!(self.leading || self.hold.len() == 0, "answers held without leading");
        assert!(self.proposed.len() <= self.config.waiting_max, "more callers wait than the bound says");
    }

    /// The cell's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether it leads here and takes requests.
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// The member, to be shown.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The committed objects.
    pub fn state(&self) -> &agreed::State {
        self.member.cell().state()
    }

    /// The bundle it decides with.
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// The number of the newest bundle that the log is known to rest on: nothing is decided by an older one.
    fn known_of_root(&self) -> u64 {
        self.member.cell().bundle().max(self.config.since.get())
    }

    /// How many requests wait for an answer.
    pub fn waiting(&self) -> usize {
        self.proposed.len() + self.hold.len() + self.futures.len() + self.collects.len()
    }

    fn raft(&mut self, now: Now, input: raft::Input) {
        self.member.step(now, agreed::Input::Replica(input), &mut self.member_effects);
    }

    fn call(&mut self) -> CallId {
        let id = CallId(self.next_call);
        self.next_call += 1;
        id
    }
}
