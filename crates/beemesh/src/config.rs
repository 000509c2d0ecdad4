//! What the program needs, made of what was typed and what the machine says: checked once, here.

use crate::cli::{Runtime, Up};
use crate::mesh;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A node's configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Where the API listens.
    pub(crate) api: SocketAddr,
    /// The node's name: a DNS-1123 subdomain.
    pub(crate) name: String,
    /// The node's labels, the zone's among them.
    pub(crate) labels: BTreeMap<String, String>,
    /// An extra kubeconfig to write instead of merging into `~/.kube/config`.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Who runs pods.
    pub(crate) pods: Pods,
    /// Where images of a registry are pulled from: its host name, and the URL asked instead.
    pub(crate) mirrors: Vec<(String, String)>,
    /// The trust domain asked for at founding.
    pub(crate) trust_domain: Option<String>,
}

/// Who runs this node's pods.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Pods {
    /// Nobody: the node keeps cells and serves the API.
    None,
    /// A containerd supervised by this process.
    Containerd,
    /// A runtime somebody else runs.
    Cri(PathBuf),
}

impl Config {
    /// Checks what was typed and fills in the rest.
    ///
    /// # Errors
    /// A flag that cannot be meant, named, with what it should look like.
    pub(crate) fn new(up: Up) -> Result<Config> {
        let data = data_dir(up.data.as_deref())?;
        let name = kept_name(up.name, mesh::name(&data)?, &data)?.map_or_else(host_name, Ok)?;
        if let Err(why) = node_name(&name) {
            bail!("the node's name {name:?} cannot be used: {why}; give another with --name");
        }
        let mut labels = BTreeMap::new();
        for l in &up.labels {
            let (k, v) = l.split_once('=').with_context(|| format!("--label {l:?}: expected KEY=VALUE"))?;
            if k.is_empty() {
                bail!("--label {l:?}: the key is empty");
            }
            labels.insert(k.to_owned(), v.to_owned());
        }
        if let Some(zone) = up.zone {
            labels.insert("topology.kubernetes.io/zone".into(), zone);
        }
        let pods = match (up.cri, up.runtime) {
            (Some(socket), _) => Pods::Cri(socket),
            (None, Runtime::Containerd) => Pods::Containerd,
            (None, Runtime::None) => Pods::None,
        };
        if pods == Pods::Containerd && !nix::unistd::geteuid().is_root() {
            bail!(
                "running pods needs root: run beemesh as root, or give --runtime none for a node that keeps cells and serves the API only"
            );
        }
        let mut mirrors = Vec::new();
        for m in &up.mirrors {
            let (host, url) = m.split_once('=').unwrap_or_default();
            if host.is_empty() || !(url.starts_with("http://") || url.starts_with("https://")) {
                bail!("--registry-mirror {m:?}: expected HOST=URL, such as docker.io=http://10.0.0.1:5000");
            }
            mirrors.push((host.to_owned(), url.trim_end_matches('/').to_owned()));
        }
        Ok(Config {
            data,
            api: up.api,
            name,
            labels,
            kubeconfig: up.kubeconfig,
            pods,
            mirrors,
            trust_domain: up.trust_domain,
        })
    }
}

/// The data directory meant by a flag or its absence.
///
/// # Errors
/// Without root and without HOME there is no default.
pub(crate) fn data_dir(flag: Option<&Path>) -> Result<PathBuf> {
    if let Some(dir) = flag {
        return std::path::absolute(dir).with_context(|| format!("--data {}", dir.display()));
    }
    if nix::unistd::geteuid().is_root() {
        return Ok("/var/lib/beemesh".into());
    }
    let home =
        std::env::var_os("HOME").context("HOME is not set, so there is no default data directory: give --data DIR")?;
    Ok(PathBuf::from(home).join(".local/share/beemesh"))
}

/// The name that was asked for or that the node has already; `None` if the machine's own is to be taken. A
/// node has one name for ever: its containers are found again by it, and its cells know it by it.
fn kept_name(asked: Option<String>, kept: Option<String>, data: &Path) -> Result<Option<String>> {
    match (asked, kept) {
        (Some(asked), Some(kept)) if asked != kept => bail!(
            "{} is the node {kept}'s, and a node keeps its name: leave out --name, or give another --data to found \
             the node {asked}. Nothing was changed",
            data.display()
        ),
        (asked, kept) => Ok(kept.or(asked)),
    }
}

fn host_name() -> Result<String> {
    let raw = nix::unistd::gethostname().context("asking for the host name; give --name instead")?;
    Ok(raw.to_string_lossy().to_lowercase())
}

/// A DNS-1123 subdomain, as a Node's name must be.
fn node_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 253 {
        return Err("it must have 1 to 253 characters");
    }
    let label_ok = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.split('.').all(label_ok) {
        Ok(())
    } else {
        Err("it must be lower-case letters, digits, '-' and '.', each part starting and ending with a letter or digit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_the_name_it_was_founded_with() {
        let name = |asked: Option<&str>, kept: Option<&str>| {
            kept_name(asked.map(Into::into), kept.map(Into::into), Path::new("/d"))
        };
        assert_eq!(name(None, None).unwrap(), None);
        assert_eq!(name(Some("a"), None).unwrap().as_deref(), Some("a"));
        assert_eq!(name(None, Some("b")).unwrap().as_deref(), Some("b"), "whatever the machine is called now");
        assert_eq!(name(Some("b"), Some("b")).unwrap().as_deref(), Some("b"));
        assert!(name(Some("a"), Some("b")).unwrap_err().to_string().contains("node b's"));
    }

    #[test]
    fn a_node_name_is_a_dns_subdomain() {
        for good in ["a", "node-1", "a.b-c.d9"] {
            assert_eq!(node_name(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a..b", "."] {
            assert!(node_name(bad).is_err(), "{bad}");
        }
    }
}
