//! The audit log of a busy server: set aside when it has grown, under upstream's names, with no event lost; old files go by number and by age.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::session::Session;
use crate::bench::stack::Stack;

/// What is written to one namespace, with what was sent.
pub const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Request, verbs: [create], namespaces: [default]}
- {level: None}
";
/// The server of this check.
pub const ARGUMENTS: &[&str] =
    &["--audit-policy-file={folder}/audit.yaml", "--audit-log-path={folder}/log/audit.log", "--audit-log-maxsize=1"];
const CLIENTS: usize = 4;
const EACH: usize = 40;
/// Bytes of one object: all of them fill several files of one megabyte.
const SIZE: usize = 40_000;
const MEGABYTE: u64 = 1 << 20;
const OLD: &str = "audit-2020-01-01T00-00-00.000.log";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FOREIGN: &str = "audit-notes.log";

pub async fn run(mut stack: Stack) -> Result<()> {
    let folder = stack.path("log");
    let sent = flood(&stack).await?;
    // What is still on its way to the log is there when the server has ended.
    stop(&mut stack)?;
    let names = backups(&folder)?;
    let mut found = BTreeSet::new();
    for name in names.iter().map(String::as_str).chain(["audit.log"]) {
        let text = fs::read_to_string(folder.join(name))?;
        ensure!(text.len() as u64 <= MEGABYTE, "{name} has {} bytes", text.len());
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).with_context(|| format!("{name}: {line:.200}"))?;
            let new = found.insert(event["requestObject"]["metadata"]["name"].as_str().unwrap_or_default().to_owned());
            ensure!(new, "{name}: an event is there twice");
        }
    }
    ensure!(found == sent, "{} events of {} are in the log", found.len(), sent.len());
    println!("  {} events in {} files", found.len(), names.len() + 1);
    ensure!(names.len() >= CLIENTS * EACH * SIZE / MEGABYTE as usize, "only {names:?}");

    // By number. The log goes on where it ended, and other people's files stay.
    let before = fs::read(folder.join("audit.log"))?;
    fs::write(folder.join(FOREIGN), "mine")?;
    start(&mut stack, &["--audit-log-maxbackup=2"]).await?;
    ensure!(backups(&folder)? == names[names.len() - 2..], "two old files are kept: {:?}", backups(&folder)?);
    ensure!(fs::read(folder.join("audit.log"))? == before, "the log goes on where it ended");
    flood(&stack).await?;
    let later = backups(&folder)?;
    ensure!(later.len() == 2 && later.iter().all(|name| *name > names[names.len() - 1]), "the two newest: {later:?}");
    ensure!(folder.join(FOREIGN).exists(), "a file that is no log is gone");

    // By age, and in the other format.
    fs::write(folder.join(OLD), "")?;
    stop(&mut stack)?;
    start(&mut stack, &["--audit-log-maxage=1", "--audit-log-format=legacy"]).await?;
    ensure!(backups(&folder)? == later, "what is older than a day goes, and nothing else: {:?}", backups(&folder)?);
    let mut session = Session::open(stack.api_address(), &stack.tls_of("root", &["system:masters"])?).await?;
    session.create(MAPS, &json!({"metadata": {"name": "last"}})).await?;
    stop(&mut stack)?;
    let text = fs::read_to_string(folder.join("audit.log"))?;
    let line = text.lines().last().unwrap_or_default();
    for part in [
        " AUDIT: id=\"",
        " stage=\"ResponseComplete\" ip=\"127.0.0.1\" method=\"create\" user=\"root\" ",
        " as=\"<self>\" asgroups=\"<lookup>\" ",
        " namespace=\"default\" uri=\"/api/v1/namespaces/default/configmaps\" response=\"201\"",
    ] {
        ensure!(line.contains(part), "the line {line} has no {part}");
    }
    Ok(())
}

/// Several clients at once; the names of what they have sent.
async fn flood(stack: &Stack) -> Result<BTreeSet<String>> {
    let tls = stack.tls_of("root", &["system:masters"])?;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let mut session = Session::open(stack.api_address(), &tls).await?;
        clients.spawn(async move {
            let mut names = Vec::new();
            for i in 0..EACH {
                let name = format!("m-{client}-{i}");
                let map = json!({"metadata": {"name": name}, "data": {"text": "x".repeat(SIZE)}});
                let path = format!("{MAPS}?dryRun=All");
                let answer = session.ask(Method::POST, &path, "application/json", map.to_string().into()).await?;
                ensure!(answer.status == 201, "{}", answer.json());
                names.push(name);
            }
            Ok(names)
        });
    }
    let names: Result<Vec<Vec<String>>> = clients.join_all().await.into_iter().collect();
    Ok(names?.into_iter().flatten().collect())
}

/// The old files, oldest first; every name is one that upstream gives.
fn backups(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == "audit.log" || name == FOREIGN {
            continue;
        }
        let pattern = "audit-0000-00-00T00-00-00.000.log";
        let fits = |(p, c): (char, char)| if p == '0' { c.is_ascii_digit() } else { p == c };
        ensure!(
            name.len() == pattern.len() && pattern.chars().zip(name.chars()).all(fits),
            "an old log is called {name}"
        );
        names.push(name);
    }
    names.sort();
    Ok(names)
}

fn stop(stack: &mut Stack) -> Result<()> {
    let ended = tokio::task::block_in_place(|| stack.stop_api())?;
    ensure!(ended.success(), "the API server did not end well: {ended}");
    Ok(())
}

async fn start(stack: &mut Stack, more: &[&str]) -> Result<()> {
    stack.api_arguments().extend(more.iter().map(|argument| (*argument).to_owned()));
    stack.run_api().await
}
