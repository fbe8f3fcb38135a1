//! Reading measurements through the metrics APIs: resource metrics from metrics.k8s.io, others from custom.metrics.k8s.io
//! and external.metrics.k8s.io. Paths and parsing are pure.

use apimachinery::meta;
use apimachinery::quantity::Quantity;
use jiff::Timestamp;
use serde_json::Value;

use super::replicas::{Sample, Samples};
use crate::{clock, object};

/// Percent-encodes a query value.
fn encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn query(parameters: &[(&str, &str)]) -> String {
    let set = parameters.iter().filter(|(_, value)| !value.is_empty());
    let parts: Vec<String> = set.map(|(name, value)| format!("{name}={}", encode(value))).collect();
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

/// CPU and memory of the pods of a selector.
pub(super) fn resource_path(namespace: &str, selector: &str) -> String {
    format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods{}", query(&[("labelSelector", selector)]))
}

/// A metric of the pods of a selector.
pub(super) fn pods_path(namespace: &str, selector: &str, metric: &str, metric_selector: &str) -> String {
    let query = query(&[("labelSelector", selector), ("metricLabelSelector", metric_selector)]);
    format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/pods/*/{metric}{query}")
}

/// A metric of one object.
pub(super) fn object_path(namespace: &str, resource: &str, name: &str, metric: &str, metric_selector: &str) -> String {
    let query = query(&[("metricLabelSelector", metric_selector)]);
    format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/{resource}/{name}/{metric}{query}")
}

/// A metric of something outside of the cluster.
pub(super) fn external_path(namespace: &str, metric: &str, selector: &str) -> String {
    let query = query(&[("labelSelector", selector)]);
    format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}{query}")
}

fn milli(value: &Value) -> Option<i128> {
    Quantity::parse(value.as_str()?).ok().map(|quantity| quantity.milli())
}

fn window(text: Option<&str>) -> i64 {
    text.and_then(|t| t.strip_suffix('s')).and_then(|t| t.split('.').next()?.parse().ok()).unwrap_or(60)
}

/// Usage of a resource by pod, of all containers or of one.
pub(super) fn resource_samples(list: &Value, resource: &str, container: Option<&str>, now: Timestamp) -> Samples {
    let read = |pod: &Value| {
        let at = pod["timestamp"].as_str().and_then(clock::parse).unwrap_or(now);
        let mut sum = 0;
        let containers = object::list(pod, "/containers").iter();
        for each in containers.filter(|c| container.is_none_or(|name| c["name"] == name)) {
            // One container without a value makes the pod's unknown.
            sum += milli(&each["usage"][resource])?;
        }
        Some((meta::name(pod).to_owned(), Sample { milli: sum, at, window: window(pod["window"].as_str()) }))
    };
    object::list(list, "/items").iter().filter_map(read).collect()
}

/// A custom metric by the name of what it describes.
pub(super) fn custom_samples(list: &Value, now: Timestamp) -> Samples {
    let read = |item: &Value| {
        let at = item["timestamp"].as_str().and_then(clock::parse).unwrap_or(now);
        let window = item["windowSeconds"].as_i64().unwrap_or(60);
        let name = object::text(item, "/describedObject/name").to_owned();
        Some((name, Sample { milli: milli(&item["value"])?, at, window }))
    };
    object::list(list, "/items").iter().filter_map(read).collect()
}

/// The sum of an external metric.
pub(super) fn external_sum(list: &Value) -> Option<i128> {
    let items = object::list(list, "/items");
    (!items.is_empty()).then(|| items.iter().filter_map(|item| milli(&item["value"])).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_and_answers() {
        assert_eq!(
            resource_path("n", "a in (b)"),
            "/apis/metrics.k8s.io/v1beta1/namespaces/n/pods?labelSelector=a%20in%20%28b%29"
        );
        assert_eq!(external_path("n", "queue", ""), "/apis/external.metrics.k8s.io/v1beta1/namespaces/n/queue");
        let usage = |name: &str, cpu: &str| json!({"name": name, "usage": {"cpu": cpu}});
        let list = json!({"items": [
            {"metadata": {"name": "a"}, "timestamp": "2026-01-01T00:00:00Z", "window": "30s",
             "containers": [usage("x", "100m"), usage("y", "150m")]},
            {"metadata": {"name": "b"}, "containers": [{"name": "x", "usage": {}}]}]});
        let now = Timestamp::UNIX_EPOCH;
        let all = resource_samples(&list, "cpu", None, now);
        assert_eq!((all.len(), all["a"].milli, all["a"].window), (1, 250, 30));
        assert_eq!(resource_samples(&list, "cpu", Some("y"), now)["a"].milli, 150);
        let custom = json!({"items": [{"describedObject": {"name": "p"}, "value": "2"}]});
        assert_eq!(custom_samples(&custom, now)["p"].milli, 2000);
        assert_eq!(external_sum(&json!({"items": [{"value": "1"}, {"value": "500m"}]})), Some(1500));
        assert_eq!(external_sum(&json!({"items": []})), None);
    }
}
