#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn every_group_version_served_has_a_document_whose_references_are_all_there() {
    let index = index(&|_| true);
    assert!(index.iter().any(|(p, _)| p == "api/v1") && index.iter().any(|(p, _)| p == "apis/apps/v1"));
    for (path, hash) in index {
        assert_eq!(hash.len(), 64);
        let document = document(&path, &|_| true).unwrap();
        let text = document.to_string();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{path}: {name}");
        }
    }
    let root = document("api/v1", &|_| true).unwrap();
    assert!(root["paths"].get("/api/v1/componentstatuses/{name}").is_some());
    assert!(root["paths"].get("/api/v1/namespaces/{namespace}/bindings/{name}").is_none());
    assert!(document("apis/nope/v1", &|_| true).is_none());
    assert!(document("apis/apps/v1", &|k| k.group.is_empty()).is_none(), "what is not served has no document");
}

#[test]
fn a_patch_says_its_kind_and_that_fields_can_be_validated_which_kubectl_looks_for() {
    let d = document("apis/apps/v1", &|_| true).unwrap();
    let patch = &d["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    let names: Vec<_> = patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let scale = &d["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
}

#[test]
fn a_type_has_its_texts_keys_and_merge_rules() {
    let d = document("api/v1", &|_| true).unwrap();
    let schemas = &d["components"]["schemas"];
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"], json!([{"group": "", "version": "v1", "kind": "Pod"}]));
    assert!(pod["description"].as_str().unwrap().starts_with("Pod is a collection of containers"));
    assert!(pod["properties"]["kind"]["description"].as_str().unwrap().contains("REST resource"));
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(
        (
            &containers["x-kubernetes-list-map-keys"],
            &containers["x-kubernetes-patch-strategy"],
            &containers["x-kubernetes-patch-merge-key"]
        ),
        (&json!(["name"]), &json!("merge"), &json!("name"))
    );
    assert_eq!(schemas["io.k8s.api.core.v1.PodSpec"]["required"], json!(["containers"]));
    assert_eq!(schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"]["default"], "TCP");
}
