//! Logs and Dmesg: streams of bytes.

use machine_api::v1::{Data, DmesgRequest, LogsRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::DataStream;
use crate::logs;
use crate::machine::Machine;

pub(super) fn service(machine: &Machine, request: LogsRequest) -> Result<DataStream, Status> {
    let name = request.service;
    // The name becomes part of a path.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(Status::invalid_argument(format!("{name:?} is not a service's name")));
    }
    let path = machine.paths.at(format!("/var/log/services/{name}.log"));
    if !path.exists() {
        return Err(Status::not_found(format!("there is no log of a service {name:?}")));
    }
    let tail = usize::try_from(request.tail_lines).unwrap_or(usize::MAX);
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(logs::send_file(path, tail, request.follow, sender));
    Ok(stream(receiver))
}

pub(super) fn kernel(request: &DmesgRequest) -> DataStream {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(logs::send_kernel(request.follow, sender));
    stream(receiver)
}

fn stream(mut pieces: mpsc::Receiver<std::io::Result<Vec<u8>>>) -> DataStream {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let piece = tokio::select! {
                piece = pieces.recv() => piece,
                // Nobody reads any more; dropping the receiver tells the reader of the log.
                () = sender.closed() => return,
            };
            let Some(piece) = piece else { return };
            let message = piece.map(|bytes| Data { bytes }).map_err(|e| Status::internal(e.to_string()));
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}
