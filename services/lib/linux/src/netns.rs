//! Network namespaces: create a named one, run a closure inside one.

use crate::{Error, Result, mount};
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{File, OpenOptions};
use std::path::Path;

/// Runs `f` inside the network namespace at `path` on a thread of its own, and returns what it returns.
///
/// A thread's namespace is its own: the caller's threads (tokio's among them) are never moved. Sockets opened inside stay in that
/// namespace after they are handed out. Only the network namespace changes, so /sys and the mounts remain the caller's.
pub fn run_in<T: Send>(path: &Path, f: impl FnOnce() -> T + Send) -> Result<T> {
    let namespace = File::open(path).map_err(|e| Error::at("open", path, e))?;
    on_thread(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|e| Error::at("setns", path, e))?;
        Ok(f())
    })
}

/// Makes a new network namespace and pins it at `path` (a file on which the namespace is bind-mounted), as CNI runtimes do.
pub fn create(path: &Path) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| Error::at("mkdir", parent, e))?;
    }
    OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| Error::at("create", path, e))?;
    let made = on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Error::new("unshare", "network namespace", e))?;
        mount::mount(Some("/proc/thread-self/ns/net"), path, None, MsFlags::MS_BIND, None)
    });
    if made.is_err() {
        let _ = std::fs::remove_file(path);
    }
    made
}

/// Removes a namespace made by [`create`]; the kernel frees it when its last process and socket are gone.
pub fn remove(path: &Path) -> Result<()> {
    mount::unmount(path, true)?;
    std::fs::remove_file(path).map_err(|e| Error::at("remove", path, e))
}

fn on_thread<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, f)
            .map_err(|e| Error::new("spawn", "namespace thread", e))?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_stays_where_it_was() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let path = std::env::temp_dir().join(format!("corten-netns-{}", std::process::id()));
        create(&path).unwrap();
        let inside = run_in(&path, || std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
        remove(&path).unwrap();
        assert_ne!(own, inside);
        assert_eq!(own, std::fs::read_link("/proc/thread-self/ns/net").unwrap());
        assert!(!path.exists());
    }
}
