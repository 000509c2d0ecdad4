//! The stage itself: a machine made of namespaces is like one in what the stories count on.

use anyhow::{Result, ensure};
use e2e::{Answer, Loss, Machine, Manner, Model, Node, Options, Place, Registry, images, until};
use std::fs;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

const GIB: u64 = 1 << 30;
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_machine_has_its_own_name_processes_network_and_disk() -> Result<()> {
    let place = Place::new("a-machine")?;
    let machine = Machine::start(&place, Model::new("lamp")?)?;
    assert_eq!(machine.ok(&["hostname"])?, "lamp\n");
    assert_eq!(machine.ok(&["readlink", "/proc/1/exe"])?.lines().next().map(|l| l.ends_with("/machine")), Some(true));
    let links = machine.ok(&["ip", "-brief", "link"])?;
    assert_eq!(links.lines().filter_map(|l| l.split(['@', ' ']).next()).collect::<Vec<_>>(), ["lo", "eth0"]);
    machine.ok(&["sh", "-c", "echo kept >/root/file; echo lost >/run/file"])?;
    assert_eq!(fs::read_to_string(machine.on_disk("/root/file"))?, "kept\n");
    ensure!(!machine.run(&["touch", "/usr/file"])?.succeeded(), "what is outside cannot be written from inside");
    assert_eq!(machine.ok(&["sh", "-c", "cat /proc/self/cgroup | grep -c -v ':/$\\|:/init$' || true"])?, "0\n");
    assert_eq!(machine.run(&["sh", "-c", "exit 7"])?.status.code(), Some(7));
    Ok(())
}

#[test]
fn a_power_cut_ends_all_at_once_without_a_last_word() -> Result<()> {
    let place = Place::new("a-machine")?;
    let model = Model::new("lamp")?.forgetting("/var/lib/log", GIB, &["kept"]);
    let machine = Machine::start(&place, model)?;
    let boot = machine.ok(&["cat", "/proc/sys/kernel/random/boot_id"])?;
    machine.ok(&["sh", "-c", "cd /var/lib/log; echo a >synced; sync synced .; echo b >unsynced; echo c >kept/file"])?;
    machine.ok(&["sh", "-c", "echo d >/run/file; echo e >/root/file"])?;
    // An orphan, which belongs to the machine alone.
    machine.ok(&["sh", "-c", "setsid busybox nc -l -p 7000 -e busybox cat >/dev/null 2>&1 </dev/null &"])?;
    let address = (machine.address(), 7000);
    let peer = until("the listener", SOON, || Ok(TcpStream::connect_timeout(&address.into(), SOON).ok()))?;
    machine.power_cut(Loss::Everything)?;
    peer.set_nonblocking(true)?;
    let heard = peer.peek(&mut [0]).unwrap_err();
    assert_eq!(heard.kind(), std::io::ErrorKind::WouldBlock, "neither an end nor a reset reaches the peer");
    ensure!(machine.run(&["true"]).is_err(), "the machine is off");

    machine.boot()?;
    let listing =
        machine.ok(&["sh", "-c", "cd /; cat var/lib/log/* var/lib/log/kept/file run/file root/file 2>&1 || true"])?;
    assert_eq!(listing.lines().filter(|l| l.len() == 1).collect::<String>(), "ace", "{listing}");
    ensure!(machine.ok(&["cat", "/proc/sys/kernel/random/boot_id"])? != boot, "it is another boot");
    ensure!(machine.processes("busybox")?.is_empty(), "what ran is gone");
    Ok(())
}

/// A containerd started by hand, without anything of beemesh.
fn containerd(machine: &Machine) -> Result<()> {
    let config = "version = 2\nroot = '/var/lib/containerd'\nstate = '/run/containerd'\n\
        disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '/run/c.sock'\n";
    fs::write(machine.on_disk("/etc/containerd.toml"), config)?;
    machine.ok(&["sh", "-c", "setsid containerd -c /etc/containerd.toml >>/var/log/containerd 2>&1 </dev/null &"])?;
    until("containerd", SOON, || Ok(ctr(machine, &["version"])?.succeeded().then_some(())))
        .map_err(|e| e.context(machine.ok(&["cat", "/var/log/containerd"]).unwrap_or_default()))
}

fn ctr(machine: &Machine, args: &[&str]) -> Result<Answer> {
    machine.run(&[&["ctr", "-a", "/run/c.sock"], args].concat())
}

#[test]
fn containerd_runs_in_it_and_its_containers_end_with_the_power() -> Result<()> {
    let place = Place::new("a-machine")?;
    let machine = Machine::start(&place, Model::new("lamp")?)?;
    containerd(&machine)?;
    machine.ok(&["sh", "-c", "mkdir -p /srv/root/bin && cp /usr/bin/busybox /srv/root/bin/sleep"])?;
    let run = ["run", "--detach", "--rootfs", "/srv/root", "sleeper", "/bin/sleep", "1000"];
    ctr(&machine, &run)?.success()?;
    assert_eq!(machine.processes("sleep")?.len(), 1);
    machine.power_cut(Loss::Everything)?;
    machine.boot()?;
    ensure!(machine.processes("sleep")?.is_empty(), "containers end with the power");
    containerd(&machine)?;
    let containers = ctr(&machine, &["containers", "ls", "-q"])?.success()?;
    ensure!(containers.contains("sleeper"), "containerd's disk is kept");
    ensure!(ctr(&machine, &["tasks", "ls", "-q"])?.success()?.trim().is_empty(), "nothing runs after a cut");
    Ok(())
}

#[test]
fn images_come_from_a_registry_of_the_test() -> Result<()> {
    let place = Place::new("a-machine")?;
    let machine = Machine::start(&place, Model::new("lamp")?)?;
    containerd(&machine)?;
    let registry = Registry::serve(machine.outside())?;
    let (busybox, nginx) = (images::busybox("1.36")?, images::nginx("1.14.2")?);
    registry.push(&busybox);
    registry.push(&nginx);
    let folder = machine.on_disk("/etc/certs.d/docker.io");
    fs::create_dir_all(&folder)?;
    let url = registry.url();
    let hosts = format!("server = {url:?}\n[host.{url:?}]\ncapabilities = ['pull', 'resolve']\n");
    fs::write(folder.join("hosts.toml"), hosts)?;
    let pull = |image: &str, more: &[&str]| {
        ctr(&machine, &[&["images", "pull", "--hosts-dir", "/etc/certs.d"], more, &[image]].concat())
    };
    pull("docker.io/library/busybox:1.36", &[])?.success()?;
    let by_digest = format!("docker.io/library/nginx@{}", nginx.digest());
    pull(&by_digest, &[])?.success()?;
    // By its exit code: of a program that ends at once, ctr may lose the last lines.
    let check = "test \"$(id -un)\" = root && test -k /tmp && exit 7";
    let run = ["run", "--rm", "docker.io/library/busybox:1.36", "check", "sh", "-c", check];
    let said = ctr(&machine, &run)?;
    assert_eq!(said.status.code(), Some(7), "{}", said.told());
    ctr(&machine, &["run", "--detach", "--net-host", &by_digest, "web"])?.success()?;
    let page = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1/"];
    let page = until("the web server", SOON, || Ok(Some(machine.run(&page)?).filter(Answer::succeeded)))?;
    ensure!(page.stdout.contains("1.14.2"), "{page:?}");
    ctr(&machine, &["tasks", "kill", "--signal", "SIGTERM", "web"])?.success()?;
    until("the web server's end at SIGTERM", SOON, || Ok(machine.processes("httpd")?.is_empty().then_some(())))?;

    let told = pull("docker.io/library/nowhere:1", &[])?;
    ensure!(!told.succeeded() && told.stderr.contains("not found"), "{}", told.told());
    registry.let_answer("library/busybox", Manner::Private("bee".to_owned(), "honey".to_owned()));
    let told = pull("docker.io/library/busybox:1.36", &[])?;
    ensure!(!told.succeeded() && told.stderr.contains("401"), "{}", told.told());
    pull("docker.io/library/busybox:1.36", &["--user", "bee:honey"])?.success()?;
    Ok(())
}

#[test]
fn a_node_in_a_machine_is_reached_from_outside() -> Result<()> {
    let place = Place::new("a-machine")?;
    let machine = Arc::new(Machine::start(&place, Model::new("lamp")?.forgetting(Options::DATA, GIB, &[]))?);
    let options = Options { flags: vec!["--runtime=none".to_owned()], ..Options::with_pods(&machine) };
    let mut node = Node::start(&place, options)?;
    node.kubectl().ok(&["create", "namespace", "shop"])?;
    node.kill()?;
    node.start_again()?;
    node.power_cut(Loss::Everything)?;
    node.start_again()?;
    assert_eq!(node.kubectl().ok(&["get", "nodes", "-o", "name"])?, "node/lamp\n");
    node.kubectl().ok(&["get", "namespace", "shop"])?;
    ensure!(node.stop()?.success(), "SIGTERM is orderly");
    Ok(())
}
