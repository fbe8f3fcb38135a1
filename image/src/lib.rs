//! Images: from a board's name to a kernel, an initramfs with the whole OS in it, OCI archives and a bill of materials.
//!
//! Owns: what is in an image and how its bytes are laid out, reproducibly. Must never: need root, put a package manager or a shell on a
//! node, or write a byte that depends on when or by whom it was built. Start reading at [`build`]; [`plan`] says what is in the root file system.

mod binaries;
mod cpio;
mod elf;
mod host;
mod kernel;
mod oci;
mod packages;
mod plan;
mod program;
mod sbom;
mod size;
mod squeeze;
mod tree;
mod workspace;

pub use host::{Tool, ensure_tools};
pub use program::{install_program, package_folder};
pub use workspace::{cargo, host_binaries, root as workspace_root, target_dir};

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// What to build.
#[derive(Debug, Clone)]
pub struct Request {
    /// The board's name.
    pub board: String,
    /// Use this multi-call binary instead of building one (a release build, a cross build).
    pub corten: Option<PathBuf>,
    /// Fetch the packages again even if they are cached.
    pub refresh: bool,
}

/// What was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The board, resolved.
    pub board: boards::Board,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs: init, the modules it needs, the root file system image.
    pub initramfs: PathBuf,
    /// The root file system image by itself.
    pub root_image: PathBuf,
    /// The same as a folder (the namespace driver bind-mounts it).
    pub root_folder: PathBuf,
    /// The test web server's OCI archive; it is not part of the OS.
    pub test_web: PathBuf,
    /// The bill of materials.
    pub sbom: PathBuf,
}

/// What the host needs for [`build`].
pub const TOOLS: &[Tool] = &[
    Tool::new("mmdebstrap", "mmdebstrap"),
    Tool::new("dpkg-deb", "dpkg"),
    Tool::new("xz", "xz-utils"),
    Tool::new("strip", "binutils"),
    Tool::new("mkfs.erofs", "erofs-utils"),
];

/// What the host needs to compile the workspace, besides Rust: RocksDB is C++, and its bindings are made by libclang.
pub const COMPILERS: &[Tool] = &[Tool::new("g++", "g++"), Tool::new("clang", "clang"), Tool::new("make", "make")];

/// Builds an image into `.corten/image/<board>`; says on standard error what it does.
pub fn build(request: &Request) -> Result<Built> {
    let board = boards::board(&request.board)?;
    ensure_tools(TOOLS)?;
    let root = workspace_root()?;
    let out = root.join(".corten/image").join(&board.name);
    std::fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    let packages = packages::fetch(&root.join(".corten/cache/packages"), &packages_of(&board), request.refresh)?;
    let ours = binaries::build(request.corten.as_deref())?;
    let work = out.join("work");
    tree::remove(&work)?;
    std::fs::create_dir_all(&work)?;
    let ours = ours.stripped(&work)?;

    let kernel = kernel::find(&packages)?;
    let modules = kernel.modules(&work.join("modules"), &board)?;
    let pause = oci::archive(&oci::single_binary(plan::PAUSE_IMAGE, "/pause", &ours.pause, &[]))?;
    let root_tree = plan::root(&plan::Parts { packages: &packages, ours: &ours, modules: &modules, pause: &pause })?;
    let root_folder = out.join("root");
    tree::remove(&root_folder)?;
    root_tree.write_to(&root_folder)?;
    let root_image = out.join("root.img");
    squeeze::erofs(&root_tree, &root_folder, &root_image)?;

    let initramfs_tree = plan::initramfs(&ours.init, &modules.initramfs, &root_image);
    let initramfs = out.join("initramfs.cpio");
    cpio::write(&initramfs_tree, &initramfs)?;
    let kernel_out = out.join("vmlinuz");
    std::fs::copy(&kernel.image, &kernel_out)?;

    let test_web = out.join("test-web.tar");
    let image = oci::single_binary(plan::TEST_WEB_IMAGE, "/test-web", &ours.test_web, &["serve"]);
    std::fs::write(&test_web, oci::archive(&image)?)?;
    let sbom = out.join("sbom.spdx.json");
    std::fs::write(&sbom, sbom::document(&board, &packages, &root_tree, &kernel)?)?;
    size::report(&root_tree, &[("kernel", &kernel_out), ("root image", &root_image), ("initramfs", &initramfs)])?;
    tree::remove(&work)?;
    Ok(Built { board, kernel: kernel_out, initramfs, root_image, root_folder, test_web, sbom })
}

/// The packages an image is made from; their dependencies come along and only needed files are taken.
fn packages_of(board: &boards::Board) -> Vec<String> {
    let mut names: Vec<String> = plan::PACKAGES.iter().map(|name| (*name).to_owned()).collect();
    names.push(board.kernel_package.clone());
    names.sort();
    names
}

/// One line about progress.
pub(crate) fn say(text: &str) {
    eprintln!("image: {text}");
}

/// Runs a tool and returns its standard output; its error output is part of the error.
pub(crate) fn run(command: &mut std::process::Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {name}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{name}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}

/// Reads a file, naming it when that fails.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("read {}", path.display()))
}
