//! One pod, from its volumes to its removal.

use crate::node::{Node, ended, find, in_own_namespaces, is_running, until};
use base::runtime::{Answer, HttpGet, Op, PortMapping, VolumeFile, VolumeKind, Why};
use host::logs::Options;
use host::runtime::Streams;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn a_pod_runs_and_leaves_nothing_behind() {
    in_own_namespaces("a_pod::a_pod_runs_and_leaves_nothing_behind", a_pod_runs);
}

async fn a_pod_runs(node: Node) {
    let runtime = node.start().await;
    assert!(!runtime.was_running());
    assert_eq!(runtime.version().name, "containerd");
    assert_eq!(runtime.lacks().await.unwrap(), Vec::<String>::new());
    let images = runtime.image_list().await.unwrap();
    assert!(images.iter().any(|i| i.names.iter().any(|n| n == host::pause::NAME)), "{images:?}");

    let mut pod = node.pod(&runtime, "u1");
    pod.sandbox.ports =
        vec![PortMapping { protocol: "TCP".into(), container_port: 8080, host_port: 18080, host_ip: String::new() }];
    let file = |path: &str, text: &str, mode| VolumeFile {
        path: path.into(),
        bytes: text.as_bytes().into(),
        mode,
        owner: None,
    };
    let secret = pod.volume("secret", VolumeKind::Files(vec![file("password", "x", 0o400)])).await;
    let shared = pod.volume("shared", VolumeKind::Empty { memory: true, bytes_max: 1 << 20 }).await;
    let hosts =
        pod.ask(Op::File { pod: "u1".into(), path: "etc-hosts".into(), bytes: b"10.0.0.1 db\n".to_vec(), mode: 0o644 });
    let Answer::Path(hosts) = hosts.await else { panic!("no path") };
    pod.run().await;

    let line = "echo out; echo err >&2; mkdir /shared/w; echo page >/shared/w/index.html; trap 'exit 7' TERM; \
                /bin/busybox httpd -f -p 8080 -h /shared/w & wait";
    let c = pod.container("c", line, |container| {
        let mounts = [(&secret, "/secret"), (&shared, "/shared"), (&hosts, "/etc/hosts")];
        container.mounts.extend(mounts.map(|(from, to)| pod.mount(from, to)));
    });
    let c = c.await;
    let asked = Instant::now();
    let seen = until(&runtime, |s| is_running(s, &c)).await;
    println!("started to seen running: {:?}", asked.elapsed());

    // What is seen is what was asked for, and no more.
    let sandbox = seen.sandboxes.iter().find(|s| s.id == pod.id).unwrap();
    assert!(sandbox.ready && sandbox.pod == pod.sandbox.pod && sandbox.created.0 > 0);
    assert_eq!(sandbox.labels["app"], "web");
    assert_eq!(sandbox.labels["io.kubernetes.pod.uid"], "u1");
    assert!(!sandbox.labels.contains_key("beemesh.io/owner"));
    assert_eq!(sandbox.annotations["note"], "kept");
    let container = find(&seen, &c).unwrap();
    assert_eq!((container.sandbox.as_str(), container.name.as_str(), container.attempt), (pod.id.as_str(), "c", 0));
    assert_eq!(container.image, "busybox:latest");
    assert_eq!(container.labels["io.kubernetes.container.name"], "c");
    let log = Path::new(&pod.sandbox.log_directory).join("c/0.log");
    assert_eq!(Path::new(&container.log_path), log);
    let addresses = pod.addresses(&seen);
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    assert!(addresses[0].is_ipv4() && addresses[1].is_ipv6(), "{addresses:?}");

    // Inside.
    assert_eq!(
        pod.exec(&c, "cat /secret/password /etc/hosts; hostname").await,
        (0, format!("x10.0.0.1 db\n{}\n", pod.sandbox.pod.name))
    );
    assert_eq!(pod.exec(&c, "echo no >&2; exit 3").await, (3, "no\n".into()));
    let long = pod.exec(&c, "while :; do echo 0123456789; done | busybox head -c 20000").await;
    assert_eq!((long.0, long.1.len()), (0, 10 << 10));
    let late = pod.try_exec(&c, "sleep 100", Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(late.why, Why::TimedOut, "{}", late.message);
    let nobody = pod.try_exec("nobody", "true", Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(nobody.why, Why::NotFound, "{}", nobody.message);

    // Streams can be had at the runtime's own door, on this machine only.
    let streams = Streams { stdout: true, ..Streams::default() };
    for url in [
        runtime.exec_url(&c, vec!["/bin/sh".into()], streams).await.unwrap(),
        runtime.attach_url(&c, streams).await.unwrap(),
        runtime.port_forward_url(&pod.id, &[8080]).await.unwrap(),
    ] {
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    }

    // A file changes under the container that reads it.
    pod.volume("secret", VolumeKind::Files(vec![file("password", "y", 0o400)])).await;
    pod.ask(Op::File { pod: "u1".into(), path: "etc-hosts".into(), bytes: b"new\n".to_vec(), mode: 0o644 }).await;
    assert_eq!(pod.exec(&c, "cat /secret/password /etc/hosts").await, (0, "ynew\n".into()));

    // From outside: by both addresses, and by the port of the host.
    let mut ways: Vec<(IpAddr, u16)> = addresses.iter().map(|a| (*a, 8080)).collect();
    ways.push((IpAddr::from([10, 77, 0, 1]), 18080));
    for (host, port) in ways {
        let get = HttpGet { host: host.to_string(), port, path: "/".into(), ..HttpGet::default() };
        let answer = runtime.perform(Op::Http { get, timeout: Duration::from_secs(10) }).await;
        let page = Answer::Http { status: 200, body: b"page\n".to_vec() };
        assert!(answer.as_ref() == Ok(&page), "{host}: {answer:?}\n{}", pod.network(&c).await);
    }

    let mut pieces = runtime.logs(&c, Options::default()).unwrap();
    let mut said = String::new();
    while let Some(piece) = pieces.recv().await {
        said.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    assert!(said == "out\nerr\n" || said == "err\nout\n", "{said}");

    // It is asked to end, and ends as it likes; followers hear to the end.
    let mut follower = runtime.logs(&c, Options { follow: true, tail_lines: Some(1), ..Options::default() }).unwrap();
    let begun = Instant::now();
    pod.ask(Op::StopContainer { id: c.clone(), grace: Duration::from_secs(30) }).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    let stopped = Instant::now();
    let seen = until(&runtime, |s| ended(s, &c).is_some()).await;
    println!("stopped to seen ended: {:?}", stopped.elapsed());
    assert_eq!(ended(&seen, &c), Some((7, "Error".into())));
    while follower.recv().await.is_some() {}
    let tail = Op::Tail { path: log.to_str().unwrap().into(), bytes_max: 4, lines_max: 80, log: true };
    assert!(matches!(pod.ask(tail).await, Answer::Bytes(b) if b.len() == 4));
    pod.ask(Op::StopContainer { id: c.clone(), grace: Duration::from_secs(30) }).await;
    pod.ask(Op::RemoveContainer { id: c.clone(), files: Vec::new() }).await;
    pod.ask(Op::RemoveContainer { id: c.clone(), files: Vec::new() }).await;

    pod.remove().await;
    pod.remove().await;
    let seen = until(&runtime, |s| s.sandboxes.is_empty() && s.containers.is_empty()).await;
    assert!(seen.at.0 > 0);
    let data = fs::canonicalize(node.path("data")).unwrap();
    assert_eq!(fs::read_dir(data.join("pods")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(data.join("logs/pods")).unwrap().count(), 0);
    let given: Vec<_> =
        fs::read_dir(data.join("cni/addresses/beemesh0")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(
        given.iter().all(|n| n.to_str().unwrap().parse::<IpAddr>().is_err()),
        "addresses are still given: {given:?}"
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/data/pods/"), "{mounts}");
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        assert!(!hierarchy.path().join(pod.sandbox.cgroup_parent.trim_start_matches('/')).exists(), "{hierarchy:?}");
    }
    runtime.end().await;
    assert_eq!(node.daemons(), Vec::<i32>::new());
}
