//! Plugins of the kubelet for tests. They run on the host, in the mount namespace of a node of the namespace driver, as the
//! privileged pods of real ones would.

use std::error::Error;
use std::path::Path;

use clap::{Parser, Subcommand};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

mod claims;
mod devices;
mod registration;
mod storage;

/// Plugins of the kubelet for tests.
#[derive(Parser)]
struct Arguments {
    /// A process whose mount namespace the plugin works in
    #[arg(long)]
    enter: u32,
    #[command(subcommand)]
    plugin: Plugin,
}

#[derive(Subcommand)]
enum Plugin {
    /// A storage driver that speaks CSI
    Storage(registration::Arguments),
    /// A driver of dynamic resources
    Claims(registration::Arguments),
    /// A device plugin
    Devices(devices::Arguments),
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let disk = storage::Disk::new();
    // Before there is any other thread: a mount namespace is entered by processes of one thread only.
    let namespace = std::fs::File::open(format!("/proc/{}/ns/mnt", arguments.enter))?;
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNS)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.plugin {
            Plugin::Storage(arguments) => storage::serve(arguments, disk?).await,
            Plugin::Claims(arguments) => claims::serve(arguments).await,
            Plugin::Devices(arguments) => devices::serve(arguments).await,
        }
    })
}

fn listen(path: &Path) -> std::io::Result<UnixListenerStream> {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).map(UnixListenerStream::new)
}
