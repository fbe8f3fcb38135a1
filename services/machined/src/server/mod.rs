//! The machine API: one file per call, each with a function `call`. This file says who may call and binds them together.

mod apply_config;
mod boot_report;
mod connection;
mod image_import;
pub(crate) mod join;
mod kubeconfig;
mod logs;
mod power;
mod processes;
mod services;
mod store;
pub(crate) mod tls;
mod version;

use std::sync::Arc;

use daemon::Shutdown;
use machine_api::v1::machine_service_server::{MachineService, MachineServiceServer};
use machine_api::v1::*;
use machine_config::Config;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::credentials::Node;
use crate::machine::Machine;
use connection::{Connection, Peer};

/// The service.
pub(crate) struct Api {
    machine: Arc<Machine>,
    state: State,
}

enum State {
    /// Waiting for a configuration; anybody may send one.
    Maintenance {
        reason: String,
        apply: mpsc::Sender<Config>,
    },
    Running(Box<Running>),
}

/// What a configured machine is.
pub(crate) struct Running {
    pub(crate) config: Config,
    pub(crate) node: Node,
}

impl Api {
    /// For a machine without a configuration; applied ones come out of the receiver.
    pub(crate) fn maintenance(machine: Arc<Machine>, reason: String) -> (Self, mpsc::Receiver<Config>) {
        let (apply, applied) = mpsc::channel(1);
        (Self { machine, state: State::Maintenance { reason, apply } }, applied)
    }

    pub(crate) fn running(machine: Arc<Machine>, running: Running) -> Self {
        Self { machine, state: State::Running(Box::new(running)) }
    }

    /// The configured machine, whoever calls.
    fn configured(&self) -> Result<&Running, Status> {
        match &self.state {
            State::Running(running) => Ok(running),
            State::Maintenance { reason, .. } => Err(Status::failed_precondition(format!(
                "the machine is in maintenance mode ({reason}): it only takes apply-config --insecure and version --insecure"
            ))),
        }
    }

    /// The configured machine, for an administrator.
    fn admin<T>(&self, request: &Request<T>) -> Result<&Running, Status> {
        let running = self.configured()?;
        let identity = request.extensions().get::<Peer>().and_then(|p| p.identity.as_ref());
        let Some(identity) = identity else {
            return Err(Status::unauthenticated("a client certificate of the machine authority is required"));
        };
        if identity.organizations.iter().any(|o| o == machine_api::ADMIN) {
            return Ok(running);
        }
        Err(Status::permission_denied(format!("{:?} is not in the group {}", identity.common_name, machine_api::ADMIN)))
    }
}

/// Serves until `shutdown`.
pub(crate) async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, api: Api, shutdown: Shutdown) {
    let (sender, receiver) = mpsc::channel(16);
    let accepting = daemon::accept::tls(listener, tls, shutdown.clone(), move |stream, peer| {
        let sender = sender.clone();
        async move {
            let _ = sender.send(Ok::<_, std::io::Error>(Connection::new(stream, peer))).await;
        }
    });
    let service = MachineServiceServer::new(api).max_decoding_message_size(machine_api::MAX_MESSAGE);
    let serving = Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(receiver), shutdown.wait());
    let (result, ()) = tokio::join!(serving, accepting);
    if let Err(error) = result {
        tracing::error!("machine API: {error}");
    }
}

type DataStream = ReceiverStream<Result<Data, Status>>;

#[tonic::async_trait]
impl MachineService for Api {
    type LogsStream = DataStream;
    type DmesgStream = DataStream;
    type StoreSnapshotStream = DataStream;

    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(version::call(self)))
    }

    async fn service_list(
        &self,
        request: Request<ServiceListRequest>,
    ) -> Result<Response<ServiceListResponse>, Status> {
        self.admin(&request)?;
        services::list(&self.machine).await.map(Response::new)
    }

    async fn service_start(&self, request: Request<ServiceRequest>) -> Result<Response<ServiceResponse>, Status> {
        self.admin(&request)?;
        services::change(&self.machine, init_api::Request::ServiceStart(request.into_inner().name)).await
    }

    async fn service_stop(&self, request: Request<ServiceRequest>) -> Result<Response<ServiceResponse>, Status> {
        self.admin(&request)?;
        services::change(&self.machine, init_api::Request::ServiceStop(request.into_inner().name)).await
    }

    async fn service_restart(&self, request: Request<ServiceRequest>) -> Result<Response<ServiceResponse>, Status> {
        self.admin(&request)?;
        services::change(&self.machine, init_api::Request::ServiceRestart(request.into_inner().name)).await
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<DataStream>, Status> {
        self.admin(&request)?;
        logs::service(&self.machine, request.into_inner()).map(Response::new)
    }

    async fn dmesg(&self, request: Request<DmesgRequest>) -> Result<Response<DataStream>, Status> {
        self.admin(&request)?;
        Ok(Response::new(logs::kernel(&request.into_inner())))
    }

    async fn reboot(&self, request: Request<RebootRequest>) -> Result<Response<RebootResponse>, Status> {
        self.admin(&request)?;
        power::call(&self.machine, init_api::Request::Reboot).await.map(|()| Response::new(RebootResponse {}))
    }

    async fn shutdown(&self, request: Request<ShutdownRequest>) -> Result<Response<ShutdownResponse>, Status> {
        self.admin(&request)?;
        power::call(&self.machine, init_api::Request::Shutdown).await.map(|()| Response::new(ShutdownResponse {}))
    }

    async fn kubeconfig(&self, request: Request<KubeconfigRequest>) -> Result<Response<KubeconfigResponse>, Status> {
        kubeconfig::call(self.admin(&request)?).map(Response::new)
    }

    async fn image_import(&self, request: Request<Streaming<Data>>) -> Result<Response<ImageImportResponse>, Status> {
        self.admin(&request)?;
        image_import::call(&self.machine, request.into_inner()).await.map(Response::new)
    }

    async fn apply_config(
        &self,
        request: Request<ApplyConfigRequest>,
    ) -> Result<Response<ApplyConfigResponse>, Status> {
        if let State::Running(_) = self.state {
            self.admin(&request)?;
        }
        apply_config::call(self, request.into_inner()).await.map(Response::new)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let running = self.configured()?;
        let peer = request.extensions().get::<Peer>().map(|p| p.address.ip());
        join::call(running, peer, &request.into_inner()).map(Response::new)
    }

    async fn processes(&self, request: Request<ProcessesRequest>) -> Result<Response<ProcessesResponse>, Status> {
        self.admin(&request)?;
        Ok(Response::new(processes::call()))
    }

    async fn boot_report(&self, request: Request<BootReportRequest>) -> Result<Response<BootReportResponse>, Status> {
        self.admin(&request)?;
        boot_report::call(&self.machine).await.map(Response::new)
    }

    async fn store_members(&self, request: Request<StoreRequest>) -> Result<Response<StoreMembersResponse>, Status> {
        let running = self.admin(&request)?;
        store::members(&self.machine, running).await.map(Response::new)
    }

    async fn store_status(&self, request: Request<StoreRequest>) -> Result<Response<StoreStatusResponse>, Status> {
        let running = self.admin(&request)?;
        store::status(&self.machine, running).await.map(Response::new)
    }

    async fn store_snapshot(&self, request: Request<StoreRequest>) -> Result<Response<DataStream>, Status> {
        let running = self.admin(&request)?;
        store::snapshot(&self.machine, running).await.map(Response::new)
    }

    async fn store_restore(&self, request: Request<Streaming<Data>>) -> Result<Response<StoreRestoreResponse>, Status> {
        let running = self.admin(&request)?;
        store::restore(&self.machine, running, request.into_inner()).await.map(Response::new)
    }

    async fn store_defragment(
        &self,
        request: Request<StoreRequest>,
    ) -> Result<Response<StoreDefragmentResponse>, Status> {
        let running = self.admin(&request)?;
        store::defragment(&self.machine, running).await.map(Response::new)
    }

    async fn store_alarms(
        &self,
        request: Request<StoreAlarmsRequest>,
    ) -> Result<Response<StoreAlarmsResponse>, Status> {
        let running = self.admin(&request)?;
        store::alarms(&self.machine, running, request.get_ref().clear).await.map(Response::new)
    }

    async fn store_move_leader(
        &self,
        request: Request<StoreMoveLeaderRequest>,
    ) -> Result<Response<StoreMoveLeaderResponse>, Status> {
        let running = self.admin(&request)?;
        store::move_leader(&self.machine, running, request.get_ref().to).await.map(Response::new)
    }
}

/// PID 1's refusals are the caller's mistakes, the rest is ours.
fn init_status(error: init_api::Error) -> Status {
    match error {
        init_api::Error::Refused(why) => Status::failed_precondition(why),
        other => Status::unavailable(other.to_string()),
    }
}
