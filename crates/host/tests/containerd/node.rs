//! A node with nothing of the program but its runtime, and pods to run on it.

use base::runtime::{
    Answer, Container, ContainerState, Failure, Mount, Op, PodName, Sandbox, Security, Seen, SeenContainer, Volume,
    VolumeKind,
};
use host::cni::Network;
use host::runtime::{Config, Runtime};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

const BUSYBOX: &str = "/usr/bin/busybox";
/// What is waited for comes long before this, or not at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes this machine a small one of its own: `/run` is new, as after a boot, and there is a network with
/// the address 10.77.0.1 and nobody in it.
const MACHINE: &str = r#"set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /var/lib/cni && mount -t tmpfs tmpfs /var/lib/cni
mount --make-rshared /
ip link set lo up
ip link add eth0 type veth peer name eth1
ip address add 10.77.0.1/24 dev eth0
ip link set eth0 up && ip link set eth1 up
exec "$@""#;

/// Tells a story in namespaces of its own. `name` is the test's, by which it is run anew inside.
pub(crate) fn in_own_namespaces<F: Future<Output = ()>>(name: &str, story: impl FnOnce(Node) -> F) {
    const INSIDE: &str = "BEEMESH_TEST_IN_NAMESPACES";
    if let Some(dir) = env::var_os(INSIDE) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(story(Node::new(PathBuf::from(dir))));
    }
    assert!(nix::unistd::geteuid().is_root(), "these stories need root");
    let dir = tempfile::Builder::new().prefix("beemesh-host-").tempdir_in("/var/tmp").unwrap();
    let namespaces = ["--mount", "--uts", "--ipc", "--pid", "--net", "--fork", "--kill-child=KILL", "--mount-proc"];
    let mut unshare = Command::new("unshare");
    unshare.args(namespaces).args(["sh", "-c", MACHINE, "sh"]).arg(env::current_exe().unwrap());
    unshare.args(["--exact", name, "--nocapture"]).env(INSIDE, dir.path());
    let ran = unshare.output().unwrap();
    // Processes and mounts went with their namespaces; control groups have none.
    sweep(dir.path());
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    print!("{said}");
}

/// The control group of all that a node starts in pods.
fn group(dir: &Path) -> String {
    format!("{}-test", dir.file_name().unwrap().to_str().unwrap())
}

fn sweep(dir: &Path) {
    fn remove(group: &Path) {
        for child in fs::read_dir(group).into_iter().flatten().flatten() {
            if child.file_type().is_ok_and(|t| t.is_dir()) {
                remove(&child.path());
            }
        }
        let _ = fs::remove_dir(group);
    }
    let root = Path::new("/sys/fs/cgroup");
    for hierarchy in fs::read_dir(root).unwrap().flatten().map(|e| e.path()).chain([root.to_owned()]) {
        remove(&hierarchy.join(group(dir)));
    }
}

/// Where things are, and what is started on it.
pub(crate) struct Node {
    dir: PathBuf,
}

impl Node {
    fn new(dir: PathBuf) -> Node {
        let bin = dir.join("bin");
        fs::create_dir(&bin).unwrap();
        fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
        for name in ["sh", "cat", "echo", "sleep", "hostname", "mkdir"] {
            symlink("busybox", bin.join(name)).unwrap();
        }
        Node { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            data: self.path("data"),
            cri: None,
            network: Network::new((Ipv4Addr::new(10, 42, 99, 0), 24), Some(("fd42:99::".parse().unwrap(), 64))),
            registries: Vec::new(),
        }
    }

    pub(crate) async fn start(&self) -> Arc<Runtime> {
        start(self.config()).await
    }

    /// Which containerds run with a configuration of this node.
    pub(crate) fn daemons(&self) -> Vec<i32> {
        let data = fs::canonicalize(self.path("data")).unwrap();
        let is_ours = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
            words.first().is_some_and(|w| w.ends_with("containerd"))
                && words.iter().any(|w| Path::new(w).starts_with(&data))
        };
        let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
        pids.filter(is_ours).collect()
    }

    /// A pod with this uid, not asked for yet.
    pub(crate) fn pod(&self, runtime: &Arc<Runtime>, uid: &str) -> Pod {
        let name = PodName { namespace: "shop".into(), name: format!("web-{uid}"), uid: uid.into() };
        let sandbox = Sandbox {
            hostname: name.name.clone(),
            log_directory: runtime.pods().log_directory(&name).to_str().unwrap().to_owned(),
            cgroup_parent: format!("/{}/pod{uid}", group(&self.dir)),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            annotations: [("note".to_owned(), "kept".to_owned())].into(),
            pod: name,
            ..Sandbox::default()
        };
        Pod { runtime: runtime.clone(), bin: self.path("bin"), sandbox, id: String::new(), image: String::new() }
    }
}

pub(crate) async fn start(config: Config) -> Arc<Runtime> {
    match Runtime::start(config).await {
        Ok(runtime) => runtime,
        Err(e) => panic!("{e}"),
    }
}

/// A pod whose containers run busybox.
pub(crate) struct Pod {
    pub(crate) runtime: Arc<Runtime>,
    bin: PathBuf,
    pub(crate) sandbox: Sandbox,
    pub(crate) id: String,
    image: String,
}

impl Pod {
    pub(crate) async fn run(&mut self) {
        let Answer::Image(image) = self.ask(Op::FindImage { image: host::pause::NAME.into() }).await else {
            panic!("no image")
        };
        self.image = image.id;
        self.id = id(self.ask(Op::RunSandbox(Box::new(self.sandbox.clone()))).await);
    }

    /// A container that runs a line of shell; `change` has the last word.
    pub(crate) async fn container(&self, name: &str, line: &str, change: impl FnOnce(&mut Container)) -> String {
        let mut container = Container {
            name: name.into(),
            image: self.image.clone(),
            user_image: "busybox:latest".into(),
            command: vec!["/bin/sh".into(), "-c".into(), line.into()],
            env: vec![("PATH".into(), "/bin".into())],
            mounts: vec![self.mount(self.bin.to_str().unwrap(), "/bin")],
            labels: [("part".to_owned(), name.to_owned())].into(),
            log_path: format!("{name}/0.log"),
            security: Security { run_as_user: Some(0), ..Security::default() },
            ..Container::default()
        };
        change(&mut container);
        let of = Box::new(self.sandbox.clone());
        let create = Op::CreateContainer { sandbox: self.id.clone(), of, container: Box::new(container) };
        let id = id(self.ask(create).await);
        self.ask(Op::StartContainer { id: id.clone() }).await;
        id
    }

    pub(crate) fn mount(&self, host_path: &str, container_path: &str) -> Mount {
        Mount { host_path: host_path.into(), container_path: container_path.into(), ..Mount::default() }
    }

    /// A volume, and where it is.
    pub(crate) async fn volume(&self, name: &str, kind: VolumeKind) -> String {
        let volume = Volume { name: name.into(), kind, group: None };
        let pod = self.sandbox.pod.uid.clone();
        match self.ask(Op::Volumes { pod, volumes: vec![volume] }).await {
            Answer::Volumes(made) => made[name].clone().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn ask(&self, op: Op) -> Answer {
        let asked = format!("{op:?}");
        self.runtime.perform(op).await.unwrap_or_else(|failure| panic!("{asked}: {failure:?}"))
    }

    /// What a line of shell says in a container, and how it ends.
    pub(crate) async fn exec(&self, id: &str, line: &str) -> (i32, String) {
        match self.try_exec(id, line, Duration::from_secs(20)).await {
            Ok(Answer::Exit { code, output }) => (code, String::from_utf8(output).unwrap()),
            other => panic!("{line}: {other:?}"),
        }
    }

    pub(crate) async fn try_exec(&self, id: &str, line: &str, timeout: Duration) -> Result<Answer, Failure> {
        let command = ["/bin/sh", "-c", line].map(str::to_owned).into();
        self.runtime.perform(Op::Exec { id: id.into(), command, timeout }).await
    }

    pub(crate) fn addresses(&self, seen: &Seen) -> Vec<IpAddr> {
        seen.sandboxes.iter().find(|s| s.id == self.id).map(|s| s.addresses.clone()).unwrap_or_default()
    }

    /// How its network is, on the node's side and on its own, for a story that failed.
    pub(crate) async fn network(&self, container: &str) -> String {
        let mut told = String::new();
        for what in ["-6 addr", "-6 neigh", "-6 route", "-4 route"] {
            let here = Command::new("ip").args(what.split(' ')).output().unwrap().stdout;
            let there = self.exec(container, &format!("busybox ip {what}")).await.1;
            told += &format!("ip {what}\n{}--- in the pod\n{there}\n", String::from_utf8_lossy(&here));
        }
        told
    }

    pub(crate) async fn remove(&self) {
        self.ask(Op::StopSandbox { id: self.id.clone() }).await;
        self.ask(Op::RemoveSandbox { id: self.id.clone() }).await;
        self.ask(Op::RemovePod { pod: self.sandbox.pod.clone() }).await;
    }
}

pub(crate) fn id(answer: Answer) -> String {
    match answer {
        Answer::Id(id) => id,
        other => panic!("{other:?}"),
    }
}

/// Waits until what is seen is as it should be.
pub(crate) async fn until(runtime: &Runtime, what: impl Fn(&Seen) -> bool) -> Arc<Seen> {
    let mut seen = runtime.seen();
    let waited = tokio::time::timeout(PATIENCE, seen.wait_for(|s| what(s))).await;
    match waited {
        Ok(seen) => seen.unwrap().clone(),
        Err(_) => panic!("never seen; the last is {:#?}", runtime.seen().borrow()),
    }
}

pub(crate) fn find<'a>(seen: &'a Seen, id: &str) -> Option<&'a SeenContainer> {
    seen.containers.iter().find(|c| c.id == id)
}

pub(crate) fn is_running(seen: &Seen, id: &str) -> bool {
    find(seen, id).is_some_and(|c| matches!(c.state, ContainerState::Running { .. }))
}

/// Its exit code and reason, once it has ended.
pub(crate) fn ended(seen: &Seen, id: &str) -> Option<(i32, String)> {
    match &find(seen, id)?.state {
        ContainerState::Exited { code, reason, .. } => Some((*code, reason.clone())),
        _ => None,
    }
}
