//! GET of one object.

use super::{Target, encode};
use crate::errors::ApiError;
use crate::server::body::Response;
use crate::server::handler::Call;
use crate::storage::{Stored, keys};
use std::sync::Arc;

/// Answers with the object.
pub async fn get(call: &Call, target: &Target) -> Result<Response, ApiError> {
    call.accepted()?;
    let object = find(call, target).await?;
    encode::one(call, target.res, 200, &object, &[])
}

/// The object, as new as the request demands: newest unless a version is given.
pub async fn find(call: &Call, target: &Target) -> Result<Arc<Stored>, ApiError> {
    let (res, storage) = (target.res, &call.state.storage);
    let found = match call.query.get("resourceVersion") {
        "" => storage.get(res, &target.namespace, &target.name).await?,
        text => {
            let revision: i64 = text.parse().map_err(|_| invalid_version(text))?;
            let cacher = storage.cache(res);
            cacher.at_least(revision).await?;
            cacher.get(&keys::relative(res, &target.namespace, &target.name))
        }
    };
    found.ok_or_else(|| ApiError::not_found(res.group, res.plural, &target.name))
}

/// The 400 for a resourceVersion that is not a number.
pub fn invalid_version(text: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"))
}
