//! What is there: lists, and what only a status says.

use super::message::OWNER;
use super::{Client, LOOK};
use base::runtime::{Failure, Why};
use k8s_cri::v1;
use serde_json::Value;
use std::collections::HashMap;

impl Client {
    /// Sandboxes with `owner`'s label.
    pub(crate) async fn sandboxes(&self, owner: &str) -> Result<Vec<v1::PodSandbox>, Failure> {
        let filter = v1::PodSandboxFilter { label_selector: of(owner), ..Default::default() };
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        Ok(self.call(LOOK, request, |r| async { self.runtime().list_pod_sandbox(r).await }).await?.items)
    }

    /// Containers with `owner`'s label, those that have ended too.
    pub(crate) async fn containers(&self, owner: &str) -> Result<Vec<v1::Container>, Failure> {
        let filter = v1::ContainerFilter { label_selector: of(owner), ..Default::default() };
        let request = v1::ListContainersRequest { filter: Some(filter) };
        Ok(self.call(LOOK, request, |r| async { self.runtime().list_containers(r).await }).await?.containers)
    }

    /// All containers, whosever they are.
    pub(crate) async fn containers_all(&self) -> Result<Vec<v1::Container>, Failure> {
        let request = v1::ListContainersRequest { filter: None };
        Ok(self.call(LOOK, request, |r| async { self.runtime().list_containers(r).await }).await?.containers)
    }

    /// A sandbox; `None` if it is not there.
    pub(crate) async fn sandbox_status(&self, id: &str) -> Result<Option<v1::PodSandboxStatus>, Failure> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        let answer = self.call(LOOK, request, |r| async { self.runtime().pod_sandbox_status(r).await }).await;
        Ok(there(answer)?.and_then(|a| a.status))
    }

    /// A container; `None` if it is not there.
    pub(crate) async fn container_status(&self, id: &str) -> Result<Option<v1::ContainerStatus>, Failure> {
        let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: false };
        let answer = self.call(LOOK, request, |r| async { self.runtime().container_status(r).await }).await;
        Ok(there(answer)?.and_then(|a| a.status))
    }
}

fn of(owner: &str) -> HashMap<String, String> {
    [(OWNER.to_owned(), owner.to_owned())].into()
}

fn there<A>(answer: Result<A, Failure>) -> Result<Option<A>, Failure> {
    match answer {
        Ok(a) => Ok(Some(a)),
        Err(failure) if failure.why == Why::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Whether what containerd says of its configuration has its default runtime leave control groups to systemd.
pub(super) fn has_systemd_cgroups(config: &str) -> bool {
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    let containerd = &config["containerd"];
    let name = containerd["defaultRuntimeName"].as_str().unwrap_or("runc");
    containerd["runtimes"][name]["options"]["SystemdCgroup"] == true || config["systemdCgroup"] == true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_says_who_makes_control_groups() {
        for (config, is) in [
            (
                r#"{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"options":{"SystemdCgroup":true}}}}}"#,
                true,
            ),
            (
                r#"{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"options":{"SystemdCgroup":false}}}}}"#,
                false,
            ),
            (
                r#"{"containerd":{"defaultRuntimeName":"kata","runtimes":{"runc":{"options":{"SystemdCgroup":true}}}}}"#,
                false,
            ),
            (r#"{"systemdCgroup":true}"#, true),
            ("crio", false),
        ] {
            assert_eq!(has_systemd_cgroups(config), is, "{config}");
        }
    }
}
