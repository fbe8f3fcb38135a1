//! A device plugin with three widgets, one of them broken.

use std::error::Error;
use std::path::PathBuf;
use std::pin::Pin;

use clap::Args;
use cri_api::device_plugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use cri_api::device_plugin::registration_client::RegistrationClient;
use cri_api::device_plugin::*;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::listen;

const ENDPOINT: &str = "widgets.sock";

/// A device plugin for tests.
#[derive(Args)]
pub struct Arguments {
    /// The resource's name
    #[arg(long, default_value = "test.corten.local/widget")]
    name: String,
    /// The folder of the kubelet's socket
    #[arg(long, default_value = "/var/lib/kubelet/device-plugins")]
    folder: PathBuf,
}

/// Registers and serves until the process ends.
pub async fn serve(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let incoming = listen(&arguments.folder.join(ENDPOINT))?;
    let server = tonic::transport::Server::builder().add_service(DevicePluginServer::new(Widgets));
    let serving = tokio::spawn(server.serve_with_incoming(incoming));
    // The kubelet calls back at once.
    let mut kubelet = RegistrationClient::new(cri_api::connect_unix(arguments.folder.join("kubelet.sock")));
    let request = RegisterRequest {
        version: "v1beta1".into(),
        endpoint: ENDPOINT.into(),
        resource_name: arguments.name,
        options: Some(DevicePluginOptions::default()),
    };
    kubelet.register(request).await?;
    serving.await??;
    Ok(())
}

struct Widgets;

#[tonic::async_trait]
impl DevicePlugin for Widgets {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions::default()))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let one = |id: &str, health: &str| Device { id: id.into(), health: health.into(), topology: None };
        let devices = vec![one("w0", "Healthy"), one("w1", "Healthy"), one("w2", "Unhealthy")];
        let first = tokio_stream::once(Ok(ListAndWatchResponse { devices }));
        // The list never changes, and the stream stays open: its end says that the plugin is gone.
        Ok(Response::new(Box::pin(first.chain(tokio_stream::pending()))))
    }

    async fn get_preferred_allocation(
        &self,
        _: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        Err(Status::unimplemented("not offered in the options"))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let answer = |asked: ContainerAllocateRequest| {
            let device = |id: &String| DeviceSpec {
                container_path: format!("/dev/{id}"),
                host_path: "/dev/zero".into(),
                permissions: "r".into(),
            };
            ContainerAllocateResponse {
                devices: asked.devices_ids.iter().map(device).collect(),
                envs: [("WIDGETS".to_owned(), asked.devices_ids.join(","))].into(),
                ..Default::default()
            }
        };
        let container_responses = request.into_inner().container_requests.into_iter().map(answer).collect();
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Err(Status::unimplemented("not offered in the options"))
    }
}
