//! This node's pods: gets a runtime once the node is known, keeps what the pods' machine needs to know
//! true, and does the runtime's housekeeping.

use crate::config::{Config, Pods};
use crate::driver::work::Work;
use crate::register::RuntimeFacts;
use base::runtime::Why;
use decide::pod::Resources;
use host::cni::Network;
use host::containerd::Registry;
use host::runtime::{self, Runtime};
use host::services::{self, Redirect};
use node::nodes::internal_addresses;
use node::pods::NodeFacts;
use objects::Tree;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The address of the Service `kubernetes` in `default`, the first of the services' network.
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 1);

/// How often is looked whether the runtime is well.
const EVERY: Duration = Duration::from_secs(10);
/// How often while it does not answer: until it does, no pod is started or stopped.
const EVERY_UNWELL: Duration = Duration::from_secs(1);
/// How often what nobody needs is removed: the kubelet's period for images.
const TIDY_EVERY: Duration = Duration::from_secs(300);
/// Beyond how much of their disk unused images go, and down to how much: the kubelet's defaults.
const IMAGES_PERCENT: (u64, u64) = (85, 80);

/// Runs pods until stopped, if this node is to run any.
pub(crate) async fn run(
    config: Config,
    api: SocketAddr,
    work: Arc<Work>,
    mut node: watch::Receiver<Option<Tree>>,
    runtime_is: watch::Sender<RuntimeFacts>,
    mut stopped: watch::Receiver<bool>,
) {
    if config.pods == Pods::None {
        return;
    }
    tokio::select! {
        () = keep(&config, api, &work, &mut node, &runtime_is) => {}
        _ = stopped.changed() => {}
    }
}

async fn keep(
    config: &Config,
    api: SocketAddr,
    work: &Arc<Work>,
    node: &mut watch::Receiver<Option<Tree>>,
    runtime_is: &watch::Sender<RuntimeFacts>,
) {
    // The pods' network is the node's own, and the registry says which that is.
    let network = loop {
        if let Some(network) = node.borrow_and_update().as_ref().and_then(network) {
            break network;
        }
        if node.changed().await.is_err() {
            return;
        }
    };
    let runtime = runtime(config, network.clone()).await;
    tracing::info!(runtime = %runtime.version(), "pods can run here");
    match runtime.lacks().await {
        Ok(lacks) => lacks.iter().for_each(|why| tracing::warn!("{why}")),
        Err(why) => tracing::warn!("the container runtime does not say whether it can run pods: {}", why.message),
    }
    let way = Redirect { service: (API_SERVICE, 443).into(), to: api };
    if let Some(why) = services::unreachable(&way) {
        tracing::warn!("{why}");
    }
    let (mut way_lies, mut network_lies, mut laid) = (Lying::default(), Lying::default(), false);
    // A host that nobody but itself reaches still does so by the same way.
    let can_lie = way.to.ip().is_unspecified() || way.to.is_ipv4();
    work.run_pods(runtime.clone());
    let mut tidied: Option<Instant> = None;
    let mut answers = true;
    loop {
        if can_lie {
            way_lies.tell(&format!("the API at {API_SERVICE}"), keep_way(way, &mut laid).await);
        }
        network_lies.tell("other machines", runtime.keep_network().await);
        let well = runtime.image_list().await;
        // Whatever else it says, it answers.
        let is_there = !matches!(&well, Err(why) if why.why == Why::NoRuntime);
        if let Some(node) = node.borrow_and_update().as_ref() {
            work.node_is(facts(config, node, &runtime, is_there));
        }
        runtime_is.send_if_modified(|known| {
            let now = match &well {
                Ok(images) => RuntimeFacts {
                    version: Some(runtime.version().to_string()),
                    images: images.iter().map(|i| (i.names.clone(), i.bytes)).collect(),
                },
                Err(_) => RuntimeFacts::default(),
            };
            let new = *known != now;
            *known = now;
            new
        });
        for why in runtime.rotate_logs().await {
            tracing::warn!(why = why.message, "a container's log could not be put aside");
        }
        match &well {
            Err(why) if answers => {
                tracing::warn!(why = why.message, "the container runtime does not answer; what runs goes on");
            }
            Ok(_) if !answers => tracing::info!("the container runtime answers again"),
            _ => {}
        }
        answers = well.is_ok();
        if tidied.is_none_or(|at| at.elapsed() >= TIDY_EVERY) {
            // Not before the first round: what runs is found, and its images are noted, in the meantime.
            if tidied.replace(Instant::now()).is_some() {
                tidy(work, &runtime).await;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(if is_there { EVERY } else { EVERY_UNWELL }) => {}
            Ok(()) = node.changed() => {}
        }
    }
}

/// Removes images that nothing uses when the disk fills, and what is left of pods that are gone.
async fn tidy(work: &Work, runtime: &Arc<Runtime>) {
    match runtime.collect_images(IMAGES_PERCENT.0, IMAGES_PERCENT.1).await {
        Ok(0) => {}
        Ok(bytes) => tracing::info!(bytes, "images that nothing used were removed: their disk was filling"),
        Err(why) => tracing::warn!(why = why.message, "images could not be removed"),
    }
    let pods = runtime.pods().clone();
    match tokio::task::spawn_blocking(move || pods.list()).await {
        Ok(Ok(found)) => work.left(found),
        Ok(Err(why)) => tracing::warn!(%why, "what is left of pods could not be listed"),
        Err(why) => tracing::warn!(%why, "what is left of pods was not listed"),
    }
}

/// What keeps something of the network from lying as it should, told when that is new, and when it is over.
#[derive(Default)]
struct Lying {
    told: Option<String>,
}

impl Lying {
    fn tell(&mut self, what: &str, result: io::Result<()>) {
        let now = result.err().map(|why| why.to_string());
        if let Some(why) = now.as_ref().filter(|why| self.told.as_ref() != Some(*why)) {
            tracing::warn!("pods cannot reach {what}: {why}; trying again");
        } else if self.told.is_some() && now.is_none() {
            tracing::info!("pods reach {what} again");
        }
        self.told = now;
    }
}

/// Has the way to the API lie as it should, whoever took it away. `laid` once this process has laid it: nothing
/// of an earlier one is left then.
async fn keep_way(way: Redirect, laid: &mut bool) -> io::Result<()> {
    if !*laid || !services::is_in_force(&[way]).await {
        *laid = false;
        services::redirect(&[way]).await?;
        *laid = true;
    }
    Ok(())
}

/// Starts the runtime, as often as it takes: the API serves meanwhile, and the node is not ready.
async fn runtime(config: &Config, network: Network) -> Arc<Runtime> {
    let mut pause = Duration::from_secs(1);
    loop {
        let cri = match &config.pods {
            Pods::Cri(socket) => Some(socket.clone()),
            _ => None,
        };
        let registries = config.mirrors.iter().map(|(name, url)| Registry {
            name: name.clone(),
            mirrors: vec![url.clone()],
            insecure: false,
            or_itself: false,
        });
        let asked = runtime::Config {
            data: config.data.clone(),
            cri,
            network: network.clone(),
            registries: registries.collect(),
        };
        match Runtime::start(asked).await {
            Ok(runtime) => return runtime,
            Err(why) => tracing::error!("no container runtime: {why}; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// The pods' network as the Node says.
fn network(node: &Tree) -> Option<Network> {
    let cidrs: Vec<(IpAddr, u8)> = node["spec"]["podCIDRs"]
        .as_array()?
        .iter()
        .filter_map(|c| {
            let (address, bits) = c.as_str()?.split_once('/')?;
            Some((address.parse().ok()?, bits.parse().ok()?))
        })
        .collect();
    let v4: Option<(Ipv4Addr, u8)> = cidrs.iter().find_map(|(a, bits)| match a {
        IpAddr::V4(a) => Some((*a, *bits)),
        IpAddr::V6(_) => None,
    });
    // A machine without IPv6 has no place for such an address.
    let has_v6 = std::path::Path::new("/proc/sys/net/ipv6/conf/all/forwarding").exists();
    let v6: Option<(Ipv6Addr, u8)> = cidrs.iter().filter(|_| has_v6).find_map(|(a, bits)| match a {
        IpAddr::V6(a) => Some((*a, *bits)),
        IpAddr::V4(_) => None,
    });
    Some(Network::new(v4?, v6))
}

fn facts(config: &Config, node: &Tree, runtime: &Runtime, answers: bool) -> NodeFacts {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let addresses = internal_addresses(node);
    let one = |six: bool| addresses.iter().find(|a| a.is_ipv6() == six).copied();
    NodeFacts {
        name: config.name.as_str().into(),
        addresses: one(false).into_iter().chain(one(true)).collect(),
        resolv_conf: read("/etc/resolv.conf"),
        hosts_file: read("/etc/hosts"),
        allocatable: Resources::of(&node["status"]["allocatable"]),
        memory_bytes: crate::register::machine().memory_bytes,
        logs: runtime.pods().logs().to_string_lossy().into_owned(),
        seccomp: config.data.join("seccomp").to_string_lossy().into_owned(),
        api: Some((API_SERVICE.to_string(), 443)),
        cluster_domain: "cluster.local".into(),
        cluster_dns: Vec::new(),
        cgroup_root: "/beemesh".into(),
        systemd: runtime.is_systemd(),
        runtime: answers,
    }
}
