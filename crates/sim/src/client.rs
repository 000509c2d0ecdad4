//! A client and the gateway before it: one request at a time, asked again under the same id, anywhere,
//! until it is answered.

use crate::checks::applied::value_of;
use crate::checks::register::{Asked, Told};
use base::{CellId, Chance, RequestId, Revision, Uid, Wall};
use node::cell::Outcome;
use objects::decision::Payload;
use objects::kinds::{self, Kind};
use objects::request::{Body, Options, Request, User, Verb};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The namespace most is asked of, and in which pods are.
pub const NAMESPACE: &str = "default";
/// How many objects the clients share. Few, so that they meet.
const NAMES: u64 = 5;

/// A request under way.
#[derive(Clone)]
pub struct Operation {
    /// What is sent.
    pub request: Arc<Request>,
    /// The cell that decides it, and its namespace.
    pub cell: CellId,
    /// See [`Operation::cell`].
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: String,
    /// What it means.
    pub asked: Asked,
    /// What had been shown when it began.
    pub floor: Revision,
}

/// A client.
#[derive(Default)]
pub struct Client {
    /// What it waits for.
    pub operation: Option<Operation>,
    /// The present attempt's number; answers to earlier ones are not heard.
    pub attempt: u64,
    /// The node it asks.
    pub target: usize,
    /// What it knows of each object.
    known: BTreeMap<(Arc<str>, String), Revision>,
}

/// What became of one attempt.
#[derive(Clone, Debug)]
pub enum Heard {
    /// An answer, for good.
    Told(Told),
    /// To be asked again.
    Again,
}

impl Client {
    /// Begins something.
    pub fn begin(
        &mut self,
        chance: &mut Chance,
        number: u64,
        now: Wall,
        (namespace, cell): (Arc<str>, CellId),
        floor: Revision,
    ) {
        let name = format!("k{}", chance.below(NAMES));
        let value = format!("v{number}");
        let known = self.known.get(&(namespace.clone(), name.clone())).copied();
        let asked = match chance.below(20) {
            0..=3 => Asked::Create(value),
            4..=8 => Asked::Update(value, known),
            9..=11 => Asked::Update(value, None),
            12 | 13 => Asked::Delete,
            14..=18 => Asked::Get,
            _ => Asked::List,
        };
        let request = Arc::new(request(chance, now, (&namespace, &name), &asked));
        self.operation = Some(Operation { request, cell, namespace, name, asked, floor });
    }

    /// Takes what it was told.
    pub fn learn(&mut self, operation: &Operation, told: &Told) {
        match told {
            Told::Object(_, at, _) if !matches!(operation.asked, Asked::Delete) => {
                self.known.insert((operation.namespace.clone(), operation.name.clone()), *at);
            }
            Told::Listed(_, items) => {
                self.known.retain(|(namespace, _), _| *namespace != operation.namespace);
                let all = items.iter().map(|(name, at)| ((operation.namespace.clone(), name.clone()), *at));
                self.known.extend(all);
            }
            _ => {}
        }
    }
}

fn config_map() -> &'static Kind {
    kinds::by_kind("", "v1", "ConfigMap").unwrap_or_else(|| panic!("ConfigMap is a kind of Kubernetes"))
}

fn request(chance: &mut Chance, now: Wall, (namespace, name): (&str, &str), asked: &Asked) -> Request {
    let verb = match asked {
        Asked::Create(_) => Verb::Create,
        Asked::Update(..) => Verb::Update,
        Asked::Delete => Verb::Delete,
        Asked::Get => Verb::Get,
        Asked::List => Verb::List,
    };
    let mut meta = json!({"name": name, "namespace": namespace});
    if let Asked::Update(_, Some(at)) = asked {
        meta["resourceVersion"] = json!(at.to_string());
    }
    let body = asked.value().map_or(Body::None, |v| Body::Object {
        tree: json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"v": v}}),
        strict: Vec::new(),
    });
    let in_url = !matches!(asked, Asked::Create(_) | Asked::List);
    Request {
        id: RequestId(chance.u128()),
        sent: now,
        user: Arc::new(User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() }),
        verb,
        kind: config_map(),
        namespace: Some(namespace.into()),
        name: in_url.then(|| name.into()),
        subresource: "".into(),
        options: Options { field_manager: "sim".into(), ..Options::default() },
        body,
        uid: Uid::from_chance(chance.u128()),
        suffix: chance.u64(),
    }
}

/// A watch of all ConfigMaps: from a revision on, or from their state.
pub fn watch(chance: &mut Chance, now: Wall, from: Option<Revision>) -> Request {
    let mut r = request(chance, now, (NAMESPACE, ""), &Asked::List);
    r.verb = Verb::Watch;
    r.options.resource_version = from.map(|f| f.to_string()).unwrap_or_default();
    r
}

/// An object as a client reads it.
pub fn told(code: u16, json: &[u8]) -> Told {
    let tree: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let at = tree["metadata"]["resourceVersion"].as_str().and_then(|t| objects::read::parse_revision(t).ok());
    match at {
        Some(at) => Told::Object(code, at, value_of(json)),
        None => Told::Success,
    }
}

/// What a client makes of an outcome. A watch is not a client's.
pub fn heard(outcome: Outcome) -> Heard {
    Heard::Told(match outcome {
        Outcome::Done(answer) => match answer.payload {
            Payload::Json(bytes) => told(answer.code, &bytes),
            _ => Told::Success,
        },
        Outcome::Refused(status) => Told::Refused(status.code),
        Outcome::List { plan, snapshot } => {
            let listed = plan.run(snapshot.iter(None), snapshot.revision());
            let name = |t: objects::Tree| t["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let items = listed.items.iter().map(|s| (name(s.tree()), s.revision)).collect();
            Told::Listed(listed.revision, items)
        }
        _ => return Heard::Again,
    })
}
