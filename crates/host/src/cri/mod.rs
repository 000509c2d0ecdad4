//! The Container Runtime Interface v1 over a unix socket: every [`Op`](base::runtime::Op) that is the runtime's.
//!
//! Calls reconnect by themselves. Each has a time limit, after which nothing is known of what became of it.

mod look;
mod message;
mod refusal;

pub(crate) use message::{OWNER, USER_IMAGE};

use base::runtime::{Answer, Container, Failure, Image, PullAuth, Sandbox, Why};
use hyper_util::rt::TokioIo;
use k8s_cri::v1;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use refusal::failure;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

/// A call that only looks.
const LOOK: Duration = Duration::from_secs(30);
/// A call that changes something: as long as the kubelet gives it.
const CHANGE: Duration = Duration::from_secs(120);
/// Making a sandbox takes a network, and on a loaded machine a while.
const SANDBOX: Duration = Duration::from_secs(240);
/// Pulling an image: there are large images and slow links.
const PULL: Duration = Duration::from_secs(2 * 3600);
/// Messages may be as large as containerd makes them: an exec's output is 16 MiB, lists grow with the node.
const MESSAGE_MAX: usize = 64 << 20;
/// What a probe or a hook may have said, as for the kubelet.
const EXEC_OUTPUT_MAX: usize = 10 << 10;
/// Longer than this nothing is waited for, whatever grace is asked: timers do not count further.
const EVER: Duration = Duration::from_secs(365 * 86400);
/// How often a runtime that is just starting is asked again, and how long.
const STARTING_PAUSE: Duration = Duration::from_millis(50);
const STARTING: Duration = Duration::from_secs(10);

/// A client of one runtime. Clones share its connection.
#[derive(Clone)]
pub struct Client {
    socket: PathBuf,
    channel: Channel,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// What a runtime says it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// `containerd`.
    pub name: String,
    /// `1.6.20~ds1`.
    pub version: String,
}

impl fmt::Display for Version {
    /// As a Node's `containerRuntimeVersion`: `containerd://1.6.20~ds1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, self.version)
    }
}

/// A channel to a unix socket, which connects when it is used and again when it was cut.
fn channel(socket: &Path) -> Channel {
    let path = socket.to_owned();
    // The URI is only what `:authority` says, which must be no path.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    }))
}

impl Client {
    /// A client of the runtime behind this socket. Connects when it is first used, within tokio.
    pub fn new(socket: &Path) -> Client {
        Client { socket: socket.to_owned(), channel: channel(socket) }
    }

    /// The connection, for what else is served on it.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    /// Calls, waiting while the runtime says that it is still starting.
    pub(crate) async fn call<Q: Clone, A, F>(
        &self,
        within: Duration,
        message: Q,
        ask: impl Fn(Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let begun = tokio::time::Instant::now();
        loop {
            let mut request = Request::new(message.clone());
            request.set_timeout(within);
            let answered = match tokio::time::timeout(within, ask(request)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {within:?}")),
            };
            if refusal::is_starting(&answered) && begun.elapsed() < STARTING {
                tokio::time::sleep(STARTING_PAUSE).await;
                continue;
            }
            return Err(failure(&self.socket, &answered));
        }
    }

    /// What the runtime is.
    ///
    /// # Errors
    /// [`Why::NoRuntime`] if nothing answers, also as long as it is starting.
    pub async fn version(&self) -> Result<Version, Failure> {
        let asked = v1::VersionRequest { version: "v1".into() };
        let mut request = Request::new(asked);
        request.set_timeout(LOOK);
        match tokio::time::timeout(LOOK, self.runtime().version(request)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                Ok(Version { name: answer.runtime_name, version: answer.runtime_version })
            }
            Ok(Err(status)) => Err(failure(&self.socket, &status)),
            Err(_) => Err(failure(&self.socket, &Status::deadline_exceeded(format!("no answer within {LOOK:?}")))),
        }
    }

    /// Whether the runtime and its network are ready, with the reasons of what is not; and what else it
    /// says of itself, as JSON.
    pub(crate) async fn status(&self) -> Result<v1::StatusResponse, Failure> {
        self.call(LOOK, v1::StatusRequest { verbose: true }, |r| async { self.runtime().status(r).await }).await
    }

    /// Whether the runtime has systemd make control groups, and is to be given slices. Runtimes that do not
    /// know the question (containerd before 2) say it in their status, or not at all.
    pub(crate) async fn is_systemd(&self) -> Result<bool, Failure> {
        let asked = v1::RuntimeConfigRequest {};
        match self.call(LOOK, asked, |r| async { self.runtime().runtime_config(r).await }).await {
            Ok(v1::RuntimeConfigResponse { linux: Some(linux) }) => {
                return Ok(linux.cgroup_driver() == v1::CgroupDriver::Systemd);
            }
            Err(failure) if failure.why == Why::NoRuntime => return Err(failure),
            _ => {}
        }
        let status = self.status().await?;
        Ok(status.info.get("config").is_some_and(|config| look::has_systemd_cgroups(config)))
    }

    /// [`Op::FindImage`](base::runtime::Op::FindImage).
    pub(crate) async fn find_image(&self, image: &str) -> Result<Answer, Failure> {
        let spec = v1::ImageSpec { image: image.into(), ..Default::default() };
        let request = v1::ImageStatusRequest { image: Some(spec), verbose: false };
        let found = self.call(LOOK, request, |r| async { self.images().image_status(r).await }).await?;
        Ok(found.image.map_or(Answer::NoImage, |image| Answer::Image(seen_image(image))))
    }

    /// The id of an image, if it is there.
    pub(crate) async fn image_id(&self, image: &str) -> Result<Option<String>, Failure> {
        Ok(match self.find_image(image).await? {
            Answer::Image(image) => Some(image.id),
            _ => None,
        })
    }

    /// [`Op::PullImage`](base::runtime::Op::PullImage): with each of the credentials until one is taken.
    pub(crate) async fn pull_image(&self, image: &str, auth: &[PullAuth]) -> Result<Answer, Failure> {
        let without = [PullAuth::default()];
        let (tries, anonymous) = if auth.is_empty() { (&without[..], true) } else { (auth, false) };
        let mut refused = None;
        for auth in tries {
            let request = v1::PullImageRequest {
                image: Some(v1::ImageSpec { image: image.into(), ..Default::default() }),
                auth: (!anonymous).then(|| message::auth(auth)),
                sandbox_config: None,
            };
            match self.call(PULL, request, |r| async { self.images().pull_image(r).await }).await {
                Ok(pulled) => {
                    // The name that was pulled may have moved on since; what was pulled has not.
                    let answer = self.find_image(&pulled.image_ref).await?;
                    return match answer {
                        Answer::NoImage => Err(Failure {
                            why: Why::Failed,
                            message: format!("{image} was pulled as {} and is not there any more", pulled.image_ref),
                        }),
                        answer => Ok(answer),
                    };
                }
                Err(failure) if failure.why == Why::NoRuntime => return Err(failure),
                Err(failure) => refused = Some(failure),
            }
        }
        Err(refused.unwrap_or(Failure { why: Why::Failed, message: format!("{image} was not pulled") }))
    }

    /// All images.
    ///
    /// # Errors
    /// Why the runtime does not say.
    pub(crate) async fn images_all(&self) -> Result<Vec<v1::Image>, Failure> {
        let request = v1::ListImagesRequest { filter: None };
        Ok(self.call(LOOK, request, |r| async { self.images().list_images(r).await }).await?.images)
    }

    /// Where images lie.
    pub(crate) async fn image_filesystem(&self) -> Result<Option<PathBuf>, Failure> {
        let info =
            self.call(LOOK, v1::ImageFsInfoRequest {}, |r| async { self.images().image_fs_info(r).await }).await?;
        Ok(info.image_filesystems.into_iter().find_map(|fs| Some(PathBuf::from(fs.fs_id?.mountpoint))))
    }

    /// Removes an image by its id.
    pub(crate) async fn remove_image(&self, id: &str) -> Result<(), Failure> {
        let spec = v1::ImageSpec { image: id.into(), ..Default::default() };
        let request = v1::RemoveImageRequest { image: Some(spec) };
        self.call(CHANGE, request, |r| async { self.images().remove_image(r).await }).await.map(drop)
    }

    /// [`Op::RunSandbox`](base::runtime::Op::RunSandbox). `owner` marks it as ours.
    pub(crate) async fn run_sandbox(&self, sandbox: &Sandbox, owner: &str) -> Result<Answer, Failure> {
        let request = v1::RunPodSandboxRequest {
            config: Some(message::sandbox(sandbox, owner)),
            runtime_handler: sandbox.handler.clone(),
        };
        let made = self.call(SANDBOX, request, |r| async { self.runtime().run_pod_sandbox(r).await }).await?;
        Ok(Answer::Id(made.pod_sandbox_id))
    }

    /// [`Op::StopSandbox`](base::runtime::Op::StopSandbox).
    pub(crate) async fn stop_sandbox(&self, id: String) -> Result<Answer, Failure> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id };
        gone_is_done(self.call(SANDBOX, request, |r| async { self.runtime().stop_pod_sandbox(r).await }).await)
    }

    /// [`Op::RemoveSandbox`](base::runtime::Op::RemoveSandbox).
    pub(crate) async fn remove_sandbox(&self, id: String) -> Result<Answer, Failure> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id };
        gone_is_done(self.call(CHANGE, request, |r| async { self.runtime().remove_pod_sandbox(r).await }).await)
    }

    /// [`Op::CreateContainer`](base::runtime::Op::CreateContainer). `owner` marks it as ours.
    pub(crate) async fn create_container(
        &self,
        id: String,
        of: &Sandbox,
        container: &Container,
        owner: &str,
    ) -> Result<Answer, Failure> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: id,
            config: Some(message::container(of, container, owner)),
            sandbox_config: Some(message::sandbox(of, owner)),
        };
        let made = self.call(CHANGE, request, |r| async { self.runtime().create_container(r).await }).await?;
        Ok(Answer::Id(made.container_id))
    }

    /// [`Op::StartContainer`](base::runtime::Op::StartContainer).
    pub(crate) async fn start_container(&self, id: String) -> Result<Answer, Failure> {
        let request = v1::StartContainerRequest { container_id: id };
        self.call(CHANGE, request, |r| async { self.runtime().start_container(r).await }).await?;
        Ok(Answer::Done)
    }

    /// [`Op::StopContainer`](base::runtime::Op::StopContainer): waits for the grace and then some.
    pub(crate) async fn stop_container(&self, id: String, grace: Duration) -> Result<Answer, Failure> {
        let request = v1::StopContainerRequest { container_id: id, timeout: whole_seconds(grace) };
        let within = grace.min(EVER) + CHANGE;
        gone_is_done(self.call(within, request, |r| async { self.runtime().stop_container(r).await }).await)
    }

    /// [`Op::RemoveContainer`](base::runtime::Op::RemoveContainer).
    pub(crate) async fn remove_container(&self, id: String) -> Result<Answer, Failure> {
        let request = v1::RemoveContainerRequest { container_id: id };
        gone_is_done(self.call(CHANGE, request, |r| async { self.runtime().remove_container(r).await }).await)
    }

    /// [`Op::Exec`](base::runtime::Op::Exec).
    pub(crate) async fn exec(&self, id: String, command: Vec<String>, timeout: Duration) -> Result<Answer, Failure> {
        let seconds = whole_seconds(timeout).max(1);
        let request = v1::ExecSyncRequest { container_id: id, cmd: command, timeout: seconds };
        // The runtime ends the process when its time is over and then says so: it is heard out.
        let within = timeout.min(EVER) + Duration::from_secs(15);
        let ended = self.call(within, request, |r| async { self.runtime().exec_sync(r).await }).await?;
        let mut output = ended.stdout;
        output.extend_from_slice(&ended.stderr);
        output.truncate(EXEC_OUTPUT_MAX);
        Ok(Answer::Exit { code: ended.exit_code, output })
    }

    /// Has the runtime open a container's log anew, by its name.
    pub(crate) async fn reopen_log(&self, id: &str) -> Result<(), Failure> {
        let request = v1::ReopenContainerLogRequest { container_id: id.into() };
        self.call(CHANGE, request, |r| async { self.runtime().reopen_container_log(r).await }).await.map(drop)
    }

    /// Where a command's streams can be had.
    pub(crate) async fn exec_url(&self, request: v1::ExecRequest) -> Result<String, Failure> {
        Ok(self.call(LOOK, request, |r| async { self.runtime().exec(r).await }).await?.url)
    }

    /// Where the streams of what runs can be had.
    pub(crate) async fn attach_url(&self, request: v1::AttachRequest) -> Result<String, Failure> {
        Ok(self.call(LOOK, request, |r| async { self.runtime().attach(r).await }).await?.url)
    }

    /// Where connections into a pod can be had.
    pub(crate) async fn port_forward_url(&self, request: v1::PortForwardRequest) -> Result<String, Failure> {
        Ok(self.call(LOOK, request, |r| async { self.runtime().port_forward(r).await }).await?.url)
    }
}

/// What is to end or to go and is not there has ended and gone.
fn gone_is_done<A>(result: Result<A, Failure>) -> Result<Answer, Failure> {
    match result {
        Err(failure) if failure.why != Why::NotFound => Err(failure),
        _ => Ok(Answer::Done),
    }
}

/// Seconds as the CRI counts them, rounded up.
fn whole_seconds(d: Duration) -> i64 {
    i64::try_from(d.as_secs()).unwrap_or(i64::MAX).saturating_add(i64::from(d.subsec_nanos() > 0))
}

fn seen_image(image: v1::Image) -> Image {
    Image {
        digest: image.repo_digests.into_iter().next().unwrap_or_else(|| image.id.clone()),
        id: image.id,
        bytes: image.size,
        uid: image.uid.map(|uid| uid.value),
        username: image.username,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_is_never_cut_short() {
        assert_eq!(whole_seconds(Duration::ZERO), 0);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(whole_seconds(Duration::MAX), i64::MAX);
    }

    #[tokio::test]
    async fn nobody_behind_the_socket_is_no_runtime() {
        let client = Client::new(Path::new("/nonexistent/beemesh/cri.sock"));
        let failure = client.version().await.unwrap_err();
        assert_eq!(failure.why, Why::NoRuntime);
        assert!(failure.message.contains("/nonexistent/beemesh/cri.sock"), "{}", failure.message);
        assert_eq!(client.start_container("c".into()).await.unwrap_err().why, Why::NoRuntime);
    }
}
