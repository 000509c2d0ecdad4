//! What a container may do: the pod's securityContext, the container's own over it, the image's user below
//! both.
//!
//! Source: the kubelet's `kuberuntime/security_context*.go` and `pkg/securitycontext/util.go`.

use super::facts::NodeFacts;
use super::spec::{List, containers, formatted};
use base::runtime::{HostNamespaces, Image, PidNamespace, Seccomp, Security};
use objects::Tree;
use objects::kinds::tree::Fields;

/// The namespaces of the host that a pod uses.
pub(super) fn host_namespaces(pod: &Tree) -> HostNamespaces {
    let spec = pod.at("spec");
    HostNamespaces { network: spec.flag("hostNetwork"), pid: spec.flag("hostPID"), ipc: spec.flag("hostIPC") }
}

fn pid(pod: &Tree) -> PidNamespace {
    let spec = pod.at("spec");
    match (spec.flag("hostPID"), spec.flag("shareProcessNamespace")) {
        (true, _) => PidNamespace::Host,
        (false, true) => PidNamespace::Pod,
        (false, false) => PidNamespace::Container,
    }
}

/// Whether any container is privileged.
pub(super) fn privileged(pod: &Tree) -> bool {
    List::ALL.into_iter().flat_map(|l| containers(pod, l)).any(|c| c.at("securityContext").flag("privileged"))
}

/// The group that owns the pod's volumes.
pub(super) fn fs_group(pod: &Tree) -> Option<u32> {
    pod.at("spec").at("securityContext").int("fsGroup").and_then(|g| u32::try_from(g).ok())
}

/// The one user all containers run as, if they agree on one: a token belongs to it.
pub(super) fn only_user(pod: &Tree) -> Option<u32> {
    let own = pod.at("spec").at("securityContext").int("runAsUser");
    let mut all = List::ALL
        .into_iter()
        .flat_map(|l| containers(pod, l))
        .map(|c| c.at("securityContext").int("runAsUser").or(own));
    let first = all.next()??;
    all.all(|u| u == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

/// Groups besides the primary one.
fn groups(pod: &Tree) -> Vec<i64> {
    let context = pod.at("spec").at("securityContext");
    let more = context.list("supplementalGroups").iter().filter_map(Tree::as_i64);
    context.int("fsGroup").into_iter().chain(more).collect()
}

/// What the sandbox's own process runs with.
pub(super) fn of_sandbox(pod: &Tree) -> Security {
    let context = pod.at("spec").at("securityContext");
    Security {
        privileged: privileged(pod),
        run_as_user: context.int("runAsUser"),
        run_as_group: context.int("runAsGroup"),
        supplemental_groups: groups(pod),
        seccomp: Seccomp::RuntimeDefault,
        masked_proc: true,
        pid: pid(pod),
        ..Security::default()
    }
}

/// What a container made of `image` may do.
///
/// # Errors
/// It may not run, in the kubelet's words.
pub(super) fn of_container(facts: &NodeFacts, pod: &Tree, container: &Tree, image: &Image) -> Result<Security, String> {
    let (whole, own) = (pod.at("spec").at("securityContext"), container.at("securityContext"));
    let either = |name: &str| if own.has(name) { own.at(name) } else { whole.at(name) };
    let user = either("runAsUser").as_i64();
    // An image that names nobody runs as root.
    let image_uid = image.uid.or_else(|| image.username.is_empty().then_some(0));
    if either("runAsNonRoot").as_bool() == Some(true) {
        not_root(pod, container, user, image_uid, &image.username)?;
    }
    let capabilities = |list: &str| -> Vec<String> {
        own.at("capabilities").list(list).iter().filter_map(Tree::as_str).map(str::to_owned).collect()
    };
    Ok(Security {
        privileged: own.flag("privileged"),
        add_capabilities: capabilities("add"),
        drop_capabilities: capabilities("drop"),
        run_as_user: user.or(image_uid),
        run_as_username: if user.is_none() { image.username.clone() } else { String::new() },
        run_as_group: either("runAsGroup").as_i64(),
        supplemental_groups: groups(pod),
        read_only_root: own.flag("readOnlyRootFilesystem"),
        no_new_privileges: own.at("allowPrivilegeEscalation").as_bool() == Some(false),
        seccomp: seccomp(facts, either("seccompProfile"))?,
        apparmor: apparmor(either("appArmorProfile")),
        masked_proc: own.text("procMount") != "Unmasked",
        pid: pid(pod),
    })
}

fn not_root(
    pod: &Tree,
    container: &Tree,
    user: Option<i64>,
    image_uid: Option<i64>,
    username: &str,
) -> Result<(), String> {
    let which = format!("(pod: \"{}\", container: {})", formatted(pod), container.text("name"));
    match (user, image_uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {which}")),
        (Some(_), _) | (None, Some(1..)) => Ok(()),
        (None, Some(_)) => Err(format!("container has runAsNonRoot and image will run as root {which}")),
        (None, None) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({username}), cannot verify user is non-root {which}"
        )),
    }
}

fn seccomp(facts: &NodeFacts, profile: &Tree) -> Result<Seccomp, String> {
    match profile.text("type") {
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Localhost" => match profile.text("localhostProfile") {
            "" => Err("localhostProfile must be set if seccompProfile type is Localhost.".to_owned()),
            file => Ok(Seccomp::Localhost(format!("{}/{file}", facts.seccomp.trim_end_matches('/')))),
        },
        _ => Ok(Seccomp::Unconfined),
    }
}

fn apparmor(profile: &Tree) -> String {
    match profile.text("type") {
        "RuntimeDefault" => "runtime/default".to_owned(),
        "Unconfined" => "unconfined".to_owned(),
        "Localhost" => format!("localhost/{}", profile.text("localhostProfile")),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn of(whole: Tree, own: Tree, image: &Image) -> Result<Security, String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": whole, "containers": [{"name": "c", "securityContext": own}]}});
        let facts = NodeFacts { seccomp: "/var/lib/seccomp".into(), ..NodeFacts::default() };
        of_container(&facts, &pod, &pod["spec"]["containers"][0], image)
    }

    #[test]
    fn a_containers_own_word_stands_before_the_pods_and_both_before_the_images() {
        let image = Image { uid: Some(7), ..Image::default() };
        let s = of(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4], "seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"runAsUser": 5, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "procMount": "Default"}),
            &image,
        )
        .unwrap();
        let want = Security {
            add_capabilities: vec!["NET_ADMIN".into()],
            drop_capabilities: vec!["ALL".into()],
            run_as_user: Some(5),
            run_as_group: Some(2),
            supplemental_groups: vec![3, 4],
            read_only_root: true,
            no_new_privileges: true,
            seccomp: Seccomp::RuntimeDefault,
            masked_proc: true,
            ..Security::default()
        };
        assert_eq!(s, want);
        assert_eq!(of(json!({}), json!({}), &image).unwrap().run_as_user, Some(7));
        let local = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}});
        let seccomp = of(local, json!({}), &image).unwrap().seccomp;
        assert_eq!(seccomp, Seccomp::Localhost("/var/lib/seccomp/a.json".into()));
    }

    #[test]
    fn who_must_not_be_root_is_not_started_as_root() {
        let must = json!({"runAsNonRoot": true});
        let root = Image { uid: Some(0), ..Image::default() };
        let nobody = Image::default();
        let named = Image { username: "www".into(), ..Image::default() };
        for (whole, own, image, want) in [
            (
                &must,
                json!({}),
                &root,
                Some("container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"),
            ),
            (
                &must,
                json!({}),
                &nobody,
                Some("container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"),
            ),
            (&must, json!({"runAsUser": 9}), &nobody, None),
            (
                &must,
                json!({"runAsUser": 0}),
                &root,
                Some("container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)"),
            ),
            (&must, json!({"runAsUser": 9}), &root, None),
            (&must, json!({"runAsNonRoot": false}), &root, None),
            (
                &must,
                json!({}),
                &named,
                Some(
                    "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root (pod: \"p_n(u)\", container: c)",
                ),
            ),
        ] {
            let got = of(whole.clone(), own.clone(), image).err();
            assert_eq!(got.as_deref(), want, "{own}");
        }
    }
}
