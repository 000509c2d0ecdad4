//! A pod's own control group: what all of its containers together may use.
//!
//! Runtimes make the group, and set limits of containers only. Source: the kernel's
//! `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1`; weights as runc converts them
//! (`ConvertCPUSharesToCgroupV2Value`).

use base::runtime::Resources;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Component, Path};

/// Where the hierarchies are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// Whether this machine has the one hierarchy of version 2.
pub(crate) fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Makes a pod's group and sets its limits. A slice is systemd's to make, and its limits are left to it.
///
/// # Errors
/// A limit that could not be set. A weight that cannot be is nothing to fail for.
pub(crate) fn limit(group: &str, resources: &Resources) -> io::Result<()> {
    if group.is_empty() || group.ends_with(".slice") {
        return Ok(());
    }
    limit_below(Path::new(ROOT), group, resources)
}

fn limit_below(root: &Path, group: &str, r: &Resources) -> io::Result<()> {
    let group = Path::new(group.trim_matches('/'));
    if !group.components().all(|c| matches!(c, Component::Normal(_))) {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("{} is no control group", group.display())));
    }
    if root.join("cgroup.controllers").exists() { v2(root, group, r) } else { v1(root, group, r) }
}

fn v1(root: &Path, group: &Path, r: &Resources) -> io::Result<()> {
    let (cpu, memory) = (root.join("cpu").join(group), root.join("memory").join(group));
    if root.join("cpu").is_dir() {
        fs::create_dir_all(&cpu)?;
        let _ = set(&cpu, "cpu.shares", &r.cpu_shares.to_string());
    }
    if r.cpu_quota_us > 0 {
        set(&cpu, "cpu.cfs_period_us", &r.cpu_period_us.to_string())?;
        set(&cpu, "cpu.cfs_quota_us", &r.cpu_quota_us.to_string())?;
    }
    if r.memory_bytes > 0 {
        fs::create_dir_all(&memory)?;
        // Kernels before 5.11 count what is below only if they are told to.
        let _ = set(&memory, "memory.use_hierarchy", "1");
        set(&memory, "memory.limit_in_bytes", &r.memory_bytes.to_string())?;
    }
    Ok(())
}

fn v2(root: &Path, group: &Path, r: &Resources) -> io::Result<()> {
    let mut here = root.to_owned();
    for part in group.components() {
        for controller in ["+cpu", "+memory"] {
            let _ = set(&here, "cgroup.subtree_control", controller);
        }
        here.push(part);
        match fs::create_dir(&here) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    let _ = set(&here, "cpu.weight", &weight(r.cpu_shares).to_string());
    if r.cpu_quota_us > 0 {
        set(&here, "cpu.max", &format!("{} {}", r.cpu_quota_us, r.cpu_period_us))?;
    }
    if r.memory_bytes > 0 {
        set(&here, "memory.max", &r.memory_bytes.to_string())?;
    }
    Ok(())
}

/// Shares of 2 to 262,144 as a weight of 1 to 10,000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// Writes a value that a control group has; makes no file.
fn set(group: &Path, name: &str, value: &str) -> io::Result<()> {
    let file = group.join(name);
    let told = |e: io::Error| io::Error::new(e.kind(), format!("cannot write {value} to {}: {e}", file.display()));
    let mut to = OpenOptions::new().write(true).truncate(true).open(&file).map_err(told)?;
    to.write_all(value.as_bytes()).map_err(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel has them: files come with the folder.
    fn group(root: &Path, path: &str, files: &[&str]) {
        fs::create_dir_all(root.join(path)).unwrap();
        for file in files {
            fs::write(root.join(path).join(file), "").unwrap();
        }
    }

    fn limits() -> Resources {
        Resources {
            cpu_shares: 1024,
            cpu_quota_us: 150_000,
            cpu_period_us: 100_000,
            memory_bytes: 64 << 20,
            oom_score_adj: 0,
        }
    }

    #[test]
    fn a_pod_has_limits_of_its_own_in_the_one_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        group(dir.path(), "", &["cgroup.controllers", "cgroup.subtree_control"]);
        group(dir.path(), "b", &["cgroup.subtree_control"]);
        group(dir.path(), "b/podu", &["cpu.weight", "cpu.max", "memory.max"]);
        limit_below(dir.path(), "/b/podu", &limits()).unwrap();
        assert_eq!((read("b/podu/cpu.weight"), read("b/podu/cpu.max")), ("39".into(), "150000 100000".into()));
        assert_eq!(
            (read("b/podu/memory.max"), read("b/cgroup.subtree_control")),
            ("67108864".into(), "+memory".into())
        );
        // Without limits nothing is written, and the group is made.
        limit_below(dir.path(), "/b/podv", &Resources { cpu_shares: 2, ..Resources::default() }).unwrap();
        assert!(dir.path().join("b/podv").is_dir());
        let failure = limit_below(dir.path(), "/b/podw", &limits()).unwrap_err();
        assert!(failure.to_string().contains("cpu.max"), "{failure}");
    }

    #[test]
    fn a_pod_has_limits_of_its_own_in_each_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        group(dir.path(), "cpu/b/podu", &["cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"]);
        group(dir.path(), "memory/b/podu", &["memory.limit_in_bytes"]);
        limit_below(dir.path(), "/b/podu", &limits()).unwrap();
        assert_eq!(
            (read("cpu/b/podu/cpu.shares"), read("cpu/b/podu/cpu.cfs_quota_us")),
            ("1024".into(), "150000".into())
        );
        assert_eq!(read("memory/b/podu/memory.limit_in_bytes"), "67108864");
        assert!(limit_below(dir.path(), "/../x", &limits()).is_err());
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 39, 10_000]);
    }
}
