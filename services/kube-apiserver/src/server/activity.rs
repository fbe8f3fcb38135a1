//! What a connection is doing, request by request: so that one that rests can be closed and one that dawdles can be told from it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

use super::body::{self, StreamError};

/// How long a connection may be without a request between two, as in upstream.
pub const IDLE: Duration = Duration::from_secs(90);

/// Shared by a connection's stream, its service and whoever waits for its end.
#[derive(Clone, Debug)]
pub struct Activity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    opened: Instant,
    /// How many requests have had all of their headers, ever.
    begun: AtomicU64,
    /// How many of them are being answered.
    running: AtomicUsize,
    /// When the last answer ended, in milliseconds since the connection was opened.
    rested: AtomicU64,
    /// Requests share the connection: what comes on it need not begin one.
    multiplexed: AtomicBool,
    /// It is no longer HTTP.
    upgraded: AtomicBool,
}

impl Activity {
    /// Of a connection that has just been opened.
    pub fn opened() -> Self {
        Self(Arc::new(Shared {
            opened: Instant::now(),
            begun: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            rested: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
        }))
    }

    /// A request has come with all of its headers; it is being answered until the guard is dropped.
    pub fn begin(&self, version: http::Version) -> Running {
        let shared = &self.0;
        shared.running.fetch_add(1, Ordering::Relaxed);
        shared.begun.fetch_add(1, Ordering::Relaxed);
        if version == http::Version::HTTP_2 {
            shared.multiplexed.store(true, Ordering::Relaxed);
        }
        Running(self.clone())
    }

    /// From now on it is no business of these rules: a person may look away from a terminal for as long as they like.
    pub fn upgrade(&self) {
        self.0.upgraded.store(true, Ordering::Relaxed);
    }

    /// Whether it is no longer HTTP.
    pub fn is_upgraded(&self) -> bool {
        self.0.upgraded.load(Ordering::Relaxed)
    }

    /// The number of the request that the next byte belongs to the headers of, if it does.
    pub fn next(&self) -> Option<u64> {
        let shared = &self.0;
        let begun = shared.begun.load(Ordering::Relaxed);
        let other = shared.running.load(Ordering::Relaxed) > 0 || shared.multiplexed.load(Ordering::Relaxed);
        (!other && !self.is_upgraded()).then_some(begun)
    }

    /// Waits until nothing has been asked for [`IDLE`].
    pub async fn idle(&self) {
        let mut look = self.0.opened + IDLE;
        loop {
            sleep_until(look).await;
            let now = Instant::now();
            look = self.rested().unwrap_or(now) + IDLE;
            if look <= now {
                return;
            }
        }
    }

    /// Since when nothing is asked, if nothing is.
    fn rested(&self) -> Option<Instant> {
        let shared = &self.0;
        let since = shared.opened + Duration::from_millis(shared.rested.load(Ordering::Relaxed));
        (shared.running.load(Ordering::Relaxed) == 0).then_some(since)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Running(Activity);

impl Drop for Running {
    fn drop(&mut self) {
        let shared = &self.0.0;
        let now = u64::try_from(shared.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.rested.store(now, Ordering::Relaxed);
        shared.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response's body: with its end the request ends.
pub struct Answer {
    body: body::Body,
    _running: Running,
}

impl Answer {
    /// A body of this request.
    pub fn new(body: body::Body, running: Running) -> Self {
        Self { body, _running: running }
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_connection_at_rest_is_idle() {
        let activity = Activity::opened();
        let begun = Instant::now();
        activity.idle().await;
        assert_eq!(begun.elapsed(), IDLE, "nothing was ever asked");

        let activity = Activity::opened();
        let running = activity.begin(http::Version::HTTP_11);
        assert!(tokio::time::timeout(IDLE * 10, activity.idle()).await.is_err(), "a watch may last");
        let waiting = tokio::spawn({
            let activity = activity.clone();
            async move { activity.idle().await }
        });
        tokio::time::sleep(IDLE / 2).await;
        drop(running);
        let ended = Instant::now();
        waiting.await.expect("idle");
        let rested = ended.elapsed();
        assert!(rested >= IDLE - Duration::from_millis(2) && rested <= IDLE + Duration::from_millis(2), "{rested:?}");
    }

    #[tokio::test]
    async fn bytes_belong_to_headers_between_requests_of_http_1() {
        let activity = Activity::opened();
        assert_eq!(activity.next(), Some(0));
        let running = activity.begin(http::Version::HTTP_11);
        assert_eq!(activity.next(), None);
        drop(running);
        assert_eq!(activity.next(), Some(1));
        activity.upgrade();
        assert_eq!(activity.next(), None);
        let shared = Activity::opened();
        drop(shared.begin(http::Version::HTTP_2));
        assert_eq!(shared.next(), None, "answers to pings");
    }
}
