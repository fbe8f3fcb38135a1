//! RBAC as a pure function over roles and bindings.

use super::Attributes;
use crate::authn::UserInfo;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// One PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// Groups, `*` for all.
    pub api_groups: Vec<String>,
    /// Resources, `pods`, `pods/log`, `*/scale` or `*`.
    pub resources: Vec<String>,
    /// Names; empty for all.
    pub resource_names: Vec<String>,
    /// Paths, with `*` at the end of one as a wildcard.
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// Reads a rule of a role.
    pub fn from_object(rule: &Value) -> Self {
        let list = |field: &str| -> Vec<String> {
            let items = rule.get(field).and_then(Value::as_array);
            items.into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
        };
        Self {
            verbs: list("verbs"),
            api_groups: list("apiGroups"),
            resources: list("resources"),
            resource_names: list("resourceNames"),
            non_resource_urls: list("nonResourceURLs"),
        }
    }

    /// The rule as a review shows it.
    pub fn to_object(&self) -> Value {
        let mut out = json!({"verbs": self.verbs});
        let lists = [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ];
        for (key, list) in lists {
            if !list.is_empty() {
                out[key] = json!(list);
            }
        }
        out
    }

    /// Whether the rule covers the request.
    pub fn covers(&self, a: &Attributes) -> bool {
        if !has(&self.verbs, &a.verb) {
            return false;
        }
        if let Some(path) = &a.path {
            return self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => url == path,
            });
        }
        has(&self.api_groups, &a.group)
            && self.covers_resource(a)
            && (self.resource_names.is_empty() || self.resource_names.contains(&a.name))
    }

    fn covers_resource(&self, a: &Attributes) -> bool {
        let full = a.full_resource();
        self.resources.iter().any(|r| {
            r == "*"
                || *r == full
                || (!a.subresource.is_empty() && r.strip_prefix("*/").is_some_and(|sub| sub == a.subresource))
        })
    }
}

/// As upstream writes rules in messages: fields that are set, each a list of quoted words.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let set = fields.iter().filter(|(_, list)| !list.is_empty());
        let texts: Vec<String> = set.map(|(name, list)| format!("{name}:{}", quoted(list))).collect();
        write!(f, "{{{}}}", texts.join(", "))
    }
}

/// A list as Go's `%q` writes it.
pub fn quoted(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(" "))
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|v| v == "*" || v == value)
}

#[derive(Debug)]
struct Binding {
    name: String,
    namespace: String,
    subjects: Vec<Subject>,
    role_kind: String,
    role: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
}

/// All rules of a cluster.
#[derive(Debug, Default)]
pub struct Rules {
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    roles: HashMap<(String, String), Arc<[Rule]>>,
    cluster_bindings: Vec<Binding>,
    bindings: HashMap<String, Vec<Binding>>,
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn rules_of(role: &Value) -> Arc<[Rule]> {
    role.get("rules").and_then(Value::as_array).into_iter().flatten().map(Rule::from_object).collect()
}

fn binding(object: &Value) -> Binding {
    let namespace = text(object, "/metadata/namespace");
    let subject = |s: &Value| match text(s, "/kind") {
        "User" => Some(Subject::User(text(s, "/name").into())),
        "Group" => Some(Subject::Group(text(s, "/name").into())),
        "ServiceAccount" => {
            let own = text(s, "/namespace");
            let home = if own.is_empty() { namespace } else { own };
            Some(Subject::User(format!("system:serviceaccount:{home}:{}", text(s, "/name"))))
        }
        _ => None,
    };
    Binding {
        name: text(object, "/metadata/name").into(),
        namespace: namespace.into(),
        subjects: object.get("subjects").and_then(Value::as_array).into_iter().flatten().filter_map(subject).collect(),
        role_kind: text(object, "/roleRef/kind").into(),
        role: text(object, "/roleRef/name").into(),
    }
}

impl Rules {
    /// Reads the objects.
    pub fn build(cluster_roles: &[Value], cluster_bindings: &[Value], roles: &[Value], bindings: &[Value]) -> Self {
        let mut by_namespace: HashMap<String, Vec<Binding>> = HashMap::new();
        for b in bindings.iter().map(binding) {
            by_namespace.entry(b.namespace.clone()).or_default().push(b);
        }
        let key = |r: &Value| (text(r, "/metadata/namespace").to_string(), text(r, "/metadata/name").to_string());
        Self {
            cluster_roles: cluster_roles.iter().map(|r| (text(r, "/metadata/name").to_string(), rules_of(r))).collect(),
            roles: roles.iter().map(|r| (key(r), rules_of(r))).collect(),
            cluster_bindings: cluster_bindings.iter().map(binding).collect(),
            bindings: by_namespace,
        }
    }

    /// The rules that apply to a user, with the binding each set comes from; those of a namespace only if one is given.
    fn applying<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Binding, &'a Arc<[Rule]>)> {
        self.bindings_of(user, namespace).filter_map(|b| self.role_rules(b).map(|rules| (b, rules)))
    }

    fn bindings_of<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Binding> {
        let local = self.bindings.get(namespace).into_iter().flatten().filter(move |_| !namespace.is_empty());
        self.cluster_bindings.iter().chain(local).filter(|b| {
            b.subjects.iter().any(|s| match s {
                Subject::User(name) => *name == user.name,
                Subject::Group(name) => user.in_group(name),
            })
        })
    }

    /// What a refusal adds when a user is bound to roles that do not exist; empty otherwise.
    pub fn unresolved(&self, user: &UserInfo, namespace: &str) -> String {
        let missing = self.bindings_of(user, namespace).filter(|b| self.role_rules(b).is_none());
        let texts: Vec<String> = missing
            .map(|b| format!("{}.rbac.authorization.k8s.io {:?} not found", b.role_kind.to_lowercase(), b.role))
            .collect();
        match texts.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            several => format!("RBAC: [{}]", several.join(", ")),
        }
    }

    fn role_rules(&self, b: &Binding) -> Option<&Arc<[Rule]>> {
        match b.role_kind.as_str() {
            "ClusterRole" => self.cluster_roles.get(&b.role),
            "Role" => self.roles.get(&(b.namespace.clone(), b.role.clone())),
            _ => None,
        }
    }

    /// Why the request is allowed, if it is.
    pub fn find(&self, user: &UserInfo, a: &Attributes) -> Option<String> {
        let (b, _) = self.applying(user, &a.namespace).find(|(_, rules)| rules.iter().any(|r| r.covers(a)))?;
        let kind = if b.namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
        let name = if b.namespace.is_empty() { b.name.clone() } else { format!("{}/{}", b.name, b.namespace) };
        Some(format!("RBAC: allowed by {kind} {name:?} of {} {:?} to User {:?}", b.role_kind, b.role, user.name))
    }

    /// Every rule that applies to a user in a namespace.
    pub fn all_for(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.applying(user, namespace).flat_map(|(_, rules)| rules.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let cluster_roles = [
            json!({"metadata": {"name": "view"}, "rules": [
                {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log", "*/scale"]},
                {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}]}),
            json!({"metadata": {"name": "all"}, "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]}),
        ];
        let cluster_bindings = [
            json!({"metadata": {"name": "v"}, "subjects": [{"kind": "Group", "name": "viewers"}], "roleRef": {"kind": "ClusterRole", "name": "view"}}),
        ];
        let roles = [json!({"metadata": {"name": "one", "namespace": "a"}, "rules": [
            {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]}]})];
        let bindings = [
            json!({"metadata": {"name": "r", "namespace": "a"}, "subjects": [{"kind": "ServiceAccount", "name": "bot"}], "roleRef": {"kind": "Role", "name": "one"}}),
            json!({"metadata": {"name": "r2", "namespace": "b"}, "subjects": [{"kind": "User", "name": "eve"}], "roleRef": {"kind": "ClusterRole", "name": "all"}}),
            json!({"metadata": {"name": "r3", "namespace": "a"}, "subjects": [{"kind": "User", "name": "lost"}], "roleRef": {"kind": "Role", "name": "gone"}}),
        ];
        Rules::build(&cluster_roles, &cluster_bindings, &roles, &bindings)
    }

    fn a(verb: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Default::default()
        }
    }

    #[test]
    fn decisions() {
        let rules = rules();
        let viewer = UserInfo::authenticated("v", ["viewers".to_string()]);
        let bot = UserInfo::authenticated("system:serviceaccount:a:bot", []);
        let eve = UserInfo::authenticated("eve", []);
        let table = [
            (&viewer, a("list", "pods", "", ""), true),
            (&viewer, a("get", "pods/log", "x", "p"), true),
            (&viewer, a("get", "pods/exec", "x", "p"), false),
            (&viewer, a("get", "deployments/scale", "x", "p"), true),
            (&viewer, a("delete", "pods", "x", "p"), false),
            (&bot, a("get", "secrets", "a", "s"), true),
            (&bot, a("get", "secrets", "a", "t"), false),
            (&bot, a("list", "secrets", "a", ""), false),
            (&bot, a("get", "secrets", "b", "s"), false),
            (&eve, a("delete", "pods/exec", "b", "p"), true),
            (&eve, a("delete", "pods", "", "p"), false),
        ];
        for (user, attributes, want) in table {
            assert_eq!(rules.find(user, &attributes).is_some(), want, "{} {attributes:?}", user.name);
        }
        assert_eq!(rules.unresolved(&eve, "b"), "");
        let lost = UserInfo::authenticated("lost", []);
        assert_eq!(rules.unresolved(&lost, "a"), "RBAC: role.rbac.authorization.k8s.io \"gone\" not found");
        for (path, want) in [("/healthz", true), ("/api/v1", true), ("/metrics", false), ("/healthz/x", false)] {
            let attributes = Attributes { verb: "get".into(), path: Some(path.into()), ..Default::default() };
            assert_eq!(rules.find(&viewer, &attributes).is_some(), want, "{path}");
        }
        let api = Attributes { group: "apps".into(), ..a("get", "pods", "", "") };
        assert!(rules.find(&viewer, &api).is_none(), "another group's pods");
    }
}
