//! Every peer of a node: who is dialled, who is let in, which links stay, and what the handler is told.

use crate::bound::{Bucket, Strangers, lock};
use crate::counters::Counting;
use crate::discovery::Hints;
use crate::endpoint::Handler;
use crate::error::{SendError, chain};
use crate::hello::{self, Hello, Seen, Standing};
use crate::join::{self, JOIN};
use crate::link::{self, Control, Link};
use crate::look::Ended;
use crate::peer::{Held, News, PeerState};
use crate::socket::Socket;
use crate::{Config, Protocol, Why};
use base::{Chance, NodeId};
use bytes::Bytes;
use identity::{Refusal, Revocations};
use iroh::endpoint::{ConnectOptions, Connection, Incoming, IncomingAddr};
use iroh::{EndpointAddr, PublicKey, TransportAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;

/// What a link is.
pub(crate) const LINK: &[u8] = b"/beemesh/link/1";
/// Offered besides: which node is meant. A hint may be wrong and iroh knocks at all of a node's addresses at once, with
/// the first that answers deciding: a node at which another one is looked for therefore stays silent.
const MEANT: &str = "/beemesh/to/";
/// Letters to the log about strangers, a second; the rest is counted only.
const TOLD_PER_SECOND: u32 = 5;

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) names: Vec<&'static str>,
    pub(crate) me: NodeId,
    /// Tells this start from others.
    pub(crate) boot: u64,
    pub(crate) socket: Socket,
    /// Whoever sends may be on any thread.
    runtime: Handle,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) standing: watch::Sender<Option<Arc<Standing>>>,
    pub(crate) counting: Counting,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) joins: Arc<Semaphore>,
    pub(crate) join_bucket: Mutex<Bucket>,
    revocations: RwLock<Arc<Revocations>>,
    peers: Mutex<BTreeMap<NodeId, Arc<PeerState>>>,
    hints: Mutex<Hints>,
    strangers: Arc<Strangers>,
    chance: Mutex<Chance>,
    dials: AtomicU64,
    queued_bytes: AtomicUsize,
    /// Peers of which the handler has to be told something.
    news: Mutex<BTreeSet<NodeId>>,
    has_news: Notify,
    telling: Mutex<Bucket>,
    pub(crate) ended: Mutex<Ended>,
}

impl Inner {
    pub(crate) fn new(
        config: Config,
        names: Vec<&'static str>,
        me: NodeId,
        socket: Socket,
        standing: Option<Arc<Standing>>,
        handler: Arc<dyn Handler>,
    ) -> Inner {
        let now = Instant::now();
        let limits = &config.limits;
        Inner {
            names,
            me,
            boot: config.chance.stream("boot").u64() | 1,
            socket,
            runtime: Handle::current(),
            handler,
            standing: watch::Sender::new(standing),
            counting: Counting::default(),
            stop: watch::Sender::new(false),
            joins: Arc::new(Semaphore::new(limits.joins_max)),
            join_bucket: Mutex::new(Bucket::new(limits.joins_per_second, limits.joins_per_second * 4, now)),
            revocations: RwLock::new(Arc::new(config.revocations.clone())),
            peers: Mutex::default(),
            hints: Mutex::default(),
            strangers: Strangers::new(limits.handshakes_max),
            chance: Mutex::new(config.chance.stream("back-off")),
            dials: AtomicU64::new(0),
            queued_bytes: AtomicUsize::new(0),
            news: Mutex::default(),
            has_news: Notify::new(),
            telling: Mutex::new(Bucket::new(TOLD_PER_SECOND, TOLD_PER_SECOND * 10, now)),
            ended: Mutex::default(),
            config,
        }
    }

    /// Takes a newer list of expelled nodes. Says whether it is one.
    pub(crate) fn expel(&self, revocations: Revocations) -> bool {
        let mut current = self.revocations.write().unwrap_or_else(PoisonError::into_inner);
        let is_newer = revocations.number() >= current.number();
        if is_newer {
            *current = Arc::new(revocations);
        }
        is_newer
    }

    pub(crate) fn stop(&self) {
        if self.stop.send_replace(true) {
            return;
        }
        for link in self.links() {
            link.close(Why::Stopping);
        }
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// A letter to the log about a peer; strangers cannot fill it.
    pub(crate) fn tell(&self, why: &Why) {
        if lock(&self.telling).take(Instant::now()) {
            tracing::warn!(%why, "no link");
        }
    }

    pub(crate) fn revocations(&self) -> Arc<Revocations> {
        self.revocations.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What this node says of itself.
    pub(crate) fn hello(&self, dial: u64, seen: Seen, sequence: u32) -> Hello {
        let chain = self.standing.borrow().as_ref().map(|own| own.chain.clone()).unwrap_or_default();
        let protocols = hello::by_name(&self.config.protocols);
        Hello { boot: self.boot, dial, seen, sequence, wall: self.config.clock.now(), protocols, chain }
    }

    pub(crate) fn hint(&self, node: NodeId, addresses: &[SocketAddr]) {
        if node == self.me {
            return;
        }
        let (is_new, forgotten) = lock(&self.hints).add(node, addresses, true);
        self.counting.hints_dropped.add(forgotten);
        if is_new && let Some(peer) = self.known(node) {
            peer.hope();
        }
    }

    /// What the local network says: believed of nodes that are known here in some way, after what is known.
    pub(crate) fn overheard(&self, node: NodeId, addresses: &[SocketAddr]) {
        let peer = self.known(node);
        let mut hints = lock(&self.hints);
        if peer.is_none() && hints.of(node).is_empty() {
            return;
        }
        let (is_new, _) = hints.add(node, addresses, false);
        drop(hints);
        if is_new && let Some(peer) = peer {
            peer.hope();
        }
    }

    pub(crate) fn known(&self, node: NodeId) -> Option<Arc<PeerState>> {
        lock(&self.peers).get(&node).cloned()
    }

    /// The peer's place, made if there is none. `None` at the bound.
    pub(crate) fn peer(&self, node: NodeId) -> Option<Arc<PeerState>> {
        let limits = &self.config.limits;
        let mut peers = lock(&self.peers);
        if let Some(peer) = peers.get(&node) {
            return Some(peer.clone());
        }
        if peers.len() >= limits.peers_max {
            return None;
        }
        let peer = Arc::new(PeerState::new(node, self.names.len(), limits));
        peers.insert(node, peer.clone());
        Some(peer)
    }

    /// The same, and it is not given up while the guard is there.
    fn held(&self, node: NodeId) -> Option<Held> {
        loop {
            let held = self.peer(node)?.hold();
            if !held.is_forgotten() {
                return Some(held);
            }
        }
    }

    /// Gives up a peer's place, if nothing is in it.
    fn forget(&self, peer: &PeerState) {
        let mut peers = lock(&self.peers);
        if peer.forget() {
            peers.remove(&peer.node);
        }
    }

    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        let peers: Vec<Arc<PeerState>> = lock(&self.peers).values().cloned().collect();
        peers.iter().filter_map(|peer| peer.link()).collect()
    }

    /// Waits until something holds of a peer.
    pub(crate) async fn until(&self, peer: &PeerState, holds: impl Fn(&PeerState) -> bool) {
        let mut changed = peer.changed.subscribe();
        while !holds(peer) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn send(self: &Arc<Inner>, node: NodeId, protocol: Protocol, bytes: Bytes) -> Result<(), SendError> {
        let limits = &self.config.limits;
        let length = bytes.len();
        if self.is_stopped() {
            return Err(SendError::Stopping);
        }
        if node == self.me {
            return Err(SendError::Myself);
        }
        if length > limits.message_bytes_max {
            return Err(SendError::TooLarge { protocol, bytes: length, bytes_max: limits.message_bytes_max });
        }
        let not_spoken = SendError::NotSpoken { protocol, node };
        let Some(place) = self.names.iter().position(|n| *n == protocol.name) else { return Err(not_spoken) };
        if self.queued_bytes.load(Ordering::Relaxed) + length > limits.queued_bytes_total_max {
            return Err(SendError::Full { node, what: "the queues of all peers together hold all they may" });
        }
        // Twice, for a place that is given up between finding it and using it.
        for _ in 0..2 {
            let peer = self.peer(node).ok_or(SendError::Full { node, what: "too many peers" })?;
            if let Some(link) = peer.link()
                && link.majors.get(place) != Some(&Some(protocol.major))
            {
                return Err(not_spoken);
            }
            self.queued_bytes.fetch_add(length, Ordering::Relaxed);
            let pushed = peer.push(place, protocol.major, bytes.clone(), limits);
            self.unqueued(pushed.dropped_bytes);
            self.counting.messages_dropped_queue_full.add(pushed.dropped);
            if !peer.is_forgotten() {
                // Asked after the push: a link that is lost from here on finds the message in the queue.
                if peer.link().is_none() {
                    self.dial_if_needed(&peer);
                }
                return Ok(());
            }
            self.drop_queued(&peer);
        }
        Err(SendError::Full { node, what: "its place was just given up" })
    }

    pub(crate) fn unqueued(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn drop_queued(&self, peer: &PeerState) -> usize {
        let (messages, bytes) = peer.drop_queued();
        self.unqueued(bytes);
        messages
    }

    /// The link to a peer, made if need be; or why the next dial failed.
    pub(crate) async fn link(self: &Arc<Inner>, peer: &Arc<PeerState>) -> Result<Arc<Link>, Why> {
        let _waiting = peer.wait();
        let mut changed = peer.changed.subscribe();
        let (failed_before, _) = peer.failures();
        loop {
            if self.is_stopped() {
                return Err(Why::Stopping);
            }
            if let Some(link) = peer.link() {
                return Ok(link);
            }
            let (failed, why) = peer.failures();
            if failed > failed_before {
                return Err(why.unwrap_or(Why::NoAddress(peer.node)));
            }
            self.dial_if_needed(peer);
            if changed.changed().await.is_err() {
                return Err(Why::Stopping);
            }
        }
    }

    pub(crate) fn dial_if_needed(self: &Arc<Inner>, peer: &Arc<PeerState>) {
        if !self.is_stopped() && peer.begin_dialing() {
            self.runtime.spawn(dial(self.clone(), peer.clone()));
        }
    }

    /// Whoever is waiting for another dial waits no longer: what failed until now says nothing.
    fn dial_at_once(&self) {
        lock(&self.peers).values().for_each(|peer| peer.retry.notify_one());
    }

    /// Reaches a node on the network: whoever answers has its key.
    pub(crate) async fn connect(&self, node: NodeId, purpose: &[u8]) -> Result<Connection, Why> {
        let within = self.config.limits.dial_within;
        let unreachable = |why: String| Why::Unreachable { node, why };
        let id = PublicKey::from_bytes(&node.0).map_err(|_| unreachable("its id is no key".to_owned()))?;
        let addresses = lock(&self.hints).of(node);
        if addresses.is_empty() && !self.config.lan {
            return Err(Why::NoAddress(node));
        }
        let address = EndpointAddr::from_parts(id, addresses.into_iter().map(TransportAddr::Ip));
        let options = ConnectOptions::new().with_additional_alpns(vec![format!("{MEANT}{node}").into_bytes()]);
        let connected = async {
            let endpoint = self.socket.endpoint().ok_or("this node's own port is being bound again")?;
            let connecting = endpoint.connect_with_opts(address, purpose, options).await;
            connecting.map_err(|e| chain(&e))?.await.map_err(|e| chain(&e))
        };
        match timeout(within, connected).await {
            Ok(connected) => connected.map_err(unreachable),
            Err(_) => Err(unreachable(format!("nothing came within {within:?}"))),
        }
    }

    /// Uses a link on which both have said hello, if it is the better one.
    fn take(self: &Arc<Inner>, peer: &Arc<PeerState>, link: Arc<Link>, control: Control) -> Result<(), Why> {
        let old = peer.install(self.me, &link).inspect_err(|why| {
            self.counting.links_duplicate.one();
            link.close(why.clone());
        })?;
        self.counting.links_up.one();
        tracing::info!(node = ?peer.node, dialed_here = link.origin.dialed_here, dial = link.origin.dial, "link up");
        if let Some(old) = old {
            self.counting.links_duplicate.one();
            old.close(Why::Duplicate(peer.node));
        }
        control.keep(self, &link);
        tokio::spawn(until_closed(self.clone(), peer.clone(), link.clone()));
        // Whoever was expelled while the two said hello: the list was taken before this link could be found.
        self.check(&link);
        if self.is_stopped() {
            link.close(Why::Stopping);
        }
        self.note(peer.node);
        Ok(())
    }

    /// Closes a link to whom the list of expelled nodes names, or whose SVID ran out.
    pub(crate) fn check(&self, link: &Arc<Link>) {
        let proven = link.proven();
        if let Err(refusal @ Refusal::Expelled(_)) = self.revocations().check(&proven) {
            self.counting.refused_expelled.one();
            let why = Why::Expelled { node: link.node, refusal: Box::new(refusal) };
            self.tell(&why);
            link.close(why);
        } else if self.config.clock.now() > proven.lifetime.not_after {
            self.counting.links_expired.one();
            let why = Why::Expired(link.node);
            self.tell(&why);
            link.close(why);
        }
    }

    /// A peer showed a newer SVID.
    pub(crate) fn renewed(&self, node: NodeId) {
        if let Some(peer) = self.known(node) {
            peer.renewed();
            self.note(node);
        }
    }

    fn note(&self, node: NodeId) {
        lock(&self.news).insert(node);
        self.has_news.notify_one();
    }
}

/// Sees to it that there is a link to a peer, as long as somebody wants one.
async fn dial(inner: Arc<Inner>, peer: Arc<PeerState>) {
    let mut stop = inner.stop.subscribe();
    let mut wait = peer.take_delay();
    loop {
        if wait > Duration::ZERO {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = peer.retry.notified() => {}
                () = inner.until(&peer, |p| p.link().is_some()) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
        if !peer.goes_on_dialing() {
            return;
        }
        let made = tokio::select! {
            made = dial_once(&inner, &peer) => made,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        wait = match made {
            // None, unless the link has ended again already.
            Ok(()) => peer.take_delay(),
            // The other one is there, or will be in a moment.
            Err(Why::Duplicate(_)) => inner.config.limits.back_off_min,
            Err(why) => {
                inner.counting.dials_failed.one();
                tracing::info!(%why, "a dial failed");
                let wait = peer.failed(why, &inner.config.limits, &inner.chance);
                // What waited for this dial is old news at the next.
                inner.counting.messages_dropped_unreachable.add(inner.drop_queued(&peer));
                wait
            }
        };
    }
}

async fn dial_once(inner: &Arc<Inner>, peer: &Arc<PeerState>) -> Result<(), Why> {
    if peer.link().is_some() {
        return Ok(());
    }
    if inner.standing.borrow().is_none() {
        return Err(Why::NoIdentity);
    }
    inner.counting.dials.one();
    let dial = inner.dials.fetch_add(1, Ordering::Relaxed) + 1;
    let connection = inner.connect(peer.node, LINK).await?;
    if peer.link().is_some() {
        link::close(&connection, &Why::Duplicate(peer.node));
        return Ok(());
    }
    let (link, control) = link::greet(inner, connection, peer, dial).await?;
    inner.take(peer, link, control)
}

/// Lets in who knocks.
pub(crate) async fn accept(inner: Arc<Inner>) {
    let mut stop = inner.stop.subscribe();
    loop {
        let endpoint = inner.socket.endpoint();
        let incoming = async {
            match &endpoint {
                Some(endpoint) => endpoint.accept().await,
                None => None,
            }
        };
        let incoming = tokio::select! {
            incoming = incoming => incoming,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Some(incoming) = incoming else {
            drop(endpoint);
            tracing::warn!("the endpoint has died with all its links; another takes its place");
            tokio::select! {
                () = inner.socket.replace() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            inner.counting.endpoints_replaced.one();
            inner.dial_at_once();
            continue;
        };
        let address = match incoming.remote_addr() {
            IncomingAddr::Ip(address) => Some(address),
            _ => None,
        };
        let Some(stranger) = inner.strangers.admit(address.map(|a| a.ip())) else {
            inner.counting.handshakes_turned_away.one();
            incoming.refuse();
            continue;
        };
        if is_for_another(&incoming, inner.me) {
            inner.counting.handshakes_for_others.one();
            incoming.ignore();
            continue;
        }
        if inner.strangers.is_crowded() && !incoming.remote_addr_validated() {
            // It comes again, if it is where it says.
            let _ = incoming.retry();
            continue;
        }
        let inner = inner.clone();
        tokio::spawn(async move {
            let within = inner.config.limits.hello_within;
            let node = |c: &Connection| NodeId(*c.remote_id().as_bytes());
            match timeout(within, shake_hands(incoming)).await {
                Ok(Some(connection)) if connection.alpn() == JOIN => {
                    let node = node(&connection);
                    join::answer(inner, connection, node, stranger).await;
                }
                Ok(Some(connection)) => {
                    let node = node(&connection);
                    let taken = let_in(&inner, connection, node).await;
                    drop(stranger);
                    if let (Ok(()), Some(address)) = (taken, address) {
                        // It came from its own port: worth a try when the link is lost.
                        lock(&inner.hints).add(node, &[address], false);
                    }
                }
                Ok(None) => {}
                Err(_) => inner.counting.handshakes_silent.one(),
            }
        });
    }
}

/// Does who knocks look for another node? What cannot be read is let in: TLS will tell.
fn is_for_another(incoming: &Incoming, me: NodeId) -> bool {
    let Some(offered) = incoming.decrypt().and_then(|initial| initial.alpns()) else { return false };
    let meant = format!("{MEANT}{me}");
    let mut targets = offered.filter_map(Result::ok).filter(|alpn| alpn.starts_with(MEANT.as_bytes())).peekable();
    targets.peek().is_some() && !targets.any(|target| target == meant.as_bytes())
}

async fn shake_hands(incoming: Incoming) -> Option<Connection> {
    incoming.accept().ok()?.await.ok()
}

async fn let_in(inner: &Arc<Inner>, connection: Connection, node: NodeId) -> Result<(), Why> {
    let Some(peer) = inner.held(node) else {
        let why = Why::Busy { node, what: "too many peers" };
        inner.counting.refused_busy.one();
        link::close(&connection, &why);
        return Err(why);
    };
    let taken = match link::hear(inner, connection, &peer).await {
        Ok((link, control)) => inner.take(&peer, link, control),
        Err(why) => Err(why),
    };
    let place = Arc::clone(&peer);
    drop(peer);
    if taken.is_err() {
        // A stranger leaves nothing behind.
        inner.forget(&place);
    }
    taken
}

/// Notices the end of a link.
async fn until_closed(inner: Arc<Inner>, peer: Arc<PeerState>, link: Arc<Link>) {
    let error = link.connection.closed().await;
    let why = link.ended(&error);
    inner.counting.links_down.one();
    tracing::info!(%why, "link down");
    let told = why.to_string();
    if !peer.removed(&link, why, &inner.config.limits, &inner.chance) || inner.is_stopped() {
        return;
    }
    inner.note_end(peer.node, told);
    inner.note(peer.node);
    if peer.needs_link() {
        inner.dial_if_needed(&peer);
    }
}

/// Tells the handler who came and went, one after the other, and starts what moves on a link after `up`.
pub(crate) async fn tell_news(inner: Arc<Inner>) {
    let mut stop = inner.stop.subscribe();
    loop {
        let node = lock(&inner.news).pop_first();
        if inner.is_stopped() {
            return;
        }
        let Some(node) = node else {
            tokio::select! {
                () = inner.has_news.notified() => continue,
                _ = stop.wait_for(|stop| *stop) => return,
            }
        };
        let Some(peer) = inner.known(node) else { continue };
        let up = |link: &Arc<Link>| {
            inner.handler.up(&link.peer());
            link.start(&inner, &peer);
        };
        match peer.news() {
            News::Nothing => {}
            News::Up(link) => up(&link),
            News::Down(why) => inner.handler.down(node, &why),
            News::Again(why, link) => {
                inner.handler.down(node, &why);
                up(&link);
            }
            News::Same(link, renewed) => {
                link.start(&inner, &peer);
                if renewed {
                    inner.handler.renewed(&link.peer());
                }
            }
        }
    }
}

/// Looks at every peer now and then: SVIDs that ran out, links nobody uses, places nobody needs.
pub(crate) async fn look_after(inner: Arc<Inner>) {
    let mut stop = inner.stop.subscribe();
    let mut tick = tokio::time::interval(inner.config.limits.look_every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let peers: Vec<Arc<PeerState>> = lock(&inner.peers).values().cloned().collect();
        for peer in peers {
            match peer.link() {
                Some(link) => {
                    inner.check(&link);
                    let in_use = link.streams.load(Ordering::Relaxed) > 0 || peer.is_wanted();
                    if !in_use && link.used.since() > inner.config.limits.link_idle {
                        link.close(Why::Idle(peer.node));
                    }
                }
                None if peer.is_wanted() => inner.dial_if_needed(&peer),
                None => inner.forget(&peer),
            }
        }
    }
}
