//! One file per verb.

pub(crate) mod apply_config;
pub(crate) mod boot_report;
pub(crate) mod dmesg;
pub(crate) mod gen_config;
pub(crate) mod image;
pub(crate) mod kubeconfig;
pub(crate) mod logs;
pub(crate) mod power;
pub(crate) mod processes;
pub(crate) mod services;
pub(crate) mod store;
pub(crate) mod version;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};

/// Writes a file with secrets in it; an existing one only by force.
fn write_secret(path: &Path, content: &[u8], force: bool) -> anyhow::Result<()> {
    let name = || path.display().to_string();
    if path.exists() {
        if !force {
            bail!("{} exists already (--force overwrites it)", path.display());
        }
        // Removed, so that the new file gets its own mode.
        std::fs::remove_file(path).with_context(name)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).and_then(|mut f| f.write_all(content)).with_context(name)
}
