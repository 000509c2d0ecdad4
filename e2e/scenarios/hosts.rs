//! The stage of the stories of several machines: hosts at one switch, each with a containerd and a disk of its own,
//! and a registry at the switch.

use crate::a_switch::machines;
use anyhow::{Context, Result, bail};
use e2e::{Kubectl, Loss, Machine, Model, Network, Node, Options, Place, Registry, images};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;

/// What fits on the part of a host's disk that forgets.
const FORGETTING: u64 = 4 << 30;
/// A container's root needs a file system that the kernel itself knows well.
const KEPT: &[&str] = &["containerd", "pods", "logs"];

/// A host that runs a node.
pub(crate) struct Host {
    pub(crate) machine: Arc<Machine>,
    pub(crate) node: Node,
    pub(crate) kubectl: Kubectl,
}

/// Hosts at one switch.
pub(crate) struct Hosts {
    pub(crate) hosts: Vec<Host>,
    pub(crate) network: Arc<Network>,
    _registry: Registry,
    place: Place,
}

/// Tells a story of hosts with these names. Each founds a mesh of its own. If the story fails, what the hosts said is
/// part of the error.
pub(crate) fn story(name: &str, hosts: &[&str], tell: impl FnOnce(&mut Hosts) -> Result<()>) -> Result<()> {
    told(Hosts::prepare(name, hosts)?, Hosts::found_each, tell)
}

/// The same of hosts of one mesh: the first founds it, the others join it.
pub(crate) fn story_of_a_mesh(name: &str, hosts: &[&str], tell: impl FnOnce(&mut Hosts) -> Result<()>) -> Result<()> {
    told(Hosts::prepare(name, hosts)?, Hosts::found_and_join, tell)
}

fn told(
    mut hosts: Hosts,
    start: impl FnOnce(&mut Hosts) -> Result<()>,
    tell: impl FnOnce(&mut Hosts) -> Result<()>,
) -> Result<()> {
    let tell = |hosts: &mut Hosts| {
        start(hosts)?;
        tell(hosts)
    };
    match catch_unwind(AssertUnwindSafe(|| tell(&mut hosts))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => bail!("{e:?}\n{}", hosts.tells()),
        Err(panic) => {
            eprintln!("{}", hosts.tells());
            resume_unwind(panic)
        }
    }
}

impl Hosts {
    fn prepare(story: &str, names: &[&str]) -> Result<Hosts> {
        let place = Place::new(story)?;
        let network = Network::new(names)?;
        let model = |name: &str| Ok(Model::new(name)?.forgetting(Options::DATA, FORGETTING, KEPT));
        let machines = machines(&place, &network, names, model)?;
        let registry = Registry::serve(machines.first().context("no hosts")?.outside())?;
        registry.push(&images::busybox("1.36")?);
        registry.push(&images::nginx("1.14.2")?);
        let mut nodes = Vec::new();
        for machine in machines {
            let machine = Arc::new(machine);
            let mut options = Options::with_pods(&machine);
            options.flags.extend(["--registry-mirror".to_owned(), format!("docker.io={}", registry.url())]);
            nodes.push((machine, Node::prepare(&place, options)?));
        }
        let hosts = nodes.into_iter().map(|(machine, node)| Host { machine, kubectl: node.kubectl(), node });
        Ok(Hosts { hosts: hosts.collect(), network, _registry: registry, place })
    }

    /// A path in the story's directory.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    fn found_each(&mut self) -> Result<()> {
        self.each(|host| {
            host.node.start_again()?;
            host.ready()
        })
    }

    fn found_and_join(&mut self) -> Result<()> {
        let (founder, others) = self.hosts.split_first_mut().context("no hosts")?;
        founder.node.start_again()?;
        founder.ready()?;
        for host in others {
            host.node.joins_by(Some(founder.node.invite(&[])?));
            host.node.start_again().with_context(|| format!("{} joins", host.machine.name()))?;
            host.node.joins_by(None);
        }
        Ok(())
    }

    /// Does something with all hosts at once.
    pub(crate) fn each(&mut self, act: impl Fn(&mut Host) -> Result<()> + Sync) -> Result<()> {
        let act = &act;
        std::thread::scope(|scope| {
            let all = self
                .hosts
                .iter_mut()
                .map(|host| scope.spawn(move || act(host).with_context(|| format!("on {}", host.machine.name()))));
            let all: Vec<_> = all.collect();
            all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    /// What a person would look at first.
    fn tells(&self) -> String {
        let tells = |host: &Host| {
            if !host.machine.is_on() {
                return format!("{} is off\n{}", host.machine.name(), host.node.log_tail());
            }
            let ask = |args: &[&str]| host.kubectl.run(args).map_or_else(|e| format!("{e:#}"), |a| a.told());
            let pods = ask(&["get", "pods,nodes", "-A", "-o", "wide", "--request-timeout=10s"]);
            let checks = ask(&["get", "--raw", "/readyz?verbose", "--request-timeout=10s"]);
            let events = ask(&["events", "-A", "--request-timeout=10s"]);
            format!("{}:\n{pods}\n{checks}\n{events}\n{}", host.machine.name(), host.node.log_tail())
        };
        self.hosts.iter().map(tells).collect()
    }
}

impl Host {
    /// Waits until the node says that pods can run.
    pub(crate) fn ready(&self) -> Result<()> {
        let ready = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        self.kubectl.until_prints("True", &["get", "nodes", "-o", ready])?;
        self.kubectl.until_prints("serviceaccount/default\n", &["get", "serviceaccount", "default", "-o", "name"])
    }

    /// Waits until a pod is ready.
    pub(crate) fn until_ready(&self, pod: &str) -> Result<()> {
        let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        self.kubectl.until_prints("True", &["get", "pod", pod, "-o", ready])
    }

    /// Pulls the plug.
    pub(crate) fn power_cut(&mut self, loss: Loss) -> Result<()> {
        self.node.power_cut(loss)
    }
}
