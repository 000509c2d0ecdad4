//! Root's configuration, between nodes: pushed at once to whoever has a stream open, as what changed.

use super::ask::write;
use super::{Away, may_know};
use crate::driver::{Driver, clock, lock};
use crate::net::BUNDLE;
use base::{NodeId, Revision};
use identity::Roles;
use mesh::Streams;
use node::wire::bundle::{Have, Taking, Took};
use node::wire::call::{Framed, STALLED};
use node::wire::frame::{Assembler, FRAME_BYTES_MAX};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

/// How long a stream that was lost waits before the next, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A newer bundle that others have seen is waited for so long.
const KEEPS_UP_WITHIN: Duration = Duration::from_secs(1);
/// What one who asks for the bundle says is far shorter.
const HAVE_BYTES_MAX: usize = 64;

/// Tells another node the bundle, and what changes.
pub(super) async fn tell(driver: Arc<Driver>, streams: Streams) {
    let Streams { peer, mut send, mut receive, .. } = streams;
    // Only of a node that keeps root: two that do not would wait for each other.
    let keeps_root = driver.cell(driver.founding().root).is_some();
    let Some(away) = driver.away().filter(|_| keeps_root && may_know(peer.roles)) else { return };
    let mut assembler = Assembler::new(HAVE_BYTES_MAX);
    let mut changes = driver.changes();
    let mut have: Option<Have> = None;
    let mut buffer = [0; 256];
    loop {
        changes.borrow_and_update();
        let telling = have.and_then(|have| lock(&away.shelf).tell(have));
        if let Some(mut telling) = telling {
            while let Some(frame) = telling.next_frame() {
                let Ok(framed) = Framed::new(frame) else { return };
                if !matches!(timeout(STALLED, write(&mut send, &framed)).await, Ok(Ok(()))) {
                    return;
                }
            }
            have = Some(Have { number: telling.number(), whole: false });
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            read = receive.read(&mut buffer) => {
                let Ok(n @ 1..) = read else { return };
                let mut frames = Vec::new();
                if assembler.push(buffer.get(..n).unwrap_or_default(), &mut frames).is_err() {
                    return;
                }
                for frame in frames {
                    let Ok(said) = Have::decode(&frame) else { return };
                    have = Some(said);
                }
            }
        }
    }
}

impl Driver {
    /// Keeps the bundle as new as root's keepers have it, until the process ends. A replica of root here that is led knows it
    /// by itself.
    pub(crate) async fn follow_root(self: Arc<Self>) {
        let Some(away) = self.away() else { return };
        let mut pause = AGAIN.0;
        loop {
            let root = self.founding().root;
            let number = self.bundle().number();
            let knows = number > Revision::ZERO
                && number >= away.newest_seen()
                && self.is_led(root)
                && self.cell(root).is_some();
            let node = if knows { None } else { away.whom(root) };
            let took = match node.filter(|n| *n != self.node) {
                Some(node) => self.follow(&away, node).await,
                None => false,
            };
            if let (false, Some(node)) = (took, node) {
                // Whoever leads root is asked next, or another who may know.
                away.places().leads_not(self.founding().root, node);
            }
            pause = if took { AGAIN.0 } else { (pause * 2).min(AGAIN.1) };
            tokio::select! {
                () = sleep(pause) => {}
                () = away.behind.notified() => {}
            }
        }
    }

    /// Takes what one node tells until the stream ends; whether anything new came.
    async fn follow(self: &Arc<Self>, away: &Away, node: NodeId) -> bool {
        let opened = away.while_heard(node, || true, away.open(node, BUNDLE)).await;
        let Some(Ok(Streams { peer, mut send, mut receive, .. })) = opened else { return false };
        if !peer.roles.contains(Roles::AUTHORITY) {
            tracing::warn!(%node, roles = %peer.roles, "root's configuration is not taken of a node that does not keep root");
            return false;
        }
        let mut taking = Taking::new(self.bundle());
        let mut ask = Some(taking.have());
        let mut assembler = Assembler::new(FRAME_BYTES_MAX);
        let mut buffer = vec![0; 64 << 10];
        let mut new = false;
        loop {
            if let Some(have) = ask.take() {
                let Ok(framed) = Framed::new(have.encode()) else { return new };
                if write(&mut send, &framed).await.is_err() {
                    return new;
                }
            }
            // One that does not have what others have is not followed for long.
            let began = clock::now().mono;
            let keeps_up =
                || away.newest_seen() <= self.bundle().number() || clock::now().mono.since(began) < KEEPS_UP_WITHIN;
            let read = away.while_heard(node, keeps_up, receive.read(&mut buffer)).await;
            let Some(Ok(n @ 1..)) = read else { return new };
            let mut frames = Vec::new();
            if assembler.push(buffer.get(..n).unwrap_or_default(), &mut frames).is_err() {
                return new;
            }
            for frame in frames {
                match taking.frame(&frame) {
                    Ok(Took::New(bundle)) => {
                        new = true;
                        self.take_bundle(&bundle);
                    }
                    Ok(Took::Misfit(have)) => ask = Some(have),
                    Ok(Took::More | Took::Known) => {}
                    Err(why) => {
                        tracing::warn!(%node, %why, "root's configuration cannot be read as this node tells it");
                        return new;
                    }
                }
            }
        }
    }
}
