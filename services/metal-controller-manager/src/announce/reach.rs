//! Whether this machine still hears from the cluster: one that does not, announces only what nobody else will.

use std::time::Duration;

use client::Client;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Between two questions. Watches alone would not tell: a connection that leads nowhere is silent.
const PACE: Duration = Duration::from_secs(5);
/// An answer that takes longer is none.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// So many questions without an answer are enough.
const MISSES_MAX: u32 = 2;

/// Asks in a task of its own, as long as the answer matters to anybody.
#[derive(Debug)]
pub struct Reach {
    announcing: watch::Sender<bool>,
    informed: watch::Receiver<bool>,
    task: AbortHandle,
}

impl Drop for Reach {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reach {
    /// Informed until the opposite is known.
    pub fn start(client: Client) -> Self {
        let (announcing, busy) = watch::channel(false);
        let (sender, informed) = watch::channel(true);
        let task = tokio::spawn(ask(client, busy, sender));
        Reach { announcing, informed, task: task.abort_handle() }
    }

    /// Whether this machine announces anything: if not, nobody is asked anything.
    pub fn announcing(&self, announcing: bool) {
        self.announcing.send_if_modified(|before| std::mem::replace(before, announcing) != announcing);
    }

    /// Whether the cluster answers.
    pub fn is_informed(&self) -> bool {
        *self.informed.borrow()
    }

    /// Waits until that is different.
    pub async fn changed(&mut self) {
        if self.informed.changed().await.is_err() {
            // The task never ends before this.
            std::future::pending().await
        }
    }
}

async fn ask(client: Client, mut announcing: watch::Receiver<bool>, informed: watch::Sender<bool>) {
    let mut misses = 0;
    loop {
        if *informed.borrow() && announcing.wait_for(|announcing| *announcing).await.is_err() {
            return;
        }
        tokio::time::sleep(PACE).await;
        let answer = tokio::time::timeout(ANSWER_MAX, client.get_text("/readyz")).await;
        misses = if matches!(answer, Ok(Ok(_))) { 0 } else { misses + 1 };
        let fine = misses < MISSES_MAX;
        if informed.send_if_modified(|before| std::mem::replace(before, fine) != fine) {
            tracing::warn!("the cluster {}", if fine { "answers again" } else { "does not answer" });
        }
    }
}
