//! ServiceList, ServiceStart, ServiceStop, ServiceRestart: passed on to PID 1.

use init_api::{Reply, Request, State};
use machine_api::v1::{Service, ServiceListResponse, ServiceResponse};
use tonic::{Response, Status};

use super::init_status;
use crate::machine::Machine;

pub(super) async fn list(machine: &Machine) -> Result<ServiceListResponse, Status> {
    match machine.init.call(Request::ServiceList).await.map_err(init_status)? {
        Reply::Services(services) => Ok(ServiceListResponse { services: services.into_iter().map(service).collect() }),
        other => Err(Status::internal(format!("init answered {other:?} to a service list"))),
    }
}

pub(super) async fn change(machine: &Machine, request: Request) -> Result<Response<ServiceResponse>, Status> {
    machine.init.call(request).await.map_err(init_status)?;
    Ok(Response::new(ServiceResponse {}))
}

fn service(service: init_api::Service) -> Service {
    let state = service.state.word().to_owned();
    let (pid, since_ms, detail) = match service.state {
        State::Running { pid, since_ms } => (pid, since_ms, service.last_exit),
        State::Failed(why) => (0, 0, why),
        _ => (0, 0, service.last_exit),
    };
    Service { name: service.name, state, pid, since_ms, restarts: service.restarts, detail }
}
