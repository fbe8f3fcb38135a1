//! Put throughput and latency of any etcd v3 server: `bench http://127.0.0.1:2379 [clients] [seconds] [value bytes]`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::{PutRequest, RangeRequest};
use tonic::transport::Channel;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn argument(place: usize, default: usize) -> usize {
    std::env::args().nth(place).and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn client(
    mut kv: KvClient<Channel>,
    id: usize,
    bytes: usize,
    until: Instant,
    read: bool,
) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    let value = bytes::Bytes::from(vec![b'v'; bytes]);
    let mut turn = 0;
    while Instant::now() < until {
        let start = Instant::now();
        let key = bytes::Bytes::from(format!("/bench/{id:04}/{:06}", turn % 1000));
        if read {
            kv.range(RangeRequest { key, ..Default::default() }).await?;
        } else {
            kv.put(PutRequest { key, value: value.clone(), ..Default::default() }).await?;
        }
        times.push(start.elapsed());
        turn += 1;
    }
    Ok(times)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:2379".into());
    let (clients, seconds, bytes) = (argument(2, 1), argument(3, 5), argument(4, 1024));
    for read in [false, true] {
        let all = Arc::new(Mutex::new(Vec::new()));
        let start = Instant::now();
        let until = start + Duration::from_secs(seconds as u64);
        let mut tasks = tokio::task::JoinSet::new();
        // A few connections shared by all clients, as an API server does it.
        let mut channels = Vec::new();
        for _ in 0..clients.min(8) {
            channels.push(Channel::from_shared(url.clone())?.connect().await?);
        }
        for id in 0..clients {
            let (kv, all) = (KvClient::new(channels[id % channels.len()].clone()), all.clone());
            tasks.spawn(async move {
                let times = client(kv, id, bytes, until, read).await?;
                all.lock().extend(times);
                Ok::<(), Failure>(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        let mut times = std::mem::take(&mut *all.lock());
        times.sort();
        let rate = times.len() as f64 / start.elapsed().as_secs_f64();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
        let what = if read { "range" } else { "put" };
        println!(
            "{what}: {clients} clients, {rate:.0}/s, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    Ok(())
}
