//! A machine's disk: a file system of its own, so that how full this machine's is does not matter, with a
//! fresh installation's `/etc` on it and nothing else.

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use std::fs::{self, File, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What fits on it. The file below takes as much of this machine's disk as is written.
const BYTES: u64 = 32 << 30;

/// A mounted disk. It is unmounted when the handle goes; the file below goes with its folder.
#[derive(Debug)]
pub(super) struct Disk(PathBuf);

impl Disk {
    /// Makes an empty one in that folder and mounts it.
    pub(super) fn mount(folder: &Path) -> Result<Disk> {
        let (image, at) = (folder.join("disk.img"), folder.join("disk"));
        fs::create_dir_all(&at)?;
        File::create(&image)?.set_len(BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image), "e2fsprogs")?;
        run(Command::new("mount").args(["-o", "loop,noatime"]).arg(&image).arg(&at), "mount")?;
        Ok(Disk(at))
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(e) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {e}", self.0.display());
        }
    }
}

fn run(command: &mut Command, package: &str) -> Result<()> {
    let shown = format!("{command:?}");
    let out = command.output().with_context(|| format!("cannot start {shown} (package {package})"))?;
    if !out.status.success() {
        bail!("{shown} failed; it needs /dev/loop-control: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// Files and folders of `/etc` that programs look for on any machine, taken from this one as they are.
const FROM_HERE: &[&str] = &[
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "group",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "protocols",
    "services",
    "ssl",
];

/// Lays out the disk of a new machine. `others` are lines of `/etc/hosts`.
pub(super) fn install(disk: &Path, name: &str, gateway: Ipv4Addr, others: &str) -> Result<()> {
    let etc = disk.join("etc");
    fs::create_dir_all(&etc)?;
    for (folder, mode) in [("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777), ("var/log", 0o755)] {
        fs::create_dir_all(disk.join(folder))?;
        fs::set_permissions(disk.join(folder), Permissions::from_mode(mode))?;
    }
    symlink("/run", disk.join("var/run"))?;
    for each in FROM_HERE {
        let from = Path::new("/etc").join(each);
        if from.symlink_metadata().is_ok() {
            copy(&from, &etc.join(each)).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    fs::write(etc.join("hostname"), format!("{name}\n"))?;
    fs::write(etc.join("hosts"), format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n{others}"))?;
    // Nobody listens there: a name that is asked for is refused at once.
    fs::write(etc.join("resolv.conf"), format!("nameserver {gateway}\n"))?;
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    fs::write(etc.join("machine-id"), uuid.replace('-', ""))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let kind = from.symlink_metadata()?.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        fs::copy(from, to)?;
    }
    Ok(())
}
