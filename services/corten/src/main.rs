//! The one binary behind all of a node's Rust processes but PID 1.
//!
//! Owns the table of applets and the dispatch by the name it was started with (or by its first argument), nothing else.
//! It must never hold behaviour of its own.

use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;

use daemon::{Outcome, Shutdown};
use tikv_jemallocator::Jemalloc;

/// The allocator of all these processes, of the C++ code in them too. The C library's own costs a server with many threads
/// and short-lived buffers a third of its processor time. How it is set up stands in `.cargo/config.toml` (jemalloc(3),
/// "TUNING"): few arenas, and freed pages go back to the kernel after a second, since ten processes share a node.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// A process's `run` with its future boxed, so that all have one type.
type Run = fn(Vec<String>, Shutdown) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// How an applet is run.
enum Applet {
    /// A long-running process on a runtime with this many worker threads.
    Process(usize, Run),
    /// A short-lived program with its own conventions for input, output and exit codes.
    Program(fn(&str) -> ExitCode),
}

macro_rules! process {
    ($threads:expr, $library:ident) => {
        Applet::Process($threads, |args, shutdown| Box::pin($library::run(args, shutdown)))
    };
}

/// Every applet by the name that starts it.
const APPLETS: [(&str, Applet); 12] = [
    ("machined", process!(2, machined)),
    ("store", process!(4, store)),
    ("kube-apiserver", process!(4, kube_apiserver)),
    ("kube-controller-manager", process!(2, kube_controller_manager)),
    ("kube-scheduler", process!(1, kube_scheduler)),
    ("metal-controller-manager", process!(1, metal_controller_manager)),
    ("kubelet", process!(2, kubelet)),
    ("pod-network", process!(1, pod_network)),
    ("kube-proxy", process!(1, kube_proxy)),
    ("cluster-dns", process!(1, cluster_dns)),
    ("corten-cni", Applet::Program(pod_network::cni::main)),
    ("loopback", Applet::Program(pod_network::cni::main)),
];

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().collect();
    if file_name(args.first()) == "corten" {
        args.remove(0);
    }
    let name = file_name(args.first());
    match APPLETS.iter().find(|(applet, _)| *applet == name) {
        Some((name, Applet::Process(threads, run))) => daemon::main(name, *threads, |shutdown| run(args, shutdown)),
        Some((name, Applet::Program(run))) => run(name),
        None => {
            let names: Vec<&str> = APPLETS.iter().map(|(name, _)| *name).collect();
            eprintln!("corten: no applet {name:?}; there are: {}", names.join(", "));
            ExitCode::from(2)
        }
    }
}

fn file_name(argument: Option<&String>) -> String {
    let name = argument.and_then(|path| Path::new(path).file_name());
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
