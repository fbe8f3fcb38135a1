//! What holds for every resource that is kept, from its making to its end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::super::session::{Answer, Server, Session};
use super::{JSON, Known, Row, expected, invalid, is, merge, refused, says, shown, text};

pub const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const PATIENCE: Duration = Duration::from_secs(10);
/// Resources whose delete answers with the object that is gone, as upstream's OpenAPI document has it; the others answer with a Status.
const RETURNED: &[&str] = &[
    "csidrivers.storage.k8s.io",
    "csinodes.storage.k8s.io",
    "deviceclasses.resource.k8s.io",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "resourceclaims.resource.k8s.io",
    "resourceclaimtemplates.resource.k8s.io",
    "resourcequotas",
    "resourceslices.resource.k8s.io",
    "serviceaccounts",
    "services",
    "storageclasses.storage.k8s.io",
    "volumeattachments.storage.k8s.io",
    "volumeattributesclasses.storage.k8s.io",
];

/// One resource on its way.
pub struct Life<'a> {
    pub session: &'a mut Session,
    pub row: &'a Row,
    pub known: &'a Known,
    /// `plural.group`.
    pub resource: String,
    pub name: String,
    /// The path of the object.
    pub own: String,
    /// Who owns a label that the manager `first` has put there.
    pub labeller: &'static str,
    /// A second one, made by apply, and its path.
    pub other: Value,
    pub other_own: String,
}

/// All of it.
pub async fn whole(server: &Server, session: &mut Session, row: &Row, known: &Known) -> Result<()> {
    let name = row.object["metadata"]["name"].as_str().context("a name")?.to_owned();
    let plural = row.at.rsplit('/').next().unwrap_or_default();
    let resource = if known.group.is_empty() { plural.to_owned() } else { format!("{plural}.{}", known.group) };
    let mut other = row.object.clone();
    merge(&mut other, row.other.as_ref().unwrap_or(&json!({"metadata": {"name": "other"}})));
    merge(
        &mut other,
        &json!({"apiVersion": known.group_version, "kind": known.kind, "metadata": {"labels": {"part": "golden"}}}),
    );
    let other_own = format!("{}/{}", row.at, other["metadata"]["name"].as_str().unwrap_or_default());
    let own = format!("{}/{name}", row.at);
    let before = session.get(&row.at).await?.json()["metadata"]["resourceVersion"].clone();
    let mut life = Life { session, row, known, resource, name, own, labeller: "first", other, other_own };
    life.made().await.context("making it")?;
    let at = life.own.clone();
    life.settled(&at).await?;
    refused(life.session, row, known, "wrong").await?;
    life.replaced().await.context("replacing it")?;
    life.patched().await.context("patching it")?;
    life.applied().await.context("applying it")?;
    shown::all(&mut life).await.context("showing it")?;
    life.status().await.context("its status")?;
    life.below().await?;
    life.ended().await.context("deleting it")?;
    life.collected().await.context("deleting the collection")?;
    let from = before.as_str().context("the list had no version")?;
    let watching = watched(server, &life, from);
    tokio::time::timeout(PATIENCE, watching).await.context("the watch does not end")?.context("watching it")
}

impl Life<'_> {
    pub async fn patch(&mut self, path: &str, media: &str, body: &Value) -> Result<Answer> {
        self.session.ask(Method::PATCH, path, media, Bytes::from(body.to_string())).await
    }

    async fn delete(&mut self, path: &str, options: &Value) -> Result<Answer> {
        self.session.ask(Method::DELETE, path, JSON, Bytes::from(options.to_string())).await
    }

    async fn made(&mut self) -> Result<()> {
        let (at, body) = (&self.row.at, Bytes::from(self.row.object.to_string()));
        is(&self.session.ask(Method::POST, &format!("{at}?dryRun=All"), JSON, body.clone()).await?, 201, "a dry run")?;
        is(&self.session.get(&self.own).await?, 404, "after a dry run")?;
        let made = self.session.ask(Method::POST, &format!("{at}?fieldManager=maker"), JSON, body.clone()).await?;
        is(&made, 201, "creation")?;
        let object = made.json();
        ensure!(object["kind"] == self.known.kind.as_str(), "the kind of {object}");
        ensure!(object["apiVersion"] == self.known.group_version.as_str(), "the version of {object}");
        let metadata = &object["metadata"];
        for field in ["uid", "creationTimestamp", "resourceVersion"] {
            ensure!(metadata[field].is_string(), "{field} in {metadata}");
        }
        let managed = &metadata["managedFields"];
        ensure!(managed.is_null() || managed[0]["manager"] == "maker", "managed by {managed}");
        if managed.is_null() {
            // Of what was made with nothing to own, ownership begins with the first apply.
            self.labeller = "before-first-apply";
        }
        expected(&object, &self.row.expect)?;
        let again = self.session.ask(Method::POST, at, JSON, body).await?;
        says(&again, 409, &format!("{} \"{}\" already exists", self.resource, self.name))?;
        let missing = self.session.get(&format!("{at}/missing")).await?;
        says(&missing, 404, &format!("{} \"missing\" not found", self.resource))
    }

    /// Waits until the server's own controllers have seen it.
    async fn settled(&mut self, own: &str) -> Result<()> {
        let Some(pointer) = &self.row.settled else { return Ok(()) };
        let deadline = Instant::now() + PATIENCE;
        while self.session.get(own).await?.json().pointer(pointer).is_none() {
            ensure!(Instant::now() < deadline, "{pointer} does not come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn replaced(&mut self) -> Result<()> {
        let found = self.session.get(&self.own).await?;
        let same = self.session.ask(Method::PUT, &self.own, JSON, found.body.clone()).await?;
        is(&same, 200, "an update without a change")?;
        ensure!(version(&same) == version(&found), "an update without a change made a new version");
        let mut changed = found.json();
        changed["metadata"]["annotations"] = json!({"a": "b"});
        let body = Bytes::from(changed.to_string());
        let dry = self.session.ask(Method::PUT, &format!("{}?dryRun=All", self.own), JSON, body.clone()).await?;
        is(&dry, 200, "a dry run")?;
        ensure!(version(&self.session.get(&self.own).await?) == version(&found), "a dry run changed it");
        let answer = self.session.ask(Method::PUT, &self.own, JSON, body.clone()).await?;
        is(&answer, 200, "an update")?;
        ensure!(version(&answer) != version(&found), "a change made no new version");
        let late = self.session.ask(Method::PUT, &self.own, JSON, body.clone()).await?;
        says(
            &late,
            409,
            &format!(
                "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please apply your changes to the latest version and try again",
                self.resource, self.name
            ),
        )?;
        let elsewhere = self.session.ask(Method::PUT, &format!("{}/elsewhere", self.row.at), JSON, body).await?;
        says(
            &elsewhere,
            400,
            &format!("the name of the object ({}) does not match the name on the URL (elsewhere)", self.name),
        )
    }

    async fn patched(&mut self) -> Result<()> {
        let own = format!("{}?fieldManager=first", self.own);
        let labels = json!({"metadata": {"labels": {"golden": "yes", "part": "golden"}, "annotations": {"a": null}}});
        let merged = self.patch(&own, MERGE, &labels).await?;
        is(&merged, 200, "a merge patch")?;
        ensure!(merged.json().pointer("/metadata/annotations/a").is_none(), "the annotation is still there");
        let ops = json!([
            {"op": "test", "path": "/metadata/labels/golden", "value": "yes"},
            {"op": "add", "path": "/metadata/labels/json", "value": "patch"},
        ]);
        let patched = self.patch(&own, "application/json-patch+json", &ops).await?;
        is(&patched, 200, "a JSON patch")?;
        ensure!(patched.json()["metadata"]["labels"]["json"] == "patch", "{}", text(&patched));
        let ops = json!([{"op": "test", "path": "/metadata/labels/golden", "value": "no"}]);
        says(&self.patch(&own, "application/json-patch+json", &ops).await?, 422, "the server rejected our request")?;
        let replace = json!({"metadata": {"labels": {"$patch": "replace", "golden": "yes", "part": "golden"}}});
        let strategic = self.patch(&own, "application/strategic-merge-patch+json", &replace).await?;
        is(&strategic, 200, "a strategic merge patch")?;
        ensure!(strategic.json()["metadata"]["labels"].get("json").is_none(), "{}", text(&strategic));
        let unknown = json!({"metadata": {"labels": {"x": "y"}}, "noSuchField": 1});
        let strict = self.patch(&format!("{own}&fieldValidation=Strict"), MERGE, &unknown).await?;
        says(&strict, 422, "unknown field \"noSuchField\"")?;
        if let Some(fixed) = &self.row.fixed {
            let answer = self.patch(&own, MERGE, fixed).await?;
            invalid(&answer, &self.known.group_kind(), &self.name, &self.row.fixed_says).context("what is fixed")?;
        }
        Ok(())
    }

    async fn applied(&mut self) -> Result<()> {
        let (own, second) = (self.own.clone(), format!("{}?fieldManager=second", self.own));
        let mut config = json!({"apiVersion": self.known.group_version, "kind": self.known.kind,
            "metadata": {"name": self.name, "labels": {"golden": "no"}}});
        says(
            &self.patch(&own, APPLY, &config).await?,
            422,
            "fieldManager: Required value: is required for apply patch",
        )?;
        let lost = self.patch(&second, APPLY, &config).await?;
        says(&lost, 409, &format!("Apply failed with 1 conflict: conflict with \"{}\" using", self.labeller))?;
        let cause = &lost.json()["details"]["causes"][0];
        let field = (&cause["reason"], &cause["field"]);
        ensure!(field == (&json!("FieldManagerConflict"), &json!(".metadata.labels.golden")), "the cause {cause}");
        let forced = self.patch(&format!("{second}&force=true"), APPLY, &config).await?;
        is(&forced, 200, "with force")?;
        ensure!(forced.json()["metadata"]["labels"]["golden"] == "no", "{}", text(&forced));
        config["metadata"]["labels"] = json!({});
        let without = self.patch(&second, APPLY, &config).await?;
        is(&without, 200, "an apply of nothing")?;
        let labels = &without.json()["metadata"]["labels"];
        ensure!(labels.get("golden").is_none() && labels["part"] == "golden", "labels {labels}");
        let (other, path) = (self.other.clone(), format!("{}?fieldManager=second", self.other_own));
        let made = self.patch(&path, APPLY, &other).await?;
        is(&made, 201, "an apply that makes it")?;
        let own = self.other_own.clone();
        self.settled(&own).await?;
        let found = self.session.get(&own).await?;
        let again = self.patch(&path, APPLY, &other).await?;
        is(&again, 200, "the same apply")?;
        ensure!(version(&again) == version(&found), "the same apply made a new version");
        let managed = &again.json()["metadata"]["managedFields"];
        ensure!(managed[0]["operation"] == "Apply" && managed[0]["manager"] == "second", "managed by {managed}");
        Ok(())
    }

    /// Status is changed below only, and nothing else there.
    async fn status(&mut self) -> Result<()> {
        let Some(status) = &self.row.status else {
            ensure!(!self.known.subresources.contains("status"), "the corpus has none");
            return Ok(());
        };
        let before = self.session.get(&self.own).await?;
        let path = format!("{}/status", self.own);
        let below = self.session.get(&path).await?;
        ensure!(below.json() == before.json(), "reading it: {}", text(&below));
        let change = json!({"status": status});
        let own = self.own.clone();
        let above = self.patch(&own, MERGE, &change).await?;
        is(&above, 200, "in an update of the object")?;
        ensure!(
            above.json()["status"] == before.json()["status"],
            "an update of the object changed it: {}",
            text(&above)
        );
        let changed = self.patch(&path, MERGE, &change).await?;
        is(&changed, 200, "a change")?;
        let changed = changed.json();
        ensure!(contains(&changed["status"], status), "{} lacks {status}", changed["status"]);
        for same in ["/spec", "/metadata/generation", "/metadata/labels"] {
            ensure!(changed.pointer(same) == before.json().pointer(same), "it changed {same}");
        }
        let managed = changed["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        ensure!(managed.iter().any(|m| m["subresource"] == "status"), "managed by {managed:?}");
        loop {
            let read = self.session.get(&path).await?;
            let again = self.session.ask(Method::PUT, &path, JSON, read.body.clone()).await?;
            if again.status == 409 && self.row.settled.is_some() {
                // The server's own controllers write it too.
                continue;
            }
            is(&again, 200, "a replacement by the same")?;
            ensure!(version(&again) == version(&read), "the same made a new version");
            return Ok(());
        }
    }

    /// The other subresources.
    async fn below(&mut self) -> Result<()> {
        for step in &self.row.steps {
            let path = if step.sub.is_empty() { self.own.clone() } else { format!("{}/{}", self.own, step.sub) };
            let media = step.media.as_deref().unwrap_or(if step.method == "PATCH" { MERGE } else { JSON });
            let body = if step.body.is_null() { Bytes::new() } else { Bytes::from(step.body.to_string()) };
            let what = format!("{} {}", step.method, step.sub);
            let answer = self.session.ask(step.method.parse()?, &path, media, body).await?;
            is(&answer, step.status, &what)?;
            expected(&answer.json(), &step.expect).with_context(|| what.clone())?;
            if !step.says.is_empty() {
                says(&answer, step.status, &step.says).context(what)?;
            }
        }
        for sub in self.known.subresources.iter().filter(|sub| *sub != "status") {
            let shown = self.row.steps.iter().any(|s| s.sub.split(['?', '/']).next() == Some(sub));
            ensure!(shown, "the corpus has nothing for {sub}");
        }
        Ok(())
    }

    async fn ended(&mut self) -> Result<()> {
        let own = self.own.clone();
        let uid = self.session.get(&own).await?.json()["metadata"]["uid"].clone();
        let pinned = self.delete(&own, &json!({"preconditions": {"uid": "other"}})).await?;
        says(
            &pinned,
            409,
            &format!(
                "the UID in the precondition (other) does not match the UID in record ({}). \
                 The object might have been deleted and then recreated",
                uid.as_str().unwrap_or_default()
            ),
        )?;
        is(&self.delete(&format!("{own}?dryRun=All"), &json!({})).await?, 200, "a dry run")?;
        let left = self.session.get(&own).await?;
        ensure!(
            left.status == 200 && left.json()["metadata"].get("deletionTimestamp").is_none(),
            "a dry run deleted it"
        );
        let gone = self.delete(&own, &json!({"gracePeriodSeconds": 0})).await?;
        is(&gone, 200, "a delete")?;
        let answer = gone.json();
        if self.finished(&own).await? && !RETURNED.contains(&self.resource.as_str()) {
            let (plural, details) = (self.row.at.rsplit('/').next().unwrap_or_default(), &answer["details"]);
            ensure!(answer["kind"] == "Status" && answer["status"] == "Success", "{answer}");
            ensure!(
                details["name"] == self.name.as_str() && details["kind"] == plural && details["uid"] == uid,
                "{answer}"
            );
        } else {
            ensure!(answer["kind"] == self.known.kind.as_str() && answer["metadata"]["uid"] == uid, "{answer}");
        }
        let missing = self.delete(&own, &json!({})).await?;
        says(&missing, 404, &format!("{} \"{}\" not found", self.resource, self.name))
    }

    /// Whether a deleted object is gone; if not, what controllers would finish is finished.
    async fn finished(&mut self, own: &str) -> Result<bool> {
        let found = self.session.get(own).await?;
        if found.status == 404 {
            return Ok(true);
        }
        ensure!(found.json()["metadata"]["deletionTimestamp"].is_string(), "it is still there: {}", text(&found));
        if found.json()["metadata"]["finalizers"].is_array() {
            is(&self.patch(own, MERGE, &json!({"metadata": {"finalizers": null}})).await?, 200, "its finalizers")?;
        }
        if self.known.subresources.contains("finalize") {
            let mut object = found.json();
            object["spec"] = json!({});
            let body = Bytes::from(object.to_string());
            is(&self.session.ask(Method::PUT, &format!("{own}/finalize"), JSON, body).await?, 200, "its end")?;
        }
        is(&self.session.get(own).await?, 404, "when everything is finished")?;
        Ok(false)
    }

    async fn collected(&mut self) -> Result<()> {
        let (at, other) = (format!("{}?labelSelector=part%3Dgolden", self.row.at), self.other_own.clone());
        if !self.known.can("deletecollection") {
            is(&self.delete(&at, &json!({})).await?, 405, "without the verb")?;
            is(&self.delete(&other, &json!({})).await?, 200, "one by one")?;
            return self.finished(&other).await.map(drop);
        }
        is(&self.delete(&format!("{at}&dryRun=All"), &json!({})).await?, 200, "a dry run")?;
        is(&self.session.get(&other).await?, 200, "after a dry run")?;
        let answer = self.delete(&at, &json!({"gracePeriodSeconds": 0})).await?;
        is(&answer, 200, "all")?;
        let list = answer.json();
        ensure!(list["kind"] == format!("{}List", self.known.kind), "the kind of {list}");
        ensure!(list["items"][0]["metadata"]["name"] == self.other["metadata"]["name"], "{list}");
        self.finished(&other).await.map(drop)
    }
}

pub fn version(answer: &Answer) -> Value {
    answer.json()["metadata"]["resourceVersion"].clone()
}

/// Whether everything of `part` is there.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|part| whole.iter().any(|whole| contains(whole, part)))
        }
        _ => whole == part,
    }
}

/// A watch from before it was made tells its life in order.
async fn watched(server: &Server, life: &Life<'_>, from: &str) -> Result<()> {
    let selector = format!("fieldSelector=metadata.name%3D{}", life.name);
    let path = format!("{}?watch=true&resourceVersion={from}&{selector}", life.row.at);
    let mut watcher = server.open().await?;
    let answer = watcher.send(Method::GET, &path, &[], Bytes::new()).await?;
    ensure!(answer.status() == 200, "{}", answer.status());
    let (mut events, mut rest, mut last) = (answer.into_body(), Vec::new(), 0);
    let mut seen: Vec<String> = Vec::new();
    while seen.last().is_none_or(|kind| kind != "DELETED") {
        let frame = events.frame().await.context("it ended")??;
        rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let event: Value = serde_json::from_slice(&rest.drain(..=end).collect::<Vec<u8>>())?;
            let object = &event["object"];
            ensure!(
                object["kind"] == life.known.kind.as_str() && object["metadata"]["name"] == life.name.as_str(),
                "{event}"
            );
            let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse()?;
            ensure!(version > last, "version {version} after {last}");
            last = version;
            seen.push(event["type"].as_str().unwrap_or_default().to_owned());
        }
    }
    let between = &seen[1..seen.len() - 1];
    ensure!(seen[0] == "ADDED" && !between.is_empty() && between.iter().all(|kind| kind == "MODIFIED"), "{seen:?}");
    Ok(())
}
