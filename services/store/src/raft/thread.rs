//! The one thread on which consensus runs.
//!
//! openraft is a handful of tasks that wake each other for every write. On a runtime of their own they share one thread, so
//! that each of those wake-ups is a queue entry instead of a context switch, and appending and applying are plain calls.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread; it ends with [`CoreThread::join`] or when this is dropped.
pub struct CoreThread {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl CoreThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().max_blocking_threads(4).enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("store-raft".into()).spawn(move || {
            // A dropped sender asks for the end as well.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(CoreThread { handle, stop, thread })
    }

    /// Runs `work` on the thread and waits for its result; tasks that it spawns stay there.
    ///
    /// # Errors
    /// The work panicked.
    pub async fn run<F>(&self, work: F) -> io::Result<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(work).await.map_err(io::Error::other)
    }

    /// Ends the thread; blocks until it has ended.
    pub fn join(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the consensus thread panicked");
        }
    }
}
