//! The other nodes: what goes to them and comes from them.
//!
//! [`Away`] joins the transport to the machines of this node and has no opinions: what is said is decided by the
//! machines, how it is written by [`node::wire`], who may say it by identity.

mod ask;
mod bundle;
mod hear;
mod heard;
mod places;
pub(super) mod tell;

use heard::Hearing;

pub(crate) use hear::Ears;
pub(crate) use tell::Tellers;

use super::work::Work;
use super::{Driver, lock};
use crate::net::{ASK, BUNDLE, CELL, KEEP, LIFE, SCHEDULE, WATCH};
use base::{CellId, NodeId, Revision};
use bytes::Bytes;
use identity::Roles;
use mesh::{Mesh, OpenError, Peer, Protocol, Streams};
use node::bundle::Bundle;
use node::life::SignOfLife;
use node::wire;
use places::Places;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// The other nodes.
pub(crate) struct Away {
    mesh: Arc<Mesh>,
    runtime: Handle,
    places: Mutex<Places>,
    shelf: Mutex<wire::bundle::Shelf>,
    /// A newer bundle is wanted than the one that is here.
    behind: Notify,
    /// The greatest number of a bundle that another node has spoken of.
    newest: AtomicU64,
    hearing: Hearing,
}

impl Away {
    /// By this transport.
    pub(crate) fn new(mesh: Arc<Mesh>, runtime: Handle) -> Away {
        Away {
            mesh,
            runtime,
            places: Mutex::default(),
            shelf: Mutex::default(),
            behind: Notify::new(),
            newest: AtomicU64::new(0),
            hearing: Hearing::default(),
        }
    }

    /// Where what takes time runs.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// These nodes keep root, as far as is known: they may be asked about every cell.
    pub(crate) fn contacts_are(&self, contacts: Vec<NodeId>) {
        self.places().contacts_are(contacts);
    }

    /// The nodes that may be asked about every cell.
    pub(super) fn contacts(&self) -> Vec<NodeId> {
        self.places().contacts().to_vec()
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        lock(&self.places)
    }

    /// Whom to ask about a cell.
    fn whom(&self, cell: CellId) -> Option<NodeId> {
        self.places().whom(cell, |node| self.answers(node))
    }

    /// Who led a cell when it was asked last.
    pub(crate) fn leader_of(&self, cell: CellId) -> Option<NodeId> {
        self.places().leader(cell)
    }

    async fn open(&self, node: NodeId, protocol: Protocol) -> Result<Streams, OpenError> {
        self.mesh.open(node, protocol).await
    }

    /// Sends a message that may be lost.
    fn send(&self, node: NodeId, protocol: Protocol, bytes: Bytes) {
        if let Err(why) = self.mesh.send(node, protocol, bytes) {
            tracing::debug!(%node, %protocol, %why, "a message was lost");
        }
    }

    /// Whether nobody is known who could lead a cell besides this node.
    pub(super) fn is_alone_with(&self, cell: CellId) -> bool {
        self.places().is_empty(cell)
    }

    /// Has the bundle fetched if a node has a newer one.
    fn saw_bundle(&self, number: Revision) {
        self.newest.fetch_max(number.get(), Ordering::Relaxed);
        if number > lock(&self.shelf).newest().number() {
            self.wants_bundle();
        }
    }

    /// The number of the newest bundle that another node has spoken of.
    fn newest_seen(&self) -> Revision {
        Revision::from_u64(self.newest.load(Ordering::Relaxed)).unwrap_or_default()
    }

    fn wants_bundle(&self) {
        self.behind.notify_one();
    }

    /// The bundle is this now: whoever is told of it here is told.
    pub(super) fn bundle_is(&self, bundle: &Arc<Bundle>) {
        lock(&self.shelf).put(bundle.clone());
    }

    /// About pods, to a node.
    pub(super) fn schedule(&self, node: NodeId, message: &wire::schedule::Message) {
        self.send(node, SCHEDULE, message.encode());
    }

    /// A node has spoken as a cell's leader.
    pub(super) fn is_led_by(&self, cell: CellId, node: NodeId) {
        self.places().leads(cell, node);
    }

    /// About pods, to whoever leads a cell.
    pub(super) fn schedule_with_leader(&self, cell: CellId, message: &wire::schedule::Message) {
        if let Some(node) = self.whom(cell) {
            self.schedule(node, message);
        }
    }

    /// Between the replicas of cells, to a node.
    pub(super) fn cells(&self, node: NodeId, frame: Bytes) {
        self.send(node, CELL, frame);
    }

    /// About who keeps cells, to a node.
    pub(super) fn keep(&self, node: NodeId, message: &wire::keep::Message) {
        self.send(node, KEEP, message.encode());
    }

    /// A sign of life, to whoever leads the registry.
    pub(super) fn live(&self, registry: CellId, sign: &SignOfLife) {
        if let Some(node) = self.whom(registry) {
            self.send(node, LIFE, Bytes::copy_from_slice(&sign.encode()));
        }
    }
}

/// What comes from other nodes, on its way to the machines.
pub(crate) struct Incoming {
    driver: Weak<Driver>,
    work: Weak<Work>,
    runtime: Handle,
}

impl Incoming {
    /// To these machines.
    pub(crate) fn new(driver: &Arc<Driver>, work: &Arc<Work>, runtime: Handle) -> Incoming {
        Incoming { driver: Arc::downgrade(driver), work: Arc::downgrade(work), runtime }
    }

    /// A node has said something.
    pub(crate) fn message(&self, peer: &Peer, protocol: Protocol, message: &[u8]) {
        if let Err(why) = self.take(peer, protocol, message) {
            tracing::warn!(node = %peer.node, %protocol, %why, "a message of another node was passed over");
        }
    }

    fn take(&self, peer: &Peer, protocol: Protocol, message: &[u8]) -> Result<(), agree::DecodeError> {
        let (Some(work), Some(driver)) = (self.work.upgrade(), self.driver.upgrade()) else { return Ok(()) };
        if let Some(away) = driver.away.get() {
            away.hearing.heard(peer.node);
        }
        match protocol {
            CELL => driver.cells_said(peer.node, peer.roles, &Bytes::copy_from_slice(message))?,
            KEEP => driver.keep.said(peer, wire::keep::Message::decode(&Bytes::copy_from_slice(message))?),
            SCHEDULE => {
                let message = wire::schedule::Message::decode(&Bytes::copy_from_slice(message))?;
                work.told(peer.node, peer.roles, message);
            }
            LIFE => work.heard(peer.node, SignOfLife::decode(message)?),
            _ => {}
        }
        Ok(())
    }

    /// A node has opened a stream.
    pub(crate) fn stream(&self, streams: Streams) {
        let Some(driver) = self.driver.upgrade() else { return };
        match streams.protocol {
            ASK => drop(self.runtime.spawn(Away::answer(driver, streams))),
            WATCH => drop(self.runtime.spawn(tell::tell(driver, streams))),
            BUNDLE => drop(self.runtime.spawn(bundle::tell(driver, streams))),
            _ => {}
        }
    }
}

/// Whether a node may be told root's configuration: every member may.
fn may_know(roles: Roles) -> bool {
    !roles.is_empty()
}
