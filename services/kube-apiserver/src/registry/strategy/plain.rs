//! Kinds that need little more than the generic path.

use serde_json::{Value, json};

use super::checks::{immutable, label_selector, non_negative, one_of, path_segment, required_one_of};
use super::kind::Kind;
use super::tree::{at, default, each, has, int_at, items, keep, object, set, str_at, within};
use super::workload::zero_status;
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;

/// Lease: who leads, and which kubelet lives.
pub static LEASE: Kind = Kind {
    check: |errors, l| {
        if let Some(n) = int_at(l, &["spec", "leaseDurationSeconds"]).filter(|n| *n <= 0) {
            errors.push(FieldError::invalid("spec.leaseDurationSeconds", n, "must be greater than 0"));
        }
        non_negative(errors, "spec.leaseTransitions", at(l, &["spec", "leaseTransitions"]));
    },
    ..Kind::BASE
};

/// PriorityClass.
pub static PRIORITY_CLASS: Kind = Kind {
    generation: true,
    defaults: |p| default(p, "preemptionPolicy", "PreemptLowerPriority"),
    check: |errors, p| {
        let (name, value) = (str_at(p, &["metadata", "name"]), int_at(p, &["value"]).unwrap_or(0));
        if value > 1_000_000_000 && !name.starts_with("system-") {
            errors
                .push(FieldError::forbidden("value", "maximum allowed value of a user defined priority is 1000000000"));
        }
        one_of(errors, "preemptionPolicy", str_at(p, &["preemptionPolicy"]), &["Never", "PreemptLowerPriority"]);
    },
    check_update: |errors, _, new, old| {
        if new.get("value") != old.get("value") {
            errors.push(FieldError::forbidden("value", "may not be changed in an update."));
        }
        immutable(errors, "preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy"));
    },
    ..Kind::BASE
};

/// RuntimeClass.
pub static RUNTIME_CLASS: Kind = Kind {
    check: |errors, r| {
        if str_at(r, &["handler"]).is_empty() {
            errors.push(FieldError::required("handler", ""));
        }
    },
    check_update: |errors, _, new, old| immutable(errors, "handler", new.get("handler"), old.get("handler")),
    ..Kind::BASE
};

/// StorageClass.
pub static STORAGE_CLASS: Kind = Kind {
    defaults: |s| {
        default(s, "reclaimPolicy", "Delete");
        default(s, "volumeBindingMode", "Immediate");
    },
    check: |errors, s| {
        if str_at(s, &["provisioner"]).is_empty() {
            errors.push(FieldError::required("provisioner", ""));
        }
        one_of(errors, "reclaimPolicy", str_at(s, &["reclaimPolicy"]), &["Delete", "Retain"]);
        one_of(errors, "volumeBindingMode", str_at(s, &["volumeBindingMode"]), &["Immediate", "WaitForFirstConsumer"]);
    },
    check_update: |errors, _, new, old| {
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            if !super::tree::same(new.get(field), old.get(field)) {
                errors.push(FieldError::forbidden(field, format!("updates to {field} are forbidden.")));
            }
        }
    },
    ..Kind::BASE
};

/// ResourceQuota.
pub static RESOURCE_QUOTA: Kind = Kind { generation: false, ..Kind::SPEC_STATUS };
/// LimitRange.
pub static LIMIT_RANGE: Kind = Kind::BASE;

/// PodDisruptionBudget.
pub static POD_DISRUPTION_BUDGET: Kind = Kind {
    defaults: |p| zero_status(p, &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"]),
    check: |errors, p| {
        if at(p, &["spec", "minAvailable"]).is_some() && at(p, &["spec", "maxUnavailable"]).is_some() {
            errors.push(FieldError::invalid(
                "spec",
                p["spec"].clone(),
                "minAvailable and maxUnavailable cannot be both set",
            ));
        }
        if let Some(s) = at(p, &["spec", "selector"]) {
            label_selector(errors, "spec.selector", s);
        }
    },
    ..Kind::SPEC_STATUS
};

/// PersistentVolume.
pub static PERSISTENT_VOLUME: Kind = Kind {
    generation: false,
    defaults: |v| {
        let spec = object(v, "spec");
        default(spec, "persistentVolumeReclaimPolicy", "Retain");
        default(spec, "volumeMode", "Filesystem");
        within(spec, "claimRef", |_| {});
        default(object(v, "status"), "phase", "Pending");
    },
    check: |errors, v| {
        for field in ["capacity", "accessModes"] {
            if at(v, &["spec", field]).is_none() {
                errors.push(FieldError::required(format!("spec.{field}"), ""));
            }
        }
    },
    ..Kind::SPEC_STATUS
};

/// PersistentVolumeClaim.
pub static PERSISTENT_VOLUME_CLAIM: Kind = Kind {
    generation: false,
    defaults: |c| {
        default(object(c, "spec"), "volumeMode", "Filesystem");
        default(object(c, "status"), "phase", "Pending");
    },
    check: |errors, c| {
        if items(c, &["spec", "accessModes"]).is_empty() {
            errors.push(FieldError::required("spec.accessModes", "at least 1 access mode is required"));
        }
        if at(c, &["spec", "resources", "requests", "storage"]).is_none() {
            errors.push(FieldError::required("spec.resources[storage]", ""));
        }
    },
    ..Kind::SPEC_STATUS
};

/// Ingress.
pub static INGRESS: Kind = Kind {
    defaults: |i| {
        object(object(i, "status"), "loadBalancer");
    },
    check: |errors, i| {
        for (r, rule) in items(i, &["spec", "rules"]).iter().enumerate() {
            for (p, path) in items(rule, &["http", "paths"]).iter().enumerate() {
                let field = format!("spec.rules[{r}].http.paths[{p}].pathType");
                required_one_of(
                    errors,
                    &field,
                    str_at(path, &["pathType"]),
                    &["Exact", "ImplementationSpecific", "Prefix"],
                );
            }
        }
        if at(i, &["spec", "defaultBackend"]).is_none() && items(i, &["spec", "rules"]).is_empty() {
            errors.push(FieldError::invalid(
                "spec",
                Value::Array(Vec::new()),
                "either `defaultBackend` or `rules` must be specified",
            ));
        }
    },
    ..Kind::SPEC_STATUS
};

/// IngressClass.
pub static INGRESS_CLASS: Kind = Kind {
    generation: true,
    check_update: |errors, _, new, old| {
        immutable(errors, "spec.controller", at(new, &["spec", "controller"]), at(old, &["spec", "controller"]));
    },
    ..Kind::BASE
};

/// NetworkPolicy.
pub static NETWORK_POLICY: Kind = Kind {
    generation: true,
    defaults: |n| {
        let spec = object(n, "spec");
        for list in ["ingress", "egress"] {
            each(spec, list, |rule| each(rule, "ports", |p| default(p, "protocol", "TCP")));
        }
        if items(spec, &["policyTypes"]).is_empty() {
            let types =
                if items(spec, &["egress"]).is_empty() { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
            set(spec, "policyTypes", types);
        }
        object(spec, "podSelector");
    },
    check: |errors, n| {
        label_selector(errors, "spec.podSelector", &n["spec"]["podSelector"]);
        for (i, t) in items(n, &["spec", "policyTypes"]).iter().enumerate() {
            one_of(errors, &format!("spec.policyTypes[{i}]"), t.as_str().unwrap_or_default(), &["Egress", "Ingress"]);
        }
    },
    ..Kind::BASE
};

/// IPAddress: one per allocated Service address, named after it.
pub static IP_ADDRESS: Kind = Kind {
    names: |s| match s.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.to_string() == s => Vec::new(),
        Ok(_) => vec!["must be a canonical valid IP address".into()],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
    },
    generation: false,
    check: |errors, ip| {
        let parent = at(ip, &["spec", "parentRef"]);
        match parent {
            None => errors.push(FieldError::required("spec.parentRef", "")),
            Some(p) => {
                for field in ["name", "resource"] {
                    if str_at(p, &[field]).is_empty() {
                        errors.push(FieldError::required(format!("spec.parentRef.{field}"), ""));
                    }
                }
            }
        }
    },
    check_update: |errors, _, new, old| {
        immutable(errors, "spec.parentRef", at(new, &["spec", "parentRef"]), at(old, &["spec", "parentRef"]))
    },
    ..Kind::BASE
};

/// CertificateSigningRequest.
pub static CERTIFICATE_SIGNING_REQUEST: Kind = Kind {
    names: path_segment,
    generation: false,
    create: csr_create,
    update: csr_update,
    check: |errors, c| {
        if str_at(c, &["spec", "request"]).is_empty() {
            errors.push(FieldError::required("spec.request", ""));
        }
        if items(c, &["spec", "usages"]).is_empty() {
            errors.push(FieldError::required("spec.usages", ""));
        }
        if str_at(c, &["spec", "signerName"]).is_empty() {
            errors.push(FieldError::required("spec.signerName", ""));
        }
    },
    fields: |c| vec![("spec.signerName", str_at(c, &["spec", "signerName"]).to_owned())],
    ..Kind::SPEC_STATUS
};

/// Who asks is what the server saw, not what the request says.
fn csr_create(cx: &Context<'_>, c: &mut Value) -> Result<(), ApiError> {
    let spec = object(c, "spec");
    set(spec, "username", cx.user.name.clone());
    set(spec, "groups", cx.user.groups.clone());
    if cx.user.uid.is_empty() {
        super::tree::remove(spec, "uid");
    } else {
        set(spec, "uid", cx.user.uid.clone());
    }
    if cx.user.extra.is_empty() {
        super::tree::remove(spec, "extra");
    } else {
        set(spec, "extra", json!(cx.user.extra));
    }
    Ok(())
}

fn csr_update(cx: &Context<'_>, sub: Option<&str>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    let decisions = |v: &Value| -> Vec<Value> {
        let list = items(v, &["status", "conditions"]).iter();
        list.filter(|c| matches!(str_at(c, &["type"]), "Approved" | "Denied")).cloned().collect()
    };
    keep(new, old, "spec");
    match sub {
        // Approving writes the decision and nothing else; issuing writes everything but the decision.
        Some("approval") => {
            let mut status = at(old, &["status"]).cloned().unwrap_or(json!({}));
            let mut conditions = items(old, &["status", "conditions"])
                .iter()
                .filter(|c| !matches!(str_at(c, &["type"]), "Approved" | "Denied"))
                .cloned()
                .collect::<Vec<_>>();
            conditions.extend(decisions(new));
            set(&mut status, "conditions", conditions);
            set(new, "status", status);
        }
        Some("status") => {
            let mut conditions = decisions(old);
            conditions.extend(
                items(new, &["status", "conditions"])
                    .iter()
                    .filter(|c| !matches!(str_at(c, &["type"]), "Approved" | "Denied"))
                    .cloned(),
            );
            set(object(new, "status"), "conditions", conditions);
        }
        _ => {}
    }
    let now = cx.now.clone();
    within(new, "status", |s| {
        each(s, "conditions", |c| {
            default(c, "status", "True");
            for field in ["lastUpdateTime", "lastTransitionTime"] {
                if !has(c, field) {
                    set(c, field, now.clone());
                }
            }
        });
    });
    Ok(())
}
