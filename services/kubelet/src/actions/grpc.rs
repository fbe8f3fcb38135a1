//! The gRPC health check, grpc.health.v1: one request with one string, one answer with one number.

use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use super::Finding;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Asks a server for the health of one of its services.
pub async fn check(ip: &str, port: u16, service: &str) -> Finding {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let endpoint = Endpoint::from_shared(format!("http://{host}:{port}")).map_err(|e| e.to_string())?;
    let channel = endpoint
        .connect()
        .await
        .map_err(|e| format!("timeout: failed to connect service \"{host}:{port}\": {}", daemon::chain(&e)))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| e.to_string())?;
    let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let answer = client.unary(request, path, codec).await.map_err(|status| match status.code() {
        tonic::Code::Unimplemented => {
            "this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned()
        }
        _ => format!("health rpc failed: {}", status.message()),
    })?;
    let status = answer.into_inner().status;
    if status == SERVING { Ok(()) } else { Err(format!("service unhealthy (responded with {status})")) }
}
