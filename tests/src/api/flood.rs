//! One user's flood does not starve another: both are of the same priority level, whose few seats the flood fills many times over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_rustls::rustls;

use super::session::Session;
use crate::bench::stack::Stack;

/// Requests of the flood that are under way at any time.
const CONNECTIONS: usize = 400;
/// Requests of the other user.
const POLITE: usize = 100;
/// The longest that one of them may take: many turns on a slow machine, but not the whole flood, which never ends.
const LONGEST: Duration = Duration::from_secs(5);
const PATH: &str = "/api/v1/namespaces/default/configmaps";

pub async fn run(stack: Stack) -> Result<()> {
    let address = stack.api_address();
    let mut admin = Session::open(address, &stack.tls_of("root", &["system:masters"])?).await?;
    let subject = |name: &str| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name});
    let binding = json!({"metadata": {"name": "edit"}, "subjects": [subject("flooder"), subject("polite")],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}});
    admin.create("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", &binding).await?;
    let mut polite = Session::open(address, &stack.tls_of("polite", &[])?).await?;
    while polite.get(PATH).await?.status != 200 {
        // The binding is on its way to the authorizer.
        tokio::task::yield_now().await;
    }
    let alone = politely(&mut polite, "alone").await?;
    let counts = Arc::new(Counts::default());
    let flood = pour(address, stack.tls_of("flooder", &[])?, counts.clone()).await?;
    // The flood is on when the first of it is refused.
    let begun = Instant::now();
    while counts.refused.load(Ordering::Relaxed) == 0 {
        ensure!(begun.elapsed() < Duration::from_secs(60), "no request of the flood is refused");
        tokio::task::yield_now().await;
    }
    let beside = politely(&mut polite, "beside").await?;
    let metrics = admin.get("/metrics").await.context("superusers are exempt")?;
    counts.stop.store(true, Ordering::Relaxed);
    flood.join_all().await.into_iter().collect::<Result<Vec<()>>>()?;
    let (served, refused) = (counts.served.load(Ordering::Relaxed), counts.refused.load(Ordering::Relaxed));
    println!(
        "  a write alone: {alone:.1?} at the 99th percentile; beside a flood ({served} served, {refused} refused): {beside:.1?}"
    );
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let refusals = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"global-default\",priority_level=\"global-default\",reason=\"queue-full\"}";
    ensure!(text.contains(refusals), "the metrics do not show {refusals}");
    ensure!(counts.marked.load(Ordering::Relaxed), "a refusal lacks Retry-After or the uids of schema and level");
    ensure!(beside < LONGEST, "a polite write took {beside:?}");
    Ok(())
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    served: AtomicU64,
    refused: AtomicU64,
    marked: AtomicBool,
}

/// Writes one after the other; none may be refused. The 99th percentile of their times.
async fn politely(session: &mut Session, name: &str) -> Result<Duration> {
    let mut times = Vec::with_capacity(POLITE);
    for i in 0..POLITE {
        let begun = Instant::now();
        session.create(PATH, &json!({"metadata": {"name": format!("{name}-{i}")}})).await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times.get(POLITE * 99 / 100).copied().context("no times")
}

async fn pour(address: SocketAddr, tls: Arc<rustls::ClientConfig>, counts: Arc<Counts>) -> Result<JoinSet<Result<()>>> {
    let mut sessions = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        sessions.push(Session::open(address, &tls).await?);
    }
    let mut flood = JoinSet::new();
    for mut session in sessions {
        let counts = counts.clone();
        flood.spawn(async move {
            let body = json!({"metadata": {"generateName": "flood-"}}).to_string();
            while !counts.stop.load(Ordering::Relaxed) {
                let answer = session.ask(Method::POST, PATH, "application/json", body.clone().into()).await?;
                match answer.status {
                    201 => counts.served.fetch_add(1, Ordering::Relaxed),
                    429 => {
                        let names =
                            ["retry-after", "x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"];
                        counts.marked.store(names.iter().all(|n| answer.headers.contains_key(*n)), Ordering::Relaxed);
                        counts.refused.fetch_add(1, Ordering::Relaxed)
                    }
                    other => anyhow::bail!("the flood is answered {other}: {}", String::from_utf8_lossy(&answer.body)),
                };
            }
            Ok(())
        });
    }
    Ok(flood)
}
