//! A pod's object, read: its containers in their lists, what may start again, what it is called in
//! messages.

use objects::Tree;
use objects::kinds::tree::Fields;

/// Which list of the spec a container stands in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum List {
    /// `initContainers`.
    Init,
    /// `containers`.
    Main,
    /// `ephemeralContainers`.
    Ephemeral,
}

impl List {
    /// All, in the order in which they start.
    pub(super) const ALL: [List; 3] = [List::Ephemeral, List::Init, List::Main];

    /// The field of the spec.
    pub(super) const fn field(self) -> &'static str {
        match self {
            List::Init => "initContainers",
            List::Main => "containers",
            List::Ephemeral => "ephemeralContainers",
        }
    }
}

/// The containers of a list.
pub(super) fn containers(pod: &Tree, list: List) -> &[Tree] {
    pod.at("spec").list(list.field())
}

/// A container and its list, by name.
pub(super) fn find<'a>(pod: &'a Tree, name: &str) -> Option<(List, &'a Tree)> {
    List::ALL.into_iter().find_map(|l| Some((l, containers(pod, l).iter().find(|c| c.text("name") == name)?)))
}

/// An init container that runs beside the others (KEP-753).
pub(super) fn is_sidecar(list: List, container: &Tree) -> bool {
    list == List::Init && container.text("restartPolicy") == "Always"
}

/// Whether a container that ended so is started again (`ContainerShouldRestart`: the container's own
/// rules and policy stand before the pod's, KEP-5307).
pub(super) fn restarts(pod: &Tree, container: &Tree, code: i64) -> bool {
    let own = container.text("restartPolicy");
    if !own.is_empty() && matching_rule(container, code).is_some() {
        return true;
    }
    match if own.is_empty() { pod.at("spec").text("restartPolicy") } else { own } {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

/// The action of the first rule that knows an exit code.
fn matching_rule(container: &Tree, code: i64) -> Option<&str> {
    let known = |rule: &&Tree| {
        let codes = rule.at("exitCodes");
        let among = codes.list("values").iter().any(|v| v.as_i64() == Some(code));
        match codes.text("operator") {
            "In" => among,
            "NotIn" => !among,
            _ => false,
        }
    };
    let rule = container.list("restartPolicyRules").iter().find(known)?;
    Some(rule.text("action")).filter(|a| matches!(*a, "Restart" | "RestartAllContainers"))
}

/// Whether the pod, as a whole, restarts what fails.
pub(super) fn restarts_on_failure(pod: &Tree) -> bool {
    pod.at("spec").text("restartPolicy") != "Never"
}

/// Whether a pod uses the host's network.
pub(super) fn host_network(pod: &Tree) -> bool {
    pod.at("spec").flag("hostNetwork")
}

/// Where in the object a container stands, for events: `spec.containers{web}`.
pub(super) fn field_path(pod: &Tree, name: &str) -> String {
    match find(pod, name) {
        Some((list, _)) => format!("spec.{}{{{name}}}", list.field()),
        None => format!("implicitly required container {name}"),
    }
}

/// `name_namespace(uid)`, as the kubelet names a pod in messages.
pub(super) fn formatted(pod: &Tree) -> String {
    let meta = pod.at("metadata");
    format!("{}_{}({})", meta.text("name"), meta.text("namespace"), meta.text("uid"))
}

/// A number that tells one definition of a container from another: name and image, as the kubelet's
/// (`HashContainer`). A container of another definition is replaced.
pub(super) fn definition(container: &Tree) -> String {
    // FNV-1a.
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for b in container.text("name").bytes().chain([0]).chain(container.text("image").bytes()) {
        h = (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{h:x}")
}
