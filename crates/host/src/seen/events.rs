//! containerd's own news of processes, where the runtime is containerd.

use super::{Ended, SHOWN_WITHIN};
use crate::cri::Client;
use containerd_client::events::{TaskDelete, TaskExit};
use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::types::Envelope;
use prost::Message;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Status};

/// Between two attempts at a runtime that does not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// Listens, and says what has ended.
pub(super) struct Events {
    client: Client,
    heard: watch::Sender<Ended>,
}

impl Events {
    pub(super) fn new(client: Client, heard: watch::Sender<Ended>) -> Events {
        Events { client, heard }
    }

    /// Listens for ever, or until it is clear that this runtime tells nothing.
    pub(super) async fn listen(self) {
        loop {
            match self.stream().await {
                Err(e) if e.code() == Code::Unimplemented => {
                    tracing::info!("this container runtime tells no events: it is asked every second");
                    return;
                }
                Err(e) => tracing::debug!("containerd's events: {e}"),
                Ok(()) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn stream(&self) -> Result<(), Status> {
        let topics = ["/tasks/start", "/tasks/exit", "/tasks/delete", "/tasks/oom"];
        let filters = topics.iter().map(|t| format!("namespace==k8s.io,topic==\"{t}\"")).collect();
        let mut events = EventsClient::new(self.client.channel());
        let mut stream = events.subscribe(SubscribeRequest { filters }).await?.into_inner();
        // What happened before is not told: the next look sees it.
        self.heard.send_modify(|_| ());
        while let Some(event) = stream.message().await? {
            self.hear(&event);
        }
        Ok(())
    }

    fn hear(&self, event: &Envelope) {
        let bytes = event.event.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
        // Processes that were run in a container (probes, exec) have an id of their own and change nothing.
        let of = match event.topic.as_str() {
            "/tasks/exit" => TaskExit::decode(bytes).ok().map(|e| (e.id == e.container_id, e.container_id)),
            "/tasks/delete" => {
                TaskDelete::decode(bytes).ok().map(|e| (e.id.is_empty() || e.id == e.container_id, e.container_id))
            }
            _ => None,
        };
        match of {
            Some((false, _)) => {}
            Some((true, id)) => self.heard.send_modify(|ended| {
                ended.retain(|_, at| at.elapsed() < SHOWN_WITHIN);
                ended.insert(id, Instant::now());
            }),
            None => self.heard.send_modify(|_| ()),
        }
    }
}
