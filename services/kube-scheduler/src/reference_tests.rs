//! A slow, plain reading of the rules, without any index, against which every decision is compared: many random clusters and
//! pods, with pods and nodes coming, going and changing between decisions. Feasible nodes, total scores and counts have to be
//! equal, not only the choice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use crate::cache::Cache;
use crate::cycle::{Task, Turn, feasible, totals};
use crate::objects::Meta;
use crate::pod::Pod;
use crate::testing::{node, profile};

/// A cluster as plain JSON.
#[derive(Default)]
struct Plain {
    nodes: BTreeMap<String, Value>,
    /// Pods with spec.nodeName.
    pods: BTreeMap<String, Value>,
    namespaces: BTreeMap<String, Value>,
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let Some(selector) = selector.as_object() else { return false };
    let pairs = selector.get("matchLabels").and_then(Value::as_object);
    pairs.into_iter().flatten().all(|(key, value)| labels[key] == *value)
        && selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten().all(|e| {
            let value = &labels[e["key"].as_str().unwrap()];
            let among = e["values"].as_array().is_some_and(|values| values.contains(value));
            match e["operator"].as_str().unwrap() {
                "In" => !value.is_null() && among,
                "NotIn" => value.is_null() || !among,
                "Exists" => !value.is_null(),
                _ => value.is_null(),
            }
        })
}

fn array<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

impl Plain {
    fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Value> {
        self.pods.values().filter(move |pod| pod["spec"]["nodeName"] == node)
    }

    fn means(&self, term: &Value, owner: &Value, other: &Value) -> bool {
        let namespace = &other["metadata"]["namespace"];
        let listed = array(term, "/namespaces").any(|n| n == namespace);
        let chosen = term.get("namespaceSelector").is_some_and(|selector| {
            selector.as_object().is_some_and(Map::is_empty)
                || selects(selector, &self.namespaces[namespace.as_str().unwrap()])
        });
        let own = array(term, "/namespaces").next().is_none()
            && term.get("namespaceSelector").is_none()
            && *namespace == owner["metadata"]["namespace"];
        (listed || chosen || own) && selects(&term["labelSelector"], &other["metadata"]["labels"])
    }

    /// Nodes of the same domain as `node`, itself included; none without the label.
    fn domain<'a>(&'a self, node: &'a Value, key: &'a str) -> impl Iterator<Item = &'a Value> {
        let value = node["metadata"]["labels"].get(key);
        self.nodes.values().filter(move |other| value.is_some() && other["metadata"]["labels"].get(key) == value)
    }

    fn in_domain(&self, node: &Value, key: &str, counts: impl Fn(&Value) -> bool) -> i64 {
        let pods = self.domain(node, key).flat_map(|n| self.on(n["metadata"]["name"].as_str().unwrap()));
        i64::try_from(pods.filter(|pod| counts(pod)).count()).unwrap()
    }

    fn fits(&self, pod: &Value, node: &Value) -> bool {
        let name = node["metadata"]["name"].as_str().unwrap();
        let cpu = |pod: &Value| pod["spec"]["containers"][0]["resources"]["requests"]["cpu"].as_i64().unwrap_or(0);
        let used: i64 = self.on(name).map(cpu).sum();
        let tolerates = |taint: &Value| array(pod, "/spec/tolerations").any(|t| t["key"] == taint["key"]);
        // Who asks for nothing fits even where too much is asked for already.
        (cpu(pod) == 0 || used + cpu(pod) <= node["status"]["allocatable"]["cpu"].as_i64().unwrap())
            && array(node, "/spec/taints").all(tolerates)
            && Self::selected(pod, node)
            && self.near(pod, node)
            && self.away(pod, node)
            && self.spreads(pod, node)
    }

    fn selected(pod: &Value, node: &Value) -> bool {
        let selector = pod["spec"]["nodeSelector"].as_object();
        selector.into_iter().flatten().all(|(key, value)| node["metadata"]["labels"][key] == *value)
    }

    fn near(&self, pod: &Value, node: &Value) -> bool {
        let terms = "/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution";
        let meant = |other: &Value| array(pod, terms).all(|term| self.means(term, pod, other));
        let has_label = |term: &Value| !node["metadata"]["labels"][term["topologyKey"].as_str().unwrap()].is_null();
        if !array(pod, terms).all(has_label) {
            return false;
        }
        let here = |term: &Value| self.in_domain(node, term["topologyKey"].as_str().unwrap(), meant) > 0;
        // Anywhere at all, in a domain of any of the terms.
        let anybody = || {
            self.nodes.values().any(|n| {
                array(pod, terms).any(|term| self.in_domain(n, term["topologyKey"].as_str().unwrap(), meant) > 0)
            })
        };
        array(pod, terms).all(here) || (!anybody() && meant(pod))
    }

    fn away(&self, pod: &Value, node: &Value) -> bool {
        let terms = "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";
        let offends = |term: &Value| {
            self.in_domain(node, term["topologyKey"].as_str().unwrap(), |other| self.means(term, pod, other)) > 0
        };
        let refuses = |placed: &Value| {
            array(placed, terms).any(|term| {
                let at = placed["spec"]["nodeName"].as_str().unwrap();
                let key = term["topologyKey"].as_str().unwrap();
                self.domain(node, key).any(|n| n["metadata"]["name"] == at) && self.means(term, placed, pod)
            })
        };
        !array(pod, terms).any(offends) && !self.pods.values().any(refuses)
    }

    fn counts_for(pod: &Value, constraint: &Value, other: &Value) -> bool {
        other["metadata"]["namespace"] == pod["metadata"]["namespace"]
            && other["metadata"].get("deletionTimestamp").is_none()
            && selects(&constraint["labelSelector"], &other["metadata"]["labels"])
    }

    /// The counts of all domains of a constraint.
    fn domains(&self, pod: &Value, constraint: &Value, hard: bool) -> BTreeMap<String, i64> {
        let alike = |c: &&Value| (c["whenUnsatisfiable"] == "DoNotSchedule") == hard;
        let keys: Vec<&str> = array(pod, "/spec/topologySpreadConstraints")
            .filter(alike)
            .map(|c| c["topologyKey"].as_str().unwrap())
            .collect();
        let key = constraint["topologyKey"].as_str().unwrap();
        let mut counts = BTreeMap::new();
        for (name, node) in &self.nodes {
            let labels = &node["metadata"]["labels"];
            let eligible = keys.iter().all(|key| !labels[*key].is_null())
                && (constraint["nodeAffinityPolicy"] == "Ignore" || Self::selected(pod, node))
                && (constraint["nodeTaintsPolicy"] != "Honor"
                    || array(node, "/spec/taints")
                        .all(|taint| array(pod, "/spec/tolerations").any(|t| t["key"] == taint["key"])));
            if eligible {
                let found = self.on(name).filter(|other| Self::counts_for(pod, constraint, other)).count();
                *counts.entry(labels[key].as_str().unwrap().to_owned()).or_insert(0) += i64::try_from(found).unwrap();
            }
        }
        counts
    }

    fn spreads(&self, pod: &Value, node: &Value) -> bool {
        let mut hard =
            array(pod, "/spec/topologySpreadConstraints").filter(|c| c["whenUnsatisfiable"] == "DoNotSchedule");
        hard.all(|constraint| {
            let Some(domain) = node["metadata"]["labels"][constraint["topologyKey"].as_str().unwrap()].as_str() else {
                return false;
            };
            let counts = self.domains(pod, constraint, true);
            let few = (counts.len() as i64) < constraint["minDomains"].as_i64().unwrap_or(1);
            let fewest = if few { 0 } else { counts.values().copied().min().unwrap_or(0) };
            let itself = i64::from(selects(&constraint["labelSelector"], &pod["metadata"]["labels"]));
            counts.get(domain).copied().unwrap_or(0) + itself - fewest <= constraint["maxSkew"].as_i64().unwrap()
        })
    }

    /// What InterPodAffinity adds to each of the feasible nodes.
    fn affinity_scores(&self, pod: &Value, feasible: &[&Value]) -> Vec<i64> {
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        let raw = |node: &&Value| {
            let mut sum = 0;
            for (kind, sign) in [("podAffinity", 1), ("podAntiAffinity", -1)] {
                for wish in array(pod, &format!("/spec/affinity/{kind}/{preferred}")) {
                    let term = &wish["podAffinityTerm"];
                    let key = term["topologyKey"].as_str().unwrap();
                    let found = self.in_domain(node, key, |other| self.means(term, pod, other));
                    sum += sign * wish["weight"].as_i64().unwrap() * found;
                }
                for placed in self.pods.values() {
                    let at = placed["spec"]["nodeName"].as_str().unwrap();
                    let speaks = |term: &Value| {
                        self.domain(node, term["topologyKey"].as_str().unwrap()).any(|n| n["metadata"]["name"] == at)
                            && self.means(term, placed, pod)
                    };
                    for wish in array(placed, &format!("/spec/affinity/{kind}/{preferred}")) {
                        if speaks(&wish["podAffinityTerm"]) {
                            sum += sign * wish["weight"].as_i64().unwrap();
                        }
                    }
                    let required = "/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution";
                    if sign > 0 {
                        sum += i64::try_from(array(placed, required).filter(|term| speaks(term)).count()).unwrap();
                    }
                }
            }
            sum
        };
        let raw: Vec<i64> = feasible.iter().map(raw).collect();
        let (least, most) = (raw.iter().min().unwrap(), raw.iter().max().unwrap());
        raw.iter().map(|s| if least == most { 0 } else { (s - least) * 100 / (most - least) }).collect()
    }

    /// What PodTopologySpread adds.
    fn spread_scores(&self, pod: &Value, feasible: &[&Value]) -> Vec<i64> {
        let soft: Vec<&Value> = array(pod, "/spec/topologySpreadConstraints")
            .filter(|c| c["whenUnsatisfiable"] == "ScheduleAnyway")
            .collect();
        if soft.is_empty() {
            return vec![0; feasible.len()];
        }
        let label = |node: &Value, c: &Value| {
            node["metadata"]["labels"][c["topologyKey"].as_str().unwrap()].as_str().map(str::to_owned)
        };
        let scored = |node: &Value| soft.iter().all(|c| label(node, c).is_some());
        let raw = |node: &&Value| {
            if !scored(node) {
                return -1;
            }
            let mut sum = 0.0;
            for c in &soft {
                let domains: BTreeSet<String> =
                    feasible.iter().filter(|n| scored(n)).filter_map(|n| label(n, c)).collect();
                let here = self.domains(pod, c, false).get(&label(node, c).unwrap()).copied().unwrap_or(0);
                sum += here as f64 * ((domains.len() + 2) as f64).ln() + (c["maxSkew"].as_i64().unwrap() - 1) as f64;
            }
            sum.round() as i64
        };
        let raw: Vec<i64> = feasible.iter().map(raw).collect();
        let valid: Vec<i64> = raw.iter().copied().filter(|s| *s >= 0).collect();
        let (least, most) = (valid.iter().min().copied().unwrap_or(0), valid.iter().max().copied().unwrap_or(0));
        let scale = |s: i64| match (s, most) {
            (s, _) if s < 0 => 0,
            (_, 0) => 100,
            (s, most) => 100 * (most + least - s) / most,
        };
        raw.iter().map(|s| scale(*s)).collect()
    }
}

struct Random(SmallRng);

impl Random {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.0.random_range(0..of.len())]
    }

    fn chance(&mut self, p: f64) -> bool {
        self.0.random_bool(p)
    }

    fn node(&mut self, name: &str) -> Value {
        let mut labels = json!({"kubernetes.io/hostname": name, "disk": self.one(&["ssd", "hdd"])});
        if self.chance(0.8) {
            labels["zone"] = self.one(&["a", "b", "c"]).into();
        }
        let taints = if self.chance(0.2) { json!([{"key": "k", "effect": "NoSchedule"}]) } else { json!([]) };
        json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints},
               "status": {"allocatable": {"cpu": self.0.random_range(4..12), "memory": "64Gi", "pods": 110}}})
    }

    fn selector(&mut self) -> Value {
        let app = self.one(&["x", "y"]);
        match self.0.random_range(0..3) {
            0 => json!({"matchLabels": {"app": app}}),
            1 => json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [app]}]}),
            _ => json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
        }
    }

    fn term(&mut self) -> Value {
        let key = self.one(&["zone", "kubernetes.io/hostname"]);
        let mut term = json!({"topologyKey": key, "labelSelector": self.selector()});
        match self.0.random_range(0..4) {
            0 => term["namespaces"] = json!([self.one(&["m", "n"])]),
            1 => term["namespaceSelector"] = json!({"matchLabels": {"team": self.one(&["red", "blue"])}}),
            2 => term["namespaceSelector"] = json!({}),
            _ => {}
        }
        term
    }

    fn pod(&mut self, name: &str) -> Value {
        let mut labels = json!({"app": self.one(&["x", "y"])});
        if self.chance(0.3) {
            labels["tier"] = "front".into();
        }
        let mut spec = json!({"containers": [{"resources": {"requests": {"cpu": self.0.random_range(0..3)}}}]});
        if self.chance(0.3) {
            spec["nodeSelector"] = json!({"disk": self.one(&["ssd", "hdd"])});
        }
        if self.chance(0.5) {
            spec["tolerations"] = json!([{"key": "k", "operator": "Exists"}]);
        }
        for kind in ["podAffinity", "podAntiAffinity"] {
            if self.chance(0.15) {
                let terms: Vec<Value> = (0..self.0.random_range(1..3)).map(|_| self.term()).collect();
                spec["affinity"][kind]["requiredDuringSchedulingIgnoredDuringExecution"] = terms.into();
            }
            if self.chance(0.25) {
                let wish = json!({"weight": self.0.random_range(1..50), "podAffinityTerm": self.term()});
                spec["affinity"][kind]["preferredDuringSchedulingIgnoredDuringExecution"] = json!([wish]);
            }
        }
        if self.chance(0.4) {
            let constraints: Vec<Value> = (0..self.0.random_range(1..3)).map(|_| self.constraint()).collect();
            spec["topologySpreadConstraints"] = constraints.into();
        }
        json!({"metadata": {"name": name, "uid": name, "namespace": self.one(&["m", "n"]), "labels": labels}, "spec": spec})
    }

    fn constraint(&mut self) -> Value {
        let mut constraint = json!({
            "maxSkew": self.0.random_range(1..3), "topologyKey": self.one(&["zone", "kubernetes.io/hostname"]),
            "whenUnsatisfiable": self.one(&["DoNotSchedule", "ScheduleAnyway"]), "labelSelector": self.selector(),
            "nodeAffinityPolicy": self.one(&["Honor", "Ignore"]), "nodeTaintsPolicy": self.one(&["Honor", "Ignore"]),
        });
        if constraint["whenUnsatisfiable"] == "DoNotSchedule" && self.chance(0.3) {
            constraint["minDomains"] = self.0.random_range(1..5).into();
        }
        constraint
    }
}

/// Both pictures of one cluster.
struct Both {
    plain: Plain,
    cache: Cache,
    specs: crate::spec::Specs,
}

impl Both {
    fn read(&mut self, object: &Value) -> Pod {
        Pod::read(serde_json::from_value(object.clone()).unwrap(), &mut self.specs)
    }

    fn set_node(&mut self, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.cache.set_node(node(&name, "0", |node| *node = object.clone()));
        self.plain.nodes.insert(name, object);
    }

    fn set_pod(&mut self, object: Value) {
        let pod = self.read(&object);
        self.cache.set_pod(Arc::new(pod));
        self.plain.pods.insert(object["metadata"]["name"].as_str().unwrap().to_owned(), object);
    }

    fn set_namespace(&mut self, name: &str, labels: Value) {
        let meta: Meta = serde_json::from_value(json!({"labels": labels})).unwrap();
        self.cache.set_namespace(name, Some(meta.labels));
        self.plain.namespaces.insert(name.to_owned(), labels);
    }

    /// Something else than a decision happens.
    fn disturb(&mut self, random: &mut Random) {
        let pods: Vec<String> = self.plain.pods.keys().cloned().collect();
        let names: Vec<String> = self.plain.nodes.keys().cloned().collect();
        let any = |random: &mut Random, list: &[String]| list[random.0.random_range(0..list.len())].clone();
        match random.0.random_range(0..6) {
            0 if !pods.is_empty() => {
                let name = any(random, &pods);
                self.plain.pods.remove(&name);
                self.cache.remove_pod(&name);
            }
            1 if !pods.is_empty() => {
                let mut pod = self.plain.pods[&any(random, &pods)].clone();
                pod["metadata"]["labels"]["app"] = random.one(&["x", "y"]).into();
                self.set_pod(pod);
            }
            2 if !pods.is_empty() => {
                let mut pod = self.plain.pods[&any(random, &pods)].clone();
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                self.set_pod(pod);
            }
            3 => {
                let name = any(random, &names);
                let node = random.node(&name);
                self.set_node(node);
            }
            4 if names.len() > 2 => {
                let name = any(random, &names);
                self.plain.nodes.remove(&name);
                self.cache.remove_node(&name);
                // Pods on it are nowhere until it comes back; the plain picture knows no such pods.
                let there: Vec<String> =
                    pods.into_iter().filter(|p| self.plain.pods[p]["spec"]["nodeName"] == *name).collect();
                for pod in there {
                    self.plain.pods.remove(&pod);
                    self.cache.remove_pod(&pod);
                }
            }
            5 => self.set_namespace("m", json!({"team": random.one(&["red", "blue"])})),
            _ => {}
        }
    }

    fn compare(&mut self, object: &Value) -> Option<String> {
        let mut profile = profile();
        // Scores of the others are tested beside them; here they would only blur.
        let compared = |name: &str| matches!(name, "PodTopologySpread" | "InterPodAffinity");
        profile.rules.iter_mut().for_each(|rule| rule.scores = compared(rule.plugin.name()));
        profile.percentage_of_nodes_to_score = 100;
        let pod = self.read(object);
        let task = Task { pod: &pod, profile: &profile, defaults: &[] };
        let found = feasible(&task, &mut self.cache, &mut Turn::default());
        let fitting: Vec<&Value> = self.plain.nodes.values().filter(|node| self.plain.fits(object, node)).collect();
        let name = |node: &Value| node["metadata"]["name"].as_str().unwrap().to_owned();
        let expected: BTreeSet<String> = fitting.iter().map(|node| name(node)).collect();
        let mut slots = found.unwrap_or_default();
        slots.sort_by_key(|slot| self.cache.node(*slot).offer.name.clone());
        let names: Vec<String> = slots.iter().map(|slot| self.cache.node(*slot).offer.name.to_string()).collect();
        assert_eq!(names.iter().cloned().collect::<BTreeSet<_>>(), expected, "feasible for {object:#}");
        if slots.len() > 1 {
            let affinity = self.plain.affinity_scores(object, &fitting);
            let spread = self.plain.spread_scores(object, &fitting);
            let plain: Vec<i64> = affinity.iter().zip(&spread).map(|(a, s)| 2 * a + 2 * s).collect();
            assert_eq!(totals(&task, &self.cache, &slots, &[]), plain, "scores for {object:#}");
        }
        names.first().cloned()
    }
}

#[test]
fn decisions_agree_with_a_plain_reading_of_the_rules() {
    for seed in 0..60 {
        let mut random = Random(SmallRng::seed_from_u64(seed));
        let mut both = Both { plain: Plain::default(), cache: Cache::default(), specs: crate::spec::Specs::default() };
        both.set_namespace("m", json!({"team": "red"}));
        both.set_namespace("n", json!({"team": "blue"}));
        for number in 0..random.0.random_range(2..9) {
            let node = random.node(&format!("n{number}"));
            both.set_node(node);
        }
        for number in 0..40 {
            let mut pod = random.pod(&format!("p{number}"));
            if let Some(node) = both.compare(&pod) {
                pod["spec"]["nodeName"] = node.into();
                both.set_pod(pod);
            }
            if random.chance(0.4) {
                both.disturb(&mut random);
            }
        }
    }
}
