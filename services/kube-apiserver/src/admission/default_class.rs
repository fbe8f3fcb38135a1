//! What names no class gets the default one: claims a StorageClass, Ingresses an IngressClass. Of several defaults the newest counts.

use apimachinery::meta;
use serde_json::Value;

use super::{AdmissionRequest, Operation, Plugin, Verdict, all};
use crate::errors::ApiError;
use crate::registry::Context;
use crate::registry::strategy::tree::{at, has, object, set, str_at};

/// The plugin for claims.
pub struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn admit<'a>(&'a self, cx: &'a Context<'_>, request: &'a mut AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            let named = |o: &Value| {
                has(&o["spec"], "storageClassName")
                    || meta::annotation(o, "volume.beta.kubernetes.io/storage-class").is_some()
            };
            let new = request.is("", "persistentvolumeclaims") && request.operation == Operation::Create;
            if !new || named(request.object) {
                return Ok(());
            }
            let mark = "storageclass.kubernetes.io/is-default-class";
            fill(cx, request, ("storage.k8s.io", "storageclasses"), mark, "storageClassName").await
        })
    }
}

/// The plugin for Ingresses.
pub struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn admit<'a>(&'a self, cx: &'a Context<'_>, request: &'a mut AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            let named = |o: &Value| {
                has(&o["spec"], "ingressClassName") || meta::annotation(o, "kubernetes.io/ingress.class").is_some()
            };
            let new = request.is("networking.k8s.io", "ingresses") && request.operation == Operation::Create;
            if !new || named(request.object) {
                return Ok(());
            }
            let mark = "ingressclass.kubernetes.io/is-default-class";
            fill(cx, request, ("networking.k8s.io", "ingressclasses"), mark, "ingressClassName").await
        })
    }
}

async fn fill(
    cx: &Context<'_>,
    request: &mut AdmissionRequest<'_>,
    (group, plural): (&str, &str),
    mark: &str,
    field: &str,
) -> Result<(), ApiError> {
    if let Some(class) = newest(&all(cx, group, plural, "").await?, mark) {
        set(object(request.object, "spec"), field, class);
    }
    Ok(())
}

/// The name of the newest class with the mark; of two equally old ones the first by name.
pub fn newest(classes: &[Value], mark: &str) -> Option<String> {
    let marked = classes.iter().filter(|c| at(c, &["metadata", "annotations", mark]).is_some_and(|v| v == "true"));
    let order = |c: &&Value| {
        (std::cmp::Reverse(meta::creation_timestamp(c).to_owned()), str_at(c, &["metadata", "name"]).to_owned())
    };
    marked.min_by_key(order).map(|c| meta::name(c).to_owned())
}
