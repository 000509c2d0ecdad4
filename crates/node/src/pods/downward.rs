//! The downward API: what a pod is told of itself, in variables and files (`fieldRef`,
//! `resourceFieldRef`).

use super::facts::NodeFacts;
use super::qos::amount;
use super::spec;
use base::Quantity;
use objects::Tree;
use objects::kinds::names;
use objects::kinds::resources::quantity;
use objects::kinds::tree::Fields;
use objects::status::quote;
use std::net::IpAddr;

/// The value of a `fieldRef`, with the addresses as they are now.
///
/// # Errors
/// The path is not one that can be referred to; worded as the kubelet words it.
pub(super) fn field(facts: &NodeFacts, pod: &Tree, addresses: &[IpAddr], path: &str) -> Result<String, String> {
    let listed = |all: &[IpAddr]| all.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    let first = |all: &[IpAddr]| all.first().map(IpAddr::to_string).unwrap_or_default();
    let meta = pod.at("metadata");
    if let Some((path, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let field = match path {
            "metadata.labels" => "labels",
            "metadata.annotations" => "annotations",
            _ => return Err(format!("fieldPath {} does not support subscript", quote(path))),
        };
        let wrong = names::qualified_name(&if field == "labels" { key.to_owned() } else { key.to_lowercase() });
        if !wrong.is_empty() {
            return Err(format!("invalid key subscript in {path}['{key}']: {}", wrong.join(";")));
        }
        return Ok(meta.at(field).text(key).to_owned());
    }
    Ok(match path {
        "metadata.name" => meta.text("name").to_owned(),
        "metadata.namespace" => meta.text("namespace").to_owned(),
        "metadata.uid" => meta.text("uid").to_owned(),
        "metadata.labels" => lines(meta.at("labels")),
        "metadata.annotations" => lines(meta.at("annotations")),
        "spec.nodeName" => pod.at("spec").text("nodeName").to_owned(),
        "spec.serviceAccountName" => pod.at("spec").text("serviceAccountName").to_owned(),
        "status.hostIP" => first(&facts.addresses),
        "status.hostIPs" => listed(&facts.addresses),
        "status.podIP" => first(&facts.by_family(addresses)),
        "status.podIPs" => listed(&facts.by_family(addresses)),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"`, one a line.
fn lines(map: &Tree) -> String {
    let entries = map.as_object().into_iter().flatten();
    let lines: Vec<String> = entries.map(|(k, v)| format!("{k}={}", quote(v.as_str().unwrap_or_default()))).collect();
    lines.join("\n")
}

/// The value of a `resourceFieldRef` of a container, or of the one it names. A limit that is not stated
/// is what the node has to give.
///
/// # Errors
/// There is no such container or resource; worded as the kubelet words it.
pub(super) fn resource(
    facts: &NodeFacts,
    pod: &Tree,
    container: Option<&Tree>,
    reference: &Tree,
) -> Result<String, String> {
    let named = reference.text("containerName");
    let container = match (named.is_empty(), container) {
        (true, Some(c)) => c,
        _ => spec::find(pod, named).map(|(_, c)| c).ok_or_else(|| format!("container {named} not found"))?,
    };
    let resource = reference.text("resource");
    let unsupported = || format!("unsupported container resource : {resource}");
    let (list, name) = resource.split_once('.').ok_or_else(unsupported)?;
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !matches!(list, "limits" | "requests") || !known {
        return Err(unsupported());
    }
    let stated = amount(container, list, name).filter(|q| !q.is_zero());
    let value = match stated {
        None if list == "limits" => amount(pod.at("spec"), list, name).unwrap_or_else(|| facts.allocatable.get(name)),
        other => other.unwrap_or_default(),
    };
    let divisor = quantity(reference.at("divisor")).filter(|d| !d.is_zero()).unwrap_or(Quantity::from_milli(1000));
    // The kubelet divides thousandths of cpu and whole units of the rest, rounding up.
    let (value, divisor) = match name {
        "cpu" => (value.milli_value(), divisor.milli_value()),
        _ => (value.value(), divisor.value()),
    };
    let (value, divisor) = (i128::from(value), i128::from(divisor.max(1)));
    Ok(((value + divisor - 1) / divisor).to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use decide::pod::Resources;
    use serde_json::json;

    fn facts() -> NodeFacts {
        NodeFacts {
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            allocatable: Resources::of(&json!({"cpu": "3500m", "memory": "2Gi"})),
            ..NodeFacts::default()
        }
    }

    fn pod() -> Tree {
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b/c": "x\"y"}},
            "spec": {"nodeName": "m", "serviceAccountName": "default", "containers": [
                {"name": "c", "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}}]}})
    }

    #[test]
    fn a_pod_learns_its_own_fields() {
        let ips: Vec<IpAddr> = vec!["2001:db8:1::2".parse().unwrap(), "10.42.0.2".parse().unwrap()];
        for (path, want) in [
            ("metadata.name", Ok("p")),
            ("metadata.labels", Ok("a=\"1\"\nb/c=\"x\\\"y\"")),
            ("metadata.labels['b/c']", Ok("x\"y")),
            ("metadata.labels['gone']", Ok("")),
            ("metadata.annotations", Ok("")),
            ("spec.nodeName", Ok("m")),
            ("status.podIP", Ok("10.42.0.2")),
            ("status.podIPs", Ok("10.42.0.2,2001:db8:1::2")),
            ("status.hostIPs", Ok("192.0.2.1,2001:db8::1")),
            ("spec.hostname", Err("unsupported fieldPath: spec.hostname")),
            ("spec.x['y']", Err("fieldPath \"spec.x\" does not support subscript")),
        ] {
            let got = field(&facts(), &pod(), &ips, path);
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{path}");
        }
    }

    #[test]
    fn resources_are_divided_and_limits_fall_back_to_the_nodes() {
        for (reference, want) in [
            (json!({"resource": "limits.memory", "divisor": "1Mi"}), Ok("64")),
            (json!({"resource": "limits.memory", "divisor": "0"}), Ok("67108864")),
            (json!({"resource": "limits.cpu"}), Ok("4")),
            (json!({"resource": "limits.cpu", "divisor": "1m"}), Ok("3500")),
            (json!({"resource": "requests.cpu", "divisor": "1m"}), Ok("250")),
            (json!({"resource": "requests.cpu"}), Ok("1")),
            (json!({"resource": "requests.memory"}), Ok("0")),
            (json!({"resource": "requests.memory", "containerName": "x"}), Err("container x not found")),
            (json!({"resource": "limits.gpu"}), Err("unsupported container resource : limits.gpu")),
        ] {
            let pod = pod();
            let got = resource(&facts(), &pod, Some(&pod["spec"]["containers"][0]), &reference);
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{reference}");
        }
    }
}
