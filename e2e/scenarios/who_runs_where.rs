//! Who runs where when not everybody can: neighbours' rules, pods that matter more, taints that drive away.

use crate::with_pods::{SOON, condition, story};
use anyhow::{Result, ensure};
use e2e::until;

/// A pod of which the node can run as many as it has slots, or that has this more to it.
fn pod(name: &str, spec: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{name: c, image: 'busybox:1.36', command: [sh, -c, 'exec sleep 100000']}}]
  {spec}
"
    )
}

const URGENT: &str = "
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: urgent}
value: 1000
";

#[test]
fn a_pod_that_matters_more_displaces_another_and_a_taint_everybody() -> Result<()> {
    story("where", |mesh| {
        let node = mesh.kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?;
        // The Lease is made when the node is.
        until("the node's Lease", SOON, || {
            let described = mesh.kubectl.ok(&["describe", "node", &node])?;
            Ok(described.contains(&format!("HolderIdentity:  {node}\n")).then_some(()))
        })?;
        let slots = r#"{"status":{"capacity":{"example.com/slot":"1"},"allocatable":{"example.com/slot":"1"}}}"#;
        mesh.kubectl.ok(&["patch", "node", &node, "--subresource=status", "--type=merge", "-p", slots])?;
        mesh.apply(URGENT)?;
        let slot = |name: &str, more: &str| {
            pod(name, more).replace("name: c,", "name: c, resources: {limits: {example.com/slot: 1}},")
        };
        mesh.apply(&slot("low", ""))?;
        mesh.until_ready("low")?;
        let low = mesh.kubectl.json(&["get", "pod", "low"])?;

        mesh.apply(&slot("patient", ""))?;
        let waits =
            mesh.until("patient", "it is said why it waits", |p| condition(p, "PodScheduled") == Some("False"))?;
        let why = waits["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
        assert_eq!(
            why,
            "0/1 nodes are available: 1 Insufficient example.com/slot. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        );

        mesh.apply(&slot("high", "priorityClassName: urgent"))?;
        mesh.until_ready("high")?;
        let high = mesh.kubectl.json(&["get", "pod", "high"])?;
        ensure!(high["status"]["nominatedNodeName"].is_null(), "{high:#}");
        let uid = high["metadata"]["uid"].as_str().unwrap_or_default();
        mesh.until_told(Some("pod/low"), &[&format!("Preempted by pod {uid} on node {node}")])?;
        let gone = mesh.kubectl.run(&["get", "pod", "low"])?;
        ensure!(!gone.succeeded(), "{} still has the slot of {}", low["metadata"]["name"], gone.stdout);

        let spread =
            "topologySpreadConstraints: [{maxSkew: 1, topologyKey: example.com/rack, whenUnsatisfiable: DoNotSchedule,
    labelSelector: {matchLabels: {app: spread}}}]";
        mesh.apply(&pod("spread", spread))?;
        let waits =
            mesh.until("spread", "it is said why it waits", |p| condition(p, "PodScheduled") == Some("False"))?;
        let why = waits["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
        ensure!(
            why.contains("1 node(s) didn't match pod topology spread constraints (missing required label)"),
            "{why}"
        );
        mesh.kubectl.ok(&["label", "node", &node, "example.com/rack=r1"])?;
        mesh.until_ready("spread")?;

        let bears =
            |seconds: &str| format!("tolerations: [{{key: away, operator: Exists, effect: NoExecute{seconds}}}]");
        mesh.apply(&pod("ever", &bears("")))?;
        mesh.apply(&pod("awhile", &bears(", tolerationSeconds: 3")))?;
        mesh.until_ready("ever")?;
        mesh.until_ready("awhile")?;
        mesh.kubectl.ok(&["taint", "node", &node, "away=yes:NoExecute"])?;
        let names = ["get", "pods", "-o", r#"jsonpath={.items[*].metadata.name}"#];
        // Who waits for a node has none to be driven from.
        mesh.kubectl.until_prints("ever patient", &names)?;
        mesh.until_told(Some("pod/awhile"), &["Marking for deletion Pod default/awhile"])?;
        mesh.kubectl.ok(&["taint", "node", &node, "away-"])?;
        mesh.until_ready("patient")
    })
}
