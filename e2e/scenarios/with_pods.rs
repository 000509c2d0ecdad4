//! The stage of the stories in which pods run: a machine, a registry at its cable, a node in it.

use anyhow::{Context, Result, bail};
use e2e::{Kubectl, Machine, Model, Node, Options, Place, Registry, images, until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long anything may take that waits for pods, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A mesh of one that runs pods.
pub(crate) struct Mesh {
    pub(crate) kubectl: Kubectl,
    pub(crate) node: Node,
    pub(crate) registry: Registry,
    pub(crate) machine: Arc<Machine>,
    place: Place,
}

/// Tells a story of a mesh of one. If it fails, what the mesh said is part of the error.
pub(crate) fn story(name: &str, tell: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
    story_on(name, Model::new("vm")?, tell)
}

/// As [`story`], on a machine of that model.
pub(crate) fn story_on(name: &str, model: Model, tell: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
    let mut mesh = Mesh::start(name, model)?;
    match catch_unwind(AssertUnwindSafe(|| tell(&mut mesh))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => bail!("{e:?}\n{}", mesh.tells()),
        Err(panic) => {
            eprintln!("{}", mesh.tells());
            resume_unwind(panic)
        }
    }
}

impl Mesh {
    fn start(story: &str, model: Model) -> Result<Mesh> {
        let place = Place::new(story)?;
        let machine = Arc::new(Machine::start(&place, model)?);
        let registry = Registry::serve(machine.outside())?;
        for image in [images::busybox("1.36")?, images::busybox("1.37")?, images::busybox("latest")?] {
            registry.push(&image);
        }
        for version in ["1.14.2", "1.16.1"] {
            registry.push(&images::nginx(version)?);
        }
        let mut options = Options::with_pods(&machine);
        options.flags.extend(["--registry-mirror".to_owned(), format!("docker.io={}", registry.url())]);
        let node = Node::start(&place, options)?;
        let kubectl = node.kubectl();
        let mesh = Mesh { kubectl, node, registry, machine, place };
        mesh.ready()?;
        Ok(mesh)
    }

    /// What a person would look at first.
    fn tells(&self) -> String {
        let ask = |args: &[&str]| self.kubectl.run(args).map_or_else(|e| format!("{e:#}"), |a| a.told());
        let pods = ask(&["get", "pods,nodes", "-A", "-o", "wide"]);
        let events = ask(&["events", "-A"]);
        format!("{pods}\n{events}\n{}", self.node.log_tail())
    }

    /// A path in the story's own folder.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// Waits until the node says that pods can run.
    pub(crate) fn ready(&self) -> Result<()> {
        let ready = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        let known = self.kubectl.until_prints("True", &["get", "nodes", "-o", ready]);
        let made = known.and_then(|()| {
            self.kubectl.until_prints("serviceaccount/default\n", &["get", "serviceaccount", "default", "-o", "name"])
        });
        made.with_context(|| self.node.log_tail())
    }

    /// Creates what these lines of YAML say.
    pub(crate) fn apply(&self, yaml: &str) -> Result<()> {
        self.kubectl.ok_with(&["apply", "-f", "-"], yaml)?;
        Ok(())
    }

    /// Waits until a pod is ready.
    pub(crate) fn until_ready(&self, pod: &str) -> Result<()> {
        self.until(pod, "it is ready", |pod| condition(pod, "Ready") == Some("True"))?;
        Ok(())
    }

    /// Waits until a pod is so. Returns it.
    pub(crate) fn until(&self, pod: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let seen = until(&format!("pod {pod} of which {what}"), SOON, || {
            last = self.kubectl.json(&["get", "pod", pod])?;
            Ok(is_so(&last).then(|| last.clone()))
        });
        seen.with_context(|| {
            let described = self.kubectl.run(&["describe", "pod", pod]).map(|a| a.told()).unwrap_or_default();
            format!("its status: {:#}\n{described}", last["status"])
        })
    }

    /// Waits until events of an object, or of all with none named, say all of it. They come after what they tell of.
    pub(crate) fn until_told(&self, object: Option<&str>, words: &[&str]) -> Result<()> {
        let mut last = String::new();
        let told = until(&format!("events of {object:?} that say {words:?}"), SOON, || {
            last = match object {
                Some(object) => self.kubectl.ok(&["events", "--for", object])?,
                None => self.kubectl.ok(&["events"])?,
            };
            Ok(words.iter().all(|word| last.contains(word)).then_some(()))
        });
        told.context(last)
    }

    /// Waits until a pod has ended. Returns what its only container said.
    pub(crate) fn said(&self, pod: &str) -> Result<String> {
        let ended = |pod: &Value| ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == **phase);
        let ended = self.until(pod, "it has ended", ended)?;
        let said = self.kubectl.ok(&["logs", pod])?;
        if ended["status"]["phase"] == "Failed" {
            bail!("pod {pod} failed and said: {said}\n{:#}", ended["status"]);
        }
        Ok(said)
    }

    /// The pods with a label, each with the first container's id and how often that was restarted.
    pub(crate) fn running(&self, selector: &str) -> Result<Vec<(String, String, u64)>> {
        let pods = self.kubectl.json(&["get", "pods", "-l", selector])?;
        let all = pods["items"].as_array().context("no list")?.iter().map(|pod| {
            let status = &pod["status"]["containerStatuses"][0];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&pod["metadata"]["name"]), text(&status["containerID"]), status["restartCount"].as_u64().unwrap_or(0))
        });
        Ok(all.collect())
    }
}

/// The status of a pod's condition.
pub(crate) fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a str> {
    pod["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)?["status"].as_str()
}

/// The body of an answer to a plain GET.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer:?}"))?;
    if !head.lines().next().is_some_and(|status| status.contains(" 200 ")) {
        bail!("{head}");
    }
    Ok(body.to_owned())
}

/// The documentation's first Deployment (kubernetes.io/docs/concepts/workloads/controllers/deployment), as it is.
pub(crate) const NGINX: &str = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: nginx-deployment
  labels:
    app: nginx
spec:
  replicas: 3
  selector:
    matchLabels:
      app: nginx
  template:
    metadata:
      labels:
        app: nginx
    spec:
      containers:
      - name: nginx
        image: nginx:1.14.2
        ports:
        - containerPort: 80
";
