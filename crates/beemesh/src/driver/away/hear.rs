//! What this gateway is told by cells that are led on other nodes: one stream for each of them, however many watch.
//!
//! A stream is opened when something of a cell is wanted and closed a while after nothing is. When it ends, whoever
//! watches by it is ended, too, and resumes from what it was told; by then whoever leads the cell is asked anew.

use super::Away;
use super::ask::write;
use crate::driver::{Driver, Settled, lock};
use crate::net::WATCH;
use base::{CellId, NodeId, Revision};
use mesh::{StreamReceiver, StreamSender, Streams};
use node::cell::Outcome;
use node::wire::call::Framed;
use node::wire::frame::{Assembler, FRAME_BYTES_MAX};
use node::wire::watch::{Call, End, Hearing, ToCell, Told};
use objects::request::Request;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// So many wishes may wait for a cell's stream; of one more nothing comes, as of a stream that broke.
const WISHES_MAX: usize = 1024;
/// A stream by which nobody watches is closed after so long.
const IDLE: Duration = Duration::from_secs(30);
/// After the end of a stream a bundle that it named is waited for so long.
const LISTED_WITHIN: Duration = Duration::from_secs(2);
/// The first word of a cell is waited for so long.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// What is wanted of a cell that is led elsewhere.
enum Wish {
    /// A watch.
    Watch { request: Arc<Request>, to: oneshot::Sender<Settled> },
    /// Anything else that is said to it.
    Say(ToCell),
}

/// The streams by which cells elsewhere are heard.
#[derive(Default)]
pub(crate) struct Ears(Mutex<BTreeMap<CellId, mpsc::Sender<Wish>>>);

impl Driver {
    /// Asks whoever leads a cell, on another node, for a watch.
    pub(super) async fn watch_away(
        self: &Arc<Self>,
        cell: CellId,
        hint: Option<NodeId>,
        request: Arc<Request>,
    ) -> Settled {
        let (to, answer) = oneshot::channel();
        self.wish(cell, hint, Wish::Watch { request, to });
        answer.await.unwrap_or_else(|_| not_led())
    }

    /// Tells a cell that is led elsewhere something about what is watched of it.
    pub(in crate::driver) fn tell_away(self: &Arc<Self>, cell: CellId, what: ToCell) {
        self.wish(cell, None, Wish::Say(what));
    }

    fn wish(self: &Arc<Self>, cell: CellId, hint: Option<NodeId>, mut wish: Wish) {
        let Some(away) = self.away() else { return };
        let mut ears = lock(&self.ears.0);
        if let Some(ear) = ears.get(&cell) {
            match ear.try_send(wish) {
                Ok(()) => return,
                // The stream has just ended.
                Err(mpsc::error::TrySendError::Closed(back)) => wish = back,
                // What is dropped is asked again by whoever waits for it.
                Err(mpsc::error::TrySendError::Full(_)) => return,
            }
        }
        if matches!(wish, Wish::Say(ToCell::Unsubscribe { .. } | ToCell::Progress { .. })) {
            return;
        }
        let (ear, wishes) = mpsc::channel(WISHES_MAX);
        let _ = ear.try_send(wish);
        ears.insert(cell, ear);
        drop(ears);
        let driver = self.clone();
        away.runtime.spawn(async move {
            let (waiting, hearing) = (BTreeMap::new(), Hearing::default());
            let mut ear =
                Ear { driver, cell, wishes, waiting, hearing, welcome: false, needs: Revision::ZERO, promise: None };
            ear.listen(hint).await;
            ear.close().await;
        });
    }
}

/// One stream, while it lasts.
struct Ear {
    driver: Arc<Driver>,
    cell: CellId,
    wishes: mpsc::Receiver<Wish>,
    waiting: BTreeMap<Call, oneshot::Sender<Settled>>,
    hearing: Hearing,
    /// The stream has stood.
    welcome: bool,
    /// The bundle that what is told rests on: of this number, or a newer one.
    needs: Revision,
    /// A promise of root's that waits for the list of the namespaces it covers.
    promise: Option<Told>,
}

impl Ear {
    async fn listen(&mut self, hint: Option<NodeId>) {
        let Some(away) = self.driver.away() else { return };
        let me = self.driver.node;
        let Some(node) = hint.or_else(|| away.whom(self.cell)).filter(|n| *n != me) else { return };
        let why = self.hear(&away, node).await;
        away.places().leads_not(self.cell, node);
        if let Some(End::Elsewhere(Some(redirect))) = &why
            && let Some(leader) = redirect.leader.filter(|n| *n != node)
        {
            away.places().leads(self.cell, leader);
        }
        tracing::debug!(cell = %self.cell, %node, ?why, "what a cell tells has ended");
    }

    async fn hear(&mut self, away: &Away, node: NodeId) -> Option<End> {
        let opened = away.while_heard(node, || true, away.open(node, WATCH)).await?;
        let Streams { mut send, mut receive, .. } = opened.ok()?;
        let bundle = self.driver.bundle().number();
        say(&mut send, &ToCell::Hello { cell: self.cell, epoch: 0, bundle }).await.ok()?;
        let mut frames = Frames::new();
        let first = away.while_heard(node, || true, frames.next(&mut receive));
        let first = timeout(WELCOME_WITHIN, first).await.ok()???;
        match self.hearing.frame(&first).ok()?? {
            Told::Welcome { bundle, .. } => {
                self.welcome = true;
                away.saw_bundle(bundle);
            }
            Told::End(why) => return Some(why),
            _ => return None,
        }
        let mut changes = self.driver.changes();
        loop {
            self.keep_promise();
            tokio::select! {
                changed = changes.changed(), if self.promise.is_some() => changed.ok()?,
                wish = self.wishes.recv() => {
                    let said = match wish? {
                        Wish::Say(what) => what,
                        Wish::Watch { request, to } => {
                            // As many as may wait already: whoever asks asks again.
                            let Some((call, said)) = self.hearing.watch(request) else { continue };
                            self.waiting.insert(call, to);
                            said
                        }
                    };
                    say(&mut send, &said).await.ok()?;
                }
                frame = away.while_heard(node, || true, frames.next(&mut receive)) => {
                    match self.hearing.frame(&frame??) {
                        Ok(None) => {}
                        Ok(Some(Told::End(why))) => return Some(why),
                        Ok(Some(told)) => self.take(away, node, told),
                        Err(why) => {
                            tracing::warn!(cell = %self.cell, %node, %why, "what a cell tells cannot be read");
                            return None;
                        }
                    }
                }
                () = tokio::time::sleep(IDLE), if self.waiting.is_empty() => {
                    if !self.driver.listens(self.cell) {
                        return None;
                    }
                }
            }
        }
    }

    /// Hands root's promise on, once the list of the namespaces that it covers was.
    fn keep_promise(&mut self) {
        if self.driver.has_listed(self.needs)
            && let Some(input) = self.promise.take().and_then(|told| told.across(self.cell))
        {
            self.driver.joined.post(input);
        }
    }

    fn take(&mut self, away: &Away, node: NodeId, told: Told) {
        let driver = &self.driver;
        match &told {
            Told::Events { storage, changes } => {
                driver.fan_out_away(self.cell, storage, |f| f.tell(changes));
            }
            Told::Progress { storage, revision } => {
                driver.fan_out_away(self.cell, storage, |f| f.mark(*revision));
            }
            Told::Bundle { number } => {
                self.needs = self.needs.max(*number);
                away.saw_bundle(*number);
            }
            Told::Closed { .. } if self.cell == driver.founding().root => {
                self.promise = Some(told);
                return;
            }
            _ => {}
        }
        if let Some(input) = told.across(self.cell) {
            driver.joined.post(input);
        }
        let Told::Answer { call, heard } = told else { return };
        let Some(to) = self.waiting.remove(&call) else { return };
        away.saw_bundle(heard.bundle);
        let mut outcome = heard.outcome;
        // Of one that it does not answer for, another is asked; the stream ends when the replica leads no more.
        if !matches!(outcome, Outcome::NotLeader) {
            away.places().leads(self.cell, node);
        }
        let events = match &mut outcome {
            Outcome::Watch(opened) => Some(driver.join_away(self.cell, opened)),
            _ => None,
        };
        // One that has gone away needs no answer.
        let _ = to.send(Settled { outcome, events });
    }

    /// Whoever waits hears that this replica is not the one; whoever watches resumes elsewhere.
    async fn close(mut self) {
        {
            let mut ears = lock(&self.driver.ears.0);
            self.wishes.close();
            // Another may have begun in its place.
            if ears.get(&self.cell).is_some_and(mpsc::Sender::is_closed) {
                ears.remove(&self.cell);
            }
        }
        // A namespace that has ended is to be known to have, before its stream is missed.
        let mut changes = self.driver.changes();
        let known = async { while !self.driver.has_listed(self.needs) && changes.changed().await.is_ok() {} };
        let _ = timeout(LISTED_WITHIN, known).await;
        // One that never stood was never heard.
        if self.welcome {
            self.driver.heard_last(self.cell);
        }
        for (_, to) in std::mem::take(&mut self.waiting) {
            let _ = to.send(not_led());
        }
    }
}

fn not_led() -> Settled {
    Settled { outcome: Outcome::NotLeader, events: None }
}

async fn say(to: &mut StreamSender, what: &ToCell) -> std::io::Result<()> {
    let framed = Framed::new(what.encode()).map_err(std::io::Error::other)?;
    write(to, &framed).await
}

/// The frames of a stream, one after the other. Nothing is lost when a wait for one is given up.
pub(super) struct Frames {
    assembler: Assembler,
    ready: std::collections::VecDeque<bytes::Bytes>,
    buffer: Vec<u8>,
}

impl Frames {
    pub(super) fn new() -> Frames {
        Frames {
            assembler: Assembler::new(FRAME_BYTES_MAX),
            ready: std::collections::VecDeque::new(),
            buffer: vec![0; 64 << 10],
        }
    }

    /// The next one; `None` at the end, or if what came is no frame.
    pub(super) async fn next(&mut self, from: &mut StreamReceiver) -> Option<bytes::Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            let n = from.read(&mut self.buffer).await.ok().filter(|n| *n > 0)?;
            let mut frames = Vec::new();
            self.assembler.push(self.buffer.get(..n).unwrap_or_default(), &mut frames).ok()?;
            self.ready.extend(frames);
        }
    }
}
