//! Bodies: what is read from clients (with a limit) and what is sent (bytes or a stream).

use crate::errors::ApiError;
use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use std::time::Duration;

/// Upstream's limit for request bodies.
pub const LIMIT: usize = 3 * 1024 * 1024;
/// How much more is read and thrown away, so that the client comes to read the answer: while it sends, a connection that is closed tells it nothing.
const EXCESS: usize = 64 * 1024 * 1024;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a response may fail with once it has begun.
pub type StreamError = Box<dyn std::error::Error + Send + Sync>;

/// A response body.
pub type Body = UnsyncBoxBody<Bytes, StreamError>;

/// A request as handlers get it.
pub type Request = http::Request<Incoming>;

/// A response as handlers make it.
pub type Response = http::Response<Body>;

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes in pieces.
pub fn stream<S>(pieces: S) -> Body
where
    S: futures_util::Stream<Item = Result<Bytes, StreamError>> + Send + 'static,
{
    use futures_util::TryStreamExt;
    BodyExt::boxed_unsync(StreamBody::new(pieces.map_ok(Frame::data)))
}

/// Reads a request body, up to the limit.
pub async fn read(mut body: Incoming) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > LIMIT as u64 {
        return Err(too_large(body).await);
    }
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::bad_request(format!("the request body could not be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len() > LIMIT {
            return Err(too_large(body).await);
        }
        // Most bodies are one piece, which needs no copy.
        if first.is_none() { first = Some(data) } else { rest.extend_from_slice(&data) }
    }
    let first = first.unwrap_or_default();
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

/// The refusal, once the client has sent what it has, or as much as is borne.
async fn too_large(mut body: Incoming) -> ApiError {
    let rest = async {
        let mut read = 0;
        while read <= EXCESS
            && let Some(Ok(frame)) = body.frame().await
        {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // A client that takes longer may miss the answer.
    let _ = tokio::time::timeout(PATIENCE, rest).await;
    ApiError::too_large(format!("Request entity too large: limit is {LIMIT}"))
}
