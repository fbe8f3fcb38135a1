//! Other processes of the machine.

use std::io;
use std::os::fd::AsFd as _;

use linux::process::PidFd;
use tokio::io::unix::AsyncFd;

/// Waits until a process has ended, whoever's child it is.
///
/// # Errors
/// The runtime cannot watch its descriptor.
pub async fn ended(process: &PidFd) -> io::Result<()> {
    let descriptor = process.as_fd().try_clone_to_owned()?;
    #[expect(deprecated, reason = "its successor is unsafe to call; an OwnedFd keeps the promise that one asks for")]
    let descriptor = AsyncFd::new(descriptor)?;
    descriptor.readable().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_end_of_a_process_is_seen() {
        let mut sleeper = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = PidFd::open(sleeper.id().cast_signed()).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), ended(&process)).await.is_err(), "it still runs");
        sleeper.kill().unwrap();
        tokio::time::timeout(Duration::from_secs(30), ended(&process)).await.unwrap().unwrap();
        sleeper.wait().unwrap();
    }
}
