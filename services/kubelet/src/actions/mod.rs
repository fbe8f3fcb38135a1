//! What hooks and probes do: run a command, send an HTTP request, open a connection, ask for gRPC health.

mod grpc;
mod http;

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;

use crate::pod::{Container, Handler};
use crate::runtime::Cri;

pub use http::Reply;

/// Where an action goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// Container id, for commands.
    pub id: String,
    /// Address of the pod, for connections without a host of their own.
    pub ip: String,
}

/// What an action found.
type Finding = Result<(), String>;

/// Why an action did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The container failed it.
    #[error("{0}")]
    Failed(String),
    /// It could not be asked: that says nothing about the container.
    #[error("{0}")]
    Unclear(String),
}

/// How hooks introduce themselves to HTTP servers, and probes.
const HOOK_AGENT: &str = "kube-lifecycle/1.35";
const PROBE_AGENT: &str = "kube-probe/1.35";

/// Performs a hook's action within `limit`; gives a warning if it could be done only without TLS.
///
/// # Errors
/// The action failed; the text says how.
pub async fn hook(
    cri: &Cri,
    container: &Container,
    handler: &Handler,
    target: &Target,
    limit: Duration,
) -> Result<Option<String>, Failure> {
    let Some(get) = &handler.http_get else {
        return run(cri, container, handler, target, limit).await.map(|()| None);
    };
    let action = async {
        let port = port(container, &get.port)?;
        http::notify(get, &target.ip, port, HOOK_AGENT).await
    };
    let unencrypted = within(limit, action).await?;
    Ok(unencrypted
        .map(|host| format!("request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded")))
}

fn port(container: &Container, port: &Value) -> Result<u16, String> {
    container.port_number(port).ok_or_else(|| format!("port {port} is not defined"))
}

async fn within<T>(limit: Duration, action: impl Future<Output = Result<T, String>>) -> Result<T, Failure> {
    match tokio::time::timeout(limit, action).await {
        Ok(finding) => finding.map_err(Failure::Failed),
        Err(_) => Err(Failure::Failed(format!("context deadline exceeded ({}s)", limit.as_secs()))),
    }
}

/// Performs a probe's action within `limit`.
///
/// # Errors
/// The action failed; the text says how.
pub async fn run(
    cri: &Cri,
    container: &Container,
    handler: &Handler,
    target: &Target,
    limit: Duration,
) -> Result<(), Failure> {
    if let Some(exec) = &handler.exec {
        return command(cri, &target.id, &exec.command, limit).await;
    }
    let action = async {
        if let Some(get) = &handler.http_get {
            let port = port(container, &get.port)?;
            return http::get(get, &target.ip, port, PROBE_AGENT).await.and_then(Reply::into_finding);
        }
        if let Some(socket) = &handler.tcp_socket {
            let port = port(container, &socket.port)?;
            let host = if socket.host.is_empty() { &target.ip } else { &socket.host };
            return connect(host, port).await.map(drop);
        }
        if let Some(grpc) = &handler.grpc {
            let port = u16::try_from(grpc.port).map_err(|e| e.to_string())?;
            return grpc::check(&target.ip, port, grpc.service.as_deref().unwrap_or_default()).await;
        }
        if let Some(pause) = &handler.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(pause.seconds).unwrap_or(0))).await;
            return Ok(());
        }
        Err("the handler has no action".into())
    };
    within(limit, action).await
}

async fn command(cri: &Cri, id: &str, command: &[String], limit: Duration) -> Result<(), Failure> {
    judge(cri.exec(id, command, limit).await, limit)
}

/// Only the command itself and its time limit speak for the container; the runtime's own troubles do not.
fn judge(answer: Result<(i32, Vec<u8>), String>, limit: Duration) -> Result<(), Failure> {
    match answer {
        Ok((0, _)) => Ok(()),
        Ok((code, output)) => {
            let text = String::from_utf8_lossy(&output).trim().chars().take(1024).collect::<String>();
            Err(Failure::Failed(if text.is_empty() { format!("command exited with code {code}") } else { text }))
        }
        Err(error) if error.contains("DeadlineExceeded") || error.contains("deadline exceeded") => {
            Err(Failure::Failed(format!("command timed out after {}s", limit.as_secs())))
        }
        Err(error) => Err(Failure::Unclear(error)),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let stream = match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect((ip, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    };
    stream.map_err(|e| format!("dial tcp {}: {}", address(host, port), reason(&e)))
}

/// As in a URL (RFC 3986, section 3.2.2).
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What the kernel refused, in the words of upstream's events.
fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("connect: {}", nix::errno::Errno::from_raw(number).desc().to_lowercase()),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_connection_is_told_as_upstream_tells_it() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let told = connect("127.0.0.1", free.port()).await.unwrap_err();
        assert_eq!(told, format!("dial tcp {free}: connect: connection refused"));
        assert_eq!(address("::1", 7), "[::1]:7");
    }

    #[test]
    fn a_runtime_that_is_away_says_nothing_about_the_container() {
        let limit = Duration::from_secs(1);
        assert_eq!(judge(Ok((0, vec![])), limit), Ok(()));
        assert_eq!(judge(Ok((1, b"no\n".to_vec())), limit), Err(Failure::Failed("no".into())));
        let away = "rpc error: code = Unavailable desc = Connection refused".to_owned();
        assert_eq!(judge(Err(away.clone()), limit), Err(Failure::Unclear(away)));
        let late = "rpc error: code = DeadlineExceeded desc = timeout".to_owned();
        assert!(matches!(judge(Err(late), limit), Err(Failure::Failed(_))));
    }
}
