//! The table of kinds: facts as a kube-apiserver 1.37.0 with default settings shows them in discovery.

use super::{
    Home, Kind, Plain, Subresource, batch, claim, configmap, endpoints, event, namespace, node, pod, quota, rbac,
    service, small, workload,
};
use crate::membership;

const CRUD: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];

/// What rows begin from: a namespaced kind of the core group that is not served.
const CORE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: CRUD,
    subresources: &[],
    storage: "",
    home: Home::Namespace,
    type_name: "",
    served: false,
    rules: &Plain,
};
/// The same of the cluster's own kinds.
const CLUSTER: Kind = Kind { namespaced: false, home: Home::Root, ..CORE };
/// A kind that is only ever asked.
const REVIEW: Kind = Kind { namespaced: false, home: Home::Nowhere, verbs: CREATE, ..CORE };

const fn sub(name: &'static str, verbs: &'static [&'static str]) -> Subresource {
    Subresource { name, gvk: None, verbs }
}
const fn of(
    name: &'static str,
    gvk: (&'static str, &'static str, &'static str),
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { name, gvk: Some(gvk), verbs }
}
const RW: &[&str] = &["get", "patch", "update"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
const STREAM: &[&str] = &["create", "get"];
const STATUS: Subresource = sub("status", RW);
const SCALE: Subresource = of("scale", ("autoscaling", "v1", "Scale"), RW);

/// All kinds, in discovery's order. Of kinds that share a record the one it is stored as comes first.
pub static KINDS: &[Kind] = &[
    Kind {
        kind: "Binding",
        plural: "bindings",
        singular: "binding",
        namespaced: true,
        storage: "Binding",
        type_name: "io.k8s.api.core.v1.Binding",
        served: true,
        rules: &pod::Binding,
        ..REVIEW
    },
    Kind {
        kind: "ComponentStatus",
        plural: "componentstatuses",
        singular: "componentstatus",
        short_names: &["cs"],
        verbs: &["get", "list"],
        storage: "ComponentStatus",
        type_name: "io.k8s.api.core.v1.ComponentStatus",
        ..REVIEW
    },
    Kind {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        storage: "ConfigMap",
        type_name: "io.k8s.api.core.v1.ConfigMap",
        served: true,
        rules: &configmap::ConfigMap,
        ..CORE
    },
    Kind {
        kind: "Endpoints",
        plural: "endpoints",
        singular: "endpoints",
        short_names: &["ep"],
        storage: "Endpoints",
        type_name: "io.k8s.api.core.v1.Endpoints",
        served: true,
        rules: &endpoints::Endpoints,
        ..CORE
    },
    Kind {
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        storage: "Event",
        type_name: "io.k8s.api.core.v1.Event",
        served: true,
        rules: &event::Core,
        ..CORE
    },
    Kind {
        kind: "LimitRange",
        plural: "limitranges",
        singular: "limitrange",
        short_names: &["limits"],
        storage: "LimitRange",
        type_name: "io.k8s.api.core.v1.LimitRange",
        served: true,
        rules: &quota::LimitRange,
        ..CORE
    },
    Kind {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
        subresources: &[sub("finalize", &["update"]), STATUS],
        storage: "Namespace",
        type_name: "io.k8s.api.core.v1.Namespace",
        served: true,
        rules: &namespace::Namespace,
        ..CLUSTER
    },
    Kind {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short_names: &["no"],
        subresources: &[of("proxy", ("", "v1", "NodeProxyOptions"), PROXY), STATUS],
        storage: "Node",
        home: Home::Registry,
        type_name: "io.k8s.api.core.v1.Node",
        served: true,
        rules: &node::Node,
        ..CLUSTER
    },
    Kind {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short_names: &["pvc"],
        subresources: &[STATUS],
        storage: "PersistentVolumeClaim",
        type_name: "io.k8s.api.core.v1.PersistentVolumeClaim",
        rules: &claim::PersistentVolumeClaim,
        ..CORE
    },
    Kind {
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        singular: "persistentvolume",
        short_names: &["pv"],
        subresources: &[STATUS],
        storage: "PersistentVolume",
        type_name: "io.k8s.api.core.v1.PersistentVolume",
        rules: &claim::PersistentVolume,
        ..CLUSTER
    },
    Kind {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            of("attach", ("", "v1", "PodAttachOptions"), STREAM),
            of("binding", ("", "v1", "Binding"), CREATE),
            sub("ephemeralcontainers", RW),
            of("eviction", ("policy", "v1", "Eviction"), CREATE),
            of("exec", ("", "v1", "PodExecOptions"), STREAM),
            sub("log", &["get"]),
            of("portforward", ("", "v1", "PodPortForwardOptions"), STREAM),
            of("proxy", ("", "v1", "PodProxyOptions"), PROXY),
            STATUS,
        ],
        storage: "Pod",
        type_name: "io.k8s.api.core.v1.Pod",
        served: true,
        rules: &pod::Pod,
        ..CORE
    },
    Kind {
        kind: "PodTemplate",
        plural: "podtemplates",
        singular: "podtemplate",
        storage: "PodTemplate",
        type_name: "io.k8s.api.core.v1.PodTemplate",
        served: true,
        rules: &pod::PodTemplate,
        ..CORE
    },
    Kind {
        kind: "ReplicationController",
        plural: "replicationcontrollers",
        singular: "replicationcontroller",
        short_names: &["rc"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        storage: "ReplicationController",
        type_name: "io.k8s.api.core.v1.ReplicationController",
        rules: &workload::ReplicationController,
        ..CORE
    },
    Kind {
        kind: "ResourceQuota",
        plural: "resourcequotas",
        singular: "resourcequota",
        short_names: &["quota"],
        subresources: &[STATUS],
        storage: "ResourceQuota",
        type_name: "io.k8s.api.core.v1.ResourceQuota",
        served: true,
        rules: &quota::ResourceQuota,
        ..CORE
    },
    Kind {
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        storage: "Secret",
        type_name: "io.k8s.api.core.v1.Secret",
        served: true,
        rules: &configmap::Secret,
        ..CORE
    },
    Kind {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        subresources: &[of("token", ("authentication.k8s.io", "v1", "TokenRequest"), CREATE)],
        storage: "ServiceAccount",
        type_name: "io.k8s.api.core.v1.ServiceAccount",
        served: true,
        rules: &namespace::ServiceAccount,
        ..CORE
    },
    Kind {
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[of("proxy", ("", "v1", "ServiceProxyOptions"), PROXY), STATUS],
        storage: "Service",
        type_name: "io.k8s.api.core.v1.Service",
        served: true,
        rules: &service::Service,
        ..CORE
    },
    Kind {
        group: "apiregistration.k8s.io",
        kind: "APIService",
        plural: "apiservices",
        singular: "apiservice",
        categories: &["api-extensions"],
        subresources: &[STATUS],
        storage: "APIService.apiregistration.k8s.io",
        type_name: "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
        ..CLUSTER
    },
    Kind {
        group: "apps",
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        singular: "controllerrevision",
        storage: "ControllerRevision.apps",
        type_name: "io.k8s.api.apps.v1.ControllerRevision",
        served: true,
        rules: &workload::ControllerRevision,
        ..CORE
    },
    Kind {
        group: "apps",
        kind: "DaemonSet",
        plural: "daemonsets",
        singular: "daemonset",
        short_names: &["ds"],
        categories: &["all"],
        subresources: &[STATUS],
        storage: "DaemonSet.apps",
        type_name: "io.k8s.api.apps.v1.DaemonSet",
        rules: &workload::DaemonSet,
        ..CORE
    },
    Kind {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        storage: "Deployment.apps",
        type_name: "io.k8s.api.apps.v1.Deployment",
        served: true,
        rules: &workload::Deployment,
        ..CORE
    },
    Kind {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        storage: "ReplicaSet.apps",
        type_name: "io.k8s.api.apps.v1.ReplicaSet",
        served: true,
        rules: &workload::ReplicaSet,
        ..CORE
    },
    Kind {
        group: "apps",
        kind: "StatefulSet",
        plural: "statefulsets",
        singular: "statefulset",
        short_names: &["sts"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        storage: "StatefulSet.apps",
        type_name: "io.k8s.api.apps.v1.StatefulSet",
        rules: &workload::StatefulSet,
        ..CORE
    },
    Kind {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        storage: "Event",
        type_name: "io.k8s.api.events.v1.Event",
        served: true,
        rules: &event::Events,
        ..CORE
    },
    Kind {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        storage: "SelfSubjectReview.authentication.k8s.io",
        type_name: "io.k8s.api.authentication.v1.SelfSubjectReview",
        served: true,
        rules: &small::Review,
        ..REVIEW
    },
    Kind {
        group: "authentication.k8s.io",
        kind: "TokenReview",
        plural: "tokenreviews",
        singular: "tokenreview",
        storage: "TokenReview.authentication.k8s.io",
        type_name: "io.k8s.api.authentication.v1.TokenReview",
        served: true,
        rules: &small::Review,
        ..REVIEW
    },
    Kind {
        group: "authorization.k8s.io",
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        namespaced: true,
        storage: "LocalSubjectAccessReview.authorization.k8s.io",
        type_name: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
        served: true,
        rules: &small::AccessReview { subject: true },
        ..REVIEW
    },
    Kind {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        storage: "SelfSubjectAccessReview.authorization.k8s.io",
        type_name: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        served: true,
        rules: &small::AccessReview { subject: false },
        ..REVIEW
    },
    Kind {
        group: "authorization.k8s.io",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        storage: "SelfSubjectRulesReview.authorization.k8s.io",
        type_name: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
        served: true,
        rules: &small::Review,
        ..REVIEW
    },
    Kind {
        group: "authorization.k8s.io",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        storage: "SubjectAccessReview.authorization.k8s.io",
        type_name: "io.k8s.api.authorization.v1.SubjectAccessReview",
        served: true,
        rules: &small::AccessReview { subject: true },
        ..REVIEW
    },
    Kind {
        group: "autoscaling",
        version: "v2",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[STATUS],
        storage: "HorizontalPodAutoscaler.autoscaling",
        type_name: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
        ..CORE
    },
    Kind {
        group: "autoscaling",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[STATUS],
        storage: "HorizontalPodAutoscaler.autoscaling",
        type_name: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
        ..CORE
    },
    Kind {
        group: "batch",
        kind: "CronJob",
        plural: "cronjobs",
        singular: "cronjob",
        short_names: &["cj"],
        categories: &["all"],
        subresources: &[STATUS],
        storage: "CronJob.batch",
        type_name: "io.k8s.api.batch.v1.CronJob",
        rules: &batch::CronJob,
        ..CORE
    },
    Kind {
        group: "batch",
        kind: "Job",
        plural: "jobs",
        singular: "job",
        categories: &["all"],
        subresources: &[STATUS],
        storage: "Job.batch",
        type_name: "io.k8s.api.batch.v1.Job",
        rules: &batch::Job,
        ..CORE
    },
    Kind {
        group: "certificates.k8s.io",
        kind: "CertificateSigningRequest",
        plural: "certificatesigningrequests",
        singular: "certificatesigningrequest",
        short_names: &["csr"],
        subresources: &[sub("approval", RW), STATUS],
        storage: "CertificateSigningRequest.certificates.k8s.io",
        type_name: "io.k8s.api.certificates.v1.CertificateSigningRequest",
        ..CLUSTER
    },
    Kind {
        group: "certificates.k8s.io",
        kind: "ClusterTrustBundle",
        plural: "clustertrustbundles",
        singular: "clustertrustbundle",
        storage: "ClusterTrustBundle.certificates.k8s.io",
        type_name: "io.k8s.api.certificates.v1.ClusterTrustBundle",
        ..CLUSTER
    },
    Kind {
        group: "certificates.k8s.io",
        kind: "PodCertificateRequest",
        plural: "podcertificaterequests",
        singular: "podcertificaterequest",
        subresources: &[STATUS],
        storage: "PodCertificateRequest.certificates.k8s.io",
        type_name: "io.k8s.api.certificates.v1.PodCertificateRequest",
        ..CORE
    },
    Kind {
        group: "networking.k8s.io",
        kind: "IngressClass",
        plural: "ingressclasses",
        singular: "ingressclass",
        storage: "IngressClass.networking.k8s.io",
        type_name: "io.k8s.api.networking.v1.IngressClass",
        ..CLUSTER
    },
    Kind {
        group: "networking.k8s.io",
        kind: "Ingress",
        plural: "ingresses",
        singular: "ingress",
        short_names: &["ing"],
        subresources: &[STATUS],
        storage: "Ingress.networking.k8s.io",
        type_name: "io.k8s.api.networking.v1.Ingress",
        ..CORE
    },
    Kind {
        group: "networking.k8s.io",
        kind: "IPAddress",
        plural: "ipaddresses",
        singular: "ipaddress",
        short_names: &["ip"],
        storage: "IPAddress.networking.k8s.io",
        type_name: "io.k8s.api.networking.v1.IPAddress",
        ..CLUSTER
    },
    Kind {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short_names: &["netpol"],
        storage: "NetworkPolicy.networking.k8s.io",
        type_name: "io.k8s.api.networking.v1.NetworkPolicy",
        ..CORE
    },
    Kind {
        group: "networking.k8s.io",
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        singular: "servicecidr",
        subresources: &[STATUS],
        storage: "ServiceCIDR.networking.k8s.io",
        type_name: "io.k8s.api.networking.v1.ServiceCIDR",
        ..CLUSTER
    },
    Kind {
        group: "policy",
        kind: "PodDisruptionBudget",
        plural: "poddisruptionbudgets",
        singular: "poddisruptionbudget",
        short_names: &["pdb"],
        subresources: &[STATUS],
        storage: "PodDisruptionBudget.policy",
        type_name: "io.k8s.api.policy.v1.PodDisruptionBudget",
        ..CORE
    },
    Kind {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        storage: "ClusterRoleBinding.rbac.authorization.k8s.io",
        type_name: "io.k8s.api.rbac.v1.ClusterRoleBinding",
        served: true,
        rules: &rbac::Binding { namespaced: false },
        ..CLUSTER
    },
    Kind {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRole",
        plural: "clusterroles",
        singular: "clusterrole",
        storage: "ClusterRole.rbac.authorization.k8s.io",
        type_name: "io.k8s.api.rbac.v1.ClusterRole",
        served: true,
        rules: &rbac::Role { namespaced: false },
        ..CLUSTER
    },
    Kind {
        group: "rbac.authorization.k8s.io",
        kind: "RoleBinding",
        plural: "rolebindings",
        singular: "rolebinding",
        storage: "RoleBinding.rbac.authorization.k8s.io",
        type_name: "io.k8s.api.rbac.v1.RoleBinding",
        served: true,
        rules: &rbac::Binding { namespaced: true },
        ..CORE
    },
    Kind {
        group: "rbac.authorization.k8s.io",
        kind: "Role",
        plural: "roles",
        singular: "role",
        storage: "Role.rbac.authorization.k8s.io",
        type_name: "io.k8s.api.rbac.v1.Role",
        served: true,
        rules: &rbac::Role { namespaced: true },
        ..CORE
    },
    Kind {
        group: "storage.k8s.io",
        kind: "CSIDriver",
        plural: "csidrivers",
        singular: "csidriver",
        storage: "CSIDriver.storage.k8s.io",
        type_name: "io.k8s.api.storage.v1.CSIDriver",
        ..CLUSTER
    },
    Kind {
        group: "storage.k8s.io",
        kind: "CSINode",
        plural: "csinodes",
        singular: "csinode",
        subresources: &[STATUS],
        storage: "CSINode.storage.k8s.io",
        type_name: "io.k8s.api.storage.v1.CSINode",
        ..CLUSTER
    },
    Kind {
        group: "storage.k8s.io",
        kind: "CSIStorageCapacity",
        plural: "csistoragecapacities",
        singular: "csistoragecapacity",
        storage: "CSIStorageCapacity.storage.k8s.io",
        type_name: "io.k8s.api.storage.v1.CSIStorageCapacity",
        ..CORE
    },
    Kind {
        group: "storage.k8s.io",
        kind: "StorageClass",
        plural: "storageclasses",
        singular: "storageclass",
        short_names: &["sc"],
        storage: "StorageClass.storage.k8s.io",
        type_name: "io.k8s.api.storage.v1.StorageClass",
        ..CLUSTER
    },
    Kind {
        group: "storage.k8s.io",
        kind: "VolumeAttachment",
        plural: "volumeattachments",
        singular: "volumeattachment",
        subresources: &[STATUS],
        storage: "VolumeAttachment.storage.k8s.io",
        type_name: "io.k8s.api.storage.v1.VolumeAttachment",
        ..CLUSTER
    },
    Kind {
        group: "storage.k8s.io",
        kind: "VolumeAttributesClass",
        plural: "volumeattributesclasses",
        singular: "volumeattributesclass",
        short_names: &["vac"],
        storage: "VolumeAttributesClass.storage.k8s.io",
        type_name: "io.k8s.api.storage.v1.VolumeAttributesClass",
        ..CLUSTER
    },
    Kind {
        group: "admissionregistration.k8s.io",
        kind: "MutatingAdmissionPolicy",
        plural: "mutatingadmissionpolicies",
        singular: "mutatingadmissionpolicy",
        categories: &["api-extensions"],
        storage: "MutatingAdmissionPolicy.admissionregistration.k8s.io",
        type_name: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
        ..CLUSTER
    },
    Kind {
        group: "admissionregistration.k8s.io",
        kind: "MutatingAdmissionPolicyBinding",
        plural: "mutatingadmissionpolicybindings",
        singular: "mutatingadmissionpolicybinding",
        categories: &["api-extensions"],
        storage: "MutatingAdmissionPolicyBinding.admissionregistration.k8s.io",
        type_name: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
        ..CLUSTER
    },
    Kind {
        group: "admissionregistration.k8s.io",
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
        singular: "mutatingwebhookconfiguration",
        categories: &["api-extensions"],
        storage: "MutatingWebhookConfiguration.admissionregistration.k8s.io",
        type_name: "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
        ..CLUSTER
    },
    Kind {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingAdmissionPolicy",
        plural: "validatingadmissionpolicies",
        singular: "validatingadmissionpolicy",
        categories: &["api-extensions"],
        subresources: &[STATUS],
        storage: "ValidatingAdmissionPolicy.admissionregistration.k8s.io",
        type_name: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
        ..CLUSTER
    },
    Kind {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingAdmissionPolicyBinding",
        plural: "validatingadmissionpolicybindings",
        singular: "validatingadmissionpolicybinding",
        categories: &["api-extensions"],
        storage: "ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io",
        type_name: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
        ..CLUSTER
    },
    Kind {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
        singular: "validatingwebhookconfiguration",
        categories: &["api-extensions"],
        storage: "ValidatingWebhookConfiguration.admissionregistration.k8s.io",
        type_name: "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
        ..CLUSTER
    },
    Kind {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        singular: "customresourcedefinition",
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        subresources: &[STATUS],
        storage: "CustomResourceDefinition.apiextensions.k8s.io",
        type_name: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        ..CLUSTER
    },
    Kind {
        group: "scheduling.k8s.io",
        kind: "PriorityClass",
        plural: "priorityclasses",
        singular: "priorityclass",
        short_names: &["pc"],
        storage: "PriorityClass.scheduling.k8s.io",
        type_name: "io.k8s.api.scheduling.v1.PriorityClass",
        served: true,
        rules: &small::PriorityClass,
        ..CLUSTER
    },
    Kind {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        storage: "Lease.coordination.k8s.io",
        type_name: "io.k8s.api.coordination.v1.Lease",
        served: true,
        rules: &small::Lease,
        ..CORE
    },
    Kind {
        group: "node.k8s.io",
        kind: "RuntimeClass",
        plural: "runtimeclasses",
        singular: "runtimeclass",
        storage: "RuntimeClass.node.k8s.io",
        type_name: "io.k8s.api.node.v1.RuntimeClass",
        ..CLUSTER
    },
    Kind {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        singular: "endpointslice",
        storage: "EndpointSlice.discovery.k8s.io",
        type_name: "io.k8s.api.discovery.v1.EndpointSlice",
        served: true,
        rules: &endpoints::EndpointSlice,
        ..CORE
    },
    Kind {
        group: "resource.k8s.io",
        kind: "DeviceClass",
        plural: "deviceclasses",
        singular: "deviceclass",
        storage: "DeviceClass.resource.k8s.io",
        type_name: "io.k8s.api.resource.v1.DeviceClass",
        ..CLUSTER
    },
    Kind {
        group: "resource.k8s.io",
        kind: "DeviceTaintRule",
        plural: "devicetaintrules",
        singular: "devicetaintrule",
        subresources: &[STATUS],
        storage: "DeviceTaintRule.resource.k8s.io",
        type_name: "io.k8s.api.resource.v1.DeviceTaintRule",
        ..CLUSTER
    },
    Kind {
        group: "resource.k8s.io",
        kind: "ResourceClaim",
        plural: "resourceclaims",
        singular: "resourceclaim",
        subresources: &[STATUS],
        storage: "ResourceClaim.resource.k8s.io",
        type_name: "io.k8s.api.resource.v1.ResourceClaim",
        ..CORE
    },
    Kind {
        group: "resource.k8s.io",
        kind: "ResourceClaimTemplate",
        plural: "resourceclaimtemplates",
        singular: "resourceclaimtemplate",
        storage: "ResourceClaimTemplate.resource.k8s.io",
        type_name: "io.k8s.api.resource.v1.ResourceClaimTemplate",
        ..CORE
    },
    Kind {
        group: "resource.k8s.io",
        kind: "ResourceSlice",
        plural: "resourceslices",
        singular: "resourceslice",
        storage: "ResourceSlice.resource.k8s.io",
        type_name: "io.k8s.api.resource.v1.ResourceSlice",
        ..CLUSTER
    },
    Kind {
        group: "flowcontrol.apiserver.k8s.io",
        kind: "FlowSchema",
        plural: "flowschemas",
        singular: "flowschema",
        subresources: &[STATUS],
        storage: "FlowSchema.flowcontrol.apiserver.k8s.io",
        type_name: "io.k8s.api.flowcontrol.v1.FlowSchema",
        ..CLUSTER
    },
    Kind {
        group: "flowcontrol.apiserver.k8s.io",
        kind: "PriorityLevelConfiguration",
        plural: "prioritylevelconfigurations",
        singular: "prioritylevelconfiguration",
        subresources: &[STATUS],
        storage: "PriorityLevelConfiguration.flowcontrol.apiserver.k8s.io",
        type_name: "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
        ..CLUSTER
    },
    Kind {
        group: "storagemigration.k8s.io",
        kind: "StorageVersionMigration",
        plural: "storageversionmigrations",
        singular: "storageversionmigration",
        subresources: &[STATUS],
        storage: "StorageVersionMigration.storagemigration.k8s.io",
        type_name: "io.k8s.api.storagemigration.v1.StorageVersionMigration",
        ..CLUSTER
    },
];

/// Kinds of our own, which no client is shown: see [`crate::allotment`] and [`crate::membership`].
pub(super) static OWN: &[Kind] = &[
    Kind {
        kind: "Allotment",
        plural: "allotments",
        singular: "allotment",
        subresources: &[sub("reserve", CREATE)],
        storage: crate::allotment::STORAGE,
        type_name: "io.beemesh.v1.Allotment",
        ..OURS
    },
    Kind {
        kind: "Founding",
        plural: "foundings",
        singular: "founding",
        storage: membership::FOUNDING,
        type_name: "io.beemesh.v1.Founding",
        rules: &membership::FoundingRules,
        ..OURS
    },
    Kind {
        kind: "Member",
        plural: "members",
        singular: "member",
        storage: membership::MEMBER,
        type_name: "io.beemesh.v1.Member",
        rules: &membership::MemberRules,
        ..OURS
    },
    Kind {
        kind: "Revocation",
        plural: "revocations",
        singular: "revocation",
        storage: membership::REVOCATION,
        type_name: "io.beemesh.v1.Revocation",
        rules: &membership::RevocationRules,
        ..OURS
    },
    Kind {
        kind: "Ticket",
        plural: "tickets",
        singular: "ticket",
        storage: membership::TICKET,
        type_name: "io.beemesh.v1.Ticket",
        rules: &membership::TicketRules,
        ..OURS
    },
    Kind {
        kind: "TokenKeys",
        plural: "tokenkeys",
        singular: "tokenkeys",
        storage: membership::TOKEN_KEYS,
        type_name: "io.beemesh.v1.TokenKeys",
        rules: &membership::TokenKeysRules,
        ..OURS
    },
];
const OURS: Kind = Kind { group: membership::GROUP, ..CLUSTER };

/// Kinds that only ever are the body of a subresource.
pub static BODIES: &[Kind] = &[
    Kind {
        group: "autoscaling",
        kind: "Scale",
        storage: "Scale.autoscaling",
        type_name: "io.k8s.api.autoscaling.v1.Scale",
        rules: &small::Scale,
        ..BODY
    },
    Kind {
        group: "policy",
        kind: "Eviction",
        storage: "Eviction.policy",
        type_name: "io.k8s.api.policy.v1.Eviction",
        rules: &small::Eviction,
        ..BODY
    },
    Kind {
        group: "authentication.k8s.io",
        kind: "TokenRequest",
        storage: "TokenRequest.authentication.k8s.io",
        type_name: "io.k8s.api.authentication.v1.TokenRequest",
        rules: &small::TokenRequest,
        ..BODY
    },
];
const BODY: Kind = Kind { home: Home::Nowhere, verbs: &[], ..CORE };

#[cfg(test)]
mod tests {
    use super::super::{by_api_version, by_kind, by_resource, by_storage};
    use super::*;

    #[test]
    fn a_kind_is_found_by_resource_kind_and_storage() {
        let deployments = by_resource("apps", "v1", "deployments").map(|k| k.kind);
        assert_eq!(deployments, Some("Deployment"));
        assert_eq!(by_kind("", "v1", "Pod").map(|k| k.plural), Some("pods"));
        assert_eq!(by_api_version("events.k8s.io/v1", "Event").map(|k| k.storage), Some("Event"));
        assert_eq!(by_storage("Event").map(|k| k.group), Some(""));
        assert!(by_resource("apps", "v1", "pods").is_none());
    }

    #[test]
    fn every_row_is_whole_and_its_own() {
        for (i, kind) in KINDS.iter().chain(OWN).enumerate() {
            assert!(!kind.kind.is_empty() && !kind.storage.is_empty() && !kind.type_name.is_empty(), "{kind:?}");
            assert_eq!(
                kind.namespaced,
                matches!(kind.home, Home::Namespace) || (kind.home == Home::Nowhere && kind.namespaced)
            );
            let twin = KINDS
                .iter()
                .skip(i + 1)
                .find(|k| k.group == kind.group && k.version == kind.version && k.plural == kind.plural);
            assert!(twin.is_none(), "{kind:?}");
        }
    }
}
