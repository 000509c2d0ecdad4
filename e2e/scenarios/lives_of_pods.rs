//! How pods begin, are asked how they are, and end: init containers, probes, hooks, grace, restarts, limits.

use crate::with_pods::{SOON, condition, story};
use anyhow::{Result, ensure};
use e2e::until;
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

const INIT: &str = "
apiVersion: v1
kind: Pod
metadata: {name: init}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: log, emptyDir: {}}]
  initContainers:
  - {name: one, image: 'busybox:1.36', command: [sh, -c, 'sleep 0.3; echo one >>/log/all'], volumeMounts: [{name: log, mountPath: /log}]}
  - {name: side, image: 'busybox:1.36', restartPolicy: Always, command: [sh, -c, 'echo side >>/log/all; sleep 100000'],
     startupProbe: {exec: {command: [grep, side, /log/all]}, periodSeconds: 1}, volumeMounts: [{name: log, mountPath: /log}]}
  - {name: two, image: 'busybox:1.36', command: [sh, -c, 'echo two >>/log/all'], volumeMounts: [{name: log, mountPath: /log}]}
  containers:
  - {name: main, image: 'busybox:1.36', command: [sh, -c, 'echo main >>/log/all; cat /log/all'], volumeMounts: [{name: log, mountPath: /log}]}
";

const INIT_FAILS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: init-fails}
spec:
  restartPolicy: Never
  initContainers: [{name: bad, image: 'busybox:1.36', command: [sh, -c, 'echo no; exit 9']}]
  containers: [{name: main, image: 'busybox:1.36', command: [echo, never]}]
";

#[test]
fn containers_begin_in_their_order() -> Result<()> {
    story("init", |mesh| {
        mesh.apply(INIT)?;
        let ended = mesh.until("init", "it has succeeded", |pod| pod["status"]["phase"] == "Succeeded")?;
        assert_eq!(mesh.kubectl.ok(&["logs", "init", "-c", "main"])?, "one\nside\ntwo\nmain\n");
        let inits = &ended["status"]["initContainerStatuses"];
        assert_eq!(inits[0]["state"]["terminated"]["reason"], "Completed", "{ended:#}");
        assert_eq!(condition(&ended, "Initialized"), Some("True"));
        mesh.apply(INIT_FAILS)?;
        let failed = mesh.until("init-fails", "it has failed", |pod| pod["status"]["phase"] == "Failed")?;
        assert_eq!(failed["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 9, "{failed:#}");
        assert_eq!(failed["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
        let row = mesh.kubectl.ok(&["get", "pod", "init-fails", "--no-headers"])?;
        ensure!(row.contains("Init:Error"), "{row}");
        Ok(())
    })
}

const PROBED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: probed, labels: {app: probed}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: nginx:1.14.2
    readinessProbe: {httpGet: {path: /ready, port: 80}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
  - name: worker
    image: busybox:1.36
    command: [sh, -c, 'touch /tmp/alive; exec sleep 100000']
    startupProbe: {exec: {command: [test, -e, /tmp/alive]}, periodSeconds: 1, failureThreshold: 30}
    livenessProbe: {exec: {command: [sh, -c, 'echo looked; test -e /tmp/alive']}, periodSeconds: 1, failureThreshold: 2}
";

fn status<'a>(pod: &'a Value, container: &str) -> &'a Value {
    let all = pod["status"]["containerStatuses"].as_array();
    all.and_then(|all| all.iter().find(|c| c["name"] == container)).unwrap_or(&Value::Null)
}

#[test]
fn probes_decide_who_is_ready_and_who_is_restarted() -> Result<()> {
    story("probes", |mesh| {
        let kubectl = &mesh.kubectl;
        mesh.apply(PROBED)?;
        kubectl.ok(&["expose", "pod", "probed", "--port=80"])?;
        let runs = mesh.until("probed", "the worker is ready and the web server is not", |pod| {
            status(pod, "worker")["ready"] == true && status(pod, "web")["state"]["running"].is_object()
        })?;
        assert_eq!(status(&runs, "web")["ready"], false);
        assert_eq!(condition(&runs, "Ready"), Some("False"));
        let slice = ["get", "endpointslices", "-l", "kubernetes.io/service-name=probed", "-o"];
        let ready = "jsonpath={.items[*].endpoints[*].conditions.ready}";
        kubectl.until_prints("false", &[&slice[..], &[ready]].concat())?;
        let failed = "Readiness probe failed: HTTP probe failed with statuscode: 404";
        mesh.until_told(Some("pod/probed"), &[failed])?;

        let web = |script: &str| kubectl.ok(&["exec", "probed", "-c", "web", "--", "sh", "-c", script]);
        web("touch /usr/share/nginx/html/ready")?;
        mesh.until_ready("probed")?;
        kubectl.until_prints("true", &[&slice[..], &[ready]].concat())?;
        web("rm /usr/share/nginx/html/ready")?;
        mesh.until("probed", "it is ready no more", |pod| condition(pod, "Ready") == Some("False"))?;
        kubectl.until_prints("false", &[&slice[..], &[ready]].concat())?;

        kubectl.ok(&["exec", "probed", "-c", "worker", "--", "rm", "/tmp/alive"])?;
        let again = mesh.until("probed", "the worker was restarted", |pod| {
            status(pod, "worker")["restartCount"] == 1 && status(pod, "worker")["ready"] == true
        })?;
        assert_eq!(status(&again, "web")["restartCount"], 0, "{again:#}");
        assert_eq!(status(&again, "worker")["lastState"]["terminated"]["exitCode"], 137, "{again:#}");
        let told = ["Liveness probe failed: looked", "Container worker failed liveness probe, will be restarted"];
        mesh.until_told(Some("pod/probed"), &told)
    })
}

const HOOKED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: hooked}
spec:
  terminationGracePeriodSeconds: 20
  volumes: [{name: log, hostPath: {path: /srv/hooks, type: DirectoryOrCreate}}]
  containers:
  - name: main
    image: busybox:1.36
    command: [sh, -c, 'trap \"echo term >>/log/all; exit 0\" TERM; while true; do sleep 0.1; done']
    volumeMounts: [{name: log, mountPath: /log}]
    lifecycle:
      postStart: {exec: {command: [sh, -c, 'echo post >>/log/all']}}
      preStop: {exec: {command: [sh, -c, 'sleep 0.5; echo pre >>/log/all']}}
";

const DEAF: &str = "
apiVersion: v1
kind: Pod
metadata: {name: deaf}
spec:
  terminationGracePeriodSeconds: 2
  containers: [{name: main, image: 'busybox:1.36', command: [sh, -c, 'trap \"\" TERM; while true; do sleep 0.1; done']}]
";

#[test]
fn hooks_run_and_who_does_not_end_in_time_is_killed() -> Result<()> {
    story("hooks", |mesh| {
        let kubectl = &mesh.kubectl;
        mesh.apply(HOOKED)?;
        mesh.until_ready("hooked")?;
        let log = || Ok::<_, anyhow::Error>(fs::read_to_string(mesh.machine.on_disk("/srv/hooks/all"))?);
        assert_eq!(log()?, "post\n");
        kubectl.ok(&["delete", "pod", "hooked"])?;
        assert_eq!(log()?, "post\npre\nterm\n");

        mesh.apply(DEAF)?;
        mesh.until_ready("deaf")?;
        let start = Instant::now();
        kubectl.ok(&["delete", "pod", "deaf"])?;
        let took = start.elapsed();
        ensure!(took >= Duration::from_secs(2) && took < Duration::from_secs(20), "{took:?}");
        ensure!(mesh.machine.processes("sleep")?.is_empty(), "it is dead");
        mesh.apply(&DEAF.replace("Seconds: 2", "Seconds: 600"))?;
        mesh.until_ready("deaf")?;
        kubectl.ok(&["delete", "pod", "deaf", "--grace-period=0", "--force"])?;
        until("its death", SOON, || Ok(mesh.machine.processes("sleep")?.is_empty().then_some(())))
    })
}

const RESTARTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec:
  containers: [{name: main, image: 'busybox:1.36', command: [sh, -c, 'echo attempt; echo why >/dev/termination-log; exit 3']}]
---
apiVersion: v1
kind: Pod
metadata: {name: on-failure}
spec:
  restartPolicy: OnFailure
  volumes: [{name: keep, emptyDir: {}}]
  containers:
  - {name: main, image: 'busybox:1.36', command: [sh, -c, 'test -e /keep/a && exit 0; touch /keep/a; exit 1'],
     volumeMounts: [{name: keep, mountPath: /keep}]}
---
apiVersion: v1
kind: Pod
metadata: {name: never}
spec:
  restartPolicy: Never
  containers:
  - {name: main, image: 'busybox:1.36', command: [sh, -c, 'echo last words; exit 4'], terminationMessagePolicy: FallbackToLogsOnError}
---
apiVersion: v1
kind: Pod
metadata: {name: no-program}
spec:
  restartPolicy: Never
  containers: [{name: main, image: 'busybox:1.36', command: [/nosuchprogram]}]
---
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  activeDeadlineSeconds: 2
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: 'busybox:1.36', command: [sleep, '100000']}]
";

#[test]
fn containers_are_restarted_as_their_pods_say() -> Result<()> {
    story("restarts", |mesh| {
        let kubectl = &mesh.kubectl;
        mesh.apply(RESTARTS)?;
        let main = |pod: &Value| status(pod, "main").clone();
        let crash = mesh.until("crash", "it backs off", |pod| {
            main(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
                && main(pod)["restartCount"].as_u64() >= Some(1)
        })?;
        let waits = main(&crash)["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
        ensure!(
            waits.starts_with("back-off ") && waits.contains("restarting failed container=main pod=crash_default("),
            "{waits}"
        );
        let last = &main(&crash)["lastState"]["terminated"];
        assert_eq!(
            (&last["exitCode"], &last["reason"], &last["message"]),
            (&3.into(), &"Error".into(), &"why\n".into())
        );
        assert_eq!(kubectl.ok(&["logs", "crash", "--previous"])?, "attempt\n");

        let done = mesh.until("on-failure", "it has succeeded", |pod| pod["status"]["phase"] == "Succeeded")?;
        assert_eq!(main(&done)["restartCount"], 1);
        let failed = mesh.until("never", "it has failed", |pod| pod["status"]["phase"] == "Failed")?;
        assert_eq!(main(&failed)["restartCount"], 0);
        assert_eq!(main(&failed)["state"]["terminated"]["message"], "last words\n");
        let failed = mesh.until("no-program", "it has failed", |pod| pod["status"]["phase"] == "Failed")?;
        let ended = &main(&failed)["state"]["terminated"];
        ensure!(ended["message"].as_str().is_some_and(|m| m.contains("nosuchprogram")), "{ended}");
        let late = mesh.until("late", "its time is over", |pod| pod["status"]["phase"] == "Failed")?;
        assert_eq!(late["status"]["reason"], "DeadlineExceeded", "{late:#}");
        until("the end of what was too late", SOON, || Ok(mesh.machine.processes("sleep")?.is_empty().then_some(())))
    })
}

const LIMITED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1.36
    command: [sleep, '100000']
    resources: {requests: {cpu: 250m, memory: 16Mi}, limits: {cpu: 500m, memory: 32Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: hungry}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox:1.36
    command: [sh, -c, 'tail /dev/zero']
    resources: {limits: {memory: 16Mi}}
";

#[test]
fn limits_are_the_kernels() -> Result<()> {
    story("limits", |mesh| {
        mesh.apply(LIMITED)?;
        mesh.until_ready("limited")?;
        // Version 1 or version 2 of control groups, whichever is there.
        let script = "cd /sys/fs/cgroup; if [ -e cpu.max ]; then cat cpu.max memory.max; else \
                      echo $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us); cat memory/memory.limit_in_bytes; fi";
        assert_eq!(mesh.kubectl.ok(&["exec", "limited", "--", "sh", "-c", script])?, "50000 100000\n33554432\n");
        let class = mesh.kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].status.qosClass}"])?;
        ensure!(class.split(' ').all(|c| c == "Burstable") || class.contains("Guaranteed"), "{class}");
        let killed = mesh.until("hungry", "it was killed", |pod| pod["status"]["phase"] == "Failed")?;
        let ended = &status(&killed, "main")["state"]["terminated"];
        assert_eq!((&ended["reason"], &ended["exitCode"]), (&"OOMKilled".into(), &137.into()), "{killed:#}");
        Ok(())
    })
}
