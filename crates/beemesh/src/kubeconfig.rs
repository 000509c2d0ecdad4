//! The administrator's kubeconfig: written beside the data, and merged into `~/.kube/config` as the
//! context `beemesh` without touching what is there.

use crate::files;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// What a client needs to speak to this API as somebody.
pub(crate) struct Access<'a> {
    /// `https://HOST:PORT`
    pub(crate) server: &'a str,
    /// PEM of the authorities the server's certificate hangs under.
    pub(crate) ca_pem: &'a [u8],
    /// PEM of the client's certificate chain.
    pub(crate) cert_pem: &'a [u8],
    /// PEM of the client's private key.
    pub(crate) key_pem: &'a [u8],
}

const NAME: &str = "beemesh";

/// A kubeconfig with one cluster, user and context. JSON: every YAML reader reads it, and kubectl
/// rewrites it in YAML when it edits it.
pub(crate) fn document(access: &Access<'_>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": {
            "server": access.server, "certificate-authority-data": b64(access.ca_pem)}}],
        "users": [{"name": NAME, "user": {
            "client-certificate-data": b64(access.cert_pem), "client-key-data": b64(access.key_pem)}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
        "current-context": NAME,
    })
}

/// Writes a document, readable by its owner only.
///
/// # Errors
/// The operation and path that failed; the old file, if there was one, is unchanged.
pub(crate) fn write(path: &Path, document: &Value) -> Result<()> {
    files::replace(path, &serde_json::to_vec_pretty(document)?)
}

/// Where kubectl looks when nothing else is said.
pub(crate) fn default_path() -> Option<PathBuf> {
    std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".kube/config"))
}

/// Adds the context to an existing kubeconfig, or starts one. Entries called `beemesh` are ours and are
/// replaced; no other entry is touched, and `current-context` only if none is set.
///
/// # Errors
/// A file that is no kubeconfig is left as it is.
pub(crate) fn merge(path: &Path, document: &Value) -> Result<()> {
    let mut have = match fs::read(path) {
        Ok(bytes) if !bytes.iter().all(u8::is_ascii_whitespace) => parse(&bytes).with_context(|| {
            format!("{} is not a kubeconfig beemesh can read; it was left as it is", path.display())
        })?,
        Ok(_) => json!({"apiVersion": "v1", "kind": "Config"}),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => json!({"apiVersion": "v1", "kind": "Config"}),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    if !merge_into(&mut have, document)? {
        return Ok(());
    }
    write(path, &have)
}

fn parse(bytes: &[u8]) -> Result<Value> {
    let v = objects::codec::yaml::parse(bytes).map_err(|e| anyhow::anyhow!("{e}"))?;
    if !v.is_object() {
        bail!("it is not a mapping");
    }
    Ok(v)
}

/// Whether anything changed.
fn merge_into(have: &mut Value, ours: &Value) -> Result<bool> {
    let before = have.clone();
    let map = have.as_object_mut().context("it is not a mapping")?;
    for list in ["clusters", "users", "contexts"] {
        let entry = map.entry(list).or_insert(Value::Null);
        if entry.is_null() {
            *entry = json!([]);
        }
        let entries = entry.as_array_mut().with_context(|| format!("{list} is not a list"))?;
        let mine = &ours[list][0];
        match entries.iter_mut().find(|e| e["name"] == NAME) {
            Some(e) => *e = mine.clone(),
            None => entries.push(mine.clone()),
        }
    }
    if map.get("current-context").and_then(Value::as_str).is_none_or(str::is_empty) {
        map.insert("current-context".into(), NAME.into());
    }
    Ok(*have != before)
}

fn b64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ours() -> Value {
        document(&Access { server: "https://127.0.0.1:6443", ca_pem: b"ca", cert_pem: b"c", key_pem: b"k" })
    }

    #[test]
    fn merging_keeps_every_foreign_entry_and_the_current_context() {
        let mut have = json!({"clusters": [{"name": "work", "cluster": {"server": "https://w"}}], "contexts": null,
            "current-context": "work", "preferences": {"colors": true}});
        assert!(merge_into(&mut have, &ours()).unwrap());
        assert_eq!(have["clusters"][0]["cluster"]["server"], "https://w");
        assert_eq!(have["clusters"][1]["name"], NAME);
        assert_eq!(have["current-context"], "work");
        assert_eq!(have["preferences"]["colors"], true);
        assert!(!merge_into(&mut have, &ours()).unwrap(), "a second merge changes nothing");
    }

    #[test]
    fn a_fresh_kubeconfig_points_at_the_mesh() {
        let mut have = json!({});
        merge_into(&mut have, &ours()).unwrap();
        assert_eq!(have["current-context"], NAME);
    }
}
