//! A single program, or a folder of data, out of a later Debian suite, for hosts whose own suite has it too old.
//!
//! Only for programs that need nothing but the C library or not even that, such as those written in Go.

use crate::{packages, say, workspace_root};
use anyhow::{Context, Result, bail};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Before /usr/bin on Debian's default path, and not the package manager's.
const FOLDER: &str = "/usr/local/bin";

/// Installs `usr/bin/<program>` of a Debian package of the image's suite for all users of this host.
pub fn install_program(program: &str, package: &str) -> Result<()> {
    crate::ensure_tools(crate::TOOLS)?;
    let fetched = packages::fetch(&workspace_root()?.join(".corten/cache/programs"), &[package.to_owned()], false)?;
    let source = fetched.file(&format!("usr/bin/{program}"))?;
    let target = Path::new(FOLDER).join(program);
    let is_root = crate::run(Command::new("id").arg("-u"))?.trim_ascii() == b"0";
    if !is_root {
        bail!(
            "{program} is missing or too old; run this, then try again:\n  sudo install -m 755 {} {}",
            source.display(),
            target.display()
        );
    }
    say(&format!("installing {} from {package} of {}", target.display(), packages::SUITE));
    // Over a link, the copy would change what the link points to.
    let _ = std::fs::remove_file(&target);
    std::fs::copy(&source, &target).with_context(|| format!("install {}", target.display()))?;
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A folder of a Debian package of the image's suite, which is fetched and unpacked but not installed.
pub fn package_folder(package: &str, folder: &str) -> Result<PathBuf> {
    crate::ensure_tools(crate::TOOLS)?;
    let fetched = packages::fetch(&workspace_root()?.join(".corten/cache/programs"), &[package.to_owned()], false)?;
    let files = fetched.below(folder)?;
    let file = files.values().next().with_context(|| format!("{package} has no {folder}"))?;
    Ok(file.parent().map(Path::to_owned).unwrap_or_default())
}
