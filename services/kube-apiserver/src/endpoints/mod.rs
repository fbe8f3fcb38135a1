//! The verbs, once for every resource: a request that may proceed is matched to its row in the table and carried out.
//!
//! [`create`], [`read`], [`list`], [`watch`], [`update`] (PUT and PATCH), [`apply`], [`delete`]; [`sub`] has the subresources that are more than a part of
//! their object. [`decode`] and [`encode`] stand at both ends, [`ownership`] keeps managedFields.

pub mod apply;
mod components;
pub mod create;
pub mod decode;
pub mod delete;
pub mod encode;
#[cfg(test)]
mod fuzz;
pub mod list;
pub mod ownership;
pub mod pages;
pub mod pieces;
pub mod read;
pub mod sub;
pub mod update;
pub mod watch;
pub mod watch_socket;
pub mod yaml;

use crate::errors::ApiError;
use crate::proxy;
use crate::registry::{Resource, Subresource, Verb, lookup, table};
use crate::server::body::{Request, Response};
use crate::server::handler::Call;

/// What a request addresses.
pub struct Target {
    /// The row.
    pub res: &'static Resource,
    /// The subresource, if any.
    pub sub: Option<&'static Subresource>,
    /// The namespace; empty for cluster scope and for collections across namespaces.
    pub namespace: String,
    /// The object's name; empty for collections.
    pub name: String,
}

/// Carries out a resource request.
pub async fn dispatch(call: Call, request: Request) -> Result<Response, ApiError> {
    let target = resolve(&call)?;
    // The methods are the backend's business, those that mean nothing here included.
    if target.sub.is_some_and(|s| s.name == "proxy") {
        return proxy::forward::serve(&call, &target, request).await;
    }
    let verb = call.attributes().verb.as_str();
    let verb = verb_of(verb).ok_or_else(|| ApiError::method_not_allowed(target.res.group, target.res.plural))?;
    let supported = target.sub.map_or(target.res.verbs, |s| s.verbs);
    // An object is made in its collection, and changed by its own path.
    let misplaced = target.sub.is_none()
        && match verb {
            Verb::Create => !target.name.is_empty(),
            Verb::Update | Verb::Patch => target.name.is_empty(),
            _ => false,
        };
    if misplaced || !supported.contains(&verb) {
        return Err(ApiError::method_not_allowed(target.res.group, target.res.plural));
    }
    if let Some(subresource) = target.sub
        && sub::is_special(subresource.name)
    {
        return sub::dispatch(call, target, subresource, verb, request).await;
    }
    match verb {
        Verb::Create => create::create(&call, &target, request).await,
        Verb::Get if target.res.virtual_ => components::get(&call, &target).await,
        Verb::List if target.res.virtual_ => components::list(&call, &target).await,
        Verb::Get => read::get(&call, &target).await,
        Verb::List => list::list(&call, &target).await,
        Verb::Watch => watch::watch(call, target, request).await,
        Verb::Update => update::put(&call, &target, request).await,
        Verb::Patch => update::patch(&call, &target, request).await,
        Verb::Delete => delete::delete(&call, &target, request).await,
        Verb::DeleteCollection => delete::collection(&call, &target, request).await,
    }
}

fn resolve(call: &Call) -> Result<Target, ApiError> {
    let a = call.attributes();
    let served = || table().iter().any(|r| r.group == a.group && r.version == a.version);
    let unknown = || if served() { ApiError::no_such_path() } else { ApiError::no_such_page() };
    let res = lookup(&a.group, &a.version, &a.resource).ok_or_else(unknown)?;
    let sub = match a.subresource.as_str() {
        "" => None,
        name => Some(res.subresource(name).ok_or_else(ApiError::no_such_path)?),
    };
    // For authorization a namespace lies in itself; for storage it does not.
    let namespace = if res.namespaced { a.namespace.clone() } else { String::new() };
    let is_namespace = res.plural == "namespaces" && res.group.is_empty();
    let stray = !res.namespaced && !a.namespace.is_empty() && !is_namespace;
    if stray
        || (res.namespaced
            && namespace.is_empty()
            && !a.name.is_empty()
            && !matches!(a.verb.as_str(), "list" | "watch"))
    {
        return Err(ApiError::no_such_path());
    }
    if res.namespaced
        && namespace.is_empty()
        && matches!(a.verb.as_str(), "create" | "deletecollection")
        && !res.virtual_
    {
        return Err(ApiError::method_not_allowed(res.group, res.plural));
    }
    Ok(Target { res, sub, namespace, name: a.name.clone() })
}

fn verb_of(name: &str) -> Option<Verb> {
    const ALL: [Verb; 8] = [
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];
    ALL.into_iter().find(|v| v.name() == name)
}
