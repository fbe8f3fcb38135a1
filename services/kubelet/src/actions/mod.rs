//! What hooks and probes do: run a command, send an HTTP request, open a connection, ask for gRPC health.

mod grpc;
mod http;

use std::net::IpAddr;
use std::time::Duration;

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

/// What an action found: success or not, with the text for events.
pub type Finding = Result<(), String>;

/// Performs a probe's or hook's action within `limit`.
///
/// # Errors
/// The action failed; the text says how.
pub async fn run(
    cri: &Cri,
    container: &Container,
    handler: &Handler,
    target: &Target,
    limit: Duration,
    agent: &str,
) -> Finding {
    if let Some(exec) = &handler.exec {
        return command(cri, &target.id, &exec.command, limit).await;
    }
    let action = async {
        if let Some(get) = &handler.http_get {
            let port = container.port_number(&get.port).ok_or_else(|| format!("port {} is not defined", get.port))?;
            return http::get(get, &target.ip, port, agent).await.and_then(Reply::into_finding);
        }
        if let Some(socket) = &handler.tcp_socket {
            let port =
                container.port_number(&socket.port).ok_or_else(|| format!("port {} is not defined", socket.port))?;
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
    match tokio::time::timeout(limit, action).await {
        Ok(finding) => finding,
        Err(_) => Err(format!("context deadline exceeded ({}s)", limit.as_secs())),
    }
}

async fn command(cri: &Cri, id: &str, command: &[String], limit: Duration) -> Finding {
    match cri.exec(id, command, limit).await {
        Ok((0, _)) => Ok(()),
        Ok((code, output)) => {
            let text = String::from_utf8_lossy(&output).trim().chars().take(1024).collect::<String>();
            Err(if text.is_empty() { format!("command exited with code {code}") } else { text })
        }
        Err(error) => Err(error),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let stream = match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect((ip, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    };
    stream.map_err(|e| format!("dial tcp {host}:{port}: {e}"))
}
