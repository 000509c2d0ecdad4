//! Pods and what makes them.

use super::{Printer, duration, int_or_text, number, or, pairs, selector};
use crate::Tree;
use crate::kinds::tree::{Fields, text};
use base::Wall;
use serde_json::json;

pub(super) fn cells(p: &Printer<'_>) -> Option<Vec<Tree>> {
    let (spec, status) = (p.spec(), p.status());
    let template = spec.at("template").at("spec");
    let with_template = |mut row: Vec<Tree>, chosen: Tree| {
        row.extend(p.containers(template));
        row.push(chosen);
        row
    };
    Some(match p.kind.storage {
        "Pod" => pod(p),
        "PodTemplate" => {
            let template = p.obj.at("template");
            let [names, images] = p.containers(template.at("spec"));
            vec![p.name(), names, images, pairs(template.at("metadata").at("labels"))]
        }
        "ReplicationController" => with_template(replicas(p), pairs(spec.at("selector"))),
        "ReplicaSet.apps" => with_template(replicas(p), selector(spec.at("selector"))),
        "Deployment.apps" => with_template(
            vec![
                p.name(),
                of(status, "readyReplicas", spec.int("replicas").unwrap_or(0)),
                number(status, "updatedReplicas"),
                number(status, "availableReplicas"),
                p.age(),
            ],
            selector(spec.at("selector")),
        ),
        "StatefulSet.apps" => {
            let mut row = vec![p.name(), of(status, "readyReplicas", spec.int("replicas").unwrap_or(0)), p.age()];
            row.extend(p.containers(template));
            row
        }
        "DaemonSet.apps" => with_template(
            vec![
                p.name(),
                number(status, "desiredNumberScheduled"),
                number(status, "currentNumberScheduled"),
                number(status, "numberReady"),
                number(status, "updatedNumberScheduled"),
                number(status, "numberAvailable"),
                pairs(template.at("nodeSelector")),
                p.age(),
            ],
            selector(spec.at("selector")),
        ),
        "ControllerRevision.apps" => {
            let owner = p.obj.at("metadata").list("ownerReferences").iter().find(|o| o.flag("controller"));
            let controller = owner.map_or("<none>".to_owned(), |o| {
                let group = o.text("apiVersion").split_once('/').map_or("", |(g, _)| g);
                let kind = o.text("kind").to_lowercase();
                if group.is_empty() {
                    format!("{kind}/{}", o.text("name"))
                } else {
                    format!("{kind}.{group}/{}", o.text("name"))
                }
            });
            vec![p.name(), json!(controller), number(p.obj, "revision"), p.age()]
        }
        "Job.batch" => with_template(job(p), selector(spec.at("selector"))),
        "CronJob.batch" => {
            let last = status.text("lastScheduleTime");
            let template = spec.at("jobTemplate").at("spec");
            let mut row = vec![
                p.name(),
                spec.at("schedule").clone(),
                or(spec.text("timeZone"), "<none>"),
                json!(if spec.flag("suspend") { "True" } else { "False" }),
                json!(status.list("active").len()),
                json!(if last.is_empty() { "<none>".to_owned() } else { p.since(last) }),
                p.age(),
            ];
            row.extend(p.containers(template.at("template").at("spec")));
            row.push(selector(template.at("selector")));
            row
        }
        "HorizontalPodAutoscaler.autoscaling" => autoscaler(p),
        "PodDisruptionBudget.policy" => vec![
            p.name(),
            int_or_text(spec.at("minAvailable"), "N/A"),
            int_or_text(spec.at("maxUnavailable"), "N/A"),
            number(status, "disruptionsAllowed"),
            p.age(),
        ],
        _ => return None,
    })
}

fn of(status: &Tree, field: &str, all: i64) -> Tree {
    json!(format!("{}/{all}", status.int(field).unwrap_or(0)))
}

fn replicas(p: &Printer<'_>) -> Vec<Tree> {
    vec![
        p.name(),
        number(p.spec(), "replicas"),
        number(p.status(), "replicas"),
        number(p.status(), "readyReplicas"),
        p.age(),
    ]
}

fn has_condition(status: &Tree, ty: &str) -> bool {
    status.list("conditions").iter().any(|c| c.text("type") == ty && c.text("status") == "True")
}

fn job(p: &Printer<'_>) -> Vec<Tree> {
    let (spec, status) = (p.spec(), p.status());
    let succeeded = status.int("succeeded").unwrap_or(0);
    let completions = match (spec.int("completions"), spec.int("parallelism").unwrap_or(0)) {
        (Some(n), _) => format!("{succeeded}/{n}"),
        (None, n) if n > 1 => format!("{succeeded}/1 of {n}"),
        _ => format!("{succeeded}/1"),
    };
    let (began, ended) = (status.text("startTime"), status.text("completionTime"));
    let took = match (Wall::parse_rfc3339(began), Wall::parse_rfc3339(ended)) {
        (None, _) => String::new(),
        (Some(b), Some(e)) => duration(e, b),
        (Some(b), None) => duration(p.now, b),
    };
    let state = if has_condition(status, "Complete") {
        "Complete"
    } else if has_condition(status, "Failed") {
        "Failed"
    } else if p.obj.at("metadata").has("deletionTimestamp") {
        "Terminating"
    } else if has_condition(status, "Suspended") {
        "Suspended"
    } else if has_condition(status, "FailureTarget") {
        "FailureTarget"
    } else if has_condition(status, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    vec![p.name(), json!(state), json!(completions), json!(took), p.age()]
}

/// A pod's row: its one word for how it is doing is the first thing that keeps it from running.
fn pod(p: &Printer<'_>) -> Vec<Tree> {
    let (spec, status) = (p.spec(), p.status());
    let phase = status.text("phase");
    let mut reason = match status.text("reason") {
        "" => phase.to_owned(),
        r => r.to_owned(),
    };
    let conditions = status.list("conditions");
    if conditions.iter().any(|c| c.text("type") == "PodScheduled" && c.text("reason") == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let init = spec.list("initContainers");
    let sidecar = |name: &str| init.iter().any(|c| c.text("name") == name && c.text("restartPolicy") == "Always");
    let total = spec.list("containers").len() + init.iter().filter(|c| sidecar(c.text("name"))).count();
    let mut ready = 0;
    let mut restarts = Restarts::default();
    let mut sidecar_restarts = Restarts::default();
    let mut initializing = false;
    for (i, c) in status.list("initContainerStatuses").iter().enumerate() {
        restarts.count(c);
        let is_sidecar = sidecar(c.text("name"));
        if is_sidecar {
            sidecar_restarts.count(c);
        }
        let (ended, waiting) = (c.at("state").at("terminated"), c.at("state").at("waiting"));
        if !ended.is_null() && ended.int("exitCode").unwrap_or(0) == 0 {
            continue;
        }
        if is_sidecar && c.flag("started") {
            ready += usize::from(c.flag("ready"));
            continue;
        }
        let why = waiting.text("reason");
        reason = if !ended.is_null() {
            format!("Init:{}", end_of(ended))
        } else if !why.is_empty() && why != "PodInitializing" {
            format!("Init:{why}")
        } else {
            format!("Init:{i}/{}", init.len())
        };
        initializing = true;
        break;
    }
    if !initializing || has_condition(status, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        for c in status.list("containerStatuses").iter().rev() {
            restarts.count(c);
            let (ended, waiting) = (c.at("state").at("terminated"), c.at("state").at("waiting"));
            if !waiting.text("reason").is_empty() {
                reason = waiting.text("reason").into();
            } else if !ended.is_null() {
                reason = end_of(ended);
            } else if c.flag("ready") && c.at("state").has("running") {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            reason = if has_condition(status, "Ready") { "Running".into() } else { "NotReady".into() };
        }
    }
    if p.obj.at("metadata").has("deletionTimestamp") {
        if status.text("reason") == "NodeLost" {
            reason = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".into();
        }
    }
    let ip = status.list("podIPs").first().map_or("", |i| i.text("ip"));
    let gates = spec.list("readinessGates");
    let open = gates.iter().filter(|g| has_condition(status, g.text("conditionType"))).count();
    vec![
        p.name(),
        json!(format!("{ready}/{total}")),
        json!(reason),
        json!(restarts.show(p.now)),
        p.age(),
        or(ip, "<none>"),
        or(spec.text("nodeName"), "<none>"),
        or(status.text("nominatedNodeName"), "<none>"),
        if gates.is_empty() { json!("<none>") } else { json!(format!("{open}/{}", gates.len())) },
    ]
}

fn end_of(ended: &Tree) -> String {
    match (ended.text("reason"), ended.int("signal").unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended.int("exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Wall>,
}

impl Restarts {
    fn count(&mut self, container: &Tree) {
        self.count += container.int("restartCount").unwrap_or(0);
        let ended = Wall::parse_rfc3339(container.at("lastState").at("terminated").text("finishedAt"));
        self.last = self.last.max(ended);
    }

    fn show(&self, now: Wall) -> String {
        match self.last {
            Some(last) if self.count > 0 => format!("{} ({} ago)", self.count, duration(now, last)),
            _ => self.count.to_string(),
        }
    }
}

fn autoscaler(p: &Printer<'_>) -> Vec<Tree> {
    let spec = p.spec();
    let target = spec.at("scaleTargetRef");
    // autoscaling/v1 is printed from the same form.
    let (metrics, current) = if p.kind.version == "v1" {
        let v2 = crate::views::to_storage(p.kind, p.obj.clone());
        (v2.at("spec").list("metrics").to_vec(), v2.at("status").list("currentMetrics").to_vec())
    } else {
        (spec.list("metrics").to_vec(), p.status().list("currentMetrics").to_vec())
    };
    vec![
        p.name(),
        json!(format!("{}/{}", target.text("kind"), target.text("name"))),
        json!(targets(&metrics, &current)),
        match spec.int("minReplicas") {
            Some(n) => json!(n.to_string()),
            None => json!("<unset>"),
        },
        number(spec, "maxReplicas"),
        number(p.status(), "currentReplicas"),
        p.age(),
    ]
}

fn targets(metrics: &[Tree], current: &[Tree]) -> String {
    if metrics.is_empty() {
        return "<none>".into();
    }
    let mut all: Vec<String> = Vec::new();
    for (i, m) in metrics.iter().enumerate() {
        let empty = Tree::Null;
        let now = current.get(i).unwrap_or(&empty);
        let ty = m.text("type");
        let field = match ty {
            "External" => "external",
            "Pods" => "pods",
            "Object" => "object",
            "ContainerResource" => "containerResource",
            _ => "resource",
        };
        let (want, have) = (m.at(field).at("target"), now.at(field).at("current"));
        let unknown = |v: &Tree| match v {
            Tree::String(s) => s.clone(),
            Tree::Number(n) => n.to_string(),
            _ => "<unknown>".to_owned(),
        };
        let shown = match field {
            "resource" | "containerResource" => {
                let average = want.at("averageValue");
                let value = if average.is_null() {
                    let now = have.int("averageUtilization").map_or("<unknown>".to_owned(), |n| format!("{n}%"));
                    let want = want.int("averageUtilization").map_or("<auto>".to_owned(), |n| format!("{n}%"));
                    format!("{now}/{want}")
                } else {
                    format!("{}/{}", unknown(have.at("averageValue")), text(average))
                };
                format!("{}: {value}", m.at(field).text("name"))
            }
            "pods" => format!("{}/{}", unknown(have.at("averageValue")), want.text("averageValue")),
            _ if want.has("averageValue") => {
                format!("{}/{} (avg)", unknown(have.at("averageValue")), want.text("averageValue"))
            }
            _ => format!("{}/{}", unknown(have.at("value")), want.text("value")),
        };
        all.push(shown);
    }
    match all.len() {
        n if n > 2 => format!("{} + {} more...", all.get(..2).unwrap_or_default().join(", "), n - 2),
        _ => all.join(", "),
    }
}
