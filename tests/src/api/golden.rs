//! The golden corpus: for each resource a minimal object, what the server makes of it, and a wrong one with what the server says of it, beside the
//! rules that hold for all: what exists already, what does not, dry runs, tables, patches, deletion. `golden.json` has the objects.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::session::{Answer, Session};
use crate::bench::stack::Stack;

const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
/// What every server has whether it is asked for or not, or which nobody may make.
const NOT_MADE: &[&str] = &[
    "apiservices",
    "bindings",
    "certificatesigningrequests",
    "componentstatuses",
    "customresourcedefinitions",
    "ipaddresses",
    "resourceslices",
    "validatingadmissionpolicybindings",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// The collection.
    at: String,
    object: Value,
    /// Values that the answer has, by JSON pointer.
    expect: BTreeMap<String, Value>,
    /// What makes the object wrong: a merge patch.
    wrong: Option<Value>,
    /// A part of what is said then.
    #[serde(default)]
    says: String,
}

pub async fn run(stack: Stack) -> Result<()> {
    let rows: Vec<Row> = serde_json::from_str(include_str!("golden.json"))?;
    let mut session = Session::open(stack.api_address(), &stack.tls_of("root", &["system:masters"])?).await?;
    // No controller makes it here, and pods need it.
    session.create("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await?;
    let mut wrong = Vec::new();
    for row in &rows {
        if let Err(error) = one(&mut session, row).await {
            wrong.push(format!("{}: {error:#}", row.at));
        }
    }
    wrong.extend(left_out(&mut session, &rows).await?);
    println!("  {} resources", rows.len());
    ensure!(wrong.is_empty(), "{} are not as they should be:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

async fn one(session: &mut Session, row: &Row) -> Result<()> {
    let name = row.object["metadata"]["name"].as_str().context("a name")?;
    let own = format!("{}/{name}", row.at);
    let plural = row.at.rsplit('/').next().unwrap_or_default();
    let resource = match row.at.strip_prefix("/apis/").and_then(|rest| rest.split('/').next()) {
        Some(group) => format!("{plural}.{group}"),
        None => plural.to_owned(),
    };
    let post = |object: &Value| (Method::POST, row.at.clone(), Bytes::from(object.to_string()));
    // A dry run leaves nothing.
    let dry = session.ask(Method::POST, &format!("{}?dryRun=All", row.at), JSON, post(&row.object).2).await?;
    is(&dry, 201, "a dry run")?;
    is(&session.get(&own).await?, 404, "after a dry run")?;
    let (method, path, body) = post(&row.object);
    let made = session.ask(method, &path, JSON, body.clone()).await?;
    is(&made, 201, "creation")?;
    let object = made.json();
    for (pointer, want) in &row.expect {
        let got = object.pointer(pointer).unwrap_or(&Value::Null);
        ensure!(got == want, "{pointer} is {got}, not {want}");
    }
    let again = session.ask(Method::POST, &row.at, JSON, body).await?;
    says(&again, 409, &format!("{resource} \"{name}\" already exists"))?;
    says(&session.get(&format!("{}/missing", row.at)).await?, 404, &format!("{resource} \"missing\" not found"))?;
    if let Some(patch) = &row.wrong {
        let mut object = row.object.clone();
        object["metadata"]["name"] = json!("wrong");
        merge(&mut object, patch);
        let (method, path, body) = post(&object);
        let answer = session.ask(method, &path, JSON, body).await?;
        ensure!(matches!(answer.status, 403 | 422), "a wrong object is answered {}: {}", answer.status, text(&answer));
        says(&answer, answer.status, &row.says)?;
    }
    changes(session, &own, &row.at, name).await
}

/// Updates, patches, tables and the end of one object.
async fn changes(session: &mut Session, own: &str, at: &str, name: &str) -> Result<()> {
    let found = session.get(own).await?;
    let version = |answer: &Answer| answer.json()["metadata"]["resourceVersion"].clone();
    let same = session.ask(Method::PUT, own, JSON, found.body.clone()).await?;
    is(&same, 200, "an update without a change")?;
    ensure!(version(&same) == version(&found), "an update without a change made a new version");
    let patch = Bytes::from_static(br#"{"metadata":{"labels":{"golden":"yes"}}}"#);
    let patched = session.ask(Method::PATCH, own, "application/merge-patch+json", patch).await?;
    is(&patched, 200, "a merge patch")?;
    ensure!(version(&patched) != version(&found), "a change made no new version");
    let mut stale = found.json();
    stale["metadata"]["annotations"] = json!({"a": "b"});
    let late = session.ask(Method::PUT, own, JSON, Bytes::from(stale.to_string())).await?;
    says(&late, 409, "the object has been modified; please apply your changes to the latest version and try again")?;
    let table = session
        .ask_with(Method::GET, &format!("{at}?labelSelector=golden%3Dyes"), &[("accept", TABLE)], Bytes::new())
        .await?;
    is(&table, 200, "a table")?;
    let table = table.json();
    ensure!(
        table["kind"] == "Table" && table.pointer("/rows/0/object/metadata/name") == Some(&json!(name)),
        "the table: {table}"
    );
    let gone = session.ask(Method::DELETE, &format!("{own}?gracePeriodSeconds=0"), JSON, Bytes::new()).await?;
    is(&gone, 200, "deletion")?;
    let after = session.get(own).await?;
    // What controllers have to finish is still there, and says so.
    let ending = after.status == 200 && after.json()["metadata"]["deletionTimestamp"].is_string();
    ensure!(after.status == 404 || ending, "after deletion: {} {}", after.status, text(&after));
    Ok(())
}

/// Resources that discovery knows and the corpus does not.
async fn left_out(session: &mut Session, rows: &[Row]) -> Result<Vec<String>> {
    let groups = session.get("/apis").await?.json();
    let versions =
        groups["groups"].as_array().into_iter().flatten().flat_map(|g| g["versions"].as_array().into_iter().flatten());
    let mut paths: Vec<String> =
        versions.filter_map(|v| Some(format!("/apis/{}", v["groupVersion"].as_str()?))).collect();
    paths.push("/api/v1".into());
    let mut missing = Vec::new();
    for path in paths {
        let found = session.get(&path).await?.json();
        for resource in found["resources"].as_array().into_iter().flatten() {
            let name = resource["name"].as_str().unwrap_or_default();
            let storable = resource["verbs"].as_array().is_some_and(|v| v.iter().any(|verb| verb == "list"));
            let known = rows.iter().any(|r| r.at.starts_with(&path) && r.at.ends_with(&format!("/{name}")));
            // The same objects as those of the core group.
            let twin = path == "/apis/events.k8s.io/v1";
            if storable && !name.contains('/') && !known && !twin && !NOT_MADE.contains(&name) {
                missing.push(format!("{path} {name} is not in the corpus"));
            }
        }
    }
    Ok(missing)
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
