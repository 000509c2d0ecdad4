//! Nodes, namespaces, events, configuration, access and the API's own objects.

use super::{Printer, flag, joined, number, or};
use crate::Tree;
use crate::kinds::tree::{Fields, text};
use serde_json::json;

pub(super) fn cells(p: &Printer<'_>) -> Option<Vec<Tree>> {
    let (obj, spec, status) = (p.obj, p.spec(), p.status());
    Some(match p.kind.storage {
        "Node" => node(p),
        "Namespace" => vec![p.name(), status.at("phase").clone(), p.age()],
        "Event" => event(p),
        "ConfigMap" => {
            let n = obj.entries("data").count() + obj.entries("binaryData").count();
            vec![p.name(), json!(n), p.age()]
        }
        "Secret" => vec![p.name(), obj.at("type").clone(), json!(obj.entries("data").count()), p.age()],
        "ServiceAccount" => vec![p.name(), p.age()],
        "ResourceQuota" => quota(p),
        "Lease.coordination.k8s.io" => vec![p.name(), json!(spec.text("holderIdentity")), p.age()],
        "PriorityClass.scheduling.k8s.io" => vec![
            p.name(),
            number(obj, "value"),
            flag(obj, "globalDefault"),
            p.age(),
            or(obj.text("preemptionPolicy"), "PreemptLowerPriority"),
        ],
        "RuntimeClass.node.k8s.io" => vec![p.name(), obj.at("handler").clone(), p.age()],
        "RoleBinding.rbac.authorization.k8s.io" | "ClusterRoleBinding.rbac.authorization.k8s.io" => binding(p),
        "ComponentStatus" => {
            let healthy = obj.list("conditions").iter().find(|c| c.text("type") == "Healthy");
            let (word, message, error) = match healthy {
                Some(c) => (
                    if c.text("status") == "True" { "Healthy" } else { "Unhealthy" },
                    c.text("message"),
                    c.text("error"),
                ),
                None => ("Unknown", "", ""),
            };
            vec![p.name(), json!(word), json!(message), json!(error)]
        }
        "APIService.apiregistration.k8s.io" => {
            let service = spec.at("service");
            let shown = if service.is_null() {
                "Local".to_owned()
            } else {
                format!("{}/{}", service.text("namespace"), service.text("name"))
            };
            let available = status.list("conditions").iter().find(|c| c.text("type") == "Available");
            let state = match available {
                None => "Unknown".to_owned(),
                Some(c) if c.text("status") == "True" => "True".to_owned(),
                Some(c) => format!("{} ({})", c.text("status"), c.text("reason")),
            };
            vec![p.name(), json!(shown), json!(state), p.age()]
        }
        "CustomResourceDefinition.apiextensions.k8s.io" => {
            let version = |v: &Tree| {
                let mark = if v.flag("storage") { "(storage)" } else { "" };
                format!("{}{mark}", v.text("name"))
            };
            let versions: Vec<String> = spec.list("versions").iter().map(version).collect();
            let established =
                status.list("conditions").iter().any(|c| c.text("type") == "Established" && c.text("status") == "True");
            vec![
                p.name(),
                spec.at("scope").clone(),
                json!(versions.join(",")),
                p.created(),
                spec.at("group").clone(),
                spec.at("names").at("kind").clone(),
                json!(joined(spec.at("names").list("shortNames").iter().map(text), ",")),
                json!(established),
            ]
        }
        "ValidatingWebhookConfiguration.admissionregistration.k8s.io"
        | "MutatingWebhookConfiguration.admissionregistration.k8s.io" => {
            vec![p.name(), json!(obj.list("webhooks").len()), p.age()]
        }
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io" => policy(p, "validations"),
        "MutatingAdmissionPolicy.admissionregistration.k8s.io" => policy(p, "mutations"),
        "ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io"
        | "MutatingAdmissionPolicyBinding.admissionregistration.k8s.io" => {
            let param = spec.at("paramRef");
            let shown = match (param.is_null(), param.text("namespace"), param.text("name")) {
                (true, ..) => "<unset>".to_owned(),
                (_, "", name) => name.to_owned(),
                (_, namespace, name) => format!("{namespace}/{name}"),
            };
            vec![p.name(), spec.at("policyName").clone(), json!(shown), p.age()]
        }
        "FlowSchema.flowcontrol.apiserver.k8s.io" => {
            let missing = status.list("conditions").iter().find(|c| c.text("type") == "Dangling");
            vec![
                p.name(),
                json!(spec.at("priorityLevelConfiguration").text("name")),
                number(spec, "matchingPrecedence"),
                or(spec.at("distinguisherMethod").text("type"), "<none>"),
                p.age(),
                or(missing.map_or("", |c| c.text("status")), "?"),
            ]
        }
        "PriorityLevelConfiguration.flowcontrol.apiserver.k8s.io" => {
            let limited = spec.at("limited");
            let queuing = limited.at("limitResponse").at("queuing");
            let shown = |t: &Tree, f: &str| t.int(f).map_or(json!("<none>"), |n| json!(n));
            vec![
                p.name(),
                spec.at("type").clone(),
                shown(limited, "nominalConcurrencyShares"),
                shown(queuing, "queues"),
                shown(queuing, "handSize"),
                shown(queuing, "queueLengthLimit"),
                p.age(),
            ]
        }
        "CertificateSigningRequest.certificates.k8s.io" => signing_request(p),
        "ClusterTrustBundle.certificates.k8s.io" => vec![p.name(), or(spec.text("signerName"), "<none>")],
        "DeviceClass.resource.k8s.io" | "ResourceClaimTemplate.resource.k8s.io" => vec![p.name(), p.age()],
        "ResourceClaim.resource.k8s.io" => {
            let mut states = Vec::new();
            if obj.at("metadata").has("deletionTimestamp") {
                states.push("deleted");
            }
            if !status.has("allocation") {
                if !obj.at("metadata").has("deletionTimestamp") {
                    states.push("pending");
                }
            } else {
                states.push("allocated");
                if !status.list("reservedFor").is_empty() {
                    states.push("reserved");
                }
            }
            vec![p.name(), json!(states.join(",")), p.age()]
        }
        "ResourceSlice.resource.k8s.io" => vec![
            p.name(),
            json!(spec.text("nodeName")),
            json!(spec.text("driver")),
            json!(spec.at("pool").text("name")),
            p.age(),
        ],
        "StorageVersionMigration.storagemigration.k8s.io" => {
            let resource = spec.at("resource");
            let shown =
                joined([resource.text("resource"), resource.text("group")].into_iter().filter(|s| !s.is_empty()), ".");
            let done = status.list("conditions").iter().find(|c| c.text("status") == "True");
            vec![p.name(), json!(shown), json!(done.map_or("", |c| c.text("type")))]
        }
        _ => return None,
    })
}

fn node(p: &Printer<'_>) -> Vec<Tree> {
    const ROLE: &str = "node-role.kubernetes.io/";
    let (meta, status) = (p.obj.at("metadata"), p.status());
    let ready = status.list("conditions").iter().find(|c| c.text("type") == "Ready");
    let mut state = match ready {
        Some(c) if c.text("status") == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if p.spec().flag("unschedulable") {
        state.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = meta
        .entries("labels")
        .filter_map(|(k, v)| match k.strip_prefix(ROLE) {
            Some(role) if !role.is_empty() => Some(role),
            _ if k == "kubernetes.io/role" && !text(v).is_empty() => Some(text(v)),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let address = |ty: &str| {
        let all = status.list("addresses").iter().filter(|a| a.text("type") == ty).map(|a| a.text("address"));
        all.into_iter().next().unwrap_or_default()
    };
    let info = status.at("nodeInfo");
    vec![
        p.name(),
        json!(state),
        or(&roles.join(","), "<none>"),
        p.age(),
        json!(info.text("kubeletVersion")),
        or(address("InternalIP"), "<none>"),
        or(address("ExternalIP"), "<none>"),
        or(info.text("osImage"), "<unknown>"),
        or(info.text("kernelVersion"), "<unknown>"),
        or(info.text("containerRuntimeVersion"), "<unknown>"),
    ]
}

/// An event's row, from either of its two versions.
fn event(p: &Printer<'_>) -> Vec<Tree> {
    let core = crate::views::to_storage(p.kind, p.obj.clone());
    let first = match core.text("firstTimestamp") {
        "" => core.text("eventTime"),
        t => t,
    };
    let series = core.at("series");
    let last = match (core.text("lastTimestamp"), series.text("lastObservedTime")) {
        (_, t) if !t.is_empty() => t,
        ("", _) => first,
        (t, _) => t,
    };
    let count = match (series.int("count"), core.int("count").unwrap_or(0)) {
        (Some(n), _) => n,
        (None, 0) => 1,
        (None, n) => n,
    };
    let involved = core.at("involvedObject");
    let object = match involved.text("kind").to_lowercase() {
        kind if involved.text("name").is_empty() => kind,
        kind => format!("{kind}/{}", involved.text("name")),
    };
    let source = core.at("source");
    let (mut component, mut instance) = (source.text("component"), source.text("host"));
    if component.is_empty() {
        component = core.text("reportingComponent");
    }
    if instance.is_empty() {
        instance = core.text("reportingInstance");
    }
    let shown = joined([component, instance].into_iter().filter(|s| !s.is_empty()), ", ");
    vec![
        json!(p.since(last)),
        core.at("type").clone(),
        core.at("reason").clone(),
        json!(object),
        json!(involved.text("fieldPath")),
        json!(shown),
        json!(core.text("message").trim()),
        json!(p.since(first)),
        json!(count),
        p.name(),
    ]
}

fn quota(p: &Printer<'_>) -> Vec<Tree> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let status = p.status();
    for (resource, hard) in status.entries("hard") {
        let used = status.at("used").text(resource);
        let shown = format!("{resource}: {}/{}", if used.is_empty() { "0" } else { used }, text(hard));
        if resource.starts_with("limits") { limits.push(shown) } else { requests.push(shown) }
    }
    vec![p.name(), json!(requests.join(", ")), json!(limits.join(", ")), p.age()]
}

fn binding(p: &Printer<'_>) -> Vec<Tree> {
    let role = p.obj.at("roleRef");
    let of = |kind: &str| -> Vec<String> {
        p.obj
            .list("subjects")
            .iter()
            .filter(|s| s.text("kind") == kind)
            .map(|s| match kind {
                "ServiceAccount" => format!("{}/{}", s.text("namespace"), s.text("name")),
                _ => s.text("name").to_owned(),
            })
            .collect()
    };
    vec![
        p.name(),
        json!(format!("{}/{}", role.text("kind"), role.text("name"))),
        p.age(),
        json!(of("User").join(", ")),
        json!(of("Group").join(", ")),
        json!(of("ServiceAccount").join(", ")),
    ]
}

fn policy(p: &Printer<'_>, what: &str) -> Vec<Tree> {
    let param = p.spec().at("paramKind");
    let shown = if param.is_null() {
        "<unset>".to_owned()
    } else {
        format!("{}/{}", param.text("apiVersion"), param.text("kind"))
    };
    vec![p.name(), json!(p.spec().list(what).len()), json!(shown), p.age()]
}

fn signing_request(p: &Printer<'_>) -> Vec<Tree> {
    let (spec, status) = (p.spec(), p.status());
    let condition = |ty: &str| status.list("conditions").iter().any(|c| c.text("type") == ty);
    let mut state = if condition("Denied") {
        "Denied".to_owned()
    } else if condition("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if condition("Failed") {
        state.push_str(",Failed");
    }
    if !status.text("certificate").is_empty() {
        state.push_str(",Issued");
    }
    let asked = spec.int("expirationSeconds").map(|s| {
        let s = s.unsigned_abs();
        super::duration(base::Wall(s.saturating_mul(1000)), base::Wall(0))
    });
    vec![
        p.name(),
        p.age(),
        or(spec.text("signerName"), "<none>"),
        json!(spec.text("username")),
        or(&asked.unwrap_or_default(), "<none>"),
        json!(state),
    ]
}
