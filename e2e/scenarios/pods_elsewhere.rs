//! Logs, exec, attach, cp and port-forward at one host, of a pod that another one runs.

use crate::hosts::{Host, story_of_a_mesh};
use crate::with_pods::{SOON, get};
use anyhow::{Context, Result, ensure};
use e2e::{Fault, until};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::resume_unwind;

/// A pod that counts, answers, serves, and dies, on a host of which it is said which.
const SHELL: &str = "
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  nodeSelector: {kubernetes.io/hostname: cow}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1.36
    command: [sh, -c, 'i=0; while true; do i=$((i+1)); echo line $i; sleep 0.2; done']
  - name: second
    image: busybox:1.36
    command: [sh, -c, 'while read line; do echo \"heard $line\"; done']
    stdin: true
  - name: web
    image: nginx:1.14.2
  - name: dies
    image: busybox:1.36
    command: [sh, -c, 'echo a life; sleep 1; exit 3']
";

/// What a person does with a pod, as one host is asked.
fn all_of_it_works(host: &Host, folder: &std::path::Path) -> Result<()> {
    let kubectl = &host.kubectl;
    let follow = kubectl.watch(&["logs", "-f", "shell", "-c", "main", "--tail=1"])?;
    let number: u32 = follow.until_line_with("line ")?.trim_start_matches("line ").parse()?;
    follow.until_line(&format!("line {}", number + 5))?;
    follow.end()?;
    let stamped = kubectl.ok(&["logs", "shell", "-c", "main", "--timestamps", "--limit-bytes=100"])?;
    ensure!(stamped.len() == 100 && stamped.starts_with("20") && stamped.contains("Z line 1\n"), "{stamped}");
    assert_eq!(kubectl.ok(&["logs", "shell", "-c", "dies", "--previous"])?, "a life\n");
    let told = kubectl.refused(&["logs", "shell", "-c", "nowhere"], "")?;
    ensure!(told.contains("container nowhere is not valid for pod shell"), "{told}");
    let told = kubectl.refused(&["logs", "shell", "-c", "main", "--previous"], "")?;
    ensure!(told.contains("previous terminated container \"main\" in pod \"shell\" not found"), "{told}");

    assert_eq!(kubectl.ok(&["exec", "shell", "-c", "main", "--", "echo", "a  b", "c"])?, "a  b c\n");
    let failed = kubectl.run(&["exec", "shell", "-c", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 42"])?;
    assert_eq!((failed.status.code(), failed.stdout.as_str()), (Some(42), "out\n"));
    ensure!(failed.stderr.contains("err\n") && failed.stderr.contains("exit code 42"), "{}", failed.told());
    let big = "0123456789abcdef".repeat(1 << 16);
    assert_eq!(kubectl.ok_with(&["exec", "-i", "shell", "-c", "main", "--", "wc", "-c"], &big)?, "1048576\n");
    let copied = kubectl.ok_with(&["exec", "-i", "shell", "-c", "main", "--", "cat"], &big)?;
    ensure!(copied == big, "{} bytes came back", copied.len());
    let told = kubectl.run(&["exec", "shell", "-c", "main", "--", "nosuchprogram"])?;
    ensure!(!told.succeeded() && told.stderr.contains("executable file not found"), "{}", told.told());

    let mut shell = kubectl.terminal(&["exec", "-it", "shell", "-c", "main", "--", "sh"])?;
    shell.until_shown("# ")?;
    shell.types("stty size; echo $((6*7))x\n")?;
    shell.until_shown("24 80")?;
    shell.until_shown("42x")?;
    shell.types("exit 3\n")?;
    assert_eq!(shell.end()?.code(), Some(3));
    let mut second = kubectl.terminal(&["attach", "-i", "shell", "-c", "second"])?;
    second.types(&format!("{}\n", host.machine.name()))?;
    second.until_shown(&format!("heard {}", host.machine.name()))?;
    drop(second);

    let big: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (there, back) = (folder.join("there"), folder.join("back"));
    fs::create_dir_all(there.join("deep"))?;
    fs::write(there.join("deep/big"), &big)?;
    let copy = format!("/tmp/of-{}", host.machine.name());
    kubectl.ok(&["cp", &there.to_string_lossy(), &format!("shell:{copy}"), "-c", "main"])?;
    kubectl.ok(&["cp", &format!("default/shell:{copy}"), &back.to_string_lossy(), "-c", "main"])?;
    ensure!(fs::read(back.join("deep/big"))? == big, "a large file comes back as it went");

    let forwarding = kubectl.watch(&["port-forward", "pod/shell", ":80"])?;
    let line = forwarding.until_line_with("Forwarding from 127.0.0.1:")?;
    let local = line.split([':', ' ']).nth(3).and_then(|p| p.parse().ok()).with_context(|| line.clone())?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, local));
    for _ in 0..3 {
        ensure!(get(address, "/")?.contains("1.14.2"), "each connection is a stream of its own");
    }
    forwarding.end()?;
    Ok(())
}

/// How many processes of the pod's host have this command line.
fn running(host: &Host, words: &[&str]) -> Result<usize> {
    let line: String = words.iter().flat_map(|word| [word, "\0"]).collect();
    let all = host.machine.processes(words[0])?;
    Ok(all.iter().filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|l| l == line.as_bytes())).count())
}

#[test]
fn a_pod_is_reached_through_every_host() -> Result<()> {
    story_of_a_mesh("pods-elsewhere", &["ant", "bee", "cow"], |mesh| {
        let [ant, bee, cow] = &mesh.hosts[..] else { unreachable!() };
        bee.kubectl.ok_with(&["apply", "-f", "-"], SHELL)?;
        until("the pod has lived, and one of it has died", SOON, || {
            let lives = "jsonpath={.status.containerStatuses[?(@.name==\"dies\")].restartCount}";
            let lives = ant.kubectl.ok(&["get", "pod", "shell", "-o", lives])?;
            Ok(lives.parse::<u32>().is_ok_and(|n| n > 0).then_some(()))
        })?;
        // The founder, one that only the founder knew of when it joined, and the pod's own.
        for host in [ant, bee, cow] {
            let folder = mesh.place(host.machine.name());
            all_of_it_works(host, &folder).with_context(|| format!("as {} is asked", host.machine.name()))?;
        }

        // A client that goes ends what reads from it.
        let reads = bee.kubectl.terminal(&["exec", "-i", "shell", "-c", "main", "--", "cat", "-u"])?;
        until("what reads there", SOON, || Ok((running(cow, &["cat", "-u"])? > 0).then_some(())))?;
        drop(reads);
        until("its end", SOON, || Ok((running(cow, &["cat", "-u"])? == 0).then_some(())))?;

        // A host that is lost ends what was open there, and is named to whoever begins.
        let follow = ant.kubectl.watch(&["logs", "-f", "shell", "-c", "main", "--tail=1"])?;
        follow.until_line_with("line ")?;
        let waits = std::thread::scope(|scope| {
            let waits = scope.spawn(|| bee.kubectl.run(&["exec", "shell", "-c", "main", "--", "sleep", "1234"]));
            until("what waits there", SOON, || Ok((running(cow, &["sleep", "1234"])? > 0).then_some(())))?;
            mesh.network.set(&Fault::isolated("cow"))?;
            waits.join().unwrap_or_else(|panic| resume_unwind(panic))
        })?;
        let lost = "node cow, which runs pod default/shell, was lost";
        ensure!(!waits.succeeded() && waits.stderr.contains(lost), "{}", waits.told());
        let (status, _) = follow.until_end()?;
        ensure!(!status.success(), "a log that was cut off is not a whole one");
        let told = ant.kubectl.refused(&["exec", "shell", "-c", "main", "--", "true"], "")?;
        ensure!(told.contains("the pod is on node cow, which this node does not reach"), "{told}");
        let told = bee.kubectl.refused(&["logs", "shell", "-c", "main"], "")?;
        ensure!(told.contains("the pod is on node cow, which this node does not reach"), "{told}");

        // And it is there again when the way is.
        mesh.network.heal();
        until("cow is reached again", SOON, || {
            let answer = bee.kubectl.run(&["exec", "shell", "-c", "main", "--", "echo", "here"])?;
            Ok((answer.stdout == "here\n").then_some(()))
        })
    })
}
