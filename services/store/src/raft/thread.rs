//! The one thread on which consensus runs, and the threads beside it, where something may wait for the disk.
//!
//! openraft is a handful of tasks that wake each other for every write. On a runtime of their own they share one thread, so
//! that each of those wake-ups is a queue entry instead of a context switch, and appending and applying are plain calls. The
//! connections with other members live there too.
//!
//! This is the only file of consensus that starts threads. In a simulation ([`super::sim`]) there are none: what they would
//! do is then done by tasks of the one runtime, after a time that the simulation chooses.

use std::future::Future;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

#[cfg(not(test))]
pub use openraft::impls::TokioRuntime as Runtime;

#[cfg(test)]
pub use super::sim::Runtime;
#[cfg(test)]
use super::sim::{self, Delay};

/// The thread; it ends with [`CoreThread::join`] or when this is dropped.
pub struct CoreThread {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: Thread,
}

/// A thread that can be waited for.
pub struct Thread(Option<std::thread::JoinHandle<()>>);

impl Thread {
    fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Ok(Thread(Some(std::thread::Builder::new().name(name.into()).spawn(work)?)))
    }

    /// Blocks until it has ended.
    pub fn join(self) {
        if self.0.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread of consensus panicked");
        }
    }
}

impl CoreThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn start() -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        #[cfg(test)]
        if sim::active() {
            return Ok(CoreThread { handle: Handle::current(), stop, thread: Thread(None) });
        }
        let runtime = Builder::new_current_thread().max_blocking_threads(4).enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread = Thread::start("store-raft", move || {
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

    /// Where tasks for the thread are spawned.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends the thread; blocks until it has ended.
    pub fn join(self) {
        drop(self.stop);
        self.thread.join();
    }
}

/// Runs `work`, which may wait for the disk, where that keeps nobody waiting.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(test)]
    if sim::active() {
        return tokio::spawn(async move {
            sim::pause(Delay::Disk).await;
            work()
        });
    }
    tokio::task::spawn_blocking(work)
}

/// The same on a thread of its own, for what takes long; `work` tells itself when it is done.
///
/// # Errors
/// The operating system refused.
pub fn apart(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    #[cfg(test)]
    if sim::active() {
        drop(blocking(work));
        return Ok(());
    }
    Thread::start(name, work).map(drop)
}

/// Runs `work`, which makes items one after the other; it learns whether somebody still wants them.
pub fn produce<T: Send + 'static>(out: mpsc::Sender<T>, work: impl FnOnce(&mut dyn FnMut(T) -> bool) + Send + 'static) {
    #[cfg(test)]
    if sim::active() {
        let mut items = Vec::new();
        work(&mut |item| {
            items.push(item);
            true
        });
        tokio::spawn(async move {
            for item in items {
                if out.send(item).await.is_err() {
                    return;
                }
            }
        });
        return;
    }
    tokio::task::spawn_blocking(move || work(&mut |item| out.blocking_send(item).is_ok()));
}

/// Runs `work` on the items that arrive.
pub fn consume<T: Send + 'static, R: Send + 'static>(
    mut arrived: mpsc::Receiver<T>,
    work: impl FnOnce(&mut dyn Iterator<Item = T>) -> R + Send + 'static,
) -> JoinHandle<R> {
    #[cfg(test)]
    if sim::active() {
        return tokio::spawn(async move {
            let mut items = Vec::new();
            while let Some(item) = arrived.recv().await {
                items.push(item);
            }
            sim::pause(Delay::Disk).await;
            work(&mut items.into_iter())
        });
    }
    tokio::task::spawn_blocking(move || work(&mut std::iter::from_fn(|| arrived.blocking_recv())))
}

/// Where a [`worker`] finds its work. A plain queue: waking a thread through it costs less than through an asynchronous one.
pub struct Queue<T> {
    items: Sender<T>,
    #[cfg(test)]
    wake: std::sync::Arc<tokio::sync::Notify>,
}

impl<T> Queue<T> {
    /// A queue that nobody serves.
    pub fn closed() -> Self {
        Queue {
            items: channel().0,
            #[cfg(test)]
            wake: std::sync::Arc::default(),
        }
    }

    /// Leaves an item to the worker, or gives it back if there is none any more.
    ///
    /// # Errors
    /// The item.
    pub fn send(&self, item: T) -> Result<(), T> {
        self.items.send(item).map_err(|unsent| unsent.0)?;
        #[cfg(test)]
        self.wake.notify_one();
        Ok(())
    }
}

#[cfg(test)]
impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        // A simulated worker does not wait in the queue itself, so it has to be told.
        self.items = channel().0;
        self.wake.notify_one();
    }
}

/// A thread that calls `round` with the next item and the queue, which may hold more, until that returns `false` or the
/// queue is dropped.
///
/// # Errors
/// The operating system refused.
pub fn worker<T: Send + 'static>(
    name: &str,
    mut round: impl FnMut(T, &Receiver<T>) -> bool + Send + 'static,
) -> io::Result<(Queue<T>, Thread)> {
    let (items, waiting) = channel();
    #[cfg(test)]
    let queue = Queue { items, wake: std::sync::Arc::default() };
    #[cfg(not(test))]
    let queue = Queue { items };
    #[cfg(test)]
    if sim::active() {
        tokio::spawn(sim::worker(queue.wake.clone(), waiting, round));
        return Ok((queue, Thread(None)));
    }
    let thread = Thread::start(name, move || {
        while let Ok(first) = waiting.recv() {
            if !round(first, &waiting) {
                return;
            }
        }
    })?;
    Ok((queue, thread))
}

/// Lets others go first.
pub async fn give_way() {
    #[cfg(test)]
    if sim::active() {
        return sim::pause(Delay::Apply).await;
    }
    tokio::task::yield_now().await;
}
