//! How a plugin tells the kubelet that it is there: a socket in the kubelet's registry folder.

use std::error::Error;
use std::path::Path;

use clap::Args;
use cri_api::registration::registration_server::{Registration, RegistrationServer};
use cri_api::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use tonic::{Request, Response, Status};

use super::listen;

/// Where the kubelet is.
#[derive(Clone, Args)]
pub struct Arguments {
    /// The kubelet's folder
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub kubelet: std::path::PathBuf,
}

struct Registrar(PluginInfo);

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        println!("{:?}", request.into_inner());
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// Makes the folder of a plugin's own socket, and the socket's path in it.
pub fn endpoint(arguments: &Arguments, name: &str) -> std::io::Result<std::path::PathBuf> {
    let own = arguments.kubelet.join("plugins").join(name);
    std::fs::create_dir_all(&own)?;
    Ok(own.join("plugin.sock"))
}

/// Registers a plugin of this kind that serves already on `endpoint`, until the process ends.
pub async fn register(
    arguments: &Arguments,
    kind: &str,
    name: &str,
    version: &str,
    endpoint: &Path,
) -> Result<(), Box<dyn Error>> {
    let info = PluginInfo {
        r#type: kind.into(),
        name: name.into(),
        endpoint: endpoint.display().to_string(),
        supported_versions: vec![version.into()],
    };
    let socket = arguments.kubelet.join("plugins_registry").join(format!("{name}-reg.sock"));
    let server = tonic::transport::Server::builder().add_service(RegistrationServer::new(Registrar(info)));
    server.serve_with_incoming(listen(&socket)?).await?;
    Ok(())
}
