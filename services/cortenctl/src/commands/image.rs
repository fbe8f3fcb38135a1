//! image import: container images without a registry.

use std::path::PathBuf;

use anyhow::Context as _;
use machine_api::v1::Data;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::Global;
use crate::connect::{self, Client};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Image {
    /// Import the images of an archive (OCI layout or docker-save)
    Import {
        /// The archive, a tar file
        file: PathBuf,
    },
}

pub(crate) async fn run(Image::Import { file }: Image, global: &Global) -> anyhow::Result<()> {
    for (node, client) in connect::all(global).await? {
        let archive = tokio::fs::File::open(&file).await.with_context(|| file.display().to_string())?;
        for name in send(client, archive).await? {
            println!("{node}: {name}");
        }
    }
    Ok(())
}

async fn send(mut client: Client, mut archive: tokio::fs::File) -> anyhow::Result<Vec<String>> {
    let (sender, receiver) = mpsc::channel(4);
    let feeding = async move {
        loop {
            let mut bytes = vec![0; machine_api::CHUNK];
            let n = archive.read(&mut bytes).await?;
            bytes.truncate(n);
            // Nobody receives when the call has failed, and its error says why.
            if n == 0 || sender.send(Data { bytes }).await.is_err() {
                return Ok::<(), std::io::Error>(());
            }
        }
    };
    let (fed, answer) = tokio::join!(feeding, client.image_import(ReceiverStream::new(receiver)));
    let names = answer?.into_inner().names;
    fed?;
    Ok(names)
}
