//! Commands in running containers over a WebSocket, in the `channel.k8s.io` framing: every message begins with the
//! number of its channel.

mod frames;
mod process;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Refusal, find_pod};
use crate::observed::State as Life;
use crate::shared::Shared;
use frames::{Input, Request, channel};
use process::Process;

/// Newest first. The first is the framing without statuses that very old clients speak.
const PROTOCOLS: [&str; 3] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"];
/// After the command's end its output must stop within this time; something it left in the background may hold it open.
const LAST_WORDS: Duration = Duration::from_secs(10);
const CHUNK: usize = 32 * 1024;

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Answers an exec request.
pub async fn serve(
    State(shared): State<Arc<Shared>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    begin(shared, [namespace, pod, container], query, upgrade).await
}

/// The same with the pod's uid in the path.
pub async fn serve_uid(
    State(shared): State<Arc<Shared>>,
    Path((namespace, pod, _uid, container)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    begin(shared, [namespace, pod, container], query, upgrade).await
}

async fn begin(
    shared: Arc<Shared>,
    names: [String; 3],
    query: Option<String>,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    let [namespace, name, container] = names;
    let request = Request::parse(query.as_deref().unwrap_or_default()).map_err(Refusal::bad_request)?;
    let pod = find_pod(&shared, &namespace, &name)?;
    let observed = shared.cri.observe(&pod.metadata.uid).await.map_err(Refusal::internal)?;
    let running = observed.instances(&container).find(|c| c.state == Life::Running);
    let id = running
        .map(|c| c.id.clone())
        .ok_or_else(|| Refusal::not_found(format!("container not found ({container:?})")))?;
    let upgrade = upgrade.map_err(|_| {
        let spoken = PROTOCOLS.join(", ");
        Refusal::bad_request(format!("unable to upgrade: this kubelet speaks WebSocket ({spoken}), not SPDY"))
    })?;
    let upgrade = upgrade.protocols(PROTOCOLS);
    let plain = upgrade.selected_protocol().is_none_or(|p| p == PROTOCOLS[2]);
    let upgraded = upgrade.on_upgrade(move |socket| async move {
        let status = converse(socket, &shared, &id, request, plain).await;
        tracing::debug!(container = %id, %status, "exec ended");
    });
    Ok(upgraded.into_response())
}

/// Runs the command and passes its streams on; the result is what the client was told at the end.
async fn converse(socket: WebSocket, shared: &Shared, id: &str, request: Request, plain: bool) -> Value {
    let (mut sink, mut stream) = socket.split();
    let (sender, mut outgoing) = mpsc::channel::<Message>(16);
    let writer = tokio::spawn(async move {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        // Clients take an end without this status (RFC 6455, 7.4.1) for a broken connection.
        let normal = CloseFrame { code: close_code::NORMAL, reason: "".into() };
        let _ = sink.send(Message::Close(Some(normal))).await;
    });
    let outcome = match Process::start(shared.cri.0.channel.clone(), id, &request).await {
        Ok((process, streams)) => {
            let mut pumps = JoinSet::new();
            if let Some(pipe) = streams.stdout {
                pumps.spawn(pump(pipe, channel::STDOUT, sender.clone()));
            }
            if let Some(pipe) = streams.stderr {
                pumps.spawn(pump(pipe, channel::STDERR, sender.clone()));
            }
            let outcome = tokio::select! {
                outcome = process.wait() => outcome,
                () = feed(&mut stream, &process, streams.stdin) => {
                    // The client is gone; nobody will read what the command still says.
                    process.kill().await;
                    process.wait().await
                }
            };
            let drained = async { while pumps.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(LAST_WORDS, drained).await;
            pumps.abort_all();
            process.delete().await;
            outcome
        }
        Err(error) => Err(error),
    };
    let status = frames::status(&outcome);
    if !plain {
        let _ = sender.send(frame(channel::ERROR, status.to_string().as_bytes())).await;
    } else if let Err(error) = &outcome {
        let _ = sender.send(frame(channel::ERROR, error.as_bytes())).await;
    }
    drop(sender);
    let _ = tokio::time::timeout(LAST_WORDS, writer).await;
    status
}

fn frame(channel: u8, data: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(data.len() + 1);
    bytes.push(channel);
    bytes.extend_from_slice(data);
    Message::Binary(Bytes::from(bytes))
}

async fn pump(mut pipe: pipe::Receiver, channel: u8, sender: mpsc::Sender<Message>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(read) = pipe.read(&mut buffer).await {
        if read == 0 || sender.send(frame(channel, &buffer[..read])).await.is_err() {
            return;
        }
    }
}

/// Passes on what the client sends until it is gone.
async fn feed<S>(stream: &mut S, process: &Process, mut stdin: Option<pipe::Sender>)
where
    S: StreamExt<Item = Result<Message, axum::Error>> + Unpin,
{
    while let Some(Ok(message)) = stream.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        match Input::parse(&data) {
            Some(Input::Stdin(data)) => {
                let gone = match &mut stdin {
                    Some(pipe) => pipe.write_all(data).await.is_err(),
                    None => false,
                };
                if gone {
                    stdin = None;
                }
            }
            Some(Input::Resize { width, height }) => process.resize(width, height).await,
            Some(Input::CloseStdin) => {
                stdin = None;
                process.close_stdin().await;
            }
            None => {}
        }
    }
}
