//! Subresources that are more than a part of their object.

pub mod binding;
pub mod eviction;
pub mod finalize;
pub mod scale;

use super::Target;
use super::decode;
use super::encode;
use crate::errors::ApiError;
use crate::proxy;
use crate::registry::{Subresource, Verb};
use crate::server::body::{Request, Response};
use crate::server::handler::Call;
use crate::tokens;

/// Whether a subresource is answered here; the others are read and written like their object.
pub fn is_special(name: &str) -> bool {
    matches!(name, "scale" | "binding" | "eviction" | "token" | "finalize" | "log" | "exec" | "attach" | "portforward")
}

/// Carries out a request for a special subresource.
pub async fn dispatch(
    call: Call,
    target: Target,
    sub: &Subresource,
    verb: Verb,
    request: Request,
) -> Result<Response, ApiError> {
    match (sub.name, verb) {
        ("scale", Verb::Get) => scale::get(&call, &target).await,
        ("scale", Verb::Update) => scale::put(&call, &target, request).await,
        ("scale", Verb::Patch) => scale::patch(&call, &target, request).await,
        ("binding", Verb::Create) => binding::create(&call, &target, request).await,
        ("eviction", Verb::Create) => eviction::create(&call, &target, request).await,
        ("finalize", Verb::Update) => finalize::put(&call, &target, request).await,
        ("token", Verb::Create) => token(&call, &target, sub, request).await,
        ("log", Verb::Get) => proxy::log(&call, &target, request).await,
        ("exec" | "attach" | "portforward", Verb::Get | Verb::Create) => {
            proxy::stream(&call, &target, sub.name, request).await
        }
        _ => Err(ApiError::method_not_allowed(target.res.group, target.res.plural)),
    }
}

async fn token(call: &Call, target: &Target, sub: &Subresource, request: Request) -> Result<Response, ApiError> {
    let decoded = decode::object(call, request, sub.group, sub.version, sub.kind).await?;
    let answer =
        tokens::token_request(&call.context(call.dry_run()?), &target.namespace, &target.name, decoded.object).await?;
    encode::value(call, 201, &answer)
}
