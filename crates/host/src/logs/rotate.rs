//! Logs that have grown too large are put aside, and the oldest removed.

use crate::cri::Client;
use base::runtime::{ContainerState, Failure, Seen};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The size beyond which a log is put aside: the kubelet's `containerLogMaxSize`.
pub const SIZE_MAX: u64 = 10 << 20;
/// How many files a container has, the one that is written among them: `containerLogMaxFiles`.
pub const FILES_MAX: usize = 5;

/// Puts aside the logs of running containers that are too large. Says what could not be.
pub(crate) async fn rotate(client: &Client, seen: &Seen, size_max: u64, files_max: usize) -> Vec<Failure> {
    let mut failures = Vec::new();
    for container in &seen.containers {
        let log = Path::new(&container.log_path);
        if !matches!(container.state, ContainerState::Running { .. }) || container.log_path.is_empty() {
            continue;
        }
        let is_large = match fs::metadata(log) {
            Ok(is) => is.len() > size_max,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // Who put it aside did not get to say so, and the runtime writes into what was put aside.
                failures.extend(client.reopen_log(&container.id).await.err());
                continue;
            }
            Err(_) => false,
        };
        if !is_large {
            continue;
        }
        let aside = match put_aside(log, &stamp()) {
            Ok(aside) => aside,
            Err(e) => {
                tracing::warn!("the log {} cannot be put aside: {e}", log.display());
                continue;
            }
        };
        // Until it opens the log anew the runtime goes on writing into what was put aside.
        if let Err(failure) = client.reopen_log(&container.id).await {
            if !log.exists() {
                let _ = fs::rename(&aside, log);
            }
            failures.push(failure);
            continue;
        }
        remove_oldest(log, files_max);
    }
    failures
}

fn put_aside(log: &Path, stamp: &str) -> io::Result<PathBuf> {
    let mut aside = log.as_os_str().to_owned();
    aside.push(".");
    aside.push(stamp);
    let aside = PathBuf::from(aside);
    fs::rename(log, &aside)?;
    Ok(aside)
}

/// `20260131-080000`, as the kubelet marks them.
fn stamp() -> String {
    let now = crate::wall().rfc3339();
    let digits: String = now.chars().filter(char::is_ascii_digit).collect();
    format!("{}-{}", &digits[..8], &digits[8..])
}

/// Leaves one fewer than so many of those that were put aside: the log itself counts.
fn remove_oldest(log: &Path, files_max: usize) {
    let aside = put_aside_before(log);
    let surplus = (aside.len() + 1).saturating_sub(files_max.max(1));
    for old in &aside[..surplus] {
        if let Err(e) = fs::remove_file(old) {
            tracing::warn!("the old log {} cannot be removed: {e}", old.display());
        }
    }
}

/// What was put aside of a log, the oldest first.
pub(crate) fn put_aside_before(log: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name()) else { return Vec::new() };
    let mut prefix = name.as_encoded_bytes().to_vec();
    prefix.push(b'.');
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let of_log = entries.filter(|e| e.file_name().as_encoded_bytes().starts_with(&prefix));
    let mut aside: Vec<_> = of_log.map(|e| e.path()).collect();
    aside.sort();
    aside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_files_of_each_log_stay() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for i in 0..7 {
            fs::write(&log, format!("{i}")).unwrap();
            put_aside(&log, &format!("20260131-08000{i}")).unwrap();
        }
        fs::write(dir.path().join("10.log.20200101-000000"), "another container's").unwrap();
        fs::write(&log, "now").unwrap();
        remove_oldest(&log, 5);
        let mut left: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let aside = (3..7).map(|i| format!("0.log.20260131-08000{i}"));
        let is: Vec<_> =
            ["0.log".to_owned()].into_iter().chain(aside).chain(["10.log.20200101-000000".into()]).collect();
        assert_eq!(left, is);
    }

    #[test]
    fn a_stamp_sorts_by_time() {
        let stamp = stamp();
        assert!(stamp.len() == 15 && stamp.as_bytes()[8] == b'-', "{stamp}");
    }
}
