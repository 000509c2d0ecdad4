//! Questions to cells that are led on other nodes, and theirs to cells kept here.

use super::Away;
use crate::driver::seat::Seat;
use crate::driver::{Driver, Settled, clock};
use crate::net::ASK;
use base::{CellId, NodeId, Revision, Time};
use identity::Roles;
use mesh::{Peer, Streams};
use node::cell::{Cell, Outcome};
use node::wire::ask::{Asked, Heard, Question, Redirect};
use node::wire::call::{AnswerEffect, AnswerInput, Answering, CallEffect, CallInput, Calling, Framed};
use objects::request::{Body, Request, Verb};
use objects::status::Status;
use objects::{allotment, membership};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// A question follows so many redirects; then whoever asks waits and begins again.
const HOPS: usize = 3;

/// How long whoever is asked waits for a bundle as new as the one who asks has.
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(2);

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;

impl Driver {
    /// Asks whoever leads a cell once, here or elsewhere.
    pub(crate) async fn ask_leader(self: &Arc<Self>, cell: CellId, request: Arc<Request>, until: Time) -> Settled {
        let watches = request.verb == Verb::Watch;
        let asked = Asked::Request(request.clone());
        match self.ask_here(cell, &asked).await {
            Ok(settled) => settled,
            Err(hint) if watches => self.watch_away(cell, hint, request).await,
            Err(hint) => Settled { outcome: self.ask_away(cell, hint, asked, until).await, events: None },
        }
    }

    /// Asks whoever leads a cell to close a revision and to show a resource at it, or what happened to it after another.
    pub(crate) async fn collect_at_leader(
        self: &Arc<Self>,
        cell: CellId,
        storage: Arc<str>,
        at: Revision,
        after: Option<Revision>,
        until: Time,
    ) -> Outcome {
        let asked = Asked::Collect { storage, at, after, only: None };
        match self.ask_here(cell, &asked).await {
            Ok(settled) => settled.outcome,
            Err(hint) => self.ask_away(cell, hint, asked, until).await,
        }
    }

    /// Asks the replica here, if there is one; who leads the cell as far as it knows, if it does not.
    async fn ask_here(&self, cell: CellId, asked: &Asked) -> Result<Settled, Option<NodeId>> {
        let Some(seat) = self.cell(cell) else { return Err(None) };
        let settled = self.ask_replica(&seat, asked).await;
        match settled.outcome {
            Outcome::NotLeader => Err(seat.look(Cell::leader)),
            _ => Ok(settled),
        }
    }

    async fn ask_replica(&self, seat: &Arc<Seat<Cell>>, asked: &Asked) -> Settled {
        match asked {
            Asked::Request(request) => self.ask(seat, request.clone()).await,
            Asked::Collect { storage, at, after, .. } => self.collect(seat, storage.clone(), *at, *after).await,
        }
    }

    async fn ask_away(&self, cell: CellId, hint: Option<NodeId>, asked: Asked, until: Time) -> Outcome {
        let Some(away) = self.away() else { return Outcome::NotLeader };
        let mut node = hint.filter(|n| *n != self.node).or_else(|| away.whom(cell));
        for _ in 0..HOPS {
            let Some(to) = node.filter(|n| *n != self.node) else { return Outcome::NotLeader };
            let patience_ms = until.since(clock::now().mono).as_millis() as u64;
            let question =
                Question { cell, epoch: 0, bundle: self.bundle().number(), patience_ms, asked: asked.clone() };
            // A replica here may hear of another leader before the one that is asked is missed.
            let leads = || self.cell(cell).and_then(|s| s.look(Cell::leader)).is_none_or(|leader| leader == to);
            let heard = away.ask(to, &question, leads).await;
            away.saw_bundle(heard.bundle);
            if !matches!(heard.outcome, Outcome::NotLeader) {
                away.places().leads(cell, to);
                return heard.outcome;
            }
            away.places().leads_not(cell, to);
            node = heard.redirect.and_then(|r| r.leader).filter(|n| *n != to);
        }
        Outcome::NotLeader
    }

    /// What a question of another node comes to.
    async fn serve(self: &Arc<Self>, peer: &Peer, question: Question) -> Heard {
        let outcome = self.served(peer, &question).await;
        let redirect = matches!(outcome, Outcome::NotLeader).then(|| self.redirect(question.cell));
        Heard { bundle: self.bundle().number(), redirect, outcome }
    }

    /// Where to ask instead of here.
    pub(super) fn redirect(&self, cell: CellId) -> Redirect {
        let seat = self.cell(cell);
        let (epoch, leader) =
            seat.map_or((0, None), |s| s.look(|c| (c.member().cell().keepers().now.epoch, c.leader())));
        let leader = leader.or_else(|| self.away().and_then(|a| a.places().leader(cell)));
        Redirect { epoch, leader: leader.filter(|n| *n != self.node), descriptor: None }
    }

    async fn served(self: &Arc<Self>, peer: &Peer, question: &Question) -> Outcome {
        let may = match &question.asked {
            Asked::Request(request) => may_ask(peer, request),
            Asked::Collect { storage, .. } => may_read(peer, storage),
        };
        if let Err(why) = may {
            return Outcome::Refused(why);
        }
        if !self.catches_up(question.bundle).await {
            return Outcome::NotLeader;
        }
        let Some(seat) = self.cell(question.cell) else { return Outcome::NotLeader };
        match &question.asked {
            Asked::Request(request) if request.verb == Verb::Watch => {
                Outcome::Refused(Box::new(Status::internal("a watch was asked for where only answers are given")))
            }
            asked => self.ask_replica(&seat, asked).await.outcome,
        }
    }

    /// Waits until this node knows root as it was at a number; whether it does.
    pub(super) async fn catches_up(&self, number: Revision) -> bool {
        let mut changes = self.changes();
        let wait = async {
            while self.bundle().number() < number {
                if let Some(away) = self.away() {
                    away.wants_bundle();
                }
                if changes.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        timeout(CATCHES_UP_WITHIN, wait).await.unwrap_or(false)
    }
}

/// Whether a node may speak for users. A node that has not the role could claim to be anybody.
///
/// # Errors
/// 403, saying what role it lacks.
pub(super) fn may_speak(peer: &Peer) -> Result<(), Box<Status>> {
    lacks(peer, Roles::GATEWAY, "it may speak for nobody")
}

/// Whether a node may ask this: users are its to speak for, and who belongs to the mesh is not a user's to say.
///
/// # Errors
/// 403, saying what role it lacks.
fn may_ask(peer: &Peer, request: &Request) -> Result<(), Box<Status>> {
    may_speak(peer)?;
    if request.kind.group != membership::GROUP || request.kind.storage == allotment::STORAGE {
        return Ok(());
    }
    let reads = matches!(request.verb, Verb::Get | Verb::List) && request.kind.storage != membership::TICKET;
    let own = matches!(request.verb, Verb::Create | Verb::Update)
        && [membership::MEMBER, membership::TOKEN_KEYS].contains(&request.kind.storage)
        && matches!(&request.body, Body::Object { tree, .. } if tree["spec"]["node"] == peer.node.to_string());
    if reads || own { Ok(()) } else { lacks(peer, Roles::AUTHORITY, "what it asks is for those that keep the mesh") }
}

/// Whether a node may be told all there is of a resource.
///
/// # Errors
/// 403, saying what role it lacks.
pub(super) fn may_read(peer: &Peer, storage: &str) -> Result<(), Box<Status>> {
    may_speak(peer)?;
    match storage.ends_with(".beemesh.io") {
        true => lacks(peer, Roles::AUTHORITY, "what it asks is for those that keep the mesh"),
        false => Ok(()),
    }
}

fn lacks(peer: &Peer, role: Roles, so: &str) -> Result<(), Box<Status>> {
    if peer.roles.contains(role) {
        return Ok(());
    }
    let why = format!("the node that asks has the roles {} and not {role}: {so}", peer.roles);
    Err(Box::new(Status::forbidden_resource("", "", "", &why)))
}

impl Away {
    /// Asks a replica on another node once.
    async fn ask(&self, node: NodeId, question: &Question, goes_on: impl Fn() -> bool) -> Heard {
        let nothing = |outcome| Heard { bundle: Revision::ZERO, redirect: None, outcome };
        let mut calling = match Calling::new(question, clock::now()) {
            Ok(calling) => calling,
            Err(why) => return nothing(Outcome::Refused(Box::new(Status::too_large(&why.to_string())))),
        };
        let mut fx = Vec::new();
        let mut streams = None;
        let opened = self.while_heard(node, &goes_on, self.open(node, ASK));
        let opened = timeout(left(calling.next_deadline()), opened).await;
        match opened {
            Ok(Some(Ok(opened))) => {
                streams = Some(opened);
                calling.step(clock::now(), CallInput::Opened, &mut fx);
            }
            Ok(Some(Err(why))) => {
                tracing::debug!(%node, %why, "a question could not be sent");
                calling.step(clock::now(), CallInput::NotOpened, &mut fx);
            }
            Ok(None) | Err(_) => calling.step(clock::now(), CallInput::NotOpened, &mut fx),
        }
        let mut buffer = vec![0; READ_BYTES];
        loop {
            for effect in std::mem::take(&mut fx) {
                match (effect, &mut streams) {
                    (CallEffect::Ask(framed), Some(s)) => {
                        let sent =
                            async { write(&mut s.send, &framed).await.is_ok() && s.send.shutdown().await.is_ok() };
                        let sent = self.while_heard(node, &goes_on, sent);
                        match timeout(left(calling.next_deadline()), sent).await {
                            Ok(Some(true)) => {}
                            Ok(Some(false) | None) => calling.step(clock::now(), CallInput::Broken, &mut fx),
                            Err(_) => calling.step(clock::now(), CallInput::Tick, &mut fx),
                        }
                    }
                    (CallEffect::Heard(heard), _) => return *heard,
                    (CallEffect::Ask(_) | CallEffect::Stop, _) => {}
                }
            }
            if !fx.is_empty() {
                continue;
            }
            let Some(s) = &mut streams else { return nothing(Outcome::NotLeader) };
            let read = self.while_heard(node, &goes_on, s.receive.read(&mut buffer));
            let read = timeout(left(calling.next_deadline()), read).await;
            let input = match read {
                Ok(Some(Ok(0))) => CallInput::Finished,
                Ok(Some(Ok(n))) => CallInput::Bytes(buffer.get(..n).unwrap_or_default()),
                Ok(Some(Err(_)) | None) => CallInput::Broken,
                Err(_) => CallInput::Tick,
            };
            calling.step(clock::now(), input, &mut fx);
        }
    }

    /// Answers a stream that another node opened.
    pub(super) async fn answer(driver: Arc<Driver>, streams: Streams) {
        let Streams { peer, mut send, mut receive, .. } = streams;
        let mut answering = Answering::new(clock::now());
        let mut fx = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut serving = None;
        while !answering.is_over() {
            let pause = left(answering.next_deadline());
            let input = tokio::select! {
                heard = async { serving.as_mut().expect("polled only if it is there").await }, if serving.is_some() => {
                    serving = None;
                    AnswerInput::Answer(Box::new(heard))
                }
                read = receive.read(&mut buffer) => match read {
                    Ok(0) => {
                        answering.step(clock::now(), AnswerInput::Finished, &mut fx);
                        // Nothing more comes: the answer alone is waited for.
                        match serving.take() {
                            Some(asked) => match timeout(pause, asked).await {
                                Ok(heard) => AnswerInput::Answer(Box::new(heard)),
                                Err(_) => AnswerInput::Tick,
                            },
                            None => AnswerInput::Broken,
                        }
                    }
                    Ok(n) => AnswerInput::Bytes(buffer.get(..n).unwrap_or_default()),
                    Err(_) => AnswerInput::Broken,
                },
                () = tokio::time::sleep(pause) => AnswerInput::Tick,
            };
            answering.step(clock::now(), input, &mut fx);
            loop {
                let mut again = false;
                for effect in std::mem::take(&mut fx) {
                    match effect {
                        AnswerEffect::Asked(question) => {
                            let (driver, peer) = (driver.clone(), peer.clone());
                            serving = Some(Box::pin(async move { driver.serve(&peer, *question).await }));
                        }
                        AnswerEffect::Send(framed) => {
                            let pause = left(answering.next_deadline());
                            let sent = timeout(pause, write(&mut send, &framed)).await;
                            let input = match sent {
                                Ok(Ok(())) => AnswerInput::Writable,
                                Ok(Err(_)) => AnswerInput::Broken,
                                Err(_) => AnswerInput::Tick,
                            };
                            answering.step(clock::now(), input, &mut fx);
                            again = true;
                        }
                        AnswerEffect::Finish => {
                            let _ = send.shutdown().await;
                            return;
                        }
                        AnswerEffect::Stop => return,
                        AnswerEffect::Abandoned => serving = None,
                    }
                }
                if !again {
                    break;
                }
            }
        }
    }
}

/// Writes a frame.
pub(super) async fn write(to: &mut (impl AsyncWriteExt + Unpin), framed: &Framed) -> std::io::Result<()> {
    to.write_all(&framed.prefix).await?;
    to.write_all(&framed.frame).await
}

/// How long it is until a deadline.
fn left(deadline: Option<Time>) -> Duration {
    deadline.map_or(Duration::MAX, |at| at.since(clock::now().mono))
}
