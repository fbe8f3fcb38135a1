//! The configuration of priority and fairness that every cluster begins with, upstream's level v1.35. Pure data.

use serde_json::{Value, json};

/// Levels and schemas of these names have a fixed spec.
pub const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// A limited level: name, shares, lendable percent, and queues, hand and length, if it has queues.
type Limited = (&'static str, u32, u32, Option<(u32, u32, u32)>);

const LEVELS: [Limited; 7] = [
    ("catch-all", 5, 0, None),
    ("global-default", 20, 50, Some((128, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("system", 30, 33, Some((64, 6, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
];

/// Every default PriorityLevelConfiguration.
pub fn priority_levels() -> Vec<Value> {
    let limited = LEVELS.iter().map(|(name, shares, lendable, queues)| {
        let response = match queues {
            Some((queues, hand, length)) => {
                json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}})
            }
            None => json!({"type": "Reject"}),
        };
        let body = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        object("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": body}))
    });
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    std::iter::once(object("PriorityLevelConfiguration", "exempt", exempt)).chain(limited).collect()
}

/// Who and what a default schema is for.
struct Schema {
    name: &'static str,
    level: &'static str,
    precedence: u32,
    /// Empty: all its requests are one flow.
    distinguisher: &'static str,
    users: &'static [&'static str],
    groups: &'static [&'static str],
    /// Service accounts of kube-system.
    accounts: &'static [&'static str],
    scope: Scope,
}

enum Scope {
    Everything,
    /// Paths that are read.
    Paths(&'static [&'static str]),
    /// Verbs, group, resources, and how far.
    Resources(&'static [(&'static [&'static str], &'static str, &'static [&'static str], Reach)]),
}

#[derive(Clone, Copy, PartialEq)]
enum Reach {
    /// Objects in any namespace.
    Namespaces,
    /// Those in none too.
    Cluster,
}

const MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
const EVERYBODY: &[&str] = &["system:unauthenticated", "system:authenticated"];
const ELECT: &[&str] = &["get", "create", "update"];
const LEASES: &str = "coordination.k8s.io";
const BASE: Schema = Schema {
    name: "",
    level: "",
    precedence: 0,
    distinguisher: "ByUser",
    users: &[],
    groups: &[],
    accounts: &[],
    scope: Scope::Everything,
};

const SCHEMAS: [Schema; 13] = [
    Schema { name: "exempt", level: "exempt", precedence: 1, distinguisher: "", groups: &["system:masters"], ..BASE },
    Schema {
        name: "probes",
        level: "exempt",
        precedence: 2,
        distinguisher: "",
        groups: EVERYBODY,
        scope: Scope::Paths(&["/healthz", "/readyz", "/livez"]),
        ..BASE
    },
    Schema {
        name: "system-leader-election",
        level: "leader-election",
        precedence: 100,
        users: &[MANAGER, SCHEDULER],
        accounts: &["*"],
        scope: Scope::Resources(&[(ELECT, LEASES, &["leases"], Reach::Namespaces)]),
        ..BASE
    },
    Schema {
        name: "endpoint-controller",
        level: "workload-high",
        precedence: 150,
        users: &[MANAGER],
        accounts: &["endpoint-controller", "endpointslicemirroring-controller"],
        scope: Scope::Resources(&[(ELECT, "", &["endpoints"], Reach::Namespaces)]),
        ..BASE
    },
    Schema {
        name: "workload-leader-election",
        level: "leader-election",
        precedence: 200,
        accounts: &["*"],
        scope: Scope::Resources(&[
            (ELECT, "", &["endpoints", "configmaps"], Reach::Namespaces),
            (ELECT, LEASES, &["leases"], Reach::Namespaces),
        ]),
        ..BASE
    },
    Schema {
        name: "system-node-high",
        level: "node-high",
        precedence: 400,
        groups: &["system:nodes"],
        scope: Scope::Resources(&[
            (&["*"], "", &["nodes", "nodes/status"], Reach::Cluster),
            (&["*"], LEASES, &["leases"], Reach::Namespaces),
        ]),
        ..BASE
    },
    Schema { name: "system-nodes", level: "system", precedence: 500, groups: &["system:nodes"], ..BASE },
    Schema {
        name: "kube-controller-manager",
        level: "workload-high",
        precedence: 800,
        distinguisher: "ByNamespace",
        users: &[MANAGER],
        ..BASE
    },
    Schema {
        name: "kube-scheduler",
        level: "workload-high",
        precedence: 800,
        distinguisher: "ByNamespace",
        users: &[SCHEDULER],
        ..BASE
    },
    Schema {
        name: "kube-system-service-accounts",
        level: "workload-high",
        precedence: 900,
        distinguisher: "ByNamespace",
        accounts: &["*"],
        ..BASE
    },
    Schema {
        name: "service-accounts",
        level: "workload-low",
        precedence: 9000,
        groups: &["system:serviceaccounts"],
        ..BASE
    },
    Schema { name: "global-default", level: "global-default", precedence: 9900, groups: EVERYBODY, ..BASE },
    Schema { name: "catch-all", level: "catch-all", precedence: 10_000, groups: EVERYBODY, ..BASE },
];

/// Every default FlowSchema.
pub fn flow_schemas() -> Vec<Value> {
    SCHEMAS.iter().map(Schema::object).collect()
}

impl Schema {
    fn object(&self) -> Value {
        let users = self.users.iter().map(|u| json!({"kind": "User", "user": {"name": u}}));
        let groups = self.groups.iter().map(|g| json!({"kind": "Group", "group": {"name": g}}));
        let account =
            |a: &&str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": a}});
        let subjects: Vec<Value> = users.chain(groups).chain(self.accounts.iter().map(account)).collect();
        let mut rule = self.scope.rules();
        rule["subjects"] = json!(subjects);
        let mut spec = json!({"matchingPrecedence": self.precedence, "priorityLevelConfiguration": {"name": self.level}, "rules": [rule]});
        if !self.distinguisher.is_empty() {
            spec["distinguisherMethod"] = json!({"type": self.distinguisher});
        }
        object("FlowSchema", self.name, spec)
    }
}

impl Scope {
    fn rules(&self) -> Value {
        match self {
            Scope::Everything => json!({
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }),
            Scope::Paths(paths) => json!({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": paths}]}),
            Scope::Resources(rules) => {
                let one = |(verbs, group, resources, reach): &(_, _, _, Reach)| {
                    let mut rule =
                        json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
                    if *reach == Reach::Cluster {
                        rule["clusterScope"] = json!(true);
                    }
                    rule
                };
                json!({"resourceRules": rules.iter().map(one).collect::<Vec<Value>>()})
            }
        }
    }
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// The spec a mandatory object must have, given what it has: shares of `exempt` are the administrator's.
pub fn fixed_spec(kind: &str, name: &str, spec: &Value) -> Option<Value> {
    let all = if kind == "FlowSchema" { flow_schemas() } else { priority_levels() };
    let found = all.into_iter().find(|o| o["metadata"]["name"] == name && MANDATORY.contains(&name))?;
    let mut fixed = found["spec"].clone();
    if let (Some(own), true) = (spec.get("exempt").filter(|e| e.is_object()), fixed.get("exempt").is_some()) {
        fixed["exempt"] = own.clone();
    }
    Some(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Strategy, strategy::flow};

    #[test]
    fn defaults_are_valid_and_complete() {
        let kinds = [(&flow::FLOW_SCHEMA, flow_schemas()), (&flow::PRIORITY_LEVEL, priority_levels())];
        for (kind, objects) in kinds {
            for object in objects {
                let mut defaulted = object.clone();
                (kind.defaults)(&mut defaulted);
                assert_eq!(defaulted, object, "as stored, so that a restart writes nothing");
                assert_eq!(kind.validate(&object), [], "{object}");
            }
        }
    }

    #[test]
    fn mandatory_specs_are_fixed() {
        let mut exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 5, "lendablePercent": 50}});
        assert_eq!(fixed_spec("PriorityLevelConfiguration", "exempt", &exempt), Some(exempt.clone()));
        exempt["type"] = json!("Limited");
        assert_ne!(fixed_spec("PriorityLevelConfiguration", "exempt", &exempt), Some(exempt));
        assert_eq!(fixed_spec("FlowSchema", "probes", &json!({})), None);
    }
}
