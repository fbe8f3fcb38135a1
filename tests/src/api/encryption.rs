//! Encryption at rest: what the store's files hold, keys that change, and what happens when one is missing.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::json;

use super::session::Session;
use crate::bench::stack::Stack;

/// Secrets by one key. The keys are 32 bytes of one letter.
pub const FIRST: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox: {keys: [{name: one, secret: YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=}]}
  - identity: {}
";
/// Everything by another; the old one still reads.
const SECOND: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: ['*.*']
  providers:
  - aesgcm: {keys: [{name: two, secret: YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI=}]}
  - secretbox: {keys: [{name: one, secret: YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=}]}
  - identity: {}
";
/// Secrets by a key that nothing was written with; everything else stays as it is.
const THIRD: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aescbc: {keys: [{name: three, secret: Y2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2M=}]}
- resources: ['*.*']
  providers:
  - aesgcm: {keys: [{name: two, secret: YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI=}]}
  - identity: {}
";
/// By when a changed file counts.
const RELOAD: Duration = Duration::from_secs(10);
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub async fn run(mut stack: Stack) -> Result<()> {
    let (mut session, tls) = {
        let tls = stack.tls_of("root", &["system:masters"])?;
        (Session::open(stack.api_address(), &tls).await?, tls)
    };
    session.create(SECRETS, &json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}, "type": "marker.example.com/secret-in-the-clear"})).await?;
    session.create(MAPS, &json!({"metadata": {"name": "m"}, "data": {"k": "marker-of-a-map"}})).await?;
    let files = stack.store_folder();
    ensure!(
        holds(&files, b"marker-of-a-map")?,
        "the store's files do not show what is not encrypted: they prove nothing"
    );
    ensure!(!holds(&files, b"secret-in-the-clear")?, "the store's files show a secret");
    ensure!(holds(&files, b"k8s:enc:secretbox:v1:one:")?, "no value has the prefix");

    stack.write("encryption.yaml", SECOND)?;
    let one = format!("{SECRETS}/s");
    let found = session.get(&one).await?;
    ensure!(found.status == 200 && found.json()["data"]["k"] == "dg==", "{} {}", found.status, found.json());
    let version = |v: &serde_json::Value| v["metadata"]["resourceVersion"].clone();
    // The new file counts as soon as it is there: then an unchanged object of an old key is written anew.
    let (deadline, mut written) = (Instant::now() + RELOAD, session.get(&one).await?);
    while version(&written.json()) == version(&found.json()) {
        ensure!(Instant::now() < deadline, "the file is not read again");
        written = session.ask(Method::PUT, &one, "application/json", found.body.clone()).await?;
    }
    ensure!(holds(&files, b"k8s:enc:aesgcm:v1:two:")?, "no value has the new prefix");
    let still = session.ask(Method::PUT, &one, "application/json", written.body.clone()).await?;
    ensure!(version(&still.json()) == version(&written.json()), "it was written twice");
    let list = session.get(MAPS).await?.json();
    ensure!(
        list["items"].as_array().is_some_and(|l| l.iter().any(|m| m["data"]["k"] == "marker-of-a-map")),
        "plain text is still read"
    );

    again(&mut stack, THIRD).await?;
    session = Session::open(stack.api_address(), &tls).await?;
    let lost = session.get(&one).await?;
    ensure!(
        lost.status == 500 && lost.json()["message"].as_str().is_some_and(|m| m.contains("no matching prefix found")),
        "{}",
        lost.json()
    );
    session.create(SECRETS, &json!({"metadata": {"name": "t"}})).await?;
    listed_no_more(&mut session).await
}

/// One object that cannot be read is not passed over: a page says which, whatever needs the watch cache has to wait.
async fn listed_no_more(session: &mut Session) -> Result<()> {
    let page = session.get(&format!("{SECRETS}?limit=500")).await?;
    let key = r#"unable to transform key "/registry/secrets/default/s": no matching prefix found"#;
    let names_it = page.json()["message"].as_str().is_some_and(|m| m == format!("Internal error occurred: {key}"));
    ensure!(page.status == 500 && names_it, "a page: {} {}", page.status, page.json());
    for query in ["", "?watch=true", "?limit=500&labelSelector=a"] {
        let answer = session.get(&format!("{SECRETS}{query}")).await?;
        let waits = answer.json()["message"] == "storage is (re)initializing: secrets";
        ensure!(answer.status == 429 && waits, "{query}: {} {}", answer.status, answer.json());
    }
    ensure!(session.get(MAPS).await?.status == 200, "other resources");
    Ok(())
}

async fn again(stack: &mut Stack, configuration: &str) -> Result<()> {
    let ended = tokio::task::block_in_place(|| stack.stop_api())?;
    ensure!(ended.success(), "the API server did not end well: {ended}");
    stack.write("encryption.yaml", configuration)?;
    stack.run_api().await
}

/// Whether a file below the folder holds these bytes.
pub fn holds(folder: &Path, marker: &[u8]) -> Result<bool> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let found = if path.is_dir() {
            holds(&path, marker)?
        } else {
            fs::read(&path).unwrap_or_default().windows(marker.len()).any(|piece| piece == marker)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}
