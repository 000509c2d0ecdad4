//! The socket, and what a node does with it: [`Mesh`] for what goes out, [`Handler`] for what comes in.

use crate::discovery;
use crate::error::{JoinError, MeshError, OpenError, SendError};
use crate::hello::Standing;
use crate::peers::{self, Inner};
use crate::socket::Socket;
use crate::stream::{self, Streams};
use crate::{Config, Counters, Message, Peer, Protocol, Why};
use base::NodeId;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use identity::{Contact, NodeKey, Revocations};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Time for telling every peer that this node goes.
const CLOSED_WITHIN: Duration = Duration::from_secs(4);

/// What is done with what comes in. Calls come from many tasks, are not to block, and are quick: whatever takes
/// time is handed on. Of one peer, `up` comes before anything else, and its messages of one protocol come in order,
/// one after the other.
pub trait Handler: Send + Sync + 'static {
    /// There is a link to this peer.
    fn up(&self, peer: &Arc<Peer>);

    /// There is none any more. A message that was on its way may still come.
    fn down(&self, node: NodeId, why: &Why);

    /// A peer showed a newer SVID on a link that is up: its roles may be others.
    fn renewed(&self, peer: &Arc<Peer>) {
        let _ = peer;
    }

    /// A message came. As long as `message` is held, its bytes count against this peer.
    fn message(&self, peer: &Arc<Peer>, protocol: Protocol, message: Message);

    /// A peer opened a stream. To drop it is to refuse it.
    fn stream(&self, stream: Streams);

    /// A machine with this key asks to join: the answer, or a letter that says why not. Whoever asks has
    /// proven its key and nothing else.
    fn join(&self, node: NodeId, question: Bytes) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        let _ = (node, question);
        Box::pin(async { Err("this node lets nobody join: ask one with the role authority".to_owned()) })
    }
}

/// A node's transport. Dropping it ends it at once; [`Mesh::close`] tells the peers.
pub struct Mesh {
    pub(crate) inner: Arc<Inner>,
}

impl Mesh {
    /// Binds the socket and begins to accept, on the runtime it is called on; what does not wait may be called from any
    /// thread afterwards. Without a `standing` it only asks to join, and is given one by
    /// [`Mesh::set_identity`] later.
    ///
    /// # Errors
    /// If the address is taken or is none of this machine, a protocol's name is none, or the SVID is another node's.
    pub async fn start(
        config: Config,
        key: &NodeKey,
        standing: Option<Standing>,
        handler: Arc<dyn Handler>,
    ) -> Result<Mesh, MeshError> {
        let names = config.names()?;
        let me = key.id();
        let standing = standing.map(|s| is_of(me, s)).transpose()?;
        let socket = Socket::bind(&config, key).await?;
        let inner = Arc::new(Inner::new(config, names, me, socket, standing, handler));
        if inner.config.lan {
            discovery::listen(&inner)?;
        }
        tokio::spawn(peers::accept(inner.clone()));
        tokio::spawn(peers::tell_news(inner.clone()));
        tokio::spawn(peers::look_after(inner.clone()));
        Ok(Mesh { inner })
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.inner.me
    }

    /// The addresses it is bound to.
    pub fn bound(&self) -> Vec<SocketAddr> {
        self.inner.socket.addresses().to_vec()
    }

    /// Where others may reach it, as far as this machine knows: for a ticket, or the directory.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.inner.socket.endpoint().map(|e| e.addr().ip_addrs().copied().collect()).unwrap_or_default()
    }

    /// Says where a node may be. The latest hints are tried first; see [`crate::MAX_ADDRESSES`] and
    /// [`crate::MAX_HINTED`].
    pub fn hint(&self, node: NodeId, addresses: &[SocketAddr]) {
        self.inner.hint(node, addresses);
    }

    /// Whether a link to this node is to be there always: dialled now, and again whenever it is lost.
    ///
    /// # Errors
    /// If it is this node, or there is no room for another peer.
    pub fn want(&self, node: NodeId, wanted: bool) -> Result<(), SendError> {
        let inner = &self.inner;
        if node == inner.me {
            return Err(SendError::Myself);
        }
        if !wanted {
            if let Some(peer) = inner.known(node) {
                peer.want(false);
            }
            return Ok(());
        }
        let peer = inner.peer(node).ok_or(SendError::Full { node, what: "too many peers" })?;
        peer.want(true);
        inner.dial_if_needed(&peer);
        Ok(())
    }

    /// Puts a message into the peer's queue and returns: a link is made if there is none. `Ok` says that it is in the queue,
    /// not that it arrives.
    ///
    /// # Errors
    /// If it can never be sent, or there is no room; nothing of it is sent then.
    pub fn send(&self, node: NodeId, protocol: Protocol, bytes: Bytes) -> Result<(), SendError> {
        let sent = self.inner.send(node, protocol, bytes);
        if sent.is_err() {
            self.inner.counting.messages_refused.one();
        }
        sent
    }

    /// Opens a stream; a link is made if there is none.
    ///
    /// # Errors
    /// If there is no link within the time there is, the protocol is not spoken, or the peer allows no more.
    pub async fn open(&self, node: NodeId, protocol: Protocol) -> Result<Streams, OpenError> {
        let inner = &self.inner;
        if node == inner.me {
            return Err(OpenError::Myself);
        }
        let within = inner.config.limits.open_within;
        let opened = async {
            let busy = Why::Busy { node, what: "too many peers" };
            let peer = inner.peer(node).ok_or(OpenError::NoLink { protocol, why: busy })?;
            let link = inner.link(&peer).await.map_err(|why| OpenError::NoLink { protocol, why })?;
            stream::open(inner, &link, protocol).await
        };
        timeout(within, opened).await.unwrap_or(Err(OpenError::Timeout { protocol, node, within }))
    }

    /// Who is there now.
    pub fn peers(&self) -> Vec<Arc<Peer>> {
        self.inner.links().iter().map(|link| link.peer()).collect()
    }

    /// Who that node has proven to be, if there is a link to it.
    pub fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        Some(self.inner.known(node)?.link()?.peer())
    }

    /// Presents this SVID from now on, on new connections and, at once, on those there are.
    ///
    /// # Errors
    /// If it is another node's; the one before stays in use then.
    pub fn set_identity(&self, standing: Standing) -> Result<(), MeshError> {
        self.inner.standing.send_replace(Some(is_of(self.inner.me, standing)?));
        Ok(())
    }

    /// Takes a list of expelled nodes, if it is newer than the one there is: links to them, and to those they vouch
    /// for, are closed at once, and new ones refused.
    pub fn expel(&self, revocations: Revocations) {
        let inner = &self.inner;
        if inner.expel(revocations) {
            inner.links().iter().for_each(|link| inner.check(link));
        }
    }

    /// Closes at once the links to peers that do not pass. It is asked of those there are; whoever is not to come
    /// back is expelled, or asked about again in [`Handler::up`].
    pub fn check(&self, passes: impl Fn(&Peer) -> bool) {
        for link in self.inner.links() {
            if !passes(&link.peer()) {
                link.close(Why::Dismissed(link.node));
            }
        }
    }

    /// Asks a node of a mesh whether this machine may join; no SVID is needed for that.
    ///
    /// # Errors
    /// If it was not answered, or with a refusal.
    pub async fn ask_to_join(&self, contact: &Contact, question: &[u8]) -> Result<Vec<u8>, JoinError> {
        self.inner.ask_to_join(contact, question).await
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.inner.counting.snapshot()
    }

    /// Ends everything and tells the peers, in four seconds at most. The handler hears no more.
    pub async fn close(&self) {
        self.inner.stop();
        // A peer that does not acknowledge learns it by silence.
        if let Some(endpoint) = self.inner.socket.endpoint() {
            let _ = timeout(CLOSED_WITHIN, endpoint.close()).await;
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.inner.stop();
    }
}

fn is_of(me: NodeId, standing: Standing) -> Result<Arc<Standing>, MeshError> {
    if standing.node == me {
        return Ok(Arc::new(standing));
    }
    Err(MeshError::Svid(format!("it is of {:?} and this is {me:?}", standing.node)))
}
