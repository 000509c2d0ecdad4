//! The transport of this node: which protocols it speaks, where it listens, and who answers what comes in.

use crate::config::Config;
use crate::driver::away::Incoming;
use crate::driver::clock;
use crate::issue::Issuing;
use crate::join::Joins;
use crate::streams::Serving;
use ::mesh::{Clock, Handler, Mesh, Message, Peer, Protocol, Standing, Streams, Why};
use anyhow::{Context, Result};
use base::{Chance, NodeId};
use bytes::Bytes;
use identity::{NodeKey, Revocations};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

/// Questions to cells: [`node::wire::ASK`].
pub(crate) const ASK: Protocol = Protocol::new("ask", 1);
/// What gateways watch: [`node::wire::WATCH`].
pub(crate) const WATCH: Protocol = Protocol::new("watch", 1);
/// Leaders and nodes about pods: [`node::wire::SCHEDULE`].
pub(crate) const SCHEDULE: Protocol = Protocol::new("schedule", 1);
/// Root's configuration: [`node::wire::BUNDLE`].
pub(crate) const BUNDLE: Protocol = Protocol::new("bundle", 1);
/// Signs of life: [`node::life`].
pub(crate) const LIFE: Protocol = Protocol::new("life", 1);
/// Certificates: [`crate::issue`].
pub(crate) const ISSUE: Protocol = Protocol::new("issue", 1);

/// Streams of pods: [`node::wire::POD`].
pub(crate) const POD: Protocol = Protocol::new("pod", 1);
/// Between replicas of cells: [`node::wire::CELL`].
pub(crate) const CELL: Protocol = Protocol::new("cell", 1);
/// Who keeps cells: [`node::wire::KEEP`].
pub(crate) const KEEP: Protocol = Protocol::new("keep", 1);

/// Everything this node speaks.
pub(crate) const PROTOCOLS: [Protocol; 9] = [CELL, KEEP, ASK, WATCH, SCHEDULE, BUNDLE, LIFE, ISSUE, POD];

/// A message between replicas may hold one entry of a log, which may change 8 MiB of objects and hold what they were
/// before; of one that is not sent, the cell would stand still.
const MESSAGE_BYTES_MAX: usize = 24 << 20;

/// Who answers. It is there before what it hands on to: a machine that joins has a transport first.
#[derive(Default)]
pub(crate) struct Net {
    joins: OnceLock<Arc<Joins>>,
    issuing: OnceLock<Arc<Issuing>>,
    serving: OnceLock<Arc<Serving>>,
    incoming: OnceLock<Incoming>,
}

impl Net {
    /// From now on machines that ask to join, and nodes that ask for certificates or for streams of pods, are answered,
    /// and what nodes say to this one's machines comes to them.
    pub(crate) fn serve(&self, joins: Arc<Joins>, issuing: Arc<Issuing>, serving: Arc<Serving>, incoming: Incoming) {
        // Once, by whoever starts the node.
        let _ = self.joins.set(joins);
        let _ = self.issuing.set(issuing);
        let _ = self.serving.set(serving);
        let _ = self.incoming.set(incoming);
    }
}

impl Handler for Net {
    fn up(&self, peer: &Arc<Peer>) {
        tracing::debug!(node = %peer.node, roles = %peer.roles, "a link is up");
    }

    fn down(&self, node: NodeId, why: &Why) {
        tracing::debug!(%node, %why, "a link is down");
    }

    fn message(&self, peer: &Arc<Peer>, protocol: Protocol, message: Message) {
        // One that comes before there is somebody to hear it is lost, as any may be.
        if let Some(incoming) = self.incoming.get() {
            incoming.message(peer, protocol, &message);
        }
    }

    fn stream(&self, stream: Streams) {
        // To drop a stream is to refuse it.
        match (stream.protocol, self.issuing.get(), self.incoming.get()) {
            (ISSUE, Some(issuing), _) => issuing.clone().serve(stream),
            (ISSUE, None, _) => {}
            (POD, ..) => {
                if let Some(serving) = self.serving.get() {
                    serving.clone().serve(stream);
                }
            }
            (_, _, Some(incoming)) => incoming.stream(stream),
            (_, _, None) => {}
        }
    }

    fn join(
        &self,
        node: NodeId,
        question: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + '_>> {
        Box::pin(async move {
            match self.joins.get() {
                Some(joins) => joins.answer(node, &question).await,
                None => Err(crate::join::elsewhere("this node is about to start and lets nobody join yet")),
            }
        })
    }
}

/// Binds the transport to `--listen`. Without a `standing` it only asks to join.
///
/// # Errors
/// If the address is taken, or the key or the SVID cannot be used.
pub(crate) async fn start(
    config: &Config,
    key: &NodeKey,
    standing: Option<Standing>,
    revocations: Revocations,
    net: Arc<Net>,
    chance: Chance,
) -> Result<Mesh> {
    let mut settings = ::mesh::Config::new(PROTOCOLS.to_vec(), chance);
    settings.bind = vec![config.listen];
    settings.limits.message_bytes_max = MESSAGE_BYTES_MAX;
    settings.limits.queue_bytes_max = 2 * MESSAGE_BYTES_MAX;
    settings.limits.in_flight_bytes_max = MESSAGE_BYTES_MAX;
    settings.clock = Clock::new(clock::wall);
    settings.revocations = revocations;
    let started = Mesh::start(settings, key, standing, net).await;
    started.context("starting the mesh endpoint: its address and UDP port are chosen with --listen")
}
