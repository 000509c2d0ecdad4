//! Waiting for a cell that is led: somewhere, not here. Whoever leads it says so by answering.

use crate::backend::{Node, system};
use api::port::Answer;
use base::CellId;
use node::errand::Errand;
use objects::kinds;
use objects::request::{Body, Options, Verb};
use std::sync::Arc;
use std::time::Duration;

impl Node {
    /// A Namespace was made: the answer waits until somebody answers for its cell, 5 s at most.
    pub(crate) async fn opened(&self, mut answer: Answer) -> Answer {
        let tree = answer.payload.tree();
        let (name, uid) = (tree["metadata"]["name"].as_str(), tree["metadata"]["uid"].as_str());
        let Some((name, cell)) = name.zip(uid.and_then(|u| u.parse().ok()).map(CellId)) else { return answer };
        if !matches!(tokio::time::timeout(Duration::from_secs(5), self.begins(name, cell)).await, Ok(true)) {
            answer.warnings.push("the namespace's cell does not take writes yet; they will wait for it".into());
        }
        answer
    }

    /// Waits until a namespace is known here, and whoever leads its cell answers; whether that is so.
    async fn begins(&self, name: &str, cell: CellId) -> bool {
        let mut changes = self.driver().changes();
        while self.driver().bundle().cell_of(name) != Some(cell) {
            if changes.changed().await.is_err() {
                return false;
            }
        }
        // What its first commit holds, or is about to: also that it is not there is a leader's word.
        self.answers("ServiceAccount", Some(name), "default").await.is_some()
    }

    /// Waits until root answers, wherever it is led, and has what it began with.
    pub(crate) async fn root_begins(&self) {
        let mut changes = self.driver().changes();
        loop {
            changes.borrow_and_update();
            if self.answers("Namespace", None, "default").await == Some(true) {
                return;
            }
            // A commit of root's changes the bundle, which is such a change, where root is heard of.
            let _ = tokio::time::timeout(Duration::from_millis(500), changes.changed()).await;
        }
    }

    /// Asks for an object; whether it is there. `None`: nobody answers for its cell.
    async fn answers(&self, kind: &str, namespace: Option<&str>, name: &str) -> Option<bool> {
        let kind = kinds::by_kind("", "v1", kind)?;
        let errand = Errand {
            user: Arc::new(system()),
            verb: Verb::Get,
            kind,
            namespace: namespace.map(Arc::from),
            name: Some(name.into()),
            subresource: "",
            options: Options::default(),
            body: Body::None,
        };
        // What a request of its own waits for never waits for another one: this goes no deeper.
        match Box::pin(self.errand(&errand)).await {
            Ok(_) => Some(true),
            Err(status) if status.code == 404 => Some(false),
            Err(_) => None,
        }
    }
}
