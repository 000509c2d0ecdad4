//! A container runtime in memory, which refuses what a real one refuses and checks what must never be.

use base::runtime::{
    Answer, Container, ContainerState, Failure, Image, Op, Sandbox, Seen, SeenContainer, SeenSandbox, Volume,
    VolumeKind, Why,
};
use base::{Now, Time, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A container that is there.
pub(crate) struct Running {
    pub(crate) seen: SeenContainer,
    pub(crate) made: Container,
    /// When it ends by itself, and how.
    ends: Option<(Time, i32)>,
}

#[derive(Default)]
pub(crate) struct Runtime {
    pub(crate) sandboxes: BTreeMap<String, SeenSandbox>,
    pub(crate) containers: BTreeMap<String, Running>,
    /// Those that hold addresses and ports: until they are stopped or removed, whatever becomes of the machine.
    pub(crate) holding: BTreeSet<String>,
    pub(crate) made_sandboxes: Vec<Sandbox>,
    next: u64,
    /// Images that are there.
    pub(crate) images: BTreeSet<String>,
    /// Images that can be pulled.
    pub(crate) registry: BTreeSet<String>,
    pub(crate) pulls: Vec<String>,
    pub(crate) volumes: BTreeMap<(String, String), Volume>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Paths of the host that are what a pod says they are.
    pub(crate) host_paths: BTreeSet<String>,
    /// What commands come to, by container and command; 0 if not named.
    pub(crate) exec: BTreeMap<String, i32>,
    pub(crate) execs: Vec<String>,
    /// What HTTP and TCP come to, by port; refused if not named.
    pub(crate) ports: BTreeMap<u16, u16>,
    /// Every start, by pod uid and container name.
    pub(crate) starts: Vec<(String, String)>,
    /// Every stop of a container that ran, in order.
    pub(crate) stops: Vec<(String, Duration)>,
    pub(crate) removed_pods: Vec<String>,
    /// Bytes in volumes, by pod uid and name.
    pub(crate) used: BTreeMap<(String, String), u64>,
    pub(crate) emptied_pods: Vec<String>,
    /// What went with containers that were removed.
    pub(crate) removed_files: Vec<String>,
    /// Counts what changes what is seen.
    pub(crate) changes: u64,
}

fn failed(why: Why, message: &str) -> Result<Answer, Failure> {
    Err(Failure { why, message: message.to_owned() })
}

impl Runtime {
    fn id(&mut self) -> String {
        self.next += 1;
        format!("{:08x}", self.next)
    }

    /// Ends what ends by itself.
    pub(crate) fn advance(&mut self, now: Now) {
        for c in self.containers.values_mut() {
            if let Some((_, code)) = c.ends.filter(|(at, _)| *at <= now.mono) {
                self.changes += 1;
                end(c, now.wall, code);
            }
        }
    }

    pub(crate) fn next_end(&self) -> Option<Time> {
        self.containers.values().filter_map(|c| c.ends.map(|e| e.0)).min()
    }

    /// What it shows when asked.
    pub(crate) fn look(&self, now: Now) -> Seen {
        Seen {
            at: now.wall,
            sandboxes: self.sandboxes.values().cloned().collect(),
            containers: self.containers.values().map(|c| c.seen.clone()).collect(),
        }
    }

    /// The machine was switched off and on.
    pub(crate) fn reboot(&mut self, now: Now) {
        self.changes += 1;
        for c in self.containers.values_mut() {
            if matches!(c.seen.state, ContainerState::Running { .. }) {
                end(c, now.wall, 255);
            }
        }
        for s in self.sandboxes.values_mut() {
            s.ready = false;
        }
        self.volumes.clear();
    }

    pub(crate) fn running(&self, uid: &str) -> Vec<&str> {
        let ours = |c: &&Running| self.sandboxes.get(&c.seen.sandbox).is_some_and(|s| s.pod.uid == uid);
        let runs = |c: &&Running| matches!(c.seen.state, ContainerState::Running { .. });
        self.containers.values().filter(ours).filter(runs).map(|c| c.seen.name.as_str()).collect()
    }

    pub(crate) fn starts_of(&self, name: &str) -> usize {
        self.starts.iter().filter(|(_, n)| n == name).count()
    }

    pub(crate) fn kill(&mut self, now: Now, name: &str, code: i32) {
        self.changes += 1;
        for c in self.containers.values_mut().filter(|c| c.seen.name == name) {
            if matches!(c.seen.state, ContainerState::Running { .. }) {
                end(c, now.wall, code);
            }
        }
    }

    pub(crate) fn perform(&mut self, now: Now, op: &Op) -> Result<Answer, Failure> {
        self.changes += u64::from(!matches!(op, Op::Exec { .. } | Op::Http { .. } | Op::Tcp { .. } | Op::Grpc { .. }));
        match op {
            Op::FindImage { image } if self.images.contains(image) => Ok(Answer::Image(image_of(image))),
            Op::FindImage { .. } => Ok(Answer::NoImage),
            Op::PullImage { image, .. } => {
                self.pulls.push(image.clone());
                if !self.registry.contains(image) {
                    return failed(Why::NotFound, &format!("failed to resolve reference \"{image}\": not found"));
                }
                self.images.insert(image.clone());
                Ok(Answer::Image(image_of(image)))
            }
            Op::Volumes { pod, volumes } => {
                assert!(!self.removed_pods.contains(pod), "volumes of a pod that was removed");
                for v in volumes {
                    self.volumes.insert((pod.clone(), v.name.clone()), v.clone());
                }
                let path = |v: &Volume| match &v.kind {
                    VolumeKind::Host { path, .. } if !self.host_paths.contains(path) => {
                        let message = format!("hostPath type check failed: {path} is not a file");
                        (v.name.clone(), Err(Failure { why: Why::Failed, message }))
                    }
                    _ => (v.name.clone(), Ok(format!("/pods/{pod}/{}", v.name))),
                };
                Ok(Answer::Volumes(volumes.iter().map(path).collect()))
            }
            Op::File { pod, path, bytes, .. } => {
                assert!(!self.removed_pods.contains(pod), "a file of a pod that was removed");
                let path = format!("/pods/{pod}/{path}");
                self.files.insert(path.clone(), bytes.clone());
                Ok(Answer::Path(path))
            }
            Op::Measure { pod, limits } => {
                let used = |name: &String| self.used.get(&(pod.clone(), name.clone())).copied().unwrap_or(0);
                Ok(Answer::Usage(limits.keys().map(|name| (name.clone(), used(name))).collect()))
            }
            Op::RemovePod { pod } => {
                let left = self.sandboxes.values().any(|s| s.pod.uid == pod.uid);
                assert!(!left, "the folder of a pod is removed while it has a sandbox");
                self.removed_pods.push(pod.uid.clone());
                self.volumes.retain(|(uid, _), _| *uid != pod.uid);
                Ok(Answer::Done)
            }
            Op::EmptyMemory { pod } => {
                let ready = self.sandboxes.values().any(|s| s.pod.uid == *pod && s.ready);
                assert!(!ready, "memory is taken from a pod that runs");
                self.emptied_pods.push(pod.clone());
                Ok(Answer::Done)
            }
            Op::RunSandbox(sandbox) => self.run_sandbox(now, sandbox),
            Op::StopSandbox { id } => {
                let Some(s) = self.sandboxes.get_mut(id) else { return failed(Why::NotFound, "no such sandbox") };
                s.ready = false;
                self.holding.remove(id);
                for c in self.containers.values_mut().filter(|c| c.seen.sandbox == *id) {
                    if matches!(c.seen.state, ContainerState::Running { .. }) {
                        end(c, now.wall, 137);
                    }
                }
                Ok(Answer::Done)
            }
            Op::RemoveSandbox { id } => {
                let Some(s) = self.sandboxes.get(id) else { return failed(Why::NotFound, "no such sandbox") };
                assert!(!s.ready, "a sandbox is removed while it is ready");
                self.sandboxes.remove(id);
                self.holding.remove(id);
                self.containers.retain(|_, c| c.seen.sandbox != *id);
                Ok(Answer::Done)
            }
            Op::CreateContainer { sandbox, container, .. } => self.create(now, sandbox, container),
            Op::StartContainer { id } => self.start(now, id),
            Op::StopContainer { id, grace } => {
                let Some(c) = self.containers.get_mut(id) else { return failed(Why::NotFound, "no such container") };
                if matches!(c.seen.state, ContainerState::Running { .. }) {
                    let code = if c.made.user_image.starts_with("polite") { 0 } else { 137 };
                    end(c, now.wall, code);
                    self.stops.push((c.seen.name.clone(), *grace));
                }
                Ok(Answer::Done)
            }
            Op::RemoveContainer { id, files } => match self.containers.get(id) {
                None => failed(Why::NotFound, "no such container"),
                Some(c) if matches!(c.seen.state, ContainerState::Running { .. }) => failed(Why::Failed, "it runs"),
                Some(_) => {
                    self.containers.remove(id);
                    self.removed_files.extend(files.iter().cloned());
                    Ok(Answer::Done)
                }
            },
            Op::Exec { id, command, .. } => {
                let Some(c) = self.containers.get(id) else { return failed(Why::NotFound, "no such container") };
                let what = format!("{} {}", c.seen.name, command.join(" "));
                self.execs.push(what.clone());
                Ok(Answer::Exit { code: self.exec.get(&what).copied().unwrap_or(0), output: b"said".to_vec() })
            }
            Op::Http { get, .. } => match self.ports.get(&get.port) {
                Some(status) => Ok(Answer::Http { status: *status, body: Vec::new() }),
                None => failed(Why::Failed, "connect: connection refused"),
            },
            Op::Tcp { port, .. } | Op::Grpc { port, .. } => match self.ports.get(port) {
                Some(_) => Ok(Answer::Done),
                None => failed(Why::Failed, "connect: connection refused"),
            },
            Op::Tail { path, .. } => Ok(Answer::Bytes(self.files.get(path).cloned().unwrap_or_default())),
        }
    }

    fn run_sandbox(&mut self, now: Now, sandbox: &Sandbox) -> Result<Answer, Failure> {
        let same = |s: &&SeenSandbox| s.pod == sandbox.pod && s.attempt == sandbox.attempt;
        if let Some(s) = self.sandboxes.values().find(same) {
            return failed(Why::Failed, &format!("failed to reserve sandbox name: it is reserved for {}", s.id));
        }
        let ready = self.sandboxes.values().any(|s| s.pod == sandbox.pod && s.ready);
        assert!(!ready, "a second sandbox of one pod");
        let holds = self.sandboxes.values().any(|s| s.pod == sandbox.pod && self.holding.contains(&s.id));
        assert!(!holds, "a second sandbox of a pod whose first was not stopped");
        let id = self.id();
        self.holding.insert(id.clone());
        let host = sandbox.host.network;
        let address = format!("10.42.0.{}", 1 + self.next % 250).parse().unwrap();
        self.made_sandboxes.push(sandbox.clone());
        self.sandboxes.insert(
            id.clone(),
            SeenSandbox {
                id: id.clone(),
                pod: sandbox.pod.clone(),
                attempt: sandbox.attempt,
                ready: true,
                created: now.wall,
                addresses: if host { Vec::new() } else { vec![address] },
                labels: sandbox.labels.clone(),
                annotations: sandbox.annotations.clone(),
            },
        );
        Ok(Answer::Id(id))
    }

    fn create(&mut self, now: Now, sandbox: &str, made: &Container) -> Result<Answer, Failure> {
        let Some(s) = self.sandboxes.get(sandbox) else { return failed(Why::NotFound, "no such sandbox") };
        if !s.ready {
            return failed(Why::Failed, "sandbox is not running");
        }
        let pod = s.pod.clone();
        let same = self.containers.values().find(|c| {
            c.seen.name == made.name
                && c.seen.attempt == made.attempt
                && self.sandboxes.get(&c.seen.sandbox).is_some_and(|s| s.pod == pod)
        });
        if let Some(c) = same {
            return failed(Why::Failed, &format!("failed to reserve container name: it is reserved for {}", c.seen.id));
        }
        let id = self.id();
        let seen = SeenContainer {
            id: id.clone(),
            sandbox: sandbox.to_owned(),
            name: made.name.clone(),
            attempt: made.attempt,
            state: ContainerState::Created { at: now.wall },
            image: made.user_image.clone(),
            image_id: format!("sha256:{}", made.image),
            labels: made.labels.clone(),
            annotations: made.annotations.clone(),
            log_path: format!("/logs/{}/{}", pod.uid, made.log_path),
        };
        self.containers.insert(id.clone(), Running { seen, made: made.clone(), ends: None });
        Ok(Answer::Id(id))
    }

    fn start(&mut self, now: Now, id: &str) -> Result<Answer, Failure> {
        let Some(c) = self.containers.get(id) else { return failed(Why::NotFound, "no such container") };
        if !matches!(c.seen.state, ContainerState::Created { .. }) {
            return failed(Why::Failed, "container is not in created state");
        }
        let (sandbox, name) = (c.seen.sandbox.clone(), c.seen.name.clone());
        let Some(s) = self.sandboxes.get(&sandbox).filter(|s| s.ready) else {
            return failed(Why::Failed, "sandbox is not running");
        };
        let uid = s.pod.uid.clone();
        // The law.
        assert!(!self.running(&uid).contains(&name.as_str()), "two containers {name} of pod {uid} run at a time");
        self.starts.push((uid, name));
        let c = self.containers.get_mut(id).unwrap();
        // `exit-CODE-SECONDS`.
        let mut parts = c.made.user_image.split('-');
        c.ends = match (parts.next(), parts.next(), parts.next()) {
            (Some("exit"), Some(code), Some(s)) => {
                Some((now.mono + Duration::from_secs(s.parse().unwrap()), code.parse().unwrap()))
            }
            _ => None,
        };
        c.seen.state = ContainerState::Running { since: now.wall };
        Ok(Answer::Done)
    }
}

fn end(c: &mut Running, wall: Wall, code: i32) {
    let started = match c.seen.state {
        ContainerState::Running { since } => since,
        _ => Wall::default(),
    };
    let reason = if code == 0 { "Completed" } else { "Error" };
    c.seen.state =
        ContainerState::Exited { started, finished: wall, code, reason: reason.into(), message: String::new() };
    c.ends = None;
}

fn image_of(name: &str) -> Image {
    Image { id: name.to_owned(), digest: format!("sha256:{name}"), bytes: 42, uid: Some(0), username: String::new() }
}
