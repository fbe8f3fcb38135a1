//! Every pod has a service account, and a token of it where the field expects one.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta;
use serde_json::{Value, json};

use super::{AdmissionRequest, Operation, Plugin, Verdict, mountable};
use crate::authz::node::references;
use crate::errors::ApiError;
use crate::registry::Context;
use crate::registry::generic::generate_name;
use crate::registry::strategy::tree::{at, each, has, items, object, set, str_at};
use crate::storage::{Stored, keys};

const MIRROR: &str = "kubernetes.io/config.mirror";
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const PREFIX: &str = "kube-api-access-";
/// A namespace's default account is made by a controller right after the namespace; a pod that is as quick waits this long for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The plugin.
pub struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn admit<'a>(&'a self, cx: &'a Context<'_>, request: &'a mut AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            if !request.is("", "pods") || request.operation != Operation::Create {
                return Ok(());
            }
            if meta::annotation(request.object, MIRROR).is_some() {
                return Ok(());
            }
            let spec = object(request.object, "spec");
            crate::registry::strategy::pod_defaults::service_account_alias(spec);
            if str_at(spec, &["serviceAccountName"]).is_empty() {
                set(spec, "serviceAccountName", "default");
                set(spec, "serviceAccount", "default");
            }
            let name = str_at(spec, &["serviceAccountName"]).to_owned();
            let Some(account) = find(cx, request.namespace, &name).await? else {
                let why = format!(
                    "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                    request.namespace
                );
                return Err(request.forbidden(&why));
            };
            apply(request.object, &account.object());
            Ok(())
        })
    }

    fn validate<'a>(&'a self, cx: &'a Context<'_>, request: &'a AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            let pods = request.resource.group.is_empty() && request.resource.plural == "pods";
            let lists: &[(&str, &str)] = match (request.subresource, request.operation) {
                (None, Operation::Create) if pods => mountable::MADE,
                (Some("ephemeralcontainers"), Operation::Update) if pods => mountable::ADDED,
                _ => return Ok(()),
            };
            if request.subresource.is_none() && meta::annotation(request.object, MIRROR).is_some() {
                return mirror(request.object).map_or(Ok(()), |why| Err(request.forbidden(why)));
            }
            let name = str_at(request.object, &["spec", "serviceAccountName"]);
            let Some(account) = find(cx, request.namespace, name).await?.map(|a| a.object()) else { return Ok(()) };
            match mountable::refused(request.object, &account, lists) {
                Some(why) => Err(request.forbidden(&why)),
                None => Ok(()),
            }
        })
    }
}

/// A mirror pod is a kubelet's own: it gets nothing of the API's.
fn mirror(pod: &Value) -> Option<&'static str> {
    let names = |kind: &str| !references(&pod["spec"], kind).is_empty();
    let mut sources = items(pod, &["spec", "volumes"]).iter().flat_map(|v| items(v, &["projected", "sources"]));
    if names("serviceaccounts") {
        return Some("a mirror pod may not reference service accounts");
    }
    if names("secrets") {
        return Some("a mirror pod may not reference secrets");
    }
    if names("persistentvolumeclaims") {
        return Some("a mirror pod may not reference persistentvolumeclaims");
    }
    let token = sources.any(|s| at(s, &["serviceAccountToken"]).is_some());
    token.then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

async fn find(cx: &Context<'_>, namespace: &str, name: &str) -> Result<Option<Arc<Stored>>, ApiError> {
    let Some(accounts) = cx.state.resource("", "v1", "serviceaccounts") else { return Ok(None) };
    let storage = &cx.state.storage;
    let cache = storage.cache(accounts);
    let mut changes = cache.subscribe();
    let key = keys::relative(accounts, namespace, name);
    if let Some(found) = cache.get(&key) {
        return Ok(Some(found));
    }
    if let Some(found) = storage.get(accounts, namespace, name).await? {
        return Ok(Some(found));
    }
    let appears = async {
        while changes.changed().await.is_ok() {
            if let Some(found) = cache.get(&key) {
                return Some(found);
            }
        }
        None
    };
    Ok(tokio::time::timeout(PATIENCE, appears).await.unwrap_or_default())
}

/// What the account gives a pod: pull secrets, and a token unless one of the two says no.
pub fn apply(pod: &mut Value, account: &Value) {
    let spec = object(pod, "spec");
    if items(spec, &["imagePullSecrets"]).is_empty() && !items(account, &["imagePullSecrets"]).is_empty() {
        set(spec, "imagePullSecrets", account["imagePullSecrets"].clone());
    }
    let own = at(spec, &["automountServiceAccountToken"]).and_then(Value::as_bool);
    let theirs = at(account, &["automountServiceAccountToken"]).and_then(Value::as_bool);
    if own.or(theirs).unwrap_or(true) {
        mount(spec);
    }
}

fn mount(spec: &mut Value) {
    let existing = items(spec, &["volumes"]).iter().map(|v| str_at(v, &["name"])).find(|n| n.starts_with(PREFIX));
    let name = existing.map_or_else(|| generate_name(PREFIX), str::to_owned);
    let new_volume = existing.is_none();
    let mut used = false;
    for list in ["initContainers", "containers"] {
        each(spec, list, |c| {
            // A container that mounts something there has made its own arrangements.
            if items(c, &["volumeMounts"]).iter().any(|m| str_at(m, &["mountPath"]) == MOUNT) {
                return;
            }
            push(c, "volumeMounts", json!({"name": name, "readOnly": true, "mountPath": MOUNT}));
            used = true;
        });
    }
    if used && new_volume {
        push(spec, "volumes", volume(&name));
    }
}

fn push(v: &mut Value, key: &str, item: Value) {
    if !has(v, key) {
        set(v, key, json!([]));
    }
    if let Some(list) = v[key].as_array_mut() {
        list.push(item);
    }
}

/// Token, cluster CA and namespace, side by side. The odd 3607 seconds tell the token issuer that nobody chose them.
fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}
