//! `cargo image <board>`: builds an image and prints where its parts are. Everything is in the library.

use anyhow::Result;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Build a Corten image.
#[derive(Debug, Parser)]
#[command(name = "cargo image")]
struct Args {
    /// The board: a folder name under boards/.
    #[arg(default_value = "qemu-x86_64")]
    board: String,
    /// Use this corten binary instead of building one.
    #[arg(long)]
    corten: Option<PathBuf>,
    /// Fetch the Debian packages again.
    #[arg(long)]
    refresh: bool,
}

fn main() -> ExitCode {
    match build(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes in one line; a backtrace would hide it.
            eprintln!("image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build(args: Args) -> Result<()> {
    let built = image::build(&image::Request { board: args.board, corten: args.corten, refresh: args.refresh })?;
    for path in [&built.kernel, &built.initramfs, &built.root_image, &built.test_web, &built.sbom] {
        println!("{}", path.display());
    }
    Ok(())
}
