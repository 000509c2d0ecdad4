//! Containers of one pod beside each other: the order of what is asked, graces, rotation, memory.

use crate::node::{Node, ended, find, in_own_namespaces, is_running, until};
use base::runtime::{Answer, ContainerState, Op};
use host::logs::Options;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

#[test]
fn graces_run_side_by_side_and_what_follows_waits() {
    in_own_namespaces("several_containers::graces_run_side_by_side_and_what_follows_waits", graces);
}

async fn graces(node: Node) {
    let runtime = node.start().await;
    let mut pod = node.pod(&runtime, "u1");
    pod.run().await;
    let deaf = "trap '' TERM; echo deaf; while :; do sleep 0.1; done";
    let (a, b) = (pod.container("a", deaf, |_| ()).await, pod.container("b", deaf, |_| ()).await);
    until(&runtime, |s| is_running(s, &a) && is_running(s, &b)).await;
    let is_deaf = |id: &str| {
        let log = find(&runtime.seen().borrow(), id).unwrap().log_path.clone();
        fs::read_to_string(log).unwrap_or_default().contains("deaf")
    };
    while !is_deaf(&a) || !is_deaf(&b) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (answered, mut answers) = mpsc::unbounded_channel();
    let begun = Instant::now();
    let grace = Duration::from_secs(2);
    for (name, op) in [
        ("stop a", Op::StopContainer { id: a.clone(), grace }),
        ("stop b", Op::StopContainer { id: b.clone(), grace }),
        ("remove a", Op::RemoveContainer { id: a.clone(), files: Vec::new() }),
        ("a probe", Op::Tail { path: "/nonexistent".into(), bytes_max: 1, lines_max: 0, log: false }),
    ] {
        let answered = answered.clone();
        runtime.submit("u1", op, move |answer| {
            let _ = answered.send((name, answer, begun.elapsed()));
        });
    }
    let mut order = Vec::new();
    while order.len() < 4 {
        order.push(answers.recv().await.unwrap());
    }
    assert!(order.iter().all(|(_, answer, _)| answer.is_ok()), "{order:?}");
    let names: Vec<_> = order.iter().map(|(name, ..)| *name).collect();
    assert_eq!((names[0], names[3]), ("a probe", "remove a"), "{order:?}");
    let (stop_a, stop_b) = (order[1].2, order[2].2);
    assert!(stop_a >= grace && stop_b < grace * 2, "each has its grace, at the same time: {order:?}");
    let seen = until(&runtime, |s| find(s, &a).is_none() && ended(s, &b).is_some()).await;
    assert_eq!(ended(&seen, &b).unwrap().0, 137);
    pod.remove().await;
    runtime.end().await;
}

#[test]
fn a_log_is_rotated_under_its_container_and_its_reader() {
    in_own_namespaces("several_containers::a_log_is_rotated_under_its_container_and_its_reader", rotation);
}

async fn rotation(node: Node) {
    let runtime = node.start().await;
    let mut pod = node.pod(&runtime, "u1");
    pod.run().await;
    // 12 MiB in lines of which each has its number, a pause, and one line more.
    let line = "i=0; x=$(busybox head -c 1000 /dev/zero | busybox tr '\\0' x); while [ $i -lt 12000 ]; do echo $i $x; i=$((i+1)); done; \
                while [ ! -e /go ]; do sleep 0.05; done; echo last";
    let c = pod.container("c", line, |_| ()).await;
    let seen = until(&runtime, |s| is_running(s, &c)).await;
    let log = find(&seen, &c).unwrap().log_path.clone();
    let mut reader = runtime.logs(&c, Options { follow: true, ..Options::default() }).unwrap();
    let read = tokio::spawn(async move {
        let mut said = Vec::new();
        while let Some(piece) = reader.recv().await {
            said.extend_from_slice(&piece.unwrap());
        }
        said
    });
    while fs::metadata(&log).is_ok_and(|m| m.len() < 12_000_000) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(runtime.rotate_logs().await.is_empty());
    assert!(fs::metadata(&log).unwrap().len() < 1_000_000, "begun anew");
    assert_eq!(fs::read_dir(Path::new(&log).parent().unwrap()).unwrap().count(), 2);
    assert!(runtime.rotate_logs().await.is_empty());
    assert_eq!(fs::read_dir(Path::new(&log).parent().unwrap()).unwrap().count(), 2, "it is not too large any more");
    assert_eq!(pod.exec(&c, "echo >/go").await.0, 0);
    until(&runtime, |s| ended(s, &c) == Some((0, "Completed".into()))).await;
    let said = String::from_utf8(read.await.unwrap()).unwrap();
    let numbers: Vec<&str> = said.lines().map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(numbers.len(), 12_001);
    assert!(numbers[..12_000].iter().enumerate().all(|(i, n)| *n == i.to_string()) && numbers[12_000] == "last");
    pod.remove().await;
    runtime.end().await;
}

#[test]
fn who_takes_too_much_memory_is_killed_for_it() {
    in_own_namespaces("several_containers::who_takes_too_much_memory_is_killed_for_it", memory);
}

async fn memory(node: Node) {
    let runtime = node.start().await;
    let mut pod = node.pod(&runtime, "u1");
    pod.run().await;
    let line = "x=$(busybox head -c 100000000 /dev/zero | busybox tr '\\0' x)";
    let c = pod.container("c", line, |c| c.resources.memory_bytes = 16 << 20).await;
    let seen = until(&runtime, |s| ended(s, &c).is_some()).await;
    assert_eq!(ended(&seen, &c), Some((137, "OOMKilled".into())));

    // A container whose program is not there says so when it is started.
    let of = Box::new(pod.sandbox.clone());
    let Answer::Image(image) = pod.ask(Op::FindImage { image: host::pause::NAME.into() }).await else {
        panic!("no image")
    };
    let container = base::runtime::Container {
        name: "none".into(),
        image: image.id,
        command: vec!["/nothing".into()],
        log_path: "none/0.log".into(),
        ..Default::default()
    };
    let create = Op::CreateContainer { sandbox: pod.id.clone(), of, container: Box::new(container) };
    let id = crate::node::id(pod.ask(create).await);
    let failure = runtime.perform(Op::StartContainer { id: id.clone() }).await.unwrap_err();
    assert!(failure.message.contains("/nothing") && failure.message.contains("no such file"), "{}", failure.message);
    let seen = until(&runtime, |s| ended(s, &id).is_some()).await;
    let ContainerState::Exited { code, reason, started, .. } = &find(&seen, &id).unwrap().state else {
        panic!("it runs")
    };
    assert_eq!((*code, reason.as_str(), started.0), (128, "StartError", 0));
    pod.remove().await;
    runtime.end().await;
}
