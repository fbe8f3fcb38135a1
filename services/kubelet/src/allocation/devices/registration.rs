//! The socket at which device plugins register, and the task that follows each of them.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;

use cri_api::device_plugin as api;
use cri_api::device_plugin::device_plugin_client::DevicePluginClient;
use cri_api::device_plugin::registration_server::{Registration, RegistrationServer};
use daemon::Shutdown;
use futures_util::StreamExt as _;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::{Devices, request, seconds, text};

/// The socket's name; plugins that run in pods know it.
const SOCKET: &str = "kubelet.sock";
const VERSION: &str = "v1beta1";

struct Door(Arc<Devices>);

/// Serves until the end.
///
/// # Errors
/// The folder or socket cannot be made.
pub async fn serve(devices: Arc<Devices>, shutdown: Shutdown) -> daemon::Outcome {
    let folder = devices.folder.clone();
    let listener = prepare(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Server::builder()
        .add_service(RegistrationServer::new(Door(devices)))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.wait())
        .await?;
    Ok(())
}

/// Plugins watch the folder and register again when the old sockets vanish and the kubelet's own comes back.
fn prepare(folder: &Path) -> io::Result<UnixListener> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_socket() {
            fs::remove_file(entry.path())?;
        }
    }
    UnixListener::bind(folder.join(SOCKET))
}

/// Whether a name can be one of a plugin's resource: with a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    let part = |text: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.len() <= 63 && text.chars().all(fits) && ends(text.chars().next()) && ends(text.chars().last())
    };
    let Some((domain, rest)) = name.split_once('/') else { return false };
    let native = name.contains("kubernetes.io/") || name.starts_with("requests.");
    !native && part(rest) && domain.len() <= 253 && domain.split('.').all(part)
}

#[tonic::async_trait]
impl Registration for Door {
    async fn register(&self, call: Request<api::RegisterRequest>) -> Result<Response<api::Empty>, Status> {
        let call = call.into_inner();
        let refuse = |text: String| {
            tracing::info!(resource = call.resource_name, %text, "device plugin refused");
            Status::unknown(text)
        };
        if call.version != VERSION {
            return Err(refuse(format!(
                "requested API version {:?} is not supported by kubelet. Supported version is [{VERSION:?}]",
                call.version
            )));
        }
        if !is_extended(&call.resource_name) {
            return Err(refuse(format!("the ResourceName {:?} is invalid", call.resource_name)));
        }
        if Path::new(&call.endpoint).components().count() != 1 || call.endpoint.contains("..") {
            return Err(refuse(format!("the endpoint {:?} is not a file name", call.endpoint)));
        }
        connect(&self.0, &call).await.map_err(refuse)?;
        Ok(Response::new(api::Empty {}))
    }
}

/// Takes the plugin in and follows it from now on. A plugin that registers again takes the place of the one before.
async fn connect(devices: &Arc<Devices>, call: &api::RegisterRequest) -> Result<(), String> {
    let name = call.resource_name.clone();
    let mut plugin = DevicePluginClient::new(cri_api::connect_unix(devices.folder.join(&call.endpoint)));
    let options = plugin.get_device_plugin_options(request(api::Empty {})).await;
    let options = options.map_err(|e| format!("failed to get device plugin options: {}", text(&e)))?.into_inner();
    let registration = {
        let mut pool = devices.pool.lock();
        let resource = pool.resources.entry(name.clone()).or_default();
        resource.registration += 1;
        resource.options = options;
        resource.lost_at = None;
        resource.registration
    };
    devices.plugins.lock().insert(name.clone(), plugin.clone());
    tracing::info!(resource = name, "device plugin registered");
    let devices = Arc::clone(devices);
    tokio::spawn(async move {
        let end = follow(&devices, plugin, &name, registration).await;
        devices.pool.lock().lose(&name, registration, seconds());
        devices.changed.send_replace(());
        tracing::info!(resource = name, %end, "device plugin gone");
    });
    Ok(())
}

/// Takes in every list until the plugin ends or another has its place; gives the reason of the end.
async fn follow(
    devices: &Devices,
    mut plugin: DevicePluginClient<tonic::transport::Channel>,
    name: &str,
    registration: u64,
) -> String {
    let mut lists = match plugin.list_and_watch(api::Empty {}).await {
        Ok(answer) => answer.into_inner(),
        Err(error) => return text(&error),
    };
    loop {
        let list = match lists.next().await {
            Some(Ok(list)) => list,
            Some(Err(error)) => return text(&error),
            None => return "it ended its list".into(),
        };
        devices.pool.lock().list(name, registration, list.devices);
        devices.changed.send_replace(());
        if let Err(error) = devices.keep() {
            tracing::error!(%error, "device checkpoint not written");
        }
        let current = devices.pool.lock().resources.get(name).map(|r| r.registration);
        if current != Some(registration) {
            return "it registered again".into();
        }
    }
}

#[cfg(test)]
#[path = "registration_tests.rs"]
mod tests;
