//! What the program needs, made of what was typed and what the machine says: checked once, here.

use crate::cli::{Join, Runtime, Up};
use crate::joining::Wish;
use crate::mesh;
use anyhow::{Context, Result, bail};
use host::containerd::SOCKET_BYTES;
use identity::{Roles, Ticket};
use objects::kinds::names;
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
    /// Where the mesh's transport listens.
    pub(crate) listen: SocketAddr,
    /// Addresses others reach it at that this machine does not see: a router's, a load balancer's.
    pub(crate) advertise: Vec<SocketAddr>,
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
        let socket = crate::admin::socket(&data);
        if socket.as_os_str().len() > SOCKET_BYTES {
            bail!(
                "the data directory's path is too long: {} is to be a socket, and its path may have {SOCKET_BYTES} bytes; give a shorter one with --data",
                socket.display()
            );
        }
        let name = kept_name(up.name, mesh::name(&data)?, &data)?.map_or_else(host_name, Ok)?;
        if let Err(why) = node_name(&name) {
            bail!("the node's name {name:?} cannot be used: {why}; give another with --name");
        }
        let mut labels = BTreeMap::new();
        for l in &up.labels {
            let (key, value) = label(l)?;
            labels.insert(key.to_owned(), value.to_owned());
        }
        if let Some(zone) = up.zone {
            if let Some(why) = names::label_value(&zone).first() {
                bail!("--zone {zone:?} becomes a label's value, and {why}");
            }
            labels.insert("topology.kubernetes.io/zone".into(), zone);
        }
        if let Some(nowhere) = up.advertise.iter().find(|a| a.ip().is_unspecified() || a.port() == 0) {
            bail!(
                "--advertise {nowhere}: expected an address and a port that others can reach, such as 203.0.113.7:7443"
            );
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
        let mirrors = up.mirrors.iter().map(|m| mirror(m)).collect::<Result<_>>()?;
        Ok(Config {
            data,
            api: up.api,
            listen: up.listen,
            advertise: up.advertise,
            name,
            labels,
            kubeconfig: up.kubeconfig,
            pods,
            mirrors,
            trust_domain: up.trust_domain,
        })
    }
}

/// What `beemesh join` was told: a configuration, and what is wished for.
///
/// # Errors
/// As [`Config::new`]; a ticket that is none, or roles it does not grant.
pub(crate) fn joining(join: Join) -> Result<(Config, Wish)> {
    if let Some(domain) = &join.up.trust_domain {
        bail!("--trust-domain {domain}: a machine that joins takes the mesh's; leave it out");
    }
    let ticket: Ticket = join.ticket.parse()?;
    let roles = granted(join.roles.as_deref(), ticket.invitation().roles)?;
    Ok((Config::new(join.up)?, Wish { ticket, roles }))
}

/// What a node's own requests need.
pub(crate) const NEEDS_GATEWAY: &str = "--roles without gateway: a node that is no gateway cannot ask the others for anything in this release, and so does nothing; name gateway as well";

/// The roles asked for, of those a ticket grants; all of them if none are asked for.
fn granted(asked: Option<&str>, granted: Roles) -> Result<Roles> {
    let Some(asked) = asked else { return Ok(granted) };
    let roles: Roles = asked.parse().context("--roles")?;
    if !granted.contains(roles) {
        bail!(
            "--roles {roles}: the ticket grants {granted}; ask for some of these, or have one made with `beemesh invite --roles {roles}`"
        );
    }
    if !roles.contains(Roles::GATEWAY) {
        bail!(NEEDS_GATEWAY);
    }
    Ok(roles)
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
            "{} is the node {kept}'s, and a node keeps its name: leave out --name, or give another --data for \
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

/// A DNS-1123 subdomain, as a Node's name must be, short enough to be a label's value: the label
/// `kubernetes.io/hostname` holds it.
fn node_name(name: &str) -> Result<(), String> {
    match names::subdomain(name).into_iter().chain(names::label_value(name)).next() {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

/// A label as it is typed.
fn label(typed: &str) -> Result<(&str, &str)> {
    let (key, value) = typed.split_once('=').with_context(|| format!("--label {typed:?}: expected KEY=VALUE"))?;
    if let Some(why) = names::qualified_name(key).first() {
        bail!("--label {typed:?}: of the key, {why}");
    }
    if let Some(why) = names::label_value(value).first() {
        bail!("--label {typed:?}: of the value, {why}");
    }
    Ok((key, value))
}

/// A registry's mirror as it is typed: its host and perhaps port, as images name them, and a URL.
fn mirror(typed: &str) -> Result<(String, String)> {
    let (host, url) = typed.split_once('=').unwrap_or_default();
    let is_host = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
    let asked = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if !is_host || asked.is_none_or(|u| u.is_empty() || u.starts_with('/')) {
        bail!("--registry-mirror {typed:?}: expected HOST=URL, such as docker.io=http://10.0.0.1:5000");
    }
    Ok((host.to_owned(), url.trim_end_matches('/').to_owned()))
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
    fn a_machine_asks_for_no_more_than_its_ticket_grants() {
        let two = Roles::GATEWAY | Roles::WORKER;
        assert_eq!(granted(None, two).unwrap(), two);
        assert_eq!(granted(Some("gateway"), two).unwrap(), Roles::GATEWAY);
        for bad in ["authority", "worker", "keeper,gateway", "king", ""] {
            assert!(granted(Some(bad), two).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_name_is_a_dns_subdomain_that_fits_a_label() {
        let longest = "a".repeat(63);
        for good in ["a", "node-1", "a.b-c.d9", &longest] {
            assert_eq!(node_name(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a..b", ".", &"a".repeat(64)] {
            assert!(node_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_that_no_node_can_have_is_refused_when_it_is_typed() {
        assert_eq!(label("disk=ssd").unwrap(), ("disk", "ssd"));
        assert_eq!(label("example.com/rack=").unwrap(), ("example.com/rack", ""));
        for bad in ["disk", "=ssd", "a b=c", "a=b c", "a/b/c=d", "disk=a=b"] {
            assert!(label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mirror_is_of_a_host_and_at_a_url() {
        for (host, url) in
            [("docker.io", "http://10.0.0.1:5000"), ("localhost:5000", "https://m"), ("[::1]:5", "http://m/p")]
        {
            assert_eq!(mirror(&format!("{host}={url}/")).unwrap(), (host.to_owned(), url.to_owned()));
        }
        for bad in
            ["docker.io", "=http://m", "https://docker.io=http://m", "docker.io/library=http://m", "a=m", "a=http://"]
        {
            assert!(mirror(bad).is_err(), "{bad}");
        }
    }
}
