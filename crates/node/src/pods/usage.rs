//! How much a pod's empty directories hold: one on disk that outgrows its limit ends the pod, as the kubelet
//! has it. Those in memory cannot outgrow theirs.

use super::Cx;
use super::events::{Events, Type};
use super::ops::What;
use super::pod::{Pod, Verdict};
use base::Time;
use base::runtime::{Answer, Failure, Op};
use objects::kinds::resources::quantity;
use objects::kinds::tree::Fields;
use objects::status::quote;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often is measured: the kubelet's `volumeStatsAggPeriod`.
const EVERY: Duration = Duration::from_secs(60);

/// What is known of a pod's measuring.
#[derive(Debug, Default)]
pub(super) struct Usage {
    next: Option<Time>,
    under_way: bool,
}

impl Pod {
    /// Measures when it is time to.
    pub(super) fn measure(&mut self, cx: &mut Cx<'_>) {
        if self.view.active().is_none() || self.usage.under_way {
            return;
        }
        let limits = self.limits();
        if limits.is_empty() {
            return;
        }
        let at = *self.usage.next.get_or_insert(cx.now.mono + EVERY);
        if cx.now.mono < at {
            return self.wake_at(at);
        }
        self.usage.under_way = true;
        let op = Op::Measure { pod: self.uid.to_string(), limits };
        cx.shared.ops.ask(&self.uid, What::Measure, op, cx.fx);
    }

    /// It was measured, or could not be: then it is tried again in its turn.
    pub(super) fn measured(&mut self, cx: &mut Cx<'_>, result: Result<Answer, Failure>) {
        self.usage = Usage { next: Some(cx.now.mono + EVERY), under_way: false };
        let Ok(Answer::Usage(used)) = result else { return };
        if self.verdict.is_some() || self.gone || self.is_deleting() || self.is_told_ended() {
            return;
        }
        let limits = self.limits();
        let Some((name, _)) = used.iter().find(|(name, bytes)| limits.get(*name).is_some_and(|most| *bytes > most))
        else {
            return;
        };
        let volume = self.tree.at("spec").list("volumes").iter().find(|v| v.text("name") == *name);
        let limit = volume.map(|v| v.at("emptyDir").text("sizeLimit").to_owned()).unwrap_or_default();
        let message = format!("Usage of EmptyDir volume {} exceeds the limit {}. ", quote(name), quote(&limit));
        Events::record(cx, &self.tree, "", Type::Warning, "Evicted", &message);
        self.verdict = Some(Verdict { reason: "Evicted".to_owned(), message, at_once: true });
    }

    /// The most bytes of each empty directory on disk that has a limit.
    fn limits(&self) -> BTreeMap<String, u64> {
        let limited = self.tree.at("spec").list("volumes").iter().filter_map(|v| {
            let empty = v.at("emptyDir");
            let most = quantity(empty.at("sizeLimit")).filter(|_| empty.text("medium").is_empty())?.value();
            Some((v.text("name").to_owned(), u64::try_from(most).ok().filter(|b| *b > 0)?))
        });
        limited.collect()
    }
}
