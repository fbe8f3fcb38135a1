//! ephemeral-volume-controller: makes the claims of pods' ephemeral volumes; they are the pod's and go with it.

use apimachinery::meta;
use client::resource::PODS;
use client::{Change, WorkQueue};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::Error;
use crate::resource::PERSISTENTVOLUMECLAIMS;
use crate::worker::{self, Next};
use crate::{object, pods};

/// Runs the controller.
pub async fn run(context: Context) {
    let (claims, all) = (context.informers.get(PERSISTENTVOLUMECLAIMS), context.informers.get(PODS));
    claims.synced().await;
    all.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&all, move |change| {
        if let Change::Applied { old: None, new } = &change
            && !wanted(new).is_empty()
        {
            to.add(meta::key(new));
        }
    });
    let to = queue.clone();
    worker::on_change(&claims, move |change| {
        if let Change::Deleted(claim) = &change
            && let Some(pod) = meta::controller_of(claim).filter(|owner| owner["kind"] == "Pod")
        {
            to.add(format!("{}/{}", meta::namespace(claim), object::text(pod, "/name")));
        }
    });
    let sync = async |key: String| -> Result<Next, Error> {
        let (namespace, name) = meta::split_key(&key);
        let Some(pod) = all.get(namespace, name).filter(|pod| pods::is_active(pod)) else { return Ok(Next::Done) };
        for claim in wanted(&pod) {
            match claims.get(namespace, meta::name(&claim)) {
                Some(found) if meta::is_controlled_by(&found, &pod) => {}
                Some(_) => {
                    let message = format!(
                        "PVC {}/{} was not created for pod {key} (pod is not owner)",
                        namespace,
                        meta::name(&claim)
                    );
                    context.events.note(&pod, "Warning", "ConflictingPVC", message.clone());
                    return Err(Error::Object(message));
                }
                None => match context.client.create(PERSISTENTVOLUMECLAIMS, Some(namespace), &claim).await {
                    Ok(_) => {}
                    Err(error) if error.is_already_exists() => {}
                    Err(error) => {
                        let message = format!("ephemeral volume claim {}: {error}", meta::name(&claim));
                        context.events.note(&pod, "Warning", "FailedBinding", message);
                        return Err(error.into());
                    }
                },
            }
        }
        Ok(Next::Done)
    };
    worker::run("ephemeral-volume", queue, 2, sync).await;
}

/// The claims of a pod's ephemeral volumes.
fn wanted(pod: &Value) -> Vec<Value> {
    let ephemeral = object::list(pod, "/spec/volumes").iter().filter(|v| v["ephemeral"].is_object());
    ephemeral
        .map(|volume| {
            let template = &volume["ephemeral"]["volumeClaimTemplate"];
            let mut metadata = template["metadata"].as_object().cloned().unwrap_or_default();
            metadata.insert("name".into(), format!("{}-{}", meta::name(pod), object::text(volume, "/name")).into());
            metadata.insert("namespace".into(), meta::namespace(pod).into());
            metadata.insert("ownerReferences".into(), json!([meta::controller_reference(pod)]));
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"]})
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_named_after_pod_and_volume() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "w", "emptyDir": {}}]}});
        let claims = wanted(&pod);
        assert_eq!(claims.len(), 1);
        assert_eq!((meta::key(&claims[0]).as_str(), &claims[0]["spec"]), ("n/p-v", &json!({"x": 1})));
        assert!(meta::is_controlled_by(&claims[0], &pod));
    }
}
