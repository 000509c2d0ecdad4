//! What kubectl does with a pod that runs: logs, exec, cp, port-forward, attach, run, and a pod that asks the API.

use crate::with_pods::{Mesh, NGINX, SOON, get, story};
use anyhow::{Context, Result, ensure};
use e2e::{Watching, images, until};
use nix::unistd::Pid;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

/// Something that runs, reads and writes.
const SHELL: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: shell
  labels: {app: shell}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1.36
    command: [sh, -c, 'i=0; while true; do i=$((i+1)); echo line $i; sleep 0.2; done']
  - name: second
    image: busybox:1.36
    command: [sh, -c, 'while read line; do echo \"heard $line\"; done']
    stdin: true
";

#[test]
fn logs_follow_and_commands_run_in_a_container() -> Result<()> {
    story("inside-a-pod", |mesh| {
        let kubectl = &mesh.kubectl;
        mesh.apply(SHELL)?;
        mesh.until_ready("shell")?;
        let follow = kubectl.watch(&["logs", "-f", "shell", "-c", "main", "--tail=1"])?;
        let first = follow.until_line_with("line ")?;
        let number: u32 = first.trim_start_matches("line ").parse()?;
        follow.until_line(&format!("line {}", number + 5))?;
        let stamped = kubectl.ok(&["logs", "shell", "-c", "main", "--timestamps", "--limit-bytes=100"])?;
        ensure!(stamped.len() == 100 && stamped.starts_with("20") && stamped.contains("Z line 1\n"), "{stamped}");
        let told = kubectl.refused(&["logs", "shell", "-c", "nowhere"], "")?;
        ensure!(told.contains("container nowhere is not valid for pod shell"), "{told}");

        assert_eq!(kubectl.ok(&["exec", "shell", "-c", "main", "--", "echo", "a  b", "c"])?, "a  b c\n");
        let failed = kubectl.run(&["exec", "shell", "--", "sh", "-c", "echo out; echo err >&2; exit 42"])?;
        assert_eq!((failed.status.code(), failed.stdout.as_str()), (Some(42), "out\n"));
        ensure!(failed.stderr.contains("err\n") && failed.stderr.contains("exit code 42"), "{}", failed.told());
        // It ends when the input has ended: the end of a stream of its own reaches the container.
        let big = "0123456789abcdef".repeat(1 << 16);
        assert_eq!(kubectl.ok_with(&["exec", "-i", "shell", "--", "wc", "-c"], &big)?, "1048576\n");
        let copied = kubectl.ok_with(&["exec", "-i", "shell", "--", "cat"], &big)?;
        ensure!(copied == big, "{} bytes came back", copied.len());
        let told = kubectl.run(&["exec", "shell", "--", "nosuchprogram"])?;
        ensure!(!told.succeeded() && told.stderr.contains("executable file not found"), "{}", told.told());
        Ok(())
    })
}

/// Whether somebody in the machine sleeps for as long as nobody waits.
fn sleeps(mesh: &Mesh) -> Result<bool> {
    let long = |pid: &Pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == b"sleep\x001000\0");
    Ok(mesh.machine.processes("sleep")?.iter().any(long))
}

#[test]
fn a_person_at_a_terminal_runs_attaches_and_types() -> Result<()> {
    story("terminal", |mesh| {
        let kubectl = &mesh.kubectl;
        mesh.apply(SHELL)?;
        mesh.until_ready("shell")?;
        let mut shell = kubectl.terminal(&["exec", "-it", "shell", "-c", "main", "--", "sh"])?;
        shell.until_shown("# ")?;
        shell.types("tty; stty size; echo $((6*7))x\n")?;
        shell.until_shown("/dev/pts/")?;
        shell.until_shown("24 80")?;
        shell.until_shown("42x")?;
        // Control C reaches what runs there and not kubectl.
        shell.types("sleep 1000\n")?;
        until("what is to be interrupted", SOON, || Ok(sleeps(mesh)?.then_some(())))?;
        shell.types("\u{3}")?;
        until("its end", SOON, || Ok((!sleeps(mesh)?).then_some(())))?;
        shell.types("echo still $((7*7))x\n")?;
        shell.until_shown("still 49x")?;
        shell.types("exit 3\n")?;
        assert_eq!(shell.end()?.code(), Some(3));

        let attached = kubectl.watch(&["attach", "shell", "-c", "main"])?;
        attached.until_line_with("line ")?;
        attached.end()?;
        let answer = kubectl.terminal(&["attach", "-i", "shell", "-c", "second"]);
        let mut second = answer?;
        second.types("you\n")?;
        second.until_shown("heard you")?;
        drop(second);

        let mut run =
            kubectl.terminal(&["run", "-it", "--rm", "once", "--image=busybox:1.36", "--restart=Never", "--", "sh"])?;
        // The first prompt may come before kubectl is attached, which says so: "try pressing enter".
        run.types("\n")?;
        run.until_shown("# ")?;
        run.types("echo from $(hostname); exit\n")?;
        run.until_shown("from once")?;
        run.until_shown("pod \"once\" deleted")?;
        ensure!(run.end()?.success());
        kubectl.refused(&["get", "pod", "once"], "")?;
        let piped = ["run", "-i", "--rm", "-q", "piped", "--image=busybox:1.36", "--restart=Never", "--", "cat"];
        assert_eq!(kubectl.ok_with(&piped, "through a pipe\n")?, "through a pipe\n");
        Ok(())
    })
}

#[test]
fn files_are_copied_both_ways() -> Result<()> {
    story("copies", |mesh| {
        let kubectl = &mesh.kubectl;
        mesh.apply(SHELL)?;
        mesh.until_ready("shell")?;
        let folder = mesh.place("copy");
        fs::create_dir_all(folder.join("deep/er"))?;
        let big: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(folder.join("deep/er/big"), &big)?;
        fs::write(folder.join("small"), "small\n")?;
        let (here, back) = (folder.to_string_lossy().into_owned(), mesh.place("back"));
        kubectl.ok(&["cp", &here, "shell:/tmp/copy", "-c", "main"])?;
        assert_eq!(kubectl.ok(&["exec", "shell", "-c", "main", "--", "cat", "/tmp/copy/small"])?, "small\n");
        kubectl.ok(&["cp", "default/shell:/tmp/copy", &back.to_string_lossy(), "-c", "main"])?;
        ensure!(fs::read(back.join("deep/er/big"))? == big, "a large file comes back as it went");
        Ok(())
    })
}

/// Starts forwarding a free port. Returns where it listens.
fn forward(mesh: &Mesh, to: &str, port: u16) -> Result<(Watching, SocketAddr)> {
    let forwarding = mesh.kubectl.watch(&["port-forward", to, &format!(":{port}")])?;
    let line = forwarding.until_line_with("Forwarding from 127.0.0.1:")?;
    let local = line.split([':', ' ']).nth(3).and_then(|p| p.parse().ok()).with_context(|| line.clone())?;
    Ok((forwarding, SocketAddr::from((Ipv4Addr::LOCALHOST, local))))
}

#[test]
fn ports_are_forwarded_to_pods_and_services() -> Result<()> {
    story("forwards", |mesh| {
        mesh.apply(NGINX)?;
        mesh.kubectl.ok(&["rollout", "status", "deployment/nginx-deployment", "--timeout=60s"])?;
        mesh.kubectl.ok(&[
            "expose",
            "deployment",
            "nginx-deployment",
            "--name=web",
            "--port=8080",
            "--target-port=80",
        ])?;
        let pods = mesh.running("app=nginx")?;
        let (pod, address) = forward(mesh, &format!("pod/{}", pods[0].0), 80)?;
        for _ in 0..3 {
            ensure!(get(address, "/")?.contains("1.14.2"), "each connection is a stream of its own");
        }
        pod.end()?;
        until("endpoints", SOON, || {
            let ready =
                mesh.kubectl.ok(&["get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", "yaml"])?;
            Ok(ready.contains("ready: true").then_some(()))
        })?;
        let (service, address) = forward(mesh, "svc/web", 8080)?;
        ensure!(get(address, "/")?.contains("1.14.2"));
        service.end()?;
        let (deployment, address) = forward(mesh, "deployment/nginx-deployment", 81)?;
        ensure!(get(address, "/").is_err(), "nobody listens at 81");
        deployment.end()?;
        Ok(())
    })
}

const ASK: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  serviceAccountName: asker
  containers:
  - name: main
    image: tools/kubectl
    command: [sleep, '1000']
"#;

#[test]
fn a_pod_asks_the_api_with_its_own_token() -> Result<()> {
    story("a-pod-asks", |mesh| {
        let kubectl = &mesh.kubectl;
        kubectl.ok(&["create", "serviceaccount", "asker"])?;
        kubectl.ok(&["create", "role", "reader", "--verb=get,list", "--resource=configmaps"])?;
        kubectl.ok(&["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:asker"])?;
        kubectl.ok(&["create", "configmap", "prices", "--from-literal=apple=1"])?;
        mesh.registry.push(&images::kubectl()?);
        mesh.apply(ASK)?;
        mesh.until_ready("asker")?;
        let inside = |script: &str| kubectl.ok(&["exec", "asker", "--", "sh", "-c", script]);
        let account = "/var/run/secrets/kubernetes.io/serviceaccount";
        assert_eq!(inside(&format!("cat {account}/namespace"))?, "default");
        ensure!(inside(&format!("cat {account}/ca.crt"))?.starts_with("-----BEGIN CERTIFICATE-----"));
        assert_eq!(inside("echo $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT")?, "10.43.0.1 443\n");

        // kubectl finds the API and proves both sides as every client library does inside a pod.
        let prices = "jsonpath={.data.apple}";
        assert_eq!(kubectl.ok(&["exec", "asker", "--", "kubectl", "get", "configmap", "prices", "-o", prices])?, "1");
        let refused = kubectl.refused(&["exec", "asker", "--", "kubectl", "get", "secrets"], "")?;
        let who = r#"User "system:serviceaccount:default:asker" cannot list resource "secrets""#;
        ensure!(refused.contains(who), "{refused}");

        // Whoever has the token and no certificate is the account.
        let made = kubectl.ok(&["create", "token", "asker", "--duration=10m"])?;
        let only = mesh.place("only-a-token");
        fs::write(&only, kubectl.ok(&["config", "view", "--raw"])?)?;
        let with_token = kubectl.with_env("KUBECONFIG", &only.to_string_lossy());
        with_token.ok(&["config", "set-credentials", "asker", "--token", made.trim()])?;
        with_token.ok(&["config", "set-context", "--current", "--user=asker"])?;
        let who = with_token.ok(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"])?;
        assert_eq!(who, "system:serviceaccount:default:asker");
        Ok(())
    })
}
