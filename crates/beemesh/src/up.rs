//! `beemesh up` and `beemesh join`: parse → build → run. Everything is bound and recovered before anything is served.

use crate::admin;
use crate::backend::Node;
use crate::cli::exit::{Coded, Exit};
use crate::config::{Config, Pods};
use crate::driver::away::{Away, Incoming};
use crate::driver::work::{About, Work};
use crate::driver::{Driver, Founding, clock};
use crate::issue::{Asking, Issuing};
use crate::join::{ADMIN, Joins};
use crate::joining::{self, Wish};
use crate::kubeconfig::{self, Access};
use crate::net::{self, Net};
use crate::register::RuntimeFacts;
use crate::streams::Serving;
use crate::{files, leave, mesh, pods, register, standing};
use ::mesh::{Mesh, Standing};
use agree::log::{self, Command, Log, Notice};
use anyhow::{Context, Result, bail};
use api::server::{self, Limits};
use base::{CellId, Chance, Uid};
use host::store::{OpenError, Sink, Store};
use identity::upkeep::Upkeep;
use identity::{GatewayNames, Identity, IdentityError, Roles};
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

/// Runs a node until it is told to stop. With a `wish` it joins a mesh first, unless it has.
///
/// # Errors
/// What kept it from starting, or ended it, with its exit code.
pub(crate) fn run(config: Config, wish: Option<Wish>) -> Result<()> {
    identity::tls::install_provider();
    leave::still_belongs(&config.data)?;
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
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(config.api))
        .with_context(|| format!("listening for the API on {}: choose another address with --api", config.api))?;
    let api = listener.local_addr().context("asking for the API's address")?;
    let names = names(&config, api);
    let net = Arc::new(Net::default());
    let begun = runtime.block_on(begin(&config, wish, &recovered, &names, &net, &mut ids))?;
    let Begun { own: Own { identity, upkeep, mesh }, founding, first } = begun;
    let settings = Settings { issuer: identity.tokens().issuer().into(), ..Settings::default() };
    let driver =
        Driver::new(identity.node_id(), founding, settings.clone(), identity.bundle_pem(), chance.stream("driver"));

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
    let backend = Arc::new(Node::new(driver.clone(), identity.clone(), work.clone(), mesh.clone(), api.to_string()));
    work.errands().through(Arc::downgrade(&backend));
    work.start()?;
    let away = Arc::new(Away::new(mesh.clone(), runtime.handle().clone()));
    away.contacts_are(identity.known().contacts.iter().map(|c| c.node).collect());
    work.goes_by(away.clone());
    driver.start(move |command| drop(handle.send_waiting(command)), work.clone(), cells, first)?;
    driver.goes_by(away);
    let joins = Joins::new(backend.clone(), upkeep.clone(), mesh.clone(), config.advertise.clone());
    let issuing = Issuing::new(backend.clone(), upkeep.clone(), runtime.handle().clone());
    let incoming = Incoming::new(&driver, &work, runtime.handle().clone());
    let serving = Serving::new(&work, runtime.handle().clone());
    net.serve(Arc::new(joins), Arc::new(issuing), Arc::new(serving), incoming);

    let own = Own { identity, upkeep, mesh: mesh.clone() };
    let result = runtime.block_on(serve(&config, api, listener, own, backend, work.clone()));
    runtime.block_on(mesh.close());
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
    own: Own,
    backend: Arc<Node>,
    work: Arc<Work>,
) -> Result<()> {
    let Own { identity, upkeep, mesh } = own;
    // From here on who ends it waits until it has ended in order.
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let driver = backend.driver().clone();
    let (stop, stopped) = watch::channel(false);
    let founding = driver.founding();
    let tls = Arc::new(identity::tls::server_config(upkeep.gateway().clone(), identity.verifier().clone())?);

    let url = format!("https://{}", SocketAddr::new(dialled(api.ip()), api.port()));
    let kubeconfig = write_kubeconfigs(config, &url, &identity)?;
    let gateway = tokio::spawn(server::serve(listener, tls, backend.clone(), Limits::default(), stopped.clone()));
    let (leaves, mut leaving) = tokio::sync::mpsc::channel(1);
    let about = admin::About {
        driver: driver.clone(),
        backend: backend.clone(),
        mesh: mesh.clone(),
        advertised: config.advertise.clone(),
        api,
        name: config.name.clone(),
        pods: config.pods.clone(),
        leave: leaves,
    };
    let admin = admin::serve(&config.data, about, stopped.clone())?;
    let (runtime_is, runtime_facts) = watch::channel(RuntimeFacts::default());
    let (node_is, node) = watch::channel(None);
    // What keeps the mesh's records of this node true: ended when it leaves, and begun again if that fails.
    let records = || {
        let (name, advertised) = (config.name.clone(), config.advertise.clone());
        let (facts, node_is) = (runtime_facts.clone(), node_is.clone());
        let register = register::run(config.clone(), backend.clone(), facts, node_is, stopped.clone());
        let tell = standing::tell(backend.clone(), mesh.clone(), name, advertised, stopped.clone());
        [tokio::spawn(register), tokio::spawn(tell)]
    };
    let mut recorded = records();
    let pods = tokio::spawn(pods::run(config.clone(), api, work, node, runtime_is, stopped.clone()));
    let asking = Asking { identity: identity.clone(), upkeep, mesh: mesh.clone(), name: config.name.clone() };
    let renewed = tokio::spawn(standing::renew(asking, founding.registry, stopped.clone()));
    let heard = tokio::spawn(standing::hear(backend.clone(), mesh.clone(), stopped.clone()));
    let founds = tokio::spawn(standing::found(backend.clone(), stopped.clone()));
    let marks = tokio::spawn(mark(driver.clone(), stopped.clone()));

    tokio::select! {
        () = backend.root_begins() => {}
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    }
    let joined = identity.root().is_err();
    mesh::store(&config.data, &mesh::Known { founding, complete: true, joined }, &config.name)?;
    println!("beemesh {} runs node {} of mesh {}", env!("CARGO_PKG_VERSION"), config.name, identity.trust_domain());
    println!("Kubernetes API at {url}");
    match kubeconfig {
        Some(path) => println!("Try: kubectl --kubeconfig {} get nodes", path.display()),
        None => println!(
            "This node was given no administrator's kubeconfig, since it did not join with the role authority or nobody could make one: copy admin.kubeconfig from the founder's data directory, and set its server to {url}"
        ),
    }

    loop {
        let done: leave::End = tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            Some(done) = leaving.recv() => done,
        };
        for task in &mut recorded {
            task.abort();
            // A change that is on its way finds the records otherwise than it read them, and is refused.
            let _ = task.await;
        }
        let left = leave::finish(&backend, &config.data, &config.name).await;
        let is_over = left.is_ok();
        // Whoever asked may have gone.
        let _ = done.send(left);
        if is_over {
            tracing::info!("this node has left the mesh");
            break;
        }
        recorded = records();
    }
    tracing::info!("stopping");
    let _ = stop.send(true);
    let _ = gateway.await;
    for task in [pods, renewed, heard, founds, marks, admin].iter().chain(&recorded) {
        task.abort();
    }
    Ok(())
}

/// Who a node is, what it shows, and how it speaks.
struct Own {
    identity: Arc<Identity>,
    upkeep: Arc<Upkeep>,
    mesh: Arc<Mesh>,
}

/// How a node begins.
struct Begun {
    own: Own,
    founding: Founding,
    /// What root begins with, on a node that founded the mesh.
    first: Option<Genesis>,
}

/// Founds, resumes or joins, and starts the transport.
async fn begin(
    config: &Config,
    wish: Option<Wish>,
    recovered: &log::Recovered,
    names: &GatewayNames,
    net: &Arc<Net>,
    ids: &mut Chance,
) -> Result<Begun> {
    let (identity, founding, first, mesh) = match wish.map(|wish| still_to_join(config, wish)).transpose()?.flatten() {
        Some(_) if !recovered.cells.is_empty() => return Err(log_without_identity(&config.data)),
        Some(wish) => {
            let (identity, founding, mesh) = joining::join(config, wish, names.clone(), net.clone(), ids).await?;
            (identity, founding, None, Some(mesh))
        }
        None => {
            let (identity, founding, first) = found_or_resume(config, recovered, ids)?;
            (identity, founding, first, None)
        }
    };
    let identity = Arc::new(identity);
    let upkeep = if identity.root().is_ok() {
        Upkeep::start(identity.clone(), founding.registry, names.clone(), clock::wall())?
    } else {
        let names = identity.roles().contains(Roles::GATEWAY).then(|| names.clone());
        Upkeep::joined(identity.clone(), founding.registry, names)?
    };
    let mesh = match mesh {
        Some(mesh) => mesh,
        None => {
            let standing = Standing::of(&identity)?;
            let revocations = identity.known().revocations.clone();
            net::start(config, identity.node_key(), Some(standing), revocations, net.clone(), ids.stream("mesh"))
                .await?
        }
    };
    for contact in &identity.known().contacts {
        mesh.hint(contact.node, &contact.addresses);
    }
    Ok(Begun { own: Own { identity, upkeep: Arc::new(upkeep), mesh: Arc::new(mesh) }, founding, first })
}

/// What is still to be done of a wish: nothing, on a machine that has joined that mesh.
fn still_to_join(config: &Config, wish: Wish) -> Result<Option<Wish>> {
    if !Identity::is_founded(&config.data)? {
        return Ok(Some(wish));
    }
    let own = Identity::resume(&config.data, clock::wall()).map_err(of_identity)?;
    let theirs = &wish.ticket.invitation().trust_domain;
    if own.trust_domain() != theirs {
        let source = anyhow::anyhow!(
            "{} belongs to the mesh {}, and the ticket is for {theirs}: a machine is in one mesh. Give another --data to join with. Nothing was changed",
            config.data.display(),
            own.trust_domain()
        );
        return Err(Coded { exit: Exit::Refused, source }.into());
    }
    println!("{} belongs to the mesh {theirs} already: the ticket was not used", config.data.display());
    Ok(None)
}

fn log_without_identity(data: &Path) -> anyhow::Error {
    let source = anyhow::anyhow!(
        "{} holds the log of a mesh but not this node's identity; nothing was changed. Restore {} from a copy of this node's own disk",
        data.display(),
        data.join("identity").display()
    );
    Coded { exit: Exit::Corrupt, source }.into()
}

/// Who this node is and which cells the mesh begins with: found in the data directory, or founded.
fn found_or_resume(
    config: &Config,
    recovered: &log::Recovered,
    ids: &mut Chance,
) -> Result<(Identity, Founding, Option<Genesis>)> {
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
        return Err(log_without_identity(data));
    };
    // Root's key and root's log are a founder's; a node that joined keeps what it is asked to.
    let founded = identity.root().is_ok();
    let founding = match mesh::load(data)? {
        Some(known) if founded && !known.joined && known.complete && recovered.frames == 0 => {
            return Err(Coded {
                exit: Exit::Corrupt,
                source: anyhow::anyhow!(
                    "{} holds nothing at all, and the mesh's root was there: is a disk not mounted, or was the folder moved? Nothing was changed. Put it back and start again",
                    data.join("log").display()
                ),
            }
            .into());
        }
        Some(known) if known.joined != founded => known,
        // There is nothing yet, or what it had begun to join before it was made a founder.
        _ if founded && recovered.cells.is_empty() => anew(config, ids)?,
        _ => {
            return Err(Coded {
                exit: Exit::Corrupt,
                source: anyhow::anyhow!(
                    "{} is missing, or another mesh's: nothing was changed. Restore it from a copy of this node's own disk",
                    data.join("mesh.json").display()
                ),
            }
            .into());
        }
    };
    // Once: what others keep by now is not begun again, whatever is left of it here.
    let first = (founded && !founding.complete).then(|| genesis::root(ids.stream("root"), now));
    Ok((identity, founding.founding, first))
}

/// Names the cells that a new mesh begins with.
fn anew(config: &Config, ids: &mut Chance) -> Result<mesh::Known> {
    let cell = |ids: &mut Chance| CellId(Uid::from_chance(ids.u128()));
    let founding = Founding { root: cell(ids), registry: cell(ids) };
    let known = mesh::Known { founding, complete: false, joined: false };
    mesh::store(&config.data, &known, &config.name)?;
    Ok(known)
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

/// Writes the administrator's kubeconfig; returns where the one to use lies, if this node has any.
fn write_kubeconfigs(config: &Config, url: &str, identity: &Identity) -> Result<Option<std::path::PathBuf>> {
    let own = config.data.join("admin.kubeconfig");
    let admin = match identity.root() {
        Ok(root) => Arc::new(root.person(ADMIN.0, ADMIN.1, clock::wall())?),
        Err(_) => match identity.admin() {
            Some(admin) => admin,
            None => return Ok(None),
        },
    };
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
            Ok(Some(path.clone()))
        }
        None => {
            if let Some(path) = kubeconfig::default_path()
                && let Err(error) = kubeconfig::merge(&path, &document)
            {
                tracing::warn!("{error:#}; use --kubeconfig {}", own.display());
            }
            Ok(Some(own))
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
