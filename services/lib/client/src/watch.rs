//! Watch streams: JSON documents, one per line, over an endless body.

use bytes::{Buf, BytesMut};
use futures_util::{Stream, stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::error::{Error, Status};
use crate::params::{WatchEvent, WatchKind};

/// No event of a sane cluster comes near this; a server that sends more is broken.
const LINE_LIMIT_BYTES: usize = 16 << 20;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

struct State {
    path: String,
    body: Incoming,
    buffer: BytesMut,
    ended: bool,
}

/// Turns a watch body into events; ends after the first error.
pub(crate) fn events<T: DeserializeOwned + Send>(
    path: String,
    body: Incoming,
) -> impl Stream<Item = Result<WatchEvent<T>, Error>> + Send + Unpin {
    let state = State { path, body, buffer: BytesMut::new(), ended: false };
    Box::pin(stream::unfold(state, |mut state| async move {
        if state.ended {
            return None;
        }
        let event = state.next().await?;
        state.ended = event.is_err();
        Some((event, state))
    }))
}

impl State {
    async fn next<T: DeserializeOwned>(&mut self) -> Option<Result<WatchEvent<T>, Error>> {
        let mut scanned = 0;
        loop {
            if let Some(end) = self.buffer[scanned..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(scanned + end);
                self.buffer.advance(1);
                scanned = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Some(self.parse(&line));
            }
            scanned = self.buffer.len();
            if scanned > LINE_LIMIT_BYTES {
                return Some(Err(self.error("an event is larger than 16 MiB")));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return None,
                None => {
                    let line = self.buffer.split();
                    return Some(self.parse(&line));
                }
                Some(Err(error)) => return Some(Err(self.error(&error.to_string()))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn error(&self, reason: &str) -> Error {
        Error::Answer { request: format!("watch {}", self.path), reason: reason.to_owned() }
    }

    fn parse<T: DeserializeOwned>(&self, line: &[u8]) -> Result<WatchEvent<T>, Error> {
        parse(line).map_err(|error| match error {
            ParseError::Status(status) => Error::Api(status),
            ParseError::Malformed(reason) => self.error(&reason),
        })
    }
}

enum ParseError {
    Status(Box<Status>),
    Malformed(String),
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<WatchEvent<T>, ParseError> {
    let malformed = |e: serde_json::Error| ParseError::Malformed(e.to_string());
    let line: Line<'_> = serde_json::from_slice(line).map_err(malformed)?;
    let kind = match line.kind.as_str() {
        "ADDED" => WatchKind::Added,
        "MODIFIED" => WatchKind::Modified,
        "DELETED" => WatchKind::Deleted,
        "BOOKMARK" => WatchKind::Bookmark,
        "ERROR" => {
            let status = serde_json::from_str(line.object.get()).unwrap_or_default();
            return Err(ParseError::Status(Box::new(status)));
        }
        other => return Err(ParseError::Malformed(format!("event type {other:?}"))),
    };
    Ok(WatchEvent { kind, object: serde_json::from_str(line.object.get()).map_err(malformed)? })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn parse(line: &[u8]) -> Result<WatchEvent, ParseError> {
        super::parse::<Value>(line)
    }

    #[test]
    fn lines_become_events_and_errors_become_statuses() {
        let event = parse(br#"{"type":"DELETED","object":{"metadata":{"name":"a"}}}"#);
        assert!(matches!(event, Ok(WatchEvent { kind: WatchKind::Deleted, .. })));
        let gone = parse(br#"{"type":"ERROR","object":{"code":410,"reason":"Expired","message":"too old"}}"#);
        assert!(matches!(gone, Err(ParseError::Status(status)) if status.code == 410));
        assert!(matches!(parse(br#"{"type":"X","object":{}}"#), Err(ParseError::Malformed(_))));
    }
}
