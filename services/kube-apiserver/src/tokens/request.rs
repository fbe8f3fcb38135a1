//! POST serviceaccounts/<name>/token: a TokenRequest in, the same with a token out.

use apimachinery::{meta, time};
use serde_json::{Value, json};

use super::claims::{Bound, Ref};
use crate::admission::{self, AdmissionRequest, Operation};
use crate::errors::{ApiError, FieldError};
use crate::registry::strategy::tree::{at, int_at, items, str_at};
use crate::registry::{Context, Resource};

const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

/// Answers one TokenRequest.
pub async fn token_request(
    cx: &Context<'_>,
    namespace: &str,
    name: &str,
    mut request: Value,
) -> Result<Value, ApiError> {
    let errors = misnamed(&request, namespace, name);
    if !errors.is_empty() {
        return Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", name, &errors));
    }
    let account = stored(cx, "serviceaccounts", namespace, name).await?;
    admit(cx, namespace, name, &mut request).await?;
    let seconds = int_at(&request, &["spec", "expirationSeconds"]).unwrap_or(DEFAULT_SECONDS);
    let errors = check(seconds);
    if !errors.is_empty() {
        return Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", name, &errors));
    }
    let mut audiences: Vec<String> =
        items(&request, &["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences = cx.state.tokens.audiences().to_vec();
    }
    let mut bound = Bound { namespace: namespace.to_owned(), service_account: reference(&account), ..Bound::default() };
    bind(cx, namespace, name, &request, &mut bound).await?;
    let now = time::parse_rfc3339(&cx.now)
        .map_or_else(|_| jsonwebtoken::get_current_timestamp().cast_signed(), |t| t.as_second());
    let token = cx.state.tokens.issue(&bound, &audiences, seconds, now).map_err(ApiError::internal)?;
    let expires = jiff::Timestamp::from_second(now + seconds).map_err(ApiError::internal)?;

    if !request.is_object() {
        request = json!({});
    }
    request["kind"] = json!("TokenRequest");
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    request["metadata"] = json!({"name": name, "namespace": namespace, "creationTimestamp": cx.now});
    let reference = at(&request, &["spec", "boundObjectRef"]).cloned();
    request["spec"] = json!({"audiences": audiences, "expirationSeconds": seconds});
    if let Some(reference) = reference {
        request["spec"]["boundObjectRef"] = reference;
    }
    request["status"] = json!({"token": token, "expirationTimestamp": time::rfc3339(expires)});
    Ok(request)
}

async fn admit(cx: &Context<'_>, namespace: &str, name: &str, request: &mut Value) -> Result<(), ApiError> {
    let resource = row(cx, "serviceaccounts")?;
    let request = AdmissionRequest {
        operation: Operation::Create,
        resource,
        subresource: Some("token"),
        namespace,
        name,
        object: request,
        old: None,
    };
    admission::admit(cx, request).await
}

fn row(cx: &Context<'_>, plural: &str) -> Result<&'static Resource, ApiError> {
    cx.state
        .resource("", "v1", plural)
        .ok_or_else(|| ApiError::internal("the resource table lacks what tokens are bound to"))
}

/// A request may say whose it is, but then says it right.
fn misnamed(request: &Value, namespace: &str, name: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (field, want) in [("name", name), ("namespace", namespace)] {
        let given = str_at(request, &["metadata", field]);
        if !given.is_empty() && given != want {
            let detail = format!("must match the service account {field} if specified");
            errors.push(FieldError::invalid(format!("metadata.{field}"), given, detail));
            // One at a time.
            break;
        }
    }
    errors
}

fn check(seconds: i64) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = "spec.expirationSeconds";
    if seconds < MIN_SECONDS {
        errors.push(FieldError::invalid(path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > MAX_SECONDS {
        errors.push(FieldError::invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    errors
}

fn reference(object: &Value) -> Ref {
    (meta::name(object).to_owned(), meta::uid(object).to_owned())
}

async fn stored(cx: &Context<'_>, plural: &str, namespace: &str, name: &str) -> Result<Value, ApiError> {
    let res = row(cx, plural)?;
    let found = cx.state.storage.get(res, namespace, name).await?;
    found.map(|s| s.object()).ok_or_else(|| ApiError::not_found("", plural, name))
}

async fn bind(
    cx: &Context<'_>,
    namespace: &str,
    account: &str,
    request: &Value,
    bound: &mut Bound,
) -> Result<(), ApiError> {
    let Some(wanted) = at(request, &["spec", "boundObjectRef"]) else { return Ok(()) };
    let (kind, name, uid) = (str_at(wanted, &["kind"]), str_at(wanted, &["name"]), str_at(wanted, &["uid"]));
    let (plural, home) = match kind {
        "Pod" => ("pods", namespace),
        "Secret" => ("secrets", namespace),
        "Node" => ("nodes", ""),
        other => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount to object of type /v1, Kind={other}"
            )));
        }
    };
    let object = stored(cx, plural, home, name).await?;
    if !uid.is_empty() && meta::uid(&object) != uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict("", plural, name, &why));
    }
    match kind {
        "Pod" => {
            let own = str_at(&object, &["spec", "serviceAccountName"]);
            if own != account {
                let why = format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount {own:?}"
                );
                return Err(ApiError::bad_request(why));
            }
            let node = str_at(&object, &["spec", "nodeName"]);
            if !node.is_empty() {
                // A node that is not registered (yet) is no reason to refuse: its name alone is recorded.
                let uid = stored(cx, "nodes", "", node).await.map(|n| meta::uid(&n).to_owned()).unwrap_or_default();
                bound.node = Some((node.to_owned(), uid));
            }
            bound.pod = Some(reference(&object));
        }
        "Secret" => bound.secret = Some(reference(&object)),
        _ => bound.node = Some(reference(&object)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_for_the_account_of_its_path() {
        let table = [
            (json!({}), ""),
            (json!({"name": "a", "namespace": "d"}), ""),
            (json!({"name": "b", "namespace": "e"}), "metadata.name"),
            (json!({"name": "a", "namespace": "e"}), "metadata.namespace"),
        ];
        for (metadata, want) in table {
            let errors = misnamed(&json!({"metadata": metadata}), "d", "a");
            assert_eq!(errors.first().map_or("", |e| e.field.as_str()), want);
        }
    }
}
