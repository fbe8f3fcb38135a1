//! Kernel modules. Dependencies were resolved when the image was built, so loading is a list of files in order.

use crate::{Error, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::ffi::CString;
use std::fs::File;
use std::path::Path;

/// Loads one uncompressed module. A module that is already loaded is success.
pub fn load(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::at("open", path, e))?;
    match finit_module(&file, &CString::default(), ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(Error::at("finit_module", path, errno)),
    }
}
