//! A container as the runtime is asked for it.
//!
//! Source: the kubelet's `kuberuntime_container.go`, `kubelet_pods.go` (`makeMounts`) and `labels.go`.

use super::expand::expand;
use super::facts::NodeFacts;
use super::sandbox::{POD_NAME, POD_NAMESPACE, POD_UID};
use super::spec::{self, List};
use super::{qos, security, volumes};
use base::runtime::{Container, Image, Mount, Propagation};
use objects::Tree;
use objects::kinds::tree::Fields;
use objects::status::quote;
use std::collections::BTreeMap;

/// Label of a container's name.
pub(super) const NAME: &str = "io.kubernetes.container.name";
/// Annotation: which definition it was made of.
pub(super) const DEFINITION: &str = "io.kubernetes.container.hash";
/// Annotation: how often it was restarted.
pub(super) const RESTARTS: &str = "io.kubernetes.container.restartCount";
/// Annotation: when its log stands in for its last words.
pub(super) const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the file inside into which it writes its last words.
const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: the file of the host into which it writes its last words.
pub(super) const MESSAGE_FILE: &str = "beemesh.io/termination-message";
const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// What a container is made of, all of it at hand.
pub(super) struct Parts<'a> {
    pub(super) facts: &'a NodeFacts,
    pub(super) pod: &'a Tree,
    pub(super) list: List,
    pub(super) container: &'a Tree,
    pub(super) attempt: u32,
    pub(super) image: &'a Image,
    pub(super) env: Vec<(String, String)>,
    /// Where each volume lies.
    pub(super) volumes: &'a BTreeMap<String, String>,
    /// The file that becomes `/etc/hosts`.
    pub(super) hosts: Option<&'a str>,
    /// The file for its last words.
    pub(super) message: Option<&'a str>,
}

impl Parts<'_> {
    /// The container.
    ///
    /// # Errors
    /// Why it cannot be made, in the kubelet's words.
    pub(super) fn container(self) -> Result<Container, String> {
        let c = self.container;
        let name = c.text("name").to_owned();
        let texts = |list: &str| -> Vec<String> {
            let value = |n: &str| self.env.iter().rev().find(|(k, _)| k == n).map(|(_, v)| v.clone());
            c.list(list).iter().filter_map(Tree::as_str).map(|t| expand(t, value)).collect()
        };
        Ok(Container {
            attempt: self.attempt,
            image: self.image.id.clone(),
            user_image: c.text("image").to_owned(),
            command: texts("command"),
            args: texts("args"),
            working_dir: c.text("workingDir").to_owned(),
            mounts: self.mounts()?,
            devices: Vec::new(),
            labels: self.labels(),
            annotations: self.annotations(),
            log_path: format!("{name}/{}.log", self.attempt),
            stdin: c.flag("stdin"),
            stdin_once: c.flag("stdinOnce"),
            tty: c.flag("tty"),
            resources: qos::resources(self.facts, self.pod, self.list, c),
            security: security::of_container(self.facts, self.pod, c, self.image)?,
            env: self.env,
            name,
        })
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let meta = self.pod.at("metadata");
        [
            (POD_NAME, meta.text("name")),
            (POD_NAMESPACE, meta.text("namespace")),
            (POD_UID, meta.text("uid")),
            (NAME, self.container.text("name")),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let c = self.container;
        let grace = self.pod.at("spec").int("terminationGracePeriodSeconds").map(|g| g.to_string());
        [
            (DEFINITION, Some(spec::definition(c))),
            (RESTARTS, Some(self.attempt.to_string())),
            (MESSAGE_PATH, Some(c.text("terminationMessagePath").to_owned())),
            (MESSAGE_POLICY, Some(c.text("terminationMessagePolicy").to_owned())),
            (MESSAGE_FILE, self.message.map(str::to_owned)),
            (GRACE, grace),
        ]
        .into_iter()
        .filter_map(|(k, v)| Some((k.to_owned(), v?)))
        .collect()
    }

    fn mounts(&self) -> Result<Vec<Mount>, String> {
        let name = self.container.text("name");
        let mut mounts = Vec::new();
        for mount in self.container.list("volumeMounts") {
            let volume = mount.text("name");
            let Some(lies) = self.volumes.get(volume) else {
                return Err(format!("cannot find volume {} to mount into container {}", quote(volume), quote(name)));
            };
            let sub = self.sub_path(mount)?;
            mounts.push(Mount {
                container_path: absolute(mount.text("mountPath")),
                host_path: if sub.is_empty() { lies.clone() } else { format!("{lies}/{sub}") },
                within: if sub.is_empty() { String::new() } else { lies.clone() },
                // What shows objects is never written, whatever the mount says.
                read_only: mount.flag("readOnly") || volumes::shows_objects(self.pod, volume),
                propagation: match mount.text("mountPropagation") {
                    "HostToContainer" => Propagation::HostToContainer,
                    "Bidirectional" => Propagation::Bidirectional,
                    _ => Propagation::Private,
                },
            });
        }
        let taken = |path: &str| self.container.list("volumeMounts").iter().any(|m| m.text("mountPath") == path);
        let file = |container_path: String, host_path: &str| Mount {
            container_path,
            host_path: host_path.to_owned(),
            ..Mount::default()
        };
        if let Some(hosts) = self.hosts.filter(|_| !taken("/etc/hosts")) {
            mounts.push(file("/etc/hosts".to_owned(), hosts));
        }
        if let Some(message) = self.message {
            mounts.push(file(absolute(self.container.text("terminationMessagePath")), message));
        }
        Ok(mounts)
    }

    /// The part of a volume that is mounted; empty for all of it. Never outside.
    fn sub_path(&self, mount: &Tree) -> Result<String, String> {
        let sub = match mount.text("subPathExpr") {
            "" => mount.text("subPath").to_owned(),
            text => {
                let mut missing = std::collections::BTreeSet::new();
                let sub = expand(text, |n| {
                    let value = self.env.iter().rev().find(|(k, _)| k == n).map(|(_, v)| v.clone());
                    if value.as_deref().unwrap_or_default().is_empty() {
                        missing.insert(n.to_owned());
                    }
                    value
                });
                if !missing.is_empty() {
                    let names: Vec<String> = missing.into_iter().collect();
                    return Err(format!("missing value for {}", names.join(", ")));
                }
                sub
            }
        };
        if sub.starts_with('/') {
            return Err(format!("error SubPath `{sub}` must not be an absolute path"));
        }
        if sub.split('/').any(|part| part == "..") {
            return Err(format!("unable to provision SubPath `{sub}`: must not contain '..'"));
        }
        let parts: Vec<&str> = sub.split('/').filter(|p| !matches!(*p, "" | ".")).collect();
        Ok(parts.join("/"))
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn made(container: Tree) -> Result<Container, String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"terminationGracePeriodSeconds": 30, "containers": [container]}});
        let facts = NodeFacts { memory_bytes: 1 << 30, ..NodeFacts::default() };
        Parts {
            facts: &facts,
            pod: &pod,
            list: List::Main,
            container: &pod["spec"]["containers"][0],
            attempt: 3,
            image: &Image { id: "sha256:1".into(), ..Image::default() },
            env: vec![("A".into(), "1".into()), ("EMPTY".into(), String::new())],
            volumes: &[("v".to_owned(), "/pods/u/v".to_owned())].into(),
            hosts: Some("/pods/u/hosts"),
            message: Some("/pods/u/c/3"),
        }
        .container()
    }

    #[test]
    fn a_container_says_whose_it_is_and_what_it_was_made_of() {
        let c = made(json!({"name": "c", "image": "busybox", "command": ["sh", "$(A)"], "args": ["$(B)"],
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}))
        .unwrap();
        assert_eq!((c.command, c.args), (vec!["sh".to_owned(), "1".into()], vec!["$(B)".to_owned()]));
        assert_eq!((c.attempt, c.log_path.as_str(), c.image.as_str()), (3, "c/3.log", "sha256:1"));
        assert_eq!(c.labels[POD_UID], "u");
        assert_eq!(c.annotations[RESTARTS], "3");
        assert_eq!(c.annotations[MESSAGE_FILE], "/pods/u/c/3");
        let paths: Vec<&str> = c.mounts.iter().map(|m| m.container_path.as_str()).collect();
        assert_eq!(paths, ["/etc/hosts", "/dev/termination-log"]);
    }

    #[test]
    fn what_shows_objects_is_mounted_read_only() {
        let volumes = json!([
            {"name": "map", "configMap": {"name": "m"}}, {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "down", "downwardAPI": {}}, {"name": "all", "projected": {"sources": []}},
            {"name": "empty", "emptyDir": {}}, {"name": "host", "hostPath": {"path": "/x"}},
        ]);
        let names = ["map", "secret", "down", "all", "empty", "host"];
        let mounts: Vec<Tree> = names.iter().map(|n| json!({"name": n, "mountPath": format!("/{n}")})).collect();
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"volumes": volumes, "containers": [{"name": "c", "volumeMounts": mounts}]}});
        let lies = names.map(|n| (n.to_owned(), format!("/pods/u/{n}"))).into();
        let made = Parts {
            facts: &NodeFacts { memory_bytes: 1, ..NodeFacts::default() },
            pod: &pod,
            list: List::Main,
            container: &pod["spec"]["containers"][0],
            attempt: 0,
            image: &Image::default(),
            env: Vec::new(),
            volumes: &lies,
            hosts: None,
            message: None,
        };
        let read_only: Vec<bool> = made.container().unwrap().mounts.iter().map(|m| m.read_only).collect();
        assert_eq!(read_only, [true, true, true, true, false, false]);
    }

    #[test]
    fn a_mount_stays_inside_its_volume() {
        let host_path = |mount: Tree| {
            let c = made(json!({"name": "c", "volumeMounts": [mount]}))?;
            Ok(c.mounts[0].host_path.clone())
        };
        for (mount, want) in [
            (json!({"name": "v", "mountPath": "/m"}), Ok("/pods/u/v")),
            (json!({"name": "v", "mountPath": "/m", "subPath": "a/./b/"}), Ok("/pods/u/v/a/b")),
            (json!({"name": "v", "mountPath": "/m", "subPathExpr": "x$(A)"}), Ok("/pods/u/v/x1")),
            (
                json!({"name": "v", "mountPath": "/m", "subPathExpr": "$(EMPTY)/$(NO)"}),
                Err("missing value for EMPTY, NO"),
            ),
            (
                json!({"name": "v", "mountPath": "/m", "subPath": "a/../../b"}),
                Err("unable to provision SubPath `a/../../b`: must not contain '..'"),
            ),
            (
                json!({"name": "v", "mountPath": "/m", "subPath": "/etc"}),
                Err("error SubPath `/etc` must not be an absolute path"),
            ),
            (json!({"name": "w", "mountPath": "/m"}), Err("cannot find volume \"w\" to mount into container \"c\"")),
        ] {
            let got: Result<String, String> = host_path(mount.clone());
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{mount}");
        }
        let own_hosts =
            made(json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/etc/hosts", "subPath": "h"}]}))
                .unwrap();
        assert_eq!(own_hosts.mounts.iter().filter(|m| m.container_path == "/etc/hosts").count(), 1);
    }
}
