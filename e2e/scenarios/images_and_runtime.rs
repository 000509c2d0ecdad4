//! Images that do not come, and a container runtime that dies or was never there.

use crate::with_pods::{NGINX, SOON, story};
use anyhow::{Context, Result, ensure};
use e2e::{Machine, Manner, Model, Node, Options, Place, images, until};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use std::sync::Arc;

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{more}  \
         containers:\n  - {{name: main, image: '{image}', command: [sleep, '100000']}}\n"
    )
}

/// Why a pod's container waits.
fn waits<'a>(pod: &'a Value, reason: &str) -> Option<&'a str> {
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    (waiting["reason"] == reason).then(|| waiting["message"].as_str().unwrap_or_default())
}

#[test]
fn an_image_that_does_not_come_is_named_with_the_reason() -> Result<()> {
    story("images", |mesh| {
        let kubectl = &mesh.kubectl;
        mesh.apply(&pod("nowhere", "nowhere:1", ""))?;
        let seen = mesh.until("nowhere", "the image does not come", |p| waits(p, "ErrImagePull").is_some())?;
        let why = waits(&seen, "ErrImagePull").unwrap_or_default();
        ensure!(why.contains("docker.io/library/nowhere:1") && why.contains("not found"), "{why}");
        let seen = mesh.until("nowhere", "it backs off", |p| waits(p, "ImagePullBackOff").is_some())?;
        let why = waits(&seen, "ImagePullBackOff").unwrap_or_default();
        ensure!(why.starts_with("Back-off pulling image \"nowhere:1\""), "{why}");
        let told = ["Failed to pull image \"nowhere:1\"", "Error: ErrImagePull", "Error: ImagePullBackOff"];
        mesh.until_told(Some("pod/nowhere"), &told)?;
        // It goes on trying, so an image that was pushed late is enough.
        mesh.registry.push(&images::image("library/nowhere", "1", &[], &images::Config::default())?);
        mesh.until_ready("nowhere")?;

        mesh.apply(&pod("wrong", "Not_A/Name", ""))?;
        mesh.until("wrong", "its image has no name", |p| waits(p, "InvalidImageName").is_some())?;
        let never = pod("never", "busybox:1.37", "").replace("image:", "imagePullPolicy: Never, image:");
        mesh.apply(&never)?;
        let seen = mesh.until("never", "nobody may pull", |p| waits(p, "ErrImageNeverPull").is_some())?;
        let why = "Container image \"busybox:1.37\" is not present with pull policy of Never";
        assert_eq!(waits(&seen, "ErrImageNeverPull"), Some(why));

        mesh.registry.push(&images::image("library/secret", "1", &[], &images::Config::default())?);
        mesh.registry.let_answer("library/secret", Manner::Private("bee".to_owned(), "honey".to_owned()));
        mesh.apply(&pod("refused", "secret:1", ""))?;
        mesh.until("refused", "the registry wants a password", |p| {
            waits(p, "ErrImagePull").is_some_and(|why| why.contains("401") || why.contains("authorization failed"))
        })?;
        let server = "--docker-server=https://index.docker.io/v1/";
        let key = ["create", "secret", "docker-registry", "key", server];
        kubectl.ok(&[&key[..], &["--docker-username=bee", "--docker-password=honey"]].concat())?;
        mesh.apply(&pod("let-in", "secret:1", "  imagePullSecrets: [{name: key}]\n"))?;
        mesh.until_ready("let-in")?;

        mesh.registry.let_answer("library/broken", Manner::Broken);
        mesh.apply(&pod("broken", "broken:1", ""))?;
        mesh.until("broken", "the registry is broken", |p| {
            waits(p, "ErrImagePull").is_some_and(|w| w.contains("500"))
        })?;
        Ok(())
    })
}

#[test]
fn a_containerd_that_dies_comes_back_and_containers_go_on() -> Result<()> {
    story("containerd", |mesh| {
        mesh.apply(NGINX)?;
        mesh.kubectl.ok(&["rollout", "status", "deployment/nginx-deployment", "--timeout=60s"])?;
        let before = mesh.running("app=nginx")?;
        for _ in 0..3 {
            let old = mesh.machine.processes("containerd")?;
            kill(*old.first().context("no containerd")?, Signal::SIGKILL)?;
            until("another containerd", SOON, || {
                Ok(mesh.machine.processes("containerd")?.iter().any(|new| !old.contains(new)).then_some(()))
            })?;
            // Whoever asks meanwhile gets an answer or a refusal, and soon an answer.
            until("an answer from inside", SOON, || {
                let answer = mesh.kubectl.run(&["exec", &before[0].0, "--", "echo", "here"])?;
                Ok((answer.stdout == "here\n").then_some(()))
            })?;
            assert_eq!(mesh.running("app=nginx")?, before, "the same containers, never restarted");
        }
        mesh.ready()?;
        // It does new work, too.
        mesh.kubectl.ok(&["scale", "deployment/nginx-deployment", "--replicas=4"])?;
        mesh.kubectl.ok(&["rollout", "status", "deployment/nginx-deployment", "--timeout=60s"])?;
        Ok(())
    })
}

#[test]
fn a_machine_without_containerd_says_what_to_install_and_serves_the_api() -> Result<()> {
    let place = Place::new("no-containerd")?;
    let machine = Arc::new(Machine::start(&place, Model::new("vm")?)?);
    // The machine has this one's programs, so what must not be there is covered.
    let program = machine.ok(&["sh", "-c", "command -v containerd"])?;
    machine.ok(&["sh", "-c", "mkdir -p /srv && touch /srv/nothing"])?;
    machine.ok(&["mount", "--bind", "/srv/nothing", program.trim()])?;
    let node = Node::start(&place, Options::with_pods(&machine))?;
    until("a letter about containerd", SOON, || {
        let log = node.log_tail();
        Ok((log.contains("apt-get install containerd")).then_some(()))
    })
    .with_context(|| node.log_tail())?;
    node.kubectl().ok(&["create", "namespace", "shop"])?;
    let ready = r#"jsonpath={.items[0].status.conditions[?(@.type=="Ready")].status}"#;
    ensure!(node.kubectl().ok(&["get", "nodes", "-o", ready])? != "True", "a node that cannot run pods is not ready");
    Ok(())
}
