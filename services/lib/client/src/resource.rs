//! The resources that Corten's own processes use, by name.

/// Where objects of one kind live in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resource<'a> {
    /// API group, empty for core.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Lower-case plural, as in paths.
    pub plural: &'a str,
    /// Kind, as in objects.
    pub kind: &'a str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

impl<'a> Resource<'a> {
    /// A resource of any group.
    pub const fn new(group: &'a str, version: &'a str, plural: &'a str, kind: &'a str, namespaced: bool) -> Self {
        Resource { group, version, plural, kind, namespaced }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The path of a collection or object: namespaces only where the resource has them and one is given.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>, subresource: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if let Some(namespace) = namespace.filter(|ns| self.namespaced && !ns.is_empty()) {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        for part in [Some(self.plural), name, subresource].into_iter().flatten() {
            path.push('/');
            path.push_str(part);
        }
        path
    }
}

const fn core(plural: &'static str, kind: &'static str, namespaced: bool) -> Resource<'static> {
    Resource::new("", "v1", plural, kind, namespaced)
}

const fn rbac(plural: &'static str, kind: &'static str, namespaced: bool) -> Resource<'static> {
    Resource::new("rbac.authorization.k8s.io", "v1", plural, kind, namespaced)
}

/// core/v1 Namespace.
pub const NAMESPACES: Resource = core("namespaces", "Namespace", false);
/// core/v1 Node.
pub const NODES: Resource = core("nodes", "Node", false);
/// core/v1 Pod.
pub const PODS: Resource = core("pods", "Pod", true);
/// core/v1 Service.
pub const SERVICES: Resource = core("services", "Service", true);
/// core/v1 Endpoints.
pub const ENDPOINTS: Resource = core("endpoints", "Endpoints", true);
/// core/v1 ConfigMap.
pub const CONFIGMAPS: Resource = core("configmaps", "ConfigMap", true);
/// core/v1 Secret.
pub const SECRETS: Resource = core("secrets", "Secret", true);
/// core/v1 ServiceAccount.
pub const SERVICEACCOUNTS: Resource = core("serviceaccounts", "ServiceAccount", true);
/// core/v1 Event.
pub const EVENTS: Resource = core("events", "Event", true);
/// core/v1 PersistentVolume.
pub const PERSISTENTVOLUMES: Resource = core("persistentvolumes", "PersistentVolume", false);
/// core/v1 PersistentVolumeClaim.
pub const PERSISTENTVOLUMECLAIMS: Resource = core("persistentvolumeclaims", "PersistentVolumeClaim", true);
/// discovery.k8s.io/v1 EndpointSlice.
pub const ENDPOINTSLICES: Resource = Resource::new("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true);
/// coordination.k8s.io/v1 Lease.
pub const LEASES: Resource = Resource::new("coordination.k8s.io", "v1", "leases", "Lease", true);
/// apps/v1 Deployment.
pub const DEPLOYMENTS: Resource = Resource::new("apps", "v1", "deployments", "Deployment", true);
/// apps/v1 ReplicaSet.
pub const REPLICASETS: Resource = Resource::new("apps", "v1", "replicasets", "ReplicaSet", true);
/// rbac.authorization.k8s.io/v1 Role.
pub const ROLES: Resource = rbac("roles", "Role", true);
/// rbac.authorization.k8s.io/v1 RoleBinding.
pub const ROLEBINDINGS: Resource = rbac("rolebindings", "RoleBinding", true);
/// rbac.authorization.k8s.io/v1 ClusterRole.
pub const CLUSTERROLES: Resource = rbac("clusterroles", "ClusterRole", false);
/// rbac.authorization.k8s.io/v1 ClusterRoleBinding.
pub const CLUSTERROLEBINDINGS: Resource = rbac("clusterrolebindings", "ClusterRoleBinding", false);
/// authorization.k8s.io/v1 SubjectAccessReview.
pub const SUBJECTACCESSREVIEWS: Resource =
    Resource::new("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", false);
/// authentication.k8s.io/v1 TokenReview.
pub const TOKENREVIEWS: Resource = Resource::new("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", false);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_api_conventions() {
        assert_eq!(PODS.path(Some("a"), Some("p"), Some("log")), "/api/v1/namespaces/a/pods/p/log");
        assert_eq!(PODS.path(None, None, None), "/api/v1/pods");
        assert_eq!(NODES.path(Some("ignored"), Some("n"), None), "/api/v1/nodes/n");
        assert_eq!(DEPLOYMENTS.path(Some("a"), None, None), "/apis/apps/v1/namespaces/a/deployments");
        assert_eq!(DEPLOYMENTS.api_version(), "apps/v1");
    }
}
