//! Encryption at rest by a key service: what the store's files hold, the service's key that changes, a service that is gone, and a key that it has forgotten.

mod service;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::Method;
use serde_json::{Value, json};

use super::encryption::holds;
use super::session::Session;
use crate::bench::stack::Stack;
use service::Service;

/// Plain text, until the service runs.
pub const PLAIN: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - identity: {}
";
/// By when a changed file counts, and by when a server that asks its key service now and then knows how that is.
const RELOAD: Duration = Duration::from_secs(10);
const NOTICED: Duration = Duration::from_secs(30);
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const HEALTH: &str = "/readyz/kms-providers";

pub async fn run(mut stack: Stack) -> Result<()> {
    let tls = stack.tls_of("root", &["system:masters"])?;
    let mut session = Session::open(stack.api_address(), &tls).await?;
    let socket = stack.path("kms.sock");
    let mut service = Service::start(&socket)?;
    let provider =
        format!("  - kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}', timeout: 3s}}\n", socket.display());
    stack.write("encryption.yaml", &PLAIN.replace("  - identity", &format!("{provider}  - identity")))?;
    let files = stack.store_folder();
    // One after the other, until the file has been read again.
    let (deadline, mut made) = (Instant::now() + RELOAD, 0);
    while !holds(&files, b"k8s:enc:kms:v2:vault:")? {
        ensure!(Instant::now() < deadline, "no value has the prefix of the key service");
        made += 1;
        session.create(SECRETS, &secret(&format!("first-{made}"), "early")).await?;
    }
    session.create(SECRETS, &secret("s", "marker-of-a-secret")).await?;
    session.create(MAPS, &json!({"metadata": {"name": "m"}, "data": {"k": "marker-of-a-map"}})).await?;
    ensure!(holds(&files, b"marker-of-a-map")?, "plain text in the files is not found: they prove nothing");
    ensure!(!holds(&files, b"marker-of-a-secret")?, "the store's files show a secret");
    ensure!(holds(&files, service.key_id().as_bytes())?, "no value names the service's key");
    ensure!(service.encrypted() == 1, "the service was asked to encrypt {} times", service.encrypted());
    ensure!(session.get(HEALTH).await?.status == 200, "a service that is well");

    // Gone: known seeds still read and write, and who asks for it is told.
    service.stop();
    let begun = Instant::now();
    until(&mut session, 500).await?;
    println!("  a key service that is gone was noticed after {:.1?}", begun.elapsed());
    ensure!(session.get("/readyz").await?.status == 500, "ready without its key service");
    session.create(SECRETS, &secret("without", "marker-without")).await?;
    ensure!(value(&mut session, "s").await? == "marker-of-a-secret", "read by a seed that is known");

    // Back, with another key: noticed, and what is written anew carries it.
    let first = service.key_id();
    service.rotate();
    service.restart()?;
    until(&mut session, 200).await?;
    let path = format!("{SECRETS}/s");
    let found = session.get(&path).await?;
    let written = session.ask(Method::PUT, &path, "application/json", found.body.clone()).await?;
    let version = |v: &Value| v["metadata"]["resourceVersion"].clone();
    ensure!(version(&written.json()) != version(&found.json()), "what the old key encrypted is not written anew");
    ensure!(holds(&files, service.key_id().as_bytes())?, "no value names the service's new key");

    // A new server knows no seed. It asks, and what the service no longer tells cannot be read.
    again(&mut stack).await?;
    session = Session::open(stack.api_address(), &tls).await?;
    for (name, marker) in [("s", "marker-of-a-secret"), ("without", "marker-without")] {
        ensure!(value(&mut session, name).await? == marker, "{name} after a restart");
    }
    ensure!(service.decrypted() >= 2, "two seeds were decrypted {} times", service.decrypted());
    service.forget(&first);
    again(&mut stack).await?;
    session = Session::open(stack.api_address(), &tls).await?;
    ensure!(value(&mut session, "s").await? == "marker-of-a-secret", "by the key that is left");
    let lost = session.get(&format!("{SECRETS}/without")).await?;
    let message = lost.json()["message"].as_str().unwrap_or_default().to_owned();
    ensure!(
        lost.status == 503 && message.contains("vault") && message.contains(service::FORGOTTEN),
        "{} {message}",
        lost.status
    );
    ensure!(!holds(&files, b"marker-without")?, "the store's files show a secret");
    Ok(())
}

fn secret(name: &str, text: &str) -> Value {
    json!({"metadata": {"name": name}, "stringData": {"k": "v"}, "type": format!("example.com/{text}")})
}

/// The marker in a secret.
async fn value(session: &mut Session, name: &str) -> Result<String> {
    let answer = session.get(&format!("{SECRETS}/{name}")).await?;
    ensure!(answer.status == 200, "{name}: {} {}", answer.status, answer.json());
    Ok(answer.json()["type"].as_str().unwrap_or_default().trim_start_matches("example.com/").to_owned())
}

/// Waits until the check of the key service answers so.
async fn until(session: &mut Session, status: u16) -> Result<()> {
    let deadline = Instant::now() + NOTICED;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    while session.get(HEALTH).await?.status != status {
        ensure!(Instant::now() < deadline, "{HEALTH} does not become {status}");
        tick.tick().await;
    }
    Ok(())
}

async fn again(stack: &mut Stack) -> Result<()> {
    let ended = tokio::task::block_in_place(|| stack.stop_api())?;
    ensure!(ended.success(), "the API server did not end well: {ended}");
    stack.run_api().await
}
