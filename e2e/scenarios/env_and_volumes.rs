//! What a container is given: environment, files, host paths.

use crate::with_pods::{SOON, story};
use anyhow::{Result, ensure};
use e2e::until;
use std::collections::BTreeMap;
use std::fs;

const ENV: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: env
  labels: {color: blue}
  annotations: {note: a b}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox:1.36
    command: [env]
    resources:
      requests: {cpu: 50m, memory: 16Mi}
      limits: {cpu: 1500m, memory: 32Mi}
    envFrom:
    - configMapRef: {name: prices}
    - prefix: S_
      secretRef: {name: keys}
    - configMapRef: {name: absent, optional: true}
    env:
    - {name: PLAIN, value: "a b"}
    - {name: EXPANDED, value: "$(PLAIN)-$(apple)-$(NOWHERE)-$$(PLAIN)"}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: SPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
    - {name: COLOR, valueFrom: {fieldRef: {fieldPath: "metadata.labels['color']"}}}
    - {name: NOTE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['note']"}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
    - {name: CPUS, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    - {name: MEMORY_MI, valueFrom: {resourceFieldRef: {resource: requests.memory, divisor: 1Mi}}}
    - {name: APPLE, valueFrom: {configMapKeyRef: {name: prices, key: apple}}}
    - {name: KEY, valueFrom: {secretKeyRef: {name: keys, key: door}}}
    - {name: ABSENT, valueFrom: {secretKeyRef: {name: keys, key: absent, optional: true}}}
"#;

const NEEDS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: needs}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1.36
    command: [sleep, '100000']
    env: [{name: LATE, valueFrom: {configMapKeyRef: {name: late, key: word}}}]
";

#[test]
fn a_container_has_its_environment_from_all_sources() -> Result<()> {
    story("env", |mesh| {
        let kubectl = &mesh.kubectl;
        kubectl.ok(&["create", "configmap", "prices", "--from-literal=apple=1", "--from-literal=pear=2"])?;
        kubectl.ok(&["create", "secret", "generic", "keys", "--from-literal=door=sesame"])?;
        kubectl.ok(&["create", "service", "clusterip", "my-shop", "--tcp=80:8080"])?;
        let address = kubectl.ok(&["get", "service", "my-shop", "-o", "jsonpath={.spec.clusterIP}"])?;
        mesh.apply(ENV)?;
        let said = mesh.said("env")?;
        let env: BTreeMap<&str, &str> = said.lines().filter_map(|l| l.split_once('=')).collect();
        let pod = kubectl.json(&["get", "pod", "env"])?;
        let node = mesh.machine.address().to_string();
        let text = |path: &str| pod.pointer(path).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let (uid, pod_ip) = (text("/metadata/uid"), text("/status/podIP"));
        let wanted = [
            ("apple", "1"),
            ("pear", "2"),
            ("S_door", "sesame"),
            ("PLAIN", "a b"),
            ("EXPANDED", "a b-1-$(NOWHERE)-$(PLAIN)"),
            ("POD", "env"),
            ("SPACE", "default"),
            ("UID", uid.as_str()),
            ("COLOR", "blue"),
            ("NOTE", "a b"),
            ("NODE", "vm"),
            ("ACCOUNT", "default"),
            ("HOST_IP", node.as_str()),
            ("CPUS", "2"),
            ("MEMORY_MI", "16"),
            ("APPLE", "1"),
            ("KEY", "sesame"),
            ("HOSTNAME", "env"),
            ("MY_SHOP_SERVICE_HOST", address.as_str()),
            ("MY_SHOP_SERVICE_PORT", "80"),
            ("KUBERNETES_SERVICE_HOST", "10.43.0.1"),
        ];
        for (name, value) in wanted {
            assert_eq!(env.get(name).copied(), Some(value), "{name} in {said}");
        }
        ensure!(!env.contains_key("ABSENT"), "what is optional and not there is not set");
        ensure!(env.get("POD_IP").is_some_and(|ip| ip.starts_with("10.42.")), "{said} {pod_ip}");

        mesh.apply(NEEDS)?;
        let waiting = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
        let seen = mesh
            .until("needs", "a configmap is missing", |pod| waiting(pod)["reason"] == "CreateContainerConfigError")?;
        assert_eq!(waiting(&seen)["message"], "configmap \"late\" not found");
        kubectl.ok(&["create", "configmap", "late", "--from-literal=word=now"])?;
        mesh.until_ready("needs")?;
        assert_eq!(kubectl.ok(&["exec", "needs", "--", "sh", "-c", "echo $LATE"])?, "now\n");
        Ok(())
    })
}

const VOLUMES: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: volumes
  labels: {color: blue}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000}
  volumes:
  - {name: config, configMap: {name: prices}}
  - {name: some, configMap: {name: prices, defaultMode: 0640, items: [{key: pear, path: fruit/pear, mode: 0600}]}}
  - {name: secret, secret: {secretName: keys, defaultMode: 0400}}
  - name: down
    downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}},
                          {path: memory, resourceFieldRef: {containerName: main, resource: limits.memory}}]}
  - name: all
    projected:
      sources:
      - configMap: {name: prices, items: [{key: apple, path: apple}]}
      - secret: {name: keys}
      - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
      - serviceAccountToken: {path: token, audience: shop, expirationSeconds: 600}
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: host, hostPath: {path: /srv/shared, type: DirectoryOrCreate}}
  containers:
  - name: main
    image: busybox:1.36
    command: [sleep, '100000']
    resources: {limits: {memory: 64Mi}}
    volumeMounts:
    - {name: config, mountPath: /config}
    - {name: some, mountPath: /some}
    - {name: secret, mountPath: /secret, readOnly: true}
    - {name: down, mountPath: /down}
    - {name: all, mountPath: /all}
    - {name: scratch, mountPath: /scratch}
    - {name: memory, mountPath: /memory}
    - {name: host, mountPath: /host}
    - {name: config, mountPath: /etc/one, subPath: apple}
  - name: second
    image: busybox:1.36
    command: [sleep, '100000']
    securityContext: {runAsUser: 1000, runAsGroup: 1000}
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: host, mountPath: /host, readOnly: true}
"#;

#[test]
fn files_come_from_all_kinds_of_volumes_and_follow_their_sources() -> Result<()> {
    story("volumes", |mesh| {
        let kubectl = &mesh.kubectl;
        kubectl.ok(&["create", "configmap", "prices", "--from-literal=apple=1", "--from-literal=pear=2"])?;
        kubectl.ok(&["create", "secret", "generic", "keys", "--from-literal=door=sesame"])?;
        mesh.apply(VOLUMES)?;
        mesh.until_ready("volumes")?;
        let inside = |script: &str| kubectl.ok(&["exec", "volumes", "-c", "main", "--", "sh", "-c", script]);
        let second = |script: &str| kubectl.run(&["exec", "volumes", "-c", "second", "--", "sh", "-c", script]);
        assert_eq!(inside("cd /config; cat apple pear; ls; cat /etc/one")?, "12apple\npear\n1");
        // The group's bits are added for fsGroup, as the kubelet does.
        assert_eq!(inside("cd /some; ls; ls fruit; stat -L -c '%a %g' fruit/pear")?, "fruit\npear\n640 2000\n");
        assert_eq!(inside("cat /secret/door; stat -L -c ' %a %g' /secret/door")?, "sesame 440 2000\n");
        assert_eq!(inside("cat /down/labels; echo; cat /down/memory")?, "color=\"blue\"\n67108864");
        assert_eq!(inside("cd /all; cat apple door name")?, "1sesamevolumes");
        let who = inside("cut -d. -f2 /all/token | tr '_-' '/+' | base64 -d 2>/dev/null || true")?;
        ensure!(who.contains(r#""aud":["shop"]"#) && who.contains("system:serviceaccount:default:default"), "{who}");
        assert_eq!(inside("mount | grep -c ' /memory type tmpfs.*size=1024k'")?, "1\n");

        // Volumes of one pod are shared by its containers; a group that owns them may write.
        ensure!(second("id -u; echo hello >/scratch/file")?.succeeded());
        assert_eq!(inside("cat /scratch/file; stat -c %g /scratch/file")?, "hello\n2000\n");
        inside("echo from inside >/host/file")?;
        assert_eq!(fs::read_to_string(mesh.machine.on_disk("/srv/shared/file"))?, "from inside\n");
        ensure!(!second("echo no >/host/file")?.succeeded(), "a mount that is read-only cannot be written");
        ensure!(!second("cat /secret/door")?.succeeded(), "a container sees what it mounts and nothing else");

        // A source that changes is followed, all files at once; a subPath is not.
        kubectl.ok(&["patch", "configmap", "prices", "-p", r#"{"data":{"apple":"10","plum":"3"}}"#])?;
        kubectl.ok(&["patch", "secret", "keys", "-p", r#"{"stringData":{"door":"open"}}"#])?;
        kubectl.ok(&["label", "pod", "volumes", "color=red", "--overwrite"])?;
        let wanted = "10 3 10 open color=\"red\"";
        until("the new files", SOON * 2, || {
            let now = inside(
                "cat /config/apple; echo -n ' '; cat /config/plum; echo -n ' '; cat /all/apple; echo -n ' '; cat /secret/door; echo -n ' '; cat /down/labels",
            )?;
            Ok((now == wanted).then_some(()))
        })?;
        assert_eq!(inside("cat /etc/one")?, "1");

        kubectl.ok(&["delete", "pod", "volumes"])?;
        let left = format!("find {}/pods -mindepth 1 -maxdepth 1 | wc -l", e2e::Options::DATA);
        until("the end of the pod's folder", SOON, || {
            Ok((mesh.machine.ok(&["sh", "-c", &left])? == "0\n").then_some(()))
        })?;
        ensure!(fs::exists(mesh.machine.on_disk("/srv/shared/file"))?, "the host's own files stay");
        Ok(())
    })
}

const MISSING: &str = "
apiVersion: v1
kind: Pod
metadata: {name: missing}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: late, secret: {secretName: late}}
  - {name: file, hostPath: {path: /srv/no-such-file, type: File}}
  containers:
  - name: main
    image: busybox:1.36
    command: [sleep, '100000']
    volumeMounts: [{name: late, mountPath: /late}, {name: file, mountPath: /file}]
";

#[test]
fn a_volume_that_cannot_be_made_holds_its_pod_back_and_says_why() -> Result<()> {
    story("missing-volumes", |mesh| {
        let kubectl = &mesh.kubectl;
        mesh.apply(MISSING)?;
        let told = |what: &str| mesh.until_told(Some("pod/missing"), &[what]);
        told("MountVolume.SetUp failed for volume \"late\" : secret \"late\" not found")?;
        kubectl.ok(&["create", "secret", "generic", "late", "--from-literal=a=b"])?;
        told(
            "MountVolume.SetUp failed for volume \"file\" : hostPath type check failed: /srv/no-such-file is not a file",
        )?;
        mesh.machine.ok(&["sh", "-c", "mkdir -p /srv && touch /srv/no-such-file"])?;
        mesh.until_ready("missing")
    })
}
