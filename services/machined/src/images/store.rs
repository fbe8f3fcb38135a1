//! Storing a plan in containerd, under a lease that keeps its garbage collector away until the images' names are set.

use std::io::Read as _;
use std::path::Path;

use cri_api::containerd::services::content::v1::content_client::ContentClient;
use cri_api::containerd::services::content::v1::{InfoRequest, WriteAction, WriteContentRequest};
use cri_api::containerd::services::images::v1::images_client::ImagesClient;
use cri_api::containerd::services::images::v1::{
    CreateImageRequest, GetImageRequest, Image as StoredImage, UpdateImageRequest,
};
use cri_api::containerd::services::leases::v1::leases_client::LeasesClient;
use cri_api::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
use cri_api::containerd::types::Descriptor;
use cri_api::{in_lease, in_namespace};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::ImportError;
use super::archive::Archive;
use super::plan::{Blob, Image, Plan, Source};

const PIECE: usize = 1024 * 1024;

/// Keeps the runtime and the kubelet from removing an image that comes with the OS.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// A lease that nobody deletes ends by itself.
const EXPIRES: &str = "containerd.io/gc.expire";

pub(super) struct Store {
    content: ContentClient<Channel>,
    images: ImagesClient<Channel>,
    leases: LeasesClient<Channel>,
}

impl Store {
    pub(super) fn connect(socket: &Path) -> Self {
        let channel = cri_api::connect_unix(socket);
        Self {
            content: ContentClient::new(channel.clone()),
            images: ImagesClient::new(channel.clone()),
            leases: LeasesClient::new(channel),
        }
    }

    pub(super) async fn import(mut self, archive: &Archive, plan: Plan, pinned: bool) -> Result<(), ImportError> {
        if self.is_complete(&plan).await? {
            return Ok(());
        }
        let lease = format!("corten-import-{:016x}", rand::random::<u64>());
        let end = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
        let request = CreateRequest { id: lease.clone(), labels: [(EXPIRES.to_owned(), end)].into() };
        self.leases.create(in_namespace(request)).await.map_err(|s| failed("gave no lease", s))?;
        let result = self.write(archive, plan, pinned, &lease).await;
        // The names hold the content now; after a failure nothing should.
        let _ = self.leases.delete(in_namespace(DeleteRequest { id: lease, sync: false })).await;
        result
    }

    /// Do all names point at the right targets already, with their content there? The names are set last, so then all is.
    async fn is_complete(&mut self, plan: &Plan) -> Result<bool, ImportError> {
        for image in &plan.images {
            let found = match self.images.get(in_namespace(GetImageRequest { name: image.name.clone() })).await {
                Ok(found) => found.into_inner().image.and_then(|i| i.target),
                Err(status) if status.code() == Code::NotFound => return Ok(false),
                Err(status) => return Err(failed("did not look up an image", status)),
            };
            if found.is_none_or(|t| t.digest != image.target.digest) {
                return Ok(false);
            }
        }
        for blob in &plan.blobs {
            if !self.has(&blob.digest).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn has(&mut self, digest: &str) -> Result<bool, ImportError> {
        match self.content.info(in_namespace(InfoRequest { digest: digest.to_owned() })).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(failed("did not look up content", status)),
        }
    }

    async fn write(&mut self, archive: &Archive, plan: Plan, pinned: bool, lease: &str) -> Result<(), ImportError> {
        for blob in plan.blobs {
            self.blob(archive, blob, lease).await?;
        }
        for image in plan.images {
            self.name(image, pinned).await?;
        }
        Ok(())
    }

    async fn blob(&mut self, archive: &Archive, blob: Blob, lease: &str) -> Result<(), ImportError> {
        let digest = blob.digest.clone();
        let (sender, receiver) = mpsc::channel(2);
        let reader: Box<dyn std::io::Read + Send> = match &blob.source {
            Source::Entry(name) => {
                Box::new(archive.reader(name).map_err(|e| ImportError::Format(format!("{name}: {e}")))?)
            }
            Source::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes.clone())),
        };
        let reference = format!("{lease}-{digest}");
        let feeding = tokio::task::spawn_blocking(move || feed(reader, &blob, &reference, &sender));
        let result = self.send(receiver, lease).await;
        // The stream's end tells the truth; the feeder's only tells why it stopped early.
        let fed = feeding.await.map_err(|e| ImportError::Format(e.to_string()))?;
        match result {
            Ok(()) => fed,
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => {
                fed?;
                Err(failed(&format!("did not take {digest}"), status))
            }
        }
    }

    async fn send(&mut self, receiver: mpsc::Receiver<WriteContentRequest>, lease: &str) -> Result<(), Status> {
        let mut answers = self.content.write(in_lease(ReceiverStream::new(receiver), lease)).await?.into_inner();
        let mut committed = false;
        while let Some(answer) = answers.message().await? {
            committed |= answer.action == i32::from(WriteAction::Commit);
        }
        if committed { Ok(()) } else { Err(Status::aborted("the content was not committed")) }
    }

    async fn name(&mut self, image: Image, pinned: bool) -> Result<(), ImportError> {
        let target = Descriptor {
            media_type: image.target.media_type,
            digest: image.target.digest,
            size: i64::try_from(image.target.size).unwrap_or(i64::MAX),
            ..Descriptor::default()
        };
        let labels = if pinned { [(PINNED.0.to_owned(), PINNED.1.to_owned())].into() } else { Default::default() };
        let stored = StoredImage { name: image.name.clone(), labels, target: Some(target), ..StoredImage::default() };
        let created = self.images.create(in_namespace(CreateImageRequest { image: Some(stored.clone()) })).await;
        match created {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {
                let mask = prost_types::FieldMask { paths: vec!["target".to_owned()] };
                let request = UpdateImageRequest { image: Some(stored), update_mask: Some(mask) };
                self.images
                    .update(in_namespace(request))
                    .await
                    .map(drop)
                    .map_err(|s| failed(&format!("did not update {}", image.name), s))
            }
            Err(status) => Err(failed(&format!("did not create {}", image.name), status)),
        }
    }
}

/// Turns a blob into messages. The last one commits, so that a blob cut short is never taken for a whole one.
fn feed(
    mut reader: Box<dyn std::io::Read + Send>,
    blob: &Blob,
    reference: &str,
    sender: &mpsc::Sender<WriteContentRequest>,
) -> Result<(), ImportError> {
    let total = i64::try_from(blob.size).unwrap_or(i64::MAX);
    let mut offset = 0i64;
    loop {
        let mut data = Vec::with_capacity(PIECE.min(usize::try_from(blob.size).unwrap_or(PIECE)));
        (&mut reader)
            .take(PIECE as u64)
            .read_to_end(&mut data)
            .map_err(|e| ImportError::Format(format!("{}: {e}", blob.digest)))?;
        let length = data.len() as i64;
        let last = length == 0;
        let message = WriteContentRequest {
            action: if last { WriteAction::Commit } else { WriteAction::Write }.into(),
            r#ref: reference.to_owned(),
            total,
            expected: blob.digest.clone(),
            offset,
            data,
            labels: if last { blob.labels.clone().into_iter().collect() } else { Default::default() },
        };
        offset += length;
        // Nobody receives any more: the call has ended and its status says why.
        if sender.blocking_send(message).is_err() || last {
            return Ok(());
        }
    }
}

fn failed(what: &str, status: Status) -> ImportError {
    ImportError::Runtime { what: what.to_owned(), status: Box::new(status) }
}
