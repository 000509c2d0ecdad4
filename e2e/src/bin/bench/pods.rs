//! Pods: from apply to running, beside containerd asked for the same pod directly.
//!
//! The peer has no volumes, no token, no log of its own and nobody whom it tells; its network is the same, the same
//! plugins with the same configuration, IPv6 too.

use crate::api::{Served, next_line_with};
use crate::line;
use crate::load::{Taken, milliseconds};
use anyhow::{Context, Result};
use e2e::{Machine, Model, Node, Options, Place, Registry, images, until};
use http::Method;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_cri::v1;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use nix::sys::signal::{Signal, kill};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// How many pods, one after the other, after one that brings the image.
const PODS: usize = 20;
const ALL: &str = "/api/v1/namespaces/default/pods";
const SOON: Duration = Duration::from_secs(60);
const IMAGE: &str = "docker.io/library/busybox:1.36";

/// Creating a pod to being told that its container runs; then the same by hand, at the same containerd.
pub(crate) fn run(runtime: &Runtime) -> Result<()> {
    let place = Place::new("bench")?;
    let machine = Arc::new(Machine::start(&place, Model::new("bench")?)?);
    let registry = Registry::serve(machine.outside())?;
    registry.push(&images::busybox("1.36")?);
    let mut options = Options::with_pods(&machine);
    options.flags.extend(["--registry-mirror".to_owned(), format!("docker.io={}", registry.url())]);
    let served = Served::of(Node::prepare(&place, options)?)?;
    let ready = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
    let kubectl = served.node.kubectl();
    kubectl.until_prints("True", &["get", "nodes", "-o", ready])?;
    kubectl.until_prints("serviceaccount/default\n", &["get", "serviceaccount", "default", "-o", "name"])?;

    let socket = socket(&machine)?;
    let mut hand = runtime.block_on(async { RuntimeServiceClient::new(channel(&socket)) });
    for (measure, before) in [
        ("create of a pod to seen running", Before::Gone),
        ("the same while pods before it are being removed", Before::Going),
    ] {
        let (through, by_hand) = runtime.block_on(both(&served, &mut hand, before))?;
        let mut shown = through.times();
        let over = milliseconds(through.quantile(0.5)) - milliseconds(by_hand.quantile(0.5));
        shown["over_peer_ms"] = json!(crate::load::rounded(over));
        line(measure, shown, "RunPodSandbox, CreateContainer, StartContainer", by_hand.times());
    }
    Ok(())
}

/// What is with the pods before the one that is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing is left of them: what is measured is a start and nothing else.
    Gone,
    /// Their containers are given two seconds and then killed, their networks and control groups removed, on the
    /// same processors: there are as many removals as starts.
    Going,
}

/// Through the API, and by hand at the same containerd: the same image and the same network of both families.
async fn both(served: &Served, hand: &mut RuntimeServiceClient<Channel>, before: Before) -> Result<(Taken, Taken)> {
    let (mut through, mut by_hand) = (Vec::new(), Vec::new());
    if before == Before::Gone {
        // In turns, since a machine is not as fast in one minute as in the next.
        for n in 0..=PODS {
            through.push(applied(served, n, before).await?);
            by_hand.push(frozen(served, asked(hand, n, before)).await?.0);
        }
    } else {
        for n in 0..=PODS {
            through.push(applied(served, n, before).await?);
        }
        nothing_left(hand).await?;
        let all = async {
            let mut going = Vec::new();
            for n in 0..=PODS {
                let (took, gone) = asked(hand, n, before).await?;
                by_hand.push(took);
                going.extend(gone);
            }
            for gone in going {
                gone.await??;
            }
            anyhow::Ok(())
        };
        frozen(served, all).await?;
    }
    let taken = |all: Vec<Duration>| Taken::new(all.into_iter().skip(1).collect(), Duration::from_secs(1));
    Ok((taken(through), taken(by_hand)))
}

/// Does something while the program is stopped: it looks at containerd whenever that tells of anything, which
/// would be in the peer's time.
async fn frozen<T>(served: &Served, work: impl Future<Output = Result<T>>) -> Result<T> {
    let pid = served.node.pid()?;
    kill(pid, Signal::SIGSTOP)?;
    let done = work.await;
    kill(pid, Signal::SIGCONT)?;
    done
}

/// Waits until all of the program's pods are removed.
async fn nothing_left(hand: &mut RuntimeServiceClient<Channel>) -> Result<()> {
    let begun = Instant::now();
    while !hand.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.into_inner().items.is_empty() {
        anyhow::ensure!(begun.elapsed() < SOON, "pods are not removed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// How long a pod takes from the request that creates it to an event in which its container runs.
async fn applied(served: &Served, n: usize, before: Before) -> Result<Duration> {
    let (name, grace) = match before {
        Before::Gone => (format!("pod-{n}"), 1),
        // It is deleted by force: the object goes at once and the containers later.
        Before::Going => (format!("again-{n}"), 0),
    };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": grace,
        "containers": [{"name": "main", "image": IMAGE, "command": ["sleep", "100000"]}]}});
    let watch = format!("{ALL}?watch=true&fieldSelector=metadata.name%3D{name}");
    let mut watcher = served.target.connect().await?;
    let mut events = watcher.begin(&Method::GET, &watch, Bytes::new()).await?;
    let mut client = served.target.connect().await?;
    let begin = Instant::now();
    client.whole(&Method::POST, ALL, Bytes::from(pod.to_string())).await?;
    let running = next_line_with(&mut events, r#""state":{"running":"#);
    tokio::time::timeout(SOON, running).await.context("the pod did not run")??;
    let took = begin.elapsed();
    client.whole(&Method::DELETE, &format!("{ALL}/{name}"), Bytes::new()).await?;
    let gone = next_line_with(&mut events, r#"{"type":"DELETED""#);
    tokio::time::timeout(SOON, gone).await.context("the pod did not go")??;
    Ok(took)
}

/// The socket of the containerd in the machine, by the way that leads there from outside.
fn socket(machine: &Machine) -> Result<PathBuf> {
    let pid = *machine.processes("containerd")?.first().context("no containerd")?;
    let folder = PathBuf::from(format!("/proc/{pid}/root/run/beemesh"));
    until("containerd's socket", SOON, || {
        let found = fs::read_dir(&folder)?.flatten().map(|entry| entry.path().join("containerd.sock"));
        Ok(found.into_iter().find(|path| path.exists()))
    })
}

fn channel(socket: &std::path::Path) -> Channel {
    let path = socket.to_owned();
    // The URI is only what `:authority` says, which must be no path.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    }))
}

/// How long the same pod takes when nobody stands between; and its removal, if that is not awaited.
async fn asked(
    client: &mut RuntimeServiceClient<Channel>,
    n: usize,
    before: Before,
) -> Result<(Duration, Option<Removal>)> {
    let name = format!("by-hand-{n}-{}", if before == Before::Gone { "gone" } else { "going" });
    let sandbox = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.clone(),
            uid: name.clone(),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: name.clone(),
        log_directory: format!("/var/log/pods/{name}"),
        linux: Some(v1::LinuxPodSandboxConfig { cgroup_parent: format!("/by-hand/{name}"), ..Default::default() }),
        ..Default::default()
    };
    let container = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: vec!["sleep".into(), "100000".into()],
        log_path: "main.log".into(),
        linux: Some(v1::LinuxContainerConfig::default()),
        ..Default::default()
    };
    let begin = Instant::now();
    let run = v1::RunPodSandboxRequest { config: Some(sandbox.clone()), runtime_handler: String::new() };
    let pod_sandbox_id = client.run_pod_sandbox(run).await?.into_inner().pod_sandbox_id;
    let create = v1::CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(container),
        sandbox_config: Some(sandbox),
    };
    let container_id = client.create_container(create).await?.into_inner().container_id;
    client.start_container(v1::StartContainerRequest { container_id: container_id.clone() }).await?;
    let took = begin.elapsed();
    let mut client = client.clone();
    let removal = async move {
        if before == Before::Going {
            client.stop_container(v1::StopContainerRequest { container_id, timeout: 2 }).await?;
        }
        client.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }).await?;
        client.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id }).await?;
        anyhow::Ok(())
    };
    if before == Before::Going {
        return Ok((took, Some(tokio::spawn(removal))));
    }
    removal.await?;
    Ok((took, None))
}

type Removal = tokio::task::JoinHandle<Result<()>>;
