//! One signal that tells every task of a process to end.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A cloneable handle that resolves when the process should end.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Ends everything that holds the paired [`Shutdown`]; dropping it does the same.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

impl ShutdownTrigger {
    /// Asks for the end.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// A shutdown that the holder of the trigger decides, for tests and nested servers.
    pub fn pair() -> (ShutdownTrigger, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (ShutdownTrigger(sender), Shutdown(receiver))
    }

    /// A shutdown that SIGTERM or SIGINT triggers.
    ///
    /// # Errors
    /// The operating system refused to install the handlers.
    pub fn on_signals() -> std::io::Result<Shutdown> {
        let (trigger, shutdown) = Shutdown::pair();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            trigger.trigger();
            // Keep the sender alive so that late clones still read `true`, not an error.
            std::future::pending::<()>().await;
        });
        Ok(shutdown)
    }

    /// Waits until the end is asked for.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        // An error means the trigger was dropped, which asks for the end as well.
        let _ = receiver.wait_for(|ended| *ended).await;
    }

    /// Whether the end was asked for.
    pub fn triggered(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}
