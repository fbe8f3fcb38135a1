//! Health: the gRPC service and `/health`.

use std::sync::Arc;

use store_api::etcdserverpb::AlarmType;
use store_api::health::health_check_response::ServingStatus;
use store_api::health::{HealthCheckRequest, HealthCheckResponse, health_server};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http::{Response as HttpResponse, StatusCode};
use tonic::{Request, Response, Status};

use crate::member::Member;

/// Serves Health.
pub struct Health(pub Arc<Member>);

/// Why this member should not be used, if so.
async fn ill(member: &Member) -> Option<String> {
    if let Some(alarm) = member.state.alarms.lock().alarms.first() {
        return Some(format!("ALARM {}", AlarmType::as_str_name(&alarm.alarm())));
    }
    member.consensus.read_barrier().await.err().map(|error| error.to_string())
}

/// Answers `/health`.
pub async fn http(member: &Member) -> HttpResponse<Body> {
    match ill(member).await {
        None => super::json(StatusCode::OK, r#"{"health":"true","reason":""}"#.to_owned()),
        Some(reason) => {
            super::json(StatusCode::SERVICE_UNAVAILABLE, format!(r#"{{"health":"false","reason":{reason:?}}}"#))
        }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let status = if ill(&self.0).await.is_none() { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // Clients take this code for "no health reports" and use the connection.
        Err(Status::unimplemented("store: health is answered by Check"))
    }
}
