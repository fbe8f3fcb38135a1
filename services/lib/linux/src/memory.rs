//! Memory figures of processes.

use crate::{Error, Result};
use std::path::PathBuf;

/// What a process holds of the machine's memory, in bytes (proc(5), `smaps_rollup`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resident {
    /// Every page it has mapped and that is in memory, whoever shares it.
    pub rss: u64,
    /// The same with each shared page divided by the number of its users: the sum over processes counts every page once.
    pub pss: u64,
    /// Pages that nobody shares: what its end would free.
    pub private: u64,
}

/// Resident memory of a process; kernel threads have none.
///
/// # Errors
/// The process is gone or not ours to see.
pub fn resident(pid: i32) -> Result<Resident> {
    let path = PathBuf::from(format!("/proc/{pid}/smaps_rollup"));
    let text = std::fs::read_to_string(&path).map_err(|e| Error::at("read", &path, e))?;
    Ok(parse_rollup(&text))
}

/// Lines such as `Private_Dirty:   1234 kB`; the first line is the address range.
fn parse_rollup(text: &str) -> Resident {
    let sum = |names: &[&str]| -> u64 {
        let lines = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| names.contains(name));
        lines.filter_map(|(_, rest)| rest.split_ascii_whitespace().next()?.parse::<u64>().ok()).sum::<u64>() * 1024
    };
    Resident { rss: sum(&["Rss"]), pss: sum(&["Pss"]), private: sum(&["Private_Clean", "Private_Dirty"]) }
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
        let text = "55-7f ---p 00000000 00:00 0 [rollup]\nRss: 300 kB\nPss:  200 kB\nPss_Anon: 9 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 2 kB\n";
        let want = super::Resident { rss: 300 << 10, pss: 200 << 10, private: 3 << 10 };
        assert_eq!(super::parse_rollup(text), want);
        let own = super::resident(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.rss > 100 * 1024 && own.rss < 10 << 30 && own.pss <= own.rss && own.private <= own.pss, "{own:?}");
    }
}
