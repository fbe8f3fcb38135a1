//! What the endpoints controllers share: which Services a pod concerns, and what a Service's ports are at a pod.

use std::sync::Arc;

use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use client::{Change, Informer, WorkQueue};
use serde_json::{Value, json};

use crate::{object, pods, worker};

/// Marks both kinds of objects of a Service without an address of its own.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// The Service's pods are chosen by labels, so its endpoints are this process's business.
pub fn is_managed(service: &Value) -> bool {
    object::text(service, "/spec/type") != "ExternalName"
        && object::map(service, "/spec/selector").is_some_and(|selector| !selector.is_empty())
}

/// Has no address of its own.
pub fn is_headless(service: &Value) -> bool {
    object::text(service, "/spec/clusterIP") == "None"
}

/// Unready pods count as ready.
pub fn publishes_unready(service: &Value) -> bool {
    service["spec"]["publishNotReadyAddresses"] == true
}

fn selects(service: &Value, pod: &Value) -> bool {
    let Some(selector) = object::map(service, "/spec/selector").filter(|s| !s.is_empty()) else { return false };
    LabelSelector::from_map(selector).matches(meta::labels(pod))
}

/// The Service's pods that can have endpoints: with an address and not finished, in the order of their names.
pub fn pods_of(service: &Value, all: &Informer) -> Vec<Arc<Value>> {
    let serves = |pod: &Arc<Value>| {
        selects(service, pod) && !pods::is_finished(pod) && !object::text(pod, "/status/podIP").is_empty()
    };
    let mut chosen: Vec<Arc<Value>> = all.each_in(meta::namespace(service)).filter(serves).collect();
    chosen.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
    chosen
}

/// Wakes a Service for its own changes and for those of pods that it selects or did select.
pub fn watch(services: &Informer, pods: &Informer, queue: &WorkQueue<String>) {
    let to = queue.clone();
    worker::on_change(services, move |change| to.add(meta::key(change.object())));
    let (services, to) = (services.clone(), queue.clone());
    worker::on_change(pods, move |change| {
        let (old, new) = match &change {
            Change::Applied { old, new } => (old.as_ref(), new),
            Change::Deleted(last) => (None, last),
        };
        if old.is_some_and(|old| shows_the_same(old, new)) {
            return;
        }
        for service in services.list_namespace(meta::namespace(new)) {
            if selects(&service, new) || old.is_some_and(|old| selects(&service, old)) {
                to.add(meta::key(&service));
            }
        }
    });
}

/// Nothing that an endpoint shows, or that decides whose endpoint it is, has changed.
fn shows_the_same(old: &Value, new: &Value) -> bool {
    let shown = |pod: &Value| {
        let of = |pointer: &str| pod.pointer(pointer).cloned();
        let fields = ["/metadata/labels", "/status/podIPs", "/status/podIP", "/status/phase", "/spec/nodeName"].map(of);
        (fields, pods::is_terminating(pod), pods::is_ready(pod), meta::uid(pod).to_owned())
    };
    shown(old) == shown(new)
}

/// The Service's ports as they are at one pod, sorted. A named target that the pod does not have is left out.
pub fn ports_at(service: &Value, pod: &Value) -> Vec<Value> {
    let resolve = |port: &Value| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let number = match &port["targetPort"] {
            Value::String(name) => container_port(pod, name, protocol)?,
            Value::Number(number) if number.as_i64() != Some(0) => number.as_i64()?,
            _ => port["port"].as_i64()?,
        };
        let mut resolved =
            json!({"name": port["name"].as_str().unwrap_or_default(), "protocol": protocol, "port": number});
        if let Some(application) = port["appProtocol"].as_str() {
            resolved["appProtocol"] = application.into();
        }
        Some(resolved)
    };
    let mut ports: Vec<Value> = object::list(service, "/spec/ports").iter().filter_map(resolve).collect();
    ports.sort_by_key(|port| (port["name"].to_string(), port["protocol"].to_string(), port["port"].as_i64()));
    ports
}

fn container_port(pod: &Value, name: &str, protocol: &str) -> Option<i64> {
    let restartable = object::list(pod, "/spec/initContainers").iter().filter(|c| c["restartPolicy"] == "Always");
    let containers = object::list(pod, "/spec/containers").iter().chain(restartable);
    let mut ports = containers.flat_map(|c| object::list(c, "/ports"));
    let found = ports.find(|p| p["name"] == name && p["protocol"].as_str().unwrap_or("TCP") == protocol)?;
    found["containerPort"].as_i64()
}

/// The pod's stable host name, where this Service is the one that gives it.
pub fn hostname<'a>(service: &Value, pod: &'a Value) -> Option<&'a str> {
    let hostname = object::text(pod, "/spec/hostname");
    let subdomain = object::text(pod, "/spec/subdomain");
    (!hostname.is_empty() && is_headless(service) && subdomain == meta::name(service)).then_some(hostname)
}

/// A reference to the pod behind an endpoint.
pub fn target(pod: &Value) -> Value {
    json!({"kind": "Pod", "namespace": meta::namespace(pod), "name": meta::name(pod), "uid": meta::uid(pod)})
}
