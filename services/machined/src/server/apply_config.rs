//! ApplyConfig: check, store, and in maintenance mode go on with it.

use machine_api::v1::{ApplyConfigRequest, ApplyConfigResponse};
use tonic::Status;

use super::{Api, State};
use crate::config;

pub(super) async fn call(api: &Api, request: ApplyConfigRequest) -> Result<ApplyConfigResponse, Status> {
    let text =
        String::from_utf8(request.config).map_err(|_| Status::invalid_argument("the configuration is not UTF-8"))?;
    let checked = config::check("config", &text).map_err(|e| Status::invalid_argument(e.to_string()))?;
    let paths = &api.machine.paths;
    config::store(paths, &text).map_err(|e| Status::internal(format!("not stored: {e}")))?;
    let message = match &api.state {
        State::Maintenance { apply, .. } => {
            config::keep_applied(paths, &text).map_err(|e| Status::internal(format!("not kept: {e}")))?;
            // Full means that somebody else's came first, and it is being taken up.
            apply.try_send(checked).map_err(|_| Status::aborted("another configuration is being applied"))?;
            "stored; the machine goes on with it now".to_owned()
        }
        State::Running(_) => match config::argument(&config::command_line()) {
            None => "stored; it takes effect with the next boot".to_owned(),
            Some(file) => format!("stored, but without effect while the kernel is started with corten.config={file}"),
        },
    };
    Ok(ApplyConfigResponse { message })
}
