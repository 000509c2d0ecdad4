//! Container images made here, out of the static busybox of this machine: no network is needed to run a pod.

use crate::process;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::process::Command;
use std::sync::OnceLock;
use tar::{Builder, EntryType, Header};

/// The kinds of documents in an image (OCI image specification 1.1).
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image as a registry keeps it.
#[derive(Clone, Debug)]
pub struct Image {
    /// The repository, as in a registry's paths: `library/busybox`.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// The manifest's bytes; what names the image is their digest.
    pub(crate) manifest: Vec<u8>,
    /// Its configuration and its layer.
    pub(crate) blobs: Vec<Vec<u8>>,
}

impl Image {
    /// The image's digest, `sha256:…`.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }
}

/// `sha256:…` of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// What an image runs, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub command: Vec<String>,
    /// `ENV`, `NAME=value`.
    pub env: Vec<String>,
    /// `USER`.
    pub user: String,
    /// `WORKDIR`.
    pub folder: String,
}

/// busybox, as Docker Hub's image of that name behaves: a shell.
///
/// # Errors
/// If this machine has no static busybox.
pub fn busybox(tag: &str) -> Result<Image> {
    let config = Config { command: words(&["sh"]), ..Config::default() };
    image("library/busybox", tag, &[], &config)
}

/// A web server on port 80 that answers as a new nginx does, with its version in the page; it runs under that
/// name so that the documentation's examples work as they are. It ends at SIGTERM.
///
/// # Errors
/// As [`busybox`].
pub fn nginx(tag: &str) -> Result<Image> {
    // The first process of a container gets no default action for a signal: the shell's trap ends it.
    let serve = "trap 'exit 0' TERM QUIT; echo \"start worker processes of $NGINX_VERSION\"; \
                 httpd -f -v -p 80 -h /usr/share/nginx/html & wait";
    let config = Config {
        entrypoint: words(&["/bin/sh", "-c", serve]),
        env: vec![format!("NGINX_VERSION={tag}")],
        ..Config::default()
    };
    let page = format!("<h1>Welcome to nginx!</h1>\n<p>{tag}</p>\n");
    image("library/nginx", tag, &[("usr/share/nginx/html/index.html", 0o644, page.as_bytes())], &config)
}

/// kubectl, for a pod that asks the API.
///
/// # Errors
/// As [`busybox`], or if there is no kubectl.
pub fn kubectl() -> Result<Image> {
    let program = std::fs::read(process::tool("kubectl")?)?;
    image("tools/kubectl", "latest", &[("bin/kubectl", 0o755, &program)], &Config::default())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}

/// An image with busybox, its applets and these files, each with its permission bits.
///
/// # Errors
/// As [`busybox`].
pub fn image(repository: &str, tag: &str, files: &[(&str, u32, &[u8])], config: &Config) -> Result<Image> {
    let layer = layer(files)?;
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    let env: Vec<String> = std::iter::once(path).chain(config.env.iter().cloned()).collect();
    let configuration = serde_json::to_vec(&json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Entrypoint": config.entrypoint, "Cmd": config.command, "Env": env, "User": config.user,
                   "WorkingDir": config.folder},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    }))?;
    let described = |kind: &str, bytes: &[u8]| -> Value {
        json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
    };
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": described(CONFIG, &configuration),
        "layers": [described(LAYER, &layer)],
    }))?;
    let blobs = vec![configuration, layer];
    Ok(Image { repository: repository.to_owned(), tag: tag.to_owned(), manifest, blobs })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn layer(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let (program, applets) = shell()?;
    let mut tar = Builder::new(Vec::new());
    let folders = ["bin/", "dev/", "etc/", "home/", "proc/", "root/", "sys/", "usr/", "usr/bin/", "var/"];
    for folder in folders {
        entry(&mut tar, folder, EntryType::Directory, 0o755, b"")?;
    }
    entry(&mut tar, "tmp/", EntryType::Directory, 0o1777, b"")?;
    let users = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/:/bin/sh\n";
    entry(&mut tar, "etc/passwd", EntryType::Regular, 0o644, users.as_bytes())?;
    entry(&mut tar, "etc/group", EntryType::Regular, 0o644, b"root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n")?;
    entry(&mut tar, "bin/busybox", EntryType::Regular, 0o755, program)?;
    for applet in applets.iter().filter(|a| *a != "busybox") {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), "usr/bin/env", "../../bin/busybox")?;
    for (path, mode, bytes) in files {
        entry(&mut tar, path, EntryType::Regular, *mode, bytes)?;
    }
    Ok(tar.into_inner()?)
}

fn entry(tar: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(kind, mode, bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("cannot pack {path}"))
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// The static busybox of this machine and the names it answers to.
fn shell() -> Result<(&'static [u8], &'static [String])> {
    static SHELL: OnceLock<(Vec<u8>, Vec<String>)> = OnceLock::new();
    if let Some((program, applets)) = SHELL.get() {
        return Ok((program, applets));
    }
    let folders = ["/usr/bin/busybox", "/bin/busybox"];
    let path = folders.iter().find(|p| std::fs::metadata(p).is_ok()).context("no busybox (package busybox-static)")?;
    let out = Command::new(path).arg("--list").output()?;
    let applets = String::from_utf8(out.stdout)?.lines().map(str::to_owned).collect::<Vec<_>>();
    let program = std::fs::read(path)?;
    // A program that needs a loader names it.
    if program.windows(8).any(|w| w == b"/ld-linu" || w == b"/ld-musl") {
        bail!("{path} is not static: install the package busybox-static");
    }
    let (program, applets) = SHELL.get_or_init(|| (program, applets));
    Ok((program, applets))
}
