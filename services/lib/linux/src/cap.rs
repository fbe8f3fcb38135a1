//! Capabilities a child may keep.
#![allow(unsafe_code)]

/// The capabilities our service table speaks of (numbers of linux/capability.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Bind ports below 1024.
    NetBindService = 10,
    /// Configure the network.
    NetAdmin = 12,
    /// Raw and packet sockets.
    NetRaw = 13,
    /// Load kernel modules.
    SysModule = 16,
    /// Mounts, namespaces and much more.
    SysAdmin = 21,
}

const LAST_POSSIBLE: u64 = 63;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// The bit mask of a list.
pub fn mask(keep: &[Capability]) -> u64 {
    keep.iter().fold(0, |mask, cap| mask | 1 << *cap as u64)
}

/// Reduces this process, for good, to the capabilities in `mask`: bounding, permitted, effective and inheritable sets, ambient
/// cleared. Async-signal-safe: it is called between fork and exec.
pub fn restrict_to(mask: u64) -> std::io::Result<()> {
    for cap in 0..=LAST_POSSIBLE {
        if mask >> cap & 1 == 1 {
            continue;
        }
        // SAFETY: prctl with PR_CAPBSET_DROP takes a plain number.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) } != 0 {
            // EINVAL: past the last capability this kernel knows.
            let error = std::io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EINVAL) {
                break;
            }
            return Err(error);
        }
    }
    let header = Header { version: VERSION_3, pid: 0 };
    let (low, high) = ((mask & 0xffff_ffff) as u32, (mask >> 32) as u32);
    let set = |bits| Data { effective: bits, permitted: bits, inheritable: bits };
    let data = [set(low), set(high)];
    // SAFETY: header and data have the kernel's version 3 layout (two data blocks) and outlive the call.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Forbids gaining privileges through exec (set-uid files, file capabilities).
pub fn no_new_privileges() -> std::io::Result<()> {
    // SAFETY: prctl with PR_SET_NO_NEW_PRIVS takes plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert_eq!(mask(&[]), 0);
        assert_eq!(mask(&[Capability::NetBindService, Capability::NetAdmin]), 0x1400);
    }
}
