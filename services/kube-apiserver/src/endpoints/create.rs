//! POST to a collection.

use super::ownership::Tracking;
use super::{Target, decode, encode};
use crate::admission::{self, AdmissionRequest, Operation};
use crate::authz::reviews;
use crate::errors::ApiError;
use crate::registry::{Resource, generic, warnings};
use crate::server::body::{Request, Response};
use crate::server::handler::Call;
use crate::storage::{Stored, codec};
use apimachinery::meta;
use serde_json::{Value, json};
use std::sync::Arc;

/// How often a generated name is drawn before its being taken is the client's problem.
const DRAWS: usize = 8;

/// Creates an object, or answers a review.
pub async fn create(call: &Call, target: &Target, request: Request) -> Result<Response, ApiError> {
    call.accepted()?;
    let dry_run = call.dry_run()?;
    let tracking = Tracking::of(call, "CreateOptions")?;
    if target.res.kind == "Binding" {
        return super::sub::binding::create(call, target, request).await;
    }
    let decoded = decode::object(call, request, target.res.group, target.res.version, target.res.kind).await?;
    if target.res.virtual_ {
        let answer = reviews::answer(call, target.res, &target.namespace, decoded.object).await?;
        return encode::value(call, 201, &answer);
    }
    let stored = make(call, target.res, &target.namespace, decoded.object, dry_run, &tracking).await?;
    encode::one(call, target.res, 201, &stored, &decoded.warnings)
}

/// Takes a decoded object through defaulting, admission, strategy and validation into the store.
pub async fn make(
    call: &Call,
    res: &'static Resource,
    namespace: &str,
    object: Value,
    dry_run: bool,
    tracking: &Tracking,
) -> Result<Arc<Stored>, ApiError> {
    let generated = meta::name(&object).is_empty() && !meta::generate_name(&object).is_empty();
    let mut draw = 1;
    loop {
        match attempt(call, res, namespace, object.clone(), dry_run, tracking).await {
            Err(error) if generated && error.reason() == "AlreadyExists" && draw < DRAWS => draw += 1,
            result => return result,
        }
    }
}

async fn attempt(
    call: &Call,
    res: &'static Resource,
    namespace: &str,
    mut object: Value,
    dry_run: bool,
    tracking: &Tracking,
) -> Result<Arc<Stored>, ApiError> {
    let cx = call.context(dry_run);
    let uid = uuid::Uuid::new_v4().to_string();
    generic::prepare_for_create(&mut object, namespace, &uid, &call.now)?;
    generic::dedup_owners(&cx, &mut object);
    decode::default(res.group, res.version, res.kind, &mut object);
    res.strategy.default(&mut object);
    tracking.follow(call, res, None, &json!({}), &mut object);
    let name = meta::name(&object).to_string();
    let admission = AdmissionRequest {
        operation: Operation::Create,
        resource: res,
        subresource: None,
        namespace,
        name: &name,
        object: &mut object,
        old: None,
    };
    admission::admit(&cx, admission).await?;
    let result = store(call, res, &mut object, dry_run).await;
    if result.is_err() && !dry_run {
        // What admission and strategy took for this object goes back.
        res.strategy.after_delete(&cx, &object);
    }
    result
}

async fn store(
    call: &Call,
    res: &'static Resource,
    object: &mut Value,
    dry_run: bool,
) -> Result<Arc<Stored>, ApiError> {
    res.strategy.prepare_for_create(&call.context(dry_run), object)?;
    check(res, object)?;
    let (namespace, name) = (meta::namespace(object).to_string(), meta::name(object).to_string());
    let admission = AdmissionRequest {
        operation: Operation::Create,
        resource: res,
        subresource: None,
        namespace: &namespace,
        name: &name,
        object,
        old: None,
    };
    admission::validate(&call.context(dry_run), admission).await?;
    warnings::of(res, None, object, None).into_iter().for_each(|text| call.context(dry_run).warn(text));
    if dry_run {
        return codec::stored(res, object.clone(), 0).map(Arc::new);
    }
    call.state.storage.create(res, object.clone()).await
}

fn check(res: &Resource, object: &Value) -> Result<(), ApiError> {
    let errors = res.strategy.validate(object);
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(res.group, res.kind, meta::name(object), &errors)) }
}
