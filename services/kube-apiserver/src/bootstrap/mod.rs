//! What every cluster has from its first moment: the system's namespaces, the default roles and bindings, what the server says about itself,
//! and the Service through which pods reach the API. Reconciled at every start; what people have added to it stays.

mod kubernetes_service;
mod namespaced;
mod objects;
pub mod roles;
mod rules;

use std::sync::Arc;

use apimachinery::time;
use futures_util::{StreamExt, TryFutureExt, TryStreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::admission::quota::Charges;
use crate::authn::UserInfo;
use crate::errors::ApiError;
use crate::registry::{Context, Resource, alloc, generic, lookup};
use crate::server::Shared;
use crate::server::State;
use crate::storage::{Preconditions, Stored};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Writes of this server's own that may be under way together.
const AT_ONCE: usize = 16;
const RBAC: &str = "rbac.authorization.k8s.io";

/// Makes everything there is to make. Safe to repeat, and safe on several servers at once.
pub async fn run(state: Shared) -> Result<(), ApiError> {
    let writer = Writer::new(&state);
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    each(NAMESPACES.map(namespace), |object| writer.ensure("", "namespaces", object).map_ok(drop)).await?;
    let roles = roles::cluster_roles();
    each(roles, |role| writer.reconcile(RBAC, "clusterroles", role, roles::merge_role)).await?;
    let bindings = roles::cluster_role_bindings();
    each(bindings, |binding| writer.reconcile(RBAC, "clusterrolebindings", binding, roles::merge_binding)).await?;
    // Now requests can be decided; what follows is not waited for.
    state.authorizer.bootstrapped().await?;
    namespaced::reconcile(&writer).await?;
    objects::run(&writer).await?;
    alloc::sweep(&state, &writer.now).await?;
    kubernetes_service::reconcile(&writer).await
}

/// Many at once: the store writes what comes together to disk together.
async fn each<T, F>(items: impl IntoIterator<Item = T>, make: impl Fn(T) -> F) -> Result<(), ApiError>
where
    F: Future<Output = Result<(), ApiError>>,
{
    stream::iter(items.into_iter().map(make)).buffer_unordered(AT_ONCE).try_collect().await
}

/// Writes objects the way a request of the server itself would.
pub struct Writer<'a> {
    state: &'a State,
    user: UserInfo,
    now: String,
    warnings: Mutex<Vec<String>>,
    charges: Mutex<Charges>,
}

impl<'a> Writer<'a> {
    /// Writes of this moment.
    pub fn new(state: &'a State) -> Self {
        Self {
            state,
            user: UserInfo::loopback(),
            now: time::now_rfc3339(),
            warnings: Mutex::default(),
            charges: Mutex::default(),
        }
    }

    /// The moment.
    pub fn now(&self) -> &str {
        &self.now
    }

    fn context(&self) -> Context<'_> {
        let (user, state, warnings, charges) = (&self.user, self.state, &self.warnings, &self.charges);
        Context { user, now: self.now.clone(), dry_run: false, state, warnings, charges }
    }

    fn row(group: &str, plural: &str) -> Result<&'static Resource, ApiError> {
        lookup(group, "v1", plural).ok_or_else(|| ApiError::internal(format!("the resource table has no {plural}")))
    }

    /// The object, created if it is not there.
    pub async fn ensure(&self, group: &str, plural: &str, object: Value) -> Result<Arc<Stored>, ApiError> {
        let res = Self::row(group, plural)?;
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if let Some(found) = self.state.storage.get(res, &namespace, &name).await? {
            return Ok(found);
        }
        match self.create(res, &namespace, object).await {
            // Another server was quicker.
            Err(e) if e.reason() == "AlreadyExists" => {
                let found = self.state.storage.get(res, &namespace, &name).await?;
                found.ok_or_else(|| ApiError::not_found(group, plural, &name))
            }
            result => result,
        }
    }

    async fn create(
        &self,
        res: &'static Resource,
        namespace: &str,
        mut object: Value,
    ) -> Result<Arc<Stored>, ApiError> {
        let cx = self.context();
        generic::prepare_for_create(&mut object, namespace, &uuid::Uuid::new_v4().to_string(), &self.now)?;
        res.strategy.prepare_for_create(&cx, &mut object)?;
        if res.storage == "services/specs" {
            alloc::assign(&cx, &mut object, None).await?;
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let errors = res.strategy.validate(&object);
        if !errors.is_empty() {
            return Err(ApiError::invalid(res.group, res.kind, &name, &errors));
        }
        tracing::debug!(resource = ?res, name, "creating");
        self.state.storage.create(res, object).await
    }

    /// The object, brought in line with what it should be.
    async fn reconcile(
        &self,
        group: &str,
        plural: &str,
        wanted: Value,
        merge: fn(&mut Value, &Value),
    ) -> Result<(), ApiError> {
        let res = Self::row(group, plural)?;
        let found = self.ensure(group, plural, wanted.clone()).await?;
        let cx = self.context();
        let change = |old: Value| {
            let mut new = old.clone();
            merge(&mut new, &wanted);
            if new != old {
                res.strategy.prepare_for_update(&cx, None, &mut new, &old)?;
            }
            Ok(new)
        };
        self.state
            .storage
            .guaranteed_update(res, &found.namespace, &found.name, &Preconditions::default(), change)
            .await?;
        Ok(())
    }
}
