//! `pod_bench DATA [N]`: how long a pod takes from being asked for to being seen running, through
//! [`host::runtime::Runtime`], beside the bare calls to the same containerd in the same minutes. As root;
//! containerd is ended afterwards. `V4=1` gives pods no IPv6.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use base::runtime::{Answer, Container, ContainerState, Failure, Op, PodName, Sandbox};
use host::cni::Network;
use host::runtime::{Config, Runtime};
use hyper_util::rt::TokioIo;
use k8s_cri::v1;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

type Laps = Vec<(&'static str, Duration)>;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let data = PathBuf::from(args.next().expect("pod_bench DATA [N]"));
    let n: u32 = args.next().map_or(10, |n| n.parse().expect("a number of pods"));
    let begun = Instant::now();
    let v6 = std::env::var_os("V4").is_none().then(|| ("fd42:99::".parse().unwrap(), 64));
    let network = Network::new((Ipv4Addr::new(10, 42, 99, 0), 24), v6);
    let config = Config { data: data.clone(), cri: None, network, registries: Vec::new() };
    let runtime = match Runtime::start(config).await {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(1);
        }
    };
    println!("{} after {:?}, was running: {}", runtime.version(), begun.elapsed(), runtime.was_running());
    let mut cri = bare_client(&host::containerd::Config::of(&data).socket()).await;
    let Ok(Answer::Image(image)) = runtime.perform(Op::FindImage { image: host::pause::NAME.into() }).await else {
        panic!("no pause image");
    };
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for i in 0..n {
        let laps = [ours(&runtime, &image.id, i).await, bare(&mut cri, &image.id, &data, i).await].concat();
        for (what, took) in laps {
            times.entry(what).or_default().push(took);
        }
    }
    for (what, mut took) in times {
        took.sort();
        let (p50, min, max) = (took[took.len() / 2], took[0], took[took.len() - 1]);
        println!("{what:<32} p50 {p50:>9.1?} min {min:>9.1?} max {max:>9.1?}");
    }
    runtime.end().await;
}

async fn ours(runtime: &Arc<Runtime>, image: &str, i: u32) -> Laps {
    let mut laps = Vec::new();
    let mut last = Instant::now();
    let begun = last;
    let mut lap = |what| {
        laps.push((what, last.elapsed()));
        last = Instant::now();
    };
    let uid = format!("uid-{}-{i}", std::process::id());
    let pod = PodName { namespace: "bench".into(), name: format!("p{i}"), uid };
    let sandbox = Sandbox {
        log_directory: runtime.pods().log_directory(&pod).to_string_lossy().into_owned(),
        cgroup_parent: format!("/kubepods/pod{}", pod.uid),
        hostname: pod.name.clone(),
        pod: pod.clone(),
        ..Sandbox::default()
    };
    let id = made(runtime.perform(Op::RunSandbox(Box::new(sandbox.clone()))).await);
    lap("1 run sandbox");
    let container =
        Container { name: "c".into(), image: image.into(), log_path: "c/0.log".into(), ..Container::default() };
    let create = Op::CreateContainer { sandbox: id.clone(), of: Box::new(sandbox), container: Box::new(container) };
    let c = made(runtime.perform(create).await);
    lap("2 create container");
    runtime.perform(Op::StartContainer { id: c.clone() }).await.unwrap();
    lap("3 start container");
    let mut seen = runtime.seen();
    let is = |what: fn(&ContainerState) -> bool| {
        let c = c.clone();
        move |s: &Arc<base::runtime::Seen>| s.containers.iter().any(|x| x.id == c && what(&x.state))
    };
    seen.wait_for(is(|s| matches!(s, ContainerState::Running { .. }))).await.unwrap();
    lap("4 seen running");
    let whole = begun.elapsed();
    runtime.perform(Op::StopContainer { id: c.clone(), grace: Duration::from_secs(5) }).await.unwrap();
    lap("5 stop container");
    seen.wait_for(is(|s| matches!(s, ContainerState::Exited { .. }))).await.unwrap();
    lap("6 seen exited");
    runtime.perform(Op::StopSandbox { id: id.clone() }).await.unwrap();
    runtime.perform(Op::RemoveSandbox { id }).await.unwrap();
    runtime.perform(Op::RemovePod { pod }).await.unwrap();
    lap("7 remove");
    laps.push(("8 asked to seen running", whole));
    laps
}

fn made(answer: Result<Answer, Failure>) -> String {
    match answer {
        Ok(Answer::Id(id)) => id,
        other => panic!("{other:?}"),
    }
}

async fn bare_client(socket: &Path) -> RuntimeServiceClient<Channel> {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    RuntimeServiceClient::new(Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap())
}

/// The same pod by the calls that have to be made, and its status asked for until it runs.
async fn bare(cri: &mut RuntimeServiceClient<Channel>, image: &str, data: &Path, i: u32) -> Laps {
    let mut laps = Vec::new();
    let mut last = Instant::now();
    let begun = last;
    let mut lap = |what| {
        laps.push((what, last.elapsed()));
        last = Instant::now();
    };
    let uid = format!("bare-{}-{i}", std::process::id());
    let logs = data.join("bare").join(&uid);
    std::fs::create_dir_all(&logs).unwrap();
    let config = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: uid.clone(),
            uid: uid.clone(),
            namespace: "bare".into(),
            attempt: 0,
        }),
        hostname: uid.clone(),
        log_directory: logs.to_string_lossy().into_owned(),
        linux: Some(v1::LinuxPodSandboxConfig { cgroup_parent: format!("/kubepods/{uid}"), ..Default::default() }),
        ..Default::default()
    };
    let run = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    let id = cri.run_pod_sandbox(run).await.unwrap().into_inner().pod_sandbox_id;
    lap("bare 1 RunPodSandbox");
    let container = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: image.into(), ..Default::default() }),
        log_path: "0.log".into(),
        linux: Some(v1::LinuxContainerConfig::default()),
        ..Default::default()
    };
    let create = v1::CreateContainerRequest {
        pod_sandbox_id: id.clone(),
        config: Some(container),
        sandbox_config: Some(config),
    };
    let c = cri.create_container(create).await.unwrap().into_inner().container_id;
    lap("bare 2 CreateContainer");
    cri.start_container(v1::StartContainerRequest { container_id: c.clone() }).await.unwrap();
    lap("bare 3 StartContainer");
    loop {
        let asked = v1::ContainerStatusRequest { container_id: c.clone(), verbose: false };
        let status = cri.container_status(asked).await.unwrap().into_inner().status.unwrap();
        if status.state == v1::ContainerState::ContainerRunning as i32 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let whole = begun.elapsed();
    cri.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await.unwrap();
    cri.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: id }).await.unwrap();
    laps.push(("bare 8 asked to running", whole));
    laps
}
