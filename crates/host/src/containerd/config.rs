//! What containerd is told: a file whose name holds the hash of its content.

use super::{Binaries, Error};
use crate::pause;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How a file of a registry begins that is ours to remove.
const OURS: &str = "# Written by beemesh, which removes it when this registry is not configured any more.\n";

/// Where containerd keeps what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Images, snapshots, containers, its configuration and its log.
    pub root: PathBuf,
    /// What a reboot forgets: its socket, mounts, network namespaces. Short, since sockets are below it.
    pub state: PathBuf,
    /// Where the pod network's configuration is ([`crate::cni`]).
    pub cni_conf: PathBuf,
    /// Registries that are asked otherwise than by their own name over HTTPS. What a user puts into
    /// `certs.d` below the root is used beside them.
    pub registries: Vec<Registry>,
}

/// Whom to ask instead of a registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registry {
    /// As images name it: `docker.io`, `registry.example:5000`; `_default` is all others.
    pub name: String,
    /// URLs to ask in this order: `http://` is asked without TLS.
    pub mirrors: Vec<String>,
    /// The registry itself is asked after them. Where it cannot be reached, what the mirrors said would be
    /// lost in saying so.
    pub or_itself: bool,
    /// Certificates of the mirrors are not verified.
    pub insecure: bool,
}

impl Config {
    /// The places that belong to a data directory.
    pub fn of(data: &Path) -> Config {
        Config {
            root: data.join("containerd"),
            state: Path::new("/run/beemesh").join(mark(data)),
            cni_conf: data.join("cni/net.d"),
            registries: Vec::new(),
        }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.root.join("containerd.log")
    }

    fn certs(&self) -> PathBuf {
        self.root.join("certs.d")
    }

    /// Makes the directories and files; says where the configuration is.
    pub(super) fn lay_out(&self, binaries: &Binaries) -> Result<PathBuf, Error> {
        for (dir, mode) in [(&self.root, 0o711), (&self.state, 0o711), (&self.cni_conf, 0o755), (&self.certs(), 0o755)]
        {
            fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
            fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(Error::io("open", dir))?;
        }
        self.write_registries()?;
        let snapshotter = if overlays(&self.root) { "overlayfs" } else { "native" };
        let facts = Facts { version: binaries.version()?, snapshotter, oom_score: may_set_oom_score() };
        let text = self.text(binaries, &facts);
        let file = self.root.join(format!("config-{}.toml", &hex(&Sha256::digest(text.as_bytes()))[..16]));
        fs::write(&file, text).map_err(Error::io("write", &file))?;
        Ok(file)
    }

    fn write_registries(&self) -> Result<(), Error> {
        self.forget_registries()?;
        for registry in &self.registries {
            let dir = self.certs().join(&registry.name);
            fs::create_dir_all(&dir).map_err(Error::io("make", &dir))?;
            let file = dir.join("hosts.toml");
            fs::write(&file, registry.hosts_toml()).map_err(Error::io("write", &file))?;
        }
        Ok(())
    }

    /// Removes what an earlier start wrote of registries that are not configured any more. What users put
    /// there does not begin as ours does, and stays.
    fn forget_registries(&self) -> Result<(), Error> {
        let certs = self.certs();
        for entry in fs::read_dir(&certs).map_err(Error::io("read", &certs))?.flatten() {
            let dir = entry.path();
            if self.registries.iter().any(|r| entry.file_name() == *r.name) {
                continue;
            }
            let file = dir.join("hosts.toml");
            if fs::read_to_string(&file).is_ok_and(|text| text.starts_with(OURS)) {
                fs::remove_file(&file).map_err(Error::io("remove", &file))?;
                // Certificates that somebody put beside it keep the folder.
                let _ = fs::remove_dir(&dir);
            }
        }
        Ok(())
    }

    fn text(&self, binaries: &Binaries, facts: &Facts) -> String {
        let path = |p: PathBuf| quoted(&p.to_string_lossy());
        format!(
            r#"# containerd {version}, started by beemesh, which writes this file anew at every start.
version = 2
root = {root}
state = {state}
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[debug]
  level = "warn"

[grpc]
  address = {socket}
  max_recv_message_size = 67108864
  max_send_message_size = 67108864

[timeouts]
  # A shim that does not answer in time when containerd starts is taken for dead, and its container killed.
  "io.containerd.timeout.shim.load" = "60s"

[plugins."io.containerd.internal.v1.opt"]
  path = {opt}

[plugins."io.containerd.nri.v1.nri"]
  disable = true

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {pause}
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = {restrict}

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = {snapshotter}
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = {runc}
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {cni}
    conf_dir = {cni_conf}

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {certs}
"#,
            version = facts.version,
            root = path(self.root.join("root")),
            state = path(self.state.join("state")),
            socket = path(self.socket()),
            opt = path(self.root.join("opt")),
            pause = quoted(pause::NAME),
            restrict = !facts.oom_score,
            snapshotter = quoted(facts.snapshotter),
            runc = path(binaries.runc.clone()),
            cni = path(binaries.cni.clone()),
            cni_conf = path(self.cni_conf.clone()),
            certs = path(self.certs()),
        )
    }
}

/// What of this machine the configuration depends on.
struct Facts {
    version: String,
    snapshotter: &'static str,
    oom_score: bool,
}

impl Registry {
    fn hosts_toml(&self) -> String {
        let mut text = OURS.to_owned();
        if let (false, Some(last)) = (self.or_itself, self.mirrors.last()) {
            let _ = writeln!(text, "server = {}", quoted(last));
        }
        for mirror in &self.mirrors {
            let _ = writeln!(text, "[host.{}]\n  capabilities = [\"pull\", \"resolve\"]", quoted(mirror));
            if self.insecure {
                text.push_str("  skip_verify = true\n");
            }
        }
        text
    }
}

/// Eight hex digits that tell one data directory from another.
pub(crate) fn mark(data: &Path) -> String {
    let data = fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
    hex(&Sha256::digest(data.as_os_str().as_encoded_bytes()))[..8].to_owned()
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// Removes configurations of the past, once nothing runs with them.
pub(super) fn forget_others(current: &Path) {
    let Some(dir) = current.parent() else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("config-") && name.ends_with(".toml") && entry.path() != current {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A TOML string. JSON's escapes are among TOML's.
fn quoted(s: &str) -> String {
    serde_json::Value::from(s).to_string()
}

/// Whether this process, and so what it starts, may make itself less likely to be killed for memory.
fn may_set_oom_score() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok()).unwrap_or(0);
    bits >> CAP_SYS_RESOURCE & 1 == 1
}

/// Whether overlays can be mounted over this directory's file system, and files removed through them:
/// some file systems lack what a removed file's mark takes.
fn overlays(dir: &Path) -> bool {
    let probe = dir.join("overlay-probe");
    let _ = umount2(&probe.join("merged"), MntFlags::MNT_DETACH);
    let _ = fs::remove_dir_all(&probe);
    let works = || -> std::io::Result<()> {
        for part in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(probe.join(part))?;
        }
        fs::write(probe.join("lower/file"), "")?;
        let at = |part: &str| probe.join(part).to_string_lossy().into_owned();
        let options = format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
        mount(Some("overlay"), &probe.join("merged"), Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
        fs::remove_file(probe.join("merged/file"))
    };
    let result = works();
    let _ = umount2(&probe.join("merged"), MntFlags::MNT_DETACH);
    let _ = fs::remove_dir_all(&probe);
    if let Err(e) = &result {
        tracing::warn!(dir = %dir.display(), "no overlays on this file system ({e}): images are copied for every container");
    }
    result.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(facts: &Facts) -> String {
        let binaries = Binaries {
            containerd: "/usr/bin/containerd".into(),
            runc: "/usr/sbin/runc".into(),
            cni: "/usr/lib/cni".into(),
            path: "/usr/bin".into(),
        };
        Config::of(Path::new("/var/lib/a \"b\"")).text(&binaries, facts)
    }

    #[test]
    fn the_configuration_says_what_this_machine_needs() {
        let said = text(&Facts { version: "1.6.20".into(), snapshotter: "native", oom_score: false });
        for line in [
            "version = 2",
            r#"root = "/var/lib/a \"b\"/containerd/root""#,
            r#"  sandbox_image = "beemesh.local/pause:1""#,
            "  restrict_oom_score_adj = true",
            "  netns_mounts_under_state_dir = true",
            r#"    snapshotter = "native""#,
            r#"        BinaryName = "/usr/sbin/runc""#,
            "        SystemdCgroup = false",
            r#"    bin_dir = "/usr/lib/cni""#,
        ] {
            assert!(said.lines().any(|l| l == line), "{line} is not in\n{said}");
        }
        let said = text(&Facts { version: "1.6.20".into(), snapshotter: "overlayfs", oom_score: true });
        assert!(said.contains("restrict_oom_score_adj = false") && said.contains("snapshotter = \"overlayfs\""));
    }

    #[test]
    fn a_socket_has_room_however_long_the_data_path_is() {
        let config = Config::of(&Path::new("/").join("x".repeat(300)));
        assert!(config.socket().as_os_str().len() < 60, "{}", config.socket().display());
        assert_ne!(config.socket(), Config::of(&Path::new("/").join("x".repeat(301))).socket());
    }

    #[test]
    fn mirrors_are_asked_in_order_and_only_to_read() {
        let mut registry = Registry {
            name: "docker.io".into(),
            mirrors: vec!["http://127.0.0.1:5000".into(), "https://mirror.example".into()],
            or_itself: true,
            insecure: false,
        };
        let hosts = "[host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n\
                     [host.\"https://mirror.example\"]\n  capabilities = [\"pull\", \"resolve\"]\n";
        assert_eq!(registry.hosts_toml(), format!("{OURS}{hosts}"));
        registry.or_itself = false;
        assert_eq!(registry.hosts_toml(), format!("{OURS}server = \"https://mirror.example\"\n{hosts}"));
    }

    #[test]
    fn a_mirror_that_is_not_configured_any_more_is_not_asked_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let registry = |name: &str| Registry {
            name: name.into(),
            mirrors: vec!["http://127.0.0.1:5000".into()],
            or_itself: false,
            insecure: false,
        };
        let mut config = Config::of(dir.path());
        let certs = config.certs();
        fs::create_dir_all(certs.join("users.example")).unwrap();
        fs::write(certs.join("users.example/hosts.toml"), "server = \"https://elsewhere\"\n").unwrap();
        config.registries = vec![registry("docker.io"), registry("kept.example")];
        config.write_registries().unwrap();
        config.registries.remove(0);
        config.write_registries().unwrap();
        let mut left: Vec<_> =
            fs::read_dir(&certs).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["kept.example", "users.example"]);
    }
}
