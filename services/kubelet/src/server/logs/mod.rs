//! Container logs over HTTP.

mod follow;
pub mod line;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio_stream::wrappers::ReceiverStream;

use super::{Refusal, find_pod};
use crate::observed::{Instance, State as Life};
use crate::shared::Shared;
use line::Filter;

/// The query of a log request, with the API's names.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Options {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<i64>,
    limit_bytes: Option<u64>,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    stream: Option<String>,
}

fn flag(value: Option<&String>) -> bool {
    value.is_some_and(|v| matches!(v.as_str(), "true" | "1" | ""))
}

impl Options {
    fn filter(&self, now: jiff::Timestamp) -> Result<Filter, Refusal> {
        let since = match (&self.since_time, self.since_seconds) {
            (Some(time), None) => Some(time.parse().map_err(|e| Refusal::bad_request(format!("sinceTime: {e}")))?),
            (None, Some(seconds)) if seconds > 0 => jiff::Timestamp::from_second(now.as_second() - seconds).ok(),
            (None, None) => None,
            _ => {
                return Err(Refusal::bad_request(
                    "sinceSeconds must be positive, and at most one of sinceTime and sinceSeconds may be set",
                ));
            }
        };
        let stream = match self.stream.as_deref() {
            None | Some("" | "All") => None,
            Some("Stdout") => Some(false),
            Some("Stderr") => Some(true),
            Some(other) => return Err(Refusal::bad_request(format!("stream: {other:?} is not All, Stdout or Stderr"))),
        };
        Ok(Filter { since, timestamps: flag(self.timestamps.as_ref()), stream })
    }
}

/// Answers a log request.
pub async fn serve(
    State(shared): State<Arc<Shared>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(options): Query<Options>,
) -> Result<Response, Refusal> {
    let filter = options.filter(jiff::Timestamp::now())?;
    if options.tail_lines.is_some_and(|n| n < 0) {
        return Err(Refusal::bad_request("tailLines must not be negative"));
    }
    let instance = find(&shared, &namespace, &pod, &container, flag(options.previous.as_ref())).await?;
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    let reader = follow::Reader::open(&instance.log_path, filter, &options)
        .map_err(|e| Refusal::internal(format!("failed to open log file {:?}: {e}", instance.log_path)))?;
    let follow = flag(options.follow.as_ref()) && instance.state == Life::Running;
    tokio::spawn(reader.run(shared, instance.id, follow, sender));
    let body = Body::from_stream(ReceiverStream::new(receiver));
    Ok(([("content-type", "text/plain"), ("transfer-encoding", "chunked")], body).into_response())
}

/// The container instance whose log is asked for.
async fn find(
    shared: &Shared,
    namespace: &str,
    name: &str,
    container: &str,
    previous: bool,
) -> Result<Instance, Refusal> {
    let pod = find_pod(shared, namespace, name)?;
    if pod.container(container).is_none() {
        return Err(Refusal::not_found(format!("container {container:?} not found in pod {name:?}")));
    }
    let observed = shared.cri.observe(&pod.metadata.uid).await.map_err(Refusal::internal)?;
    let mut instances = observed.instances(container);
    let found = if previous {
        let ended = |c: &&Instance| c.state == Life::Exited;
        match instances.next() {
            Some(first) if first.state == Life::Exited && waits(&pod.status, container) => Some(first),
            _ => instances.find(ended),
        }
    } else {
        instances.find(|c| c.state != Life::Created)
    };
    found.cloned().ok_or_else(|| {
        Refusal::bad_request(if previous {
            format!("previous terminated container {container:?} in pod {name:?} not found")
        } else {
            let reason = waiting_reason(&pod.status, container).unwrap_or("ContainerCreating");
            format!("container {container:?} in pod {name:?} is waiting to start: {reason}")
        })
    })
}

fn container_status<'a>(status: &'a serde_json::Value, container: &str) -> Option<&'a serde_json::Value> {
    ["containerStatuses", "initContainerStatuses"]
        .iter()
        .filter_map(|list| status[*list].as_array())
        .flatten()
        .find(|s| s["name"] == container)
}

fn waiting_reason<'a>(status: &'a serde_json::Value, container: &str) -> Option<&'a str> {
    container_status(status, container)?["state"]["waiting"]["reason"].as_str()
}

/// Between two instances the one that ended last is the previous one.
fn waits(status: &serde_json::Value, container: &str) -> bool {
    waiting_reason(status, container).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let options = Options { since_seconds: Some(30), timestamps: Some("true".into()), ..Options::default() };
        let filter = options.filter(now).unwrap();
        assert_eq!(filter.since, Some("2026-01-01T00:00:30Z".parse().unwrap()));
        assert!(filter.timestamps);
        let both =
            Options { since_seconds: Some(1), since_time: Some("2026-01-01T00:00:00Z".into()), ..Options::default() };
        assert!(both.filter(now).is_err());
        assert!(Options { since_time: Some("yesterday".into()), ..Options::default() }.filter(now).is_err());
    }
}
