//! A connection that must make progress: whoever connects has to say something, and whoever is sent something has to take it.
//!
//! Without the first limit connections that never send a request would stay for ever: hyper's own limits begin with the first byte. Without
//! the second a client that stops reading, such as a watch that nobody looks at any more, would hold its connection, its stream and what is
//! buffered for it, because TCP itself waits as long as the other end answers probes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a new connection may be silent.
pub const SILENCE: Duration = Duration::from_secs(32);
/// How long what is sent may find no taker.
pub const STALL: Duration = Duration::from_secs(60);

/// A stream with these limits.
pub struct Guarded<S> {
    stream: S,
    /// Until something has been read.
    silent: Option<Pin<Box<Sleep>>>,
    /// While a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    upgraded: Upgraded,
}

/// Set once the connection is no longer HTTP: a person may look away from a terminal for as long as they like.
#[derive(Clone, Debug, Default)]
pub struct Upgraded(Arc<AtomicBool>);

impl Upgraded {
    /// From now on writes may wait.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<S> Guarded<S> {
    /// Guards a stream from now on.
    pub fn new(stream: S, upgraded: Upgraded) -> Self {
        Self { stream, silent: Some(Box::pin(sleep_until(Instant::now() + SILENCE))), stalled: None, upgraded }
    }

    /// What a write came to, with the time that it waits.
    fn watched<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        if self.upgraded.0.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + STALL)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take what it is sent")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if Pin::new(&mut this.stream).poll_read(cx, buffer)?.is_ready() {
            this.silent = None;
            return Poll::Ready(Ok(()));
        }
        if let Some(silent) = &mut this.silent {
            ready!(silent.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client says nothing")));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.watched(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, bytes);
        this.watched(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_flush(cx);
        this.watched(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.watched(cx, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_but_not_one_that_has_spoken() {
        let (mut client, server) = duplex(64);
        let mut server = Guarded::new(server, Upgraded::default());
        let begun = Instant::now();
        let error = server.read_u8().await.expect_err("silent");
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, SILENCE));

        let (mut spoken, server) = duplex(64);
        let mut server = Guarded::new(server, Upgraded::default());
        spoken.write_u8(1).await.expect("open");
        assert_eq!(server.read_u8().await.expect("a byte"), 1);
        let idle = tokio::time::timeout(SILENCE * 10, server.read_u8()).await;
        assert!(idle.is_err(), "an idle connection is no business of this");
        client.shutdown().await.expect("open");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_dropped() {
        let (mut client, server) = duplex(64);
        let mut server = Guarded::new(server, Upgraded::default());
        let begun = Instant::now();
        let error = server.write_all(&[0; 100]).await.expect_err("nobody reads");
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, STALL));
        // Whoever reads slowly, but reads, is not.
        let (mut slow, server) = duplex(64);
        let mut server = Guarded::new(server, Upgraded::default());
        let reader = tokio::spawn(async move {
            for _ in 0..3 {
                tokio::time::sleep(STALL - Duration::from_secs(1)).await;
                let mut some = [0; 64];
                slow.read_exact(&mut some).await.expect("sent");
            }
        });
        server.write_all(&[0; 3 * 64]).await.expect("taken in time");
        reader.await.expect("ended");
        drop(client.shutdown().await);
        let (_paused, server) = duplex(64);
        let upgraded = Upgraded::default();
        let mut terminal = Guarded::new(server, upgraded.clone());
        upgraded.set();
        let waits = tokio::time::timeout(STALL * 10, terminal.write_all(&[0; 100])).await;
        assert!(waits.is_err(), "a terminal may wait");
    }
}
