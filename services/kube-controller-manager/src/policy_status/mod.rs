//! validatingadmissionpolicy-status-controller: says which generation of a policy it has seen, and whether its CEL expressions
//! compile. Upstream's also checks them against the schemas of the resources that the policy matches. Nothing here knows
//! those types, so `typeChecking`, whose presence says that it was done, stays absent, and a condition says why.

use apimachinery::{meta, time};
use cel::{Env, Type};
use client::{Change, Resource, WorkQueue};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::object;
use crate::worker::{self, Next};

const POLICIES: Resource<'static> = Resource::new(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    false,
);

/// Runs the controller.
pub async fn run(context: Context) {
    let policies = context.informers.get(POLICIES);
    policies.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&policies, move |change| {
        if matches!(change, Change::Applied { .. }) {
            to.add(meta::name(change.object()).to_owned());
        }
    });
    let sync = async |name: String| -> Result<Next, Error> {
        let Some(policy) = policies.get("", &name) else { return Ok(Next::Done) };
        if let Some(status) = status(&policy, &time::now_rfc3339()) {
            let mut new = Value::clone(&policy);
            new["status"] = status;
            ignore_not_found(context.client.update_sub(POLICIES, None, &name, "status", &new).await)?;
        }
        Ok(Next::Done)
    };
    worker::run("validatingadmissionpolicy-status", queue, 5, sync).await;
}

/// What a policy's expressions may name. All are of types that are known only when there is an object.
const VARIABLES: [&str; 7] = ["object", "oldObject", "request", "params", "namespaceObject", "authorizer", "variables"];

/// The status to write, if it differs.
fn status(policy: &Value, now: &str) -> Option<Value> {
    let generation = &policy["metadata"]["generation"];
    if policy["status"]["observedGeneration"] == *generation || meta::deletion_timestamp(policy).is_some() {
        return None;
    }
    let mut conditions = object::list(policy, "/status/conditions").to_vec();
    let unchecked = json!({
        "type": "TypeChecked", "status": "Unknown", "reason": "NotSupported",
        "message": "this controller does not check the types of CEL expressions",
    });
    for condition in [unchecked, compiled(policy)] {
        object::set_condition(&mut conditions, condition, now);
    }
    Some(json!({"observedGeneration": generation, "conditions": conditions}))
}

/// Whether all expressions are read without an error. One that only names functions of libraries that are missing here is
/// given the benefit of the doubt, and named.
fn compiled(policy: &Value) -> Value {
    let env = Env::new(VARIABLES.map(|name| (name, Type::Dyn)));
    let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
    for (path, text) in expressions(policy) {
        match env.compile(text) {
            Err(error) if error.is_ignorance() => unknown.push(format!("{path}: {error}")),
            Err(error) => wrong.push(format!("{path}: compilation failed: {error}")),
            Ok(_) => {}
        }
    }
    let (status, reason, message) = if !wrong.is_empty() {
        ("False", "CompilationFailed", wrong.join("\n"))
    } else if !unknown.is_empty() {
        ("Unknown", "UnknownFunctions", unknown.join("\n"))
    } else {
        ("True", "Compiled", String::new())
    };
    json!({"type": "ExpressionsCompiled", "status": status, "reason": reason, "message": message})
}

/// Where a policy has expressions: lists, and the fields of their members.
const EXPRESSIONS: [(&str, &str); 5] = [
    ("matchConditions", "expression"),
    ("variables", "expression"),
    ("validations", "expression"),
    ("validations", "messageExpression"),
    ("auditAnnotations", "valueExpression"),
];

/// A policy's expressions with their paths.
fn expressions(policy: &Value) -> Vec<(String, &str)> {
    let of = |(list, field): (&str, &str)| {
        let members = object::list(policy, &format!("/spec/{list}")).iter().enumerate();
        let found =
            members.filter_map(|(i, member)| Some((format!("spec.{list}[{i}].{field}"), member[field].as_str()?)));
        found.collect::<Vec<_>>()
    };
    EXPRESSIONS.into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_noted_once_and_nothing_is_claimed() {
        let mut policy = json!({"metadata": {"name": "p", "generation": 2}});
        let first = status(&policy, "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(first["observedGeneration"], 2);
        assert_eq!(first["conditions"][0]["status"], "Unknown");
        assert!(first["typeChecking"].is_null());
        policy["status"] = first;
        assert!(status(&policy, "2026-01-01T00:00:01Z").is_none());
        policy["metadata"]["generation"] = 3.into();
        assert_eq!(status(&policy, "2026-01-01T00:00:02Z").unwrap()["observedGeneration"], 3);
    }

    #[test]
    fn expressions_that_do_not_compile_are_named() {
        let validation = |text: &str| json!({"spec": {"validations": [{"expression": text}]}});
        let cases = [
            (
                json!({"spec": {"variables": [{"name": "a", "expression": "object.spec.a"}],
                "validations": [{"expression": "variables.a > 1", "messageExpression": "'a is ' + string(variables.a)"}]}}),
                "True",
                "",
            ),
            (
                validation("object.spec.a >"),
                "False",
                "spec.validations[0].expression: compilation failed: ERROR: <input>:1:16: Syntax error",
            ),
            (validation("subject.a > 1"), "False", "undeclared reference to 'subject'"),
            (
                json!({"spec": {"matchConditions": [{"name": "m", "expression": "1 == 'a'"}]}}),
                "False",
                "spec.matchConditions[0].expression",
            ),
            (
                validation("authorizer.group('').resource('pods').check('get').allowed()"),
                "Unknown",
                "undeclared reference to 'group'",
            ),
        ];
        for (policy, expected, part) in cases {
            let condition = compiled(&policy);
            assert_eq!(condition["status"], expected, "{condition}");
            assert!(condition["message"].as_str().unwrap().contains(part), "{condition}");
        }
    }
}
