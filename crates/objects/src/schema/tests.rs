#![allow(clippy::unwrap_used)]
use super::*;

fn field<'a>(s: &'a Schema, ty: &str, name: &str) -> &'a Field {
    s.field(s.by_name(ty).unwrap(), name).unwrap()
}

#[test]
fn every_field_of_the_table_refers_to_a_type_of_it_and_fields_are_sorted() {
    let s = builtin();
    for t in &s.types {
        let refers: Vec<TypeId> = match t {
            Type::Object(o) => {
                assert!(o.fields.is_sorted_by(|a, b| a.name < b.name), "{}", o.name);
                o.fields.iter().map(|f| f.ty).collect()
            }
            Type::Map { value } => vec![*value],
            Type::List { item, .. } => vec![*item],
            Type::SchemaOr { schema, .. } => vec![*schema],
            Type::Scalar(_) | Type::Any => vec![],
        };
        assert!(refers.iter().all(|r| (r.0 as usize) < s.types.len()));
    }
}

#[test]
fn a_type_is_found_by_name_and_by_kind() {
    let s = builtin();
    let pod = s.by_kind("", "v1", "Pod").unwrap();
    assert_eq!(s.by_name("io.k8s.api.core.v1.Pod"), Some(pod));
    assert_eq!(s.object(pod).unwrap().proto, "k8s.io.api.core.v1.Pod");
    for (g, k) in [
        ("", "Status"),
        ("", "DeleteOptions"),
        ("meta.k8s.io", "Table"),
        ("apps", "DeploymentList"),
        ("policy", "Eviction"),
    ] {
        assert!(s.by_kind(g, "v1", k).is_some(), "{g} {k}");
    }
    assert_eq!(s.by_kind("apps", "v1beta1", "Deployment"), None);
}

#[test]
fn a_list_knows_its_keys_and_a_key_its_default() {
    let s = builtin();
    let ports = field(s, "io.k8s.api.core.v1.Container", "ports");
    assert_eq!(ports.list, ListKind::Map(vec!["containerPort".into(), "protocol".into()]));
    assert_eq!(ports.patch.merge_key.as_deref(), Some("containerPort"));
    assert_eq!(field(s, "io.k8s.api.core.v1.ContainerPort", "protocol").default, Some("TCP".into()));
    let volumes = field(s, "io.k8s.api.core.v1.PodSpec", "volumes");
    assert!(volumes.patch.merge && volumes.patch.retain_keys);
    assert_eq!(field(s, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers").list, ListKind::Set);
}

#[test]
fn gos_zero_values_are_no_defaults() {
    let s = builtin();
    assert_eq!(field(s, "io.k8s.api.core.v1.Container", "name").default, None);
    assert_eq!(field(s, "io.k8s.api.core.v1.Container", "name").zero, Zero::Written);
    assert_eq!(field(s, "io.k8s.api.apps.v1.DeploymentSpec", "replicas").zero, Zero::Kept);
    assert_eq!(field(s, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "labels").zero, Zero::Dropped);
    assert_eq!(field(s, "io.k8s.api.core.v1.Pod", "status").zero, Zero::Written);
}

#[test]
fn atomic_maps_and_structs_are_known() {
    let s = builtin();
    assert!(field(s, "io.k8s.api.core.v1.PodSpec", "nodeSelector").atomic);
    let selector = s.by_name("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector").unwrap();
    assert!(s.object(selector).unwrap().atomic);
    let claim = field(s, "io.k8s.api.core.v1.PersistentVolumeSpec", "claimRef");
    assert!(claim.granular && s.object(claim.ty).unwrap().atomic);
}

#[test]
fn an_embedded_struct_is_flat_in_json_and_a_message_in_protobuf() {
    let s = builtin();
    let f = field(s, "io.k8s.api.core.v1.Volume", "emptyDir");
    assert_eq!((f.via.as_slice(), f.number), ([2].as_slice(), 2));
    let f = field(s, "io.k8s.api.admissionregistration.v1.NamedRuleWithOperations", "apiGroups");
    assert_eq!((f.via.as_slice(), f.number), ([2, 2].as_slice(), 1));
}
