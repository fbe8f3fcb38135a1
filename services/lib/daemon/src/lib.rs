//! What every long-running process shares: start-up, logging, signals and orderly shutdown, TLS configuration.
//!
//! Owns the life of a process from `main` to exit code. It must never know what a process does: no Kubernetes, no store,
//! no machine types. Start reading at [`main`], then [`Shutdown`]; TLS configurations are in [`tls`], the accept loop
//! that servers share in [`accept`].

pub mod accept;
pub mod backoff;
pub mod process;
mod shutdown;
pub mod tls;

use std::process::ExitCode;

pub use shutdown::{Shutdown, ShutdownTrigger};

/// The error of a whole process: printed as one line before it exits with code 1.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a process's `run` returns.
pub type Outcome = Result<(), Failure>;

/// Runs `process` on a runtime with `threads` workers, or one for each core if those are fewer, until it ends or a
/// termination signal arrives.
///
/// The exit code is 0 for a clean end and for `--help`, 2 for wrong arguments and 1 for every other error.
pub fn main<F, P>(name: &'static str, threads: usize, process: P) -> ExitCode
where
    P: FnOnce(Shutdown) -> F,
    F: Future<Output = Outcome>,
{
    let threads = std::thread::available_parallelism().map_or(threads, |cores| threads.min(cores.get()));
    start_logging();
    tls::install_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(16)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{name}: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.spawn(settle());
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::on_signals()?;
        process(shutdown).await
    });
    // Tasks that still run must not delay the end: what has to be finished was awaited by `process`.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(name, failure),
    }
}

/// How long a start takes at most, as far as code is concerned that never runs again.
const STARTED: std::time::Duration = std::time::Duration::from_secs(30);

/// A start runs much code that is never needed again; a node's processes need not keep it in memory.
async fn settle() {
    tokio::time::sleep(STARTED).await;
    if let Err(error) = linux::memory::forget_code() {
        tracing::debug!(%error, "the start's code stays mapped");
    }
}

/// Logs to standard error without colours or timestamps' fractions; `RUST_LOG` overrides the level (default `info`, consensus internals only from `warn` on).
pub fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=warn"));
    // A second call, as in tests, keeps the first subscriber.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).try_init();
}

fn report(name: &str, failure: Failure) -> ExitCode {
    if let Some(usage) = failure.downcast_ref::<clap::Error>() {
        // clap prints help to standard output and wrong arguments to standard error, and knows the exit code.
        let _ = usage.print();
        return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
    }
    eprintln!("{name}: {}", chain(failure.as_ref()));
    ExitCode::FAILURE
}

/// An error and its causes on one line, each cause once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
