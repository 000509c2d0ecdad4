//! What can be told of links to people: those there are, and when those ended that there were.

use crate::bound::lock;
use crate::link::Link;
use crate::peers::Inner;
use crate::{Mesh, Peer};
use base::NodeId;
use iroh::TransportAddr;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of so many nodes it is remembered when the last link to them ended; of more, the longest ago is forgotten.
const ENDED_MAX: usize = 4096;

/// A link as it is now.
#[derive(Clone, Debug)]
pub struct LinkReport {
    /// Who is at the other end.
    pub peer: Arc<Peer>,
    /// Whether this node dialled; else the other one did.
    pub dialed_here: bool,
    /// For how long there has been this link.
    pub age: Duration,
    /// There and back, as last measured on the path in use.
    pub round_trip: Option<Duration>,
    /// Where the peer is seen from here, on the path in use.
    pub seen_at: Option<SocketAddr>,
    /// Whose issuing key vouches for the peer, if that is said: when that node is expelled, this link ends, too.
    pub issued_by: Option<NodeId>,
    /// By how many milliseconds the peer's clock was ahead of this node's when it last said hello; negative if it was
    /// behind. As inexact as the way of a hello is long.
    pub clock_ahead_ms: i64,
}

/// When links ended.
#[derive(Default)]
pub(crate) struct Ended(BTreeMap<NodeId, (Instant, String)>);

impl Ended {
    pub(crate) fn note(&mut self, node: NodeId, at: Instant, why: String) {
        self.0.insert(node, (at, why));
        if self.0.len() > ENDED_MAX {
            let oldest = self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(node, _)| *node);
            oldest.and_then(|node| self.0.remove(&node));
        }
    }

    fn of(&self, node: NodeId, now: Instant) -> Option<(Duration, String)> {
        self.0.get(&node).map(|(at, why)| (now.saturating_duration_since(*at), why.clone()))
    }
}

impl Mesh {
    /// The links there are now.
    pub fn links(&self) -> Vec<LinkReport> {
        self.inner.links().iter().map(|link| report(link)).collect()
    }

    /// How long ago the last link to a node ended, and why; `None` if there was none since this node started, or it was
    /// forgotten.
    pub fn last_linked(&self, node: NodeId) -> Option<(Duration, String)> {
        lock(&self.inner.ended).of(node, Instant::now())
    }
}

impl Inner {
    pub(crate) fn note_end(&self, node: NodeId, why: String) {
        lock(&self.ended).note(node, Instant::now(), why);
    }
}

fn report(link: &Link) -> LinkReport {
    let paths = link.connection.paths();
    let path = paths.iter().find(|path| path.is_selected());
    let seen_at = path.as_ref().and_then(|path| match path.remote_addr() {
        TransportAddr::Ip(address) => Some(*address),
        _ => None,
    });
    LinkReport {
        peer: link.peer(),
        dialed_here: link.origin.dialed_here,
        age: link.used.age(),
        round_trip: path.map(|path| path.rtt()),
        seen_at,
        issued_by: link.proven().issued_by,
        clock_ahead_ms: link.clock_ahead_ms(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_links_that_ended_the_longest_ago_is_forgotten() {
        let mut ended = Ended::default();
        let start = Instant::now();
        let node = |n: usize| NodeId([(n >> 8) as u8, n as u8].repeat(16).try_into().unwrap_or([0; 32]));
        for n in 0..=ENDED_MAX {
            // The last node's is the longest ago but one.
            let ms = if n == ENDED_MAX { 1 } else { n as u64 * 2 };
            ended.note(node(n), start + Duration::from_millis(ms), format!("{n}"));
        }
        assert_eq!(ended.0.len(), ENDED_MAX);
        assert_eq!(ended.of(node(0), start), None);
        let then = start + Duration::from_secs(60);
        assert_eq!(ended.of(node(ENDED_MAX), then), Some((Duration::from_millis(59_999), ENDED_MAX.to_string())));
        ended.note(node(1), then, "again".into());
        assert_eq!(ended.of(node(1), then), Some((Duration::ZERO, "again".to_owned())), "the last one counts");
    }
}
