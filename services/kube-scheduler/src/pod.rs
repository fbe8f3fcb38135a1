//! A pod as the scheduler sees it, read once per change.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta;
use apimachinery::quantity::Quantity;
use apimachinery::selector::LabelSelector;
use serde_json::{Map, Value};

use crate::terms::{self, Labels, Term, Toleration, list, text};

/// What scores assume of a container that asks for nothing, so that many such pods still spread.
const ASSUMED_MILLI_CPU: i64 = 100;
const ASSUMED_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of resources; cpu in thousandths, the rest in units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub storage: i64,
    /// Everything else, by name.
    pub other: BTreeMap<String, i64>,
}

impl Amounts {
    /// Reads a ResourceList. Unreadable quantities count as zero: the API server lets none through.
    pub fn read(list: Option<&Map<String, Value>>) -> Amounts {
        let mut amounts = Amounts::default();
        for (name, value) in list.into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let Ok(quantity) = Quantity::parse(&text) else { continue };
            match name.as_str() {
                "cpu" => amounts.milli_cpu = i64::try_from(quantity.milli()).unwrap_or(i64::MAX),
                "memory" => amounts.memory = quantity.value(),
                "ephemeral-storage" => amounts.storage = quantity.value(),
                "pods" => {}
                _ => drop(amounts.other.insert(name.clone(), quantity.value())),
            }
        }
        amounts
    }

    /// Applies `combine` to each amount of both.
    pub fn merge(&mut self, more: &Amounts, combine: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = combine(self.milli_cpu, more.milli_cpu);
        self.memory = combine(self.memory, more.memory);
        self.storage = combine(self.storage, more.storage);
        for (name, amount) in &more.other {
            let mine = self.other.entry(name.clone()).or_default();
            *mine = combine(*mine, *amount);
        }
    }
}

/// A port on the node itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The number.
    pub port: i64,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// The node's address; `0.0.0.0` is all of them.
    pub address: String,
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |port: &HostPort| port.address == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(self) || any(other) || self.address == other.address)
    }
}

/// A topology spread constraint.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Largest allowed difference.
    pub max_skew: i64,
    /// The label whose values are the domains.
    pub key: String,
    /// DoNotSchedule, else a wish.
    pub hard: bool,
    /// The pods that count.
    pub selector: LabelSelector,
    /// With fewer domains than this, an imagined empty one counts.
    pub min_domains: i64,
    /// Nodes that the pod's node affinity excludes do not count.
    pub honor_affinity: bool,
    /// Nodes whose taints the pod does not tolerate do not count.
    pub honor_taints: bool,
}

/// A pod affinity or anti-affinity term.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// The label whose values are the domains.
    pub key: String,
    selector: LabelSelector,
    namespaces: Vec<String>,
    /// Selects namespaces by label, if given.
    pub namespace_selector: Option<LabelSelector>,
}

impl Neighbours {
    fn read(term: &Value, namespace: &str, labels: &Labels) -> Neighbours {
        let mut namespaces: Vec<String> =
            list(term, "/namespaces").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let namespace_selector = match &term["namespaceSelector"] {
            Value::Null => None,
            selector => Some(LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing())),
        };
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        Neighbours {
            key: text(term, "/topologyKey").to_owned(),
            selector: terms::selector_with(&term["labelSelector"], list(term, "/matchLabelKeys"), labels),
            namespaces,
            namespace_selector,
        }
    }

    /// Whether the term means this pod. `of_namespace` gives a namespace's labels.
    pub fn means(&self, pod: &Pod, of_namespace: &dyn Fn(&str) -> Option<Labels>) -> bool {
        let namespace = self.namespaces.contains(&pod.namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| selector.is_empty() || selector.matches(of_namespace(&pod.namespace).as_ref()));
        namespace && self.selector.matches(Some(&pod.labels))
    }
}

/// Required and preferred terms of one direction.
#[derive(Clone, Debug, Default)]
pub struct Affinity {
    /// All must hold.
    pub required: Vec<Neighbours>,
    /// Weights are added up.
    pub preferred: Vec<(i64, Neighbours)>,
}

impl Affinity {
    fn read(affinity: &Value, namespace: &str, labels: &Labels) -> Affinity {
        let required = list(affinity, "/requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = list(affinity, "/preferredDuringSchedulingIgnoredDuringExecution").iter();
        Affinity {
            required: required.map(|term| Neighbours::read(term, namespace, labels)).collect(),
            preferred: preferred
                .map(|p| {
                    (p["weight"].as_i64().unwrap_or(0), Neighbours::read(&p["podAffinityTerm"], namespace, labels))
                })
                .collect(),
        }
    }

    /// Has no terms.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.preferred.is_empty()
    }
}

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// The object itself, for writing about it.
    pub object: Arc<Value>,
    /// metadata.uid.
    pub uid: String,
    /// metadata.namespace.
    pub namespace: String,
    /// metadata.name.
    pub name: String,
    /// metadata.labels.
    pub labels: Labels,
    /// spec.nodeName; empty while it has none.
    pub node: String,
    /// spec.priority.
    pub priority: i64,
    /// What it asks for.
    pub requests: Amounts,
    /// What scores assume that it uses.
    pub assumed: Amounts,
    /// Host ports.
    pub ports: Vec<HostPort>,
    /// spec.tolerations.
    pub tolerations: Vec<Toleration>,
    /// spec.nodeSelector.
    pub node_selector: LabelSelector,
    /// Required node affinity: any of the terms; none if there is no such rule.
    pub required_nodes: Option<Vec<Term>>,
    /// Preferred node affinity with weights.
    pub preferred_nodes: Vec<(i64, Term)>,
    /// Spread constraints.
    pub spread: Vec<Spread>,
    /// Pods to be near.
    pub affinity: Affinity,
    /// Pods to be away from.
    pub anti_affinity: Affinity,
    /// Deletion was asked for.
    pub ending: bool,
    /// Has scheduling gates: must wait.
    pub gated: bool,
}

impl Pod {
    /// Reads a pod.
    pub fn read(object: Arc<Value>) -> Pod {
        let labels = meta::labels(&object).cloned().unwrap_or_default();
        let namespace = meta::namespace(&object).to_owned();
        let rules = &object["spec"]["affinity"];
        let nodes = &rules["nodeAffinity"];
        let required = nodes.pointer("/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
        let preferred = list(nodes, "/preferredDuringSchedulingIgnoredDuringExecution").iter();
        let selector = object.pointer("/spec/nodeSelector").and_then(Value::as_object);
        let (requests, assumed) = requests(&object["spec"]);
        Pod {
            uid: meta::uid(&object).to_owned(),
            name: meta::name(&object).to_owned(),
            node: text(&object, "/spec/nodeName").to_owned(),
            priority: object["spec"]["priority"].as_i64().unwrap_or(0),
            requests,
            assumed,
            ports: host_ports(&object["spec"]),
            tolerations: list(&object, "/spec/tolerations").iter().map(Toleration::read).collect(),
            node_selector: selector.map_or_else(LabelSelector::everything, LabelSelector::from_map),
            required_nodes: required.and_then(Value::as_array).map(|terms| terms.iter().map(Term::read).collect()),
            preferred_nodes: preferred
                .map(|p| (p["weight"].as_i64().unwrap_or(0), Term::read(&p["preference"])))
                .collect(),
            spread: list(&object, "/spec/topologySpreadConstraints").iter().map(|c| spread(c, &labels)).collect(),
            affinity: Affinity::read(&rules["podAffinity"], &namespace, &labels),
            anti_affinity: Affinity::read(&rules["podAntiAffinity"], &namespace, &labels),
            ending: meta::deletion_timestamp(&object).is_some(),
            gated: !list(&object, "/spec/schedulingGates").is_empty(),
            namespace,
            labels,
            object,
        }
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether nodeSelector and required node affinity allow a node.
    pub fn allows_node(&self, name: &str, labels: &Labels) -> bool {
        let terms = self.required_nodes.as_ref();
        self.node_selector.matches(Some(labels))
            && terms.is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }

    /// Whether every repelling taint is tolerated.
    pub fn bears(&self, taints: &[terms::Taint]) -> bool {
        let borne = |taint: &terms::Taint| self.tolerations.iter().any(|t| t.tolerates(taint));
        taints.iter().filter(|taint| taint.repels()).all(borne)
    }
}

fn spread(constraint: &Value, labels: &Labels) -> Spread {
    let keys = list(constraint, "/matchLabelKeys");
    Spread {
        max_skew: constraint["maxSkew"].as_i64().unwrap_or(1),
        key: text(constraint, "/topologyKey").to_owned(),
        hard: text(constraint, "/whenUnsatisfiable") != "ScheduleAnyway",
        selector: terms::selector_with(&constraint["labelSelector"], keys, labels),
        min_domains: constraint["minDomains"].as_i64().unwrap_or(1),
        honor_affinity: text(constraint, "/nodeAffinityPolicy") != "Ignore",
        honor_taints: text(constraint, "/nodeTaintsPolicy") == "Honor",
    }
}

/// The most that the pod needs at any time, and the same with assumed amounts: its containers and sidecars together, or
/// an init container beside the sidecars started before it; plus the overhead. Pod-level requests override the sum.
fn requests(spec: &Value) -> (Amounts, Amounts) {
    let of = |container: &Value, pointer: &str| Amounts::read(container.pointer(pointer).and_then(Value::as_object));
    let total = |assume: bool| {
        let container = |c: &Value| {
            let mut amounts = of(c, "/resources/requests");
            if assume {
                let asked = |name: &str| !c["resources"]["requests"][name].is_null();
                amounts.milli_cpu = if asked("cpu") { amounts.milli_cpu } else { ASSUMED_MILLI_CPU };
                amounts.memory = if asked("memory") { amounts.memory } else { ASSUMED_MEMORY };
            }
            amounts
        };
        let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
        for init in list(spec, "/initContainers") {
            let mut now = container(init);
            if init["restartPolicy"] == "Always" {
                sidecars.merge(&now, |a, b| a.saturating_add(b));
                now = sidecars.clone();
            } else {
                now.merge(&sidecars, |a, b| a.saturating_add(b));
            }
            peak.merge(&now, i64::max);
        }
        for running in list(spec, "/containers") {
            sidecars.merge(&container(running), |a, b| a.saturating_add(b));
        }
        peak.merge(&sidecars, i64::max);
        let whole = of(spec, "/resources/requests");
        peak.merge(&whole, |sum, whole| if whole == 0 { sum } else { whole });
        peak.merge(&of(spec, "/overhead"), |a, b| a.saturating_add(b));
        peak
    };
    (total(false), total(true))
}

fn host_ports(spec: &Value) -> Vec<HostPort> {
    let restartable = list(spec, "/initContainers").iter().filter(|c| c["restartPolicy"] == "Always");
    let ports = list(spec, "/containers").iter().chain(restartable).flat_map(|c| list(c, "/ports"));
    let read = |port: &Value| {
        let number = port["hostPort"].as_i64().filter(|n| *n > 0)?;
        let or =
            |pointer, default: &str| Some(text(port, pointer)).filter(|t| !t.is_empty()).unwrap_or(default).to_owned();
        Some(HostPort { port: number, protocol: or("/protocol", "TCP"), address: or("/hostIP", "0.0.0.0") })
    };
    ports.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_needs_the_larger_of_starting_and_running() {
        let ask = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let cases = [
            (json!({"containers": [ask("1"), ask("250m")]}), 1250),
            (json!({"containers": [ask("1")], "initContainers": [ask("2")]}), 2000),
            (json!({"containers": [ask("1")], "initContainers": [sidecar("1"), ask("2")]}), 3000),
            (json!({"containers": [ask("3")], "initContainers": [ask("2"), sidecar("1")]}), 4000),
            (json!({"containers": [ask("1")], "overhead": {"cpu": "100m"}}), 1100),
            (json!({"containers": [ask("1")], "resources": {"requests": {"cpu": "5"}}}), 5000),
        ];
        for (spec, expected) in cases {
            assert_eq!(requests(&spec).0.milli_cpu, expected, "{spec}");
        }
        let (asked, assumed) = requests(&json!({"containers": [{}, ask("1")]}));
        assert_eq!((asked.milli_cpu, asked.memory), (1000, 0));
        assert_eq!((assumed.milli_cpu, assumed.memory), (1100, 2 * ASSUMED_MEMORY));
    }

    #[test]
    fn host_ports_conflict_by_address() {
        let port = |address: &str, protocol: &str| HostPort {
            port: 80,
            protocol: protocol.to_owned(),
            address: address.to_owned(),
        };
        assert!(port("0.0.0.0", "TCP").conflicts(&port("10.0.0.1", "TCP")));
        assert!(!port("10.0.0.2", "TCP").conflicts(&port("10.0.0.1", "TCP")));
        assert!(!port("0.0.0.0", "UDP").conflicts(&port("0.0.0.0", "TCP")));
    }
}
