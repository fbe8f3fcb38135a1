//! The golden corpus: for each resource a small object, what the server makes of it, a wrong one with what is said of it, a change that is refused and
//! what lies below it, in one file per API group; beside them the rules that hold for all, in [`life`]. What is expected is what upstream documents, or
//! what its OpenAPI document and its clients know, and never a recording of this server.

mod life;
mod shown;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::session::{Answer, Server, Session};
use crate::bench::stack::Stack;

const JSON: &str = "application/json";
const FILES: &[&str] = &[
    include_str!("admissionregistration.json"),
    include_str!("apiextensions.json"),
    include_str!("apiregistration.json"),
    include_str!("apps.json"),
    include_str!("authentication.json"),
    include_str!("authorization.json"),
    include_str!("autoscaling.json"),
    include_str!("batch.json"),
    include_str!("certificates.json"),
    include_str!("coordination.json"),
    include_str!("core.json"),
    include_str!("discovery.json"),
    include_str!("events.json"),
    include_str!("flowcontrol.json"),
    include_str!("networking.json"),
    include_str!("node.json"),
    include_str!("policy.json"),
    include_str!("rbac.json"),
    include_str!("resource.json"),
    include_str!("scheduling.json"),
    include_str!("storage.json"),
];

/// A resource.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// The collection.
    at: String,
    /// What is made; null if nobody may make one.
    object: Value,
    /// Values that the answer has, by JSON pointer.
    expect: BTreeMap<String, Value>,
    /// How a create that makes nothing is answered.
    #[serde(default = "created")]
    answer: u16,
    /// What the server itself adds a moment later.
    settled: Option<String>,
    /// What makes the object wrong: a merge patch.
    wrong: Option<Value>,
    /// How that is answered.
    #[serde(default = "refused_as_invalid")]
    refused: u16,
    /// A part of what is said then.
    #[serde(default)]
    says: String,
    /// A merge patch of what may not change once it is there.
    fixed: Option<Value>,
    /// A part of what is said then.
    #[serde(default)]
    fixed_says: String,
    /// What a controller would write there.
    status: Option<Value>,
    /// What is asked of the object's subresources, in this order.
    #[serde(default)]
    steps: Vec<Step>,
    /// What makes the object another: a merge patch; a name if there is none.
    other: Option<Value>,
}

/// A request below the object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    method: String,
    /// The subresource with its query; the object itself if empty.
    sub: String,
    media: Option<String>,
    #[serde(default)]
    body: Value,
    #[serde(default = "fine")]
    status: u16,
    #[serde(default)]
    expect: BTreeMap<String, Value>,
    #[serde(default)]
    says: String,
}

fn created() -> u16 {
    201
}

fn refused_as_invalid() -> u16 {
    422
}

fn fine() -> u16 {
    200
}

/// What discovery says of a resource.
#[derive(Default)]
struct Known {
    group: String,
    group_version: String,
    kind: String,
    verbs: BTreeSet<String>,
    subresources: BTreeSet<String>,
}

impl Known {
    fn can(&self, verb: &str) -> bool {
        self.verbs.contains(verb)
    }

    /// As errors name it.
    fn group_kind(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }
}

pub async fn run(stack: Stack) -> Result<()> {
    let server = Server { address: stack.api_address(), tls: stack.tls_of("root", &["system:masters"])? };
    let mut session = server.open().await?;
    // No controller makes it here, and pods need it.
    session.create("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await?;
    let mut rows: Vec<Row> = Vec::new();
    for file in FILES {
        rows.extend(serde_json::from_str::<Vec<Row>>(file)?);
    }
    let mut surface = surface(&mut session).await?;
    let (mut wrong, mut requests) = (Vec::new(), 0);
    for row in &rows {
        let (path, plural) = place(&row.at);
        let Some(known) = surface.remove(&(path.to_owned(), plural.to_owned())) else {
            wrong.push(format!("{}: discovery does not know it", row.at));
            continue;
        };
        // A failed request may leave a connection that is no good.
        let mut session = server.open().await?;
        if let Err(error) = one(&server, &mut session, row, &known).await {
            wrong.push(format!("{}: {error:#}", row.at));
        }
        requests += session.requests();
    }
    wrong.extend(surface.keys().map(|(path, plural)| format!("{path} {plural} is not in the corpus")));
    println!("  {} resources, {requests} requests", rows.len());
    ensure!(wrong.is_empty(), "{} are not as they should be:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

async fn one(server: &Server, session: &mut Session, row: &Row, known: &Known) -> Result<()> {
    if row.object.is_null() {
        let list = session.get(&row.at).await?;
        is(&list, 200, "a list")?;
        expected(&list.json(), &row.expect)
    } else if known.can("get") {
        life::whole(server, session, row, known).await
    } else {
        asked(session, row, known).await
    }
}

/// A review, or whatever is made without being kept.
async fn asked(session: &mut Session, row: &Row, known: &Known) -> Result<()> {
    let answer = session.ask(Method::POST, &row.at, JSON, Bytes::from(row.object.to_string())).await?;
    is(&answer, row.answer, "creation")?;
    if row.answer == created() {
        ensure!(answer.json()["kind"] == known.kind.as_str(), "the kind of {}", text(&answer));
    }
    expected(&answer.json(), &row.expect)?;
    is(&session.get(&row.at).await?, 405, "a list of what is not kept")?;
    refused(session, row, known, "").await
}

/// What is wrong is answered 422, with everything that tools read.
async fn refused(session: &mut Session, row: &Row, known: &Known, name: &str) -> Result<()> {
    let Some(patch) = &row.wrong else { return Ok(()) };
    let mut object = row.object.clone();
    if !name.is_empty() {
        object["metadata"]["name"] = json!(name);
    }
    merge(&mut object, patch);
    let answer = session.ask(Method::POST, &row.at, JSON, Bytes::from(object.to_string())).await?;
    if row.refused != refused_as_invalid() {
        return says(&answer, row.refused, &row.says);
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    invalid(&answer, &known.group_kind(), name, &row.says).context("a wrong object")
}

/// A Status of reason Invalid whose causes and message say the same.
fn invalid(answer: &Answer, group_kind: &str, name: &str, part: &str) -> Result<()> {
    let status = answer.json();
    says(answer, 422, part)?;
    let message = status["message"].as_str().unwrap_or_default();
    ensure!(status["reason"] == "Invalid" && status["status"] == "Failure", "the reason of {status}");
    let start = format!("{group_kind} {name:?} is invalid: ");
    ensure!(message.starts_with(&start), "{message:?} does not start with {start:?}");
    let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
    ensure!(!causes.is_empty(), "no cause in {status}");
    for cause in &causes {
        let [reason, field, text] = ["reason", "field", "message"].map(|key| cause[key].as_str().unwrap_or_default());
        ensure!(reason.starts_with("FieldValue") && !field.is_empty(), "the cause {cause}");
        ensure!(message.contains(&format!("{field}: {text}")), "{message:?} lacks the cause {cause}");
    }
    Ok(())
}

/// The path of the group and version, and the resource.
fn place(at: &str) -> (&str, &str) {
    let parts = if at.starts_with("/api/") { 3 } else { 4 };
    let end = at.match_indices('/').nth(parts - 1).map_or(at.len(), |(i, _)| i);
    (&at[..end], at.rsplit('/').next().unwrap_or_default())
}

/// What discovery knows, by path and plural name.
async fn surface(session: &mut Session) -> Result<BTreeMap<(String, String), Known>> {
    let groups = session.get("/apis").await?.json();
    let mut paths = vec!["/api/v1".to_owned()];
    for version in groups["groups"].as_array().into_iter().flatten().flat_map(|g| g["versions"].as_array()).flatten() {
        paths.push(format!("/apis/{}", version["groupVersion"].as_str().unwrap_or_default()));
    }
    let mut surface: BTreeMap<(String, String), Known> = BTreeMap::new();
    for path in paths {
        let found = session.get(&path).await?.json();
        let group_version = found["groupVersion"].as_str().unwrap_or_default();
        for resource in found["resources"].as_array().into_iter().flatten() {
            let name = resource["name"].as_str().unwrap_or_default();
            let (plural, sub) = name.split_once('/').unwrap_or((name, ""));
            let known = surface.entry((path.clone(), plural.to_owned())).or_default();
            if !sub.is_empty() {
                known.subresources.insert(sub.to_owned());
                continue;
            }
            known.group_version = group_version.to_owned();
            known.group = group_version.rsplit_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default();
            known.kind = resource["kind"].as_str().unwrap_or_default().to_owned();
            known.verbs = resource["verbs"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
        }
    }
    Ok(surface)
}

fn expected(object: &Value, expect: &BTreeMap<String, Value>) -> Result<()> {
    for (pointer, want) in expect {
        let got = object.pointer(pointer).unwrap_or(&Value::Null);
        ensure!(got == want, "{pointer} is {got}, not {want}");
    }
    Ok(())
}

fn is(answer: &Answer, status: u16, what: &str) -> Result<()> {
    ensure!(answer.status == status, "{what}: {} {}", answer.status, text(answer));
    Ok(())
}

fn says(answer: &Answer, status: u16, part: &str) -> Result<()> {
    let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
    ensure!(
        answer.status == status && message.contains(part),
        "{} {message:?} instead of {status} {part:?}",
        answer.status
    );
    Ok(())
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).chars().take(600).collect()
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        match (value, target.as_object_mut()) {
            (Value::Null, Some(map)) => drop(map.remove(key)),
            _ => merge(&mut target[key], value),
        }
    }
}
