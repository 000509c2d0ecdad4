//! Sandboxes and containers as the CRI writes them, with what the kubelet adds to them.

use base::runtime::{
    Container, Mount, PidNamespace, PortMapping, Propagation, PullAuth, Resources, Sandbox, Seccomp, Security,
};
use k8s_cri::v1;
use std::collections::{BTreeMap, HashMap};

/// Labels by which every tool finds a pod's parts (the kubelet's).
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Marks what is ours, at a runtime that may be somebody else's, too.
pub(crate) const OWNER: &str = "beemesh.io/owner";

/// The image as the user wrote it, which not every runtime keeps.
pub(crate) const USER_IMAGE: &str = "beemesh.io/image";

/// What of /proc and /sys a container does not see, and what it cannot write, unless it is asked for:
/// runtimes take these lists from whoever speaks CRI to them (the kubelet's, of 1.37).
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(super) fn auth(auth: &PullAuth) -> v1::AuthConfig {
    v1::AuthConfig {
        username: auth.username.clone(),
        password: auth.password.clone(),
        identity_token: auth.identity_token.clone(),
        registry_token: auth.registry_token.clone(),
        // containerd gives credentials to no other host than this, and the host it asks is another one for a
        // mirror, and for Docker's own registry. Which image they are for is decided already.
        server_address: String::new(),
        auth: String::new(),
    }
}

pub(super) fn sandbox(s: &Sandbox, owner: &str) -> v1::PodSandboxConfig {
    let security = v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(s, shared_pid(s))),
        run_as_user: s.security.run_as_user.map(int),
        run_as_group: s.security.run_as_group.map(int),
        readonly_rootfs: s.security.read_only_root,
        supplemental_groups: s.security.supplemental_groups.clone(),
        privileged: s.privileged,
        seccomp: Some(seccomp(&s.security.seccomp)),
        ..Default::default()
    };
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: s.pod.name.clone(),
            uid: s.pod.uid.clone(),
            namespace: s.pod.namespace.clone(),
            attempt: s.attempt,
        }),
        hostname: s.hostname.clone(),
        log_directory: s.log_directory.clone(),
        dns_config: s.dns.as_ref().map(|dns| v1::DnsConfig {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        port_mappings: s.ports.iter().map(port).collect(),
        labels: labels(&s.labels, s, owner, None),
        annotations: map(&s.annotations),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: s.cgroup_parent.clone(),
            security_context: Some(security),
            sysctls: map(&s.sysctls),
            overhead: None,
            resources: None,
        }),
        windows: None,
    }
}

pub(super) fn container(of: &Sandbox, c: &Container, owner: &str) -> v1::ContainerConfig {
    let mut annotations = map(&c.annotations);
    if !c.user_image.is_empty() {
        annotations.insert(USER_IMAGE.into(), c.user_image.clone());
    }
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: c.name.clone(), attempt: c.attempt }),
        image: Some(v1::ImageSpec {
            image: c.image.clone(),
            user_specified_image: c.user_image.clone(),
            ..Default::default()
        }),
        command: c.command.clone(),
        args: c.args.clone(),
        working_dir: c.working_dir.clone(),
        envs: c.env.iter().map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: c.mounts.iter().map(mount).collect(),
        devices: c.devices.iter().map(|path| device(path)).collect(),
        labels: labels(&c.labels, of, owner, Some(&c.name)),
        annotations,
        log_path: c.log_path.clone(),
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        tty: c.tty,
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources(&c.resources, crate::cgroup::is_v2())),
            security_context: Some(security(of, &c.security)),
        }),
        ..Default::default()
    }
}

fn labels(given: &BTreeMap<String, String>, s: &Sandbox, owner: &str, name: Option<&str>) -> HashMap<String, String> {
    let mut labels = map(given);
    let mut add = |key: &str, value: &str| labels.insert(key.into(), value.into());
    add(POD_NAME, &s.pod.name);
    add(POD_NAMESPACE, &s.pod.namespace);
    add(POD_UID, &s.pod.uid);
    add(OWNER, owner);
    if let Some(name) = name {
        add(CONTAINER_NAME, name);
    }
    labels
}

fn shared_pid(s: &Sandbox) -> v1::NamespaceMode {
    match (s.host.pid, s.share_processes) {
        (true, _) => v1::NamespaceMode::Node,
        (false, true) => v1::NamespaceMode::Pod,
        (false, false) => v1::NamespaceMode::Container,
    }
}

fn namespaces(s: &Sandbox, pid: v1::NamespaceMode) -> v1::NamespaceOption {
    let mode = |host: bool| if host { v1::NamespaceMode::Node as i32 } else { v1::NamespaceMode::Pod as i32 };
    v1::NamespaceOption { network: mode(s.host.network), ipc: mode(s.host.ipc), pid: pid as i32, ..Default::default() }
}

fn security(of: &Sandbox, s: &Security) -> v1::LinuxContainerSecurityContext {
    let pid = match s.pid {
        PidNamespace::Container => v1::NamespaceMode::Container,
        PidNamespace::Pod => v1::NamespaceMode::Pod,
        PidNamespace::Host => v1::NamespaceMode::Node,
    };
    let paths = |list: &[&str]| match s.masked_proc {
        true => list.iter().map(|p| (*p).to_owned()).collect(),
        false => Vec::new(),
    };
    v1::LinuxContainerSecurityContext {
        capabilities: Some(v1::Capability {
            add_capabilities: s.add_capabilities.clone(),
            drop_capabilities: s.drop_capabilities.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: s.privileged,
        namespace_options: Some(namespaces(of, pid)),
        run_as_user: s.run_as_user.map(int),
        run_as_group: s.run_as_group.map(int),
        run_as_username: if s.run_as_user.is_some() { String::new() } else { s.run_as_username.clone() },
        readonly_rootfs: s.read_only_root,
        supplemental_groups: s.supplemental_groups.clone(),
        no_new_privs: s.no_new_privileges,
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(&s.seccomp)),
        apparmor: apparmor(&s.apparmor),
        ..Default::default()
    }
}

fn seccomp(s: &Seccomp) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let (kind, file) = match s {
        Seccomp::Unconfined => (ProfileType::Unconfined, ""),
        Seccomp::RuntimeDefault => (ProfileType::RuntimeDefault, ""),
        Seccomp::Localhost(file) => (ProfileType::Localhost, file.as_str()),
    };
    v1::SecurityProfile { profile_type: kind as i32, localhost_ref: file.into() }
}

/// A profile by the names Kubernetes has for them; nothing for none said.
fn apparmor(profile: &str) -> Option<v1::SecurityProfile> {
    use v1::security_profile::ProfileType;
    let (kind, name) = match profile {
        "" => return None,
        "runtime/default" => (ProfileType::RuntimeDefault, ""),
        "unconfined" => (ProfileType::Unconfined, ""),
        other => (ProfileType::Localhost, other.strip_prefix("localhost/").unwrap_or(other)),
    };
    Some(v1::SecurityProfile { profile_type: kind as i32, localhost_ref: name.into() })
}

/// On one hierarchy of control groups, when memory runs out, all of a container is killed and not one of
/// its processes, as the kubelet has it.
fn resources(r: &Resources, is_v2: bool) -> v1::LinuxContainerResources {
    let unified = is_v2.then(|| ("memory.oom.group".to_owned(), "1".to_owned()));
    v1::LinuxContainerResources {
        unified: unified.into_iter().collect(),
        cpu_shares: i64::try_from(r.cpu_shares).unwrap_or(i64::MAX),
        cpu_quota: r.cpu_quota_us,
        cpu_period: r.cpu_period_us,
        memory_limit_in_bytes: r.memory_bytes,
        oom_score_adj: r.oom_score_adj,
        ..Default::default()
    }
}

fn mount(m: &Mount) -> v1::Mount {
    let propagation = match m.propagation {
        Propagation::Private => v1::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
    };
    v1::Mount {
        container_path: m.container_path.clone(),
        host_path: m.host_path.clone(),
        readonly: m.read_only,
        propagation: propagation as i32,
        ..Default::default()
    }
}

fn device(path: &str) -> v1::Device {
    v1::Device { container_path: path.into(), host_path: path.into(), permissions: "rwm".into() }
}

fn port(p: &PortMapping) -> v1::PortMapping {
    let protocol = match p.protocol.as_str() {
        "UDP" => v1::Protocol::Udp,
        "SCTP" => v1::Protocol::Sctp,
        _ => v1::Protocol::Tcp,
    };
    v1::PortMapping {
        protocol: protocol as i32,
        container_port: p.container_port.into(),
        host_port: p.host_port.into(),
        host_ip: p.host_ip.clone(),
    }
}

fn int(value: i64) -> v1::Int64Value {
    v1::Int64Value { value }
}

fn map(m: &BTreeMap<String, String>) -> HashMap<String, String> {
    m.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::runtime::{HostNamespaces, PodName};

    fn pod() -> Sandbox {
        Sandbox {
            pod: PodName { namespace: "shop".into(), name: "web-0".into(), uid: "u1".into() },
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ..Sandbox::default()
        }
    }

    #[test]
    fn every_part_can_be_found_by_its_pod() {
        let made = container(&pod(), &Container { name: "c".into(), ..Default::default() }, "node-1");
        for (key, value) in [
            ("io.kubernetes.pod.name", "web-0"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.uid", "u1"),
            ("io.kubernetes.container.name", "c"),
            ("beemesh.io/owner", "node-1"),
        ] {
            assert_eq!(made.labels[key], value);
        }
        let made = sandbox(&pod(), "node-1");
        assert_eq!(made.labels["app"], "web");
        assert_eq!(made.labels.len(), 5);
    }

    #[test]
    fn namespaces_are_the_pods_the_containers_or_the_hosts() {
        use v1::NamespaceMode::{Container as Own, Node, Pod};
        let asked = |host: HostNamespaces, share_processes, pid| {
            let of = Sandbox { host, share_processes, ..pod() };
            let sandbox = sandbox(&of, "o").linux.unwrap().security_context.unwrap().namespace_options.unwrap();
            let inside = security(&of, &Security { pid, ..Default::default() }).namespace_options.unwrap();
            assert_eq!((sandbox.network, sandbox.ipc), (inside.network, inside.ipc));
            (sandbox.network, sandbox.ipc, sandbox.pid, inside.pid)
        };
        let own = HostNamespaces::default();
        let hosts = HostNamespaces { network: true, pid: true, ipc: true };
        let is = |a: v1::NamespaceMode, b, c, d| (a as i32, b as i32, c as i32, d as i32);
        assert_eq!(asked(own, false, PidNamespace::Container), is(Pod, Pod, Own, Own));
        assert_eq!(asked(own, true, PidNamespace::Pod), is(Pod, Pod, Pod, Pod));
        assert_eq!(asked(hosts, false, PidNamespace::Host), is(Node, Node, Node, Node));
    }

    #[test]
    fn a_container_is_killed_as_a_whole_where_the_kernel_can() {
        let whole: HashMap<_, _> = [("memory.oom.group".to_owned(), "1".to_owned())].into();
        assert_eq!(resources(&Resources::default(), true).unified, whole);
        assert!(resources(&Resources::default(), false).unified.is_empty());
    }

    #[test]
    fn proc_is_masked_unless_it_is_asked_for() {
        let masked = security(&pod(), &Security { masked_proc: true, ..Default::default() });
        assert!(masked.masked_paths.contains(&"/proc/kcore".to_owned()) && !masked.readonly_paths.is_empty());
        let open = security(&pod(), &Security::default());
        assert!(open.masked_paths.is_empty() && open.readonly_paths.is_empty());
    }
}
