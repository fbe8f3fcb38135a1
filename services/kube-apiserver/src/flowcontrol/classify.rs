//! Which FlowSchema a request belongs to, and which flow in it. Pure.

use super::queues::Shape;
use super::shares::Share;
use crate::authn::UserInfo;
use crate::authz::Attributes;
use crate::registry::strategy::tree::{at, bool_at, int_at, items, str_at};
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Matches everything, wherever rules list names.
const ALL: &str = "*";

/// A FlowSchema as requests are matched against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Its name.
    pub name: String,
    /// Its uid; empty while it is not in the store.
    pub uid: String,
    /// The lowest is asked first; equals by name.
    pub precedence: i64,
    /// The priority level its requests go to.
    pub level: String,
    distinguisher: Option<Distinguisher>,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    User,
    Namespace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    urls: Vec<UrlRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
    /// The start of the user name that such accounts have, and the rest; [`ALL`] for any.
    ServiceAccount(String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct UrlRule {
    verbs: Vec<String>,
    urls: Vec<String>,
}

impl Schema {
    /// Reads a valid object.
    pub fn from_object(object: &Value) -> Self {
        let spec = &object["spec"];
        let distinguisher = match str_at(spec, &["distinguisherMethod", "type"]) {
            "ByUser" => Some(Distinguisher::User),
            "ByNamespace" => Some(Distinguisher::Namespace),
            _ => None,
        };
        Self {
            name: str_at(object, &["metadata", "name"]).to_owned(),
            uid: str_at(object, &["metadata", "uid"]).to_owned(),
            precedence: int_at(spec, &["matchingPrecedence"]).unwrap_or_default(),
            level: str_at(spec, &["priorityLevelConfiguration", "name"]).to_owned(),
            distinguisher,
            rules: items(spec, &["rules"]).iter().map(Rule::from_object).collect(),
        }
    }

    /// Whether the request belongs to it.
    pub fn matches(&self, user: &UserInfo, a: &Attributes) -> bool {
        self.rules.iter().any(|rule| rule.covers(a) && rule.subjects.iter().any(|s| s.is(user)))
    }

    /// A number for the flow: requests of one flow share queues.
    pub fn flow(&self, user: &UserInfo, a: &Attributes) -> u64 {
        let distinguisher = match self.distinguisher {
            Some(Distinguisher::User) => user.name.as_str(),
            Some(Distinguisher::Namespace) => a.namespace.as_str(),
            None => "",
        };
        let mut hasher = DefaultHasher::new();
        (self.name.as_str(), distinguisher).hash(&mut hasher);
        hasher.finish()
    }
}

impl Rule {
    fn from_object(rule: &Value) -> Self {
        let resource = |r: &Value| ResourceRule {
            verbs: list(r, "verbs"),
            groups: list(r, "apiGroups"),
            resources: list(r, "resources"),
            namespaces: list(r, "namespaces"),
            cluster: bool_at(r, &["clusterScope"]),
        };
        let url = |r: &Value| UrlRule { verbs: list(r, "verbs"), urls: list(r, "nonResourceURLs") };
        Self {
            subjects: items(rule, &["subjects"]).iter().filter_map(Subject::from_object).collect(),
            resources: items(rule, &["resourceRules"]).iter().map(resource).collect(),
            urls: items(rule, &["nonResourceRules"]).iter().map(url).collect(),
        }
    }

    fn covers(&self, a: &Attributes) -> bool {
        match &a.path {
            Some(path) => {
                self.urls.iter().any(|r| has(&r.verbs, &a.verb) && r.urls.iter().any(|u| covers_url(u, path)))
            }
            None => self.resources.iter().any(|r| r.covers(a)),
        }
    }
}

impl ResourceRule {
    fn covers(&self, a: &Attributes) -> bool {
        let resource = |r: &String| {
            r == ALL
                || match r.split_once('/') {
                    Some((resource, sub)) => resource == a.resource && sub == a.subresource,
                    None => *r == a.resource && a.subresource.is_empty(),
                }
        };
        has(&self.verbs, &a.verb)
            && has(&self.groups, &a.group)
            && self.resources.iter().any(resource)
            && if a.namespace.is_empty() { self.cluster } else { has(&self.namespaces, &a.namespace) }
    }
}

fn covers_url(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

impl Subject {
    fn from_object(subject: &Value) -> Option<Self> {
        Some(match str_at(subject, &["kind"]) {
            "User" => Self::User(str_at(subject, &["user", "name"]).to_owned()),
            "Group" => Self::Group(str_at(subject, &["group", "name"]).to_owned()),
            "ServiceAccount" => {
                let account = at(subject, &["serviceAccount"])?;
                let namespace = str_at(account, &["namespace"]);
                Self::ServiceAccount(
                    format!("system:serviceaccount:{namespace}:"),
                    str_at(account, &["name"]).to_owned(),
                )
            }
            _ => return None,
        })
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => name == ALL || *name == user.name,
            Self::Group(name) => name == ALL || user.in_group(name),
            Self::ServiceAccount(prefix, name) => {
                user.name.strip_prefix(prefix.as_str()).is_some_and(|rest| name == ALL || name == rest)
            }
        }
    }
}

fn list(rule: &Value, field: &str) -> Vec<String> {
    items(rule, &[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|item| item == ALL || item == text)
}

/// What a PriorityLevelConfiguration says about seats and queues.
pub fn level(object: &Value) -> (Share, Shape) {
    let spec = &object["spec"];
    let exempt = str_at(spec, &["type"]) == "Exempt";
    let body = &spec[if exempt { "exempt" } else { "limited" }];
    let number = |v: &Value, field: &str| int_at(v, &[field]).and_then(|n| u32::try_from(n).ok());
    let share = Share {
        exempt,
        shares: number(body, "nominalConcurrencyShares").unwrap_or_default(),
        lendable_percent: number(body, "lendablePercent").unwrap_or_default(),
        borrowing_percent: number(body, "borrowingLimitPercent"),
    };
    let shape = match at(body, &["limitResponse", "queuing"]) {
        Some(queuing) => {
            let size = |field| number(queuing, field).map_or(0, |n| n as usize);
            Shape { queues: size("queues"), hand: size("handSize"), length: size("queueLengthLimit") }
        }
        None => Shape::NO_QUEUES,
    };
    (share, shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flowcontrol::defaults;

    fn resource(verb: &str, group: &str, resource: &str, namespace: &str) -> Attributes {
        let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            subresource: sub.into(),
            namespace: namespace.into(),
            ..Attributes::default()
        }
    }

    fn path(path: &str) -> Attributes {
        Attributes { verb: "get".into(), path: Some(path.into()), ..Attributes::default() }
    }

    #[test]
    fn requests_find_their_default_schema() {
        let mut schemas: Vec<Schema> = defaults::flow_schemas().iter().map(Schema::from_object).collect();
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        let user = |name: &str, groups: &[&str]| UserInfo::authenticated(name, groups.iter().map(|g| g.to_string()));
        let account = |name: &str| user(&format!("system:serviceaccount:{name}"), &["system:serviceaccounts"]);
        let node = user("system:node:n", &["system:nodes"]);
        let manager = user("system:kube-controller-manager", &[]);
        let leases = "coordination.k8s.io";
        let table = [
            (user("admin", &["system:masters"]), resource("list", "", "pods", ""), "exempt"),
            (UserInfo::anonymous(), path("/livez"), "probes"),
            (user("joe", &[]), path("/readyz"), "probes"),
            (user("joe", &[]), path("/version"), "global-default"),
            (user("joe", &[]), resource("get", "", "pods", "a"), "global-default"),
            (node.clone(), resource("patch", "", "nodes/status", ""), "system-node-high"),
            (node.clone(), resource("update", leases, "leases", "kube-node-lease"), "system-node-high"),
            (node, resource("get", "", "secrets", "a"), "system-nodes"),
            (manager.clone(), resource("update", leases, "leases", "kube-system"), "system-leader-election"),
            (manager.clone(), resource("update", "", "endpoints", "a"), "endpoint-controller"),
            (manager, resource("list", "", "pods", ""), "kube-controller-manager"),
            (user("system:kube-scheduler", &[]), resource("create", "", "pods/binding", "a"), "kube-scheduler"),
            (account("kube-system:x"), resource("update", leases, "leases", "kube-system"), "system-leader-election"),
            (account("kube-system:x"), resource("update", "", "configmaps", "a"), "workload-leader-election"),
            (account("kube-system:x"), resource("delete", "", "configmaps", "a"), "kube-system-service-accounts"),
            (account("default:x"), resource("get", "", "pods", "a"), "service-accounts"),
            (UserInfo { name: "odd".into(), ..UserInfo::default() }, path("/x"), ""),
        ];
        for (user, attributes, want) in table {
            let found = schemas.iter().find(|s| s.matches(&user, &attributes));
            assert_eq!(found.map_or("", |s| s.name.as_str()), want, "{} {attributes:?}", user.name);
        }
    }

    #[test]
    fn flows_are_told_apart() {
        let by = |kind: &str| {
            Schema::from_object(
                &serde_json::json!({"metadata": {"name": "f"}, "spec": {"distinguisherMethod": {"type": kind}}}),
            )
        };
        let (a, b) = (UserInfo::authenticated("a", []), UserInfo::authenticated("b", []));
        let (x, y) = (resource("get", "", "pods", "x"), resource("get", "", "pods", "y"));
        let (user, namespace, none) = (by("ByUser"), by("ByNamespace"), by(""));
        assert!(user.flow(&a, &x) == user.flow(&a, &y) && user.flow(&a, &x) != user.flow(&b, &x));
        assert!(namespace.flow(&a, &x) == namespace.flow(&b, &x) && namespace.flow(&a, &x) != namespace.flow(&a, &y));
        assert_eq!(none.flow(&a, &x), none.flow(&b, &y));
    }

    #[test]
    fn rules_match_as_written() {
        let schema = |rule: Value| {
            let subjects = serde_json::json!([{"kind": "Group", "group": {"name": "*"}}]);
            let mut rule = rule;
            rule["subjects"] = subjects;
            Schema::from_object(&serde_json::json!({"metadata": {"name": "f"}, "spec": {"rules": [rule]}}))
        };
        let of = |resources: &str, namespaces: &str, cluster: bool| {
            schema(serde_json::json!({"resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": [resources],
                "namespaces": [namespaces], "clusterScope": cluster}]}))
        };
        let table = [
            (of("pods", "*", false), resource("get", "", "pods", "a"), true),
            (of("pods", "*", false), resource("list", "", "pods", ""), false),
            (of("pods", "*", true), resource("list", "", "pods", ""), true),
            (of("pods", "b", true), resource("get", "", "pods", "a"), false),
            (of("pods", "*", true), resource("get", "", "pods/log", "a"), false),
            (of("pods/log", "*", true), resource("get", "", "pods/log", "a"), true),
            (of("pods", "*", true), resource("get", "apps", "pods", "a"), false),
            (
                schema(serde_json::json!({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/api/*"]}]})),
                path("/api/v1"),
                true,
            ),
            (
                schema(serde_json::json!({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/api"]}]})),
                path("/api/v1"),
                false,
            ),
        ];
        let joe = UserInfo::authenticated("joe", []);
        for (schema, attributes, want) in table {
            assert_eq!(schema.matches(&joe, &attributes), want, "{schema:?} {attributes:?}");
        }
    }
}
