//! `xtask schema`: the tables of facts in `data/schema.json`.
//!
//! Three sources of one release, joined field by field and checked against each other: the OpenAPI v3
//! documents an API server publishes (types, required, list types and keys, atomic maps, patch
//! strategies, enums, group-version-kinds), the protobuf layouts (numbers and wire types) and the tags
//! of the Go structs (pointers, `omitempty`: what JSON and protobuf leave out). Facts only; no
//! descriptions.

mod go;
mod proto;
mod table;

use anyhow::{Context, Result, bail};
use go::{GoField, GoSources};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use table::{FieldRow, Table, TypeRow};

/// Where the sources are and where the table goes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory with `v3/*.json` (OpenAPI documents, one a group-version) and `proto/*.proto`.
    #[arg(long)]
    openapi: PathBuf,
    /// Go's module cache holding k8s.io/{api,apimachinery,apiextensions-apiserver,kube-aggregator}.
    #[arg(long)]
    go: PathBuf,
    /// Version of those modules.
    #[arg(long, default_value = "v0.37.0")]
    go_version: String,
    /// The table to write.
    #[arg(long, default_value = "data/schema.json")]
    out: PathBuf,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Types of the API's own conversation, which no OpenAPI document of a group holds.
const CONVERSATION: &[(&str, &str, &str)] = &[
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "meta.k8s.io", "Table"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "meta.k8s.io", "PartialObjectMetadata"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "meta.k8s.io", "PartialObjectMetadataList"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "", "Status"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "", "DeleteOptions"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "", "WatchEvent"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "", "APIVersions"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "", "APIGroup"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "", "APIGroupList"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "", "APIResourceList"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "", "List"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "meta.k8s.io", "CreateOptions"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "meta.k8s.io", "UpdateOptions"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1", "meta.k8s.io", "PatchOptions"),
    ("io.k8s.api.admission.v1", "admission.k8s.io", "AdmissionReview"),
];

/// Runs the chore.
pub(crate) fn run(args: &Args) -> Result<()> {
    let documents = Documents::read(&args.openapi.join("v3"))?;
    let messages = proto::read(&args.openapi.join("proto"))?;
    let go = GoSources::new(&args.go, &args.go_version);
    let mut builder = Builder { documents, messages, go, done: BTreeMap::new(), queue: Vec::new() };
    let mut kinds = builder.documents.kinds.clone();
    for (package, group, kind) in CONVERSATION {
        kinds.insert((String::from(*group), String::from("v1"), String::from(*kind)), format!("{package}.{kind}"));
    }
    builder.queue.extend(kinds.values().cloned());
    while let Some(name) = builder.queue.pop() {
        if !builder.done.contains_key(&name) {
            let row = builder.ty(&name).with_context(|| name.clone())?;
            builder.done.insert(name, row);
        }
    }
    let source = format!("Kubernetes {}: OpenAPI v3 documents, protobuf layouts, Go struct tags", args.go_version);
    let table = Table { source, kinds, types: builder.done };
    std::fs::write(&args.out, table.to_json()?).with_context(|| args.out.display().to_string())?;
    println!("{}: {} kinds, {} types", args.out.display(), table.kinds.len(), table.types.len());
    Ok(())
}

/// Schemas by name and kinds of all documents.
struct Documents {
    schemas: BTreeMap<String, Value>,
    kinds: BTreeMap<(String, String, String), String>,
}

impl Documents {
    fn read(dir: &Path) -> Result<Self> {
        let mut out = Documents { schemas: BTreeMap::new(), kinds: BTreeMap::new() };
        let mut served = BTreeSet::new();
        for e in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let path = e?.path();
            let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("").to_owned();
            match stem.split("__").collect::<Vec<_>>()[..] {
                ["api", version] => served.insert((String::new(), version.to_owned())),
                ["apis", group, version] => served.insert((group.to_owned(), version.to_owned())),
                _ => continue,
            };
            let doc: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
            for (name, schema) in doc["components"]["schemas"].as_object().into_iter().flatten() {
                out.schemas.insert(name.clone(), schema.clone());
            }
        }
        for (name, schema) in &out.schemas {
            if name.starts_with(META) {
                continue; // they list every group; CONVERSATION names them once
            }
            for gvk in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
                let part = |k: &str| gvk[k].as_str().unwrap_or("").to_owned();
                let key = (part("group"), part("version"), part("kind"));
                if served.contains(&(key.0.clone(), key.1.clone())) {
                    out.kinds.insert(key, name.clone());
                }
            }
        }
        Ok(out)
    }
}

struct Builder<'a> {
    documents: Documents,
    messages: proto::Messages,
    go: GoSources<'a>,
    done: BTreeMap<String, TypeRow>,
    queue: Vec<String>,
}

/// A Go field as JSON shows it: lifted out of embedded structs.
struct Flat {
    field: GoField,
    /// Numbers of the embedded structs' messages on the way; empty if it is the parent's own.
    via: Vec<u32>,
}

impl Builder<'_> {
    fn ty(&mut self, name: &str) -> Result<TypeRow> {
        let (path, short) = go_name(name)?;
        let mut flat = Vec::new();
        self.flatten(&path, &short, &[], &mut flat)?;
        let message = path.replace('-', "_").replacen("k8s.io/", "k8s.io.", 1).replace('/', ".") + "." + &short;
        let schema = self.documents.schemas.get(name).cloned();
        let mut fields = Vec::new();
        for f in &flat {
            let property = schema.as_ref().map(|s| &s["properties"][&f.field.json]);
            if property.is_some_and(Value::is_null) {
                bail!("OpenAPI lacks the field {} that Go has", f.field.json);
            }
            let mut row = FieldRow { name: f.field.json.clone(), ..FieldRow::default() };
            row.ty = self.go_type(&f.field.ty).with_context(|| f.field.json.clone())?;
            row.zero = self.zero(&f.field, &row.ty)?;
            self.number(&message, f, &mut row).with_context(|| f.field.json.clone())?;
            if let Some(p) = property {
                openapi_facts(p, &mut row)?;
                let required = schema.as_ref().and_then(|s| s["required"].as_array());
                row.required = required.is_some_and(|r| r.iter().any(|n| n == row.name.as_str()));
            }
            self.refer(&row.ty);
            fields.push(row);
        }
        if let Some(properties) = schema.as_ref().and_then(|s| s["properties"].as_object())
            && let Some(extra) = properties.keys().find(|p| !fields.iter().any(|f| &f.name == *p))
        {
            bail!("Go lacks the field {extra} that OpenAPI has");
        }
        let atomic = schema.as_ref().is_some_and(|s| s["x-kubernetes-map-type"] == "atomic");
        // A message without a layout here (alpha types that stable ones refer to) is known by Go's tags.
        let numbered = fields.is_empty() || fields.iter().any(|f| f.number != 0);
        let proto = if numbered { message } else { String::new() };
        Ok(TypeRow::new(proto, atomic, fields))
    }

    fn flatten(&mut self, path: &str, name: &str, via: &[u32], out: &mut Vec<Flat>) -> Result<()> {
        let package = self.go.package(path)?;
        let Some(fields) = package.structs.get(name).cloned() else { bail!("no Go struct {path}.{name}") };
        for f in fields {
            if !f.json.is_empty() {
                out.push(Flat { field: f, via: via.to_vec() });
            } else if f.ty.ends_with("meta/v1.TypeMeta") {
                for (json, ty) in [("kind", "string"), ("apiVersion", "string")] {
                    let field =
                        GoField { json: json.into(), ty: ty.into(), omit_empty: true, omit_zero: false, number: 0 };
                    out.push(Flat { field, via: Vec::new() });
                }
            } else if f.ty.ends_with("meta/v1.ListMeta") && name == "Table" {
                bail!("an embedded ListMeta without a name");
            } else {
                let (path, name) = f.ty.rsplit_once('.').with_context(|| f.ty.clone())?;
                if f.ty.starts_with('*') || f.number == 0 {
                    bail!("embedded by pointer, or without a protobuf number: {}", f.ty);
                }
                self.flatten(path, name, &[via, &[f.number]].concat(), out)?;
            }
        }
        Ok(())
    }

    /// The table's word for a Go type.
    fn go_type(&mut self, ty: &str) -> Result<String> {
        let ty = ty.trim_start_matches('*');
        Ok(match ty {
            "string" => "string".into(),
            "bool" => "bool".into(),
            "int32" | "uint32" => "int32".into(),
            "int64" | "int" => "int64".into(),
            "float64" => "double".into(),
            "[]byte" => "bytes".into(),
            "interface{}" => "any".into(),
            "k8s.io/apimachinery/pkg/apis/meta/v1.Time" => "time".into(),
            "k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime" => "microtime".into(),
            "k8s.io/apimachinery/pkg/api/resource.Quantity" => "quantity".into(),
            "k8s.io/apimachinery/pkg/util/intstr.IntOrString" => "intorstring".into(),
            "k8s.io/apimachinery/pkg/runtime.RawExtension"
            | "k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1"
            | "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON" => "any".into(),
            "k8s.io/apimachinery/pkg/types.UID" => "string".into(),
            _ => {
                if let Some(item) = ty.strip_prefix("[]") {
                    return Ok(format!("[]{}", self.go_type(item)?));
                }
                if let Some(value) = ty.strip_prefix("map[string]") {
                    return Ok(format!("{{}}{}", self.go_type(value)?));
                }
                let (path, name) = ty.rsplit_once('.').with_context(|| ty.to_owned())?;
                let reference = format!("io.k8s.{}.{name}", path.trim_start_matches("k8s.io/").replace('/', "."));
                const ALTERNATIVES: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOr";
                if let Some(or) = reference.strip_prefix(ALTERNATIVES) {
                    self.queue.push(format!("{}Props", ALTERNATIVES.trim_end_matches("PropsOr")));
                    return Ok(format!("schema-or-{}", or.to_lowercase()));
                }
                let package = self.go.package(path)?;
                if package.structs.contains_key(name) {
                    return Ok(reference);
                }
                let Some(named) = package.named.get(name).cloned() else { bail!("unknown Go type {ty}") };
                let inner = self.go_type(&named)?;
                // A named slice that is a message of its own in protobuf (`ExtraValue`, `Verbs`).
                let message = format!("{}.{name}", path.replace('-', "_").replace('/', "."));
                if self.messages.contains_key(&message) {
                    match inner.strip_prefix("[]") {
                        Some(item) => format!("[w]{item}"),
                        None => bail!("a named type with a message that is no slice: {ty}"),
                    }
                } else {
                    inner
                }
            }
        })
    }

    /// What happens to the zero value, by Go's rules: a pointer tells it from absence, `omitempty` drops
    /// it (but never for a struct), everything else is written.
    fn zero(&mut self, f: &GoField, ty: &str) -> Result<char> {
        let is_struct = ["time", "microtime", "quantity", "intorstring"].contains(&ty)
            || (ty.contains('.') && !ty.starts_with(['[', '{']))
            || (ty == "any" && f.ty != "interface{}");
        Ok(if f.ty.starts_with('*') {
            if f.omit_empty { 'k' } else { 'n' }
        } else if f.omit_zero || (f.omit_empty && !is_struct) {
            'd'
        } else {
            'w'
        })
    }

    /// Takes the number from the Go tag and checks name and wire type against the layout.
    fn number(&self, message: &str, f: &Flat, row: &mut FieldRow) -> Result<()> {
        (row.number, row.via) = (f.field.number, f.via.clone());
        let Some(mut fields) = self.messages.get(message) else { return Ok(()) };
        if f.field.number == 0 {
            return Ok(());
        }
        for via in &f.via {
            let embedded = fields.get(via).context("the embedded struct has no message")?;
            fields = self.messages.get(&embedded.ty).context("the embedded struct's message is unknown")?;
        }
        let p = fields.get(&f.field.number).context("the Go tag's number is not in the layout")?;
        let agree = if let Some(value) = row.ty.strip_prefix("{}") {
            p.map && wire_agrees(value, &p.ty)
        } else if let Some(item) = row.ty.strip_prefix("[]") {
            p.repeated && wire_agrees(item, &p.ty)
        } else {
            !p.repeated && !p.map && wire_agrees(&row.ty, &p.ty)
        };
        if !agree {
            bail!("{} in JSON, but {p:?} in protobuf", row.ty);
        }
        Ok(())
    }

    fn refer(&mut self, ty: &str) {
        let leaf = ty.trim_start_matches(['[', ']', '{', '}', 'w']);
        if leaf.starts_with("io.k8s.") && !self.done.contains_key(leaf) {
            self.queue.push(leaf.to_owned());
        }
    }
}

fn wire_agrees(ty: &str, proto: &str) -> bool {
    match ty {
        "string" | "bool" | "int32" | "int64" | "double" | "bytes" => ty == proto,
        _ => proto.contains('.'),
    }
}

/// `io.k8s.api.core.v1.Pod` as Go's package path and name.
fn go_name(name: &str) -> Result<(String, String)> {
    let (package, short) = name.rsplit_once('.').context("a name without a package")?;
    let package = package.strip_prefix("io.k8s.").context("not a type of Kubernetes")?;
    Ok((format!("k8s.io/{}", package.replace('.', "/")), short.to_owned()))
}

fn openapi_facts(p: &Value, row: &mut FieldRow) -> Result<()> {
    row.list = match p["x-kubernetes-list-type"].as_str() {
        None | Some("atomic") => None,
        Some("set") => Some(Vec::new()),
        Some("map") => {
            let keys = p["x-kubernetes-list-map-keys"].as_array().context("a list map without keys")?;
            Some(keys.iter().filter_map(|k| k.as_str().map(str::to_owned)).collect())
        }
        Some(other) => bail!("unknown list type {other}"),
    };
    row.atomic = p["x-kubernetes-map-type"] == "atomic";
    row.granular = p["x-kubernetes-map-type"] == "granular";
    row.patch_strategy = p["x-kubernetes-patch-strategy"].as_str().unwrap_or("").to_owned();
    row.merge_key = p["x-kubernetes-patch-merge-key"].as_str().unwrap_or("").to_owned();
    // Most defaults there are Go zero values and mean nothing but that there is no `omitempty`.
    let zero = [Value::from(""), Value::from(0), Value::from(false), serde_json::json!({})];
    row.default = Some(&p["default"]).filter(|d| !d.is_null() && !zero.contains(d)).cloned();
    row.values = p["enum"].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    Ok(())
}
