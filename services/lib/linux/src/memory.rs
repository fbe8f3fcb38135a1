//! Memory figures of processes.

use crate::{Error, Result};
use std::path::PathBuf;

/// Resident memory of a process in bytes, from /proc/<pid>/statm.
pub fn rss_bytes(pid: i32) -> Result<u64> {
    let path = PathBuf::from(format!("/proc/{pid}/statm"));
    let text = std::fs::read_to_string(&path).map_err(|e| Error::at("read", &path, e))?;
    let pages = parse_statm(&text)
        .ok_or_else(|| Error::at("parse", &path, std::io::Error::from(std::io::ErrorKind::InvalidData)))?;
    Ok(pages * page_size())
}

/// The second field of statm is the resident page count.
fn parse_statm(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The size of a page.
pub fn page_size() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|v| u64::try_from(v).ok())
        .unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    #[test]
    fn own_memory_is_plausible() {
        assert_eq!(super::parse_statm("100 25 3 4 5 6 7\n"), Some(25));
        assert_eq!(super::parse_statm(""), None);
        let own = i32::try_from(std::process::id()).unwrap();
        let rss = super::rss_bytes(own).unwrap();
        assert!(rss > 100 * 1024 && rss < 10 << 30, "{rss}");
    }
}
