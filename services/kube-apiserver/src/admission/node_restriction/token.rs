//! Tokens: a node gets those of pods that run on it, and for whom the pods want them.

use serde_json::Value;

use super::super::{AdmissionRequest, find};
use crate::authz::Attributes;
use crate::errors::ApiError;
use crate::registry::Context;
use crate::registry::strategy::tree::{at, items, str_at};

/// Why a node does not get the token, if it does not.
pub async fn judge(cx: &Context<'_>, node: &str, request: &AdmissionRequest<'_>) -> Result<Option<String>, ApiError> {
    let reference = at(request.object, &["spec", "boundObjectRef"]).unwrap_or(&Value::Null);
    let says = |field: &str| str_at(reference, &[field]);
    if (says("apiVersion"), says("kind")) != ("v1", "Pod") || says("name").is_empty() {
        return Ok(Some("node requested token not bound to a pod".into()));
    }
    let (name, uid) = (says("name"), says("uid"));
    if uid.is_empty() {
        return Ok(Some("node requested token with a pod binding without a uid".into()));
    }
    let row = cx.state.resource("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    let found = cx.state.storage.get(row, request.namespace, name).await?;
    let pod = found.ok_or_else(|| ApiError::not_found("", "pods", name))?.object();
    if str_at(&pod, &["metadata", "uid"]) != uid {
        return Ok(Some(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        )));
    }
    if str_at(&pod, &["spec", "nodeName"]) != node {
        return Ok(Some("node requested token bound to a pod scheduled on a different node".into()));
    }
    audience(cx, request, &pod).await
}

async fn audience(cx: &Context<'_>, request: &AdmissionRequest<'_>, pod: &Value) -> Result<Option<String>, ApiError> {
    let audience = match items(request.object, &["spec", "audiences"]) {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Ok(Some("node may only request 0 or 1 audiences".into())),
    };
    if projected(pod, audience) || of_driver(cx, pod, audience).await? {
        return Ok(None);
    }
    let may = Attributes {
        verb: "request-serviceaccounts-token-audience".into(),
        version: "v1".into(),
        resource: audience.into(),
        namespace: request.namespace.into(),
        name: request.name.into(),
        ..Attributes::default()
    };
    Ok((!cx.state.authorizer.authorize(cx.user, &may).is_allowed()).then(|| {
        format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            cx.user.name
        )
    }))
}

/// Whether a volume of the pod has a token for the audience.
pub fn projected(pod: &Value, audience: &str) -> bool {
    let mut sources = items(pod, &["spec", "volumes"]).iter().flat_map(|v| items(v, &["projected", "sources"]));
    sources.any(|s| {
        at(s, &["serviceAccountToken"]).is_some() && str_at(s, &["serviceAccountToken", "audience"]) == audience
    })
}

/// Whether a CSI driver of one of the pod's volumes wants a token for the audience.
async fn of_driver(cx: &Context<'_>, pod: &Value, audience: &str) -> Result<bool, ApiError> {
    let namespace = str_at(pod, &["metadata", "namespace"]);
    for volume in items(pod, &["spec", "volumes"]) {
        let driver = match str_at(volume, &["csi", "driver"]) {
            "" => driver_of_claim(cx, namespace, &claim(pod, volume)).await?,
            driver => driver.to_owned(),
        };
        if driver.is_empty() {
            continue;
        }
        let found = find(cx, "storage.k8s.io", "csidrivers", "", &driver).await?.map(|d| d.object());
        let wanted = found.as_ref().map_or(&[][..], |d| items(d, &["spec", "tokenRequests"]));
        if wanted.iter().any(|t| str_at(t, &["audience"]) == audience) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The claim a volume stands for, which may be made with the pod; empty if it is none.
fn claim(pod: &Value, volume: &Value) -> String {
    if at(volume, &["ephemeral"]).is_some() {
        return format!("{}-{}", str_at(pod, &["metadata", "name"]), str_at(volume, &["name"]));
    }
    str_at(volume, &["persistentVolumeClaim", "claimName"]).to_owned()
}

async fn driver_of_claim(cx: &Context<'_>, namespace: &str, claim: &str) -> Result<String, ApiError> {
    if claim.is_empty() {
        return Ok(String::new());
    }
    let Some(claim) = find(cx, "", "persistentvolumeclaims", namespace, claim).await? else { return Ok(String::new()) };
    let name = str_at(&claim.object(), &["spec", "volumeName"]).to_owned();
    if name.is_empty() {
        return Ok(String::new());
    }
    let volume = find(cx, "", "persistentvolumes", "", &name).await?;
    Ok(volume.map(|v| str_at(&v.object(), &["spec", "csi", "driver"]).to_owned()).unwrap_or_default())
}
