//! Loop devices: a file as a block device.
#![allow(unsafe_code)]

use crate::{Error, Result};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// struct loop_info64 of linux/loop.h.
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// struct loop_config of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// A file attached to a loop device. The device goes away by itself when this and its last mount are gone.
#[derive(Debug)]
pub struct LoopDevice {
    /// The block device, /dev/loopN.
    pub path: PathBuf,
    /// Keeps the device alive until it is mounted.
    _device: File,
}

/// Attaches `backing` read-only to a free loop device. `direct` asks the loop driver to go past its own page cache (the file's
/// file system must allow it), so that an image on disk is cached once, not twice.
pub fn attach_read_only(backing: &Path, direct: bool) -> Result<LoopDevice> {
    let file = File::open(backing).map_err(|e| Error::at("open", backing, e))?;
    let control_path = Path::new("/dev/loop-control");
    let control: OwnedFd = OpenOptions::new()
        .read(true)
        .write(true)
        .open(control_path)
        .map_err(|e| Error::at("open", control_path, e))?
        .into();
    // Another process may take the free number between the two calls; then the kernel says EBUSY and the next number is asked for.
    for _ in 0..16 {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument and `control` is an open descriptor.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(Error::last("LOOP_CTL_GET_FREE", "/dev/loop-control"));
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open_block(&path)?;
        let mut config = LoopConfig::new(&file);
        config.info.flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR | if direct { LO_FLAGS_DIRECT_IO } else { 0 };
        // SAFETY: `config` has the layout of struct loop_config and outlives the call; the kernel only reads it.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } == 0 {
            return Ok(LoopDevice { path, _device: device });
        }
        let error = Error::last("LOOP_CONFIGURE", path.display().to_string());
        if !error.is(nix::errno::Errno::EBUSY) {
            return Err(error);
        }
    }
    Err(Error::at("attach", backing, nix::errno::Errno::EBUSY))
}

impl LoopConfig {
    fn new(file: &File) -> LoopConfig {
        // SAFETY: the structure is plain integers and byte arrays, for which all zero bytes are a valid value.
        let mut config: LoopConfig = unsafe { std::mem::zeroed() };
        config.fd = file.as_raw_fd().cast_unsigned();
        config
    }
}

fn open_block(path: &Path) -> Result<File> {
    let c_path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|e| Error::at("open", path, std::io::Error::from(e)))?;
    // SAFETY: `c_path` is a NUL-terminated string that outlives the call.
    let fd = unsafe { libc::open(c_path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(Error::last("open", path.display().to_string()));
    }
    // SAFETY: open has just returned this descriptor and nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}
