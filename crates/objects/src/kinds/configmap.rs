//! ConfigMaps and Secrets: named bytes, and the promise not to change them.

use super::field::{self, Path};
use super::tree::{self, Fields, text};
use super::{Context, FieldError, Rules, meta, names};
use crate::{Map, Tree};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Data of one ConfigMap or Secret: 1 MiB.
const DATA_MAX_BYTES: usize = 1024 * 1024;
const FIXED: &str = "field is immutable when `immutable` is set";

/// ConfigMap's rules.
pub struct ConfigMap;
/// Secret's rules.
pub struct Secret;

impl Rules for ConfigMap {
    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let (data, binary) = (Path::Root.child("data"), Path::Root.child("binaryData"));
        let mut bytes = 0;
        for (key, value) in obj.entries("data") {
            let at = data.key(key);
            field::each(&at, key, names::config_key, errs);
            if obj.at("binaryData").has(key) {
                errs.push(field::invalid(&at, key, "duplicate of key present in binaryData"));
            }
            bytes += text(value).len();
        }
        for (key, value) in obj.entries("binaryData") {
            field::each(&binary.key(key), key, names::config_key, errs);
            bytes += decoded_len(text(value));
        }
        if bytes > DATA_MAX_BYTES {
            // Kubernetes names no field here; its path prints so.
            errs.push(field::too_long(&Path::Root.key(""), DATA_MAX_BYTES));
        }
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        keeps_its_promise(new, old, &["data", "binaryData"], errs);
        meta::again(new, self.names(), true, errs);
        self.validate(new, cx, errs);
    }
}

impl Rules for Secret {
    fn default(&self, obj: &mut Tree) {
        tree::default_text(obj, "type", "Opaque");
        // stringData is write-only: it overrides data and is never stored.
        if let Some(Tree::Object(given)) = tree::fields(obj).remove("stringData")
            && !given.is_empty()
        {
            let data = tree::fields(tree::child(obj, "data"));
            for (key, value) in given {
                data.insert(key, STANDARD.encode(text(&value)).into());
            }
        }
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree, _cx: &Context<'_>) {
        if new.text("type").is_empty() {
            tree::keep(new, old, "type");
        }
    }

    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let data = Path::Root.child("data");
        let mut bytes = 0;
        for (key, value) in obj.entries("data") {
            field::each(&data.key(key), key, names::config_key, errs);
            bytes += decoded_len(text(value));
        }
        if bytes > DATA_MAX_BYTES {
            errs.push(field::too_long(&data, DATA_MAX_BYTES));
        }
        let held = obj.at("data");
        let mut needs = |key: &str| {
            if !held.has(key) {
                errs.push(field::required(&data.key(key), ""));
            }
        };
        match obj.text("type") {
            "kubernetes.io/service-account-token" => {
                let name = "kubernetes.io/service-account.name";
                if obj.at("metadata").at("annotations").text(name).is_empty() {
                    let metadata = Path::Root.child("metadata");
                    errs.push(field::required(&metadata.child("annotations").key(name), ""));
                }
            }
            "kubernetes.io/dockercfg" => docker_config(held, &data, ".dockercfg", errs),
            "kubernetes.io/dockerconfigjson" => docker_config(held, &data, ".dockerconfigjson", errs),
            "kubernetes.io/basic-auth" if !held.has("username") && !held.has("password") => {
                needs("username");
                needs("password");
            }
            "kubernetes.io/ssh-auth" if held.text("ssh-privatekey").is_empty() => {
                errs.push(field::required(&data.key("ssh-privatekey"), ""));
            }
            "kubernetes.io/tls" => {
                needs("tls.crt");
                needs("tls.key");
            }
            _ => {}
        }
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if new.text("type") != old.text("type") {
            errs.push(field::invalid(&Path::Root.child("type"), new.text("type"), field::IMMUTABLE));
        }
        keeps_its_promise(new, old, &["data"], errs);
        meta::again(new, self.names(), true, errs);
        self.validate(new, cx, errs);
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn select(&self, obj: &Tree, field: &str) -> String {
        if field == "type" { obj.text("type").to_owned() } else { String::new() }
    }
}

fn keeps_its_promise(new: &Tree, old: &Tree, fields: &[&str], errs: &mut Vec<FieldError>) {
    if !old.flag("immutable") {
        return;
    }
    if !new.flag("immutable") {
        errs.push(field::forbidden(&Path::Root.child("immutable"), FIXED));
    }
    let none = Map::new();
    for name in fields {
        let of = |obj: &Tree| obj.at(name).as_object().unwrap_or(&none).clone();
        if of(new) != of(old) {
            errs.push(field::forbidden(&Path::Root.child(name), FIXED));
        }
    }
}

/// How many bytes a base64 text stands for.
fn decoded_len(s: &str) -> usize {
    s.len() / 4 * 3 - s.bytes().rev().take_while(|b| *b == b'=').count().min(s.len() / 4 * 3)
}

fn docker_config(held: &Tree, data: &Path<'_>, key: &str, errs: &mut Vec<FieldError>) {
    let at = data.key(key);
    if !held.has(key) {
        errs.push(field::required(&at, ""));
        return;
    }
    let bytes = STANDARD.decode(held.text(key)).unwrap_or_default();
    let problem = match serde_json::from_slice::<Tree>(&bytes) {
        Ok(Tree::Object(_) | Tree::Null) => return,
        Ok(other) => {
            let what = match other {
                Tree::String(_) => "string",
                Tree::Number(_) => "number",
                Tree::Bool(_) => "bool",
                _ => "array",
            };
            format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}")
        }
        Err(e) if e.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(e) => match bytes.get(e.column().saturating_sub(1)) {
            Some(c) if e.line() == 1 => {
                format!("invalid character '{}' looking for beginning of value", char::from(*c))
            }
            _ => e.to_string(),
        },
    };
    errs.push(field::invalid(&at, "<secret contents redacted>", &problem));
}
