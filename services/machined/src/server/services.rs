//! ServiceList, ServiceStart, ServiceStop, ServiceRestart: passed on to PID 1.

use std::time::Duration;

use init_api::{Reply, Request, State};
use machine_api::v1::{Service, ServiceListResponse, ServiceResponse};
use tokio::time::Instant;
use tonic::{Response, Status};

use super::init_status;
use crate::machine::Machine;

/// How long a service may take to end; init kills it before that.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// The pause between two looks at whether it has.
const STOP_LOOK: Duration = Duration::from_millis(50);

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

/// Stops a service and waits until its process has ended.
///
/// # Errors
/// init refuses, or the service does not end in time; then it is started again.
pub(super) async fn stop(machine: &Machine, name: &str) -> Result<(), Status> {
    machine.init.call(Request::ServiceStop(name.to_owned())).await.map_err(init_status)?;
    let deadline = Instant::now() + STOP_LIMIT;
    while !has_ended(&machine.init.call(Request::ServiceList).await.map_err(init_status)?, name) {
        if Instant::now() >= deadline {
            machine.init.call(Request::ServiceStart(name.to_owned())).await.map_err(init_status)?;
            return Err(Status::deadline_exceeded(format!("service {name} does not end")));
        }
        // init tells nobody when a service has ended.
        tokio::time::sleep(STOP_LOOK).await;
    }
    Ok(())
}

fn has_ended(reply: &Reply, name: &str) -> bool {
    let Reply::Services(services) = reply else { return false };
    let of_name = services.iter().find(|service| service.name == name);
    of_name.is_none_or(|s| matches!(s.state, State::Stopped | State::Failed(_) | State::Waiting))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_ended_when_no_process_of_it_is_left() {
        let reply = |state| {
            let service = init_api::Service { name: "store".into(), state, restarts: 0, last_exit: String::new() };
            Reply::Services(vec![service])
        };
        for (state, ended) in [
            (State::Running { pid: 1, since_ms: 0 }, false),
            (State::Starting, false),
            (State::Stopping, false),
            (State::Backoff { until_ms: 1 }, false),
            (State::Stopped, true),
            (State::Failed("no file".into()), true),
        ] {
            assert_eq!(has_ended(&reply(state.clone()), "store"), ended, "{state:?}");
        }
        assert!(!has_ended(&Reply::Done, "store"));
    }
}
