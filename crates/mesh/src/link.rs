//! One link: a connection to one peer on which both have said who they are.

use crate::bound::{Bucket, lock};
use crate::config::Protocol;
use crate::error::{Code, printable};
use crate::hello::{self, Binding, Garbled, HELLO, Hello, MAX_FRAME, Received, SETTLED, Seen, Side, Standing};
use crate::peer::{PeerState, Used};
use crate::peers::Inner;
use crate::{Why, message, stream};
use base::{NodeId, Wall};
use identity::{Proven, Refusal, Roles, lifetime};
use iroh::endpoint::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::timeout;

/// Who is at the other end, proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Which node.
    pub node: NodeId,
    /// What it may do, by its SVID.
    pub roles: Roles,
    /// Until when what it showed is good, the grace included; the link ends then, or it shows a newer SVID.
    pub expires: Wall,
    /// What the two speak with each other.
    pub protocols: Vec<Protocol>,
}

/// Where a link comes from: what decides which of two stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    /// The peer's start.
    pub(crate) boot: u64,
    pub(crate) dialed_here: bool,
    /// The number of the dial, counted by who dialled.
    pub(crate) dial: u64,
    /// The highest dial of the other side that had led to a link when this one was dialled; 0 if none had.
    pub(crate) seen: u64,
}

/// Whether `new` takes the place of `old`. Both ends have the same two and come to the same answer, in whichever
/// order they learn of them, so that never both are given up, nor each kept by one end.
///
/// A peer that started anew has no old links. Of two dials by one side the later is the better: nobody dials who
/// has a link, so the earlier one is dead. Of two that crossed, the one stays that the node with the lower id
/// dialled; but if one of the diallers had a link by the other dial before, and dials nonetheless, it has lost that.
pub(crate) fn replaces(me: NodeId, peer: NodeId, old: &Origin, new: &Origin) -> bool {
    if new.boot != old.boot {
        return true;
    }
    if new.dialed_here == old.dialed_here {
        return new.dial > old.dial;
    }
    if new.seen >= old.dial {
        return true;
    }
    if old.seen >= new.dial {
        return false;
    }
    new.dialed_here == (me < peer)
}

/// A connection to a proven peer.
pub(crate) struct Link {
    pub(crate) node: NodeId,
    pub(crate) connection: Connection,
    pub(crate) origin: Origin,
    /// By the place of the protocol's name: the major spoken.
    pub(crate) majors: Vec<Option<u16>>,
    pub(crate) used: Used,
    pub(crate) streams: Arc<AtomicUsize>,
    proven: Mutex<(Proven, Arc<Peer>)>,
    clock_ahead_ms: AtomicI64,
    started: AtomicBool,
    ended: Mutex<Option<Why>>,
}

/// What is left to do for a link once it is in use: its control stream.
pub(crate) struct Control {
    side: Side,
    binding: Binding,
    send: SendStream,
    recv: RecvStream,
    standing: watch::Receiver<Option<Arc<Standing>>>,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Link {
    /// Who is there, as last proven.
    pub(crate) fn peer(&self) -> Arc<Peer> {
        lock(&self.proven).1.clone()
    }

    /// What its chain proved.
    pub(crate) fn proven(&self) -> Proven {
        lock(&self.proven).0.clone()
    }

    /// By how much the peer's clock was ahead when it last said hello.
    pub(crate) fn clock_ahead_ms(&self) -> i64 {
        self.clock_ahead_ms.load(Ordering::Relaxed)
    }

    fn prove_again(&self, proven: Proven) {
        let mut now = lock(&self.proven);
        let peer = Arc::new(Peer {
            roles: proven.node().map_or(Roles::NONE, |(_, roles)| roles),
            expires: proven.lifetime.not_after,
            ..(*now.1).clone()
        });
        *now = (proven, peer);
    }

    /// Ends the link at once; the peer is told why.
    pub(crate) fn close(&self, why: Why) {
        lock(&self.ended).get_or_insert_with(|| why.clone());
        close(&self.connection, &why);
    }

    /// Why it ended, given what QUIC says.
    pub(crate) fn ended(&self, error: &ConnectionError) -> Why {
        lock(&self.ended).clone().unwrap_or_else(|| lost(self.node, error))
    }

    /// Begins to move messages and streams; a second call does nothing.
    pub(crate) fn start(self: &Arc<Link>, inner: &Arc<Inner>, peer: &Arc<PeerState>) {
        if self.started.swap(true, Ordering::Relaxed) {
            return;
        }
        for protocol in 0..self.majors.len() {
            tokio::spawn(message::write(inner.clone(), peer.clone(), self.clone(), protocol));
        }
        tokio::spawn(message::accept(inner.clone(), peer.clone(), self.clone()));
        tokio::spawn(stream::accept(inner.clone(), self.clone()));
    }
}

/// Closes a connection with a code and a letter, cut to what a packet holds.
pub(crate) fn close(connection: &Connection, why: &Why) {
    let letter = why.to_string();
    let mut end = letter.len().min(900);
    while !letter.is_char_boundary(end) {
        end -= 1;
    }
    connection.close(VarInt::from_u32(why.code() as u32), &letter.as_bytes()[..end]);
}

/// What QUIC says of a connection's end.
pub(crate) fn lost(node: NodeId, error: &ConnectionError) -> Why {
    match error {
        ConnectionError::ApplicationClosed(said) => {
            let code = said.error_code.into_inner();
            if code == Code::Duplicate as u64 {
                return Why::Duplicate(node);
            }
            Why::Closed { node, code, said: printable(&said.reason) }
        }
        other => Why::Lost { node, why: other.to_string() },
    }
}

/// Where two nodes dial each other at once, the one with the lower id says one hello after the other: of two that
/// crossed, the second then finds the link that the first became, and nothing was said on the one given up.
/// The higher answers at once, so that neither waits for the other. If a hello takes long the next is not held up
/// for ever; then [`replaces`] decides, and what was under way on one of the two is lost.
async fn turn(inner: &Inner, peer: &PeerState) -> Option<OwnedMutexGuard<()>> {
    if inner.me > peer.node {
        return None;
    }
    timeout(inner.config.limits.hello_within / 2, peer.turn.clone().lock_owned()).await.ok()
}

/// Says hello on a connection this node dialled.
pub(crate) async fn greet(
    inner: &Inner,
    connection: Connection,
    peer: &PeerState,
    dial: u64,
) -> Result<(Arc<Link>, Control), Why> {
    let node = peer.node;
    let within = inner.config.limits.hello_within;
    let binding = hello::binding(&connection).ok_or(Why::Unbound(node))?;
    let mut standing = inner.standing.subscribe();
    let seen = peer.seen();
    let greeted = async {
        let own = standing.borrow_and_update().clone().ok_or(Why::NoIdentity)?;
        let turn = turn(inner, peer).await;
        if peer.link().is_some() {
            return Err(Why::Duplicate(node));
        }
        let (mut send, mut recv) = connection.open_bi().await.map_err(|e| lost(node, &e))?;
        let sealed = inner.hello(dial, seen, 0).seal(&own, Side::Dialed, &binding);
        write_frame(&mut send, HELLO, &sealed.map_err(|_| Why::NoIdentity)?, node, &connection).await?;
        let received = read_hello(inner, &mut recv, node, &connection).await?;
        let ahead = ahead_ms(inner.config.clock.now(), received.hello.wall);
        let proven = verify(inner, &own, &received, node, Side::Accepted, &binding)?;
        let majors = negotiate(inner, &received.hello, node)?;
        write_frame(&mut send, SETTLED, b"", node, &connection).await?;
        // Of a dial made here the peer says nothing in `seen` that it did not hear before.
        let seen = if seen.boot == received.hello.boot { seen.dial } else { 0 };
        let origin = Origin { boot: received.hello.boot, dialed_here: true, dial, seen };
        Ok((link(inner, connection.clone(), origin, majors, proven, (node, ahead)), send, recv, turn))
    };
    let greeted = timeout(within, greeted).await.unwrap_or(Err(Why::Silent { node, within }));
    match greeted {
        Ok((link, send, recv, turn)) => Ok((link, Control { side: Side::Dialed, binding, send, recv, standing, turn })),
        Err(why) => Err(refuse(inner, &connection, why)),
    }
}

/// Hears a hello on a connection that was accepted, and answers it.
pub(crate) async fn hear(inner: &Inner, connection: Connection, peer: &PeerState) -> Result<(Arc<Link>, Control), Why> {
    let node = peer.node;
    let within = inner.config.limits.hello_within;
    let binding = hello::binding(&connection).ok_or(Why::Unbound(node))?;
    let mut standing = inner.standing.subscribe();
    let heard = async {
        let own = standing.borrow_and_update().clone().ok_or(Why::NoIdentity)?;
        let (mut send, mut recv) = connection.accept_bi().await.map_err(|e| lost(node, &e))?;
        let received = read_hello(inner, &mut recv, node, &connection).await?;
        let ahead = ahead_ms(inner.config.clock.now(), received.hello.wall);
        let proven = verify(inner, &own, &received, node, Side::Dialed, &binding)?;
        let majors = negotiate(inner, &received.hello, node)?;
        let Hello { boot, dial, seen, .. } = received.hello;
        let seen = if seen.boot == inner.boot { seen.dial } else { 0 };
        let origin = Origin { boot, dialed_here: false, dial, seen };
        let turn = turn(inner, peer).await;
        if !peer.would_use(inner.me, &origin) {
            return Err(Why::Duplicate(node));
        }
        let sealed = inner.hello(0, Seen { boot, dial }, 0).seal(&own, Side::Accepted, &binding);
        write_frame(&mut send, HELLO, &sealed.map_err(|_| Why::NoIdentity)?, node, &connection).await?;
        match read_frame(&mut recv, node, &connection).await? {
            (SETTLED, body) if body.is_empty() => {}
            _ => return Err(Why::Violation { node, what: "it did not settle after the hello" }),
        }
        Ok((link(inner, connection.clone(), origin, majors, proven, (node, ahead)), send, recv, turn))
    };
    let heard = timeout(within, heard).await.unwrap_or(Err(Why::Silent { node, within }));
    match heard {
        Ok((link, send, recv, turn)) => {
            Ok((link, Control { side: Side::Accepted, binding, send, recv, standing, turn }))
        }
        Err(why) => Err(refuse(inner, &connection, why)),
    }
}

fn link(
    inner: &Inner,
    connection: Connection,
    origin: Origin,
    majors: Vec<Option<u16>>,
    proven: Proven,
    (node, clock_ahead_ms): (NodeId, i64),
) -> Arc<Link> {
    let spoken = inner.names.iter().zip(&majors).filter_map(|(name, major)| Some(Protocol::new(name, (*major)?)));
    let peer = Arc::new(Peer {
        node,
        roles: proven.node().map_or(Roles::NONE, |(_, roles)| roles),
        expires: proven.lifetime.not_after,
        protocols: spoken.collect(),
    });
    let limits = &inner.config.limits;
    // Only now may it send more than a hello. The one who dialled holds the control stream open besides.
    let streams = limits.streams_max.saturating_add(u32::from(!origin.dialed_here));
    let all = u64::from(limits.stream_window_bytes) * (u64::from(streams) + inner.names.len() as u64);
    let all = all.min(u64::from(limits.link_window_bytes.max(limits.stream_window_bytes)));
    connection.set_receive_window(VarInt::from_u64(all).unwrap_or(VarInt::MAX));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(inner.names.len() as u32));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
    Arc::new(Link {
        node,
        connection,
        origin,
        majors,
        used: Used::now(),
        streams: Arc::default(),
        proven: Mutex::new((proven, peer)),
        clock_ahead_ms: AtomicI64::new(clock_ahead_ms),
        started: AtomicBool::default(),
        ended: Mutex::default(),
    })
}

/// Closes a connection on which the hello failed, counts it, and says so in the log.
fn refuse(inner: &Inner, connection: &Connection, why: Why) -> Why {
    count(inner, &why);
    close(connection, &why);
    why
}

fn count(inner: &Inner, why: &Why) {
    let counting = &inner.counting;
    match why {
        Why::Identity { .. } | Why::Unbound(_) => counting.refused_identity.one(),
        Why::Expelled { .. } => counting.refused_expelled.one(),
        Why::NothingInCommon { .. } => counting.refused_nothing_in_common.one(),
        Why::Silent { .. } => counting.handshakes_silent.one(),
        Why::Duplicate(_) => counting.links_duplicate.one(),
        Why::NoIdentity | Why::Busy { .. } => counting.refused_busy.one(),
        Why::Violation { .. } => counting.violations.one(),
        _ => {}
    }
    if matches!(why, Why::Duplicate(_)) {
        tracing::debug!(%why, "two connections met");
    } else {
        inner.tell(why);
    }
}

fn verify(
    inner: &Inner,
    own: &Standing,
    received: &Received,
    node: NodeId,
    side: Side,
    binding: &Binding,
) -> Result<Proven, Why> {
    let now = inner.config.clock.now();
    let revocations = inner.revocations();
    let grace = inner.config.limits.grace;
    let proven = own.verifier.link(&received.hello.chain, node, &revocations, now, grace);
    let proven = proven.map_err(|refusal| match refusal {
        Refusal::Expelled(_) => Why::Expelled { node, refusal: Box::new(refusal) },
        refusal => Why::Identity { node, refusal: Box::new(refusal), clocks: clocks(now, received.hello.wall) },
    })?;
    if received.is_bound(side, binding) { Ok(proven) } else { Err(Why::Unbound(node)) }
}

/// By how many milliseconds the clock there is ahead of the one here.
fn ahead_ms(here: Wall, there: Wall) -> i64 {
    i64::try_from(i128::from(there.0) - i128::from(here.0)).unwrap_or(if there > here { i64::MAX } else { i64::MIN })
}

/// Something to say if the clocks are so far apart that certificates fail by it.
fn clocks(here: Wall, there: Wall) -> String {
    let apart = here.since(there).max(there.since(here));
    if apart <= lifetime::SKEW {
        return String::new();
    }
    format!(
        " The clocks differ by {} s: it is {} here and {} there; set both by NTP",
        apart.as_secs(),
        here.rfc3339(),
        there.rfc3339()
    )
}

fn negotiate(inner: &Inner, theirs: &Hello, node: NodeId) -> Result<Vec<Option<u16>>, Why> {
    let majors = hello::negotiate(&inner.names, &inner.config.protocols, &theirs.protocols);
    if majors.iter().any(Option::is_some) {
        return Ok(majors);
    }
    let ours = hello::listed(&hello::by_name(&inner.config.protocols));
    Err(Why::NothingInCommon { node, ours, theirs: hello::listed(&theirs.protocols) })
}

async fn read_hello(
    inner: &Inner,
    recv: &mut RecvStream,
    node: NodeId,
    connection: &Connection,
) -> Result<Received, Why> {
    let (kind, body) = read_frame(recv, node, connection).await?;
    let read = if kind == HELLO { Hello::read(&body) } else { Err(Garbled("it did not begin with a hello")) };
    read.map_err(|Garbled(what)| {
        inner.counting.hellos_garbled.one();
        Why::Violation { node, what }
    })
}

async fn write_frame(
    send: &mut SendStream,
    kind: u8,
    body: &[u8],
    node: NodeId,
    connection: &Connection,
) -> Result<(), Why> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let frame = [&[kind], &length[..], body].concat();
    send.write_all(&frame).await.map_err(|e| broke_off(node, connection, &e))
}

async fn read_frame(recv: &mut RecvStream, node: NodeId, connection: &Connection) -> Result<(u8, Vec<u8>), Why> {
    let mut head = [0; 5];
    recv.read_exact(&mut head).await.map_err(|e| broke_off(node, connection, &e))?;
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(Why::Violation { node, what: "a frame of its control stream is too long" });
    }
    let mut body = vec![0; length];
    recv.read_exact(&mut body).await.map_err(|e| broke_off(node, connection, &e))?;
    Ok((kind, body))
}

/// Why a stream ended: as the connection did, or by itself, which no release does.
fn broke_off(node: NodeId, connection: &Connection, error: &dyn std::fmt::Display) -> Why {
    match connection.close_reason() {
        Some(reason) => lost(node, &reason),
        None => {
            tracing::debug!(?node, %error, "a control stream ended");
            Why::Violation { node, what: "its control stream ended before the link" }
        }
    }
}

/// An SVID is not shown again sooner than this after the last time, whoever renews it how often.
const SHOWN_EVERY: Duration = Duration::from_millis(500);
/// A peer that shows its SVID oftener than this, beyond a burst of twenty, breaks the protocol.
const SHOWN_PER_SECOND: u32 = 4;

impl Control {
    /// Keeps the control stream until the link ends: shows this node's SVID when it is renewed, and looks
    /// at the peer's.
    pub(crate) fn keep(self, inner: &Arc<Inner>, link: &Arc<Link>) {
        let Control { side, binding, mut send, mut recv, mut standing, turn } = self;
        // The link is in use: who says hello next finds it.
        drop(turn);
        let (inner_out, link_out) = (inner.clone(), link.clone());
        let shown = async move {
            let (inner, link) = (inner_out, link_out);
            for sequence in 1.. {
                let renewed = tokio::select! {
                    renewed = standing.changed() => renewed.is_ok(),
                    _ = link.connection.closed() => false,
                };
                if !renewed {
                    return;
                }
                let Some(own) = standing.borrow_and_update().clone() else { continue };
                let Ok(sealed) = inner.hello(link.origin.dial, Seen::default(), sequence).seal(&own, side, &binding)
                else {
                    continue;
                };
                if let Err(why) = write_frame(&mut send, HELLO, &sealed, link.node, &link.connection).await {
                    return link.close(why);
                }
                tokio::time::sleep(SHOWN_EVERY).await;
            }
        };
        tokio::spawn(shown);
        let (inner, link) = (inner.clone(), link.clone());
        tokio::spawn(async move {
            let mut bucket = Bucket::new(SHOWN_PER_SECOND, 20, Instant::now());
            let mut last = 0;
            loop {
                if let Err(why) = look(&inner, &link, &mut recv, side.other(), &binding, &mut last, &mut bucket).await {
                    if link.connection.close_reason().is_none() {
                        count(&inner, &why);
                    }
                    return link.close(why);
                }
            }
        });
    }
}

/// Looks at one more hello of a link that is in use.
async fn look(
    inner: &Inner,
    link: &Arc<Link>,
    recv: &mut RecvStream,
    side: Side,
    binding: &Binding,
    last: &mut u32,
    bucket: &mut Bucket,
) -> Result<(), Why> {
    let node = link.node;
    let received = read_hello(inner, recv, node, &link.connection).await?;
    if received.hello.sequence <= *last || received.hello.boot != link.origin.boot {
        return Err(Why::Violation { node, what: "a later hello is not a later one" });
    }
    if !bucket.take(Instant::now()) {
        return Err(Why::Violation { node, what: "it shows its SVID too often" });
    }
    *last = received.hello.sequence;
    let ahead = ahead_ms(inner.config.clock.now(), received.hello.wall);
    let own = inner.standing.borrow().clone().ok_or(Why::NoIdentity)?;
    let proven = verify(inner, &own, &received, node, side, binding)?;
    inner.counting.renewals.one();
    link.prove_again(proven);
    link.clock_ahead_ms.store(ahead, Ordering::Relaxed);
    inner.renewed(node);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: NodeId = NodeId([1; 32]);
    const HIGH: NodeId = NodeId([2; 32]);

    /// A dial by one of the two, as either end sees it: (of the low one, of the high one).
    fn seen_by_both(by_low: bool, dial: u64, seen: u64) -> (Origin, Origin) {
        let origin = |dialed_here| Origin { boot: 7, dialed_here, dial, seen };
        (origin(by_low), origin(!by_low))
    }

    #[test]
    fn both_ends_choose_the_same_of_two_connections_in_either_order() {
        for (first, second, second_stays, why) in [
            ((true, 1, 0), (false, 1, 0), false, "they crossed, and the lower id's stays"),
            ((true, 1, 0), (true, 2, 0), true, "whoever dials again has lost the first"),
            ((false, 1, 0), (false, 2, 0), true, "the same for the higher id"),
            ((true, 5, 0), (false, 1, 5), true, "the higher had a link by the fifth dial, and lost it"),
            ((true, 5, 0), (false, 1, 4), false, "it had one by the fourth, which is another"),
            ((false, 3, 0), (true, 1, 3), true, "the lower had one by the third, and lost it"),
        ] {
            let (first_low, first_high) = seen_by_both(first.0, first.1, first.2);
            let (second_low, second_high) = seen_by_both(second.0, second.1, second.2);
            assert_eq!(replaces(LOW, HIGH, &first_low, &second_low), second_stays, "{why}, seen by the lower");
            assert_eq!(replaces(HIGH, LOW, &first_high, &second_high), second_stays, "{why}, seen by the higher");
            assert_eq!(replaces(LOW, HIGH, &second_low, &first_low), !second_stays, "{why}, the other way round");
            assert_eq!(replaces(HIGH, LOW, &second_high, &first_high), !second_stays, "{why}, both other");
        }
    }

    #[test]
    fn a_peer_that_started_anew_has_no_old_links() {
        let old = Origin { boot: 1, dialed_here: true, dial: 100, seen: 100 };
        let new = Origin { boot: 2, dialed_here: false, dial: 1, seen: 0 };
        assert!(replaces(LOW, HIGH, &old, &new) && replaces(HIGH, LOW, &old, &new));
    }

    #[test]
    fn clocks_are_named_only_if_they_may_be_the_reason() {
        let now = Wall(1_769_846_400_000);
        assert_eq!(clocks(now, now + lifetime::SKEW), "");
        let said = clocks(now, now + Duration::from_secs(3600));
        assert!(said.contains("3600 s") && said.contains("NTP"), "{said}");
    }
}
