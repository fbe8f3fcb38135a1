//! A driver of dynamic resources: for each claim it makes a CDI device that tells the container which claim it has.

use std::error::Error;
use std::path::{Path, PathBuf};

use cri_api::dra::dra_plugin_server::{DraPlugin, DraPluginServer};
use cri_api::dra::*;
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{listen, registration};

const NAME: &str = "dra.test.corten.local";
const KIND: &str = "test.corten.local/claim";
/// One of the folders in which the runtime looks.
const SPECIFICATIONS: &str = "/var/run/cdi";

/// Registers and serves until the process ends.
pub async fn serve(arguments: registration::Arguments) -> Result<(), Box<dyn Error>> {
    let endpoint = registration::endpoint(&arguments, NAME)?;
    let server = tonic::transport::Server::builder().add_service(DraPluginServer::new(Driver));
    let serving = tokio::spawn(server.serve_with_incoming(listen(&endpoint)?));
    // Last: whoever finds it calls at once.
    registration::register(&arguments, "DRAPlugin", NAME, "v1.DRAPlugin", &endpoint).await?;
    serving.await??;
    Ok(())
}

struct Driver;

fn specification(claim: &Claim) -> PathBuf {
    Path::new(SPECIFICATIONS).join(format!("test.corten.local-{}.json", claim.uid))
}

fn write(claim: &Claim) -> std::io::Result<Device> {
    let edits = json!({"env": [format!("CLAIM={}", claim.name)]});
    let devices = json!([{"name": claim.uid, "containerEdits": edits}]);
    std::fs::create_dir_all(SPECIFICATIONS)?;
    std::fs::write(specification(claim), json!({"cdiVersion": "0.6.0", "kind": KIND, "devices": devices}).to_string())?;
    Ok(Device {
        pool_name: "pool".into(),
        device_name: "device".into(),
        cdi_device_ids: vec![format!("{KIND}={}", claim.uid)],
        ..Default::default()
    })
}

#[tonic::async_trait]
impl DraPlugin for Driver {
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Result<Response<NodePrepareResourcesResponse>, Status> {
        let one = |claim: Claim| {
            let answer = match write(&claim) {
                Ok(device) => NodePrepareResourceResponse { devices: vec![device], error: String::new() },
                Err(error) => NodePrepareResourceResponse { devices: Vec::new(), error: error.to_string() },
            };
            (claim.uid, answer)
        };
        let claims = request.into_inner().claims.into_iter().map(one).collect();
        Ok(Response::new(NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Result<Response<NodeUnprepareResourcesResponse>, Status> {
        let one = |claim: Claim| {
            let error = match std::fs::remove_file(specification(&claim)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => error.to_string(),
                _ => String::new(),
            };
            (claim.uid, NodeUnprepareResourceResponse { error })
        };
        let claims = request.into_inner().claims.into_iter().map(one).collect();
        Ok(Response::new(NodeUnprepareResourcesResponse { claims }))
    }
}
