//! The store as a process of its own, for tests that kill it and for comparing it with etcd.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// As in the image.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let args = std::env::args().collect();
    daemon::main("store", 4, |shutdown| store::run(args, shutdown))
}
