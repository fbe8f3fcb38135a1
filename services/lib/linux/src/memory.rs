//! Memory figures of processes, and a process's own code in memory.
#![allow(unsafe_code)]

use crate::{Error, Result};
use std::path::{Path, PathBuf};

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

/// Takes this program's code out of the process's address space; the kernel maps it again, in pieces, as it runs on. What
/// only the start needed then no longer counts as this process's memory, and the kernel may give it to others. Nothing is
/// lost: code is never written to, so every page is still in its file (madvise(2), `MADV_DONTNEED`); only breakpoints that
/// a debugger has set are.
///
/// # Errors
/// The kernel does not tell where the code lies.
pub fn forget_code() -> Result<()> {
    let (path, program) = (Path::new("/proc/self/maps"), Path::new("/proc/self/exe"));
    let maps = std::fs::read_to_string(path).map_err(|e| Error::at("read", path, e))?;
    let program = std::fs::read_link(program).map_err(|e| Error::at("readlink", program, e))?;
    if let Some((start, end)) = code(&maps, &program.to_string_lossy()) {
        // SAFETY: the range is one private mapping of the program's file that is not writable, so it holds nothing but what
        // the file holds, and the file cannot be changed while it runs (ETXTBSY).
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// Where a file's code lies: first address and end (proc(5)).
fn code(maps: &str, file: &str) -> Option<(usize, usize)> {
    let mine = |rest: &str| rest.starts_with("r-xp") && rest.strip_suffix(file).is_some_and(|rest| rest.ends_with(' '));
    let (range, _) = maps.lines().filter_map(|line| line.split_once(' ')).find(|(_, rest)| mine(rest))?;
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
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
    fn code_can_be_forgotten_and_runs_on() {
        let maps = "10-20 r--p 0 08:01 7 /bin/x\n20-40 r-xp 10 08:01 7 /bin/x\n40-50 rw-p 30 08:01 7 /bin/x\n\
                    50-60 r-xp 0 08:01 9 /lib/y\n60-70 r-xp 0 00:00 0 [vdso]\n";
        assert_eq!(super::code(maps, "/bin/x"), Some((0x20, 0x40)));
        assert_eq!(super::code(maps, "/x"), None);
        let own = || super::resident(i32::try_from(std::process::id()).unwrap()).unwrap().rss;
        let before = own();
        super::forget_code().unwrap();
        assert!(own() < before, "{before}");
    }

    #[test]
    fn own_memory_is_plausible() {
        let text = "55-7f ---p 00000000 00:00 0 [rollup]\nRss: 300 kB\nPss:  200 kB\nPss_Anon: 9 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 2 kB\n";
        let want = super::Resident { rss: 300 << 10, pss: 200 << 10, private: 3 << 10 };
        assert_eq!(super::parse_rollup(text), want);
        let own = super::resident(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.rss > 100 * 1024 && own.rss < 10 << 30 && own.pss <= own.rss && own.private <= own.pss, "{own:?}");
    }
}
