//! What a node's transport is told once, at its start.

use crate::MeshError;
use base::{Chance, Wall};
use identity::Revocations;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// No more names of protocols than this in one mesh: each has a queue and a stream of its own for every peer.
pub(crate) const MAX_PROTOCOLS: usize = 16;
/// No more majors of one protocol than this side by side: law 6 asks for two.
pub(crate) const MAX_MAJORS: usize = 8;
/// A protocol's name is at most this long.
pub(crate) const MAX_NAME: usize = 32;

/// One major of one protocol: `/beemesh/<name>/<major>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Protocol {
    /// Its name: 1 to 32 of `a-z 0-9 -`.
    pub name: &'static str,
    /// Its major version.
    pub major: u16,
}

impl Protocol {
    /// `/beemesh/<name>/<major>`.
    pub const fn new(name: &'static str, major: u16) -> Protocol {
        Protocol { name, major }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/beemesh/{}/{}", self.name, self.major)
    }
}

/// Where the present comes from: what certificates are compared with. Tests set it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Wall + Send + Sync>);

impl Clock {
    /// A clock of the caller's.
    pub fn new(clock: impl Fn() -> Wall + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(clock))
    }

    /// The machine's.
    pub fn system() -> Clock {
        Clock::new(|| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        })
    }

    /// The present.
    pub fn now(&self) -> Wall {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clock at {:?}", self.now())
    }
}

/// How much of everything there may be. The defaults suit a node of a mesh of thousands.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one message, both ways; 4 MiB. Nodes of one mesh agree on it by its default.
    pub message_bytes_max: usize,
    /// Messages waiting for one peer in one protocol; beyond it the oldest are dropped. 1,024.
    pub queue_messages_max: usize,
    /// Their bytes; 8 MiB, and never less than one message.
    pub queue_bytes_max: usize,
    /// Bytes waiting for all peers together; beyond it what is new is refused. 256 MiB.
    pub queued_bytes_total_max: usize,
    /// Bytes of messages from one peer in one protocol that the handler holds; beyond it that stream is not
    /// read on. 8 MiB, and never less than one message.
    pub in_flight_bytes_max: usize,
    /// Streams a peer may have open to this node; beyond it the peer's [`crate::Mesh::open`] waits. 4,096: a gateway
    /// has one for each cell that it watches there.
    pub streams_max: u32,
    /// Bytes of all streams of one link that wait here unread; 256 MiB, and never less than those of one stream.
    pub link_window_bytes: u32,
    /// Bytes of one stream that wait here unread; 1 MiB.
    pub stream_window_bytes: u32,
    /// A link not in use for so long is closed, unless it is wanted; 5 min.
    pub link_idle: Duration,
    /// A stream on which nothing moved for so long is given up; 10 min.
    pub stream_idle: Duration,
    /// Time for the hello, and for the first bytes of a stream; 5 s.
    pub hello_within: Duration,
    /// Time for reaching a peer; 10 s.
    pub dial_within: Duration,
    /// Time for [`crate::Mesh::open`] altogether; 15 s.
    pub open_within: Duration,
    /// The wait after a first failed dial; it doubles, give or take a half, up to `back_off_max`. 100 ms.
    pub back_off_min: Duration,
    /// See `back_off_min`; 30 s.
    pub back_off_max: Duration,
    /// How often links are looked at: for SVIDs that ran out, and idleness. 5 s.
    pub look_every: Duration,
    /// Peers with a link, a queue or a wish; 16,384. Beyond it new ones are refused.
    pub peers_max: usize,
    /// Connections that have not proven anything yet, at once; 256. One address may have an eighth of them.
    pub handshakes_max: usize,
    /// Time for one question and its answer when joining; 60 s, since the answer waits for a commit of root.
    pub join_within: Duration,
    /// Questions of joiners at once; 16.
    pub joins_max: usize,
    /// Questions of joiners a second, with bursts of four times that; 4.
    pub joins_per_second: u32,
    /// How long after its end an SVID is good between nodes; [`identity::GRACE`].
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes_max: 4 << 20,
            queue_messages_max: 1024,
            queue_bytes_max: 8 << 20,
            queued_bytes_total_max: 256 << 20,
            in_flight_bytes_max: 8 << 20,
            streams_max: 4096,
            link_window_bytes: 256 << 20,
            stream_window_bytes: 1 << 20,
            link_idle: Duration::from_secs(300),
            stream_idle: Duration::from_secs(600),
            hello_within: Duration::from_secs(5),
            dial_within: Duration::from_secs(10),
            open_within: Duration::from_secs(15),
            back_off_min: Duration::from_millis(100),
            back_off_max: Duration::from_secs(30),
            look_every: Duration::from_secs(5),
            peers_max: 16 * 1024,
            handshakes_max: 256,
            join_within: Duration::from_secs(60),
            joins_max: 16,
            joins_per_second: 4,
            grace: identity::GRACE,
        }
    }
}

/// What a node's transport is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The UDP addresses to listen at, at most one of each family; `0.0.0.0:7443`. Port 0 is any that is free.
    pub bind: Vec<SocketAddr>,
    /// Every major of every protocol this node speaks.
    pub protocols: Vec<Protocol>,
    /// Whether to announce this node on the local network by mDNS, and to listen for others there. What is
    /// heard is a hint. No by default: nobody is contacted who was not asked for.
    pub lan: bool,
    /// The present.
    pub clock: Clock,
    /// Chance for back-off and for the number of this start.
    pub chance: Chance,
    /// Whom the mesh has expelled, as known at the start.
    pub revocations: Revocations,
    /// How much of everything.
    pub limits: Limits,
}

impl Config {
    /// The defaults, for these protocols.
    pub fn new(protocols: Vec<Protocol>, chance: Chance) -> Config {
        Config {
            bind: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7443))],
            protocols,
            lan: false,
            clock: Clock::system(),
            chance,
            revocations: Revocations::none(),
            limits: Limits::default(),
        }
    }

    /// The names of its protocols, sorted, once each.
    ///
    /// # Errors
    /// If one is no name, or there are too many.
    pub(crate) fn names(&self) -> Result<Vec<&'static str>, MeshError> {
        let mut names: Vec<&'static str> = self.protocols.iter().map(|p| p.name).collect();
        names.sort_unstable();
        names.dedup();
        let bad = |why: String| MeshError::Protocols { why };
        if names.is_empty() || names.len() > MAX_PROTOCOLS {
            return Err(bad(format!("there are {} of them, and 1 to {MAX_PROTOCOLS} are possible", names.len())));
        }
        for name in &names {
            if !is_name(name) {
                return Err(bad(format!("{name:?} is no name: 1 to {MAX_NAME} of a-z, 0-9 and -")));
            }
            if self.protocols.iter().filter(|p| p.name == *name).count() > MAX_MAJORS {
                return Err(bad(format!("{name} has more than {MAX_MAJORS} majors")));
            }
        }
        Ok(names)
    }
}

/// Can this be a protocol's name?
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits)
}
