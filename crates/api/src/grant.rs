//! Leave for what stays open: a watch or a stream lasts no longer than its user's proof and rights.
//!
//! Both are asked for again every so often (architecture, 7: a change of rights ends the stream). Only a
//! certain no ends it: when nobody can tell, the last answer holds, as it does for a node that is cut off.

use crate::port::{Backend, Refusal};
use crate::resource::wall;
use crate::status;
use base::Wall;
use objects::request::{Request, User};
use std::sync::Arc;
use std::time::Duration;

/// How it is known who asks.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    /// Who proved to be there.
    pub(crate) real: Arc<User>,
    /// The bearer token it proved that with.
    pub(crate) token: Option<Arc<str>>,
    /// The end of the certificate it proved that with.
    pub(crate) until: Option<Wall>,
    /// Whom it acts as, if that is somebody else.
    pub(crate) acting_as: Option<Arc<User>>,
}

/// Leave for a request that stays open.
pub(crate) struct Grant<B> {
    backend: Arc<B>,
    proof: Proof,
    request: Request,
    every: Duration,
}

impl<B: Backend> Grant<B> {
    /// Leave for `request`, asked for anew `every` so often.
    pub(crate) fn new(backend: Arc<B>, proof: Proof, request: Request, every: Duration) -> Grant<B> {
        Grant { backend, proof, request, every }
    }

    /// Resolves when the user has lost the proof or the right.
    pub(crate) async fn lapsed(self) {
        loop {
            tokio::time::sleep(self.every).await;
            if let Err(why) = self.renewed().await {
                let (user, why) = (&self.request.user.name, &why.message);
                return tracing::info!(%user, %why, "a watch or stream is ended: its user may not have it any more");
            }
        }
    }

    async fn renewed(&self) -> Result<(), Refusal> {
        if over(self.proof.until) {
            return Err(status::unauthorized());
        }
        if let Some(token) = &self.proof.token {
            certain(self.backend.authenticate(token).await.map(drop))?;
        }
        if let Some(wanted) = &self.proof.acting_as {
            certain(self.backend.impersonate(&self.proof.real, wanted).await)?;
        }
        certain(self.backend.still(&self.request).await)
    }
}

/// Whether the end of a certificate has come.
pub(crate) fn over(until: Option<Wall>) -> bool {
    until.is_some_and(|end| end < wall())
}

/// Resolves when the end of a certificate has come; never, if there is none. The calendar may be set while
/// it waits, so it is looked at again and again.
pub(crate) async fn ended(until: Option<Wall>) {
    const LOOK: Duration = Duration::from_secs(10);
    let Some(end) = until else { return std::future::pending().await };
    while !over(until) {
        // A millisecond more: at the very end the certificate is still good.
        tokio::time::sleep((end.since(wall()) + Duration::from_millis(1)).min(LOOK)).await;
    }
}

/// A refusal that says no, rather than that it is not known.
fn certain(answer: Result<(), Refusal>) -> Result<(), Refusal> {
    answer.or_else(|why| if matches!(why.code, 401 | 403) { Err(why) } else { Ok(()) })
}
