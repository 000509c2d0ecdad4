//! What an operator does with a mesh of several machines: looks at its nodes and cells, expels one, has a machine checked.

use crate::hosts::{Host, story_of_a_mesh};
use anyhow::{Context, Result, ensure};
use e2e::until;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A controller looks twice, forty seconds apart, before it takes a node for gone.
const LONG: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 6
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

/// What `beemesh nodes -o json` says of each node: name, state, whether there is a link.
fn nodes(host: &Host) -> Result<Vec<(String, String, bool)>> {
    let report: Value = serde_json::from_str(&host.node.beemesh(&["nodes", "-o", "json"])?.success()?)?;
    ensure!(report["withoutRoot"].is_null(), "root did not answer: {report}");
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let all = report["nodes"].as_array().context("no nodes")?;
    Ok(all.iter().map(|n| (text(&n["name"]), text(&n["state"]), !n["link"].is_null())).collect())
}

/// The state of one node, and whether there is a link to it, as a host sees it.
fn state_of(host: &Host, name: &str) -> Result<(String, bool)> {
    let all = nodes(host)?;
    let found = all.into_iter().find(|(n, ..)| n == name);
    found.map(|(_, state, link)| (state, link)).with_context(|| format!("{name} is not listed"))
}

/// Asks for something that is refused, with exit code 8.
fn refused(host: &Host, args: &[&str], words: &str) -> Result<()> {
    let answer = host.node.beemesh(args)?;
    ensure!(answer.status.code() == Some(8) && answer.stderr.contains(words), "{}", answer.told());
    Ok(())
}

#[test]
fn an_expelled_host_is_shut_out_and_its_pods_run_elsewhere() -> Result<()> {
    story_of_a_mesh("operators", &["ant", "bee", "cow"], |mesh| {
        let [ant, bee, cow] = &mesh.hosts[..] else { unreachable!() };
        // Each knows all three, and what itself is.
        for host in [ant, bee, cow] {
            let own = host.machine.name();
            until("three nodes", SOON, || Ok((nodes(host)?.len() == 3).then_some(())))?;
            ensure!(state_of(host, own)?.0 == "thisNode");
            let text = host.node.beemesh(&["nodes"])?.success()?;
            ensure!(["ant", "bee", "cow", "this node"].iter().all(|w| text.contains(w)), "{text}");
        }
        for host in [ant, bee] {
            let linked = || Ok((state_of(host, "cow")? == ("linked".to_owned(), true)).then_some(()));
            until("a link to cow", SOON, linked).with_context(|| format!("at {}", host.machine.name()))?;
        }
        for host in [ant, bee] {
            let checked = host.node.beemesh(&["doctor"])?;
            ensure!(checked.succeeded(), "{}", checked.told());
            eprintln!("{}", checked.stdout);
        }
        let ready = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        ant.kubectl.until_prints("True True True", &["get", "nodes", "-o", ready])?;
        let cells = ant.node.beemesh(&["cells"])?.success()?;
        ensure!(cells.contains("ant (leads)") && cells.contains("namespace/default"), "{cells}");

        let spread = |host: &Host| {
            host.kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"])
        };
        ant.kubectl.ok_with(&["apply", "-f", "-"], WEB)?;
        ant.kubectl.until_prints("6", &["get", "deployment", "web", "-o", "jsonpath={.status.availableReplicas}"])?;
        ensure!(spread(ant)?.contains("cow"));

        // What would harm the mesh is refused, and so is what is not clear.
        refused(ant, &["expel", "ant"], "does not expel itself")?;
        refused(ant, &["expel", "dog"], "there are ant (")?;
        ensure!(nodes(ant)?.iter().all(|(_, state, _)| state != "expelled"));

        let start = Instant::now();
        let expelling = std::thread::scope(|scope| {
            let expelling = scope.spawn(|| ant.node.beemesh(&["expel", "cow"]));
            let watching = [ant, bee].map(|host| {
                scope.spawn(move || {
                    until("cow is shut out", SOON, || Ok((!state_of(host, "cow")?.1).then(|| start.elapsed())))
                })
            });
            for (host, watched) in [ant, bee].into_iter().zip(watching) {
                let took = watched.join().unwrap()?;
                eprintln!("{} had no link to the expelled host {took:?} after the command", host.machine.name());
            }
            expelling.join().unwrap()
        })?;
        let said = expelling.success()?;
        eprintln!("expel ended after {:?}:\n{said}", start.elapsed());
        ensure!(
            said.contains("cow (") && said.contains("is expelled") && said.contains("Node object is gone"),
            "{said}"
        );
        for host in [ant, bee] {
            let shut_out = ("expelled".to_owned(), false);
            until("cow is known to be expelled", SOON, || Ok((state_of(host, "cow")? == shut_out).then_some(())))?;
        }
        eprintln!("both others knew {:?} after the command", start.elapsed());

        // It is refused whatever it asks, and knows that it is without root.
        let answer = cow.kubectl.run(&["get", "nodes", "--request-timeout=3s"])?;
        ensure!(!answer.succeeded(), "{}", answer.told());
        let alone = cow.node.beemesh(&["nodes"])?.success()?;
        ensure!(alone.contains("could not be asked"), "{alone}");

        // Once more changes nothing, and the others go on without it.
        let again = ant.node.beemesh(&["expel", "cow"])?.success()?;
        ensure!(again.contains("was expelled before"), "{again}");
        until("two Nodes", SOON, || {
            let names = bee.kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"])?;
            Ok((names == "ant bee").then_some(()))
        })?;
        until("its pods are replaced", LONG, || {
            let available =
                bee.kubectl.ok(&["get", "deployment", "web", "-o", "jsonpath={.status.availableReplicas}"])?;
            // Those on cow are counted no more, and go when the collector of orphans comes by.
            let elsewhere = spread(bee)?.split_whitespace().filter(|node| *node != "cow").count();
            Ok((available == "6" && elsewhere >= 6).then_some(()))
        })?;
        let checked = cow.node.beemesh(&["doctor", "-o", "json"])?;
        ensure!(checked.stdout.contains("\"API port\""), "{}", checked.told());
        eprintln!("its pods ran elsewhere {:?} after the command", start.elapsed());
        Ok(())
    })
}

const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: 'busybox:1.36', command: [sleep, '100000']}
";

#[test]
fn a_host_leaves_when_its_pods_run_elsewhere() -> Result<()> {
    story_of_a_mesh("leaving", &["ant", "bee"], |mesh| {
        let [ant, bee] = &mesh.hosts[..] else { unreachable!() };
        let ready = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        ant.kubectl.until_prints("True True", &["get", "nodes", "-o", ready])?;
        ant.kubectl.ok(&["cordon", "bee"])?;
        ant.kubectl.ok_with(&["apply", "-f", "-"], SHOP)?;
        let available = ["get", "deployment", "shop", "-o", "jsonpath={.status.availableReplicas}"];
        ant.kubectl.until_prints("2", &available)?;
        ant.kubectl.ok(&["uncordon", "bee"])?;
        let on = ["get", "pods", "-l", "app=shop", "-o", "jsonpath={.items[*].spec.nodeName}"];
        assert_eq!(ant.kubectl.ok(&on)?, "ant ant");
        ant.kubectl.ok(&["create", "configmap", "kept"])?;

        // The founder goes: what it alone kept, root among it, is bee's then.
        let start = Instant::now();
        let left = ant.node.beemesh(&["leave", "--timeout", "100s"])?;
        eprintln!("{}\nant left after {:?}", left.told(), start.elapsed());
        ensure!(left.succeeded() && left.stderr.contains("left the mesh"), "{}", left.told());
        bee.kubectl.until_prints("2", &available)?;
        assert_eq!(bee.kubectl.ok(&on)?, "bee bee");
        assert_eq!(bee.kubectl.ok(&["get", "nodes", "-o", "name"])?, "node/bee\n");
        bee.kubectl.ok(&["get", "configmap", "kept"])?;
        bee.kubectl.ok(&["create", "namespace", "alone"])?;
        bee.kubectl.ok(&["create", "configmap", "first", "-n", "alone"])?;
        assert_eq!(nodes(bee)?.len(), 1);
        refused(bee, &["leave"], "the last node of its mesh")?;

        let ant = &mut mesh.hosts[0].node;
        let ended = ant.wait_for_its_end()?;
        ensure!(ended.success(), "{ended}");
        let (again, said) = ant.start_refused()?;
        ensure!(again.code() == Some(8) && said.contains("has left its mesh"), "{again}: {said}");
        Ok(())
    })
}
