//! What happened, counted: every loss and every refusal has a number here.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened since the start, as of one moment. Each counts up.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Names and numbers, in a fixed order.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }

        #[derive(Default, Debug)]
        pub(crate) struct Counting { $(pub(crate) $name: Count,)* }

        impl Counting {
            pub(crate) fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

/// One number that counts up.
#[derive(Default, Debug)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }
}

counters! {
    /// Links made, by either side.
    links_up,
    /// Links that ended.
    links_down,
    /// Times that the endpoint under all links died and another took its place.
    endpoints_replaced,
    /// Dials begun.
    dials,
    /// Dials that ended without a link, but for those of which another link was the better one.
    dials_failed,
    /// Links given up for another to the same peer.
    links_duplicate,
    /// Connections turned away before anything was read: too many had proven nothing yet.
    handshakes_turned_away,
    /// Connections that were meant for another node, by a hint that was wrong: they were not answered.
    handshakes_for_others,
    /// Connections that said nothing, or not enough, in time.
    handshakes_silent,
    /// Hellos that could not be read.
    hellos_garbled,
    /// Peers refused for what they presented: unknown, of another mesh, out of time, not bound to the connection.
    refused_identity,
    /// Peers refused because they, or who vouches for them, were expelled; and links closed for that.
    refused_expelled,
    /// Peers refused because nothing is spoken in common.
    refused_nothing_in_common,
    /// Peers refused for want of room, or because this node has no SVID yet.
    refused_busy,
    /// Links closed because the peer's SVID ran out.
    links_expired,
    /// SVIDs renewed on a live link, by a peer.
    renewals,
    /// Links closed because the peer broke the protocol.
    violations,
    /// Messages handed to QUIC.
    messages_sent,
    /// Messages handed to the handler.
    messages_received,
    /// Messages dropped, the oldest first, because the peer's queue was full.
    messages_dropped_queue_full,
    /// Messages dropped because the peer could not be reached.
    messages_dropped_unreachable,
    /// Messages dropped because the peer agreed on another major, or does not speak the protocol.
    messages_dropped_not_spoken,
    /// Messages that were being written when the link ended: lost, or not.
    messages_interrupted,
    /// Messages refused at once: too large, not spoken, no room.
    messages_refused,
    /// Streams opened from here.
    streams_opened,
    /// Streams the handler was given.
    streams_accepted,
    /// Streams of peers turned away: a header that was late, garbled, or of a protocol not spoken.
    streams_refused,
    /// Questions of joiners handed to the handler.
    joins_asked,
    /// Questions of joiners turned away: too many, too large, too slow.
    joins_turned_away,
    /// Hints that pushed out older ones.
    hints_dropped,
}
