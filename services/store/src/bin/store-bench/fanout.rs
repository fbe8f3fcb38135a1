//! One put, a thousand watchers: how long until each has heard of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::watch_client::WatchClient;
use store_api::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::Failure;
use crate::load::Figures;
use crate::target::Target;

/// The row's name.
pub const NAME: &str = "watch-fan-out";
const STREAMS: usize = 10;
const WATCHERS_PER_STREAM: usize = 100;
/// Between two puts, so that every fan-out starts on an idle server.
const PAUSE: Duration = Duration::from_millis(20);
const KEY: &[u8] = b"/fan-out";

/// Measures the time from a put's start to each watcher's event.
///
/// # Errors
/// The server refused something, or an event never came.
pub async fn run(target: &Target, time: Duration) -> Result<Figures, Failure> {
    let connections = target.streams(STREAMS + 1).await?;
    let (heard, mut events) = mpsc::unbounded_channel();
    let mut streams = Vec::new();
    for channel in &connections[1..] {
        streams.push(watch(channel, heard.clone()).await?);
    }
    let mut kv = KvClient::new(connections[0].clone());
    let times = Arc::new(Mutex::new(Vec::new()));
    let start = Instant::now();
    while start.elapsed() < time {
        let put = pb::PutRequest { key: KEY.into(), value: vec![b'v'; 256].into(), ..Default::default() };
        let sent = Instant::now();
        kv.put(put).await?;
        for _ in 0..STREAMS * WATCHERS_PER_STREAM {
            let Some(at) = tokio::time::timeout(Duration::from_secs(30), events.recv()).await? else { break };
            times.lock().push(Instant::duration_since(&at, sent));
        }
        tokio::time::sleep(PAUSE).await;
    }
    let took = start.elapsed();
    let times = std::mem::take(&mut *times.lock());
    Ok(Figures::new(format!("{NAME}, {} watchers", STREAMS * WATCHERS_PER_STREAM), times, took))
}

/// Opens one stream with its watchers; the result keeps it open.
async fn watch(
    channel: &Channel,
    heard: mpsc::UnboundedSender<Instant>,
) -> Result<mpsc::Sender<pb::WatchRequest>, Failure> {
    let (requests, receiver) = mpsc::channel(WATCHERS_PER_STREAM);
    for _ in 0..WATCHERS_PER_STREAM {
        let create = pb::WatchCreateRequest { key: KEY.into(), ..Default::default() };
        requests.send(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await?;
    }
    let mut responses = WatchClient::new(channel.clone()).watch(ReceiverStream::new(receiver)).await?.into_inner();
    for _ in 0..WATCHERS_PER_STREAM {
        let created = responses.message().await?.is_some_and(|response| response.created);
        if !created {
            return Err("a watch was not created".into());
        }
    }
    tokio::spawn(async move {
        while let Ok(Some(response)) = responses.message().await {
            let now = Instant::now();
            for _ in &response.events {
                if heard.send(now).is_err() {
                    return;
                }
            }
        }
    });
    Ok(requests)
}
