//! An extra process in a container, through containerd's own task service: CRI's streaming server speaks only SPDY.
//!
//! Its standard streams are named pipes that the shim opens by path. Our reading ends are opened before the start, so
//! that nothing is lost, and read after it, when the shim holds the writing ends.

use std::path::{Path, PathBuf};

use cri_api::containerd::services::containers::v1::GetContainerRequest;
use cri_api::containerd::services::containers::v1::containers_client::ContainersClient;
use cri_api::containerd::services::tasks::v1::tasks_client::TasksClient;
use cri_api::containerd::services::tasks::v1::{
    CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, KillRequest, ResizePtyRequest, StartRequest, WaitRequest,
};
use cri_api::in_namespace;
use nix::sys::stat::Mode;
use prost::bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::unix::pipe;
use tonic::transport::Channel;

use super::frames::Request;

const FOLDER: &str = "/run/kubelet/exec";
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const SIGKILL: u32 = 9;

/// A started process.
pub struct Process {
    tasks: TasksClient<Channel>,
    container: String,
    exec: String,
    folder: PathBuf,
}

/// Our ends of its streams.
pub struct Streams {
    /// Write here.
    pub stdin: Option<pipe::Sender>,
    /// Read from here.
    pub stdout: Option<pipe::Receiver>,
    /// Read from here.
    pub stderr: Option<pipe::Receiver>,
}

impl Process {
    /// Starts the command.
    ///
    /// # Errors
    /// The container is gone or the command cannot be run, in the runtime's words.
    pub async fn start(channel: Channel, container: &str, request: &Request) -> Result<(Process, Streams), String> {
        let spec = process_spec(container_spec(channel.clone(), container).await?, request)?;
        let exec = uuid::Uuid::new_v4().simple().to_string();
        let process = Process {
            tasks: TasksClient::new(channel),
            container: container.to_owned(),
            folder: Path::new(FOLDER).join(&exec),
            exec,
        };
        match process.launch(spec, request).await {
            Ok(streams) => Ok((process, streams)),
            Err(error) => {
                process.delete().await;
                Err(error)
            }
        }
    }

    async fn launch(&self, spec: Value, request: &Request) -> Result<Streams, String> {
        let text = |e: std::io::Error| format!("streams: {e}");
        std::fs::create_dir_all(&self.folder).map_err(text)?;
        let pipe = |name: &str, wanted: bool| -> Result<String, String> {
            if !wanted {
                return Ok(String::new());
            }
            let path = self.folder.join(name);
            nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).map_err(|e| text(e.into()))?;
            Ok(path.to_string_lossy().into_owned())
        };
        let stdin = pipe("stdin", request.stdin)?;
        let stdout = pipe("stdout", request.stdout)?;
        let stderr = pipe("stderr", request.stderr)?;
        let reader = |path: &str| -> Result<Option<pipe::Receiver>, String> {
            if path.is_empty() {
                return Ok(None);
            }
            pipe::OpenOptions::new().open_receiver(path).map(Some).map_err(text)
        };
        let (out, err) = (reader(&stdout)?, reader(&stderr)?);
        let input = if stdin.is_empty() {
            None
        } else {
            // Opened for both so that it does not fail before the shim has its end.
            Some(pipe::OpenOptions::new().read_write(true).open_sender(&stdin).map_err(text)?)
        };
        let message = ExecProcessRequest {
            container_id: self.container.clone(),
            stdin,
            stdout,
            stderr,
            terminal: request.tty,
            spec: Some(any(PROCESS_TYPE, &spec)),
            exec_id: self.exec.clone(),
        };
        let failed = |e: tonic::Status| e.message().to_owned();
        self.tasks.clone().exec(in_namespace(message)).await.map_err(failed)?;
        let start = StartRequest { container_id: self.container.clone(), exec_id: self.exec.clone() };
        self.tasks.clone().start(in_namespace(start)).await.map_err(failed)?;
        Ok(Streams { stdin: input, stdout: out, stderr: err })
    }

    /// Waits for its end: the exit code.
    ///
    /// # Errors
    /// The runtime lost track of it.
    pub async fn wait(&self) -> Result<u32, String> {
        let request = WaitRequest { container_id: self.container.clone(), exec_id: self.exec.clone() };
        let answer = self.tasks.clone().wait(in_namespace(request)).await.map_err(|e| e.message().to_owned())?;
        Ok(answer.into_inner().exit_status)
    }

    /// Gives its terminal another size.
    pub async fn resize(&self, width: u32, height: u32) {
        let (container_id, exec_id) = (self.container.clone(), self.exec.clone());
        let request = ResizePtyRequest { container_id, exec_id, width, height };
        if let Err(error) = self.tasks.clone().resize_pty(in_namespace(request)).await {
            tracing::debug!(%error, "terminal not resized");
        }
    }

    /// Tells the shim to give up its own end of the input, so that the command sees the end.
    pub async fn close_stdin(&self) {
        let request = CloseIoRequest { container_id: self.container.clone(), exec_id: self.exec.clone(), stdin: true };
        if let Err(error) = self.tasks.clone().close_io(in_namespace(request)).await {
            tracing::debug!(%error, "input not closed");
        }
    }

    /// Ends it at once.
    pub async fn kill(&self) {
        let (container_id, exec_id) = (self.container.clone(), self.exec.clone());
        let request = KillRequest { container_id, exec_id, signal: SIGKILL, all: false };
        if let Err(error) = self.tasks.clone().kill(in_namespace(request)).await {
            tracing::debug!(%error, "process not killed");
        }
    }

    /// Removes its record and its pipes.
    pub async fn delete(&self) {
        let request = DeleteProcessRequest { container_id: self.container.clone(), exec_id: self.exec.clone() };
        if let Err(error) = self.tasks.clone().delete_process(in_namespace(request)).await {
            tracing::debug!(%error, "process not deleted");
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The OCI specification of a running container.
async fn container_spec(channel: Channel, id: &str) -> Result<Value, String> {
    let request = in_namespace(GetContainerRequest { id: id.to_owned() });
    let answer = ContainersClient::new(channel).get(request).await.map_err(|e| e.message().to_owned())?;
    let spec = answer.into_inner().container.and_then(|c| c.spec).ok_or("the container has no specification")?;
    serde_json::from_slice(&spec.value).map_err(|e| format!("the container's specification: {e}"))
}

/// The container's own process with another command.
fn process_spec(mut container: Value, request: &Request) -> Result<Value, String> {
    let mut process = container["process"].take();
    if !process.is_object() {
        return Err("the container's specification has no process".into());
    }
    process["args"] = json!(request.command);
    process["terminal"] = request.tty.into();
    if let Some(fields) = process.as_object_mut() {
        fields.remove("consoleSize");
    }
    if request.tty {
        let mut env: Vec<Value> = process["env"].as_array().cloned().unwrap_or_default();
        env.retain(|v| !v.as_str().is_some_and(|t| t.starts_with("TERM=")));
        env.push("TERM=xterm".into());
        process["env"] = env.into();
    }
    Ok(process)
}

/// containerd encodes OCI types as JSON inside an Any.
fn any(type_url: &str, value: &Value) -> prost_types::Any {
    prost_types::Any { type_url: type_url.to_owned(), value: Bytes::from(value.to_string()).to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_runs_as_the_containers_user_with_a_terminal_of_its_own() {
        let container =
            json!({"process": {"args": ["srv"], "env": ["A=1", "TERM=dumb"], "user": {"uid": 7}, "cwd": "/w"}});
        let request = Request { command: vec!["sh".into()], stdin: true, stdout: true, stderr: false, tty: true };
        let process = process_spec(container, &request).unwrap();
        assert_eq!(process["args"], json!(["sh"]));
        assert_eq!(process["env"], json!(["A=1", "TERM=xterm"]));
        assert_eq!(
            (&process["user"]["uid"], &process["cwd"], &process["terminal"]),
            (&json!(7), &json!("/w"), &json!(true))
        );
        assert!(process_spec(json!({}), &request).is_err());
    }
}
