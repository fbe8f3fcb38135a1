//! The rules of the default roles, as data.

/// One policy rule.
pub struct Rule {
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// API groups; empty for a rule about paths.
    pub groups: &'static [&'static str],
    /// Resources, or paths when there are no groups.
    pub resources: &'static [&'static str],
    /// Names, if the rule is about certain objects only.
    pub names: &'static [&'static str],
}

/// One ClusterRole and who has it.
pub struct Role {
    /// Its name.
    pub name: &'static str,
    /// The role it is added to, by label.
    pub part_of: Option<&'static str>,
    /// Its rules.
    pub rules: &'static [Rule],
    /// Users bound to it.
    pub users: &'static [&'static str],
    /// Groups bound to it.
    pub groups: &'static [&'static str],
}

/// A rule about resources.
pub const fn r(
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
) -> Rule {
    Rule { verbs, groups, resources, names: &[] }
}

/// A rule about certain objects.
pub const fn named(
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
    names: &'static [&'static str],
) -> Rule {
    Rule { verbs, groups, resources, names }
}

const fn paths(paths: &'static [&'static str]) -> Rule {
    r(&["get"], &[], paths)
}

const fn role(name: &'static str, rules: &'static [Rule]) -> Role {
    Role { name, part_of: None, rules, users: &[], groups: &[] }
}

impl Role {
    const fn bound_to_users(self, users: &'static [&'static str]) -> Self {
        Self { users, ..self }
    }

    const fn bound_to_groups(self, groups: &'static [&'static str]) -> Self {
        Self { groups, ..self }
    }

    const fn in_role(self, name: &'static str) -> Self {
        Self { part_of: Some(name), ..self }
    }
}

const ANY: &[&str] = &["*"];
const CORE: &[&str] = &[""];
const APPS: &[&str] = &["apps"];
const BATCH: &[&str] = &["batch"];
const POLICY: &[&str] = &["policy"];
const NET: &[&str] = &["networking.k8s.io"];
const SLICES: &[&str] = &["discovery.k8s.io"];
const LEASES: &[&str] = &["coordination.k8s.io"];
const STORAGE: &[&str] = &["storage.k8s.io"];
const AUTHN: &[&str] = &["authentication.k8s.io"];
const AUTHZ: &[&str] = &["authorization.k8s.io"];
const RBAC: &[&str] = &["rbac.authorization.k8s.io"];
const CERTS: &[&str] = &["certificates.k8s.io"];
const RESOURCE: &[&str] = &["resource.k8s.io"];
const INTERNAL: &[&str] = &["internal.apiserver.k8s.io"];
const ADMISSION: &[&str] = &["admissionregistration.k8s.io"];
const SCALING: &[&str] = &["autoscaling"];

const READ: &[&str] = &["get", "list", "watch"];
const FOLLOW: &[&str] = &["list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const BOTH: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const APPROVE: &[&str] = &["approve"];
const CHANGE: &[&str] = &["patch", "update"];

/// Writing events.
pub const EVENTS: Rule = r(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]);
const TOKEN_REVIEW: Rule = r(CREATE, AUTHN, &["tokenreviews"]);
const ACCESS_REVIEW: Rule = r(CREATE, AUTHZ, &["subjectaccessreviews"]);

const HEALTH: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// Roles for people and for processes that are not controllers.
pub const ROLES: &[Role] = &[
    role("cluster-admin", &[r(ANY, ANY, ANY), r(ANY, &[], ANY)]).bound_to_groups(&["system:masters"]),
    role(
        "system:discovery",
        &[paths(&[
            "/api",
            "/api/*",
            "/apis",
            "/apis/*",
            "/healthz",
            "/livez",
            "/openapi",
            "/openapi/*",
            "/readyz",
            "/version",
            "/version/",
        ])],
    )
    .bound_to_groups(&["system:authenticated"]),
    role(
        "system:basic-user",
        &[
            r(CREATE, AUTHZ, &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
            r(CREATE, AUTHN, &["selfsubjectreviews"]),
        ],
    )
    .bound_to_groups(&["system:authenticated"]),
    role("system:public-info-viewer", &[paths(HEALTH)])
        .bound_to_groups(&["system:authenticated", "system:unauthenticated"]),
    role(
        "system:monitoring",
        &[paths(&[
            "/healthz",
            "/healthz/*",
            "/livez",
            "/livez/*",
            "/metrics",
            "/metrics/slis",
            "/readyz",
            "/readyz/*",
        ])],
    )
    .bound_to_groups(&["system:monitoring"]),
    role(
        "system:service-account-issuer-discovery",
        &[paths(&[
            "/.well-known/openid-configuration",
            "/.well-known/openid-configuration/",
            "/openid/v1/jwks",
            "/openid/v1/jwks/",
        ])],
    )
    .bound_to_groups(&["system:serviceaccounts"]),
    role("system:auth-delegator", &[TOKEN_REVIEW, ACCESS_REVIEW]),
    role(
        "system:kubelet-api-admin",
        &[
            r(READ, CORE, &["nodes"]),
            r(&["proxy"], CORE, &["nodes"]),
            r(
                ANY,
                CORE,
                &[
                    "nodes/configz",
                    "nodes/healthz",
                    "nodes/log",
                    "nodes/metrics",
                    "nodes/pods",
                    "nodes/proxy",
                    "nodes/stats",
                ],
            ),
        ],
    ),
    role("system:node-bootstrapper", &[r(&["create", "get", "list", "watch"], CERTS, &["certificatesigningrequests"])]),
    // The Node authorizer decides for nodes; the role is there for those who bind it themselves.
    role("system:node", NODE),
    role("system:node-proxier", PROXY).bound_to_users(&["system:kube-proxy"]),
    role("system:kube-proxy", PROXY).bound_to_users(&["system:kube-proxy"]),
    role("system:kube-scheduler", SCHEDULER).bound_to_users(&["system:kube-scheduler"]),
    role(
        "system:volume-scheduler",
        &[
            r(&["get", "list", "patch", "update", "watch"], CORE, &["persistentvolumes"]),
            r(READ, STORAGE, &["storageclasses"]),
            r(&["get", "list", "patch", "update", "watch"], CORE, &["persistentvolumeclaims"]),
        ],
    )
    .bound_to_users(&["system:kube-scheduler"]),
    role("system:kube-controller-manager", MANAGER).bound_to_users(&["system:kube-controller-manager"]),
    role("system:kube-aggregator", &[r(READ, CORE, &["endpoints", "services"])]),
    role("system:kube-dns", &[r(FOLLOW, CORE, &["endpoints", "services"])]),
    role(
        "system:cluster-dns",
        &[r(READ, CORE, &["namespaces", "nodes", "pods", "services"]), r(READ, SLICES, &["endpointslices"]), EVENTS],
    )
    .bound_to_users(&["system:cluster-dns"]),
    role(
        "system:pod-network",
        &[
            r(READ, CORE, &["namespaces", "nodes", "pods"]),
            r(CHANGE, CORE, &["nodes", "nodes/status"]),
            r(READ, NET, &["networkpolicies"]),
            EVENTS,
        ],
    )
    .bound_to_users(&["system:pod-network"]),
    role("system:announcer", &[r(FOLLOW, CORE, &["nodes", "services"]), r(FOLLOW, SLICES, &["endpointslices"])])
        .bound_to_users(&["system:announcer"]),
    role(
        "system:metal-controller-manager",
        &[
            r(READ, CORE, &["services"]),
            r(FOLLOW, SLICES, &["endpointslices"]),
            r(&["patch"], CORE, &["services/status"]),
            r(&["delete", "get", "list", "patch", "watch"], CORE, &["nodes"]),
            r(&["patch"], CORE, &["nodes/status"]),
            r(&["create", "delete", "get", "list", "update", "watch"], LEASES, &["leases"]),
            EVENTS,
        ],
    )
    .bound_to_users(&["system:metal-controller-manager"]),
    role(
        "system:node-problem-detector",
        &[r(&["get"], CORE, &["nodes"]), r(&["patch"], CORE, &["nodes/status"]), EVENTS],
    ),
    role(
        "system:persistent-volume-provisioner",
        &[
            r(&["create", "delete", "get", "list", "watch"], CORE, &["persistentvolumes"]),
            r(&["get", "list", "update", "watch"], CORE, &["persistentvolumeclaims"]),
            r(READ, STORAGE, &["storageclasses"]),
            r(&["watch"], CORE, &["events"]),
            EVENTS,
        ],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[r(CREATE, CERTS, &["certificatesigningrequests/nodeclient"])],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[r(CREATE, CERTS, &["certificatesigningrequests/selfnodeclient"])],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[named(APPROVE, CERTS, &["signers"], &["kubernetes.io/kube-apiserver-client"])],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[named(APPROVE, CERTS, &["signers"], &["kubernetes.io/kube-apiserver-client-kubelet"])],
    ),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[named(APPROVE, CERTS, &["signers"], &["kubernetes.io/kubelet-serving"])],
    ),
    role(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[named(APPROVE, CERTS, &["signers"], &["kubernetes.io/legacy-unknown"])],
    ),
    role("system:aggregate-to-admin", ADMIN).in_role("admin"),
    role("system:aggregate-to-edit", EDIT).in_role("edit"),
    role("system:aggregate-to-view", VIEW).in_role("view"),
];

const NODE: &[Rule] = &[
    TOKEN_REVIEW,
    r(CREATE, AUTHZ, &["localsubjectaccessreviews", "subjectaccessreviews"]),
    r(READ, CORE, &["services"]),
    r(&["create", "get", "list", "watch"], CORE, &["nodes"]),
    r(CHANGE, CORE, &["nodes", "nodes/status"]),
    EVENTS,
    r(READ, CORE, &["pods"]),
    r(&["create", "delete"], CORE, &["pods"]),
    r(CHANGE, CORE, &["pods/status"]),
    r(CREATE, CORE, &["pods/eviction"]),
    r(READ, CORE, &["configmaps", "secrets"]),
    r(&["get"], CORE, &["persistentvolumeclaims", "persistentvolumes"]),
    r(&["get"], CORE, &["endpoints"]),
    r(&["create", "get", "list", "watch"], CERTS, &["certificatesigningrequests"]),
    r(&["create", "delete", "get", "patch", "update"], LEASES, &["leases"]),
    r(&["get"], STORAGE, &["volumeattachments"]),
    r(CREATE, CORE, &["serviceaccounts/token"]),
    r(READ, STORAGE, &["csidrivers"]),
    r(&["create", "delete", "get", "patch", "update"], STORAGE, &["csinodes"]),
    r(READ, &["node.k8s.io"], &["runtimeclasses"]),
];

const PROXY: &[Rule] = &[
    r(FOLLOW, CORE, &["endpoints", "services"]),
    r(READ, CORE, &["nodes"]),
    EVENTS,
    r(FOLLOW, SLICES, &["endpointslices"]),
    r(FOLLOW, NET, &["servicecidrs"]),
];

const SCHEDULER: &[Rule] = &[
    EVENTS,
    r(CREATE, LEASES, &["leases"]),
    named(&["get", "list", "update", "watch"], LEASES, &["leases"], &["kube-scheduler"]),
    r(READ, CORE, &["nodes"]),
    r(&["delete", "get", "list", "watch"], CORE, &["pods"]),
    r(CREATE, CORE, &["bindings", "pods/binding"]),
    r(CHANGE, CORE, &["pods/status"]),
    r(READ, CORE, &["namespaces", "replicationcontrollers", "services"]),
    r(READ, APPS, &["replicasets", "statefulsets"]),
    r(READ, POLICY, &["poddisruptionbudgets"]),
    r(READ, CORE, &["persistentvolumeclaims", "persistentvolumes"]),
    TOKEN_REVIEW,
    ACCESS_REVIEW,
    r(READ, STORAGE, &["csidrivers", "csinodes", "csistoragecapacities", "storageclasses", "volumeattachments"]),
    r(READ, RESOURCE, &["deviceclasses", "resourceclaims", "resourceslices"]),
    r(CHANGE, RESOURCE, &["resourceclaims", "resourceclaims/status"]),
];

const MANAGER: &[Rule] = &[
    EVENTS,
    r(CREATE, LEASES, &["leases"]),
    named(&["get", "update"], LEASES, &["leases"], &["kube-controller-manager"]),
    r(CREATE, CORE, &["secrets", "serviceaccounts", "serviceaccounts/token"]),
    r(&["delete"], CORE, &["secrets"]),
    r(&["get"], CORE, &["configmaps", "namespaces", "secrets", "serviceaccounts"]),
    r(&["update"], CORE, &["secrets", "serviceaccounts"]),
    TOKEN_REVIEW,
    ACCESS_REVIEW,
    r(FOLLOW, ANY, ANY),
];

const ADMIN: &[Rule] = &[r(CREATE, AUTHZ, &["localsubjectaccessreviews"]), r(BOTH, RBAC, &["rolebindings", "roles"])];

const EDIT: &[Rule] = &[
    r(READ, CORE, &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"]),
    r(&["impersonate"], CORE, &["serviceaccounts"]),
    r(WRITE, CORE, &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
    r(CREATE, CORE, &["pods/eviction", "serviceaccounts/token"]),
    r(
        WRITE,
        CORE,
        &[
            "configmaps",
            "events",
            "persistentvolumeclaims",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "secrets",
            "serviceaccounts",
            "services",
            "services/proxy",
        ],
    ),
    r(
        WRITE,
        APPS,
        &[
            "daemonsets",
            "deployments",
            "deployments/rollback",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    r(WRITE, SCALING, &["horizontalpodautoscalers"]),
    r(WRITE, BATCH, &["cronjobs", "jobs"]),
    r(WRITE, POLICY, &["poddisruptionbudgets"]),
    r(WRITE, NET, &["ingresses", "networkpolicies"]),
    r(BOTH, LEASES, &["leases"]),
    r(WRITE, RESOURCE, &["resourceclaims", "resourceclaimtemplates"]),
];

const VIEW: &[Rule] = &[
    r(
        READ,
        CORE,
        &[
            "configmaps",
            "endpoints",
            "persistentvolumeclaims",
            "persistentvolumeclaims/status",
            "pods",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "serviceaccounts",
            "services",
            "services/status",
        ],
    ),
    r(
        READ,
        CORE,
        &[
            "bindings",
            "events",
            "limitranges",
            "namespaces/status",
            "pods/log",
            "pods/status",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
        ],
    ),
    r(READ, CORE, &["namespaces"]),
    r(READ, SLICES, &["endpointslices"]),
    r(
        READ,
        APPS,
        &[
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
    ),
    r(READ, SCALING, &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    r(READ, BATCH, &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    r(READ, POLICY, &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    r(READ, NET, &["ingresses", "ingresses/status", "networkpolicies"]),
    r(READ, RESOURCE, &["resourceclaims", "resourceclaims/status", "resourceclaimtemplates"]),
];

/// Controllers: `system:controller:<name>`, for the service account of that name in kube-system and for the manager that runs them all.
/// Those of cloud providers and of other distributions' managers are there too, as clusters have them by default.
pub const CONTROLLERS: &[(&str, &[Rule])] = &[
    (
        "namespace-controller",
        &[
            r(&["delete", "get", "list", "watch"], CORE, &["namespaces"]),
            r(&["update"], CORE, &["namespaces/finalize", "namespaces/status"]),
            r(&["delete", "deletecollection", "get", "list"], ANY, ANY),
        ],
    ),
    ("service-account-controller", &[r(CREATE, CORE, &["serviceaccounts"]), EVENTS]),
    ("root-ca-cert-publisher", &[r(&["create", "update"], CORE, &["configmaps"]), EVENTS]),
    ("generic-garbage-collector", &[r(&["delete", "get", "list", "patch", "update", "watch"], ANY, ANY), EVENTS]),
    (
        "replicaset-controller",
        &[
            r(&["get", "list", "update", "watch"], APPS, &["replicasets"]),
            r(&["update"], APPS, &["replicasets/finalizers", "replicasets/status"]),
            r(&["create", "delete", "list", "patch", "watch"], CORE, &["pods"]),
            EVENTS,
        ],
    ),
    (
        "replication-controller",
        &[
            r(&["get", "list", "update", "watch"], CORE, &["replicationcontrollers"]),
            r(&["update"], CORE, &["replicationcontrollers/finalizers", "replicationcontrollers/status"]),
            r(&["create", "delete", "list", "patch", "watch"], CORE, &["pods"]),
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            r(&["get", "list", "update", "watch"], APPS, &["deployments"]),
            r(&["update"], APPS, &["deployments/finalizers", "deployments/status"]),
            r(&["create", "delete", "get", "list", "patch", "update", "watch"], APPS, &["replicasets"]),
            r(&["get", "list", "update", "watch"], CORE, &["pods"]),
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            r(READ, CORE, &["pods", "services"]),
            r(&["create", "delete", "get", "list", "update"], CORE, &["endpoints"]),
            r(CREATE, CORE, &["endpoints/restricted"]),
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            r(READ, CORE, &["nodes", "pods", "services"]),
            r(&["update"], CORE, &["services/finalizers"]),
            r(&["create", "delete", "get", "list", "update"], SLICES, &["endpointslices"]),
            EVENTS,
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            r(READ, CORE, &["endpoints", "services"]),
            r(&["update"], CORE, &["endpoints/finalizers", "services/finalizers"]),
            r(&["create", "delete", "get", "list", "update"], SLICES, &["endpointslices"]),
            EVENTS,
        ],
    ),
    (
        "node-controller",
        &[
            r(&["delete", "get", "list", "patch", "update", "watch"], CORE, &["nodes"]),
            r(CHANGE, CORE, &["nodes/status"]),
            r(CHANGE, CORE, &["pods/status"]),
            r(&["delete", "get", "list", "watch"], CORE, &["pods"]),
            r(READ, LEASES, &["leases"]),
            EVENTS,
        ],
    ),
    (
        "pod-garbage-collector",
        &[
            r(&["delete", "list", "watch"], CORE, &["pods"]),
            r(&["get", "list"], CORE, &["nodes"]),
            r(CHANGE, CORE, &["pods/status"]),
        ],
    ),
    (
        "daemon-set-controller",
        &[
            r(READ, APPS, &["daemonsets"]),
            r(&["update"], APPS, &["daemonsets/finalizers", "daemonsets/status"]),
            r(FOLLOW, CORE, &["nodes"]),
            r(&["create", "delete", "list", "patch", "watch"], CORE, &["pods"]),
            r(CREATE, CORE, &["pods/binding"]),
            r(&["create", "delete", "get", "list", "patch", "update", "watch"], APPS, &["controllerrevisions"]),
            EVENTS,
        ],
    ),
    (
        "statefulset-controller",
        &[
            r(FOLLOW, CORE, &["pods"]),
            r(READ, APPS, &["statefulsets"]),
            r(&["update"], APPS, &["statefulsets/finalizers", "statefulsets/status"]),
            r(&["create", "delete", "get", "patch", "update"], CORE, &["pods"]),
            r(&["create", "delete", "get", "list", "patch", "update", "watch"], APPS, &["controllerrevisions"]),
            r(&["create", "delete", "get", "list", "update", "watch"], CORE, &["persistentvolumeclaims"]),
            EVENTS,
        ],
    ),
    (
        "job-controller",
        &[
            r(&["get", "list", "patch", "update", "watch"], BATCH, &["jobs"]),
            r(&["update"], BATCH, &["jobs/finalizers", "jobs/status"]),
            r(&["create", "delete", "list", "patch", "watch"], CORE, &["pods"]),
            EVENTS,
        ],
    ),
    (
        "cronjob-controller",
        &[
            r(&["get", "list", "update", "watch"], BATCH, &["cronjobs"]),
            r(&["create", "delete", "get", "list", "patch", "update", "watch"], BATCH, &["jobs"]),
            r(&["update"], BATCH, &["cronjobs/finalizers", "cronjobs/status"]),
            r(&["delete", "list", "watch"], CORE, &["pods"]),
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            r(READ, APPS, &["deployments", "replicasets", "statefulsets"]),
            r(READ, CORE, &["replicationcontrollers"]),
            r(READ, POLICY, &["poddisruptionbudgets"]),
            r(&["update"], POLICY, &["poddisruptionbudgets/status"]),
            r(CHANGE, CORE, &["pods/status"]),
            r(&["get"], ANY, &["*/scale"]),
            EVENTS,
        ],
    ),
    (
        "resourcequota-controller",
        &[r(&["list", "watch"], ANY, ANY), r(&["update"], CORE, &["resourcequotas/status"]), EVENTS],
    ),
    ("ttl-after-finished-controller", &[r(&["delete", "get", "list", "watch"], BATCH, &["jobs"]), EVENTS]),
    (
        "certificate-controller",
        &[
            r(&["delete", "get", "list", "watch"], CERTS, &["certificatesigningrequests"]),
            r(&["update"], CERTS, &["certificatesigningrequests/approval", "certificatesigningrequests/status"]),
            named(&["approve"], CERTS, &["signers"], &["kubernetes.io/kube-apiserver-client-kubelet"]),
            named(
                &["sign"],
                CERTS,
                &["signers"],
                &[
                    "kubernetes.io/kube-apiserver-client",
                    "kubernetes.io/kube-apiserver-client-kubelet",
                    "kubernetes.io/kubelet-serving",
                    "kubernetes.io/legacy-unknown",
                ],
            ),
            ACCESS_REVIEW,
            EVENTS,
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            r(&["create", "delete", "get", "list", "update", "watch"], CORE, &["persistentvolumes"]),
            r(&["update"], CORE, &["persistentvolumes/status"]),
            r(&["get", "list", "update", "watch"], CORE, &["persistentvolumeclaims"]),
            r(&["update"], CORE, &["persistentvolumeclaims/status"]),
            r(READ, CORE, &["nodes", "pods"]),
            r(READ, STORAGE, &["storageclasses"]),
            EVENTS,
        ],
    ),
    (
        "expand-controller",
        &[
            r(&["get", "list", "patch", "update", "watch"], CORE, &["persistentvolumes"]),
            r(CHANGE, CORE, &["persistentvolumeclaims/status"]),
            r(READ, CORE, &["persistentvolumeclaims"]),
            EVENTS,
        ],
    ),
    (
        "ephemeral-volume-controller",
        &[
            r(READ, CORE, &["pods"]),
            r(&["update"], CORE, &["pods/finalizers"]),
            r(&["create", "get", "list", "watch"], CORE, &["persistentvolumeclaims"]),
            EVENTS,
        ],
    ),
    (
        "horizontal-pod-autoscaler",
        &[
            r(READ, SCALING, &["horizontalpodautoscalers"]),
            r(&["update"], SCALING, &["horizontalpodautoscalers/status"]),
            r(&["get", "update"], ANY, &["*/scale"]),
            r(&["list"], CORE, &["pods"]),
            r(&["list"], &["metrics.k8s.io"], &["pods"]),
            r(&["get", "list"], &["custom.metrics.k8s.io", "external.metrics.k8s.io"], ANY),
            EVENTS,
        ],
    ),
    ("token-cleaner", &[r(&["delete", "get", "list", "watch"], CORE, &["secrets"]), EVENTS]),
    (
        "bootstrap-signer",
        &[r(READ, CORE, &["secrets"]), r(&["get", "list", "patch", "update", "watch"], CORE, &["configmaps"]), EVENTS],
    ),
    (
        "service-cidrs-controller",
        &[
            r(&["get", "list", "patch", "update", "watch"], NET, &["servicecidrs"]),
            r(CHANGE, NET, &["servicecidrs/finalizers", "servicecidrs/status"]),
            r(READ, NET, &["ipaddresses"]),
            EVENTS,
        ],
    ),
    (
        "pvc-protection-controller",
        &[
            r(&["get", "list", "patch", "update", "watch"], CORE, &["persistentvolumeclaims"]),
            r(READ, CORE, &["pods"]),
            EVENTS,
        ],
    ),
    (
        "pv-protection-controller",
        &[r(&["get", "list", "patch", "update", "watch"], CORE, &["persistentvolumes"]), EVENTS],
    ),
    (
        "attachdetach-controller",
        &[
            r(FOLLOW, CORE, &["persistentvolumeclaims", "persistentvolumes"]),
            r(READ, CORE, &["nodes"]),
            r(&["patch", "update"], CORE, &["nodes/status"]),
            r(FOLLOW, CORE, &["pods"]),
            r(&["create", "delete", "get", "list", "watch"], STORAGE, &["volumeattachments"]),
            r(READ, STORAGE, &["csidrivers"]),
            r(READ, STORAGE, &["csinodes"]),
            EVENTS,
        ],
    ),
    (
        "volumeattributesclass-protection-controller",
        &[
            r(READ, CORE, &["persistentvolumeclaims", "persistentvolumes"]),
            r(&["get", "list", "patch", "update", "watch"], STORAGE, &["volumeattributesclasses"]),
            EVENTS,
        ],
    ),
    (
        "resource-claim-controller",
        &[
            r(READ, CORE, &["pods"]),
            r(&["update"], CORE, &["pods/finalizers"]),
            r(&["create", "delete", "get", "list", "patch", "update", "watch"], RESOURCE, &["resourceclaims"]),
            r(READ, RESOURCE, &["resourceclaimtemplates"]),
            r(CHANGE, RESOURCE, &["resourceclaims/status"]),
            r(CHANGE, CORE, &["pods/status"]),
            EVENTS,
        ],
    ),
    (
        "storage-version-garbage-collector",
        &[
            r(READ, LEASES, &["leases"]),
            r(&["delete", "get", "list", "watch"], INTERNAL, &["storageversions"]),
            r(&["get", "update"], INTERNAL, &["storageversions/status"]),
        ],
    ),
    (
        "validatingadmissionpolicy-status-controller",
        &[
            r(READ, ADMISSION, &["validatingadmissionpolicies"]),
            r(&["get", "patch", "update"], ADMISSION, &["validatingadmissionpolicies/status"]),
            EVENTS,
        ],
    ),
    ("ttl-controller", &[r(&["list", "patch", "update", "watch"], CORE, &["nodes"]), EVENTS]),
    ("route-controller", &[r(FOLLOW, CORE, &["nodes"]), r(&["patch"], CORE, &["nodes/status"]), EVENTS]),
    (
        "service-controller",
        &[r(READ, CORE, &["services"]), r(CHANGE, CORE, &["services/status"]), r(FOLLOW, CORE, &["nodes"]), EVENTS],
    ),
    (
        "legacy-service-account-token-cleaner",
        &[
            named(&["get"], CORE, &["configmaps"], &["kube-apiserver-legacy-service-account-token-tracking"]),
            r(&["list"], CORE, &["pods"]),
            r(&["delete", "patch"], CORE, &["secrets"]),
        ],
    ),
    (
        "selinux-warning-controller",
        &[
            r(READ, CORE, &["persistentvolumeclaims", "persistentvolumes", "pods"]),
            r(READ, STORAGE, &["csidrivers"]),
            EVENTS,
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[r(&["escalate", "get", "list", "patch", "update", "watch"], RBAC, &["clusterroles"])],
    ),
];
