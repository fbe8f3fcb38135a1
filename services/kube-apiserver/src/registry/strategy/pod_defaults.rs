//! Defaults of pods and pod templates that the published schema does not carry: what a reader of a stored pod may rely on.

use serde_json::{Value, json};

use super::tree::{at, bool_at, default, default_int, each, has, int_at, items, map_at, object, set, str_at, within};

/// A pod: everything of the template, plus what only real pods get.
pub fn pod(obj: &mut Value) {
    let spec = object(obj, "spec");
    pod_spec(spec);
    default(spec, "enableServiceLinks", true);
    let host_network = bool_at(spec, &["hostNetwork"]);
    for list in ["containers", "initContainers"] {
        each(spec, list, |c| {
            requests_from_limits(c);
            if host_network {
                each(c, "ports", |p| {
                    if let Some(port) = int_at(p, &["containerPort"]) {
                        default_int(p, "hostPort", port);
                    }
                });
            }
        });
    }
}

/// The template inside a workload. `spec.template.metadata` exists in what typed servers return, so it does here.
pub fn template(spec: &mut Value) {
    let template = object(spec, "template");
    object(template, "metadata");
    pod_spec(object(template, "spec"));
}

/// A pod spec, wherever it stands.
pub fn pod_spec(spec: &mut Value) {
    default(spec, "restartPolicy", "Always");
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "schedulerName", "default-scheduler");
    if !has(spec, "terminationGracePeriodSeconds") {
        set(spec, "terminationGracePeriodSeconds", 30);
    }
    object(spec, "securityContext");
    service_account_alias(spec);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        each(spec, list, container);
    }
    each(spec, "volumes", volume);
}

/// `serviceAccount` is the old name of `serviceAccountName`; readers of either must see the same.
pub fn service_account_alias(spec: &mut Value) {
    let name = match str_at(spec, &["serviceAccountName"]) {
        "" => str_at(spec, &["serviceAccount"]),
        name => name,
    }
    .to_owned();
    if !name.is_empty() {
        set(spec, "serviceAccountName", name.clone());
        set(spec, "serviceAccount", name);
    }
}

fn container(c: &mut Value) {
    let policy = pull_policy(str_at(c, &["image"]));
    default(c, "imagePullPolicy", policy);
    default(c, "terminationMessagePath", "/dev/termination-log");
    default(c, "terminationMessagePolicy", "File");
    object(c, "resources");
    each(c, "ports", |p| default(p, "protocol", "TCP"));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        within(c, name, probe);
    }
    within(c, "lifecycle", |l| {
        for hook in ["postStart", "preStop"] {
            within(l, hook, |h| within(h, "httpGet", http_get));
        }
    });
    each(c, "env", |e| {
        within(e, "valueFrom", |from| {
            within(from, "fieldRef", |f| default(f, "apiVersion", "v1"));
            within(from, "resourceFieldRef", |f| default(f, "divisor", "0"));
        });
    });
}

fn probe(p: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        default_int(p, field, value);
    }
    within(p, "httpGet", http_get);
    within(p, "grpc", |g| {
        if !has(g, "service") {
            set(g, "service", "");
        }
    });
}

fn http_get(h: &mut Value) {
    default(h, "path", "/");
    default(h, "scheme", "HTTP");
}

/// `Always` for `latest` and for images without a tag, as long as no digest pins them.
pub fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

const SOURCES_WITH_MODE: [&str; 4] = ["secret", "configMap", "downwardAPI", "projected"];

fn volume(v: &mut Value) {
    let has_source = v.as_object().is_some_and(|m| m.iter().any(|(k, x)| k != "name" && !x.is_null()));
    if !has_source {
        set(v, "emptyDir", json!({}));
        return;
    }
    for source in SOURCES_WITH_MODE {
        within(v, source, |s| {
            if !has(s, "defaultMode") {
                set(s, "defaultMode", 420);
            }
        });
    }
    within(v, "downwardAPI", downward);
    within(v, "projected", |p| {
        each(p, "sources", |s| {
            within(s, "serviceAccountToken", |t| default_int(t, "expirationSeconds", 3600));
            within(s, "downwardAPI", downward);
        });
    });
    within(v, "hostPath", |h| {
        if !has(h, "type") {
            set(h, "type", "");
        }
    });
    within(v, "ephemeral", |e| {
        within(e, "volumeClaimTemplate", |t| within(t, "spec", |s| default(s, "volumeMode", "Filesystem")));
    });
    within(v, "image", |i| {
        let policy = pull_policy(str_at(i, &["reference"]));
        default(i, "pullPolicy", policy);
    });
}

fn downward(d: &mut Value) {
    each(d, "items", |i| {
        within(i, "fieldRef", |f| default(f, "apiVersion", "v1"));
        within(i, "resourceFieldRef", |f| default(f, "divisor", "0"));
    });
}

/// A limit without a request means a request of the same size.
fn requests_from_limits(c: &mut Value) {
    let Some(limits) = map_at(c, &["resources", "limits"]).cloned() else { return };
    if limits.is_empty() {
        return;
    }
    let requests = object(object(c, "resources"), "requests");
    for (name, quantity) in limits {
        if !has(requests, &name) {
            set(requests, &name, quantity);
        }
    }
}

/// Guaranteed, Burstable or BestEffort: the class decides who is evicted first, and never changes after creation.
pub fn qos_class(pod: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for list in ["containers", "initContainers"] {
        for c in items(pod, &["spec", list]) {
            for resource in ["cpu", "memory"] {
                let request = positive(c, "requests", resource);
                let limit = positive(c, "limits", resource);
                any |= request.is_some() || limit.is_some();
                guaranteed &= limit.is_some() && (request.is_none() || request == limit);
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn positive(container: &Value, kind: &str, resource: &str) -> Option<i128> {
    let text = match at(container, &["resources", kind, resource])? {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    apimachinery::quantity::Quantity::parse(&text).ok().map(|q| q.milli()).filter(|m| *m > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies() {
        for (image, want) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:v1", "IfNotPresent"),
            ("nginx@sha256:aa", "IfNotPresent"),
            ("nginx:latest@sha256:aa", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), want, "{image}");
        }
    }

    #[test]
    fn a_minimal_pod_is_filled_in() {
        let mut p = json!({"spec": {"containers": [{"name": "a", "image": "x:1",
            "ports": [{"containerPort": 80}],
            "readinessProbe": {"httpGet": {"port": 80}},
            "resources": {"limits": {"cpu": "1"}}}],
            "volumes": [{"name": "e"}, {"name": "c", "configMap": {"name": "c"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}});
        pod(&mut p);
        assert_eq!(
            p["spec"],
            json!({
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": true,
                "containers": [{"name": "a", "image": "x:1", "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}],
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
                    {"name": "p", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}]
            })
        );
        let once = p.clone();
        pod(&mut p);
        assert_eq!(p, once, "defaulting twice changes nothing");
    }

    #[test]
    fn quality_of_service() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        for (resources, want) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "0"}}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
                "Guaranteed",
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
                "Burstable",
            ),
            (json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}), "Burstable"),
        ] {
            assert_eq!(qos_class(&pod(resources.clone())), want, "{resources}");
        }
    }
}
