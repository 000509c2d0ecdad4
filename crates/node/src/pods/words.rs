//! What a container says at its end: what it wrote into its termination message, or the end of its log.
//!
//! Source: the kubelet's `kuberuntime_container.go` (`getTerminationMessage`).

use super::Cx;
use super::container::{MESSAGE_FILE, MESSAGE_POLICY};
use super::ops::What;
use super::pod::Pod;
use super::probes::steady;
use super::seen::{code, has_ended};
use base::runtime::{Answer, ContainerState, Failure, Op};

/// Most bytes of a termination message.
const MESSAGE_MAX: u64 = 4096;
/// Most bytes and lines of a log that stands in for one.
const LOG_MAX: u64 = 2048;
const LOG_LINES: u64 = 80;

impl Pod {
    /// Notes what has ended, and asks for its last words.
    pub(super) fn read_words(&mut self, cx: &mut Cx<'_>) {
        let view = &self.view;
        self.words.retain(|id, _| view.container(id).is_some());
        self.ends.retain(|id, _| view.container(id).is_some());
        for c in self.view.containers.iter().filter(|c| has_ended(c)) {
            if let ContainerState::Exited { finished, .. } = c.state {
                self.ends.entry(c.id.clone()).or_insert_with(|| steady(cx.now, finished));
            }
            if self.words.contains_key(&c.id) {
                continue;
            }
            match c.annotations.get(MESSAGE_FILE) {
                None => {
                    self.words.insert(c.id.clone(), Some(String::new()));
                }
                Some(path) => {
                    self.words.insert(c.id.clone(), None);
                    let op = Op::Tail { path: path.clone(), bytes_max: MESSAGE_MAX, lines_max: 0, log: false };
                    cx.shared.ops.ask(&self.uid, What::Words(c.id.clone(), false), op, cx.fx);
                }
            }
        }
    }

    /// They came.
    pub(super) fn words_read(&mut self, cx: &mut Cx<'_>, id: &str, log: bool, result: Result<Answer, Failure>) {
        let Some(c) = self.view.container(id) else {
            self.words.remove(id);
            return;
        };
        let text = match result {
            Ok(Answer::Bytes(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            other => {
                let what = if log { "termination message from logs" } else { "termination log" };
                format!("Error on reading {what}: {}", super::start::failure(other))
            }
        };
        let falls_back = c.annotations.get(MESSAGE_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
        if text.is_empty() && !log && falls_back && code(c).is_some_and(|code| code != 0) && !c.log_path.is_empty() {
            let op = Op::Tail { path: c.log_path.clone(), bytes_max: LOG_MAX, lines_max: LOG_LINES, log: true };
            cx.shared.ops.ask(&self.uid, What::Words(id.to_owned(), true), op, cx.fx);
            return;
        }
        self.words.insert(id.to_owned(), Some(text));
    }
}
