//! clusterrole-aggregation-controller: an aggregated ClusterRole has the rules of all roles that its selectors match.

use std::sync::Arc;

use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use client::resource::CLUSTERROLES;
use client::{Patch, WorkQueue};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::object;
use crate::worker::{self, Next};

/// Runs the controller.
pub async fn run(context: Context) {
    let roles = context.informers.get(CLUSTERROLES);
    roles.synced().await;
    let queue = WorkQueue::new();
    let (all, to) = (roles.clone(), queue.clone());
    worker::on_change(&roles, move |_| {
        // Any role may be a part of any aggregated one; there are few of those.
        all.list().iter().filter(|role| is_aggregated(role)).for_each(|role| to.add(meta::name(role).to_owned()));
    });
    let sync = async |name: String| -> Result<Next, Error> {
        let Some(role) = roles.get("", &name) else { return Ok(Next::Done) };
        let Some(rules) = plan(&role, roles.list())? else { return Ok(Next::Done) };
        let metadata = json!({"uid": meta::uid(&role), "resourceVersion": meta::resource_version(&role)});
        let patch = Patch::Merge(json!({"metadata": metadata, "rules": rules}));
        ignore_not_found(context.client.patch(CLUSTERROLES, None, &name, None, &patch).await)?;
        Ok(Next::Done)
    };
    worker::run("clusterrole-aggregation", queue, 2, sync).await;
}

fn is_aggregated(role: &Value) -> bool {
    role["aggregationRule"].is_object()
}

/// The rules to write, if they differ: those of the parts in the order of their names, each once.
fn plan(role: &Value, mut all: Vec<Arc<Value>>) -> Result<Option<Vec<Value>>, Error> {
    if !is_aggregated(role) || meta::deletion_timestamp(role).is_some() {
        return Ok(None);
    }
    all.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
    let mut rules: Vec<Value> = Vec::new();
    for selector in object::list(role, "/aggregationRule/clusterRoleSelectors") {
        let selector = LabelSelector::from_object(selector)
            .map_err(|e| Error::Object(format!("ClusterRole {}: aggregationRule: {e}", meta::name(role))))?;
        for part in
            all.iter().filter(|part| selector.matches(meta::labels(part)) && meta::name(part) != meta::name(role))
        {
            for rule in object::list(part, "/rules") {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Ok((object::list(role, "/rules") != rules.as_slice()).then_some(rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_gathered_once() {
        let role = |name: &str, label: &str, rules: Value| {
            Arc::new(json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": rules}))
        };
        let all = vec![
            role("b", "edit", json!([{"verbs": ["x"]}, {"verbs": ["y"]}])),
            role("a", "edit", json!([{"verbs": ["y"]}])),
            role("c", "view", json!([{"verbs": ["z"]}])),
        ];
        let mut edit = json!({"metadata": {"name": "edit", "labels": {"to": "edit"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "edit"}}]}, "rules": []});
        let rules = plan(&edit, all.clone()).unwrap().unwrap();
        assert_eq!(rules, [json!({"verbs": ["y"]}), json!({"verbs": ["x"]})]);
        edit["rules"] = rules.into();
        assert_eq!(plan(&edit, all.clone()).unwrap(), None, "settled");
        assert_eq!(plan(&all[0], all.clone()).unwrap(), None, "not aggregated");
    }
}
