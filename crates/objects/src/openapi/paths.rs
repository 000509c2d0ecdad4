//! Paths and operations of the kinds, from their rows.

use super::schemas::Schemas;
use crate::kinds::{Kind, Subresource};
use crate::{Map, Tree};
use serde_json::json;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const OBJECT: &[&str] = &["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
const STREAM: &[&str] = &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCH: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// Query parameters: name, type, what for.
type Parameter = (&'static str, &'static str, &'static str);
const DRY_RUN: Parameter = ("dryRun", "string", "All: go through every stage and persist nothing.");
const MANAGER: Parameter =
    ("fieldManager", "string", "Who owns the fields written; required for apply, at most 128 characters.");
const VALIDATION: Parameter =
    ("fieldValidation", "string", "What becomes of unknown and duplicate fields: Ignore, Warn (default) or Strict.");
const FORCE: Parameter = ("force", "boolean", "Apply takes fields from other owners instead of failing.");
const WRITE: &[Parameter] = &[DRY_RUN, MANAGER, VALIDATION];
const PATCHING: &[Parameter] = &[DRY_RUN, MANAGER, VALIDATION, FORCE];
const SELECT: &[Parameter] = &[
    ("continue", "string", "Where a list in pieces goes on: metadata.continue of the piece before."),
    ("fieldSelector", "string", "Only objects whose fields are so."),
    ("labelSelector", "string", "Only objects whose labels are so."),
    ("limit", "integer", "At most so many objects in this piece."),
    ("resourceVersion", "string", "How recent the answer must be."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "A watch begins with what is there, then a bookmark."),
    ("timeoutSeconds", "integer", "How long to answer at most."),
];
const WATCH: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "Send bookmarks now and then."),
    ("watch", "boolean", "Send changes as they happen instead of a list."),
];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "How long it may take to end; 0 is at once."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
];

/// The operation of a group-version's own path: what resources there are.
pub(super) fn discovery(group: &str, version: &str, schemas: &mut Schemas<'_>) -> Tree {
    let list = schemas.refer(&format!("{META}.APIResourceList"));
    json!({"get": {
        "tags": [tag(group, version)],
        "description": "get available resources",
        "operationId": format!("get{}APIResources", camel(group, version)),
        "responses": responses(&[("200", "OK")], OBJECT, &list),
    }})
}

/// All paths of a kind.
pub(super) fn of_kind(kind: &Kind, root: &str, schemas: &mut Schemas<'_>, paths: &mut Map) {
    let scope = if kind.namespaced { "Namespaced" } else { "" };
    let collection = if kind.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        format!("{root}/{}", kind.plural)
    };
    let mut of = Operations { kind, schemas, id: camel(kind.group, kind.version) };
    if kind.namespaced && kind.verbs.contains(&"list") {
        let name = format!("{}ForAllNamespaces", kind.kind);
        let get = of.list(&name);
        paths.insert(
            format!("{root}/{}", kind.plural),
            with_parameters(Map::from_iter([(String::from("get"), get)]), &[], kind),
        );
    }
    let name = format!("{scope}{}", kind.kind);
    let in_namespace: &[&str] = if kind.namespaced { &["namespace"] } else { &[] };
    let mut item: Vec<&str> = vec!["name"];
    item.extend(in_namespace);
    let has = |verb: &str| kind.verbs.contains(&verb);
    let mut ops = Map::new();
    if has("list") {
        ops.insert("get".into(), of.list(&name));
    }
    if has("create") {
        ops.insert("post".into(), of.create(&name, None));
    }
    if has("deletecollection") {
        ops.insert("delete".into(), of.delete(&name, true));
    }
    if !ops.is_empty() {
        paths.insert(collection.clone(), with_parameters(ops, in_namespace, kind));
    }
    let mut ops = Map::new();
    if has("get") {
        ops.insert("get".into(), of.get(&name, None));
    }
    if has("update") {
        ops.insert("put".into(), of.replace(&name, None));
    }
    if has("patch") {
        ops.insert("patch".into(), of.patch(&name, None));
    }
    if has("delete") {
        ops.insert("delete".into(), of.delete(&name, false));
    }
    let path = format!("{collection}/{{name}}");
    if !ops.is_empty() {
        paths.insert(path.clone(), with_parameters(ops, &item, kind));
    }
    for sub in kind.subresources {
        let name = format!("{name}{}", capital(sub.name));
        let ops = of.subresource(&name, sub);
        paths.insert(format!("{path}/{}", sub.name), with_parameters(ops, &item, kind));
    }
}

/// Makes the operations of one kind.
struct Operations<'k, 's, 'a> {
    kind: &'k Kind,
    schemas: &'s mut Schemas<'a>,
    /// Group and version as operation ids spell them: `AppsV1`.
    id: String,
}

impl Operations<'_, '_, '_> {
    fn list(&mut self, name: &str) -> Tree {
        let list = self.schemas.refer(&format!("{}List", self.kind.type_name));
        let types: Vec<&str> = OBJECT.iter().chain(STREAM).copied().collect();
        let answer = responses(&[("200", "OK")], &types, &list);
        let text = format!("list or watch objects of kind {}", self.kind.kind);
        self.operation("list", "list", name, &text, &[SELECT, WATCH].concat(), None, answer, None)
    }

    fn get(&mut self, name: &str, sub: Option<&Subresource>) -> Tree {
        let body = self.body(sub);
        let text = format!("read {}the specified {}", of_sub(sub), self.kind.kind);
        self.operation("read", "get", name, &text, &[], None, responses(&[("200", "OK")], OBJECT, &body), sub)
    }

    fn create(&mut self, name: &str, sub: Option<&Subresource>) -> Tree {
        let body = self.body(sub);
        let text = format!("create {}{} {}", of_sub(sub), article(self.kind.kind), self.kind.kind);
        let answer = responses(&[("200", "OK"), ("201", "Created"), ("202", "Accepted")], OBJECT, &body);
        self.operation("create", "post", name, &text, WRITE, Some((&["*/*"], body, true)), answer, sub)
    }

    fn replace(&mut self, name: &str, sub: Option<&Subresource>) -> Tree {
        let body = self.body(sub);
        let text = format!("replace {}the specified {}", of_sub(sub), self.kind.kind);
        let answer = responses(&[("200", "OK"), ("201", "Created")], OBJECT, &body);
        self.operation("replace", "put", name, &text, WRITE, Some((&["*/*"], body, true)), answer, sub)
    }

    fn patch(&mut self, name: &str, sub: Option<&Subresource>) -> Tree {
        let body = self.body(sub);
        let patch = self.schemas.refer(&format!("{META}.Patch"));
        let text = format!("partially update {}the specified {}", of_sub(sub), self.kind.kind);
        let answer = responses(&[("200", "OK"), ("201", "Created")], OBJECT, &body);
        self.operation("patch", "patch", name, &text, PATCHING, Some((PATCH, patch, true)), answer, sub)
    }

    fn delete(&mut self, name: &str, collection: bool) -> Tree {
        let options = self.schemas.refer(&format!("{META}.DeleteOptions"));
        let status = self.schemas.refer(&format!("{META}.Status"));
        let answer = responses(&[("200", "OK"), ("202", "Accepted")], OBJECT, &status);
        let body = Some((&["*/*"] as &[&str], options, false));
        if collection {
            let text = format!("delete collection of {}", self.kind.kind);
            let name = format!("Collection{name}");
            return self.operation(
                "delete",
                "deletecollection",
                &name,
                &text,
                &[DELETE, SELECT].concat(),
                body,
                answer,
                None,
            );
        }
        let text = format!("delete {} {}", article(self.kind.kind), self.kind.kind);
        self.operation("delete", "delete", name, &text, DELETE, body, answer, None)
    }

    fn subresource(&mut self, name: &str, sub: &Subresource) -> Map {
        let mut ops = Map::new();
        let streams = ["attach", "exec", "portforward", "proxy"].contains(&sub.name);
        for verb in sub.verbs {
            let method = match *verb {
                "create" => "post",
                "update" => "put",
                other => other,
            };
            let op = match *verb {
                _ if streams => self.connect(name, sub, method),
                "get" if sub.name == "log" => {
                    let text = format!("read log of the specified {}", self.kind.kind);
                    let answer = responses(&[("200", "OK")], &["text/plain"], &json!({"type": "string"}));
                    self.operation("read", "get", name, &text, &[], None, answer, None)
                }
                "get" => self.get(name, Some(sub)),
                "create" => self.create(name, Some(sub)),
                "update" => self.replace(name, Some(sub)),
                "patch" => self.patch(name, Some(sub)),
                _ => continue,
            };
            ops.insert(method.into(), op);
        }
        ops
    }

    fn connect(&mut self, name: &str, sub: &Subresource, method: &str) -> Tree {
        let text = format!("connect {} requests to {} of {}", method.to_uppercase(), sub.name, self.kind.kind);
        let answer = responses(&[("200", "OK")], &["*/*"], &json!({"type": "string"}));
        let name = format!("{}{name}", capital(method));
        self.operation("connect", "connect", &name, &text, &[], None, answer, Some(sub))
    }

    /// The type of a body: the subresource's own, or the kind's.
    fn body(&mut self, sub: Option<&Subresource>) -> Tree {
        let schema = crate::schema::builtin();
        let own = sub.and_then(|s| s.gvk).and_then(|(g, v, k)| schema.object(schema.by_kind(g, v, k)?));
        self.schemas.refer(own.map_or(self.kind.type_name, |o| &o.name))
    }

    #[allow(clippy::too_many_arguments)] // an operation has that many parts
    fn operation(
        &self,
        verb: &str,
        action: &str,
        name: &str,
        text: &str,
        query: &[Parameter],
        body: Option<(&[&str], Tree, bool)>,
        responses: Tree,
        sub: Option<&Subresource>,
    ) -> Tree {
        let k = self.kind;
        let (group, version, kind) = sub.and_then(|s| s.gvk).unwrap_or((k.group, k.version, k.kind));
        let mut op = json!({
            "tags": [tag(k.group, k.version)],
            "description": text,
            "operationId": format!("{verb}{}{name}", self.id),
            "responses": responses,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        if !query.is_empty() {
            op["parameters"] = query.iter().map(|(n, ty, text)| parameter(n, "query", ty, text)).collect();
        }
        if let Some((types, schema, required)) = body {
            op["requestBody"] = json!({"content": content(types, &schema)});
            if required {
                op["requestBody"]["required"] = true.into();
            }
        }
        op
    }
}

fn with_parameters(mut ops: Map, in_path: &[&str], kind: &Kind) -> Tree {
    let mut all: Vec<Tree> = in_path
        .iter()
        .map(|n| match *n {
            "name" => parameter(n, "path", "string", &format!("name of the {}", kind.kind)),
            n => parameter(n, "path", "string", "object name and auth scope, such as for teams and projects"),
        })
        .collect();
    all.push(parameter("pretty", "query", "string", "Indent the answer."));
    ops.insert("parameters".into(), all.into());
    Tree::Object(ops)
}

fn parameter(name: &str, place: &str, ty: &str, text: &str) -> Tree {
    let mut p = json!({"name": name, "in": place, "description": text, "schema": {"type": ty, "uniqueItems": true}});
    if place == "path" {
        p["required"] = true.into();
    }
    p
}

fn content(types: &[&str], schema: &Tree) -> Tree {
    Tree::Object(types.iter().map(|t| ((*t).to_owned(), json!({"schema": schema}))).collect())
}

fn responses(codes: &[(&str, &str)], types: &[&str], schema: &Tree) -> Tree {
    let answer = |text: &str| json!({"description": text, "content": content(types, schema)});
    let mut all: Map = codes.iter().map(|(code, text)| ((*code).to_owned(), answer(text))).collect();
    all.insert("401".into(), json!({"description": "Unauthorized"}));
    Tree::Object(all)
}

fn of_sub(sub: Option<&Subresource>) -> String {
    sub.map_or_else(String::new, |s| format!("{} of ", s.name))
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}

fn group_words(group: &str) -> Vec<&str> {
    match group {
        "" => vec!["core"],
        g => g.trim_end_matches(".k8s.io").split('.').collect(),
    }
}

/// `rbacAuthorization_v1`.
fn tag(group: &str, version: &str) -> String {
    let words = group_words(group);
    let (first, rest) = words.split_first().map_or(("", &[] as &[&str]), |(f, r)| (*f, r));
    format!("{first}{}_{version}", rest.iter().map(|w| capital(w)).collect::<String>())
}

/// `RbacAuthorizationV1`.
fn camel(group: &str, version: &str) -> String {
    group_words(group).into_iter().chain([version]).map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}
