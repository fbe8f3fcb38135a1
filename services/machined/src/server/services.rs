//! ServiceList, ServiceStart, ServiceStop, ServiceRestart: passed on to PID 1.

use std::time::Duration;

use init_api::{Reply, Request, State};
use linux::process::PidFd;
use machine_api::v1::{Service, ServiceListResponse, ServiceResponse};
use tokio::time::timeout;
use tonic::{Response, Status};

use super::init_status;
use crate::machine::Machine;

/// How long a service may take to end; init kills it before that.
const STOP_LIMIT: Duration = Duration::from_secs(60);

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
    let Some(pid) = process(machine, name).await? else { return Ok(()) };
    // A number without a process means that it has ended, and so does one that is another process's by now.
    let Ok(running) = PidFd::open(pid) else { return Ok(()) };
    if process(machine, name).await? != Some(pid) {
        return Ok(());
    }
    match timeout(STOP_LIMIT, daemon::process::ended(&running)).await {
        Ok(ended) => ended.map_err(|e| Status::internal(format!("process {pid} of service {name}: {e}"))),
        Err(_) => {
            machine.init.call(Request::ServiceStart(name.to_owned())).await.map_err(init_status)?;
            Err(Status::deadline_exceeded(format!("service {name} does not end")))
        }
    }
}

async fn process(machine: &Machine, name: &str) -> Result<Option<i32>, Status> {
    Ok(process_of(&machine.init.call(Request::ServiceList).await.map_err(init_status)?, name))
}

/// The process that a service still has.
fn process_of(reply: &Reply, name: &str) -> Option<i32> {
    let Reply::Services(services) = reply else { return None };
    match services.iter().find(|service| service.name == name)?.state {
        State::Running { pid, .. } | State::Stopping { pid } => i32::try_from(pid).ok(),
        _ => None,
    }
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
    fn a_service_that_is_being_stopped_still_has_its_process() {
        let reply = |state| {
            let service = init_api::Service { name: "store".into(), state, restarts: 0, last_exit: String::new() };
            Reply::Services(vec![service])
        };
        for (state, pid) in [
            (State::Running { pid: 7, since_ms: 0 }, Some(7)),
            (State::Stopping { pid: 7 }, Some(7)),
            (State::Backoff { until_ms: 1 }, None),
            (State::Stopped, None),
            (State::Failed("no file".into()), None),
        ] {
            assert_eq!(process_of(&reply(state.clone()), "store"), pid, "{state:?}");
            assert_eq!(process_of(&reply(state), "kubelet"), None);
        }
    }
}
