//! A machine's control groups: one in every hierarchy that is mounted here, version 1 and version 2 alike.

use crate::until;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where Linux distributions mount them.
const MOUNTED_AT: &str = "/sys/fs/cgroup";

/// How long the processes of a group may take to end or to stop, and the kernel to notice.
const TO_END: Duration = Duration::from_secs(20);

/// One hierarchy mounted here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Hierarchy {
    /// The name of its folder; empty if it is the only one.
    pub(super) name: String,
    /// Version 1: the options that name it. None for version 2.
    pub(super) options: Option<String>,
}

/// The groups of one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Groups {
    name: String,
    hierarchies: Vec<Hierarchy>,
}

impl Groups {
    /// Makes them. The name is the machine's alone.
    pub(super) fn make(name: &str) -> Result<Groups> {
        let hierarchies = mounted(&fs::read_to_string("/proc/mounts")?);
        let groups = Groups { name: name.to_owned(), hierarchies };
        for (hierarchy, path) in groups.paths() {
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
            // A new group of version 1 has no processors and no memory until it is told some.
            if hierarchy.name.split(',').any(|controller| controller == "cpuset") {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let parent = path.parent().context("a hierarchy without a root")?;
                    fs::write(path.join(file), fs::read(parent.join(file))?)?;
                }
            }
        }
        Ok(groups)
    }

    /// The hierarchies they are in.
    pub(super) fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// Whether a process with that `/proc/PID/cgroup` is in them or below.
    pub(super) fn are_in(&self, groups: &str) -> bool {
        groups.lines().any(|line| line.split('/').any(|part| part == self.name))
    }

    /// Moves this process into them.
    pub(super) fn join(&self) -> Result<()> {
        for (_, path) in self.paths() {
            // Groups of version 2 that hand on controllers hold no process: theirs are in a leaf.
            let leaf = path.join(LEAF);
            let path = if leaf.exists() { leaf } else { path };
            fs::write(path.join("cgroup.procs"), "0").with_context(|| format!("cannot join {}", path.display()))?;
        }
        Ok(())
    }

    /// For version 2, inside the machine: this process moves to a leaf, and all controllers are handed on, as
    /// systemd does.
    pub(super) fn delegate(root: &Path) -> Result<()> {
        let leaf = root.join(LEAF);
        fs::create_dir_all(&leaf)?;
        // The process that made the namespaces is in the root, too; it has no number in here.
        fs::write(leaf.join("cgroup.procs"), "0")?;
        let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
        for controller in controllers.split_whitespace() {
            fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))
                .with_context(|| format!("cannot hand on the controller {controller}"))?;
        }
        Ok(())
    }

    /// Stops all processes in them and below, or lets them go on. Returns when that is so.
    pub(super) fn freeze(&self, freeze: bool) -> Result<()> {
        // Version 2 first, wherever it is mounted: what is frozen there can still be killed.
        let of = |version_2: bool| {
            self.paths().find(|(h, _)| if version_2 { h.options.is_none() } else { h.name == "freezer" })
        };
        let (switch, said, state, wanted) = match (of(true), of(false)) {
            (Some((_, path)), _) => {
                let wanted = format!("frozen {}", u8::from(freeze));
                (path.join("cgroup.freeze"), u8::from(freeze).to_string(), path.join("cgroup.events"), wanted)
            }
            (None, Some((_, path))) => {
                let (file, word) = (path.join("freezer.state"), if freeze { "FROZEN" } else { "THAWED" });
                (file.clone(), word.to_owned(), file, word.to_owned())
            }
            (None, None) => bail!("no control groups that freeze are mounted at {MOUNTED_AT}"),
        };
        fs::write(&switch, said).with_context(|| format!("cannot write {}", switch.display()))?;
        until(&format!("`{wanted}` in {}", state.display()), TO_END, || {
            Ok(fs::read_to_string(&state)?.lines().any(|line| line == wanted).then_some(()))
        })
    }

    /// Removes them with all below. What ran there must have ended; the kernel may take a moment to notice.
    pub(super) fn remove(&self) -> Result<()> {
        for (_, path) in self.paths() {
            let gone = until("the end of a control group", TO_END, || {
                remove_tree(&path);
                Ok((!path.exists()).then_some(()))
            });
            gone.with_context(|| format!("{} stays behind", path.display()))?;
        }
        Ok(())
    }

    fn paths(&self) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        self.hierarchies.iter().map(|h| (h, Path::new(MOUNTED_AT).join(&h.name).join(&self.name)))
    }
}

const LEAF: &str = "init";

/// Removes groups whose name begins so, of tests that were killed. A machine that was frozen then goes on first: it
/// finds nobody who wants it, and ends.
pub(crate) fn sweep(prefix: &str) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut left: Vec<PathBuf> = Vec::new();
    for hierarchy in mounted(&mounts) {
        let root = Path::new(MOUNTED_AT).join(&hierarchy.name);
        let groups = fs::read_dir(root).into_iter().flatten().flatten();
        left.extend(groups.filter(|g| g.file_name().to_string_lossy().starts_with(prefix)).map(|g| g.path()));
    }
    let mut thawed = false;
    for group in &left {
        // Each file is in groups of one version only.
        for (file, frozen, word) in [("cgroup.freeze", "1", "0"), ("freezer.state", "FROZEN", "THAWED")] {
            if fs::read_to_string(group.join(file)).is_ok_and(|state| state.trim() == frozen) {
                thawed |= fs::write(group.join(file), word).is_ok();
            }
        }
    }
    for group in &left {
        let at_most = if thawed { TO_END } else { Duration::ZERO };
        let _ = until("the end of a control group", at_most, || {
            remove_tree(group);
            Ok((!group.exists()).then_some(()))
        });
    }
}

/// Removes what can be removed, the innermost first. Files in there go with their folder.
fn remove_tree(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// The hierarchies in a table of mounts. On a machine with both versions all of them count.
fn mounted(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(at), Some(kind), Some(options)) = (words.next(), words.next(), words.next()) else { continue };
        let Some(name) = at.strip_prefix(MOUNTED_AT) else { continue };
        let options = match kind {
            "cgroup" => {
                let general = ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "xattr", "clone_children"];
                let own: Vec<&str> = options.split(',').filter(|o| !general.contains(o) && !release(o)).collect();
                let none = own.iter().all(|o| o.starts_with("name="));
                Some(if none { format!("none,{}", own.join(",")) } else { own.join(",") })
            }
            "cgroup2" => None,
            _ => continue,
        };
        let hierarchy = Hierarchy { name: name.trim_start_matches('/').to_owned(), options };
        if !found.contains(&hierarchy) {
            found.push(hierarchy);
        }
    }
    found
}

fn release(option: &str) -> bool {
    option.starts_with("release_agent=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(name: &str, options: Option<&str>) -> Hierarchy {
        Hierarchy { name: name.to_owned(), options: options.map(str::to_owned) }
    }

    #[test]
    fn version_1_beside_version_2() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,nodev,noexec,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,release_agent=/lib/x,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let all = [
            hierarchy("cpu,cpuacct", Some("cpu,cpuacct")),
            hierarchy("systemd", Some("none,name=systemd")),
            hierarchy("unified", None),
        ];
        assert_eq!(mounted(mounts), all);
    }

    #[test]
    fn version_2_alone() {
        let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate 0 0\n";
        assert_eq!(mounted(mounts), [hierarchy("", None)]);
    }
}
