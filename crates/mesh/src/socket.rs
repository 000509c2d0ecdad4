//! The endpoint under all links, and a new one in its place when it dies.
//!
//! iroh watches the machine's interfaces and binds its UDP socket anew whenever one comes or goes; on a node that runs
//! pods that is often. Where binding fails at that moment (a child between fork and exec still holds the port, an address
//! is away for a second), iroh 1.4's endpoint is dead for good, and says so only by accepting nothing any more
//! (<https://github.com/n0-computer/iroh/issues/4289>). A node that is deaf until somebody starts it again is no node: so
//! the endpoint that has died is replaced, at the same port, for as long as it takes.

use crate::error::chain;
use crate::join::JOIN;
use crate::peers::LINK;
use crate::{Config, MeshError};
use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::signature::Ed25519KeyPair;
use identity::{NodeKey, tls};
use iroh::endpoint::{QuicTransportConfig, VarInt, presets};
use iroh::{Endpoint, EndpointId, RelayMode, SecretKey};
use iroh_mdns_address_lookup::MdnsAddressLookup;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// What a connection may send before its hello is believed: a hello, or a piece of a question to join.
const WINDOW_OF_A_STRANGER: u32 = 64 * 1024;
/// Sent and not acknowledged, on one link.
const SEND_WINDOW: u64 = 8 << 20;
/// Silence after which a link is lost. Both ends say something every five seconds.
const LOST_AFTER: Duration = Duration::from_secs(15);
/// A dead endpoint may not even end; its socket is free when the last of it is dropped.
const BURIED_WITHIN: Duration = Duration::from_secs(1);
/// The wait after a first binding in vain; it doubles up to [`AGAIN_AT_MOST`].
const AGAIN_AFTER: Duration = Duration::from_millis(50);
const AGAIN_AT_MOST: Duration = Duration::from_secs(2);

/// What is bound, and what is needed to bind it once more.
pub(crate) struct Socket {
    /// None while there is none that lives: its socket is closed with the last that holds it.
    current: RwLock<Option<Endpoint>>,
    secret: SecretKey,
    transport: QuicTransportConfig,
    /// With the ports that were given at the first time.
    addresses: Vec<SocketAddr>,
    lan: OnceLock<MdnsAddressLookup>,
}

impl Socket {
    pub(crate) async fn bind(config: &Config, key: &NodeKey) -> Result<Socket, MeshError> {
        let limits = &config.limits;
        let transport = QuicTransportConfig::builder()
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(limits.stream_window_bytes))
            .receive_window(VarInt::from_u32(WINDOW_OF_A_STRANGER))
            .send_window(SEND_WINDOW)
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(LOST_AFTER.try_into().ok())
            .build();
        let secret = secret(key)?;
        let first = bind(&secret, &transport, &config.bind).await?;
        let addresses = first.bound_sockets();
        Ok(Socket { current: RwLock::new(Some(first)), secret, transport, addresses, lan: OnceLock::new() })
    }

    /// The one in use.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This node, as iroh calls it.
    pub(crate) fn id(&self) -> EndpointId {
        self.secret.public()
    }

    /// What it is bound to, now or again in a moment.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    fn set(&self, endpoint: Option<Endpoint>) -> Option<Endpoint> {
        std::mem::replace(&mut *self.current.write().unwrap_or_else(PoisonError::into_inner), endpoint)
    }

    /// Looks nodes up on the local network too, with this endpoint and those that come after it.
    pub(crate) fn look_up_by(&self, mdns: MdnsAddressLookup) -> Result<(), MeshError> {
        let mdns = self.lan.get_or_init(|| mdns).clone();
        let Some(endpoint) = self.endpoint() else { return Ok(()) };
        endpoint.address_lookup().map_err(|e| MeshError::Lan(e.to_string()))?.add(mdns);
        Ok(())
    }

    /// The endpoint in use has died: binds another in its place. Ends only when there is one.
    pub(crate) async fn replace(&self) {
        if let Some(dead) = self.set(None) {
            let _ = timeout(BURIED_WITHIN, dead.close()).await;
        }
        let mut wait = AGAIN_AFTER;
        loop {
            match bind(&self.secret, &self.transport, &self.addresses).await {
                Ok(endpoint) => {
                    self.set(Some(endpoint));
                    if let Some(mdns) = self.lan.get()
                        && let Err(why) = self.look_up_by(mdns.clone())
                    {
                        tracing::warn!(%why, "the local network is not listened to any more");
                    }
                    return;
                }
                Err(why) => tracing::warn!(%why, "no other node can be reached until this port is bound again"),
            }
            sleep(wait).await;
            wait = (wait * 2).min(AGAIN_AT_MOST);
        }
    }
}

/// A socket that contacts nobody: no relay, no lookup, no port mapping.
async fn bind(secret: &SecretKey, transport: &QuicTransportConfig, to: &[SocketAddr]) -> Result<Endpoint, MeshError> {
    let mut builder = Endpoint::builder(presets::Empty)
        .crypto_provider(tls::provider())
        .relay_mode(RelayMode::Disabled)
        .secret_key(secret.clone())
        .alpns(vec![LINK.to_vec(), JOIN.to_vec()])
        .transport_config(transport.clone())
        .clear_ip_transports();
    let addresses = to.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
    let failed = |why: String| MeshError::Bind { addresses: addresses.clone(), why };
    if to.is_empty() {
        return Err(failed("no address was given".to_owned()));
    }
    for address in to {
        builder = builder.bind_addr(*address).map_err(|e| failed(e.to_string()))?;
    }
    builder.bind().await.map_err(|e| failed(chain(&e)))
}

/// The node's key as iroh takes it.
fn secret(key: &NodeKey) -> Result<SecretKey, MeshError> {
    let bad = |why: &dyn std::fmt::Display| MeshError::Key(why.to_string());
    let pem = key.to_pem();
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| bad(&e))?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|e| bad(&e))?;
    let seed = pair.seed().and_then(|seed| seed.as_be_bytes()).map_err(|e| bad(&e))?;
    let seed = <[u8; 32]>::try_from(seed.as_ref()).map_err(|e| bad(&e))?;
    let secret = SecretKey::from_bytes(&seed);
    if secret.public().as_bytes() == &key.id().0 { Ok(secret) } else { Err(bad(&"its halves do not belong together")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Handler, Mesh, Message, Peer, Protocol, Streams, Why};
    use base::{Chance, NodeId};
    use bytes::Bytes;
    use futures_util::future::BoxFuture;
    use identity::Contact;
    use std::sync::Arc;

    /// Answers whoever asks to join.
    struct Echo;

    impl Handler for Echo {
        fn up(&self, _: &Arc<Peer>) {}
        fn down(&self, _: NodeId, _: &Why) {}
        fn message(&self, _: &Arc<Peer>, _: Protocol, _: Message) {}
        fn stream(&self, _: Streams) {}
        fn join(&self, _: NodeId, question: Bytes) -> BoxFuture<'_, Result<Vec<u8>, String>> {
            Box::pin(async move { Ok(question.to_vec()) })
        }
    }

    fn loopback() -> Config {
        let mut config = Config::new(vec![Protocol::new("cell", 1)], Chance::from_u64(1));
        config.bind = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.limits.dial_within = Duration::from_secs(1);
        config
    }

    #[tokio::test]
    async fn an_endpoint_that_dies_is_replaced_at_the_same_port_and_answers_again() {
        let start = |key| async move { Mesh::start(loopback(), &key, None, Arc::new(Echo)).await.unwrap() };
        let (key, other) = (NodeKey::make().unwrap(), NodeKey::make().unwrap());
        let node = key.id();
        let (mesh, asker) = (start(key).await, start(other).await);
        let contact = Contact { node, addresses: mesh.bound() };
        for round in 0..3 {
            let question = format!("round {round}");
            let answer = loop {
                // Between the death of one and the birth of the other nobody is there.
                if let Ok(answer) = asker.ask_to_join(&contact, question.as_bytes()).await {
                    break answer;
                }
            };
            assert_eq!(answer, question.as_bytes());
            assert_eq!(mesh.bound(), contact.addresses);
            assert_eq!(mesh.counters().endpoints_replaced, round);
            mesh.inner.socket.endpoint().unwrap().close().await;
        }
        mesh.close().await;
        assert!(asker.ask_to_join(&contact, b"closed").await.is_err());
    }
}
