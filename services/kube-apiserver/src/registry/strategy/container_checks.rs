//! What makes a container well formed.

use std::collections::BTreeSet;

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::checks::{
    config_key, dns_label, dns_subdomain, env_var_name, named, one_of, optional_named, port, port_name, qualified_name,
    required_named, required_one_of,
};
use super::probe_checks::{handler, probe};
use super::tree::{at, bool_at, has, int_at, items, str_at};
use super::volume_checks::{Volumes, mounts};
use crate::errors::FieldError;

/// What a container is judged by besides itself.
pub struct Scope<'a> {
    /// Volumes of the pod.
    pub volumes: &'a Volumes<'a>,
    /// The pod uses the host's network, so host ports must equal container ports.
    pub host_network: bool,
    /// How long the pod has to stop, seconds.
    pub grace: i64,
    /// Resource claims of the pod by name.
    pub claims: &'a BTreeSet<&'a str>,
    /// It belongs to a pod, not to a template of pods.
    pub pod: bool,
    /// The pod never restarts its containers.
    pub never: bool,
    /// The pod shares the host's users.
    pub host_users: bool,
}

/// One container of any of the three lists.
pub fn container(errors: &mut Vec<FieldError>, path: &str, c: &Value, list: &str, scope: &Scope<'_>) {
    required_named(errors, &format!("{path}.name"), str_at(c, &["name"]), dns_label);
    image(errors, path, str_at(c, &["image"]), scope.pod);
    let pull = ["Always", "IfNotPresent", "Never"];
    required_one_of(errors, &format!("{path}.imagePullPolicy"), str_at(c, &["imagePullPolicy"]), &pull);
    let message = str_at(c, &["terminationMessagePolicy"]);
    required_one_of(errors, &format!("{path}.terminationMessagePolicy"), message, &["File", "FallbackToLogsOnError"]);
    ports(errors, path, c, list == "containers" && scope.host_network, scope.pod);
    environment(errors, path, c);
    mounts(errors, path, c, scope.volumes);
    let own = at(c, &["resources"]).unwrap_or(&Value::Null);
    resources(errors, &format!("{path}.resources"), own, resource_name);
    claims(errors, path, c, scope.claims);
    resize_policy(errors, path, c, scope.never);
    if let Some(context) = at(c, &["securityContext"]) {
        super::security_checks::container(errors, &format!("{path}.securityContext"), context, scope.host_users);
    }
    life(errors, path, c, list, scope.grace);
}

fn claims(errors: &mut Vec<FieldError>, path: &str, c: &Value, known: &BTreeSet<&str>) {
    // What was referred to before: a whole claim, or one request of it.
    let mut before: Vec<(&str, &str)> = Vec::new();
    for (i, claim) in items(c, &["resources", "claims"]).iter().enumerate() {
        let path = format!("{path}.resources.claims[{i}]");
        let (name, request) = (str_at(claim, &["name"]), str_at(claim, &["request"]));
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        if before.contains(&(name, "")) || (request.is_empty() && before.iter().any(|(n, _)| *n == name)) {
            errors.push(FieldError::duplicate(path.clone(), name));
        } else {
            optional_named(errors, &format!("{path}.request"), request, dns_label);
            if before.contains(&(name, request)) {
                errors.push(FieldError::duplicate(path.clone(), format!("{name}/{request}")));
            }
        }
        before.push((name, request));
        if !known.contains(name) {
            let list = known.iter().copied().collect::<Vec<_>>().join(", ");
            let rest = if known.is_empty() { " which is empty".to_owned() } else { format!(": {list}") };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{rest}");
            errors.push(FieldError { detail, ..FieldError::not_found(path, name) });
        }
    }
}

fn resize_policy(errors: &mut Vec<FieldError>, path: &str, c: &Value, never: bool) {
    let list = items(c, &["resizePolicy"]);
    let path = format!("{path}.resizePolicy");
    for (i, p) in list.iter().enumerate() {
        let (name, restart) = (str_at(p, &["resourceName"]), str_at(p, &["restartPolicy"]));
        if list[..i].iter().any(|o| str_at(o, &["resourceName"]) == name) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), name));
        }
        required_one_of(errors, &path, name, &["cpu", "memory"]);
        required_one_of(errors, &path, restart, &["NotRequired", "RestartContainer"]);
        if never && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path.clone(), restart, detail));
        }
    }
}

/// Spaces around an image's name are only a pod's mistake: templates have always been free to hold them.
fn image(errors: &mut Vec<FieldError>, path: &str, image: &str, pod: bool) {
    let path = format!("{path}.image");
    if image.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if pod && image.trim() != image {
        errors.push(FieldError::invalid(path, image, "must not have leading or trailing whitespace"));
    }
}

fn ports(errors: &mut Vec<FieldError>, path: &str, c: &Value, host_network: bool, pod: bool) {
    let mut names = BTreeSet::new();
    for (i, p) in items(c, &["ports"]).iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        let name = str_at(p, &["name"]);
        if !name.is_empty() {
            let wrong = errors.len();
            named(errors, &format!("{path}.name"), name, port_name);
            if errors.len() == wrong && !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        let number = int_at(p, &["containerPort"]).unwrap_or(0);
        if number == 0 {
            errors.push(FieldError::required(format!("{path}.containerPort"), ""));
        } else {
            port(errors, &format!("{path}.containerPort"), number);
        }
        let host = int_at(p, &["hostPort"]).unwrap_or(0);
        if host != 0 {
            port(errors, &format!("{path}.hostPort"), host);
        }
        // In a template the host's port may be left out: it is filled in when a pod is made of it.
        if host_network && host != number && (pod || host != 0) {
            let detail = "must match `containerPort` when `hostNetwork` is true";
            errors.push(FieldError::invalid(format!("{path}.hostPort"), host, detail));
        }
        required_one_of(errors, &format!("{path}.protocol"), str_at(p, &["protocol"]), &["SCTP", "TCP", "UDP"]);
    }
}

fn environment(errors: &mut Vec<FieldError>, path: &str, c: &Value) {
    for (i, e) in items(c, &["env"]).iter().enumerate() {
        let path = format!("{path}.env[{i}]");
        required_named(errors, &format!("{path}.name"), str_at(e, &["name"]), env_var_name);
        if let Some(from) = at(e, &["valueFrom"]) {
            let plain = !str_at(e, &["value"]).is_empty();
            value_from(errors, &format!("{path}.valueFrom"), from, plain);
        }
    }
    let list = format!("{path}.envFrom");
    for (i, e) in items(c, &["envFrom"]).iter().enumerate() {
        let path = format!("{list}[{i}]");
        optional_named(errors, &format!("{path}.prefix"), str_at(e, &["prefix"]), env_var_name);
        let given: Vec<&str> = ["configMapRef", "secretRef"].into_iter().filter(|k| has(e, k)).collect();
        match given.as_slice() {
            [] => {
                let detail = "must specify one of: `configMapRef` or `secretRef`";
                errors.push(FieldError::invalid(list.clone(), "", detail));
            }
            [one] => {
                let name = str_at(e, &[one, "name"]);
                required_named(errors, &format!("{path}.{one}.name"), name, dns_subdomain);
            }
            _ => {
                let detail = "may not have more than one field specified at a time";
                errors.push(FieldError::invalid(list.clone(), "", detail));
            }
        }
    }
}

fn value_from(errors: &mut Vec<FieldError>, path: &str, from: &Value, plain: bool) {
    let sources = from.as_object().map_or(0, |m| m.values().filter(|v| !v.is_null()).count());
    let problem = match sources {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if plain => "may not be specified when `value` is not empty",
        1 => "",
        _ => "may not have more than one field specified at a time",
    };
    if !problem.is_empty() {
        errors.push(FieldError::invalid(path, "", problem));
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(r) = at(from, &[source]) {
            named(errors, &format!("{path}.{source}.name"), str_at(r, &["name"]), dns_subdomain);
            required_named(errors, &format!("{path}.{source}.key"), str_at(r, &["key"]), config_key);
        }
    }
    if let Some(r) = at(from, &["fieldRef"]) {
        field_ref(errors, &format!("{path}.fieldRef"), r, &ENV_FIELDS);
    }
    if let Some(r) = at(from, &["resourceFieldRef"]) {
        resource_ref(errors, &format!("{path}.resourceFieldRef"), r, false);
    }
    if let Some(r) = at(from, &["fileKeyRef"]) {
        let path = format!("{path}.fileKeyRef");
        required_named(errors, &format!("{path}.key"), str_at(r, &["key"]), env_var_name);
        required_named(errors, &format!("{path}.volumeName"), str_at(r, &["volumeName"]), dns_label);
        match str_at(r, &["path"]) {
            "" => errors.push(FieldError::required(format!("{path}.path"), "")),
            file => local_path(errors, &format!("{path}.path"), file),
        }
    }
}

/// The resources of a container that it can be told about.
const TOLD: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// In what unit a container may be told about a resource; the rest of the sentence names the resource.
const UNITS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// A reference to a container's own resources; a volume has to say which container.
pub fn resource_ref(errors: &mut Vec<FieldError>, path: &str, r: &Value, volume: bool) {
    let name = str_at(r, &["resource"]);
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|p| name.starts_with(p));
    if volume && str_at(r, &["containerName"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.containerName"), ""));
    } else if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.resource"), ""));
    } else if !huge {
        one_of(errors, &format!("{path}.resource"), name, &TOLD);
    }
    let divisor = at(r, &["divisor"]).and_then(crate::admission::pod_resources::quantity);
    let Some(divisor) = divisor.filter(|d| !d.is_zero()).map(|d| d.to_string()) else { return };
    let which = name.split_once('.').map_or("", |(_, n)| n);
    let (fits, words) = match which {
        "cpu" => (["1m", "1"].contains(&divisor.as_str()), "1m and 1 are supported with the cpu resource".to_owned()),
        _ if huge || matches!(which, "memory" | "ephemeral-storage") => {
            let what = match which {
                "memory" => "memory",
                "ephemeral-storage" => "local ephemeral storage",
                _ => "hugepages",
            };
            (UNITS.contains(&divisor.as_str()), format!("{} are supported with the {what} resource", UNITS.join(", ")))
        }
        _ => return,
    };
    if !fits {
        errors.push(FieldError::invalid(format!("{path}.divisor"), name, format!("only divisor's values {words}")));
    }
}

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The downward API's field paths; single labels and annotations are always possible, as in `metadata.labels['x']`.
pub fn field_ref(errors: &mut Vec<FieldError>, path: &str, r: &Value, allowed: &[&str]) {
    let (version, field) = (str_at(r, &["apiVersion"]), str_at(r, &["fieldPath"]));
    let place = format!("{path}.fieldPath");
    if version.is_empty() {
        errors.push(FieldError::required(format!("{path}.apiVersion"), ""));
        return;
    }
    if field.is_empty() {
        errors.push(FieldError::required(place, ""));
        return;
    }
    if version != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {version}");
        errors.push(FieldError::invalid(place, field, detail));
        return;
    }
    let subscript = field.strip_suffix("']").and_then(|f| f.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => named(errors, path, &key.to_lowercase(), qualified_name),
        Some(("metadata.labels", key)) => named(errors, path, key, qualified_name),
        _ if allowed.contains(&field) => {}
        _ if KNOWN_FIELDS.contains(&field) => errors.push(FieldError::not_supported(place, field, allowed)),
        _ => {
            let detail = format!("error converting fieldPath: field label not supported: {field}");
            errors.push(FieldError::invalid(place, field, detail));
        }
    }
}

/// Fields of a pod that something, somewhere, can be told about.
const KNOWN_FIELDS: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

/// A path that stays below its root.
pub fn local_path(errors: &mut Vec<FieldError>, path: &str, value: &str) {
    if value.starts_with('/') {
        errors.push(FieldError::invalid(path, value, "must be a relative path"));
    }
    if value.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}

/// What is wrong with the name of a resource.
pub type NameCheck = fn(&mut Vec<FieldError>, &str, &str);

/// Requests and limits, of a container or a pod.
pub fn resources(errors: &mut Vec<FieldError>, path: &str, r: &Value, name: NameCheck) {
    let limits = quantities(errors, &format!("{path}.limits"), r.get("limits"), name);
    let requests = quantities(errors, &format!("{path}.requests"), r.get("requests"), name);
    for (name, request, text) in &requests {
        let limit = limits.iter().find(|(n, _, _)| n == name);
        let detail = match limit {
            None if overcommits(name) => continue,
            None => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(format!("{path}.limits"), detail));
                continue;
            }
            Some((_, limit, shown)) if request != limit && !overcommits(name) => {
                format!("must be equal to {name} limit of {shown}")
            }
            Some((_, limit, shown)) if request > limit => {
                format!("must be less than or equal to {name} limit of {shown}")
            }
            Some(_) => continue,
        };
        errors.push(FieldError::invalid(format!("{path}.requests"), text.clone(), detail));
    }
    let names = || limits.iter().chain(&requests).map(|(name, ..)| name.as_str());
    let huge = names().any(|n| n.starts_with("hugepages-"));
    if huge && !names().any(|n| matches!(n, "cpu" | "memory")) {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

/// Resources that this project names: without a domain, or with its own.
pub fn native(resource: &str) -> bool {
    !resource.contains('/') || resource.contains("kubernetes.io/")
}

/// Whether a container may ask for less of it than it may use.
pub fn overcommits(resource: &str) -> bool {
    native(resource) && !resource.starts_with("hugepages-")
}

/// Names without a domain that mean something somewhere: in containers, in quotas, or as counts of objects.
fn standard(name: &str) -> bool {
    super::quota::is_counted(name) || name.starts_with("hugepages-")
}

/// Any resource's name: known, or with a domain before it.
pub fn any_resource_name(errors: &mut Vec<FieldError>, path: &str, name: &str) {
    let before = errors.len();
    named(errors, path, name, qualified_name);
    if errors.len() == before && !name.contains('/') && !standard(name) {
        errors.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
}

/// As [`any_resource_name`], of what a container can use.
pub fn resource_name(errors: &mut Vec<FieldError>, path: &str, name: &str) {
    any_resource_name(errors, path, name);
    let own = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !own {
        errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
    } else if !native(name)
        && (name.starts_with("requests.") || !qualified_name(&format!("requests.{name}")).is_empty())
    {
        errors.push(FieldError::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

/// An amount of a resource: not negative, and whole where the resource has no parts.
pub fn amount(errors: &mut Vec<FieldError>, path: &str, name: &str, value: &Value) -> Option<Quantity> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let Ok(q) = Quantity::parse(&text) else {
        let detail = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        errors.push(FieldError::invalid(path, text, detail));
        return None;
    };
    if q.sign() < 0 {
        errors.push(FieldError::invalid(path, q.to_string(), "must be greater than or equal to 0"));
    }
    if (super::quota::is_whole(name) || !native(name)) && q.milli() % 1000 != 0 {
        errors.push(FieldError::invalid(path, q.to_string(), "must be an integer"));
    }
    Some(q)
}

fn quantities(
    errors: &mut Vec<FieldError>,
    path: &str,
    list: Option<&Value>,
    name_check: NameCheck,
) -> Vec<(String, i128, String)> {
    let mut out = Vec::new();
    for (name, value) in list.and_then(Value::as_object).into_iter().flatten() {
        let path = format!("{path}[{name}]");
        name_check(errors, &path, name);
        let Some(q) = amount(errors, &path, name, value) else { continue };
        if let Some(page) = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok())
            && (page.value() <= 0 || q.value() % page.value() != 0)
        {
            let detail = format!("{q} is not positive integer multiple of {name}");
            errors.push(FieldError::invalid(path, q.to_string(), detail));
        }
        out.push((name.clone(), q.milli(), q.to_string()));
    }
    out
}

const EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

fn life(errors: &mut Vec<FieldError>, path: &str, c: &Value, list: &str, grace: i64) {
    let restart = str_at(c, &["restartPolicy"]);
    let sidecar = list == "initContainers" && restart == "Always";
    restart_rules(errors, path, c, list);
    let runs_on = list == "containers" || sidecar;
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(value) = at(c, &[name]) else { continue };
        let path = format!("{path}.{name}");
        if !runs_on {
            let detail = match list {
                "initContainers" => "may not be set for init containers without restartPolicy=Always",
                _ => EPHEMERAL,
            };
            errors.push(FieldError::forbidden(path, detail));
        } else if name == "lifecycle" {
            for hook in ["postStart", "preStop"] {
                if let Some(h) = at(value, &[hook]) {
                    let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
                    handler(errors, &format!("{path}.{hook}"), h, &kinds, grace);
                }
            }
        } else {
            probe(errors, &path, value, name, grace);
        }
    }
    if list == "ephemeralContainers" {
        for field in ["ports", "resources", "resizePolicy"] {
            let set = at(c, &[field]).is_some_and(|v| {
                v.as_array().map_or_else(|| v.as_object().is_some_and(|m| !m.is_empty()), |l| !l.is_empty())
            });
            if set {
                errors.push(FieldError::forbidden(format!("{path}.{field}"), EPHEMERAL));
            }
        }
        for (i, mount) in items(c, &["volumeMounts"]).iter().enumerate() {
            for field in ["subPath", "subPathExpr"].into_iter().filter(|f| !str_at(mount, &[f]).is_empty()) {
                errors.push(FieldError::forbidden(format!("{path}.volumeMounts[{i}].{field}"), EPHEMERAL));
            }
        }
    }
}

/// A container's own restart policy, and exit codes that make exceptions.
fn restart_rules(errors: &mut Vec<FieldError>, path: &str, c: &Value, list: &str) {
    let restart = str_at(c, &["restartPolicy"]);
    let rules = items(c, &["restartPolicyRules"]);
    if list == "ephemeralContainers" && !restart.is_empty() {
        errors.push(FieldError::forbidden(format!("{path}.restartPolicy"), EPHEMERAL));
    } else if !restart.is_empty() {
        one_of(errors, &format!("{path}.restartPolicy"), restart, &["Always", "Never", "OnFailure"]);
    }
    if !rules.is_empty() && restart.is_empty() {
        let detail = "must specify restartPolicy when restart rules are used";
        errors.push(FieldError::required(format!("{path}.restartPolicy"), detail));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("{path}.restartPolicyRules[{i}]");
        // RestartAllContainers is behind a feature gate that is off at this level.
        one_of(errors, &format!("{path}.action"), str_at(rule, &["action"]), &["Restart"]);
        match at(rule, &["exitCodes"]) {
            None => errors.push(FieldError::required(format!("{path}.exitCodes"), "must be specified")),
            Some(codes) => {
                one_of(errors, &format!("{path}.exitCodes.operator"), str_at(codes, &["operator"]), &["In", "NotIn"]);
            }
        }
    }
}

/// A port number or the name of one.
pub fn port_or_name(errors: &mut Vec<FieldError>, path: &str, v: Option<&Value>) {
    match v {
        Some(Value::Number(n)) => port(errors, path, n.as_i64().unwrap_or(0)),
        Some(Value::String(s)) => named(errors, path, s, port_name),
        _ => port(errors, path, 0),
    }
}

/// Whether a pod asks for the host's network.
pub fn host_network(spec: &Value) -> bool {
    bool_at(spec, &["hostNetwork"])
}
