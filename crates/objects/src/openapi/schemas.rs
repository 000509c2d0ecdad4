//! Types as OpenAPI schemas, each once, with all they refer to.

use super::descriptions::Descriptions;
use crate::schema::{Alternative, Field, ListKind, ObjectType, Scalar, Schema, Type, TypeId, Zero};
use crate::{Map, Tree};
use serde_json::json;
use std::collections::BTreeMap;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const APIEXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

/// The schemas of one document, filled as its paths refer to them.
pub(super) struct Schemas<'a> {
    schema: &'a Schema,
    descriptions: &'a Descriptions,
    done: Map,
    queue: Vec<String>,
    /// Group, version and kind of the types that are whole bodies.
    kinds: BTreeMap<TypeId, Vec<Tree>>,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(schema: &'a Schema, descriptions: &'a Descriptions) -> Self {
        let mut kinds: BTreeMap<TypeId, Vec<Tree>> = BTreeMap::new();
        for (group, version, kind, ty) in schema.kinds() {
            kinds.entry(ty).or_default().push(json!({"group": group, "version": version, "kind": kind}));
        }
        Schemas { schema, descriptions, done: Map::new(), queue: Vec::new(), kinds }
    }

    /// A reference to a type, which the document then holds.
    pub(super) fn refer(&mut self, name: &str) -> Tree {
        self.queue.push(name.to_owned());
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// All types referred to, directly and through one another.
    pub(super) fn finish(mut self) -> Map {
        while let Some(name) = self.queue.pop() {
            if self.done.contains_key(&name) {
                continue;
            }
            let mut made = match self.schema.by_name(&name).map(|id| (id, self.schema.get(id))) {
                Some((id, Type::Object(o))) => self.object(id, o),
                _ => special(&name),
            };
            if let Some(text) = self.descriptions.get(&name, "") {
                made.insert("description".into(), text.into());
            }
            self.done.insert(name, Tree::Object(made));
        }
        self.done
    }

    fn object(&mut self, id: TypeId, o: &ObjectType) -> Map {
        let mut out = Map::new();
        out.insert("type".into(), "object".into());
        let properties: Map = o.fields.iter().map(|f| (f.name.clone(), Tree::Object(self.property(o, f)))).collect();
        if !properties.is_empty() {
            out.insert("properties".into(), properties.into());
        }
        let required: Vec<Tree> = o.fields.iter().filter(|f| f.required).map(|f| f.name.as_str().into()).collect();
        if !required.is_empty() {
            out.insert("required".into(), required.into());
        }
        if o.atomic {
            out.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        if let Some(kinds) = self.kinds.get(&id) {
            out.insert("x-kubernetes-group-version-kind".into(), kinds.clone().into());
        }
        out
    }

    fn property(&mut self, o: &ObjectType, f: &Field) -> Map {
        let mut out = match self.value(f.ty, &o.name, &f.name) {
            // Beside a reference nothing else counts, so it is wrapped.
            Tree::Object(m) if m.contains_key("$ref") => Map::from_iter([(String::from("allOf"), json!([m]))]),
            Tree::Object(m) => m,
            _ => Map::new(),
        };
        let mut put = |key: &str, value: Tree| drop(out.insert(key.into(), value));
        if let Some(text) = self.descriptions.get(&o.name, &f.name) {
            put("description", text.into());
        }
        let zero = match self.schema.get(f.ty) {
            Type::Object(_) => Some(json!({})),
            Type::Scalar(Scalar::String) => Some("".into()),
            Type::Scalar(Scalar::Bool) => Some(false.into()),
            Type::Scalar(Scalar::Int32 | Scalar::Int64) => Some(0.into()),
            _ => None,
        };
        if let Some(default) = f.default.clone().or(zero.filter(|_| f.zero == Zero::Written)) {
            put("default", default);
        }
        if !f.values.is_empty() {
            put("enum", f.values.iter().map(|v| Tree::from(v.as_str())).collect());
        }
        if matches!(self.schema.get(f.ty), Type::List { .. }) {
            let (kind, keys) = match &f.list {
                ListKind::Atomic => ("atomic", None),
                ListKind::Set => ("set", None),
                ListKind::Map(keys) => ("map", Some(keys)),
            };
            put("x-kubernetes-list-type", kind.into());
            if let Some(keys) = keys {
                put("x-kubernetes-list-map-keys", keys.iter().map(|k| Tree::from(k.as_str())).collect());
            }
        }
        if f.atomic || f.granular {
            put("x-kubernetes-map-type", if f.atomic { "atomic" } else { "granular" }.into());
        }
        let strategy = [(f.patch.merge, "merge"), (f.patch.retain_keys, "retainKeys")];
        let strategy: Vec<&str> = strategy.into_iter().filter(|(on, _)| *on).map(|(_, s)| s).collect();
        if !strategy.is_empty() {
            put("x-kubernetes-patch-strategy", strategy.join(",").into());
        }
        if let Some(key) = &f.patch.merge_key {
            put("x-kubernetes-patch-merge-key", key.as_str().into());
        }
        out
    }

    fn value(&mut self, ty: TypeId, owner: &str, field: &str) -> Tree {
        match self.schema.get(ty) {
            Type::Object(o) => self.refer(&o.name),
            Type::Map { value } => json!({"type": "object", "additionalProperties": self.value(*value, owner, field)}),
            Type::List { item, .. } => json!({"type": "array", "items": self.value(*item, owner, field)}),
            Type::Any if owner.starts_with(APIEXTENSIONS) => self.refer(&format!("{APIEXTENSIONS}.JSON")),
            Type::Any if field == "fieldsV1" => self.refer(&format!("{META}.FieldsV1")),
            Type::Any => self.refer("io.k8s.apimachinery.pkg.runtime.RawExtension"),
            Type::SchemaOr { alternative, .. } => {
                let or = match alternative {
                    Alternative::Schemas => "Array",
                    Alternative::Bool => "Bool",
                    Alternative::Strings => "StringArray",
                };
                self.refer(&format!("{APIEXTENSIONS}.JSONSchemaPropsOr{or}"))
            }
            Type::Scalar(s) => match s {
                Scalar::String => json!({"type": "string"}),
                Scalar::Bool => json!({"type": "boolean"}),
                Scalar::Int32 => json!({"type": "integer", "format": "int32"}),
                Scalar::Int64 => json!({"type": "integer", "format": "int64"}),
                Scalar::Double => json!({"type": "number", "format": "double"}),
                Scalar::Bytes => json!({"type": "string", "format": "byte"}),
                Scalar::Time => self.refer(&format!("{META}.Time")),
                Scalar::MicroTime => self.refer(&format!("{META}.MicroTime")),
                Scalar::Quantity => self.refer("io.k8s.apimachinery.pkg.api.resource.Quantity"),
                Scalar::IntOrString => self.refer("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
            },
        }
    }
}

/// Types that are no structs in JSON.
fn special(name: &str) -> Map {
    let schema = match name.rsplit('.').next().unwrap_or("") {
        "Time" | "MicroTime" => json!({"type": "string", "format": "date-time"}),
        "Quantity" => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        "IntOrString" => json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        "RawExtension" | "FieldsV1" | "Patch" => json!({"type": "object"}),
        _ => json!({}),
    };
    match schema {
        Tree::Object(m) => m,
        _ => Map::new(),
    }
}
