//! The stage itself: a cut on the mounted file system takes what was not synced, as the kernel sees it.

use anyhow::Result;
use e2e::{Forgetful, Loss, Place};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;

const MIB: u64 = 1 << 20;

#[test]
fn a_cut_takes_what_was_not_synced_from_under_the_kernel() -> Result<()> {
    let place = Place::new("forgetful")?;
    let disk = Forgetful::mount(&place.join("disk"), 64 * MIB)?;
    let folder = disk.path().join("data");
    fs::create_dir(&folder)?;
    let log = folder.join("log");
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(&log)?;
    file.write_all(&[7; 100_000])?;
    file.sync_data()?;
    File::open(&folder)?.sync_all()?;
    File::open(disk.path())?.sync_all()?;
    file.write_all(b"lost")?;
    fs::write(folder.join("lost"), "lost")?;
    // Read through the kernel's cache, so that a stale page would show.
    assert_eq!(fs::read(&log)?.len(), 100_004);
    drop(file);
    disk.cut(Loss::Everything);
    assert_eq!(fs::read(&log)?, [7; 100_000]);
    assert_eq!(fs::read_dir(&folder)?.count(), 1);
    Ok(())
}

#[test]
fn what_a_program_does_with_its_data_directory_works_on_it() -> Result<()> {
    let place = Place::new("forgetful")?;
    let disk = Forgetful::mount(&place.join("disk"), 8 * MIB)?;
    let (path, target) = (disk.path().join("a.tmp"), disk.path().join("a"));
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
    nix::fcntl::posix_fallocate(&file, 0, 4 << 20)?;
    assert_eq!(file.metadata()?.len(), 4 * MIB);
    file.write_all_at(b"here", 3 << 20)?;
    fs::rename(&path, &target)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    assert_eq!((bytes.len() as u64, &bytes[3 << 20..(3 << 20) + 4]), (4 * MIB, &b"here"[..]));
    let _socket = UnixListener::bind(disk.path().join("sock"))?;
    let (first, second) = (File::open(&target)?, File::open(&target)?);
    first.try_lock()?;
    assert!(second.try_lock().is_err(), "locks exclude");

    let full = fs::write(disk.path().join("b"), vec![1; 5 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    file.write_all_at(b"reserved", 0)?;
    disk.fail_syncs(true);
    assert!(file.sync_all().is_err());
    Ok(())
}
