//! What is at the runtime, looked at over and over: at once when containerd says that something has
//! begun or ended, or when somebody asks; otherwise every second, since events can be missed and other
//! runtimes than containerd tell none.
//!
//! A look is two lists. What they do not say (a sandbox's addresses, when a container was started and
//! how it ended) is asked for each that is new or has changed its state, once.

mod events;
mod read;

use crate::cri::Client;
use base::runtime::{ContainerState, Failure, Seen};
use events::Events;
use read::Reader;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The longest time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// The shortest: what comes meanwhile is seen by the next.
const GAP: Duration = Duration::from_millis(2);
/// containerd tells that a process has ended before its CRI shows it. So long it is looked for.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);
/// The first pause between such looks; the others are twice as long each.
const SHOWN_FIRST: Duration = Duration::from_millis(3);

/// Looks, and tells whoever listens.
#[derive(Debug)]
pub(crate) struct Watcher {
    told: watch::Receiver<Arc<Seen>>,
    asked: Arc<Notify>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Watcher {
    /// Looks for the first time, and goes on.
    ///
    /// # Errors
    /// Why the runtime does not say what is there.
    pub(crate) async fn start(client: Client, owner: String) -> Result<Watcher, Failure> {
        let mut reader = Reader::new(client.clone(), owner);
        let first = Arc::new(reader.look().await?);
        let (tell, told) = watch::channel(first);
        let asked = Arc::new(Notify::new());
        let (heard, ended) = watch::channel(BTreeMap::new());
        let listening = tokio::spawn(Events::new(client, heard).listen());
        let looking = tokio::spawn(keep_looking(reader, tell, asked.clone(), ended));
        Ok(Watcher { told, asked, tasks: [listening, looking] })
    }

    /// What was seen last, and what is seen from now on.
    pub(crate) fn told(&self) -> watch::Receiver<Arc<Seen>> {
        self.told.clone()
    }

    /// Looks no more.
    pub(crate) fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// Has somebody look at once.
    pub(crate) fn look_now(&self) {
        self.asked.notify_one();
    }
}

/// Processes that containerd says have ended, each with the moment it said so.
type Ended = BTreeMap<String, Instant>;

async fn keep_looking(
    mut reader: Reader,
    tell: watch::Sender<Arc<Seen>>,
    asked: Arc<Notify>,
    mut ended: watch::Receiver<Ended>,
) {
    let mut pause = SHOWN_FIRST;
    let mut reachable = true;
    loop {
        let awaited = awaits(&ended.borrow_and_update(), &tell.borrow());
        if !awaited {
            pause = SHOWN_FIRST;
        }
        tokio::select! {
            () = asked.notified() => {}
            _ = ended.changed() => pause = SHOWN_FIRST,
            () = tokio::time::sleep(if awaited { pause } else { EVERY }) => pause = (pause * 2).min(EVERY),
        }
        match reader.look().await {
            Ok(seen) => {
                if !reachable {
                    tracing::info!("the container runtime answers again");
                }
                reachable = true;
                tell.send_replace(Arc::new(seen));
            }
            Err(failure) => {
                if reachable {
                    tracing::warn!("what runs here cannot be seen: {}", failure.message);
                }
                reachable = false;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        tokio::time::sleep(GAP).await;
    }
}

/// Whether something that has ended is still shown as running.
fn awaits(ended: &Ended, seen: &Seen) -> bool {
    let fresh = |at: &Instant| at.elapsed() < SHOWN_WITHIN;
    let runs = |id: &str| {
        let container = seen.containers.iter().find(|c| c.id == id);
        let sandbox = seen.sandboxes.iter().find(|s| s.id == id);
        container.is_some_and(|c| matches!(c.state, ContainerState::Running { .. } | ContainerState::Created { .. }))
            || sandbox.is_some_and(|s| s.ready)
    };
    ended.iter().any(|(id, at)| fresh(at) && runs(id))
}
