//! The reviews: questions about users and rights that are answered and never stored.

use super::rbac::Rule;
use super::{Attributes, Decision, review_checks};
use crate::authn::{UserInfo, bearer};
use crate::errors::ApiError;
use crate::registry::Resource;
use crate::server::handler::Call;
use apimachinery::meta;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Answers a review by its kind.
pub async fn answer(call: &Call, res: &Resource, namespace: &str, mut review: Value) -> Result<Value, ApiError> {
    if res.kind.ends_with("SubjectAccessReview") {
        let errors = review_checks::check(res.kind, namespace, &review);
        if !errors.is_empty() {
            return Err(ApiError::invalid(res.group, res.kind, "", &errors));
        }
    }
    let status = match res.kind {
        "SubjectAccessReview" | "LocalSubjectAccessReview" => access(call, &subject(&review["spec"]), &review["spec"]),
        "SelfSubjectAccessReview" => access(call, &call.user, &review["spec"]),
        "SelfSubjectRulesReview" => rules(call, &review["spec"])?,
        "SelfSubjectReview" => json!({"userInfo": user_value(&call.user)}),
        "TokenReview" => token(call, &review["spec"]).await?,
        _ => return Err(ApiError::not_implemented(format!("{} is not answered by this server", res.kind))),
    };
    review["status"] = status;
    meta::metadata_mut(&mut review).remove("creationTimestamp");
    Ok(review)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_string()
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
}

fn subject(spec: &Value) -> UserInfo {
    let extra: BTreeMap<String, Vec<String>> =
        spec["extra"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), list(v))).collect();
    UserInfo { name: text(spec, "user"), uid: text(spec, "uid"), groups: list(&spec["groups"]), extra }
}

/// What a review's spec asks about. Pure.
fn attributes(spec: &Value) -> Attributes {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if path.is_object() {
        return Attributes { verb: text(path, "verb"), path: Some(text(path, "path")), ..Attributes::default() };
    }
    Attributes {
        verb: text(resource, "verb"),
        group: text(resource, "group"),
        version: text(resource, "version"),
        resource: text(resource, "resource"),
        subresource: text(resource, "subresource"),
        namespace: text(resource, "namespace"),
        name: text(resource, "name"),
        path: None,
        field_selector: field_selector(&resource["fieldSelector"]),
    }
}

/// A review's requirements as a query would have them; only those that single out one value can allow anything.
fn field_selector(selector: &Value) -> String {
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let terms = requirements.filter_map(|r| match (r["operator"].as_str(), list(&r["values"]).as_slice()) {
        (Some("In"), [value]) => Some(format!("{}={value}", text(r, "key"))),
        _ => None,
    });
    let terms: Vec<String> = terms.collect();
    if terms.is_empty() { text(selector, "rawSelector") } else { terms.join(",") }
}

fn access(call: &Call, user: &UserInfo, spec: &Value) -> Value {
    match call.state.authorizer.authorize(user, &attributes(spec)) {
        Decision::Allow(why) if why.is_empty() => json!({"allowed": true}),
        Decision::Allow(why) => json!({"allowed": true, "reason": why}),
        Decision::Deny(why) if why.is_empty() => json!({"allowed": false}),
        Decision::Deny(why) => json!({"allowed": false, "reason": why}),
    }
}

fn rules(call: &Call, spec: &Value) -> Result<Value, ApiError> {
    let namespace = text(spec, "namespace");
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let mut all = call.state.authorizer.rules().1.all_for(&call.user, &namespace);
    if call.user.in_group("system:masters") {
        let any = || vec!["*".to_string()];
        all.push(Rule { verbs: any(), api_groups: any(), resources: any(), ..Rule::default() });
        all.push(Rule { verbs: any(), non_resource_urls: any(), ..Rule::default() });
    }
    let (paths, resources): (Vec<Rule>, Vec<Rule>) = all.into_iter().partition(|r| !r.non_resource_urls.is_empty());
    let values = |rules: Vec<Rule>| rules.iter().map(Rule::to_object).collect::<Vec<_>>();
    let mut status =
        json!({"resourceRules": values(resources), "nonResourceRules": values(paths), "incomplete": false});
    if call.state.authorizer.node && call.user.node_name().is_some() {
        status["incomplete"] = json!(true);
        status["evaluationError"] = json!("node authorizer does not support user rule resolution");
    }
    Ok(status)
}

async fn token(call: &Call, spec: &Value) -> Result<Value, ApiError> {
    let token = text(spec, "token");
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = list(&spec["audiences"]);
    let wanted = if audiences.is_empty() { call.state.config.audiences() } else { &audiences };
    Ok(match bearer::verify(&call.state, &token, wanted).await {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user_value(&user), "audiences": audiences}),
        Err(why) => json!({"authenticated": false, "user": {}, "error": why}),
    })
}

fn user_value(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        value["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_asks_about_one_thing() {
        let one = json!({"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "a"}});
        let a = attributes(&one);
        assert_eq!((a.verb.as_str(), a.resource.as_str(), a.namespace.as_str()), ("get", "pods", "a"));
        let path = json!({"nonResourceAttributes": {"verb": "get", "path": "/x"}});
        assert_eq!(attributes(&path).path.as_deref(), Some("/x"));
    }
}
