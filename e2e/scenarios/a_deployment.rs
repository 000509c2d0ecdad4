//! A Deployment nobody adapted, from its first pod to its end.

use crate::with_pods::{Mesh, NGINX, SOON, story};
use anyhow::{Result, ensure};

/// The image of every pod that is not going, and whether it is ready.
const IMAGES: &str = r#"jsonpath={range .items[*]}{.spec.containers[0].image} {.status.phase}{"\n"}{end}"#;

fn pods(mesh: &Mesh, image: &str, replicas: usize) -> Result<()> {
    let wanted = format!("{image} Running\n").repeat(replicas);
    mesh.kubectl.until_prints(&wanted, &["get", "pods", "-l", "app=nginx", "-o", IMAGES])
}

#[test]
fn a_deployment_runs_and_is_shown() -> Result<()> {
    story("deployment", |mesh| {
        let kubectl = &mesh.kubectl;
        let watch = kubectl.watch(&["get", "pods", "-w", "--no-headers"])?;
        assert_eq!(kubectl.ok_with(&["apply", "-f", "-"], NGINX)?, "deployment.apps/nginx-deployment created\n");
        let rolled = kubectl.ok(&["rollout", "status", "deployment/nginx-deployment", "--timeout=60s"])?;
        ensure!(rolled.ends_with("deployment \"nginx-deployment\" successfully rolled out\n"), "{rolled}");
        pods(mesh, "nginx:1.14.2", 3)?;

        let table = kubectl.ok(&["get", "deployments"])?;
        let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!(row[..4], ["nginx-deployment", "3/3", "3", "3"], "{table}");
        let sets = kubectl.ok(&["get", "rs", "-o", "wide", "--no-headers"])?;
        let row: Vec<&str> = sets.split_whitespace().collect();
        assert_eq!((&row[1..4], &row[5..7]), (&["3", "3", "3"][..], &["nginx", "nginx:1.14.2"][..]), "{sets}");
        let wide = kubectl.ok(&["get", "pods", "-o", "wide", "--no-headers"])?;
        for line in wide.lines() {
            let row: Vec<&str> = line.split_whitespace().collect();
            ensure!(row[1] == "1/1" && row[2] == "Running" && row[3] == "0", "{wide}");
            ensure!(row[5].starts_with("10.42.") && row[6] == "vm", "{wide}");
        }
        let lines = watch.end()?.0;
        ensure!(["Pending", "Running"].iter().all(|p| lines.iter().any(|l| l.contains(p))), "{lines:?}");

        let yaml = kubectl.ok(&["get", "deployment", "nginx-deployment", "-o", "yaml"])?;
        ensure!(yaml.contains("readyReplicas: 3") && yaml.contains("progressDeadlineSeconds: 600"), "{yaml}");
        let described = kubectl.ok(&["describe", "deployment", "nginx-deployment"])?;
        ensure!(described.contains("3 desired | 3 updated | 3 total | 3 available | 0 unavailable"), "{described}");
        ensure!(described.contains("ScalingReplicaSet") && described.contains("NewReplicaSetAvailable"), "{described}");
        // Events come after what they tell of.
        let (pod, ..) = mesh.running("app=nginx")?.swap_remove(0);
        e2e::until("the events of a pod's beginning", SOON, || {
            let described = kubectl.ok(&["describe", "pod", &pod])?;
            let reasons = ["Scheduled", "Pulled", "Created", "Started"];
            Ok(reasons.iter().all(|reason| described.contains(reason)).then_some(()))
        })?;
        mesh.until_told(Some("deployment/nginx-deployment"), &["Scaled up replica set nginx-deployment-"])?;
        let logs = kubectl.ok(&["logs", "deployment/nginx-deployment"])?;
        ensure!(logs.contains("start worker processes of 1.14.2"), "{logs}");
        kubectl.ok(&["wait", "--for=condition=Available", "deployment/nginx-deployment", "--timeout=30s"])?;
        kubectl.ok(&[
            "wait",
            "--for=jsonpath={.status.readyReplicas}=3",
            "deployment/nginx-deployment",
            "--timeout=30s",
        ])?;
        Ok(())
    })
}

#[test]
fn a_deployment_is_scaled_changed_undone_restarted_and_paused() -> Result<()> {
    story("rollouts", |mesh| {
        let kubectl = &mesh.kubectl;
        let (deployment, rolled) = ("deployment/nginx-deployment", || {
            kubectl.ok(&["rollout", "status", "deployment/nginx-deployment", "--timeout=60s"])
        });
        mesh.apply(NGINX)?;
        rolled()?;
        kubectl.ok(&["scale", deployment, "--replicas=5"])?;
        pods(mesh, "nginx:1.14.2", 5)?;
        kubectl.ok(&["scale", deployment, "--replicas=2"])?;
        pods(mesh, "nginx:1.14.2", 2)?;

        kubectl.ok(&["set", "image", deployment, "nginx=nginx:1.16.1"])?;
        rolled()?;
        pods(mesh, "nginx:1.16.1", 2)?;
        let history = kubectl.ok(&["rollout", "history", deployment])?;
        let revisions: Vec<&str> = history.lines().skip(2).filter_map(|l| l.split_whitespace().next()).collect();
        assert_eq!(revisions, ["1", "2"], "{history}");
        let second = kubectl.ok(&["rollout", "history", deployment, "--revision=2"])?;
        ensure!(second.contains("nginx:1.16.1"), "{second}");

        kubectl.ok(&["rollout", "undo", deployment])?;
        rolled()?;
        pods(mesh, "nginx:1.14.2", 2)?;
        let history = kubectl.ok(&["rollout", "history", deployment])?;
        let revisions: Vec<&str> = history.lines().skip(2).filter_map(|l| l.split_whitespace().next()).collect();
        assert_eq!(revisions, ["2", "3"], "{history}");

        let before = mesh.running("app=nginx")?;
        kubectl.ok(&["rollout", "restart", deployment])?;
        rolled()?;
        pods(mesh, "nginx:1.14.2", 2)?;
        let after = mesh.running("app=nginx")?;
        ensure!(before.iter().all(|old| after.iter().all(|new| old.1 != new.1)), "{before:?} {after:?}");

        kubectl.ok(&["rollout", "pause", deployment])?;
        kubectl.ok(&["set", "image", deployment, "nginx=nginx:1.16.1"])?;
        let told = kubectl.run(&["rollout", "restart", deployment])?;
        ensure!(!told.succeeded() && told.stderr.contains("can't restart paused deployment"), "{}", told.told());
        // A paused one scales, so this is later than any change of its image could be.
        kubectl.ok(&["scale", deployment, "--replicas=3"])?;
        pods(mesh, "nginx:1.14.2", 3)?;
        kubectl.ok(&["rollout", "resume", deployment])?;
        rolled()?;
        pods(mesh, "nginx:1.16.1", 3)?;

        // One that cannot come leaves what runs alone, and is undone.
        kubectl.ok(&["set", "image", deployment, "nginx=nginx:nowhere"])?;
        let waiting = r#"jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}"#;
        e2e::until("a pod without its image", SOON, || {
            let reasons = kubectl.ok(&["get", "pods", "-l", "app=nginx", "-o", waiting])?;
            Ok((reasons.contains("ErrImagePull") || reasons.contains("ImagePullBackOff")).then_some(()))
        })?;
        let available = kubectl.json(&["get", deployment])?["status"]["availableReplicas"].as_u64();
        ensure!(available >= Some(3), "available meanwhile: {available:?}");
        kubectl.ok(&["rollout", "undo", deployment])?;
        rolled()?;
        pods(mesh, "nginx:1.16.1", 3)
    })
}

#[test]
fn what_belongs_to_a_deployment_goes_as_it_is_told_to() -> Result<()> {
    story("cascades", |mesh| {
        let kubectl = &mesh.kubectl;
        let gone = |kinds: &str| kubectl.until_prints("", &["get", kinds, "-l", "app=nginx", "-o", "name"]);

        mesh.apply(NGINX)?;
        pods(mesh, "nginx:1.14.2", 3)?;
        kubectl.ok(&["delete", "deployment", "nginx-deployment", "--cascade=background"])?;
        gone("rs,pods")?;

        mesh.apply(NGINX)?;
        pods(mesh, "nginx:1.14.2", 3)?;
        kubectl.ok(&["delete", "deployment", "nginx-deployment", "--cascade=foreground", "--timeout=60s"])?;
        // It waited for what it owns.
        assert_eq!(kubectl.ok(&["get", "rs,pods", "-l", "app=nginx", "-o", "name"])?, "");

        mesh.apply(NGINX)?;
        pods(mesh, "nginx:1.14.2", 3)?;
        let before = mesh.running("app=nginx")?;
        kubectl.ok(&["delete", "deployment", "nginx-deployment", "--cascade=orphan"])?;
        kubectl.ok(&["delete", "rs", "-l", "app=nginx", "--cascade=orphan"])?;
        let owners = r#"jsonpath={.items[*].metadata.ownerReferences}"#;
        kubectl.until_prints("", &["get", "pods", "-l", "app=nginx", "-o", owners])?;
        assert_eq!(mesh.running("app=nginx")?, before, "orphans run on");
        // A new one takes them in.
        mesh.apply(NGINX)?;
        kubectl.ok(&["rollout", "status", "deployment/nginx-deployment", "--timeout=60s"])?;
        assert_eq!(mesh.running("app=nginx")?, before, "orphans are adopted");
        kubectl.ok(&["delete", "deployment", "nginx-deployment", "--grace-period=1"])?;
        gone("rs,pods")
    })
}
