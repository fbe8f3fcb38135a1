//! A container's environment, command and arguments. Pure: ConfigMaps and Secrets come in as a lookup.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::fields::{self, Surroundings};
use crate::pod::{Container, EnvSource, FileKeyRef, KeyRef, Pod};

/// The two kinds of objects a variable can come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// ConfigMap.
    ConfigMap,
    /// Secret.
    Secret,
}

/// Finds an object of the pod's namespace.
pub type Lookup<'a> = dyn Fn(Kind, &str) -> Option<Arc<Value>> + Sync + 'a;

/// The text of a file in a volume, by the volume's name and the path in it; nothing if there is no such file.
pub type Files<'a> = dyn Fn(&str, &str) -> Result<Option<String>, String> + Sync + 'a;

/// The value of one key; a Secret's is decoded.
pub fn data(kind: Kind, object: &Value, key: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
    match kind {
        Kind::ConfigMap => match object["data"][key].as_str() {
            Some(text) => Some(text.as_bytes().to_vec()),
            None => object["binaryData"][key].as_str().and_then(decode),
        },
        Kind::Secret => object["data"][key].as_str().and_then(decode),
    }
}

/// All keys of an object in order.
pub fn keys(kind: Kind, object: &Value) -> Vec<String> {
    let fields: &[&str] = if kind == Kind::ConfigMap { &["data", "binaryData"] } else { &["data"] };
    let mut keys: Vec<String> =
        fields.iter().filter_map(|f| object[*f].as_object()).flat_map(|m| m.keys().cloned()).collect();
    keys.sort();
    keys
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmap",
            Kind::Secret => "secret",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
        }
    }
}

/// The environment in order: `envFrom`, then `env`, then the services' variables that nothing overrode.
///
/// # Errors
/// Something that is not optional is missing; the text is what the container's status shows.
pub fn environment(
    pod: &Pod,
    container: &Container,
    services: &BTreeMap<String, String>,
    around: &Surroundings,
    lookup: &Lookup<'_>,
    files: &Files<'_>,
) -> Result<Vec<(String, String)>, String> {
    let mut result: Vec<(String, String)> = Vec::new();
    let set = |result: &mut Vec<(String, String)>, name: &str, value: String| match result
        .iter_mut()
        .find(|(n, _)| n == name)
    {
        Some(slot) => slot.1 = value,
        None => result.push((name.to_owned(), value)),
    };
    for source in &container.env_from {
        let (kind, reference) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(r), _) => (Kind::ConfigMap, r),
            (_, Some(r)) => (Kind::Secret, r),
            _ => continue,
        };
        let Some(object) = lookup(kind, &reference.name) else {
            if reference.optional {
                continue;
            }
            return Err(format!("{} {:?} not found", kind.name(), reference.name));
        };
        for key in keys(kind, &object) {
            let value = data(kind, &object, &key).unwrap_or_default();
            set(&mut result, &format!("{}{key}", source.prefix), String::from_utf8_lossy(&value).into_owned());
        }
    }
    for variable in &container.env {
        let value = match (&variable.value_from, &variable.value) {
            (Some(source), _) => match from_source(pod, container, source, around, lookup, files)? {
                Some(value) => value,
                None => continue,
            },
            (None, Some(value)) => expand(value, &|name| find(&result, services, name)),
            (None, None) => String::new(),
        };
        set(&mut result, &variable.name, value);
    }
    for (name, value) in services {
        if !result.iter().any(|(n, _)| n == name) {
            result.push((name.clone(), value.clone()));
        }
    }
    Ok(result)
}

fn find(result: &[(String, String)], services: &BTreeMap<String, String>, name: &str) -> Option<String> {
    result.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).or_else(|| services.get(name).cloned())
}

fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvSource,
    around: &Surroundings,
    lookup: &Lookup<'_>,
    files: &Files<'_>,
) -> Result<Option<String>, String> {
    if let Some(reference) = &source.file_key_ref {
        return from_file(reference, files);
    }
    if let Some(reference) = &source.field_ref {
        return fields::field(pod, around, &reference.field_path).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return fields::resource(pod, Some(container), around, reference).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        return key_of(Kind::ConfigMap, pod, reference, lookup);
    }
    if let Some(reference) = &source.secret_key_ref {
        return key_of(Kind::Secret, pod, reference, lookup);
    }
    Ok(Some(String::new()))
}

fn from_file(reference: &FileKeyRef, files: &Files<'_>) -> Result<Option<String>, String> {
    let FileKeyRef { volume_name, path, key, optional } = reference;
    let found = match files(volume_name, path)? {
        Some(text) => {
            super::env_file::find(&text, key).map_err(|e| format!("couldn't parse env file {path:?}: {e}"))?
        }
        None => None,
    };
    match found {
        None if !*optional => Err(format!("environment variable key {key:?} not found in file {path:?}")),
        found => Ok(found),
    }
}

fn key_of(kind: Kind, pod: &Pod, reference: &KeyRef, lookup: &Lookup<'_>) -> Result<Option<String>, String> {
    let Some(object) = lookup(kind, &reference.name) else {
        return if reference.optional {
            Ok(None)
        } else {
            Err(format!("{} {:?} not found", kind.name(), reference.name))
        };
    };
    match data(kind, &object, &reference.key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        None if reference.optional => Ok(None),
        None => {
            let namespace = &pod.metadata.namespace;
            Err(format!("couldn't find key {} in {} {namespace}/{}", reference.key, kind.title(), reference.name))
        }
    }
}

/// Replaces `$(NAME)`; `$$` stands for `$`, and what cannot be resolved stays as it is.
pub fn expand(text: &str, get: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match get(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The variables that announce services: docker's link form, for the pod's namespace and the API server.
pub fn service_variables(services: &[Arc<Value>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let (name, own) = (text(service, "name"), text(service, "namespace") == namespace);
        let master = name == "kubernetes" && text(service, "namespace") == "default";
        if !(master || (links && own)) {
            continue;
        }
        let ip = service["spec"]["clusterIP"].as_str().unwrap_or_default();
        if matches!(ip, "" | "None") {
            continue;
        }
        one_service(
            &mut variables,
            name,
            ip,
            service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default(),
        );
    }
    variables
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn shout(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn one_service(variables: &mut BTreeMap<String, String>, name: &str, ip: &str, ports: &[Value]) {
    let prefix = shout(name);
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    variables.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    for (index, port) in ports.iter().enumerate() {
        let number = port["port"].as_u64().unwrap_or(0);
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let url = format!("{}://{host}:{number}", protocol.to_lowercase());
        if index == 0 {
            variables.insert(format!("{prefix}_SERVICE_PORT"), number.to_string());
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        if let Some(port_name) = port["name"].as_str().filter(|n| !n.is_empty()) {
            variables.insert(format!("{prefix}_SERVICE_PORT_{}", shout(port_name)), number.to_string());
        }
        let long = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        variables.insert(format!("{long}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{long}_PORT"), number.to_string());
        variables.insert(format!("{long}_ADDR"), ip.to_owned());
        variables.insert(long, url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_expanded_and_escapes_kept() {
        let get = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expected) in [
            ("$(A)-$(B)", "1-$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(text, &get), expected, "{text}");
        }
    }

    fn run(container: Value, services: &BTreeMap<String, String>) -> Result<Vec<(String, String)>, String> {
        let pod =
            Pod::from_value(&json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [container]}}))
                .unwrap();
        let lookup = |kind: Kind, name: &str| match (kind, name) {
            (Kind::ConfigMap, "m") => Some(Arc::new(json!({"data": {"x": "1", "y": "2"}}))),
            (Kind::Secret, "s") => Some(Arc::new(json!({"data": {"k": "c2VjcmV0"}}))),
            _ => None,
        };
        let files = |volume: &str, path: &str| match (volume, path) {
            ("v", "vars") => Ok(Some("F='from file'".to_owned())),
            ("v", _) => Ok(None),
            _ => Err("no such volume".to_owned()),
        };
        environment(&pod, &pod.spec.containers[0], services, &Surroundings::default(), &lookup, &files)
    }

    #[test]
    fn files_of_volumes_have_variables() {
        let none = BTreeMap::new();
        let of = |reference: Value| run(json!({"env": [{"name": "A", "valueFrom": {"fileKeyRef": reference}}]}), &none);
        let found = of(json!({"volumeName": "v", "path": "vars", "key": "F"})).unwrap();
        assert_eq!(found, [("A".to_owned(), "from file".to_owned())]);
        let missing = of(json!({"volumeName": "v", "path": "other", "key": "F"})).unwrap_err();
        assert_eq!(missing, "environment variable key \"F\" not found in file \"other\"");
        assert!(of(json!({"volumeName": "v", "path": "vars", "key": "G", "optional": true})).unwrap().is_empty());
        assert!(of(json!({"volumeName": "w", "path": "vars", "key": "F"})).is_err());
    }

    #[test]
    fn later_sources_override_earlier_ones() {
        let services = BTreeMap::from([("H".to_owned(), "10.0.0.1".to_owned()), ("P_x".to_owned(), "svc".to_owned())]);
        let env = run(
            json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}], "env": [
                {"name": "P_y", "value": "3"}, {"name": "U", "value": "http://$(H)/$(P_y)"},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
            ]}),
            &services,
        )
        .unwrap();
        let expected = [("P_x", "1"), ("P_y", "3"), ("U", "http://10.0.0.1/3"), ("S", "secret"), ("H", "10.0.0.1")];
        assert_eq!(env, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = BTreeMap::new();
        let missing = |container| run(container, &none).unwrap_err();
        assert_eq!(missing(json!({"envFrom": [{"secretRef": {"name": "z"}}]})), "secret \"z\" not found");
        let key = json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "q"}}}]});
        assert_eq!(missing(key), "couldn't find key q in ConfigMap n/m");
    }

    #[test]
    fn services_are_announced_in_link_form() {
        let service = |name: &str, namespace: &str, ip: &str| {
            Arc::new(json!({"metadata": {"name": name, "namespace": namespace},
                "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}}))
        };
        let all = [
            service("my-web", "n", "10.0.0.2"),
            service("kubernetes", "default", "10.0.0.1"),
            service("far", "m", "10.0.0.3"),
            service("less", "n", "None"),
        ];
        let variables = service_variables(&all, "n", true);
        assert_eq!(variables["MY_WEB_SERVICE_HOST"], "10.0.0.2");
        assert_eq!(variables["MY_WEB_SERVICE_PORT_HTTP"], "80");
        assert_eq!(variables["MY_WEB_PORT_80_TCP"], "tcp://10.0.0.2:80");
        assert_eq!(variables["KUBERNETES_PORT"], "tcp://10.0.0.1:80");
        assert!(!variables.keys().any(|k| k.starts_with("FAR") || k.starts_with("LESS")));
        assert!(!service_variables(&all, "n", false).contains_key("MY_WEB_SERVICE_HOST"));
    }
}
