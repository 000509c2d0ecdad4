//! Discovery: what is served, in the classic documents (`/api`, `/apis`, one per group and version) and
//! in the aggregated ones (`apidiscovery.k8s.io/v2`, KEP-3352).

use crate::catalogue::{Catalogue, Group, Version};
use crate::negotiate::clauses;
use crate::port::Document;
use base64::Engine as _;
use bytes::Bytes;
use objects::kinds::{Home, Kind};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Every document but `/api`, which names the address it was asked at.
pub(crate) struct Documents {
    /// `/apis`.
    pub(crate) groups: Document,
    /// `/apis/GROUP`.
    pub(crate) group: BTreeMap<String, Document>,
    /// `/api/v1`, `/apis/GROUP/VERSION`.
    pub(crate) version: BTreeMap<(String, String), Document>,
    /// `/api`, aggregated.
    pub(crate) core_aggregated: Document,
    /// `/apis`, aggregated.
    pub(crate) aggregated: Document,
}

/// The media type of an aggregated document, as client-go compares it.
pub(crate) const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether a client prefers the aggregated document.
pub(crate) fn wants_aggregated(accept: &str) -> bool {
    clauses(accept)
        .iter()
        .find_map(|c| match c.param("as") {
            None if c.matches("application/json") => Some(false),
            Some("APIGroupDiscoveryList")
                if c.matches("application/json")
                    && c.param("g") == Some("apidiscovery.k8s.io")
                    && c.param("v") == Some("v2") =>
            {
                Some(true)
            }
            _ => None,
        })
        .unwrap_or(false)
}

/// `/api` for a client that reached us at `address`.
pub(crate) fn core_versions(catalogue: &Catalogue, address: &str) -> Bytes {
    let versions = catalogue
        .groups()
        .iter()
        .filter(|g| g.name.is_empty())
        .flat_map(|g| g.versions.iter().map(|v| v.name))
        .collect();
    json(&ApiVersions {
        kind: "APIVersions",
        versions,
        server_address_by_client_cidrs: vec![ServerAddress { client_cidr: "0.0.0.0/0", server_address: address }],
    })
}

/// All documents of a catalogue.
pub(crate) fn documents(catalogue: &Catalogue) -> Documents {
    let named = || catalogue.groups().iter().filter(|g| !g.name.is_empty());
    let mut version = BTreeMap::new();
    for g in catalogue.groups() {
        for v in &g.versions {
            version.insert((g.name.to_string(), v.name.to_string()), document(json(&resource_list(g, v))));
        }
    }
    Documents {
        groups: document(json(&GroupList {
            kind: "APIGroupList",
            api_version: "v1",
            groups: named().map(|g| api_group(g, false)).collect(),
        })),
        group: named().map(|g| (g.name.to_string(), document(json(&api_group(g, true))))).collect(),
        version,
        core_aggregated: document(json(&aggregated(catalogue.groups().iter().filter(|g| g.name.is_empty())))),
        aggregated: document(json(&aggregated(named()))),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiVersions<'a> {
    kind: &'static str,
    versions: Vec<&'a str>,
    #[serde(rename = "serverAddressByClientCIDRs")]
    server_address_by_client_cidrs: Vec<ServerAddress<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerAddress<'a> {
    #[serde(rename = "clientCIDR")]
    client_cidr: &'static str,
    server_address: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupList {
    kind: &'static str,
    api_version: &'static str,
    groups: Vec<ApiGroup>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiGroup {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    name: &'static str,
    versions: Vec<GroupVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_version: Option<GroupVersion>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
    version: &'static str,
}

fn api_group(g: &Group, alone: bool) -> ApiGroup {
    let versions: Vec<GroupVersion> = g
        .versions
        .iter()
        .map(|v| GroupVersion { group_version: format!("{}/{}", g.name, v.name), version: v.name })
        .collect();
    ApiGroup {
        kind: alone.then_some("APIGroup"),
        api_version: alone.then_some("v1"),
        name: g.name,
        preferred_version: versions.first().cloned(),
        versions,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceList {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    group_version: String,
    resources: Vec<Resource>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    singular_name: &'static str,
    namespaced: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    short_names: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    categories: &'static [&'static str],
    #[serde(skip_serializing_if = "String::is_empty")]
    storage_version_hash: String,
}

fn resource_list(g: &Group, v: &Version) -> ResourceList {
    let mut resources = Vec::new();
    for kind in &v.kinds {
        resources.push(Resource {
            name: kind.plural.into(),
            singular_name: kind.singular,
            namespaced: kind.namespaced,
            group: "",
            version: "",
            kind: kind.kind,
            verbs: kind.verbs,
            short_names: kind.short_names,
            categories: kind.categories,
            storage_version_hash: storage_version_hash(kind),
        });
        for sub in kind.subresources {
            let (group, version, kind_name) = foreign(kind, sub.gvk);
            resources.push(Resource {
                name: format!("{}/{}", kind.plural, sub.name),
                singular_name: "",
                namespaced: kind.namespaced,
                group,
                version,
                kind: kind_name,
                verbs: sub.verbs,
                short_names: &[],
                categories: &[],
                storage_version_hash: String::new(),
            });
        }
    }
    resources.sort_by(|a, b| a.name.cmp(&b.name));
    ResourceList {
        kind: "APIResourceList",
        // kube-apiserver leaves it out for the core group, since ever.
        api_version: (!g.name.is_empty()).then_some("v1"),
        group_version: if g.name.is_empty() { v.name.into() } else { format!("{}/{}", g.name, v.name) },
        resources,
    }
}

/// Group and version where they are not the parent's, and the kind.
fn foreign(
    kind: &Kind,
    gvk: Option<(&'static str, &'static str, &'static str)>,
) -> (&'static str, &'static str, &'static str) {
    match gvk {
        None => ("", "", kind.kind),
        Some((g, v, k)) if (g, v) == (kind.group, kind.version) => ("", "", k),
        Some(gvk) => gvk,
    }
}

/// `apiserver/pkg/endpoints/discovery.StorageVersionHash` of the kind a resource is stored as; empty for
/// what is not stored.
fn storage_version_hash(kind: &Kind) -> String {
    if kind.home == Home::Nowhere {
        return String::new();
    }
    let stored = objects::kinds::by_storage(kind.storage).unwrap_or(kind);
    let hash = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, stored.kind));
    base64::engine::general_purpose::STANDARD.encode(hash.get(..8).unwrap_or_default())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DiscoveryList {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata,
    items: Vec<GroupDiscovery>,
}

#[derive(Serialize)]
struct Metadata {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'static str,
}

#[derive(Serialize)]
struct GroupDiscovery {
    metadata: Metadata,
    versions: Vec<VersionDiscovery>,
}

#[derive(Serialize)]
struct VersionDiscovery {
    version: &'static str,
    resources: Vec<ResourceDiscovery>,
    freshness: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceDiscovery {
    resource: &'static str,
    response_kind: ResponseKind,
    scope: &'static str,
    singular_resource: &'static str,
    verbs: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    short_names: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    categories: &'static [&'static str],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<SubresourceDiscovery>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SubresourceDiscovery {
    subresource: &'static str,
    response_kind: ResponseKind,
    verbs: &'static [&'static str],
}

#[derive(Serialize)]
struct ResponseKind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
}

fn aggregated<'a>(groups: impl Iterator<Item = &'a Group>) -> DiscoveryList {
    DiscoveryList {
        kind: "APIGroupDiscoveryList",
        api_version: "apidiscovery.k8s.io/v2",
        metadata: Metadata { name: "" },
        items: groups
            .map(|g| GroupDiscovery {
                metadata: Metadata { name: g.name },
                versions: g
                    .versions
                    .iter()
                    .map(|v| VersionDiscovery {
                        version: v.name,
                        resources: v.kinds.iter().map(|k| resource_discovery(k)).collect(),
                        freshness: "Current",
                    })
                    .collect(),
            })
            .collect(),
    }
}

fn resource_discovery(kind: &Kind) -> ResourceDiscovery {
    let mut subresources: Vec<SubresourceDiscovery> = kind
        .subresources
        .iter()
        .map(|s| {
            let (group, version, kind) = foreign(kind, s.gvk);
            SubresourceDiscovery {
                subresource: s.name,
                response_kind: ResponseKind { group, version, kind },
                verbs: s.verbs,
            }
        })
        .collect();
    subresources.sort_by_key(|s| s.subresource);
    ResourceDiscovery {
        resource: kind.plural,
        response_kind: ResponseKind { group: "", version: "", kind: kind.kind },
        scope: if kind.namespaced { "Namespaced" } else { "Cluster" },
        singular_resource: kind.singular,
        verbs: kind.verbs,
        short_names: kind.short_names,
        categories: kind.categories,
        subresources,
    }
}

/// A document of these bytes, with a newline at its end and a hash.
pub(crate) fn document(json: Bytes) -> Document {
    let mut hash = String::with_capacity(64);
    for byte in Sha256::digest(&json) {
        // Writing into a String cannot fail.
        let _ = write!(hash, "{byte:02X}");
    }
    Document { json, hash }
}

fn json(value: &impl Serialize) -> Bytes {
    // These structs have text keys and no maps of other sorts, so writing them cannot fail.
    let mut out = serde_json::to_vec(value).unwrap_or_default();
    out.push(b'\n');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_aggregated_document_only_if_it_asks_for_v2() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert!(wants_aggregated(kubectl));
        assert!(!wants_aggregated(
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
        ));
        assert!(!wants_aggregated("application/json"));
        assert!(!wants_aggregated("*/*"));
    }
}
