//! Removing what containers have left, who may have made it deep, odd or hostile.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// Removes a directory and all below it.
///
/// Nothing is entered by a path that a container could still change: each folder is first moved up to the
/// top, so paths stay short however deep it was, and links are removed, never followed. What is mounted
/// can neither be moved nor removed (EBUSY), so it is not entered either.
pub(super) fn remove(top: &Path) -> io::Result<()> {
    let mut folders = vec![top.to_owned()];
    let mut moved = 0u64;
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if !entry.file_type()?.is_dir() {
                gone(fs::remove_file(&path))?;
                continue;
            }
            match fs::remove_dir(&path) {
                Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {}
                result => {
                    gone(result)?;
                    continue;
                }
            }
            if folder == top {
                folders.push(path);
                continue;
            }
            let up = free_name(top, &mut moved);
            fs::rename(&path, &up)?;
            folders.push(up);
        }
        if folder != top {
            gone(fs::remove_dir(&folder))?;
        }
    }
    gone(fs::remove_dir(top))
}

/// A name at the top that nothing has.
fn free_name(top: &Path, moved: &mut u64) -> PathBuf {
    loop {
        let name = top.join(format!(".removed-{moved}"));
        *moved += 1;
        if fs::symlink_metadata(&name).is_err() {
            return name;
        }
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes a pod's control group, which runtimes leave behind, in every hierarchy that has it. What still
/// has a process in it stays.
pub(super) fn cgroup(path: &str) {
    let path = Path::new(path.trim_matches('/'));
    if path.as_os_str().is_empty() || !path.components().all(|c| matches!(c, Component::Normal(_))) {
        return;
    }
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        remove_groups(&hierarchy.join(path));
    }
}

/// Children first; the files in a control group go with it.
fn remove_groups(group: &Path) {
    for child in fs::read_dir(group).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_groups(&child.path());
        }
    }
    let _ = fs::remove_dir(group);
}
