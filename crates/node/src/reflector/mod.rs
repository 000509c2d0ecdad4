//! A copy of one resource of one cell, wherever that cell is led: listed once, then kept by a watch
//! (client-go's Reflector).
//!
//! [`Reflector`] asks for a list, tells what there is, watches from the list's revision on and tells what
//! changes. A watch that ends is resumed at the last revision seen; one whose revision is forgotten (410) begins
//! with a list again, of which only the differences are told. What is known stays good meanwhile, and says how old
//! it is. Questions leave as [`Errand`]s, so that they find the cell's leader as anybody's do; answers come back
//! with the question's id. At most one question is open at a time.
//!
//! Several consumers on one node share one reflector.

use crate::errand::{Answered, Errand, ErrandId};
use base::{Chance, Now, Revision, Time};
use objects::Tree;
use objects::kinds::Kind;
use objects::request::{Body, Options, User, Verb};
use objects::status::Status;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How many objects a list asks for at a time, as client-go's pager does.
const PAGE: u64 = 500;
/// The first pause after something has failed, doubled after each, and the longest: client-go's, but that the first
/// is shorter, since every change of leader ends every watch. Each pause is between a half and one and a half times this.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// A watch that has stood for so long has not failed when it ends.
const STOOD: Duration = Duration::from_secs(10);
/// A question that was not answered for so long is asked again. A gateway gives up before.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// A watch that says nothing for so long, not even up to where it has told everything, is begun again. A gateway says
/// that once a minute.
const SILENT: Duration = Duration::from_secs(150);
/// After so many refusals in a row a watch is not asked for again without a list before it: whatever is wrong with the
/// revision it would go on from, a list sets right.
const OPENINGS: u32 = 3;

/// What is reflected.
#[derive(Clone, Debug)]
pub struct Config {
    /// In whose name is asked.
    pub user: Arc<User>,
    /// The resource.
    pub kind: &'static Kind,
    /// Its namespace, if the kind has one.
    pub namespace: Option<Arc<str>>,
    /// At most so many objects are kept. Of more the rest is left out, which [`Effect::Full`] says; once there is room
    /// again everything is listed anew.
    pub objects_max: usize,
}

/// What a reflector is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// The answer to [`Effect::List`]: a list with its `metadata`, or the refusal.
    Listed {
        /// Which question.
        id: ErrandId,
        /// What came back.
        answer: Answered,
    },
    /// [`Effect::Watch`] is open.
    Opened {
        /// Which question.
        id: ErrandId,
    },
    /// A watch tells, in its order. Whoever has told too much at once ends the watch instead, and it is resumed.
    Told {
        /// Which watch.
        id: ErrandId,
        /// What it tells.
        events: Vec<Event>,
    },
    /// A watch has ended, or was refused.
    Ended {
        /// Which watch.
        id: ErrandId,
        /// Why, if that was said.
        why: Option<Box<Status>>,
    },
    /// Time has passed.
    Tick,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum Event {
    /// An object is there, as it is from now on.
    There(Tree),
    /// An object is gone. Its `resourceVersion` is that of its end.
    Gone(Tree),
    /// Everything up to this revision has been told.
    Upto(Revision),
    /// All there was when the watch began: of one that goes on from revision 0.
    State(Vec<Tree>),
}

/// What a reflector wants done, and what it has to say.
#[derive(Clone, Debug)]
pub enum Effect {
    /// List, and say [`Input::Listed`].
    List {
        /// Names the question.
        id: ErrandId,
        /// The request.
        errand: Box<Errand>,
    },
    /// Open a watch, say [`Input::Opened`], then [`Input::Told`], and [`Input::Ended`] when it is over. In a cell in
    /// which nothing was ever written it goes on from revision 0, which means to everybody: begin with whatever there is.
    /// That is told first ([`Event::State`]).
    Watch {
        /// Names the question.
        id: ErrandId,
        /// The request.
        errand: Box<Errand>,
    },
    /// Nobody wants the answer to this question any more, or what this watch tells.
    Leave {
        /// Which.
        id: ErrandId,
    },
    /// What is known has changed. Every change is told once, and in its order.
    Changed(Vec<Change>),
    /// A list is through: everything there was at this revision has been told.
    Synced {
        /// The revision.
        revision: Revision,
    },
    /// There are more objects than are kept: some are not known here.
    Full,
}

/// An object that is another than it was.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its name.
    pub name: Arc<str>,
    /// As it was last told, if it was.
    pub before: Option<Arc<Tree>>,
    /// As it is, if it is.
    pub after: Option<Arc<Tree>>,
}

/// What a pause ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    List,
    Watch,
}

enum State {
    Paused { until: Time, next: Next },
    Listing { id: ErrandId, list: Listing },
    Opening { id: ErrandId, asked: Time },
    Watching { id: ErrandId, since: Time, heard: Time },
}

/// A list that comes in pieces.
struct Listing {
    /// When it was begun: what it shows is no older. And when the piece that is waited for was asked for.
    begun: Time,
    asked: Time,
    revision: Option<Revision>,
    objects: BTreeMap<Arc<str>, Known>,
    full: bool,
}

#[derive(Clone)]
struct Known {
    revision: Revision,
    tree: Arc<Tree>,
}

/// A copy of a resource.
pub struct Reflector {
    config: Config,
    chance: Chance,
    state: State,
    known: BTreeMap<Arc<str>, Known>,
    /// Everything up to here is known.
    revision: Revision,
    synced: bool,
    /// What is known is what there was then, or later.
    as_of: Option<Time>,
    /// What has failed in a row, and of that how often a watch was refused.
    failures: u32,
    refused: u32,
    /// There is more than is kept.
    full: bool,
    next_question: u64,
}

impl Reflector {
    /// A reflector that knows nothing yet. Its first [`Input::Tick`] is due at once.
    pub fn new(config: Config, chance: Chance) -> Reflector {
        Reflector {
            config,
            chance,
            state: State::Paused { until: Time::ZERO, next: Next::List },
            known: BTreeMap::new(),
            revision: Revision::ZERO,
            synced: false,
            as_of: None,
            failures: 0,
            refused: 0,
            full: false,
            next_question: 1,
        }
    }

    /// One bounded step.
    pub fn step(&mut self, now: Now, input: Input, fx: &mut Vec<Effect>) {
        let now = now.mono;
        match input {
            Input::Listed { id, answer } => self.listed(now, id, answer, fx),
            Input::Opened { id } => {
                if let State::Opening { id: asked, .. } = self.state
                    && asked == id
                {
                    self.refused = 0;
                    self.state = State::Watching { id, since: now, heard: now };
                }
            }
            Input::Told { id, events } => self.told(now, id, events, fx),
            Input::Ended { id, why } => self.ended(now, id, why.as_deref()),
            Input::Tick => {}
        }
        self.look_at_the_clock(now, fx);
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        Some(match &self.state {
            State::Paused { until, .. } => *until,
            State::Listing { list, .. } => list.asked + ANSWERED_WITHIN,
            State::Opening { asked, .. } => *asked + ANSWERED_WITHIN,
            State::Watching { heard, .. } => *heard + SILENT,
        })
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        assert!(self.known.len() <= self.config.objects_max, "more objects are kept than the bound says");
        if let State::Listing { list, .. } = &self.state {
            assert!(list.objects.len() <= self.config.objects_max, "more objects are listed than the bound says");
        }
        let watches = matches!(self.state, State::Opening { .. } | State::Watching { .. });
        assert!(self.synced || !watches, "a watch goes on from nowhere");
    }

    /// Whether a list was ever through: before that, what is not known here may be there all the same.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// How old what is known may be: since when the cell has said nothing of it. `None` if nothing was ever listed.
    pub fn age(&self, now: Time) -> Option<Duration> {
        self.as_of.map(|at| now.since(at))
    }

    /// An object as it was last told.
    pub fn get(&self, name: &str) -> Option<&Arc<Tree>> {
        self.known.get(name).map(|k| &k.tree)
    }

    /// All objects as they were last told, in order of their names.
    pub fn objects(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Tree>)> {
        self.known.iter().map(|(name, k)| (name, &k.tree))
    }

    fn look_at_the_clock(&mut self, now: Time, fx: &mut Vec<Effect>) {
        if self.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        match self.state {
            State::Paused { next: Next::List, .. } => {
                let list = Listing::new(now);
                let id = self.ask_for_a_list("", fx);
                self.state = State::Listing { id, list };
            }
            State::Paused { next: Next::Watch, .. } => self.watch(now, fx),
            State::Listing { id, .. } => {
                fx.push(Effect::Leave { id });
                self.fail(now, Next::List);
            }
            State::Opening { id, .. } => {
                fx.push(Effect::Leave { id });
                self.refuse(now);
            }
            // Nothing but its silence is against it: what it would have told is told by the next one.
            State::Watching { id, .. } => {
                fx.push(Effect::Leave { id });
                self.failures = 0;
                self.pause(now, Next::Watch);
            }
        }
    }

    fn question(&mut self) -> ErrandId {
        let id = ErrandId(self.next_question);
        self.next_question += 1;
        id
    }

    fn errand(&self, verb: Verb, options: Options) -> Box<Errand> {
        Box::new(Errand {
            user: self.config.user.clone(),
            verb,
            kind: self.config.kind,
            namespace: self.config.namespace.clone(),
            name: None,
            subresource: "",
            options,
            body: Body::None,
        })
    }

    fn ask_for_a_list(&mut self, after: &str, fx: &mut Vec<Effect>) -> ErrandId {
        let id = self.question();
        let options = Options { limit: PAGE, continue_token: after.to_owned(), ..Options::default() };
        fx.push(Effect::List { id, errand: self.errand(Verb::List, options) });
        id
    }

    fn watch(&mut self, now: Time, fx: &mut Vec<Effect>) {
        let id = self.question();
        let resource_version = self.revision.get().to_string();
        let options = Options { resource_version, bookmarks: true, ..Options::default() };
        fx.push(Effect::Watch { id, errand: self.errand(Verb::Watch, options) });
        self.state = State::Opening { id, asked: now };
    }

    /// A while, the longer the more has failed, and never as long as others wait who saw the same fail.
    fn pause(&mut self, now: Time, next: Next) {
        let most = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        let until = now + Duration::from_nanos(nanos / 2 + self.chance.below(nanos));
        self.state = State::Paused { until, next };
    }

    fn fail(&mut self, now: Time, next: Next) {
        self.failures = self.failures.saturating_add(1);
        self.pause(now, next);
    }

    /// A watch was not opened.
    fn refuse(&mut self, now: Time) {
        self.refused += 1;
        let next = if self.refused.is_multiple_of(OPENINGS) { Next::List } else { Next::Watch };
        self.fail(now, next);
    }

    fn listed(&mut self, now: Time, id: ErrandId, answer: Answered, fx: &mut Vec<Effect>) {
        let State::Listing { id: asked, list } = &mut self.state else { return };
        if *asked != id {
            return;
        }
        // A list whose rest is gone (410) begins anew, too.
        let Some(after) = answer.ok().and_then(|tree| list.take(tree, self.config.objects_max)) else {
            return self.fail(now, Next::List);
        };
        if !after.is_empty() {
            list.asked = now;
            let next = self.ask_for_a_list(&after, fx);
            if let State::Listing { id, .. } = &mut self.state {
                *id = next;
            }
            return;
        }
        let full = std::mem::replace(&mut self.full, list.full);
        let (begun, revision) = (list.begun, list.revision.unwrap_or_default());
        let objects = std::mem::take(&mut list.objects);
        self.as_of = Some(begun);
        self.replace(objects, fx);
        (self.revision, self.synced) = (revision, true);
        fx.push(Effect::Synced { revision });
        if self.full && !full {
            fx.push(Effect::Full);
        }
        self.watch(now, fx);
    }

    /// What there is, is this: what differs is told.
    fn replace(&mut self, objects: BTreeMap<Arc<str>, Known>, fx: &mut Vec<Effect>) {
        let mut before = std::mem::take(&mut self.known);
        let mut changes = Vec::new();
        for (name, mut new) in objects {
            let old = before.remove(&name);
            match old {
                Some(old) if old.revision == new.revision => new = old,
                old => {
                    let (before, after) = (old.map(|o| o.tree), Some(new.tree.clone()));
                    changes.push(Change { name: name.clone(), before, after });
                }
            }
            self.known.insert(name, new);
        }
        changes.extend(before.into_iter().map(|(name, old)| Change { name, before: Some(old.tree), after: None }));
        if !changes.is_empty() {
            fx.push(Effect::Changed(changes));
        }
    }

    fn told(&mut self, now: Time, id: ErrandId, events: Vec<Event>, fx: &mut Vec<Effect>) {
        let State::Watching { id: watch, heard, .. } = &mut self.state else { return };
        if *watch != id {
            return;
        }
        *heard = now;
        let (mut changes, mut made_room, mut makes_sense) = (Vec::new(), false, true);
        let was_full = self.full;
        for event in events {
            let (tree, there) = match event {
                Event::There(tree) => (tree, true),
                Event::Gone(tree) => (tree, false),
                Event::Upto(revision) => {
                    self.revision = self.revision.max(revision);
                    continue;
                }
                Event::State(trees) => {
                    let mut list = Listing::new(now);
                    makes_sense = list.fill(trees, self.config.objects_max).is_some();
                    if !makes_sense {
                        break;
                    }
                    if !changes.is_empty() {
                        fx.push(Effect::Changed(std::mem::take(&mut changes)));
                    }
                    let newest = list.objects.values().map(|o| o.revision).max().unwrap_or_default();
                    self.revision = self.revision.max(newest);
                    self.full |= list.full;
                    self.replace(list.objects, fx);
                    continue;
                }
            };
            let Some((name, new)) = known(tree) else {
                makes_sense = false;
                break;
            };
            // A cell's revisions rise: this was told before.
            if new.revision <= self.revision {
                continue;
            }
            self.revision = new.revision;
            if there && !self.known.contains_key(&name) && self.known.len() >= self.config.objects_max {
                self.full = true;
                continue;
            }
            let after = there.then(|| new.tree.clone());
            let old = if there { self.known.insert(name.clone(), new) } else { self.known.remove(&name) };
            made_room |= !there && old.is_some();
            if old.is_some() || there {
                changes.push(Change { name, before: old.map(|o| o.tree), after });
            }
        }
        if !changes.is_empty() {
            fx.push(Effect::Changed(changes));
        }
        if self.full && !was_full {
            fx.push(Effect::Full);
        }
        if !makes_sense {
            // What it has told before may not have been what there is.
            fx.push(Effect::Leave { id });
            return self.fail(now, Next::List);
        }
        self.as_of = Some(now);
        if self.full && made_room {
            fx.push(Effect::Leave { id });
            self.fail(now, Next::List);
        }
    }

    fn ended(&mut self, now: Time, id: ErrandId, why: Option<&Status>) {
        let gone = why.is_some_and(|status| status.code == 410);
        match self.state {
            State::Opening { id: asked, .. } if asked == id && !gone => self.refuse(now),
            State::Opening { id: asked, .. } if asked == id => {
                self.refused = 0;
                self.fail(now, Next::List);
            }
            State::Watching { id: watch, since, .. } if watch == id => {
                let next = if gone { Next::List } else { Next::Watch };
                if now.since(since) >= STOOD {
                    self.failures = 0;
                    return self.pause(now, next);
                }
                self.fail(now, next);
            }
            _ => {}
        }
    }
}

impl Listing {
    fn new(now: Time) -> Listing {
        Listing { begun: now, asked: now, revision: None, objects: BTreeMap::new(), full: false }
    }

    /// Takes a piece; where the next one begins, empty after the last. `None` if it is no list.
    fn take(&mut self, mut tree: Tree, objects_max: usize) -> Option<String> {
        let revision = revision_of(&tree)?;
        self.revision.get_or_insert(revision);
        let after = tree["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        let Tree::Array(items) = tree["items"].take() else { return None };
        // A piece without anything in it that says that more follows would be asked for without end.
        if items.is_empty() && !after.is_empty() {
            return None;
        }
        self.fill(items, objects_max)?;
        // There is no room for what would follow.
        Some(if self.full { String::new() } else { after })
    }

    /// Takes objects as far as there is room. `None` if one of them is none.
    fn fill(&mut self, items: Vec<Tree>, objects_max: usize) -> Option<()> {
        for item in items {
            let (name, object) = known(item)?;
            if self.objects.len() >= objects_max && !self.objects.contains_key(&name) {
                self.full = true;
                break;
            }
            self.objects.insert(name, object);
        }
        Some(())
    }
}

fn revision_of(tree: &Tree) -> Option<Revision> {
    Revision::from_u64(tree["metadata"]["resourceVersion"].as_str()?.parse().ok()?)
}

/// An object as it is kept: without what only those who write it look at.
fn known(mut tree: Tree) -> Option<(Arc<str>, Known)> {
    let name = tree["metadata"]["name"].as_str().filter(|name| !name.is_empty())?.into();
    let revision = revision_of(&tree)?;
    if let Some(metadata) = tree["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    Some((name, Known { revision, tree: Arc::new(tree) }))
}

#[cfg(test)]
mod tests;
