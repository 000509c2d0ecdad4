//! A mesh on the loopback interface: a founder that issues SVIDs, nodes with real sockets, and a handler that
//! writes down what it hears.
#![allow(dead_code, clippy::unwrap_used)]

use base::{CellId, Chance, NodeId, Uid, Wall};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use identity::{CellIssuer, Identity, IssuerScope, NodeKey, Revocations, Roles, SpiffeId};
use mesh::{Clock, Config, Counters, Handler, Mesh, Message, Peer, Protocol, Standing, Streams, Why};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const NOW: Wall = Wall(1_769_846_400_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const CELL: Protocol = Protocol::new("cell", 1);
pub(crate) const PAIR: Protocol = Protocol::new("pair", 1);

/// A mesh's founder, and the folder it lives in.
pub(crate) struct Founder {
    pub(crate) identity: Identity,
    issuer: CellIssuer,
    folder: PathBuf,
}

impl Founder {
    pub(crate) fn of(name: &str) -> Founder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let unique = format!("beemesh-mesh-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&folder).unwrap();
        let identity = Identity::found(&folder, Some(name), None, NOW).unwrap();
        let issuer = identity.issuer(CellId(Uid(7)), &IssuerScope::Registry, NOW).unwrap();
        Founder { identity, issuer, folder }
    }

    pub(crate) fn new() -> Founder {
        Founder::of("quiet-otter.mesh")
    }

    /// An SVID of this mesh, made at `now`.
    pub(crate) fn svid(&self, node: NodeId, roles: Roles, now: Wall) -> Standing {
        let id = SpiffeId::Node { trust_domain: self.identity.trust_domain().clone(), node };
        let svid = self.issuer.svid(&id, roles, now).unwrap();
        Standing::new(self.identity.verifier().clone(), &svid).unwrap()
    }
}

impl Drop for Founder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What a handler heard.
#[derive(Debug)]
pub(crate) enum Heard {
    Up(Arc<Peer>),
    Down(NodeId, Why),
    Renewed(Arc<Peer>),
    Message(NodeId, Protocol, Message),
}

/// Writes down what it hears, messages held included.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) heard: Mutex<VecDeque<Heard>>,
    pub(crate) streams: Mutex<VecDeque<Streams>>,
    pub(crate) echoes: bool,
}

impl Recorder {
    pub(crate) fn ups(&self) -> usize {
        self.count(|h| matches!(h, Heard::Up(_)))
    }

    pub(crate) fn downs(&self) -> Vec<Why> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter_map(|h| if let Heard::Down(_, why) = h { Some(why.clone()) } else { None }).collect()
    }

    pub(crate) fn count(&self, of: impl Fn(&Heard) -> bool) -> usize {
        self.heard.lock().unwrap().iter().filter(|h| of(h)).count()
    }

    /// All messages of a protocol, taken out.
    pub(crate) fn take_messages(&self, protocol: Protocol) -> Vec<Bytes> {
        let mut heard = self.heard.lock().unwrap();
        let (mut taken, mut kept) = (Vec::new(), VecDeque::new());
        for h in heard.drain(..) {
            match h {
                Heard::Message(_, p, message) if p == protocol => taken.push(message.into_bytes()),
                other => kept.push_back(other),
            }
        }
        *heard = kept;
        taken
    }
}

impl Handler for Recorder {
    fn up(&self, peer: &Arc<Peer>) {
        self.heard.lock().unwrap().push_back(Heard::Up(peer.clone()));
    }

    fn down(&self, node: NodeId, why: &Why) {
        self.heard.lock().unwrap().push_back(Heard::Down(node, why.clone()));
    }

    fn renewed(&self, peer: &Arc<Peer>) {
        self.heard.lock().unwrap().push_back(Heard::Renewed(peer.clone()));
    }

    fn message(&self, peer: &Arc<Peer>, protocol: Protocol, message: Message) {
        self.heard.lock().unwrap().push_back(Heard::Message(peer.node, protocol, message));
    }

    fn stream(&self, mut stream: Streams) {
        if self.echoes {
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut stream.receive, &mut stream.send).await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream.send).await;
            });
        } else {
            self.streams.lock().unwrap().push_back(stream);
        }
    }

    fn join(&self, node: NodeId, question: Bytes) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        Box::pin(async move {
            match &question[..] {
                b"never" => std::future::pending().await,
                b"no" => Err("the ticket has expired".to_owned()),
                other => Ok([&node.0[..4], other].concat()),
            }
        })
    }
}

/// A node on the loopback interface.
pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) heard: Arc<Recorder>,
    pub(crate) key: NodeKey,
    /// What its clock shows, in milliseconds of Unix time.
    pub(crate) clock: Arc<AtomicU64>,
}

/// How a node differs from the ordinary.
pub(crate) struct Made {
    pub(crate) key: NodeKey,
    pub(crate) config: Config,
    pub(crate) heard: Recorder,
    pub(crate) clock: Arc<AtomicU64>,
}

pub(crate) fn make() -> Made {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // RUST_LOG=mesh=debug shows what went on in a test that failed.
    let log = tracing_subscriber::fmt().with_test_writer();
    let _ = log.with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
    let clock = Arc::new(AtomicU64::new(NOW.0));
    let shown = clock.clone();
    let mut config = Config::new(vec![CELL, PAIR], Chance::from_u64(NEXT.fetch_add(1, Ordering::Relaxed)));
    config.bind = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    config.clock = Clock::new(move || Wall(shown.load(Ordering::Relaxed)));
    config.limits.look_every = Duration::from_millis(50);
    config.limits.back_off_min = Duration::from_millis(20);
    config.limits.back_off_max = Duration::from_millis(200);
    Made { key: NodeKey::make().unwrap(), config, heard: Recorder::default(), clock }
}

impl Made {
    pub(crate) fn id(&self) -> NodeId {
        self.key.id()
    }

    pub(crate) async fn start(self, standing: Option<Standing>) -> Node {
        let heard = Arc::new(self.heard);
        let mesh = Mesh::start(self.config, &self.key, standing, heard.clone()).await.unwrap();
        Node { mesh, heard, key: self.key, clock: self.clock }
    }

    pub(crate) async fn of(self, founder: &Founder) -> Node {
        let svid = founder.svid(self.id(), Roles::ALL, NOW);
        self.start(Some(svid)).await
    }
}

impl Node {
    pub(crate) fn id(&self) -> NodeId {
        self.mesh.node()
    }

    pub(crate) fn knows(&self, other: &Node) {
        self.mesh.hint(other.id(), &other.mesh.bound());
    }

    pub(crate) fn counters(&self) -> Counters {
        self.mesh.counters()
    }

    pub(crate) fn send(&self, to: &Node, protocol: Protocol, bytes: &[u8]) {
        self.mesh.send(to.id(), protocol, Bytes::copy_from_slice(bytes)).unwrap();
    }

    pub(crate) fn set_clock(&self, now: Wall) {
        self.clock.store(now.0, Ordering::Relaxed);
    }
}

/// Two ordinary nodes of one mesh that know where the other is.
pub(crate) async fn two(founder: &Founder) -> (Node, Node) {
    let (a, b) = (make().of(founder).await, make().of(founder).await);
    a.knows(&b);
    b.knows(&a);
    (a, b)
}

/// Waits for a condition, and fails if it does not come about.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "it did not come about: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Links both, and waits for both to have heard of it.
pub(crate) async fn link(a: &Node, b: &Node) {
    a.mesh.want(b.id(), true).unwrap();
    until("a link", || a.mesh.peer(b.id()).is_some() && b.mesh.peer(a.id()).is_some()).await;
    until("both were told", || a.heard.ups() > 0 && b.heard.ups() > 0).await;
}

pub(crate) fn expelled(number: u64, node: NodeId) -> Revocations {
    Revocations::new(number, [(node, NOW)])
}
