//! A node's container runtime: what it holds outlives whoever asked for it, and is lost with the power.
//!
//! It does what containerd does with each operation, and keeps beside what it shows ([`Seen`]) what really
//! runs: a container that is shown as ended and whose process lives is a bug of a runtime, and can be put back.

use base::Wall;
use base::runtime::{
    Answer, Container, ContainerState, Failure, Image, Op, PodName, Sandbox, Seen, SeenContainer, SeenSandbox, Why,
};
use std::collections::{BTreeMap, BTreeSet};

/// A process of a container.
#[derive(Clone, Debug)]
pub struct Process {
    /// Whose pod's.
    pub pod: PodName,
    /// The container's name in the pod.
    pub name: String,
}

/// A runtime.
#[derive(Default)]
pub struct Runtime {
    sandboxes: BTreeMap<String, SeenSandbox>,
    /// Those that hold an address: until they are stopped or removed, whatever becomes of the machine.
    holding: BTreeSet<String>,
    containers: BTreeMap<String, SeenContainer>,
    /// What runs, by the id of its container.
    processes: BTreeMap<String, Process>,
    images: BTreeSet<String>,
    /// Pods of which there is anything on the disk, by uid.
    directories: BTreeMap<String, PodName>,
    next: u64,
    /// Counts what changes what is seen.
    changes: u64,
    /// The bug: what is stopped is shown as stopped, and runs on.
    pub survives: bool,
}

fn failed<T>(why: Why, message: &str) -> Result<T, Failure> {
    Err(Failure { why, message: message.to_owned() })
}

impl Runtime {
    /// Counts what changes what is seen.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// All there is, as it shows it.
    pub fn look(&self, at: Wall) -> Seen {
        Seen {
            at,
            sandboxes: self.sandboxes.values().cloned().collect(),
            containers: self.containers.values().cloned().collect(),
        }
    }

    /// What runs, by the id of its container.
    pub fn processes(&self) -> &BTreeMap<String, Process> {
        &self.processes
    }

    /// Pods of which there is anything on the disk.
    pub fn directories(&self) -> impl Iterator<Item = &PodName> {
        self.directories.values()
    }

    /// The uids of pods of which there is anything at all.
    pub fn left(&self) -> BTreeSet<&str> {
        let shown = self.sandboxes.values().map(|s| s.pod.uid.as_str());
        let run = self.processes.values().map(|p| p.pod.uid.as_str());
        shown.chain(run).chain(self.directories.keys().map(String::as_str)).collect()
    }

    /// Whether a pod has containers, and no sandbox any more that they could run in.
    pub fn has_lost(&self, uid: &str) -> bool {
        let mine = |s: &&SeenSandbox| s.pod.uid == uid;
        let made = self.containers.values().any(|c| self.sandboxes.get(&c.sandbox).is_some_and(|s| mine(&s)));
        made && !self.sandboxes.values().filter(mine).any(|s| s.ready)
    }

    /// Whose sandbox it is.
    pub fn pod_of(&self, sandbox: &str) -> Option<&PodName> {
        self.sandboxes.get(sandbox).map(|s| &s.pod)
    }

    /// The container's pod and its name there.
    pub fn container(&self, id: &str) -> Option<(&PodName, &str)> {
        let c = self.containers.get(id)?;
        Some((self.pod_of(&c.sandbox)?, &c.name))
    }

    /// The containers that an operation brings to their end, if they run: by its id, or its sandbox's.
    pub fn stopped_by(&self, op: &Op) -> Vec<String> {
        let (Op::StopContainer { id, .. }
        | Op::RemoveContainer { id, .. }
        | Op::StopSandbox { id }
        | Op::RemoveSandbox { id }) = op
        else {
            return Vec::new();
        };
        let concerned = |c: &&SeenContainer| c.id == *id || c.sandbox == *id;
        let all = self.containers.values().filter(concerned).map(|c| c.id.clone());
        all.filter(|id| self.processes.contains_key(id)).collect()
    }

    /// A container ends by itself.
    pub fn finish(&mut self, id: &str, wall: Wall, code: i32) {
        self.processes.remove(id);
        self.show_ended(id, wall, code);
    }

    /// The power goes: no process survives it, nor any sandbox's network.
    pub fn power_cut(&mut self, wall: Wall) {
        self.processes.clear();
        let all: Vec<String> = self.containers.keys().cloned().collect();
        all.iter().for_each(|id| self.show_ended(id, wall, 255));
        self.sandboxes.values_mut().for_each(|s| s.ready = false);
        self.changes += 1;
    }

    fn show_ended(&mut self, id: &str, wall: Wall, code: i32) {
        let Some(c) = self.containers.get_mut(id) else { return };
        let ContainerState::Running { since } = c.state else { return };
        let reason = if code == 0 { "Completed" } else { "Error" };
        c.state = ContainerState::Exited {
            started: since,
            finished: wall,
            code,
            reason: reason.into(),
            message: String::new(),
        };
        self.changes += 1;
    }

    /// Somebody has it end.
    fn stop(&mut self, id: &str, wall: Wall) {
        if !self.survives {
            self.processes.remove(id);
        }
        self.show_ended(id, wall, 137);
    }

    fn id(&mut self) -> String {
        self.next += 1;
        format!("{:08x}", self.next)
    }

    /// Does what is asked for, at once: how long it takes is the world's affair.
    ///
    /// # Errors
    /// What containerd would say.
    pub fn perform(&mut self, wall: Wall, op: &Op) -> Result<Answer, Failure> {
        match op {
            Op::FindImage { image } if self.images.contains(image) => Ok(Answer::Image(image_of(image))),
            Op::FindImage { .. } => Ok(Answer::NoImage),
            Op::PullImage { image, .. } => {
                self.images.insert(image.clone());
                Ok(Answer::Image(image_of(image)))
            }
            Op::Volumes { pod, volumes } => {
                self.keep(pod);
                let path = |v: &base::runtime::Volume| (v.name.clone(), Ok(format!("/pods/{pod}/{}", v.name)));
                Ok(Answer::Volumes(volumes.iter().map(path).collect()))
            }
            Op::File { pod, path, .. } => {
                self.keep(pod);
                Ok(Answer::Path(format!("/pods/{pod}/{path}")))
            }
            Op::Measure { limits, .. } => Ok(Answer::Usage(limits.keys().map(|name| (name.clone(), 0)).collect())),
            Op::RemovePod { pod } => {
                self.directories.remove(&pod.uid);
                Ok(Answer::Done)
            }
            Op::EmptyMemory { .. } => Ok(Answer::Done),
            Op::RunSandbox(sandbox) => self.run_sandbox(wall, sandbox),
            Op::StopSandbox { id } => {
                let Some(s) = self.sandboxes.get_mut(id) else { return failed(Why::NotFound, "no such sandbox") };
                s.ready = false;
                self.holding.remove(id);
                self.changes += 1;
                self.stopped_by(op).iter().for_each(|c| self.stop(c, wall));
                Ok(Answer::Done)
            }
            Op::RemoveSandbox { id } => {
                if !self.sandboxes.contains_key(id) {
                    return failed(Why::NotFound, "no such sandbox");
                }
                self.stopped_by(op).iter().for_each(|c| self.stop(c, wall));
                self.sandboxes.remove(id);
                self.holding.remove(id);
                self.containers.retain(|_, c| c.sandbox != *id);
                self.changes += 1;
                Ok(Answer::Done)
            }
            Op::CreateContainer { sandbox, container, .. } => self.create(wall, sandbox, container),
            Op::StartContainer { id } => self.start(wall, id),
            Op::StopContainer { id, .. } => {
                if !self.containers.contains_key(id) {
                    return failed(Why::NotFound, "no such container");
                }
                self.stop(id, wall);
                Ok(Answer::Done)
            }
            Op::RemoveContainer { id, .. } => {
                if !self.containers.contains_key(id) {
                    return failed(Why::NotFound, "no such container");
                }
                self.stop(id, wall);
                self.containers.remove(id);
                self.changes += 1;
                Ok(Answer::Done)
            }
            Op::Exec { id, .. } => match self.processes.contains_key(id) {
                true => Ok(Answer::Exit { code: 0, output: Vec::new() }),
                false => failed(Why::NotFound, "no such process"),
            },
            Op::Http { .. } => Ok(Answer::Http { status: 200, body: Vec::new() }),
            Op::Tcp { .. } | Op::Grpc { .. } => Ok(Answer::Done),
            Op::Tail { .. } => Ok(Answer::Bytes(Vec::new())),
        }
    }

    /// Something of a pod is on the disk from now on.
    fn keep(&mut self, uid: &str) {
        let name = || PodName { uid: uid.to_owned(), ..PodName::default() };
        self.directories.entry(uid.to_owned()).or_insert_with(name);
    }

    fn run_sandbox(&mut self, wall: Wall, sandbox: &Sandbox) -> Result<Answer, Failure> {
        let same = |s: &&SeenSandbox| s.pod == sandbox.pod && s.attempt == sandbox.attempt;
        if let Some(s) = self.sandboxes.values().find(same) {
            return failed(Why::Failed, &format!("failed to reserve sandbox name: it is reserved for {}", s.id));
        }
        if let Some(s) = self.sandboxes.values().find(|s| s.pod == sandbox.pod && self.holding.contains(&s.id)) {
            return failed(Why::Failed, &format!("no address is left: sandbox {} of this pod was not stopped", s.id));
        }
        let id = self.id();
        self.holding.insert(id.clone());
        let address = [10, 42, (self.next / 250 % 250) as u8, (1 + self.next % 250) as u8];
        let seen = SeenSandbox {
            id: id.clone(),
            pod: sandbox.pod.clone(),
            attempt: sandbox.attempt,
            ready: true,
            created: wall,
            addresses: if sandbox.host.network { Vec::new() } else { vec![address.into()] },
            labels: sandbox.labels.clone(),
            annotations: sandbox.annotations.clone(),
        };
        self.keep(&sandbox.pod.uid);
        self.directories.insert(sandbox.pod.uid.clone(), sandbox.pod.clone());
        self.sandboxes.insert(id.clone(), seen);
        self.changes += 1;
        Ok(Answer::Id(id))
    }

    fn create(&mut self, wall: Wall, sandbox: &str, made: &Container) -> Result<Answer, Failure> {
        let Some(s) = self.sandboxes.get(sandbox) else { return failed(Why::NotFound, "no such sandbox") };
        if !s.ready {
            return failed(Why::Failed, "the sandbox is not running");
        }
        let pod = s.pod.clone();
        let mine = |c: &SeenContainer| self.pod_of(&c.sandbox) == Some(&pod);
        let same = |c: &&SeenContainer| c.name == made.name && c.attempt == made.attempt && mine(c);
        if let Some(c) = self.containers.values().find(same) {
            return failed(Why::Failed, &format!("failed to reserve container name: it is reserved for {}", c.id));
        }
        let id = self.id();
        let seen = SeenContainer {
            id: id.clone(),
            sandbox: sandbox.to_owned(),
            name: made.name.clone(),
            attempt: made.attempt,
            state: ContainerState::Created { at: wall },
            image: made.user_image.clone(),
            image_id: format!("sha256:{}", made.image),
            labels: made.labels.clone(),
            annotations: made.annotations.clone(),
            log_path: format!("/logs/{}/{}", pod.uid, made.log_path),
        };
        self.containers.insert(id.clone(), seen);
        self.changes += 1;
        Ok(Answer::Id(id))
    }

    fn start(&mut self, wall: Wall, id: &str) -> Result<Answer, Failure> {
        let Some(c) = self.containers.get_mut(id) else { return failed(Why::NotFound, "no such container") };
        if !matches!(c.state, ContainerState::Created { .. }) {
            return failed(Why::Failed, "the container is not in created state");
        }
        let Some(sandbox) = self.sandboxes.get(&c.sandbox).filter(|s| s.ready) else {
            return failed(Why::Failed, "the sandbox is not running");
        };
        c.state = ContainerState::Running { since: wall };
        self.processes.insert(id.to_owned(), Process { pod: sandbox.pod.clone(), name: c.name.clone() });
        self.changes += 1;
        Ok(Answer::Done)
    }
}

fn image_of(name: &str) -> Image {
    Image { id: name.to_owned(), digest: format!("sha256:{name}"), bytes: 42, uid: Some(0), username: String::new() }
}
