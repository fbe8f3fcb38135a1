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

/// Takes the code and the constants of this program and its libraries out of the process's address space; the kernel maps them
/// again, in pieces, as it runs on. What only the start needed then no longer counts as this process's memory, and the kernel may
/// give it to others. Nothing is lost: these pages are never written to, so each is still in its file (madvise(2),
/// `MADV_DONTNEED`); only breakpoints that a debugger has set are.
///
/// # Errors
/// The kernel does not tell where they lie.
pub fn forget_code() -> Result<()> {
    let path = Path::new("/proc/self/maps");
    let maps = std::fs::read_to_string(path).map_err(|e| Error::at("read", path, e))?;
    for (start, end) in maps.lines().filter_map(unwritten) {
        // SAFETY: the range is one private mapping of a file that nobody has written to through it, so it holds nothing but what
        // the file holds; a program's own file cannot be changed while it runs (ETXTBSY), and a page of a library's would
        // show a change to its file anyway.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// First address and end of a mapping of a file that was never writable, from its line (proc(5)): code, and what lies at a file's
/// beginning. What is read-only further on may be pointers that the loader has corrected.
fn unwritten(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
    let file = words.nth(2)?;
    let begins = rights == "r--p" && offset.bytes().all(|digit| digit == b'0');
    if !file.starts_with('/') || !(begins || rights == "r-xp") {
        return None;
    }
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
        let maps = "10-20 r--p 00000000 08:01 7 /bin/x\n20-40 r-xp 00001000 08:01 7 /bin/x\n40-50 r--p 00003000 08:01 7 /bin/x\n\
                    50-60 rw-p 00004000 08:01 7 /bin/x\n60-70 rw-p 00000000 00:00 0 \n80-90 r-xp 00000000 00:00 0 [vdso]\n\
                    a0-b0 r--p 00000000 00:00 0 \nb0-c0 r-xp 00001000 08:01 9 /lib/a b";
        let found: Vec<_> = maps.lines().filter_map(super::unwritten).collect();
        assert_eq!(found, [(0x10, 0x20), (0x20, 0x40), (0xb0, 0xc0)]);
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
