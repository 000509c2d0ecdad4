//! The programs of the system that pods take: where they are, and which packages have them.

use super::Error;
use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where programs for the administrator are, whatever PATH says.
const USUAL: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Where CNI plugins are: Debian's place, and everybody else's.
const CNI: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
/// The plugins a pod's network is made of.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "portmap", "loopback"];

/// What is not installed: Debian's package and what it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// Programs that were looked for in vain, and the package of each.
    pub programs: Vec<(&'static str, &'static str)>,
}

impl std::error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let programs: Vec<_> = self.programs.iter().map(|(p, _)| *p).collect();
        let packages: BTreeSet<_> = self.programs.iter().map(|(_, p)| *p).collect();
        let packages: Vec<_> = packages.into_iter().collect();
        write!(
            f,
            "to run pods this machine lacks {}; nothing was started. Install it (Debian: apt-get install {}), give \
             another runtime with --cri SOCKET, or run without pods with --runtime none",
            programs.join(", "),
            packages.join(" ")
        )
    }
}

/// Where everything is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binaries {
    /// containerd.
    pub containerd: PathBuf,
    /// runc.
    pub runc: PathBuf,
    /// The directory with the CNI plugins.
    pub cni: PathBuf,
    /// PATH for containerd: ours, and the usual places after it.
    pub path: OsString,
}

impl Binaries {
    /// Looks for everything.
    ///
    /// # Errors
    /// [`Missing`], naming all that is missing at once.
    pub fn find() -> Result<Binaries, Missing> {
        let path = search_path();
        let cni: Vec<_> = CNI.iter().map(PathBuf::from).collect();
        Binaries::find_in(&path, &cni)
    }

    fn find_in(path: &[PathBuf], cni: &[PathBuf]) -> Result<Binaries, Missing> {
        let mut programs = Vec::new();
        let mut want = |name: &'static str, package: &'static str| {
            let found = path.iter().map(|dir| dir.join(name)).find(|p| executable(p));
            found.unwrap_or_else(|| {
                programs.push((name, package));
                PathBuf::new()
            })
        };
        let containerd = want("containerd", "containerd");
        want("containerd-shim-runc-v2", "containerd");
        let runc = want("runc", "runc");
        // The bridge and portmap plugins write their rules with it.
        want("iptables", "iptables");
        let lacks = |dir: &&PathBuf| PLUGINS.iter().filter(|p| !executable(&dir.join(p))).count();
        let cni = cni.iter().min_by_key(lacks).cloned().unwrap_or_default();
        let plugins = PLUGINS.iter().filter(|p| !executable(&cni.join(p)));
        programs.extend(plugins.map(|p| (*p, "containernetworking-plugins")));
        if !programs.is_empty() {
            return Err(Missing { programs });
        }
        let path = env::join_paths(path).unwrap_or_else(|_| USUAL.join(":").into());
        Ok(Binaries { containerd, runc, cni, path })
    }

    /// What containerd says it is: `1.6.20~ds1`.
    pub(super) fn version(&self) -> Result<String, Error> {
        let out = Command::new(&self.containerd).arg("--version").output();
        let out = out.map_err(Error::io("start", &self.containerd))?;
        // containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3
        let said = String::from_utf8_lossy(&out.stdout);
        Ok(said.split_whitespace().nth(2).unwrap_or_default().trim_start_matches('v').to_owned())
    }

    /// Whether it speaks CRI v1, as it does from 1.6 on.
    pub(super) fn check_version(&self) -> Result<(), Error> {
        let found = self.version()?;
        let mut numbers = found.split(['.', '~', '-', '+']).map_while(|n| n.parse::<u32>().ok());
        let version = (numbers.next(), numbers.next().unwrap_or(0));
        match version {
            (Some(major), minor) if (major, minor) < (1, 6) => {
                Err(Error::TooOld { program: self.containerd.clone(), found })
            }
            // What names itself otherwise is taken at its word: a build of somebody's own.
            _ => Ok(()),
        }
    }
}

/// PATH and the usual places, each once.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let mut path: Vec<PathBuf> = Vec::new();
    let given = env::var_os("PATH").unwrap_or_default();
    for dir in env::split_paths(&given).chain(USUAL.iter().map(PathBuf::from)) {
        if dir.is_absolute() && !path.contains(&dir) {
            path.push(dir);
        }
    }
    path
}

fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn everything_missing_is_named_at_once_with_its_package() {
        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str| {
            fs::write(dir.path().join(name), "").unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        let find = || Binaries::find_in(&[dir.path().to_owned()], &[dir.path().to_owned()]);
        for name in ["containerd", "containerd-shim-runc-v2", "bridge", "host-local", "loopback"] {
            program(name);
        }
        fs::write(dir.path().join("runc"), "not executable").unwrap();
        let letter = find().unwrap_err().to_string();
        assert!(letter.contains("lacks runc, iptables, portmap;"), "{letter}");
        assert!(letter.contains("apt-get install containernetworking-plugins iptables runc)"), "{letter}");
        for name in ["runc", "iptables", "portmap"] {
            program(name);
        }
        assert_eq!(find().unwrap().runc, dir.path().join("runc"));
    }
}
