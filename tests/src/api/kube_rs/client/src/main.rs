//! The kube-rs client's typed calls over every API group: what it sends and what it makes of the answers.
//!
//!     kube-rs-check URL CA CERTIFICATE KEY CORPUS
//!
//! The corpus is the folder of golden objects. An answer that does not fit the client's types is an error of its own.

mod kinds;
mod life;
mod pods;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::Discovery;
use kube::{Api, Client, Config};
use serde_json::{Value, json};

pub const NAMESPACE: &str = "default";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, ca, certificate, key, corpus] = arguments.as_slice() else {
        anyhow::bail!("URL CA CERTIFICATE KEY CORPUS")
    };
    let client = connect(url, ca, certificate, key).await?;
    let corpus = read(corpus)?;
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
    // Whoever was here before has made it.
    let _ = Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE).create(&Default::default(), &account).await;
    let (kinds, mut wrong) = kinds::all(&client, &corpus).await;
    let special = [
        ("pods", pods::run(&client).await),
        ("watcher", pods::watched(&client).await),
        ("discovery", discovered(&client).await),
    ];
    wrong.extend(special.into_iter().filter_map(|(name, result)| Some(format!("{name}: {:#}", result.err()?))));
    let version = client.apiserver_version().await?;
    println!("  {kinds} typed kinds of {} resources, of a server of {}.{}", corpus.len(), version.major, version.minor);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

async fn connect(url: &str, ca: &str, certificate: &str, key: &str) -> Result<Client> {
    let config: Kubeconfig = serde_json::from_value(json!({
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": NAMESPACE}}],
        "clusters": [{"name": "x", "cluster": {"server": url, "certificate-authority": ca}}],
        "users": [{"name": "x", "user": {"client-certificate": certificate, "client-key": key}}],
    }))?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The objects of the corpus by where they are made.
fn read(folder: &str) -> Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let rows: Vec<Value> = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let named = |row: Value| Some((row["at"].as_str()?.to_owned(), row["object"].clone()));
        all.extend(rows.into_iter().filter_map(named));
    }
    Ok(all)
}

/// Every group and resource that the server names is found, with what can be done to it.
async fn discovered(client: &Client) -> Result<()> {
    let found = Discovery::new(client.clone()).run_aggregated().await?;
    let one_by_one = Discovery::new(client.clone()).run().await?;
    for all in [&found, &one_by_one] {
        let apps = all.get("apps").context("the group apps")?;
        let kinds = apps.recommended_kind("Deployment").context("deployments")?;
        ensure!(kinds.0.plural == "deployments" && kinds.1.supports_operation("patch"), "{kinds:?}");
        ensure!(kinds.1.subresources.iter().any(|(r, _)| r.plural.ends_with("scale")), "{kinds:?}");
    }
    let groups = |d: &Discovery| d.groups().map(|g| g.name().to_owned()).collect::<Vec<_>>();
    let (mut a, mut b) = (groups(&found), groups(&one_by_one));
    a.sort();
    b.sort();
    ensure!(a == b && a.len() > 15, "{a:?} {b:?}");
    Ok(())
}
