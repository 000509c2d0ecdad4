//! `beemesh up`: parse → build → run. Everything is bound and recovered before anything is served.

use crate::admin;
use crate::backend::Node;
use crate::cli::exit::{Coded, Exit};
use crate::config::{Config, Pods};
use crate::driver::work::{About, Work};
use crate::driver::{Driver, Founding, clock};
use crate::kubeconfig::{self, Access};
use crate::register::RuntimeFacts;
use crate::{files, mesh, pods, register};
use agree::log::{self, Command, Log, Notice};
use anyhow::{Context, Result, bail};
use api::server::{self, Limits};
use base::{CellId, Chance, Uid};
use host::store::{OpenError, Sink, Store};
use identity::upkeep::Upkeep;
use identity::{GatewayNames, Identity, IdentityError};
use node::cell::Found;
use node::genesis::{self, Genesis};
use objects::request::Config as Settings;
use std::fs::{File, TryLockError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How many commands may wait for the log's thread; whoever brings one more waits for a batch.
const LOG_QUEUE: usize = 8192;

/// Runs a node until it is told to stop.
///
/// # Errors
/// What kept it from starting, or ended it, with its exit code.
pub(crate) fn run(config: Config) -> Result<()> {
    identity::tls::install_provider();
    files::make_dir(&config.data)?;
    let mut seed = [0; 32];
    fill_with_chance(&mut seed)?;
    let chance = Chance::new(seed);

    // The log first: its lock is what keeps a second process away from everything in the directory.
    let (notices, told) = mpsc::channel();
    let dir = config.data.join("log");
    let mut ids = chance.stream("founding");
    let opened = Store::<Log>::open(&dir, log::Config::new(ids.u128()), LOG_QUEUE, ToDriver(notices));
    let (store, recovered) = opened.map_err(coded)?;
    if let Some(torn) = recovered.torn {
        tracing::info!(segment = torn.segment, offset = torn.offset, "a write that had not become durable was cut off");
    }

    let _pods_are_ours = if config.pods == Pods::None { None } else { Some(the_pods_of_this_machine()?) };
    let (identity, founding, first) = found_or_resume(&config, &recovered, &mut ids)?;
    let identity = Arc::new(identity);
    let settings = Settings { issuer: identity.tokens().issuer().into(), ..Settings::default() };
    let driver =
        Driver::new(identity.node_id(), founding, settings.clone(), identity.bundle_pem(), chance.stream("driver"));

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(config.api))
        .with_context(|| format!("listening for the API on {}: choose another address with --api", config.api))?;
    let api = listener.local_addr().context("asking for the API's address")?;

    let handle = store.handle();
    let closing = handle.clone();
    let cells = recovered.cells.into_iter().map(|(id, c)| (id, Found { records: c.records, lossy: c.lossy })).collect();
    // The thread that brings the log's news is started before anything is written, so that nothing waits.
    let (closed, on_closed) = mpsc::channel();
    let news = driver.clone();
    std::thread::Builder::new().name("news".into()).spawn(move || {
        for notice in told {
            if notice == Notice::Closed {
                let _ = closed.send(());
            }
            news.told(notice);
        }
    })?;
    let about = About {
        node: identity.node_id(),
        name: config.name.as_str().into(),
        registry: founding.registry,
        ca_pem: identity.bundle_pem().into(),
        settings: Arc::new(settings.clone()),
        api_port: api.port(),
    };
    let work = Work::new(about, runtime.handle().clone(), chance.stream("work"));
    let backend = Arc::new(Node::new(driver.clone(), identity.clone(), work.clone(), api.to_string()));
    work.errands().through(Arc::downgrade(&backend));
    work.start()?;
    driver.start(move |command| drop(handle.send_waiting(command)), work.clone(), cells, first)?;

    let result = runtime.block_on(serve(&config, api, listener, identity, backend, work.clone()));
    // Everything acknowledged is durable already; closing in order lets the next start tell damage from
    // an end.
    let _ = closing.send_waiting(Command::Close);
    let _ = on_closed.recv_timeout(Duration::from_secs(10));
    driver.stop();
    work.stop();
    drop(store);
    result
}

/// Held by whoever runs pods in this network namespace: pods' networks and the way to the API are one for all of it, and
/// two that lay them would take them from each other. It goes with the process.
fn the_pods_of_this_machine() -> Result<File> {
    let asking = "asking whether another beemesh runs pods on this machine";
    let network = std::fs::metadata("/proc/self/ns/net").context(asking)?.ino();
    let directory = Path::new("/run/beemesh");
    std::fs::create_dir_all(directory).context(asking)?;
    let lock = File::create(directory.join(format!("pods-{network}.lock"))).context(asking)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "another beemesh runs pods on this machine, and their networks would be in each other's way: end that one, or give --runtime none for a node that keeps cells and serves the API only"
        ),
        Err(TryLockError::Error(e)) => Err(e).context(asking),
    }
}

/// Everything after the cells have started.
async fn serve(
    config: &Config,
    api: SocketAddr,
    listener: tokio::net::TcpListener,
    identity: Arc<Identity>,
    backend: Arc<Node>,
    work: Arc<Work>,
) -> Result<()> {
    // From here on who ends it waits until it has ended in order.
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let driver = backend.driver().clone();
    let (stop, stopped) = watch::channel(false);
    let names = names(config, api);
    let founding = driver.founding();
    let upkeep = Upkeep::start(identity.clone(), founding.registry, names, clock::wall())?;
    let tls = Arc::new(identity::tls::server_config(upkeep.gateway().clone(), identity.verifier().clone())?);

    let url = format!("https://{}", SocketAddr::new(dialled(api.ip()), api.port()));
    let kubeconfig = write_kubeconfigs(config, &url, &identity)?;
    let gateway = tokio::spawn(server::serve(listener, tls, backend.clone(), Limits::default(), stopped.clone()));
    let admin = admin::serve(&config.data, driver.clone(), backend.clone(), api, config.name.clone(), stopped.clone())?;
    let (runtime_is, runtime_facts) = watch::channel(RuntimeFacts::default());
    let (node_is, node) = watch::channel(None);
    let registered = tokio::spawn(register::run(config.clone(), backend, runtime_facts, node_is, stopped.clone()));
    let pods = tokio::spawn(pods::run(config.clone(), api, work, node, runtime_is, stopped.clone()));
    let renewed = tokio::spawn(renew(upkeep, stopped.clone()));
    let marks = tokio::spawn(mark(driver.clone(), stopped));

    tokio::select! {
        () = root_leads(&driver) => {}
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    }
    mesh::store(&config.data, founding, &config.name, true)?;
    println!("beemesh {} runs node {} of mesh {}", env!("CARGO_PKG_VERSION"), config.name, identity.trust_domain());
    println!("Kubernetes API at {url}");
    println!("Try: kubectl --kubeconfig {} get nodes", kubeconfig.display());

    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping");
    let _ = stop.send(true);
    let _ = gateway.await;
    for task in [registered, pods, renewed, marks, admin] {
        task.abort();
    }
    Ok(())
}

/// Who this node is and which cells the mesh begins with: found in the data directory, or founded.
fn found_or_resume(
    config: &Config,
    recovered: &log::Recovered,
    ids: &mut Chance,
) -> Result<(Identity, Founding, Genesis)> {
    let now = clock::wall();
    let data = &config.data;
    let identity = if Identity::is_founded(data)? {
        let identity = Identity::resume(data, now).map_err(of_identity)?;
        if let Some(asked) = &config.trust_domain
            && identity.trust_domain().to_string() != *asked
        {
            bail!(
                "{} belongs to the mesh {}, not {asked}: leave out --trust-domain, or choose another --data",
                data.display(),
                identity.trust_domain()
            );
        }
        identity
    } else if recovered.cells.is_empty() {
        Identity::found(data, config.trust_domain.as_deref(), None, now)?
    } else {
        return Err(Coded {
            exit: Exit::Corrupt,
            source: anyhow::anyhow!(
                "{} holds the log of a mesh but not this node's identity; nothing was changed. Restore {} from a copy of this node's own disk",
                data.display(),
                data.join("identity").display()
            ),
        }
        .into());
    };
    let founding = match mesh::load(data)? {
        Some((f, true)) if !recovered.cells.contains_key(&f.root) => {
            return Err(Coded {
                exit: Exit::Corrupt,
                source: anyhow::anyhow!(
                    "{} holds nothing of the mesh's root, which was there: is a disk not mounted, or was the folder moved? Nothing was changed. Put it back and start again",
                    data.join("log").display()
                ),
            }
            .into());
        }
        Some((f, _)) => f,
        None if recovered.cells.is_empty() => {
            let f =
                Founding { root: CellId(Uid::from_chance(ids.u128())), registry: CellId(Uid::from_chance(ids.u128())) };
            mesh::store(data, f, &config.name, false)?;
            f
        }
        None => {
            return Err(Coded {
                exit: Exit::Corrupt,
                source: anyhow::anyhow!(
                    "{} is missing, and the log is not empty: nothing was changed. Restore it from a copy of this node's own disk",
                    data.join("mesh.json").display()
                ),
            }
            .into());
        }
    };
    let first = genesis::root(ids.stream("root"), now);
    Ok((identity, founding, first))
}

/// Waits until root takes requests: what it began with is durable then.
async fn root_leads(driver: &Driver) {
    let mut changes = driver.changes();
    loop {
        changes.borrow_and_update();
        let root = driver.cell(driver.founding().root);
        if root.is_some_and(|c| c.look(|c| c.is_leading() && !c.state().is_empty())) {
            return;
        }
        // A commit changes the bundle, which is such a change; the sender lives as long as the driver.
        let _ = changes.changed().await;
    }
}

/// What the log's thread is told goes to a thread of its own: stepping a machine may hand the log the
/// next command, and the log's thread must never wait for itself.
struct ToDriver(mpsc::Sender<Notice>);

impl Sink<Notice> for ToDriver {
    fn notice(&mut self, notice: Notice) {
        // The other end goes only when the process does.
        let _ = self.0.send(notice);
    }

    fn fatal(&mut self, why: String) {
        eprintln!("beemesh: {why}");
        std::process::exit(Exit::DiskFailed as i32);
    }
}

fn coded<E: std::error::Error + Send + Sync + 'static>(e: OpenError<E>) -> anyhow::Error {
    let exit = match &e {
        OpenError::InUse { .. } => Exit::InUse,
        OpenError::Recovery { .. } => Exit::Corrupt,
        OpenError::Io { .. } => Exit::Failed,
    };
    Coded { exit, source: anyhow::Error::new(e) }.into()
}

fn of_identity(e: IdentityError) -> anyhow::Error {
    let exit = if matches!(e, IdentityError::Corrupt { .. }) { Exit::Corrupt } else { Exit::Failed };
    Coded { exit, source: anyhow::Error::new(e) }.into()
}

/// What the API's certificate names.
fn names(config: &Config, api: SocketAddr) -> GatewayNames {
    let mut addresses = vec![api.ip(), IpAddr::V4(Ipv4Addr::new(10, 43, 0, 1))];
    addresses.extend(register::addresses());
    GatewayNames { cluster_domain: String::new(), hosts: vec![config.name.clone()], addresses }
}

/// The address by which a client on this machine reaches a listener.
fn dialled(listens: IpAddr) -> IpAddr {
    match listens {
        IpAddr::V4(a) if a.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(a) if a.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        other => other,
    }
}

/// Writes the administrator's kubeconfig; returns where the one to use lies.
fn write_kubeconfigs(config: &Config, url: &str, identity: &Identity) -> Result<std::path::PathBuf> {
    let own = config.data.join("admin.kubeconfig");
    let admin = identity.root()?.person("admin", "system:masters", clock::wall())?;
    let document = kubeconfig::document(&Access {
        server: url,
        ca_pem: identity.bundle_pem().as_bytes(),
        cert_pem: admin.chain_pem.as_bytes(),
        key_pem: admin.key_pem.as_bytes(),
    });
    kubeconfig::write(&own, &document)?;
    match &config.kubeconfig {
        Some(path) => {
            kubeconfig::write(path, &document)?;
            Ok(path.clone())
        }
        None => {
            if let Some(path) = kubeconfig::default_path()
                && let Err(error) = kubeconfig::merge(&path, &document)
            {
                tracing::warn!("{error:#}; use --kubeconfig {}", own.display());
            }
            Ok(own)
        }
    }
}

/// Renews certificates and keys before they expire.
async fn renew(upkeep: Upkeep, mut stopped: watch::Receiver<bool>) {
    loop {
        let now = clock::wall();
        let (again, failures) = upkeep.renew(now);
        for error in failures {
            tracing::warn!(%error, "something could not be renewed; what there is stays in use while it is good");
        }
        tokio::select! {
            () = tokio::time::sleep(again.since(now)) => {}
            _ = stopped.changed() => return,
        }
    }
}

/// Bookmarks: every watched resource says once a minute up to where it was told.
async fn mark(driver: Arc<Driver>, mut stopped: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(Duration::from_secs(60));
    loop {
        tokio::select! {
            _ = every.tick() => driver.mark(),
            _ = stopped.changed() => return,
        }
    }
}

fn fill_with_chance(seed: &mut [u8; 32]) -> Result<()> {
    use std::io::Read;
    let mut source = std::fs::File::open("/dev/urandom").context("opening /dev/urandom")?;
    source.read_exact(seed).context("reading /dev/urandom")
}
