//! `pod_bench DATA [N]`: how long a pod takes from being asked for to being seen running, through
//! [`host::runtime::Runtime`], and how much of that is the runtime's own. As root; containerd is left
//! running with `KEEP` set, and ended otherwise.

#![allow(clippy::unwrap_used)]

use base::runtime::{Answer, Container, ContainerState, Op, PodName, Sandbox, Seen};
use host::cni::Network;
use host::runtime::{Config, Runtime};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let data = PathBuf::from(args.next().expect("pod_bench DATA [N]"));
    let n: u32 = args.next().map_or(10, |n| n.parse().expect("a number of pods"));
    let begun = Instant::now();
    let config = Config {
        data: data.clone(),
        cri: None,
        network: Network::new((Ipv4Addr::new(10, 42, 99, 0), 24), Some(("fd42:99::".parse().unwrap(), 64))),
        registries: Vec::new(),
    };
    let runtime = match Runtime::start(config).await {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(1);
        }
    };
    println!("{} after {:?}, was running: {}", runtime.version(), begun.elapsed(), runtime.was_running());
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for i in 0..n {
        for (what, took) in pod(&runtime, i).await {
            times.entry(what).or_default().push(took);
        }
    }
    for (what, mut took) in times {
        took.sort();
        println!(
            "{what:<22} p50 {:>9.1?} min {:>9.1?} max {:>9.1?}",
            took[took.len() / 2],
            took[0],
            took[took.len() - 1]
        );
    }
    if std::env::var_os("KEEP").is_none() {
        runtime.end().await;
    }
}

async fn pod(runtime: &Arc<Runtime>, i: u32) -> Vec<(&'static str, Duration)> {
    let mut times = Vec::new();
    let mut last = Instant::now();
    let begun = last;
    let mut lap = |what| {
        times.push((what, last.elapsed()));
        last = Instant::now();
    };
    let pod =
        PodName { namespace: "bench".into(), name: format!("p{i}"), uid: format!("uid-{}-{i}", std::process::id()) };
    let sandbox = Sandbox {
        log_directory: runtime.pods().log_directory(&pod).to_string_lossy().into_owned(),
        cgroup_parent: format!("/kubepods/pod{}", pod.uid),
        hostname: pod.name.clone(),
        pod: pod.clone(),
        ..Sandbox::default()
    };
    let Ok(Answer::Image(image)) = runtime.perform(Op::FindImage { image: "beemesh.local/pause:1".into() }).await
    else {
        panic!("no pause image");
    };
    lap("1 find image");
    let id = made(runtime.perform(Op::RunSandbox(Box::new(sandbox.clone()))).await);
    lap("2 run sandbox");
    let container = Container { name: "c".into(), image: image.id, log_path: "c/0.log".into(), ..Container::default() };
    let create =
        Op::CreateContainer { sandbox: id.clone(), of: Box::new(sandbox), container: Box::new(container.clone()) };
    let c = made(runtime.perform(create).await);
    lap("3 create container");
    runtime.perform(Op::StartContainer { id: c.clone() }).await.unwrap();
    lap("4 start container");
    let mut seen = runtime.seen();
    until(&mut seen, |s| is(s, &c, |state| matches!(state, ContainerState::Running { .. }))).await;
    lap("5 seen running");
    let whole = begun.elapsed();
    runtime.perform(Op::StopContainer { id: c.clone(), grace: Duration::from_secs(5) }).await.unwrap();
    lap("6 stop container");
    until(&mut seen, |s| is(s, &c, |state| matches!(state, ContainerState::Exited { .. }))).await;
    lap("7 seen exited");
    runtime.perform(Op::StopSandbox { id: id.clone() }).await.unwrap();
    runtime.perform(Op::RemoveSandbox { id }).await.unwrap();
    runtime.perform(Op::RemovePod { pod }).await.unwrap();
    lap("8 remove");
    times.push(("9 asked to seen running", whole));
    times
}

fn made(answer: Result<Answer, base::runtime::Failure>) -> String {
    match answer {
        Ok(Answer::Id(id)) => id,
        other => panic!("{other:?}"),
    }
}

async fn until(seen: &mut tokio::sync::watch::Receiver<Arc<Seen>>, what: impl Fn(&Seen) -> bool) {
    seen.wait_for(|s| what(s)).await.unwrap();
}

fn is(seen: &Seen, id: &str, what: impl Fn(&ContainerState) -> bool) -> bool {
    seen.containers.iter().any(|c| c.id == id && what(&c.state))
}
