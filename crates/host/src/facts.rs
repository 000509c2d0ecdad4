//! What this machine is, as a Node's status says it.

use nix::sys::statvfs::statvfs;
use std::fs;
use std::io;
use std::path::Path;

/// What does not change while the machine runs. What the machine does not say is empty or 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Processors that are online.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Which control groups are mounted: 1 or 2.
    pub cgroup_version: u8,
    /// `amd64`, `arm64`: as Kubernetes names it.
    pub architecture: &'static str,
    /// `6.1.0-18-amd64`.
    pub kernel: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub os_image: String,
    /// Of this installation.
    pub machine_id: String,
    /// Of this boot.
    pub boot_id: String,
    /// Of this hardware; the installation's where only the system may know it.
    pub system_uuid: String,
}

/// How large a path's file system is and what is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disk {
    /// All of it, in bytes.
    pub bytes: u64,
    /// What anybody may still use, in bytes.
    pub bytes_free: u64,
    /// All inodes.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

impl Facts {
    /// Reads them from the system.
    pub fn read() -> Facts {
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let machine_id = line("/etc/machine-id");
        let hardware = line("/sys/class/dmi/id/product_uuid");
        let online = cpus_in(&line("/sys/devices/system/cpu/online"));
        let known = || std::thread::available_parallelism().map_or(0, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        Facts {
            cpus: online.unwrap_or_else(known),
            memory_bytes: memory_in(&line("/proc/meminfo"), "MemTotal:").unwrap_or(0),
            cgroup_version: if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 2 } else { 1 },
            architecture: architecture(),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_in(&line("/etc/os-release")),
            system_uuid: if hardware.is_empty() { machine_id.clone() } else { hardware },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
        }
    }
}

/// The processor's family as Kubernetes names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Memory that programs may still have without swapping, in bytes, as the kernel judges it; `None` if it does not
/// say.
pub fn memory_available() -> Option<u64> {
    memory_in(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Asks a path's file system.
///
/// # Errors
/// If there is no such path.
pub fn disk(path: &Path) -> io::Result<Disk> {
    let about = statvfs(path)?;
    let block = about.fragment_size();
    Ok(Disk {
        bytes: about.blocks() * block,
        bytes_free: about.blocks_available() * block,
        inodes: about.files(),
        inodes_free: about.files_available(),
    })
}

/// How many the kernel's list names: `0-3,6`.
fn cpus_in(list: &str) -> Option<u32> {
    let ranges = list.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    });
    ranges.sum()
}

fn memory_in(meminfo: &str, what: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(what))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

fn os_in(release: &str) -> String {
    let name = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.unwrap_or_default().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_writes_is_read() {
        assert_eq!(cpus_in("0"), Some(1));
        assert_eq!(cpus_in("0-3,6,8-9"), Some(7));
        assert_eq!(cpus_in(""), None);
        let info = "MemTotal:       24684092 kB\nMemFree: 1 kB";
        assert_eq!(memory_in(info, "MemTotal:"), Some(24_684_092 * 1024));
        assert_eq!((memory_in(info, "MemFree:"), memory_in(info, "MemAvailable:")), (Some(1024), None));
        assert_eq!(
            os_in("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
    }

    #[test]
    fn this_machine_is_something() {
        let facts = Facts::read();
        assert!(facts.cpus > 0 && facts.memory_bytes > 1 << 20 && !facts.kernel.is_empty(), "{facts:?}");
        assert!(memory_available().is_none_or(|free| free <= facts.memory_bytes));
        assert!([1, 2].contains(&facts.cgroup_version) && facts.boot_id.len() == 36, "{facts:?}");
        let disk = disk(Path::new("/")).unwrap();
        assert!(disk.bytes > 0 && disk.bytes_free <= disk.bytes, "{disk:?}");
    }
}
