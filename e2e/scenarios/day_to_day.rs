//! What else people type: selecting and sorting, changing a workload in place, debugging, waiting, cleaning up.

use crate::with_pods::{NGINX, story};
use anyhow::{Result, ensure};

#[test]
fn a_workload_is_changed_in_place_watched_and_cleaned_up() -> Result<()> {
    story("day-to-day", |mesh| {
        let kubectl = &mesh.kubectl;
        let (deployment, rolled) = ("deployment/nginx-deployment", || {
            kubectl.ok(&["rollout", "status", "deployment/nginx-deployment", "--timeout=60s"])
        });
        let field = |path: &str| kubectl.ok(&["get", deployment, "-o", &format!("jsonpath={{{path}}}")]);
        mesh.apply(NGINX)?;
        kubectl.ok(&["run", "one", "--image=busybox:1.36", "--", "sh", "-c", "echo hello; sleep 100000"])?;
        mesh.until_ready("one")?;
        rolled()?;

        // One answer about several kinds; some of many, in an order.
        let all = kubectl.ok(&["get", "all"])?;
        for kind in ["pod/one", "service/kubernetes", "deployment.apps/nginx-deployment", "replicaset.apps/nginx-"] {
            ensure!(all.contains(kind), "{kind}: {all}");
        }
        let here = kubectl.ok(&["get", "pods", "-A", "--field-selector=spec.nodeName=vm", "-o", "name"])?;
        assert_eq!(here.lines().count(), 4, "{here}");
        assert_eq!(kubectl.ok(&["get", "pods", "--field-selector=status.phase=Failed", "-o", "name"])?, "");
        let sorted =
            ["get", "pods", "--sort-by=.metadata.name", "-o", "custom-columns=:.metadata.name", "--no-headers"];
        let names = kubectl.ok(&sorted)?;
        ensure!(names.lines().is_sorted() && names.lines().last() == Some("one"), "{names}");
        let logs = kubectl.ok(&["logs", "-l", "app=nginx", "--prefix", "--tail=1"])?;
        assert_eq!(logs.matches("start worker processes").count(), 3, "{logs}");

        // Changed in place: each is another revision, and rolls out.
        kubectl.ok(&["set", "env", deployment, "COLOR=blue"])?;
        kubectl.ok(&["set", "resources", deployment, "--limits=memory=64Mi", "--requests=cpu=10m"])?;
        rolled()?;
        let container = ".spec.template.spec.containers[0]";
        assert_eq!(field(&format!("{container}.env[0].value"))?, "blue");
        assert_eq!(field(&format!("{container}.resources.limits.memory"))?, "64Mi");
        let replace = r#"[{"op":"replace","path":"/spec/replicas","value":2}]"#;
        kubectl.ok(&["patch", deployment, "--type=json", "-p", replace])?;
        kubectl.ok(&[
            "patch",
            deployment,
            "--subresource=scale",
            "--type=merge",
            "-p",
            r#"{"spec":{"replicas":1}}"#,
        ])?;
        assert_eq!(field(".spec.replicas")?, "1");
        let told = kubectl.refused(&["scale", deployment, "--current-replicas=7", "--replicas=2"], "")?;
        assert_eq!(told, "error: Expected replicas to be 7, was 1\n");
        rolled()?;

        // A container is added to a pod that runs, to look around in it.
        let debug = ["debug", "one", "-it", "--image=busybox:1.36", "-c", "looks", "--", "sh"];
        let mut shell = kubectl.terminal(&debug)?;
        // The first prompt may come before kubectl is attached, which says so: "try pressing enter".
        shell.types("\n")?;
        shell.until_shown("# ")?;
        shell.types("echo $(hostname) $((6*7))x; exit\n")?;
        shell.until_shown("one 42x")?;
        ensure!(shell.end()?.success());

        kubectl.ok(&["taint", "nodes", "vm", "kept=free:NoSchedule"])?;
        kubectl.ok(&["run", "two", "--image=busybox:1.36", "--", "sleep", "100000"])?;
        let unschedulable = r#"jsonpath={.status.conditions[?(@.type=="PodScheduled")].reason}"#;
        kubectl.until_prints("Unschedulable", &["get", "pod", "two", "-o", unschedulable])?;
        kubectl.ok(&["taint", "nodes", "vm", "kept-"])?;
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/two", "--timeout=60s"])?;
        let told = kubectl.refused(&["top", "pods"], "")?;
        assert_eq!(told, "error: Metrics API not available\n");

        kubectl.ok(&["delete", "pod", "two", "--grace-period=1", "--wait=false"])?;
        kubectl.ok(&["wait", "--for=delete", "pod/two", "--timeout=60s"])?;
        kubectl.ok(&["delete", "deployments,pods", "--all", "--grace-period=1"])?;
        kubectl.until_prints("", &["get", "deployments,rs,pods", "-o", "name"])
    })
}
