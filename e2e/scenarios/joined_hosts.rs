//! Three hosts of one mesh: two join the first by tickets, and then it does not matter which of them is asked.

use crate::hosts::{Host, story_of_a_mesh};
use crate::with_pods::SOON;
use anyhow::{Context, Result, ensure};
use e2e::until;
use std::collections::BTreeSet;

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 9
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - {name: main, image: 'busybox:1.36', command: [sleep, '100000']}
";

/// Waits until a host knows three nodes that are ready.
fn knows_all(host: &Host) -> Result<()> {
    let ready = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
    let known = host.kubectl.until_prints("True True True", &["get", "nodes", "-o", ready]);
    known.with_context(|| format!("as {} is asked", host.machine.name()))
}

#[test]
fn any_host_of_a_mesh_answers_for_all_of_it() -> Result<()> {
    story_of_a_mesh("joined-hosts", &["ant", "bee", "cow"], |mesh| {
        let [ant, bee, cow] = &mesh.hosts[..] else { unreachable!() };
        for host in [ant, bee, cow] {
            knows_all(host)?;
        }

        // What is written at one is read, listed and watched at the others.
        let watch = bee.kubectl.watch(&["get", "configmaps", "-o", "name", "-w"])?;
        for host in [ant, bee, cow] {
            let name = format!("of-{}", host.machine.name());
            host.kubectl.ok(&["create", "configmap", &name])?;
            for other in [ant, bee, cow] {
                other.kubectl.ok(&["get", "configmap", &name])?;
                ensure!(other.kubectl.ok(&["get", "configmaps", "-A", "-o", "name"])?.contains(&name));
            }
            watch.until_line(&format!("configmap/{name}"))?;
        }

        // A namespace made at one takes writes at another.
        cow.kubectl.ok(&["create", "namespace", "shop"])?;
        bee.kubectl.ok(&["create", "configmap", "first", "-n", "shop"])?;
        ant.kubectl.ok(&["get", "configmap", "first", "-n", "shop"])?;

        // Pods run on all of them.
        bee.kubectl.ok_with(&["apply", "-f", "-"], WEB)?;
        cow.kubectl.until_prints("9", &["get", "deployment", "web", "-o", "jsonpath={.status.availableReplicas}"])?;
        let on = ant.kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"])?;
        let nodes: BTreeSet<&str> = on.split_whitespace().collect();
        assert_eq!(nodes, ["ant", "bee", "cow"].into());

        // A host that comes back is who it was.
        mesh.hosts[1].power_cut(e2e::Loss::Everything)?;
        mesh.hosts[1].node.start_again()?;
        let [ant, bee, _] = &mesh.hosts[..] else { unreachable!() };
        knows_all(ant)?;
        knows_all(bee)?;
        bee.kubectl.ok(&["get", "configmap", "of-cow"])?;
        until("all pods again", SOON, || {
            let available = ["get", "deployment", "web", "-o", "jsonpath={.status.availableReplicas}"];
            Ok((bee.kubectl.ok(&available)? == "9").then_some(()))
        })?;

        // A ticket is good for one machine.
        let used = ant.node.invite(&["--ttl", "10m"])?;
        ensure!(used.starts_with("beemesh1"), "only the ticket is printed: {used}");
        Ok(())
    })
}
