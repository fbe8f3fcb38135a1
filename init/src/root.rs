//! The root file system: an image file inside the initramfs, mounted read-only through a loop device and entered.
//!
//! The initramfs itself cannot be the root: runc's pivot_root is refused on it, and it could be written to.

use crate::boot::{Error, Outcome};
use linux::mount::{self, MsFlags};
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The image; it exists only in the initramfs.
const IMAGE: &str = "/root.img";
const NEW_ROOT: &str = "/newroot";
const INIT: &str = "/sbin/init";

/// True before the root file system is entered.
pub fn in_initramfs() -> bool {
    Path::new(IMAGE).exists()
}

/// Mounts the image.
pub fn mount_image() -> Outcome {
    let fstype = file_system(Path::new(IMAGE))?;
    // Direct IO is impossible here: the initramfs keeps its files in the page cache and nowhere else.
    let device = linux::loopdev::attach_read_only(Path::new(IMAGE), false)?;
    let path = device.path.display().to_string();
    mount::mount_dir(&path, Path::new(NEW_ROOT), fstype, MsFlags::MS_RDONLY | MsFlags::MS_NODEV, None)?;
    Ok(format!("{fstype} on {path}"))
}

/// Takes the kernel's file systems along, frees what the initramfs holds besides the image, and executes the node's init. `last`
/// runs when nothing can fail any more but the execution. Returns only with an error.
pub fn enter(last: impl FnOnce()) -> Error {
    let go = || -> Result<(), Error> {
        for dir in ["dev", "proc", "sys", "run"] {
            mount::move_mount(&Path::new("/").join(dir), &Path::new(NEW_ROOT).join(dir))?;
        }
        // The loop device keeps the image alive without its name; modules are in the kernel now.
        let _ = std::fs::remove_dir_all("/usr");
        let _ = std::fs::remove_file(IMAGE);
        mount::switch_root(Path::new(NEW_ROOT))?;
        last();
        let program = CString::new(INIT).map_err(|e| Error::Other(e.to_string()))?;
        let argv = [program.clone()];
        nix::unistd::execv(&program, &argv).map_err(|e| Error::Other(format!("execute {INIT}: {e}")))?;
        Ok(())
    };
    go().err().unwrap_or_else(|| Error::Other("execution returned".to_owned()))
}

/// Which file system an image holds, by its magic number.
fn file_system(path: &Path) -> Result<&'static str, Error> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(2048).read_to_end(&mut head));
    read.map_err(|e| Error::Other(format!("{}: {e}", path.display())))?;
    by_magic(&head).ok_or_else(|| Error::Other(format!("{} is neither EROFS nor squashfs", path.display())))
}

fn by_magic(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"hsqs") {
        Some("squashfs")
    } else if head.get(1024..1028) == Some(&0xE0F5_E1E2_u32.to_le_bytes()) {
        Some("erofs")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn magic_numbers() {
        let mut erofs = vec![0; 1024];
        erofs.extend_from_slice(&[0xE2, 0xE1, 0xF5, 0xE0]);
        assert_eq!(super::by_magic(&erofs), Some("erofs"));
        assert_eq!(super::by_magic(b"hsqs and more"), Some("squashfs"));
        assert_eq!(super::by_magic(b"hs"), None);
    }
}
