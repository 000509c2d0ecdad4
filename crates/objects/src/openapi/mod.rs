//! OpenAPI v3 documents, one a group-version, made from the tables when somebody asks: what
//! `kubectl explain` prints and what clients look up before they apply.
//!
//! They differ from kube-apiserver's in wording of operations, and in what nobody looks for: the
//! deprecated `/watch/` paths, unions, and per-value texts of enums are left out.

mod descriptions;
mod paths;
mod schemas;

use crate::kinds::{KINDS, Kind};
use crate::schema::builtin;
use crate::{Map, Tree};
use descriptions::Descriptions;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Changes whenever this code makes other documents of the same tables.
const GENERATION: u32 = 1;

/// Every document's path under `/openapi/v3/` (`api/v1`, `apis/apps/v1`) with a hash that changes when
/// the document may have: clients keep a document for as long as its hash stays. `serves` says which
/// kinds the mesh serves at its level.
pub fn index(serves: &dyn Fn(&Kind) -> bool) -> Vec<(String, String)> {
    let mut hash = Sha256::new();
    hash.update(GENERATION.to_be_bytes());
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(crate::schema::FACTS);
    hash.update(descriptions::TEXTS);
    for k in served(serves) {
        hash.update(format!("{} {} {}\n", k.api_version(), k.plural, k.verbs.join(",")));
    }
    let hash: String = hash.finalize().iter().take(32).map(|b| format!("{b:02X}")).collect();
    let versions: BTreeSet<(&str, &str)> = served(serves).map(|k| (k.group, k.version)).collect();
    versions.into_iter().map(|(group, version)| (path(group, version), hash.clone())).collect()
}

/// The document of a path that [`index`] lists. Made anew each time: keep it, or better its
/// compressed bytes, where it is asked for often; the largest is 0.7 MB.
pub fn document(wanted: &str, serves: &dyn Fn(&Kind) -> bool) -> Option<Tree> {
    let first = served(serves).find(|k| path(k.group, k.version) == wanted)?;
    let (group, version) = (first.group, first.version);
    let descriptions = Descriptions::read();
    let kinds: Vec<&Kind> = served(serves).filter(|k| (k.group, k.version) == (group, version)).collect();
    let mut schemas = schemas::Schemas::new(builtin(), &descriptions);
    let mut paths = Map::new();
    let root = format!("/{wanted}");
    paths.insert(format!("{root}/"), paths::discovery(group, version, &mut schemas));
    for k in kinds {
        paths::of_kind(k, &root, &mut schemas, &mut paths);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "1.37"},
        "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "securitySchemes": {"BearerToken": {
                "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
            }},
        },
    }))
}

fn served(serves: &dyn Fn(&Kind) -> bool) -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(move |k| serves(k))
}

fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

#[cfg(test)]
mod tests;
