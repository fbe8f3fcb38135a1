//! The downward API: fields and resource amounts of a pod as text. Pure.

use serde_json::Value;

use crate::pod::{Container, Map, Pod, ResourceFieldRef, amount};
use crate::sync::resources::limit;

/// What a field can refer to beside the pod itself.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The node's name.
    pub node_name: String,
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// The node's allocatable amounts, which stand in for missing limits.
    pub allocatable: Map,
}

/// Evaluates a `fieldRef`.
///
/// # Errors
/// The path is not one the API defines.
pub fn field(pod: &Pod, around: &Surroundings, path: &str) -> Result<String, String> {
    let metadata = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return Err(unsupported(path)),
        };
        return Ok(map.get(key).cloned().unwrap_or_default());
    }
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "metadata.labels" => format_map(&metadata.labels),
        "metadata.annotations" => format_map(&metadata.annotations),
        "spec.nodeName" => around.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" => first(&around.host_ips),
        "status.hostIPs" => around.host_ips.join(","),
        "status.podIP" => first(&around.pod_ips),
        "status.podIPs" => around.pod_ips.join(","),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> String {
    format!("unsupported fieldPath: {path}")
}

/// `metadata.labels['key']` into its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// One `key="value"` line for each entry, in order of keys.
fn format_map(map: &Map) -> String {
    map.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect::<Vec<_>>().join("\n")
}

/// Quotes as Go's strconv does, which whoever reads such files expects.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Evaluates a `resourceFieldRef`.
///
/// # Errors
/// No such container or resource.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    around: &Surroundings,
    reference: &ResourceFieldRef,
) -> Result<String, String> {
    let container = if reference.container_name.is_empty() { own } else { pod.container(&reference.container_name) };
    let container = container.ok_or_else(|| format!("container {} not found", reference.container_name))?;
    let (kind, name) =
        reference.resource.split_once('.').ok_or_else(|| format!("unsupported resource: {}", reference.resource))?;
    let amount = match kind {
        "limits" => match limit(pod, container, name) {
            0 if matches!(name, "cpu" | "memory" | "ephemeral-storage") => amount(&around.allocatable, name),
            limit => limit,
        },
        "requests" => amount(&container.resources.requests, name),
        _ => return Err(format!("unsupported resource: {}", reference.resource)),
    };
    let divisor = match &reference.divisor {
        Value::String(text) => apimachinery::quantity::Quantity::parse(text).map_or(0, |q| q.milli()),
        Value::Number(number) => i128::from(number.as_i64().unwrap_or(0)) * 1000,
        _ => 0,
    };
    let divisor = if divisor <= 0 { 1000 } else { divisor };
    Ok(((amount + divisor - 1) / divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        Pod::from_value(&json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"b": "2", "a": "x\"y"}, "annotations": {"k/l": "v"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "100Mi"}}}]},
        }))
        .unwrap()
    }

    #[test]
    fn fields_are_text() {
        let around = Surroundings { pod_ips: vec!["1.2.3.4".into(), "::1".into()], ..Surroundings::default() };
        let get = |path: &str| field(&pod(), &around, path);
        assert_eq!(get("metadata.name").unwrap(), "p");
        assert_eq!(get("metadata.annotations['k/l']").unwrap(), "v");
        assert_eq!(get("metadata.labels").unwrap(), "a=\"x\\\"y\"\nb=\"2\"");
        assert_eq!(get("status.podIP").unwrap(), "1.2.3.4");
        assert_eq!(get("status.podIPs").unwrap(), "1.2.3.4,::1");
        assert!(get("spec.nope").is_err());
    }

    #[test]
    fn values_are_quoted_as_go_does() {
        for (text, expected) in [
            ("plain 'é'", "\"plain 'é'\""),
            ("\"\\", "\"\\\"\\\\\""),
            ("a\n\t\u{7}", "\"a\\n\\t\\a\""),
            ("\u{0}\u{1b}\u{85}", "\"\\x00\\x1b\\u0085\""),
            ("\u{301}", "\"\u{301}\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn amounts_are_divided_and_rounded_up() {
        let around =
            Surroundings { allocatable: Map::from([("memory".into(), "2Gi".into())]), ..Surroundings::default() };
        let pod = pod();
        let get = |resource_name: &str, divisor: &str| {
            let reference = ResourceFieldRef {
                resource: resource_name.into(),
                divisor: json!(divisor),
                ..ResourceFieldRef::default()
            };
            resource(&pod, pod.spec.containers.first(), &around, &reference).unwrap()
        };
        assert_eq!(get("limits.cpu", "0"), "2");
        assert_eq!(get("limits.cpu", "1m"), "1500");
        assert_eq!(get("requests.memory", "1Mi"), "100");
        assert_eq!(get("limits.memory", "1Gi"), "2");
    }
}
