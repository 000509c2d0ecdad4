//! What cells kept here tell gateways on other nodes.

use super::ask::{may_read, may_speak, write};
use super::hear::Frames;
use crate::driver::seat::Seat;
use crate::driver::{Driver, lock};
use base::{CellId, Revision};
use mesh::{Peer, Streams};
use node::cell::{Cell, Change, Input, Outcome, Subscription};
use node::wire::call::{Framed, STALLED};
use node::wire::watch::{Call, End, Telling, ToCell, hello};
use objects::request::Verb;
use objects::status::Status;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// The first word of a gateway is waited for so long.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// A gateway elsewhere that is told what a cell does.
pub(crate) struct Teller {
    telling: Mutex<Telling>,
    more: Notify,
}

/// Who asked a cell to be told of a resource.
pub(in crate::driver) enum Asker {
    /// The machine that joins the cells, on this node.
    Joined,
    /// A gateway elsewhere.
    Away(Arc<Teller>),
}

/// A question for a subscription that the cell has not answered.
struct Asked {
    cell: CellId,
    storage: Arc<str>,
    after: Option<Revision>,
    by: Asker,
}

/// The gateways that are told, by cell.
#[derive(Default)]
pub(crate) struct Tellers {
    of: Mutex<BTreeMap<CellId, Vec<Arc<Teller>>>>,
    asked: Mutex<Vec<Asked>>,
}

impl Teller {
    fn with<R>(&self, say: impl FnOnce(&mut Telling) -> R) -> R {
        let done = say(&mut lock(&self.telling));
        self.more.notify_one();
        done
    }

    /// How a subscription begins.
    pub(in crate::driver) fn subscribed(&self, storage: &Arc<str>, after: Option<Revision>, begin: &Subscription) {
        self.with(|t| t.subscribed(storage, after, begin));
    }

    /// What became of a watch that was asked for.
    pub(in crate::driver) fn answer(&self, call: Call, bundle: Revision, outcome: Outcome) {
        self.with(|t| t.answer(call, bundle, None, outcome));
    }
}

impl Tellers {
    fn each(&self, cell: CellId, mut say: impl FnMut(&mut Telling)) {
        let tellers = lock(&self.of).get(&cell).cloned().unwrap_or_default();
        tellers.iter().for_each(|t| t.with(&mut say));
    }

    pub(in crate::driver) fn events(&self, cell: CellId, storage: &Arc<str>, changes: &Arc<[Change]>) {
        self.each(cell, |t| t.events(storage, changes));
    }

    pub(in crate::driver) fn progress(&self, cell: CellId, storage: &Arc<str>, revision: Revision) {
        self.each(cell, |t| t.progress(storage, revision));
    }

    /// A promise. Root's goes behind the number of the bundle that lists the namespaces it covers.
    pub(in crate::driver) fn closed(&self, cell: CellId, bundle: Option<Revision>, revision: Revision) {
        self.each(cell, |t| {
            if let Some(number) = bundle {
                t.bundle(number);
            }
            t.closed(revision);
        });
    }

    /// Nothing more is told of a cell.
    pub(in crate::driver) fn end(&self, cell: CellId, why: &End) {
        lock(&self.asked).retain(|a| a.cell != cell || matches!(a.by, Asker::Joined));
        let tellers = lock(&self.of).remove(&cell).unwrap_or_default();
        tellers.iter().for_each(|t| t.with(|t| t.end(why.clone())));
    }

    /// Whether a gateway elsewhere is told of a resource.
    pub(in crate::driver) fn wants(&self, cell: CellId, storage: &str) -> bool {
        let tellers = lock(&self.of);
        tellers.get(&cell).into_iter().flatten().any(|t| lock(&t.telling).wants(storage))
    }

    /// Notes who asks; before the cell is asked.
    pub(in crate::driver) fn asks(&self, cell: CellId, storage: &Arc<str>, after: Option<Revision>, by: Asker) {
        lock(&self.asked).push(Asked { cell, storage: storage.clone(), after, by });
    }

    /// A cell has answered: who asked first for this. Of two who asked for the same either answer is good for both.
    pub(in crate::driver) fn asked(&self, cell: CellId, storage: &str, after: Option<Revision>) -> Option<Asker> {
        let mut asked = lock(&self.asked);
        let at = asked.iter().position(|a| a.cell == cell && &*a.storage == storage && a.after == after)?;
        Some(asked.remove(at).by)
    }

    /// The cell is here no more, as the bundle of this number says: nobody is answered.
    pub(in crate::driver) fn gone(&self, cell: CellId, bundle: Revision) {
        lock(&self.asked).retain(|a| a.cell != cell);
        self.each(cell, |t| t.bundle(bundle));
        self.end(cell, &End::Elsewhere(None));
    }
}

/// Serves a stream that a gateway elsewhere opened, until it ends.
pub(super) async fn tell(driver: Arc<Driver>, streams: Streams) {
    let Streams { peer, mut send, mut receive, .. } = streams;
    let mut frames = Frames::new();
    let Ok(Some(first)) = timeout(HELLO_WITHIN, frames.next(&mut receive)).await else { return };
    let Ok((cell, _, bundle)) = hello(&first) else { return };
    let known = driver.catches_up(bundle).await;
    let seat = driver.cell(cell).filter(|_| known);
    let epoch = seat.as_ref().map_or(0, |s| s.look(|c| c.member().cell().keepers().now.epoch));
    let teller =
        Arc::new(Teller { telling: Mutex::new(Telling::new(epoch, driver.bundle().number())), more: Notify::new() });
    let refused = match (may_speak(&peer), &seat) {
        (Err(why), _) => Some(End::Forbidden(why.message.clone())),
        (Ok(()), Some(seat)) if seat.look(Cell::is_leading) => None,
        (Ok(()), _) => Some(End::Elsewhere(Some(driver.redirect(cell)))),
    };
    match (refused, seat) {
        (None, Some(seat)) => {
            lock(&driver.tellers.of).entry(cell).or_default().push(teller.clone());
            // It may have lost the lead, or have gone, before it was noted whom to tell so.
            let is_kept = driver.cell(cell).is_some_and(|kept| Arc::ptr_eq(&kept, &seat));
            if !is_kept || !seat.look(Cell::is_leading) {
                driver.tellers.end(cell, &End::Elsewhere(Some(driver.redirect(cell))));
            }
            let serve = async {
                while let Some(frame) = frames.next(&mut receive).await {
                    let Ok(said) = ToCell::decode(&frame) else { return };
                    if let Err(why) = may_watch(&peer, &said) {
                        teller.with(|t| t.end(End::Forbidden(why.message.clone())));
                        // It is told so; then the stream ends.
                        std::future::pending::<()>().await;
                    }
                    take(&driver, &seat, &teller, said);
                }
            };
            tokio::select! {
                () = serve => {}
                () = send_all(&teller, &mut send) => {}
            }
            leave(&driver, &seat, &teller);
        }
        (why, _) => {
            teller.with(|t| t.end(why.unwrap_or(End::Elsewhere(None))));
            send_all(&teller, &mut send).await;
        }
    }
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut send).await;
}

/// Whether a node may be told what it asks to be told.
fn may_watch(peer: &Peer, said: &ToCell) -> Result<(), Box<Status>> {
    match said {
        ToCell::Subscribe { storage, .. } => may_read(peer, storage),
        ToCell::Watch { request, .. } => may_read(peer, request.kind.storage),
        _ => Ok(()),
    }
}

/// Sends what is told, until the end of it or until nobody takes it.
async fn send_all(teller: &Teller, send: &mut mesh::StreamSender) {
    loop {
        let (frame, ended) = {
            let mut telling = lock(&teller.telling);
            (telling.next_frame(), telling.is_ended())
        };
        match frame.map(Framed::new) {
            Some(Ok(framed)) => {
                if !matches!(timeout(STALLED, write(send, &framed)).await, Ok(Ok(()))) {
                    return;
                }
            }
            Some(Err(why)) => {
                tracing::error!(%why, "what a cell tells is longer than a frame may be");
                return;
            }
            None if ended => return,
            None => teller.more.notified().await,
        }
    }
}

fn take(driver: &Arc<Driver>, seat: &Arc<Seat<Cell>>, teller: &Arc<Teller>, said: ToCell) {
    match said {
        ToCell::Subscribe { storage, after } => {
            driver.tellers.asks(seat.id(), &storage, after, Asker::Away(teller.clone()));
            seat.post(Input::Subscribe { storage, after });
        }
        ToCell::Unsubscribe { storage, serial } => {
            if teller.with(|t| t.unsubscribe(&storage, serial)) {
                driver.unsubscribe(seat, storage, serial);
            }
        }
        ToCell::Progress { storage } => seat.post(Input::Progress(storage)),
        ToCell::Close { at } => seat.post(Input::Close { at }),
        ToCell::Watch { call, request } if request.verb == Verb::Watch => {
            if !driver.offer_for(seat, teller, call, request) {
                teller.answer(call, driver.bundle().number(), Outcome::Busy);
            }
        }
        ToCell::Watch { .. } => {
            teller.with(|t| t.end(End::Forbidden("only watches are asked for where watches are told".to_owned())));
        }
        ToCell::Leave { call } => teller.with(|t| t.leave(call)),
        ToCell::Bundle { number } => {
            if let Some(away) = driver.away()
                && number > driver.bundle().number()
            {
                away.wants_bundle();
            }
        }
        // Said once, at the beginning.
        ToCell::Hello { .. } => {}
    }
}

/// A gateway has gone: what it alone wanted to be told of is told no more.
fn leave(driver: &Arc<Driver>, seat: &Arc<Seat<Cell>>, teller: &Arc<Teller>) {
    let cell = seat.id();
    let watched: Vec<(Arc<str>, u64)> = lock(&teller.telling).watched().map(|(s, n)| (s.clone(), n)).collect();
    {
        let mut of = lock(&driver.tellers.of);
        if let Some(tellers) = of.get_mut(&cell) {
            tellers.retain(|t| !Arc::ptr_eq(t, teller));
            if tellers.is_empty() {
                of.remove(&cell);
            }
        }
    }
    for (storage, serial) in watched {
        driver.unsubscribe(seat, storage, serial);
    }
}
