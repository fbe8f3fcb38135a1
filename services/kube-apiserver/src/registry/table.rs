//! The resource table: everything this server serves, one row each. Discovery, OpenAPI, routing and storage read it; nothing else
//! knows which kinds there are. Order is the order clients see: core first, then groups as discovery lists them.

use super::strategy::{
    autoscaling, batch, certificate, config, csi, device, endpoints, event, extension, flow, kind, namespace, network,
    node, plain, pod, quota, rbac, service, serviceaccount, volume, workload,
};
use super::{Resource, Strategy, Subresource, Verb};

use Verb::{Create, Delete, DeleteCollection, Get, List, Patch, Update, Watch};

const ALL: &[Verb] = &[Create, Delete, DeleteCollection, Get, List, Patch, Update, Watch];
const NO_COLLECTION_DELETE: &[Verb] = &[Create, Delete, Get, List, Patch, Update, Watch];
const CREATE: &[Verb] = &[Create];
const GET: &[Verb] = &[Get];
const PART: &[Verb] = &[Get, Patch, Update];
const CONNECT: &[Verb] = &[Create, Get];
const READ: &[Verb] = &[Get, List];
const PROXY: &[Verb] = &[Create, Delete, Get, Patch, Update];
const IN_ALL: &[&str] = &["all"];
const IN_EXTENSIONS: &[&str] = &["api-extensions"];

static REVIEW: kind::Kind = kind::Kind::BASE;

/// Every row.
pub fn table() -> &'static [Resource] {
    TABLE
}

/// One group and version, from which rows are made.
struct Gv(&'static str, &'static str);

impl Gv {
    const fn row(
        &self,
        plural: &'static str,
        singular: &'static str,
        kind: &'static str,
        strategy: &'static dyn Strategy,
    ) -> Resource {
        Resource {
            group: self.0,
            version: self.1,
            plural,
            singular,
            kind,
            namespaced: true,
            short_names: &[],
            categories: &[],
            verbs: ALL,
            subresources: &[],
            storage: plural,
            strategy,
            virtual_: false,
        }
    }

    /// Created, answered, never stored.
    const fn review(&self, plural: &'static str, singular: &'static str, kind: &'static str) -> Resource {
        Resource { verbs: CREATE, virtual_: true, ..self.row(plural, singular, kind, &REVIEW) }
    }

    const fn sub(&self, name: &'static str, kind: &'static str, verbs: &'static [Verb]) -> Subresource {
        Subresource { name, group: self.0, version: self.1, kind, verbs }
    }
}

impl Resource {
    const fn cluster(self) -> Self {
        Self { namespaced: false, ..self }
    }

    const fn short(self, short_names: &'static [&'static str]) -> Self {
        Self { short_names, ..self }
    }

    const fn in_all(self) -> Self {
        Self { categories: IN_ALL, ..self }
    }

    const fn extends(self) -> Self {
        Self { categories: IN_EXTENSIONS, ..self }
    }

    const fn subs(self, subresources: &'static [Subresource]) -> Self {
        Self { subresources, ..self }
    }

    const fn at(self, storage: &'static str) -> Self {
        Self { storage, ..self }
    }

    const fn verbs(self, verbs: &'static [Verb]) -> Self {
        Self { verbs, ..self }
    }
}

const CORE: Gv = Gv("", "v1");
const ADMISSION: Gv = Gv("admissionregistration.k8s.io", "v1");
const AGGREGATION: Gv = Gv("apiregistration.k8s.io", "v1");
const APPS: Gv = Gv("apps", "v1");
const AUTHN: Gv = Gv("authentication.k8s.io", "v1");
const AUTHZ: Gv = Gv("authorization.k8s.io", "v1");
const AUTOSCALING: Gv = Gv("autoscaling", "v2");
const AUTOSCALING_V1: Gv = Gv("autoscaling", "v1");
const BATCH: Gv = Gv("batch", "v1");
const CERTS: Gv = Gv("certificates.k8s.io", "v1");
const COORD: Gv = Gv("coordination.k8s.io", "v1");
const DISCOVERY: Gv = Gv("discovery.k8s.io", "v1");
const EVENTS: Gv = Gv("events.k8s.io", "v1");
const EXTENSIONS: Gv = Gv("apiextensions.k8s.io", "v1");
const FLOW: Gv = Gv("flowcontrol.apiserver.k8s.io", "v1");
const NET: Gv = Gv("networking.k8s.io", "v1");
const NODE: Gv = Gv("node.k8s.io", "v1");
const POLICY: Gv = Gv("policy", "v1");
const RBAC: Gv = Gv("rbac.authorization.k8s.io", "v1");
const RESOURCE: Gv = Gv("resource.k8s.io", "v1");
const SCHED: Gv = Gv("scheduling.k8s.io", "v1");
const STORAGE: Gv = Gv("storage.k8s.io", "v1");
const SCALE: Subresource = AUTOSCALING_V1.sub("scale", "Scale", PART);

static POD_SUBS: &[Subresource] = &[
    CORE.sub("attach", "PodAttachOptions", CONNECT),
    CORE.sub("binding", "Binding", CREATE),
    CORE.sub("ephemeralcontainers", "Pod", PART),
    POLICY.sub("eviction", "Eviction", CREATE),
    CORE.sub("exec", "PodExecOptions", CONNECT),
    CORE.sub("log", "Pod", GET),
    CORE.sub("portforward", "PodPortForwardOptions", CONNECT),
    CORE.sub("proxy", "PodProxyOptions", PROXY),
    CORE.sub("resize", "Pod", PART),
    CORE.sub("status", "Pod", PART),
];

static TABLE: &[Resource] = &[
    CORE.row("bindings", "binding", "Binding", &REVIEW).verbs(CREATE).virtual_row(),
    CORE.row("componentstatuses", "componentstatus", "ComponentStatus", &plain::COMPONENT_STATUS)
        .cluster()
        .short(&["cs"])
        .verbs(READ)
        .virtual_row(),
    CORE.row("configmaps", "configmap", "ConfigMap", &config::CONFIG_MAP).short(&["cm"]),
    CORE.row("endpoints", "endpoints", "Endpoints", &endpoints::ENDPOINTS).short(&["ep"]).at("services/endpoints"),
    CORE.row("events", "event", "Event", &event::EVENT).short(&["ev"]),
    CORE.row("limitranges", "limitrange", "LimitRange", &quota::LIMIT_RANGE).short(&["limits"]),
    CORE.row("namespaces", "namespace", "Namespace", &namespace::NAMESPACE)
        .cluster()
        .short(&["ns"])
        .verbs(NO_COLLECTION_DELETE)
        .subs(&[CORE.sub("finalize", "Namespace", &[Update]), CORE.sub("status", "Namespace", PART)]),
    CORE.row("nodes", "node", "Node", &node::NODE)
        .cluster()
        .short(&["no"])
        .at("minions")
        .subs(&[CORE.sub("proxy", "NodeProxyOptions", PROXY), CORE.sub("status", "Node", PART)]),
    CORE.row(
        "persistentvolumeclaims",
        "persistentvolumeclaim",
        "PersistentVolumeClaim",
        &volume::PERSISTENT_VOLUME_CLAIM,
    )
    .short(&["pvc"])
    .subs(&[CORE.sub("status", "PersistentVolumeClaim", PART)]),
    CORE.row("persistentvolumes", "persistentvolume", "PersistentVolume", &volume::PERSISTENT_VOLUME)
        .cluster()
        .short(&["pv"])
        .subs(&[CORE.sub("status", "PersistentVolume", PART)]),
    CORE.row("pods", "pod", "Pod", &pod::POD).short(&["po"]).in_all().subs(POD_SUBS),
    CORE.row("podtemplates", "podtemplate", "PodTemplate", &workload::POD_TEMPLATE),
    CORE.row(
        "replicationcontrollers",
        "replicationcontroller",
        "ReplicationController",
        &workload::REPLICATION_CONTROLLER,
    )
    .short(&["rc"])
    .in_all()
    .at("controllers")
    .subs(&[SCALE, CORE.sub("status", "ReplicationController", PART)]),
    CORE.row("resourcequotas", "resourcequota", "ResourceQuota", &quota::RESOURCE_QUOTA)
        .short(&["quota"])
        .subs(&[CORE.sub("status", "ResourceQuota", PART)]),
    CORE.row("secrets", "secret", "Secret", &config::SECRET),
    CORE.row("serviceaccounts", "serviceaccount", "ServiceAccount", &serviceaccount::SERVICE_ACCOUNT)
        .short(&["sa"])
        .subs(&[AUTHN.sub("token", "TokenRequest", CREATE)]),
    CORE.row("services", "service", "Service", &service::SERVICE)
        .short(&["svc"])
        .in_all()
        .at("services/specs")
        .subs(&[CORE.sub("proxy", "ServiceProxyOptions", PROXY), CORE.sub("status", "Service", PART)]),
    // what extends the API
    ADMISSION
        .row(
            "mutatingwebhookconfigurations",
            "mutatingwebhookconfiguration",
            "MutatingWebhookConfiguration",
            &extension::MUTATING_WEBHOOKS,
        )
        .cluster()
        .extends(),
    ADMISSION
        .row(
            "validatingadmissionpolicies",
            "validatingadmissionpolicy",
            "ValidatingAdmissionPolicy",
            &extension::ADMISSION_POLICY,
        )
        .cluster()
        .extends()
        .subs(&[ADMISSION.sub("status", "ValidatingAdmissionPolicy", PART)]),
    ADMISSION
        .row(
            "validatingadmissionpolicybindings",
            "validatingadmissionpolicybinding",
            "ValidatingAdmissionPolicyBinding",
            &extension::ADMISSION_POLICY_BINDING,
        )
        .cluster()
        .extends(),
    ADMISSION
        .row(
            "validatingwebhookconfigurations",
            "validatingwebhookconfiguration",
            "ValidatingWebhookConfiguration",
            &extension::VALIDATING_WEBHOOKS,
        )
        .cluster()
        .extends(),
    EXTENSIONS
        .row(
            "customresourcedefinitions",
            "customresourcedefinition",
            "CustomResourceDefinition",
            &extension::CUSTOM_RESOURCE_DEFINITION,
        )
        .cluster()
        .extends()
        .short(&["crd", "crds"])
        .at("apiextensions.k8s.io/customresourcedefinitions")
        .subs(&[EXTENSIONS.sub("status", "CustomResourceDefinition", PART)]),
    AGGREGATION
        .row("apiservices", "apiservice", "APIService", &extension::API_SERVICE)
        .cluster()
        .extends()
        .at("apiregistration.k8s.io/apiservices")
        .subs(&[AGGREGATION.sub("status", "APIService", PART)]),
    // apps
    APPS.row("controllerrevisions", "controllerrevision", "ControllerRevision", &workload::CONTROLLER_REVISION),
    APPS.row("daemonsets", "daemonset", "DaemonSet", &workload::DAEMON_SET).short(&["ds"]).in_all().subs(&[APPS.sub(
        "status",
        "DaemonSet",
        PART,
    )]),
    APPS.row("deployments", "deployment", "Deployment", &workload::DEPLOYMENT)
        .short(&["deploy"])
        .in_all()
        .subs(&[SCALE, APPS.sub("status", "Deployment", PART)]),
    APPS.row("replicasets", "replicaset", "ReplicaSet", &workload::REPLICA_SET)
        .short(&["rs"])
        .in_all()
        .subs(&[SCALE, APPS.sub("status", "ReplicaSet", PART)]),
    APPS.row("statefulsets", "statefulset", "StatefulSet", &workload::STATEFUL_SET)
        .short(&["sts"])
        .in_all()
        .subs(&[SCALE, APPS.sub("status", "StatefulSet", PART)]),
    // authentication and authorization: questions
    AUTHN.review("selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview").cluster(),
    AUTHN.review("tokenreviews", "tokenreview", "TokenReview").cluster(),
    AUTHZ.review("localsubjectaccessreviews", "localsubjectaccessreview", "LocalSubjectAccessReview"),
    AUTHZ.review("selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview").cluster(),
    AUTHZ.review("selfsubjectrulesreviews", "selfsubjectrulesreview", "SelfSubjectRulesReview").cluster(),
    AUTHZ.review("subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview").cluster(),
    // autoscaling
    AUTOSCALING
        .row(
            "horizontalpodautoscalers",
            "horizontalpodautoscaler",
            "HorizontalPodAutoscaler",
            &autoscaling::AUTOSCALER_V2,
        )
        .short(&["hpa"])
        .in_all()
        .subs(&[AUTOSCALING.sub("status", "HorizontalPodAutoscaler", PART)]),
    AUTOSCALING_V1
        .row(
            "horizontalpodautoscalers",
            "horizontalpodautoscaler",
            "HorizontalPodAutoscaler",
            &autoscaling::AUTOSCALER_V1,
        )
        .short(&["hpa"])
        .in_all()
        .subs(&[AUTOSCALING_V1.sub("status", "HorizontalPodAutoscaler", PART)]),
    // batch
    BATCH
        .row("cronjobs", "cronjob", "CronJob", &batch::CRON_JOB)
        .short(&["cj"])
        .in_all()
        .subs(&[BATCH.sub("status", "CronJob", PART)]),
    BATCH.row("jobs", "job", "Job", &batch::JOB).in_all().subs(&[BATCH.sub("status", "Job", PART)]),
    CERTS
        .row(
            "certificatesigningrequests",
            "certificatesigningrequest",
            "CertificateSigningRequest",
            &certificate::CERTIFICATE_SIGNING_REQUEST,
        )
        .cluster()
        .short(&["csr"])
        .subs(&[
            CERTS.sub("approval", "CertificateSigningRequest", PART),
            CERTS.sub("status", "CertificateSigningRequest", PART),
        ]),
    EVENTS.row("events", "event", "Event", &event::EVENT_V1).short(&["ev"]),
    COORD.row("leases", "lease", "Lease", &plain::LEASE),
    DISCOVERY.row("endpointslices", "endpointslice", "EndpointSlice", &endpoints::ENDPOINT_SLICE),
    FLOW.row("flowschemas", "flowschema", "FlowSchema", &flow::FLOW_SCHEMA).cluster().subs(&[FLOW.sub(
        "status",
        "FlowSchema",
        PART,
    )]),
    FLOW.row(
        "prioritylevelconfigurations",
        "prioritylevelconfiguration",
        "PriorityLevelConfiguration",
        &flow::PRIORITY_LEVEL,
    )
    .cluster()
    .subs(&[FLOW.sub("status", "PriorityLevelConfiguration", PART)]),
    // networking
    NET.row("ingressclasses", "ingressclass", "IngressClass", &network::INGRESS_CLASS).cluster(),
    NET.row("ingresses", "ingress", "Ingress", &network::INGRESS)
        .short(&["ing"])
        .at("ingress")
        .subs(&[NET.sub("status", "Ingress", PART)]),
    NET.row("ipaddresses", "ipaddress", "IPAddress", &network::IP_ADDRESS).cluster().short(&["ip"]),
    NET.row("networkpolicies", "networkpolicy", "NetworkPolicy", &network::NETWORK_POLICY).short(&["netpol"]),
    NET.row("servicecidrs", "servicecidr", "ServiceCIDR", &network::SERVICE_CIDR).cluster().subs(&[NET.sub(
        "status",
        "ServiceCIDR",
        PART,
    )]),
    NODE.row("runtimeclasses", "runtimeclass", "RuntimeClass", &plain::RUNTIME_CLASS).cluster(),
    POLICY
        .row("poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget", &plain::POD_DISRUPTION_BUDGET)
        .short(&["pdb"])
        .subs(&[POLICY.sub("status", "PodDisruptionBudget", PART)]),
    // RBAC
    RBAC.row("clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding", &rbac::CLUSTER_ROLE_BINDING).cluster(),
    RBAC.row("clusterroles", "clusterrole", "ClusterRole", &rbac::CLUSTER_ROLE).cluster(),
    RBAC.row("rolebindings", "rolebinding", "RoleBinding", &rbac::ROLE_BINDING),
    RBAC.row("roles", "role", "Role", &rbac::ROLE),
    SCHED.row("priorityclasses", "priorityclass", "PriorityClass", &plain::PRIORITY_CLASS).cluster().short(&["pc"]),
    // devices
    RESOURCE.row("deviceclasses", "deviceclass", "DeviceClass", &device::DEVICE_CLASS).cluster(),
    RESOURCE.row("resourceclaims", "resourceclaim", "ResourceClaim", &device::RESOURCE_CLAIM).subs(&[RESOURCE.sub(
        "status",
        "ResourceClaim",
        PART,
    )]),
    RESOURCE.row(
        "resourceclaimtemplates",
        "resourceclaimtemplate",
        "ResourceClaimTemplate",
        &device::RESOURCE_CLAIM_TEMPLATE,
    ),
    RESOURCE.row("resourceslices", "resourceslice", "ResourceSlice", &device::RESOURCE_SLICE).cluster(),
    // storage
    STORAGE.row("csidrivers", "csidriver", "CSIDriver", &csi::CSI_DRIVER).cluster(),
    STORAGE.row("csinodes", "csinode", "CSINode", &csi::CSI_NODE).cluster(),
    STORAGE.row("csistoragecapacities", "csistoragecapacity", "CSIStorageCapacity", &csi::CSI_STORAGE_CAPACITY),
    STORAGE.row("storageclasses", "storageclass", "StorageClass", &volume::STORAGE_CLASS).cluster().short(&["sc"]),
    STORAGE
        .row("volumeattachments", "volumeattachment", "VolumeAttachment", &csi::VOLUME_ATTACHMENT)
        .cluster()
        .subs(&[STORAGE.sub("status", "VolumeAttachment", PART)]),
    STORAGE
        .row("volumeattributesclasses", "volumeattributesclass", "VolumeAttributesClass", &csi::VOLUME_ATTRIBUTES_CLASS)
        .cluster()
        .short(&["vac"]),
];

impl Resource {
    /// Answered, never stored.
    const fn virtual_row(self) -> Self {
        Self { virtual_: true, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_do_not_collide() {
        let mut paths = BTreeSet::new();
        let mut places = BTreeSet::new();
        for r in table() {
            assert!(paths.insert((r.group, r.version, r.plural)), "{r:?} twice");
            // Events are one set of objects under two groups, autoscalers under two versions.
            let shared = r.group == "events.k8s.io" || (r.group, r.version) == ("autoscaling", "v1");
            assert!(r.virtual_ || places.insert(r.storage) || shared, "{r:?} shares its place");
            assert_eq!(r.virtual_, r.verbs == CREATE || r.verbs == READ, "{r:?}");
        }
    }

    #[test]
    fn short_names_mean_one_resource() {
        let mut names = BTreeSet::new();
        for r in table() {
            let again = r.group == "events.k8s.io" || (r.group, r.version) == ("autoscaling", "v1");
            for n in r.short_names.iter().filter(|_| !again) {
                assert!(names.insert(n), "{n} is ambiguous");
            }
        }
    }

    /// Our rows and upstream's, in the same words.
    fn ours() -> Vec<String> {
        let letters = |verbs: &[Verb]| {
            let mut list: Vec<char> = verbs
                .iter()
                .map(|v| match v {
                    DeleteCollection => 'D',
                    other => other.name().chars().next().unwrap_or_default(),
                })
                .collect();
            list.sort_unstable();
            list.into_iter().collect::<String>()
        };
        let rows = table().iter().map(|r| {
            let mut fields: Vec<&str> =
                r.strategy.selectable_fields(&serde_json::Value::Null).into_iter().map(|(name, _)| name).collect();
            fields.sort_unstable();
            let kind = |s: &Subresource| match (s.group, s.version) {
                own if own == (r.group, r.version) => s.kind.to_owned(),
                (group, version) => format!("{group}/{version}.{}", s.kind),
            };
            let mut subs: Vec<String> =
                r.subresources.iter().map(|s| format!("{}:{}:{}", s.name, kind(s), letters(s.verbs))).collect();
            subs.sort_unstable();
            let scope = if r.namespaced { "namespaced" } else { "cluster" };
            assert_eq!(r.singular, r.kind.to_lowercase());
            [
                r.api_version(),
                r.plural.into(),
                r.kind.into(),
                scope.into(),
                letters(r.verbs),
                r.short_names.join(","),
                r.categories.join(","),
                fields.join(","),
                subs.join(","),
            ]
            .join("\t")
        });
        rows.collect()
    }

    /// A difference names the row: the resource, verb, subresource or field that is missing or too many.
    #[test]
    fn the_surface_is_upstreams() {
        let wanted: BTreeSet<&str> =
            include_str!("../../tests/surface.tsv").lines().filter(|l| !l.starts_with('#')).collect();
        let ours = ours();
        let ours: BTreeSet<&str> = ours.iter().map(String::as_str).collect();
        let missing: Vec<_> = wanted.difference(&ours).collect();
        let surplus: Vec<_> = ours.difference(&wanted).collect();
        assert!(missing.is_empty() && surplus.is_empty(), "missing: {missing:#?}\nsurplus: {surplus:#?}");
    }

    #[test]
    fn every_kind_has_a_type() {
        let schemas = apimachinery::schema::builtin();
        for r in table() {
            assert!(schemas.kind(r.group, r.version, r.kind).is_some(), "{r:?}");
        }
    }
}
