//! The allocator of every long-running process, of the C++ code in it too: jemalloc.
//!
//! The C library's own costs a server with many threads and short-lived buffers a third of its processor time. How
//! jemalloc is set up stands in `.cargo/config.toml` (jemalloc(3), "TUNING"): few arenas, and freed pages go back to the
//! kernel after a second, by a thread of its own, since ten processes share a node.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;
