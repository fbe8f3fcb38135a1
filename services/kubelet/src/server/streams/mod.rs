//! Streams into pods: exec, attach and port-forward.
//!
//! The runtime serves them itself (SPDY/3.1 and WebSocket, every version it knows) at a URL that it names for one
//! connection each. The kubelet decides what is meant ([`request`]), asks for the URL and passes the client's connection
//! on to it, unread ([`relay`]).

mod relay;
mod request;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use cri_api::v1;

use super::{Refusal, find_pod};
use crate::observed::State as Life;
use crate::pod::Pod;
use crate::shared::Shared;
use request::{Ports, Streams};

/// Path parameters of exec and attach; the pod's uid may stand before the container.
pub type Container = Path<Vec<String>>;

/// Answers `/exec/<namespace>/<pod>[/<uid>]/<container>`.
pub async fn exec(
    State(shared): State<Arc<Shared>>,
    Path(path): Container,
    request: Request,
) -> Result<Response, Refusal> {
    let wanted = Streams::parse(request.uri().query().unwrap_or_default()).map_err(Refusal::bad_request)?;
    if wanted.command.is_empty() {
        return Err(Refusal::bad_request("you must specify at least 1 command for the container"));
    }
    let (_, container_id, _) = running(&shared, &path).await?;
    let call = v1::ExecRequest {
        container_id,
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr && !wanted.tty,
        cmd: wanted.command,
    };
    let url = shared.cri.api.runtime.clone().exec(call).await.map_err(refused)?.into_inner().url;
    relay::pass(request, &url).await
}

/// How long a command that nobody is connected to may run.
const RUN_LIMIT: Duration = Duration::from_secs(600);

/// Answers POST `/run/<namespace>/<pod>[/<uid>]/<container>?cmd=...`: a command's output, once it has ended.
pub async fn run(
    State(shared): State<Arc<Shared>>,
    Path(path): Container,
    request: Request,
) -> Result<Response, Refusal> {
    let command = request::command(request.uri().query().unwrap_or_default());
    let (_, id, _) = running(&shared, &path).await?;
    let (code, output) = shared.cri.exec(&id, &command, RUN_LIMIT).await.map_err(Refusal::internal)?;
    if code != 0 {
        let output = String::from_utf8_lossy(&output);
        return Err(Refusal::internal(format!("command '{}' exited with {code}: {output}", command.join(" "))));
    }
    // Upstream says so of any output.
    Ok(([(header::CONTENT_TYPE, "application/json")], output).into_response())
}

/// Answers `/attach/<namespace>/<pod>[/<uid>]/<container>`.
pub async fn attach(
    State(shared): State<Arc<Shared>>,
    Path(path): Container,
    request: Request,
) -> Result<Response, Refusal> {
    let wanted = Streams::parse(request.uri().query().unwrap_or_default()).map_err(Refusal::bad_request)?;
    let (pod, container_id, name) = running(&shared, &path).await?;
    // A process has a terminal from its start or never: what the client believes does not matter.
    let tty = pod.container(name).is_some_and(|c| c.tty);
    let call = v1::AttachRequest {
        container_id,
        stdin: wanted.stdin,
        tty,
        stdout: wanted.stdout,
        stderr: wanted.stderr && !tty,
    };
    let url = shared.cri.api.runtime.clone().attach(call).await.map_err(refused)?.into_inner().url;
    relay::pass(request, &url).await
}

/// Answers `/portForward/<namespace>/<pod>[/<uid>]`.
pub async fn port_forward(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<Vec<String>>,
    request: Request,
) -> Result<Response, Refusal> {
    let Ports(port) = Ports::parse(request.uri().query().unwrap_or_default()).map_err(Refusal::bad_request)?;
    let pod = pod_of(&shared, &path)?;
    let observed = shared.cri.observe(&pod.metadata.uid).await.map_err(Refusal::internal)?;
    let Some(sandbox) = observed.sandboxes.iter().find(|s| s.ready) else {
        return Err(Refusal::not_found(format!("failed to find sandbox for pod {:?}", pod.metadata.name)));
    };
    let call = v1::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port };
    let url = shared.cri.api.runtime.clone().port_forward(call).await.map_err(refused)?.into_inner().url;
    relay::pass(request, &url).await
}

fn pod_of(shared: &Shared, path: &[String]) -> Result<Pod, Refusal> {
    let [namespace, name, ..] = path else { return Err(Refusal::not_found("404 page not found")) };
    let pod = find_pod(shared, namespace, name)?;
    Ok(pod)
}

/// The pod, the id of the container instance that runs, and the container's name.
async fn running<'a>(shared: &Shared, path: &'a [String]) -> Result<(Pod, String, &'a str), Refusal> {
    let pod = pod_of(shared, path)?;
    let name = match path {
        [_, _, uid, name] if *uid == pod.metadata.uid => name,
        [_, _, uid, _] => return Err(Refusal::not_found(format!("pod with uid {uid:?} does not exist"))),
        [_, _, name] => name,
        _ => return Err(Refusal::not_found("404 page not found")),
    };
    let observed = shared.cri.observe(&pod.metadata.uid).await.map_err(Refusal::internal)?;
    let found = observed.instances(name).find(|c| c.state == Life::Running).map(|c| c.id.clone());
    match found {
        Some(id) => Ok((pod, id, name)),
        None => Err(Refusal::internal(format!("container not found ({name:?})"))),
    }
}

/// The runtime's refusal, in its words.
fn refused(status: tonic::Status) -> Refusal {
    let code = match status.code() {
        tonic::Code::NotFound => StatusCode::NOT_FOUND,
        tonic::Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refusal(code, format!("rpc error: code = {:?} desc = {}", status.code(), status.message()))
}
