//! Against real directories; what mounts does so in a mount namespace of its own.

use super::*;
use base::runtime::VolumeFile;
use nix::unistd::{getegid, geteuid};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

struct Node {
    dir: tempfile::TempDir,
    pods: Pods,
}

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let pods = Pods::of(&fs::canonicalize(dir.path()).unwrap());
        Node { dir, pods }
    }

    /// Makes one volume of pod `u1`, and says where it is.
    fn volume(&self, kind: VolumeKind, group: Option<u32>) -> Result<PathBuf, Failure> {
        let made = self.pods.volumes("u1", &[Volume { name: "v".into(), kind, group }]);
        made["v"].clone().map(PathBuf::from)
    }
}

fn pod() -> PodName {
    PodName { namespace: "shop".into(), name: "web".into(), uid: "u1".into() }
}

fn file(path: &str, text: &str, mode: u32) -> VolumeFile {
    VolumeFile { path: path.into(), bytes: text.as_bytes().into(), mode, owner: None }
}

fn read(dir: &Path, path: &str) -> String {
    fs::read_to_string(dir.join(path)).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Runs a test anew in a mount namespace of its own, as its root; says whether this is that run.
fn is_in_own_namespace(test: &str) -> bool {
    const INSIDE: &str = "BEEMESH_TEST_IN_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut unshare = Command::new("unshare");
    if !geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    let test = format!("volumes::tests::{test}");
    unshare.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    let ran = unshare.args(["--exact", &test, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "in a mount namespace of its own: {said}");
    false
}

#[test]
fn an_empty_directory_is_for_everybody_and_keeps_what_is_in_it() {
    let node = Node::new();
    let kind = || VolumeKind::Empty { memory: false, bytes_max: 0 };
    let dir = node.volume(kind(), None).unwrap();
    assert_eq!((dir.clone(), mode(&dir)), (node.pods.dirs.join("u1/volumes/v"), 0o777));
    fs::write(dir.join("kept"), "by the container").unwrap();
    assert_eq!(node.volume(kind(), None).unwrap(), dir);
    assert_eq!(read(&dir, "kept"), "by the container");
}

#[test]
fn a_group_owns_what_is_made_in_an_empty_directory() {
    let node = Node::new();
    let group = getegid().as_raw();
    let dir = node.volume(VolumeKind::Empty { memory: false, bytes_max: 0 }, Some(group)).unwrap();
    assert_eq!((mode(&dir), fs::metadata(&dir).unwrap().gid()), (0o2777, group));
}

#[test]
fn memory_is_bounded_and_files_never_reach_the_disk() {
    if !is_in_own_namespace("memory_is_bounded_and_files_never_reach_the_disk") {
        return;
    }
    let node = Node::new();
    let kind = || VolumeKind::Empty { memory: true, bytes_max: 64 << 10 };
    let dir = node.volume(kind(), None).unwrap();
    assert_eq!(mode(&dir), 0o777);
    fs::write(dir.join("fits"), vec![0; 32 << 10]).unwrap();
    let full = fs::write(dir.join("too much"), vec![0; 64 << 10]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    node.volume(kind(), None).unwrap();
    assert!(dir.join("fits").exists(), "brought up to date, not made anew");

    let files = node.pods.volumes(
        "u2",
        &[Volume { name: "secret".into(), kind: VolumeKind::Files(vec![file("password", "x", 0o400)]), group: None }],
    );
    let secret = PathBuf::from(files["secret"].as_ref().unwrap());
    assert_ne!(fs::metadata(&secret).unwrap().dev(), fs::metadata(node.dir.path()).unwrap().dev());
    assert_eq!(read(&secret, "password"), "x");
    assert_eq!((mode(&secret), mode(&secret.join("..data/"))), (0o755, 0o755), "only the node writes there");
    // Once nothing of the pod runs any more its memory is given back; its directory stays until it goes.
    node.pods.empty_memory("u2").unwrap();
    assert!(secret.is_dir() && !secret.join("password").exists());
    node.pods.empty_memory("u2").unwrap();
    for uid in ["u1", "u2"] {
        node.pods.remove(&PodName { uid: uid.into(), ..pod() }).unwrap();
    }
}

#[test]
fn files_change_all_at_once() {
    let node = Node::new();
    let dir = node.dir.path().join("volume");
    fs::create_dir(&dir).unwrap();
    let write = |files: &[VolumeFile]| atomic::write(&dir, files, None).unwrap();
    write(&[file("a", "1", 0o644), file("deep/b", "1", 0o400), file("gone", "1", 0o644)]);
    assert_eq!((read(&dir, "a"), read(&dir, "deep/b")), ("1".into(), "1".into()));
    assert_eq!((mode(&dir.join("a")), mode(&dir.join("deep/b"))), (0o644, 0o400));
    assert_eq!(fs::read_link(dir.join("a")).unwrap(), Path::new("..data/a"));
    let first = fs::read_link(dir.join("..data")).unwrap();
    let name = first.to_str().unwrap();
    assert!(name.starts_with("..2") && name.matches('_').count() == 5, "{name}");

    // Who has the old set open goes on reading it: it was put aside whole.
    let old = fs::File::open(dir.join("a")).unwrap();
    write(&[file("a", "1", 0o644), file("deep/b", "1", 0o400), file("gone", "1", 0o644)]);
    assert_eq!(fs::read_link(dir.join("..data")).unwrap(), first, "the same files change nothing");
    write(&[file("a", "2", 0o600), file("deep/b", "2", 0o400)]);
    assert_eq!((read(&dir, "a"), read(&dir, "deep/b")), ("2".into(), "2".into()));
    assert_eq!(io::read_to_string(old).unwrap(), "1");
    let mut names: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let second = fs::read_link(dir.join("..data")).unwrap().to_str().unwrap().to_owned();
    let mut is = vec![second, "..data".into(), "a".into(), "deep".into()];
    is.sort();
    assert_eq!(names, is, "nothing of the old set is left");
}

#[test]
fn what_a_dead_process_left_half_done_is_cleared_away() {
    let node = Node::new();
    let dir = node.dir.path().join("volume");
    fs::create_dir_all(dir.join("..2020_01_01_00_00_00.000")).unwrap();
    symlink("nowhere", dir.join("..data_tmp")).unwrap();
    atomic::write(&dir, &[file("a", "1", 0o644)], None).unwrap();
    assert_eq!((read(&dir, "a"), fs::read_dir(&dir).unwrap().count()), ("1".into(), 3));
}

#[test]
fn a_group_reads_files_and_a_user_owns_them() {
    let node = Node::new();
    let dir = node.dir.path().join("volume");
    fs::create_dir(&dir).unwrap();
    let mut owned = file("deep/a", "1", 0o600);
    owned.owner = Some(geteuid().as_raw());
    atomic::write(&dir, &[owned], Some(getegid().as_raw())).unwrap();
    assert_eq!(mode(&dir.join("deep/a")), 0o640);
    assert_eq!(mode(&dir.join("deep")), 0o2755);
}

#[test]
fn what_a_container_puts_in_the_way_leads_nowhere() {
    let node = Node::new();
    let (dir, outside) = (node.dir.path().join("volume"), node.dir.path().join("outside"));
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("a"), "untouched").unwrap();
    atomic::write(&dir, &[file("deep/a", "1", 0o644)], None).unwrap();
    // The folder that is in place is swapped for a link that leads out, and so is one inside it.
    let data = fs::read_link(dir.join("..data")).unwrap();
    let swap = |at: &Path| {
        fs::rename(at, node.dir.path().join("aside")).unwrap();
        symlink(&outside, at).unwrap();
    };
    swap(&dir.join(&data).join("deep"));
    let modes = (mode(&outside), mode(&outside.join("a")));
    atomic::write(&dir, &[file("deep/a", "2", 0o600)], None).unwrap();
    assert_eq!(read(&dir, "deep/a"), "2");
    fs::remove_dir_all(node.dir.path().join("aside")).unwrap();
    swap(&dir.join(fs::read_link(dir.join("..data")).unwrap()));
    atomic::write(&dir, &[file("deep/a", "3", 0o600)], None).unwrap();
    assert_eq!(read(&dir, "deep/a"), "3");
    assert_eq!((read(&outside, "a"), (mode(&outside), mode(&outside.join("a")))), ("untouched".into(), modes));
    // The volume itself is no link.
    fs::rename(&dir, node.dir.path().join("gone")).unwrap();
    symlink(&outside, &dir).unwrap();
    assert!(atomic::write(&dir, &[file("deep/a", "4", 0o600)], None).is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn a_part_of_a_volume_is_mounted_where_no_container_can_change_the_path() {
    if !is_in_own_namespace("a_part_of_a_volume_is_mounted_where_no_container_can_change_the_path") {
        return;
    }
    let node = Node::new();
    let outside = node.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let dir = node.volume(VolumeKind::Empty { memory: false, bytes_max: 0 }, None).unwrap();
    fs::write(dir.join("file"), "kept").unwrap();
    let within = dir.to_str().unwrap().to_owned();
    let of = |sub: &str| Mount { host_path: format!("{within}/{sub}"), within: within.clone(), ..Mount::default() };
    let whole = Mount { host_path: "/whole".into(), ..Mount::default() };
    let mounts = || vec![whole.clone(), of("made/deep"), of("file")];
    let made = node.pods.settled("u1", "c", mounts()).unwrap();
    let paths: Vec<PathBuf> = made.iter().map(|m| PathBuf::from(&m.host_path)).collect();
    assert_eq!(paths[0], Path::new("/whole"));
    assert_eq!(paths[1], node.pods.dirs.join("u1/subpaths/c/1"));
    // After the look the container swaps what it wrote for a link that leads out.
    fs::rename(dir.join("made"), dir.join("was")).unwrap();
    symlink(&outside, dir.join("made")).unwrap();
    fs::write(paths[1].join("written"), "").unwrap();
    assert!(dir.join("was/deep/written").exists() && fs::read_dir(&outside).unwrap().count() == 0);
    assert_eq!(fs::read_to_string(&paths[2]).unwrap(), "kept");
    assert_eq!(node.pods.settled("u1", "c", mounts()).unwrap_err().why, Why::Invalid);
    // The next container of the name has its own mounts in their place, of another kind at that.
    let again = node.pods.settled("u1", "c", vec![whole.clone(), of("file"), of("was")]).unwrap();
    assert_eq!(fs::read_to_string(&again[1].host_path).unwrap(), "kept");
    assert!(Path::new(&again[2].host_path).join("deep/written").exists());
    node.pods.remove(&pod()).unwrap();
    assert!(node.pods.list().unwrap().is_empty());
}

#[test]
fn what_belonged_to_a_container_goes_with_it_and_nothing_else() {
    let node = Node::new();
    node.pods.lay_out().unwrap();
    let logs = node.pods.log_directory(&pod()).join("c");
    fs::create_dir_all(&logs).unwrap();
    let words = node.pods.file("u1", "containers/c/1", b"bye", 0o666).unwrap();
    let outside = node.dir.path().join("outside");
    for name in ["1.log", "1.log.20260131-080000", "1.log.20260131-080001.gz", "10.log", "2.log"] {
        fs::write(logs.join(name), "").unwrap();
    }
    fs::write(&outside, "").unwrap();
    let text = |p: &Path| p.to_str().unwrap().to_owned();
    let dots = format!("{}/../../../../../outside", text(&logs));
    node.pods.remove_files(&[text(&logs.join("1.log")), text(&words), text(&outside), dots, text(&logs.join("9.log"))]);
    let mut left: Vec<_> =
        fs::read_dir(&logs).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["10.log", "2.log"]);
    assert!(!words.exists() && outside.exists());
}

#[test]
fn pods_directories_are_closed_to_others_at_each_start() {
    let node = Node::new();
    for dir in ["pods", "logs"] {
        fs::create_dir(node.dir.path().join(dir)).unwrap();
        fs::set_permissions(node.dir.path().join(dir), fs::Permissions::from_mode(0o755)).unwrap();
    }
    node.pods.lay_out().unwrap();
    assert_eq!(["pods", "logs"].map(|dir| mode(&node.dir.path().join(dir))), [0o700; 2]);
}

#[test]
fn no_file_lies_outside() {
    let node = Node::new();
    for path in ["", "/etc/passwd", "../x", "a/../../x", "..data/x", "a/", "."] {
        let kind = VolumeKind::Files(vec![file(path, "", 0o644)]);
        assert_eq!(node.volume(kind, None).unwrap_err().why, Why::Invalid, "{path:?}");
        assert_eq!(node.pods.file("u1", path, b"", 0o644).unwrap_err().why, Why::Invalid, "{path:?}");
    }
    for uid in ["", "..", "a/b", "."] {
        assert_eq!(node.pods.file(uid, "x", b"", 0o644).unwrap_err().why, Why::Invalid, "{uid:?}");
        let pod = PodName { uid: uid.into(), ..pod() };
        assert_eq!(node.pods.remove(&pod).unwrap_err().why, Why::Invalid, "{uid:?}");
    }
    let pod = PodName { namespace: "../../x".into(), ..pod() };
    assert_eq!(node.pods.remove(&pod).unwrap_err().why, Why::Invalid);
}

#[test]
fn a_file_is_written_over_where_it_is() {
    let node = Node::new();
    let first = node.pods.file("u1", "etc-hosts", b"old and longer", 0o600).unwrap();
    let inode = fs::metadata(&first).unwrap().ino();
    let second = node.pods.file("u1", "etc-hosts", b"new", 0o644).unwrap();
    assert_eq!((&second, fs::read_to_string(&second).unwrap()), (&first, "new".into()));
    assert_eq!((fs::metadata(&second).unwrap().ino(), mode(&second)), (inode, 0o644));
    // A link that a container put there is not followed.
    let outside = node.dir.path().join("outside");
    fs::write(&outside, "untouched").unwrap();
    fs::remove_file(&second).unwrap();
    symlink(&outside, &second).unwrap();
    assert_eq!(node.pods.file("u1", "etc-hosts", b"x", 0o644).unwrap_err().why, Why::Failed);
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
}

#[test]
fn a_path_of_the_host_is_of_its_type() {
    let node = Node::new();
    let at = |name: &str| node.dir.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("file"), "").unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    let check = |path: String, kind: &str| node.volume(VolumeKind::Host { path, kind: kind.into() }, None);
    for (name, kind) in [
        ("nothing", ""),
        ("dir", "Directory"),
        ("made/deep", "DirectoryOrCreate"),
        ("dir", "DirectoryOrCreate"),
        ("file", "File"),
        ("made-file", "FileOrCreate"),
        ("socket", "Socket"),
    ] {
        assert_eq!(check(at(name), kind), Ok(at(name).into()), "{name} {kind}");
    }
    assert_eq!((mode(&node.dir.path().join("made/deep")), mode(&node.dir.path().join("made-file"))), (0o755, 0o644));
    assert_eq!(check("/dev/null".into(), "CharDevice"), Ok("/dev/null".into()));
    for (name, kind, what) in [
        ("nothing", "Directory", "a directory"),
        ("file", "DirectoryOrCreate", "a directory"),
        ("dir", "FileOrCreate", "a file"),
        ("dir", "File", "a file"),
        ("file", "Socket", "a socket file"),
        ("file", "CharDevice", "a character device"),
        ("file", "BlockDevice", "a block device"),
    ] {
        let failure = check(at(name), kind).unwrap_err();
        assert_eq!(failure.message, format!("hostPath type check failed: {} is not {what}", at(name)));
    }
    let failure = check(at("dir"), "Floppy").unwrap_err();
    assert_eq!((failure.why, failure.message), (Why::Invalid, "Floppy is an invalid volume type".into()));
}

#[test]
fn removing_a_pod_enters_neither_mounts_nor_links() {
    if !is_in_own_namespace("removing_a_pod_enters_neither_mounts_nor_links") {
        return;
    }
    let node = Node::new();
    let outside = node.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "").unwrap();
    let dir = node.volume(VolumeKind::Empty { memory: false, bytes_max: 0 }, None).unwrap();
    let memory = Volume { name: "memory".into(), kind: VolumeKind::Empty { memory: true, bytes_max: 0 }, group: None };
    node.pods.volumes("u1", &[memory])["memory"].as_ref().unwrap();
    let log_directory = node.pods.log_directory(&pod()).to_str().unwrap().to_owned();
    node.pods.before_sandbox(&Sandbox { pod: pod(), log_directory, ..Sandbox::default() }).unwrap();
    symlink(&outside, dir.join("link")).unwrap();
    // What a container may mount that shares its mounts with the host, in use at that.
    let inside = dir.join("a blank/mounted");
    fs::create_dir_all(&inside).unwrap();
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&outside), &inside, None::<&str>, bind, None::<&str>).unwrap();
    nix::mount::mount(Some(&outside), &inside, None::<&str>, bind, None::<&str>).unwrap();
    let _in_use = fs::File::open(inside.join("precious")).unwrap();

    assert_eq!(node.pods.list().unwrap(), [pod()]);
    node.pods.remove(&pod()).unwrap();
    assert!(outside.join("precious").exists());
    assert!(node.pods.list().unwrap().is_empty() && !node.pods.log_directory(&pod()).exists());
    node.pods.remove(&pod()).unwrap();
}

#[test]
fn a_mount_that_was_not_seen_stops_the_removal() {
    if !is_in_own_namespace("a_mount_that_was_not_seen_stops_the_removal") {
        return;
    }
    let node = Node::new();
    let (outside, top) = (node.dir.path().join("outside"), node.dir.path().join("top"));
    fs::create_dir_all(outside.join("folder")).unwrap();
    fs::create_dir_all(top.join("a/mounted")).unwrap();
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&outside), &top.join("a/mounted"), None::<&str>, bind, None::<&str>).unwrap();
    assert!(removal::remove(&top).is_err());
    assert!(outside.join("folder").exists());
    mounts::unmount_below(&top).unwrap();
}

#[test]
fn what_is_too_deep_for_a_path_is_removed_too() {
    let node = Node::new();
    let top = node.dir.path().join("top");
    fs::create_dir(&top).unwrap();
    // Made from the inside out, as the names of its middle are longer than a path may be.
    let name = "d".repeat(200);
    for _ in 0..100 {
        let next = node.dir.path().join("next");
        fs::create_dir(&next).unwrap();
        fs::write(next.join("file"), "").unwrap();
        fs::rename(&top, next.join(&name)).unwrap();
        fs::rename(&next, &top).unwrap();
    }
    removal::remove(&top).unwrap();
    assert!(!top.exists());
}

#[test]
fn a_volume_is_measured_by_what_it_takes_of_the_disk_and_no_further_than_asked() {
    let node = Node::new();
    let dir = node.volume(VolumeKind::Empty { memory: false, bytes_max: 0 }, None).unwrap();
    let measure = |enough| node.pods.measure("u1", &BTreeMap::from([("v".to_owned(), enough)])).unwrap()["v"];
    let before = measure(u64::MAX);
    fs::create_dir(dir.join("below")).unwrap();
    let written = dir.join("below/file");
    fs::write(&written, vec![1; 1 << 20]).unwrap();
    // Two names are one file; what a link leads to is elsewhere; a hole takes nothing.
    fs::hard_link(&written, dir.join("again")).unwrap();
    let elsewhere = node.dir.path().join("elsewhere");
    fs::write(&elsewhere, vec![1; 8 << 20]).unwrap();
    symlink(&elsewhere, dir.join("link")).unwrap();
    fs::File::create(dir.join("hole")).unwrap().set_len(1 << 40).unwrap();
    let takes = measure(u64::MAX) - before;
    assert!((1 << 20..2 << 20).contains(&takes), "{takes}");
    for n in 0..100 {
        fs::write(dir.join(format!("{n}")), vec![1; 1 << 16]).unwrap();
    }
    let counted = measure(1 << 20);
    assert!((1 << 20..3 << 20).contains(&counted), "{counted}");
    let gone = node.pods.measure("u1", &BTreeMap::from([("other".to_owned(), 1)])).unwrap_err();
    assert_eq!(gone.why, Why::Failed);
}

#[test]
fn pods_are_listed_by_either_of_what_they_leave() {
    let node = Node::new();
    node.pods.file("u2", "etc-hosts", b"x", 0o644).unwrap();
    fs::create_dir_all(node.pods.log_directory(&pod())).unwrap();
    fs::create_dir_all(node.pods.logs().join("not-a-pods")).unwrap();
    assert_eq!(node.pods.list().unwrap(), [pod(), PodName { uid: "u2".into(), ..PodName::default() }]);
    for pod in node.pods.list().unwrap() {
        node.pods.remove(&pod).unwrap();
    }
    assert!(node.pods.list().unwrap().is_empty());
}
