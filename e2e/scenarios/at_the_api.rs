//! What kubectl does with the API alone, without a pod: both kinds of apply, diff, edit, labels, explain, who may
//! what, and what there is no answer for yet.

use crate::with_pods::NGINX;
use anyhow::{Result, ensure};
use e2e::{Node, Options, Place};

fn node(place: &Place) -> Result<Node> {
    Node::start(place, Options::without_pods(place.join("data")))
}

#[test]
fn objects_are_applied_compared_edited_and_marked() -> Result<()> {
    let place = Place::new("at-the-api")?;
    let node = node(&place)?;
    let kubectl = node.kubectl();
    let paused = NGINX.replace("replicas: 3", "replicas: 3\n  paused: true");
    assert_eq!(kubectl.ok_with(&["apply", "-f", "-"], &paused)?, "deployment.apps/nginx-deployment created\n");
    assert_eq!(kubectl.run_with(&["diff", "-f", "-"], &paused)?.status.code(), Some(0));
    let changed = paused.replace("replicas: 3", "replicas: 4");
    let diff = kubectl.run_with(&["diff", "-f", "-"], &changed)?;
    assert_eq!(diff.status.code(), Some(1), "{}", diff.told());
    ensure!(diff.stdout.contains("-  replicas: 3") && diff.stdout.contains("+  replicas: 4"), "{}", diff.told());
    let dry = ["apply", "-f", "-", "--dry-run=server", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(kubectl.ok_with(&dry, &changed)?, "4");
    let replicas = || kubectl.ok(&["get", "deployment", "nginx-deployment", "-o", "jsonpath={.spec.replicas}"]);
    assert_eq!(replicas()?, "3");

    // Another manager who says the same thing otherwise is told whose it is, and may take it.
    let server = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
    let told = kubectl.refused(&server, &changed)?;
    ensure!(told.contains("conflict with \"kubectl-client-side-apply\"") && told.contains(".spec.replicas"), "{told}");
    kubectl.ok_with(&[&server[..], &["--force-conflicts"]].concat(), &changed)?;
    assert_eq!(replicas()?, "4");

    kubectl.ok(&["label", "deployment", "nginx-deployment", "tier=front"])?;
    let told = kubectl.refused(&["label", "deployment", "nginx-deployment", "tier=back"], "")?;
    ensure!(told.contains("already has a value (front), and --overwrite is false"), "{told}");
    assert_eq!(
        kubectl.ok(&["get", "deployments", "-l", "tier in (front)", "-o", "name"])?,
        "deployment.apps/nginx-deployment\n"
    );
    kubectl.ok(&["label", "deployment", "nginx-deployment", "tier-"])?;
    kubectl.ok(&["annotate", "deployment", "nginx-deployment", "note=a b"])?;
    let note = kubectl.ok(&["get", "deployment", "nginx-deployment", "-o", "jsonpath={.metadata.annotations.note}"])?;
    assert_eq!(note, "a b");

    let editor = place.join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/replicas: 4/replicas: 6/' \"$1\"\n")?;
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let with_editor = kubectl.with_env("KUBE_EDITOR", &editor.to_string_lossy());
    assert_eq!(
        with_editor.ok(&["edit", "deployment", "nginx-deployment"])?,
        "deployment.apps/nginx-deployment edited\n"
    );
    assert_eq!(replicas()?, "6");
    Ok(())
}

#[test]
fn the_api_explains_itself_and_says_who_may_what() -> Result<()> {
    let place = Place::new("at-the-api")?;
    let node = node(&place)?;
    let kubectl = node.kubectl();
    let explained = kubectl.ok(&["explain", "deployment.spec.strategy.rollingUpdate.maxSurge"])?;
    ensure!(explained.contains("IntOrString") && explained.contains("maximum number of pods"), "{explained}");
    let resources = kubectl.ok(&["api-resources", "-o", "name"])?;
    for one in ["pods", "deployments.apps", "roles.rbac.authorization.k8s.io", "leases.coordination.k8s.io"] {
        ensure!(resources.lines().any(|l| l == one), "{one} is missing: {resources}");
    }
    let versions = kubectl.ok(&["api-versions"])?;
    ensure!(versions.lines().any(|l| l == "apps/v1") && versions.lines().any(|l| l == "v1"), "{versions}");

    assert_eq!(kubectl.ok(&["auth", "can-i", "delete", "nodes"])?, "yes\n");
    let anna = |args: &[&str]| kubectl.run(&[args, &["--as=anna"]].concat());
    assert_eq!(anna(&["auth", "can-i", "get", "pods"])?.stdout, "no\n");
    let told = anna(&["get", "pods"])?.stderr;
    let wanted = "Error from server (Forbidden): pods is forbidden: User \"anna\" cannot list resource \"pods\" in API \
                  group \"\" in the namespace \"default\"\n";
    assert_eq!(told, wanted);
    kubectl.ok(&["create", "rolebinding", "anna", "--clusterrole=view", "--user=anna"])?;
    assert_eq!(anna(&["auth", "can-i", "get", "pods"])?.stdout, "yes\n");
    assert_eq!(anna(&["auth", "can-i", "get", "secrets"])?.stdout, "no\n");
    let listed = anna(&["auth", "can-i", "--list"])?.success()?;
    ensure!(listed.contains("configmaps"), "{listed}");
    let who = kubectl.ok(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.groups}"])?;
    ensure!(who.contains("system:masters"), "{who}");
    let told = kubectl.refused(&["top", "nodes"], "")?;
    assert_eq!(told, "error: Metrics API not available\n");
    Ok(())
}
