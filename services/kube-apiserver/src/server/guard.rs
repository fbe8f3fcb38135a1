//! A connection that must make progress: whoever begins to say something has to finish it, and whoever is sent something has to take it.
//!
//! hyper's own limit for headers also counts the time before their first byte, so that a connection could not rest for longer than that between
//! two requests. Without the second limit a client that stops reading, such as a watch that nobody looks at any more, would hold its connection,
//! its stream and what is buffered for it, because TCP itself waits as long as the other end answers probes.

use super::activity::Activity;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long the headers of a request may take, those of the first from the beginning of the connection, as in upstream.
pub const HEADERS: Duration = Duration::from_secs(32);
/// How long what is sent may find no taker.
pub const STALL: Duration = Duration::from_secs(60);

/// A stream with these limits.
pub struct Guarded<S> {
    stream: S,
    activity: Activity,
    heading: Option<Heading>,
    /// While a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// The headers of a request that have begun.
struct Heading {
    /// How many requests came before it.
    number: u64,
    since: Instant,
    /// Once they had to be waited for.
    limit: Option<Pin<Box<Sleep>>>,
}

impl Heading {
    fn new(number: u64) -> Option<Self> {
        Some(Self { number, since: Instant::now(), limit: None })
    }
}

impl<S> Guarded<S> {
    /// Guards a stream from now on.
    pub fn new(stream: S, activity: Activity) -> Self {
        Self { stream, activity, heading: Heading::new(0), stalled: None }
    }

    /// The headers that are awaited; none between two requests, in one, or beside others.
    fn heading(&mut self) -> Option<&mut Heading> {
        let next = self.activity.next();
        self.heading.as_mut().filter(|heading| next == Some(heading.number))
    }

    /// What a write came to, with the time that it waits.
    fn watched<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        if self.activity.is_upgraded() {
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
            if let Some(number) = this.activity.next()
                && this.heading().is_none()
            {
                this.heading = Heading::new(number);
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(heading) = this.heading() {
            let end = heading.since + HEADERS;
            ready!(heading.limit.get_or_insert_with(|| Box::pin(sleep_until(end))).as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not finish its request")));
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
    async fn headers_end_in_time_but_a_connection_may_rest() {
        let (_mute, server) = duplex(64);
        let mut server = Guarded::new(server, Activity::opened());
        let begun = Instant::now();
        let error = server.read_u8().await.expect_err("silent");
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, HEADERS));

        let (mut slow, server) = duplex(64);
        let activity = Activity::opened();
        let mut server = Guarded::new(server, activity.clone());
        let begun = Instant::now();
        slow.write_u8(b'G').await.expect("open");
        assert_eq!(server.read_u8().await.expect("a byte"), b'G');
        tokio::time::sleep(HEADERS / 2).await;
        slow.write_u8(b'E').await.expect("open");
        assert_eq!(server.read_u8().await.expect("a byte"), b'E');
        assert!(server.read_u8().await.is_err() && begun.elapsed() == HEADERS, "one byte after the other");

        let (mut client, server) = duplex(64);
        let activity = Activity::opened();
        let mut server = Guarded::new(server, activity.clone());
        for number in 0..3 {
            client.write_u8(number).await.expect("open");
            assert_eq!(server.read_u8().await.expect("a byte"), number);
            let running = activity.begin(http::Version::HTTP_11);
            let long = tokio::time::timeout(HEADERS * 2, server.read_u8()).await;
            assert!(long.is_err(), "an answer may take longer");
            drop(running);
            let idle = tokio::time::timeout(HEADERS * 2, server.read_u8()).await;
            assert!(idle.is_err(), "an idle connection is no business of this");
        }
        client.write_u8(b'G').await.expect("open");
        assert_eq!(server.read_u8().await.expect("a byte"), b'G');
        let begun = Instant::now();
        assert!(server.read_u8().await.is_err() && begun.elapsed() == HEADERS, "the next request's headers");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_dropped() {
        let (mut client, server) = duplex(64);
        let mut server = Guarded::new(server, Activity::opened());
        let begun = Instant::now();
        let error = server.write_all(&[0; 100]).await.expect_err("nobody reads");
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, STALL));
        // Whoever reads slowly, but reads, is not.
        let (mut slow, server) = duplex(64);
        let mut server = Guarded::new(server, Activity::opened());
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
        let activity = Activity::opened();
        let mut terminal = Guarded::new(server, activity.clone());
        activity.upgrade();
        let waits = tokio::time::timeout(STALL * 10, terminal.write_all(&[0; 100])).await;
        assert!(waits.is_err(), "a terminal may wait");
    }
}
