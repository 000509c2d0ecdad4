//! One look at the runtime, as [`Seen`].

use crate::cri::{Client, OWNER, USER_IMAGE};
use base::Wall;
use base::runtime::{ContainerState, Failure, PodName, Seen, SeenContainer, SeenSandbox, Why};
use futures_util::{StreamExt, stream};
use k8s_cri::v1;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// One of which the runtime does not say how it is, is asked for again after so long.
const AGAIN: Duration = Duration::from_secs(30);
/// How many are asked for at once.
const AT_ONCE: usize = 16;

/// Looks, and remembers what does not change.
#[derive(Debug)]
pub(super) struct Reader {
    client: Client,
    owner: String,
    /// Addresses by sandbox, as long as it is ready.
    addresses: BTreeMap<String, Vec<IpAddr>>,
    /// What a status said beyond the list, by container.
    statuses: BTreeMap<String, v1::ContainerStatus>,
    /// Sandboxes and containers of which the runtime did not say how they are, and when to ask again.
    broken: BTreeMap<String, Instant>,
}

impl Reader {
    /// Sees what carries `owner`'s label.
    pub(super) fn new(client: Client, owner: String) -> Reader {
        Reader { client, owner, addresses: BTreeMap::new(), statuses: BTreeMap::new(), broken: BTreeMap::new() }
    }

    pub(super) async fn look(&mut self) -> Result<Seen, Failure> {
        let at = crate::wall();
        let lists = tokio::try_join!(self.client.sandboxes(&self.owner), self.client.containers(&self.owner));
        let (sandboxes, containers) = lists?;
        let there = |id: &String| sandboxes.iter().any(|s| s.id == *id) || containers.iter().any(|c| c.id == *id);
        self.broken.retain(|id, _| there(id));
        self.ask_addresses(&sandboxes).await?;
        self.ask_statuses(&containers).await?;

        let sandboxes = sandboxes.into_iter().map(|s| {
            let addresses = self.addresses.get(&s.id).cloned().unwrap_or_default();
            sandbox(s, addresses)
        });
        // A container that went between list and status is not there.
        let containers = containers.into_iter().filter_map(|c| {
            let told = self.statuses.get(&c.id).cloned();
            let status = told.or_else(|| self.broken.contains_key(&c.id).then(|| as_listed(&c)))?;
            Some(container(&status, c))
        });
        let mut seen = Seen { at, sandboxes: sandboxes.collect(), containers: containers.collect() };
        seen.sandboxes.sort_by(|a, b| a.id.cmp(&b.id));
        seen.containers.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(seen)
    }

    async fn ask_addresses(&mut self, sandboxes: &[v1::PodSandbox]) -> Result<(), Failure> {
        let is_ready = |s: &&v1::PodSandbox| s.state == v1::PodSandboxState::SandboxReady as i32;
        let ready: Vec<&str> = sandboxes.iter().filter(is_ready).map(|s| s.id.as_str()).collect();
        self.addresses.retain(|id, _| ready.contains(&id.as_str()));
        let new: Vec<_> = ready.into_iter().filter(|id| !self.addresses.contains_key(*id)).map(str::to_owned).collect();
        let client = &self.client;
        let asked = self.asked(new).map(|id| async move {
            let status = client.sandbox_status(&id).await;
            (id, status.map(|s| s.and_then(|s| s.network).map(|network| addresses(&network))))
        });
        let answers = asked.buffer_unordered(AT_ONCE).collect().await;
        let found = self.answered("sandbox", answers)?;
        self.addresses.extend(found);
        Ok(())
    }

    /// Those that are not left alone for a while, since the runtime did not say how they are.
    fn asked(&self, new: Vec<String>) -> impl stream::Stream<Item = String> + use<> {
        let now = Instant::now();
        let again = |id: &String| self.broken.get(id).is_none_or(|at| *at <= now);
        stream::iter(new.into_iter().filter(again).collect::<Vec<_>>())
    }

    /// What is there of what was asked for. One that the runtime says nothing of keeps no other from being
    /// seen; if it says nothing at all that is the failure.
    fn answered<T>(&mut self, what: &str, answers: Vec<Asked<T>>) -> Result<Vec<(String, T)>, Failure> {
        let mut found = Vec::new();
        for (id, answer) in answers {
            match answer {
                Ok(there) => {
                    self.broken.remove(&id);
                    found.extend(there.map(|t| (id, t)));
                }
                Err(failure) if failure.why == Why::NoRuntime => return Err(failure),
                Err(failure) => {
                    tracing::warn!(
                        what,
                        id,
                        "the runtime does not say how it is; the others go on: {}",
                        failure.message
                    );
                    self.broken.insert(id, Instant::now() + AGAIN);
                }
            }
        }
        Ok(found)
    }

    async fn ask_statuses(&mut self, containers: &[v1::Container]) -> Result<(), Failure> {
        let states: BTreeMap<&str, i32> = containers.iter().map(|c| (c.id.as_str(), c.state)).collect();
        // A container is started once and ends once: in the same state its status is the same.
        self.statuses.retain(|id, status| states.get(id.as_str()) == Some(&status.state));
        let new: Vec<_> = states.into_keys().filter(|id| !self.statuses.contains_key(*id)).map(str::to_owned).collect();
        let client = &self.client;
        let asked = self.asked(new).map(|id| async move {
            let status = client.container_status(&id).await;
            (id, status)
        });
        let answers = asked.buffer_unordered(AT_ONCE).collect().await;
        let found = self.answered("container", answers)?;
        self.statuses.extend(found);
        Ok(())
    }
}

/// What was asked for, and what was said of it, if it is there.
type Asked<T> = (String, Result<Option<T>, Failure>);

/// What a list says of a container: how far it is, but not how it ended.
fn as_listed(c: &v1::Container) -> v1::ContainerStatus {
    let state = match v1::ContainerState::try_from(c.state) {
        Ok(v1::ContainerState::ContainerExited) | Err(_) => v1::ContainerState::ContainerUnknown,
        Ok(state) => state,
    };
    v1::ContainerStatus {
        state: state as i32,
        created_at: c.created_at,
        started_at: c.created_at,
        image: c.image.clone(),
        image_ref: c.image_ref.clone(),
        ..Default::default()
    }
}

fn addresses(network: &v1::PodSandboxNetworkStatus) -> Vec<IpAddr> {
    let others = network.additional_ips.iter().map(|ip| &ip.ip);
    std::iter::once(&network.ip).chain(others).filter_map(|ip| ip.parse().ok()).collect()
}

fn sandbox(s: v1::PodSandbox, addresses: Vec<IpAddr>) -> SeenSandbox {
    let name = s.metadata.unwrap_or_default();
    SeenSandbox {
        id: s.id,
        pod: PodName { namespace: name.namespace, name: name.name, uid: name.uid },
        attempt: name.attempt,
        ready: s.state == v1::PodSandboxState::SandboxReady as i32,
        created: moment(s.created_at),
        addresses,
        labels: as_made(s.labels),
        annotations: as_made(s.annotations),
    }
}

fn container(status: &v1::ContainerStatus, c: v1::Container) -> SeenContainer {
    let name = c.metadata.unwrap_or_default();
    let user_image = c.annotations.get(USER_IMAGE).cloned();
    let shown = || status.image.as_ref().map(|i| i.image.clone()).unwrap_or_default();
    SeenContainer {
        id: c.id,
        sandbox: c.pod_sandbox_id,
        name: name.name,
        attempt: name.attempt,
        state: state(status),
        image: user_image.unwrap_or_else(shown),
        image_id: status.image_ref.clone(),
        labels: as_made(c.labels),
        annotations: as_made(c.annotations),
        log_path: status.log_path.clone(),
    }
}

fn state(s: &v1::ContainerStatus) -> ContainerState {
    match v1::ContainerState::try_from(s.state) {
        Ok(v1::ContainerState::ContainerCreated) => ContainerState::Created { at: moment(s.created_at) },
        Ok(v1::ContainerState::ContainerRunning) => ContainerState::Running { since: moment(s.started_at) },
        Ok(v1::ContainerState::ContainerExited) => ContainerState::Exited {
            started: moment(s.started_at),
            finished: moment(s.finished_at),
            code: s.exit_code,
            reason: s.reason.clone(),
            message: s.message.clone(),
        },
        _ => ContainerState::Unknown,
    }
}

/// What only we put there is not shown.
fn as_made(kept: HashMap<String, String>) -> BTreeMap<String, String> {
    kept.into_iter().filter(|(key, _)| key != OWNER && key != USER_IMAGE).collect()
}

/// Nanoseconds of Unix time; nothing and Go's zero time (before 1970) are zero.
fn moment(nanoseconds: i64) -> Wall {
    Wall(u64::try_from(nanoseconds / 1_000_000).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_carries_what_its_status_says() {
        let status = |state: v1::ContainerState| v1::ContainerStatus {
            state: state as i32,
            created_at: 1_000_000,
            started_at: 2_000_000,
            finished_at: 3_000_000,
            exit_code: 137,
            reason: "OOMKilled".into(),
            ..Default::default()
        };
        assert_eq!(state(&status(v1::ContainerState::ContainerCreated)), ContainerState::Created { at: Wall(1) });
        assert_eq!(state(&status(v1::ContainerState::ContainerRunning)), ContainerState::Running { since: Wall(2) });
        assert_eq!(
            state(&status(v1::ContainerState::ContainerExited)),
            ContainerState::Exited {
                started: Wall(2),
                finished: Wall(3),
                code: 137,
                reason: "OOMKilled".into(),
                message: String::new()
            }
        );
        assert_eq!(state(&status(v1::ContainerState::ContainerUnknown)), ContainerState::Unknown);
        // What never was started says so by Go's zero time.
        assert_eq!(moment(-6_795_364_578_871_345_152), Wall(0));
    }

    #[tokio::test]
    async fn one_of_which_nothing_is_known_hides_no_other() {
        let mut reader = Reader::new(Client::new(std::path::Path::new("/nonexistent/cri.sock")), String::new());
        let fails = |why| Err(Failure { why, message: "m".into() });
        let answers =
            vec![("a".to_owned(), Ok(Some(1))), ("b".to_owned(), fails(Why::Failed)), ("c".to_owned(), Ok(None))];
        assert_eq!(reader.answered("container", answers).unwrap(), [("a".to_owned(), 1)]);
        let all = || ["a", "b"].map(str::to_owned).to_vec();
        assert_eq!(reader.asked(all()).collect::<Vec<_>>().await, ["a"], "it is left alone for a while");
        assert!(
            reader
                .answered("container", vec![("a".to_owned(), fails(Why::NoRuntime)), ("b".to_owned(), Ok(Some(2)))])
                .is_err()
        );
        reader.answered("container", vec![("b".to_owned(), Ok(Some(2)))]).unwrap();
        assert_eq!(reader.asked(all()).collect::<Vec<_>>().await, ["a", "b"]);

        let listed = |state: v1::ContainerState| {
            let c = v1::Container { id: "x".into(), state: state as i32, created_at: 1_000_000, ..Default::default() };
            container(&as_listed(&c), c).state
        };
        assert_eq!(listed(v1::ContainerState::ContainerRunning), ContainerState::Running { since: Wall(1) });
        assert_eq!(listed(v1::ContainerState::ContainerExited), ContainerState::Unknown);
    }

    #[test]
    fn addresses_are_in_the_order_in_which_the_network_gave_them() {
        let network = v1::PodSandboxNetworkStatus {
            ip: "10.42.0.7".into(),
            additional_ips: vec![v1::PodIp { ip: "fd00::7".into() }],
        };
        let is: Vec<IpAddr> = vec!["10.42.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(addresses(&network), is);
        assert!(addresses(&v1::PodSandboxNetworkStatus::default()).is_empty());
    }
}
