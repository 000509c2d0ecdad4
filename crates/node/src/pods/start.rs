//! One container being started: its image, its environment and files, then made, started, and its hook
//! run. One at a time in a pod, in the order of the spec, so that a hook holds back those after it.
//!
//! Source: the kubelet's `kuberuntime_container.go` (`startContainer`) and `images/image_manager.go`.

use super::Cx;
use super::container::Parts;
use super::credentials;
use super::env::{Env, Read, references};
use super::events::{Events, Type};
use super::handler::{Hook, hook, hooked};
use super::images::{Images, check_name, go_duration};
use super::ops::What;
use super::pod::Pod;
use super::sandbox;
use super::seen::{Expect, is_running};
use super::sources::{Got, Key, Source, Sources};
use super::spec::{self, List};
use base::Time;
use base::runtime::{Answer, Failure, Image, Op, Why};
use objects::Tree;
use objects::kinds::tree::Fields;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What could not be made for want of something is tried again so often.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a pull that failed is called that, before it is called a wait for the next.
const JUST_FAILED: Duration = Duration::from_secs(3);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// Is the image there?
    Find,
    Finding,
    /// Who may pull it?
    Credentials,
    /// The pull's name, and since when.
    Pulling(String, Time),
    /// What the environment refers to.
    Sources,
    /// `/etc/hosts` is written.
    Hosts,
    /// The file for its last words is written.
    Message,
    /// It can be made, with that file, once all that was done before has been seen.
    Ready(String),
    Creating,
    Starting(String),
    /// Its hook runs.
    Hook(String),
    /// Its hook waits.
    Sleep(String, Time),
}

/// A container being started.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) name: String,
    /// The sandbox it is started in.
    sandbox: String,
    attempt: u32,
    stage: Stage,
    since: Time,
    image: Image,
    hosts: Option<String>,
}

impl Start {
    /// Whether the runtime is being asked for something whose outcome decides what there is.
    pub(super) fn is_committed(&self) -> bool {
        matches!(self.stage, Stage::Creating | Stage::Starting(_))
    }
}

/// What has been read of what an environment refers to.
struct Known<'a> {
    pod: &'a Pod,
    namespace: Arc<str>,
    sources: &'a Sources,
}

impl Known<'_> {
    fn get(&self, source: Source, name: &str) -> Result<Option<&Tree>, String> {
        let key = Key { source, namespace: self.namespace.clone(), name: name.into() };
        match self.sources.known(&key) {
            Some(Got::Have(tree)) => Ok(Some(tree)),
            Some(Got::Missing) => Ok(None),
            Some(Got::Refused(why)) => Err(why.clone()),
            None => Err(format!("{name} of pod {} has not been read", spec::formatted(&self.pod.tree))),
        }
    }
}

impl Read for Known<'_> {
    fn config_map(&self, name: &str) -> Result<Option<&Tree>, String> {
        self.get(Source::ConfigMap, name)
    }
    fn secret(&self, name: &str) -> Result<Option<&Tree>, String> {
        self.get(Source::Secret, name)
    }
}

impl Pod {
    /// Begins to start a container in the active sandbox. One that was made and not started, by this
    /// daemon or one before it, is started as it is.
    pub(super) fn begin_start(&mut self, cx: &mut Cx<'_>, name: &str) {
        let Some(sandbox) = self.view.active().map(|s| s.id.clone()) else { return };
        let made = self
            .view
            .active_container(name)
            .filter(|c| matches!(c.state, base::runtime::ContainerState::Created { .. }));
        let (made, attempt) = (made.map(|c| c.id.clone()), self.next_attempt(name));
        let now = cx.now.mono;
        self.starts += 1;
        self.start = Some(Start {
            name: name.to_owned(),
            sandbox,
            attempt,
            stage: Stage::Find,
            since: now,
            image: Image::default(),
            hosts: None,
        });
        match made {
            Some(id) => self.start_made(cx, id),
            None => self.starting(cx),
        }
    }

    /// Gives up what is being started, if that is possible: what the runtime is doing is not.
    pub(super) fn abandon_start(&mut self, cx: &mut Cx<'_>) {
        let Some(start) = self.start.take_if(|s| !s.is_committed()) else { return };
        if let Stage::Pulling(name, _) = &start.stage {
            cx.shared.images.leave(&self.uid, name);
        }
    }

    fn stage(&mut self, stage: Stage) {
        if let Some(start) = &mut self.start {
            start.stage = stage;
        }
    }

    /// Goes on with what is being started, as far as it goes without an answer.
    pub(super) fn starting(&mut self, cx: &mut Cx<'_>) {
        let tree = self.tree.clone();
        while let Some(start) = self.start.clone() {
            let Some((list, container)) = spec::find(&tree, &start.name) else {
                self.abandon_start(cx);
                return;
            };
            let on = match &start.stage {
                Stage::Find => self.find_image(cx, container),
                Stage::Credentials => self.pull_image(cx, container),
                Stage::Pulling(pull, since) => self.pulled(cx, container, pull, *since),
                Stage::Sources => self.read_sources(cx, container, start.since),
                Stage::Ready(message) if self.is_settled() => {
                    self.create(cx, list, container, &start, Some(message));
                    false
                }
                Stage::Hook(id) | Stage::Sleep(id, _) if self.is_settled() && !self.runs(id) => {
                    // It ended while its hook ran.
                    self.start = None;
                    false
                }
                Stage::Sleep(_, until) if cx.now.mono >= *until => {
                    self.start = None;
                    false
                }
                Stage::Sleep(_, until) => {
                    self.wake_at(*until);
                    false
                }
                _ => false,
            };
            if !on {
                return;
            }
        }
    }

    fn runs(&self, id: &str) -> bool {
        self.view.container(id).is_some_and(is_running)
    }

    /// It failed: the reason is shown until it starts, and it is tried again at `again`.
    fn fail_start(&mut self, reason: &'static str, message: String, again: Time) {
        if let Some(start) = self.start.take() {
            self.waiting.insert(start.name.clone(), (reason, message));
            self.not_before.insert(start.name, again);
            self.wake_at(again);
        }
    }

    fn event(&self, cx: &mut Cx<'_>, name: &str, ty: Type, reason: &'static str, message: &str) {
        Events::record(cx, &self.tree, &spec::field_path(&self.tree, name), ty, reason, message);
    }

    fn find_image(&mut self, cx: &mut Cx<'_>, container: &Tree) -> bool {
        let (name, image) = (container.text("name"), container.text("image"));
        let now = cx.now.mono;
        if let Err(why) = check_name(image) {
            let message = format!("Failed to apply default image tag {}: {why}", objects::status::quote(image));
            self.event(cx, name, Type::Warning, "InspectFailed", &message);
            self.event(cx, name, Type::Warning, "Failed", "Error: InvalidImageName");
            self.fail_start("InvalidImageName", message, now + AGAIN);
            return false;
        }
        if container.text("imagePullPolicy") == "Always" {
            self.stage(Stage::Credentials);
            return true;
        }
        self.stage(Stage::Finding);
        cx.shared.ops.ask(&self.uid, What::Start(self.starts), Op::FindImage { image: image.to_owned() }, cx.fx);
        false
    }

    fn found(&mut self, cx: &mut Cx<'_>, container: &Tree, result: Result<Answer, Failure>) {
        let (name, image) = (container.text("name"), container.text("image"));
        let again = cx.now.mono + AGAIN;
        match result {
            Ok(Answer::Image(found)) => {
                let message = format!("Container image {} already present on machine", objects::status::quote(image));
                self.event(cx, name, Type::Normal, "Pulled", &message);
                self.have_image(found);
            }
            Ok(_) if container.text("imagePullPolicy") == "Never" => {
                let message = format!(
                    "Container image {} is not present with pull policy of Never",
                    objects::status::quote(image)
                );
                self.event(cx, name, Type::Warning, "ErrImageNeverPull", &message);
                self.event(cx, name, Type::Warning, "Failed", "Error: ErrImageNeverPull");
                self.fail_start("ErrImageNeverPull", message, again);
            }
            Ok(_) => self.stage(Stage::Credentials),
            Err(failure) => {
                let message = format!("Failed to inspect image {}: {}", objects::status::quote(image), failure.message);
                self.event(cx, name, Type::Warning, "InspectFailed", &message);
                self.event(cx, name, Type::Warning, "Failed", "Error: ImageInspectError");
                self.fail_start("ImageInspectError", message, again);
            }
        }
    }

    fn have_image(&mut self, image: Image) {
        if let Some(start) = &mut self.start {
            start.image = image;
            start.stage = Stage::Sources;
        }
    }

    /// Waits for the Secrets that say who may pull, then for the pull. Secrets that are not there are as
    /// good as none.
    fn pull_image(&mut self, cx: &mut Cx<'_>, container: &Tree) -> bool {
        let (name, image) = (container.text("name"), container.text("image"));
        let now = cx.now.mono;
        if let Some(until) = self.pull.rest(image, now) {
            let message = format!("Back-off pulling image {}", objects::status::quote(image));
            self.event(cx, name, Type::Normal, "BackOff", &message);
            self.event(cx, name, Type::Warning, "Failed", "Error: ImagePullBackOff");
            let message = match self.pull_errors.get(image) {
                Some(why) => format!("{message}: {why}"),
                None => message,
            };
            self.fail_start("ImagePullBackOff", message, until);
            return false;
        }
        let tree = self.tree.clone();
        let namespace: Arc<str> = tree.at("metadata").text("namespace").into();
        let since = self.start.as_ref().map_or(now, |s| s.since);
        let (mut secrets, mut missing, mut all) = (Vec::new(), Vec::new(), true);
        for secret in tree.at("spec").list("imagePullSecrets") {
            let named = secret.text("name");
            let key = Key { source: Source::Secret, namespace: namespace.clone(), name: named.into() };
            match Sources::get(cx, &self.uid, &key, since) {
                Some(Got::Have(tree)) => secrets.push(tree),
                Some(_) => missing.push(named.to_owned()),
                None => all = false,
            }
        }
        if !all {
            return false;
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            Events::record(cx, &self.tree, "", Type::Warning, "FailedToRetrieveImagePullSecret", &message);
        }
        let secrets: Vec<&Tree> = secrets.iter().map(|s| &**s).collect();
        let auth = credentials::fitting(&secrets, image);
        let message = format!("Pulling image {}", objects::status::quote(image));
        self.event(cx, name, Type::Normal, "Pulling", &message);
        let uid = self.uid.clone();
        let pull = Images::pull(cx, &uid, image, auth);
        self.stage(Stage::Pulling(pull, now));
        false
    }

    fn pulled(&mut self, cx: &mut Cx<'_>, container: &Tree, pull: &str, since: Time) -> bool {
        let Some((result, took)) = cx.shared.images.take(&self.uid, pull) else { return false };
        let (name, image) = (container.text("name"), container.text("image"));
        let now = cx.now.mono;
        let quoted = objects::status::quote(image);
        match result {
            Ok(found) => {
                self.pull.forget(image);
                self.pull_errors.remove(image);
                let message = format!(
                    "Successfully pulled image {quoted} in {} ({} including waiting). Image size: {} bytes.",
                    go_duration(took),
                    go_duration(now.since(since)),
                    found.bytes
                );
                self.event(cx, name, Type::Normal, "Pulled", &message);
                self.have_image(found);
                true
            }
            Err(failure) if failure.why == Why::NoRuntime => {
                self.no_runtime(cx);
                false
            }
            Err(failure) => {
                let message = format!("Failed to pull image {quoted}: {}", failure.message);
                self.event(cx, name, Type::Warning, "Failed", &message);
                self.event(cx, name, Type::Warning, "Failed", "Error: ErrImagePull");
                self.pull.next(image, now, now);
                self.pull_errors.insert(image.to_owned(), format!("ErrImagePull: {}", failure.message));
                self.fail_start("ErrImagePull", failure.message, now + JUST_FAILED);
                false
            }
        }
    }

    /// Waits for the ConfigMaps, Secrets and services of the environment, as they were when the start
    /// began or later.
    fn read_sources(&mut self, cx: &mut Cx<'_>, container: &Tree, since: Time) -> bool {
        let namespace: Arc<str> = self.tree.at("metadata").text("namespace").into();
        let (maps, secrets) = references(container);
        let mut keys: Vec<(Source, &str)> = maps.into_iter().map(|n| (Source::ConfigMap, n)).collect();
        keys.extend(secrets.into_iter().map(|n| (Source::Secret, n)));
        if self.tree.at("spec").at("enableServiceLinks").as_bool() != Some(false) {
            keys.push((Source::Services, ""));
        }
        let mut all = true;
        for (source, name) in keys {
            let key = Key { source, namespace: namespace.clone(), name: name.into() };
            all &= Sources::get(cx, &self.uid, &key, since).is_some();
        }
        if !all {
            return false;
        }
        let text = sandbox::hosts_file(&cx.shared.facts, &self.tree, &self.addresses(cx));
        let op =
            Op::File { pod: self.uid.to_string(), path: "etc-hosts".to_owned(), bytes: text.into_bytes(), mode: 0o644 };
        self.stage(Stage::Hosts);
        cx.shared.ops.ask(&self.uid, What::Write(self.starts), op, cx.fx);
        false
    }

    /// The runtime does not answer: that is no fault of the container's.
    fn no_runtime(&mut self, cx: &mut Cx<'_>) {
        let again = cx.now.mono + Duration::from_secs(1);
        if let Some(start) = self.start.take() {
            self.not_before.insert(start.name, again);
        }
        self.wake_at(again);
        self.mark(cx, Expect::Anything);
    }

    fn config_failed(&mut self, cx: &mut Cx<'_>, name: &str, why: String) {
        self.event(cx, name, Type::Warning, "Failed", &format!("Error: {why}"));
        self.fail_start("CreateContainerConfigError", why, cx.now.mono + AGAIN);
    }

    /// A step came back.
    pub(super) fn started_step(&mut self, cx: &mut Cx<'_>, serial: u64, result: Result<Answer, Failure>) {
        let Some(start) = self.start.clone().filter(|_| serial == self.starts) else { return };
        if matches!(&result, Err(f) if f.why == Why::NoRuntime) {
            return self.no_runtime(cx);
        }
        let tree = self.tree.clone();
        let Some((_, container)) = spec::find(&tree, &start.name) else {
            self.start = None;
            self.mark(cx, Expect::Anything);
            return;
        };
        match start.stage {
            Stage::Finding => self.found(cx, container, result),
            Stage::Hosts => self.hosts_written(cx, container, result),
            Stage::Message => match path(result) {
                Ok(message) => self.stage(Stage::Ready(message)),
                Err(why) => self.config_failed(cx, &start.name, why),
            },
            Stage::Creating => self.created(cx, &start.name, result),
            Stage::Starting(id) => self.was_started(cx, container, id, result),
            Stage::Hook(id) => self.post_started(cx, container, &id, result),
            _ => {}
        }
        self.starting(cx);
    }

    fn hosts_written(&mut self, cx: &mut Cx<'_>, container: &Tree, result: Result<Answer, Failure>) {
        let hosts = match path(result) {
            Ok(hosts) => hosts,
            Err(why) => return self.config_failed(cx, container.text("name"), why),
        };
        let Some(start) = &mut self.start else { return };
        start.hosts = Some(hosts);
        start.stage = Stage::Message;
        let op = Op::File {
            pod: self.uid.to_string(),
            path: format!("containers/{}/{}", start.name, start.attempt),
            bytes: Vec::new(),
            mode: 0o666,
        };
        cx.shared.ops.ask(&self.uid, What::Write(self.starts), op, cx.fx);
    }

    fn create(&mut self, cx: &mut Cx<'_>, list: List, container: &Tree, start: &Start, message: Option<&str>) {
        // The world has moved on while this was prepared.
        let there = self.view.active().is_some_and(|s| s.id == start.sandbox);
        if !there || self.is_ending(cx.now) {
            self.start = None;
            return;
        }
        let tree = self.tree.clone();
        let services_key =
            Key { source: Source::Services, namespace: tree.at("metadata").text("namespace").into(), name: "".into() };
        let services = match cx.shared.sources.known(&services_key) {
            Some(Got::Have(list)) => list.list("items").to_vec(),
            _ => Vec::new(),
        };
        let facts = cx.shared.facts.clone();
        let addresses = self.addresses(cx);
        let known = Known { pod: self, namespace: services_key.namespace.clone(), sources: &cx.shared.sources };
        let env =
            Env { facts: &facts, pod: &tree, container, addresses: &addresses, read: &known, services: &services };
        let made = env.variables().and_then(|env| {
            let volumes: &BTreeMap<String, String> = self.volumes.paths();
            let hosts = start.hosts.as_deref();
            let attempt = start.attempt;
            let image = &start.image;
            Parts { facts: &facts, pod: &tree, list, container, attempt, image, env, volumes, hosts, message }
                .container()
        });
        let of = self.view.active().map_or(0, |s| s.attempt);
        match made.and_then(|made| Ok((made, self.sandbox_of(cx, of)?))) {
            Err(why) => self.config_failed(cx, &start.name, why),
            Ok((made, of)) => {
                let op =
                    Op::CreateContainer { sandbox: start.sandbox.clone(), of: Box::new(of), container: Box::new(made) };
                self.stage(Stage::Creating);
                cx.shared.ops.ask(&self.uid, What::Start(self.starts), op, cx.fx);
            }
        }
    }

    fn created(&mut self, cx: &mut Cx<'_>, name: &str, result: Result<Answer, Failure>) {
        match result {
            Ok(Answer::Id(id)) => {
                self.event(cx, name, Type::Normal, "Created", "Container created");
                if self.is_ending(cx.now) {
                    self.start = None;
                    self.mark(cx, Expect::Container(id));
                } else {
                    self.start_made(cx, id);
                }
            }
            other => {
                let why = plain(failure(other));
                self.event(cx, name, Type::Warning, "Failed", &format!("Error: {why}"));
                self.mark(cx, Expect::Anything);
                self.fail_start("CreateContainerError", why, cx.now.mono + AGAIN);
            }
        }
    }

    fn start_made(&mut self, cx: &mut Cx<'_>, id: String) {
        self.stage(Stage::Starting(id.clone()));
        cx.shared.ops.ask(&self.uid, What::Start(self.starts), Op::StartContainer { id }, cx.fx);
    }

    fn was_started(&mut self, cx: &mut Cx<'_>, container: &Tree, id: String, result: Result<Answer, Failure>) {
        let name = container.text("name").to_owned();
        if let Err(e) = result {
            let why = plain(e.message);
            self.event(cx, &name, Type::Warning, "Failed", &format!("Error: {why}"));
            self.mark(cx, Expect::Anything);
            // The container has most likely ended with a start error: its back-off says when to go on.
            self.fail_start("RunContainerError", why, cx.now.mono + Duration::from_secs(1));
            return;
        }
        self.event(cx, &name, Type::Normal, "Started", "Container started");
        self.waiting.remove(&name);
        self.not_before.remove(&name);
        self.mark(cx, Expect::Started(id.clone()));
        let handler = container.at("lifecycle").at("postStart");
        if handler.is_null() {
            self.start = None;
            return;
        }
        match hook(&id, container, handler, self.address(cx), None) {
            Ok(Hook::Ask(op)) => {
                self.stage(Stage::Hook(id));
                cx.shared.ops.ask(&self.uid, What::Start(self.starts), *op, cx.fx);
            }
            Ok(Hook::Sleep(time)) => self.stage(Stage::Sleep(id, cx.now.mono + time)),
            Err(why) => self.hook_failed(cx, &name, &id, why),
        }
    }

    fn post_started(&mut self, cx: &mut Cx<'_>, container: &Tree, id: &str, result: Result<Answer, Failure>) {
        match hooked(&self.tree, container, container.at("lifecycle").at("postStart"), result) {
            Ok(()) => self.start = None,
            Err(why) => self.hook_failed(cx, container.text("name"), id, why),
        }
    }

    fn hook_failed(&mut self, cx: &mut Cx<'_>, name: &str, id: &str, why: String) {
        self.event(cx, name, Type::Warning, "FailedPostStartHook", "PostStartHook failed");
        self.fail_start("PostStartHookError", why, cx.now.mono);
        self.condemned.insert(id.to_owned(), "FailedPostStartHook".to_owned());
    }
}

fn path(result: Result<Answer, Failure>) -> Result<String, String> {
    match result {
        Ok(Answer::Path(path)) => Ok(path),
        other => Err(failure(other)),
    }
}

/// A runtime's refusal without its gRPC code, as the kubelet tells of containers.
fn plain(message: String) -> String {
    match message.strip_prefix("rpc error: code = ").and_then(|rest| rest.split_once(" desc = ")) {
        Some((_, why)) => why.to_owned(),
        None => message,
    }
}

/// What went wrong, in the host's words.
pub(super) fn failure(result: Result<Answer, Failure>) -> String {
    match result {
        Err(Failure { message, why }) if message.is_empty() => match why {
            Why::TimedOut => "context deadline exceeded".to_owned(),
            other => format!("{other:?}"),
        },
        Err(failure) => failure.message,
        Ok(answer) => format!("the host gave an answer that does not fit: {answer:?}"),
    }
}
