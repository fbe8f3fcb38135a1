//! What discovery says of every resource, in one document and in many, and by which fields a list may be selected: compared with the table of upstream's
//! surface.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::session::Session;
use crate::bench::stack::Stack;

/// What is on by default; its head says what the columns are.
const TABLE: &str = include_str!("../../../services/kube-apiserver/tests/surface.tsv");
const COLUMNS: [&str; 7] = ["kind", "scope", "verbs", "short names", "categories", "subresources", "singular name"];
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// By group and version and plural name, what [`COLUMNS`] name.
type Surface = BTreeMap<(String, String), [String; COLUMNS.len()]>;

pub async fn run(stack: Stack) -> Result<()> {
    let tls = stack.tls_of("root", &["system:masters"])?;
    let mut session = Session::open(stack.api_address(), &tls).await?;
    let wanted = wanted();
    let mut wrong = Vec::new();
    for (document, said) in
        [("aggregated", aggregated(&mut session).await?), ("legacy", legacy(&mut session, &wanted).await?)]
    {
        wrong.extend(differences(&wanted, &said).into_iter().map(|d| format!("{document} discovery: {d}")));
    }
    wrong.extend(selected(&mut session).await?);
    wrong.extend(negotiated(&mut session).await?);
    kept(&mut session).await?;
    refused(&mut session).await?;
    counted(&mut session).await?;
    println!("  {} resources, {} requests", wanted.len(), session.requests());
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Documents come as they are asked for.
async fn negotiated(session: &mut Session) -> Result<Vec<String>> {
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let table = [
        ("/api", "application/yaml", 200, "application/yaml"),
        ("/apis", PROTOBUF, 200, PROTOBUF),
        ("/apis/apps/v1", PROTOBUF, 200, PROTOBUF),
        ("/apis/apps/v1", "text/html", 406, "application/json"),
        ("/nothing", "application/json", 404, "text/plain; charset=utf-8"),
        ("/apis/nothing.io/v1/things", "application/json", 404, "text/plain; charset=utf-8"),
        ("/api/v1/nothing", "application/json", 404, "application/json"),
        ("/api/v1/pods?timeout=abc", "application/json", 400, "application/json"),
        ("/api/v1/pods?timeout=5s", "application/json", 200, "application/json"),
    ];
    let mut wrong = Vec::new();
    for (path, accept, status, media) in table {
        let headers = [("accept", accept), ("audit-id", "of the client")];
        let answer = session.ask_with(Method::GET, path, &headers, Bytes::new()).await?;
        let header = |name: &str| answer.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let got = (answer.status, header("content-type"), header("audit-id"));
        if got != (status, media, "of the client") {
            wrong.push(format!("{path} as {accept}: {got:?}"));
        }
    }
    Ok(wrong)
}

/// Who has a document is not sent it again.
async fn kept(session: &mut Session) -> Result<()> {
    for path in ["/api", "/apis"] {
        let first = session.ask_with(Method::GET, path, &[("accept", AGGREGATED)], Bytes::new()).await?;
        let header = |name: &str| first.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let (tag, kept) = (header("etag"), (header("cache-control"), header("vary")));
        ensure!(tag.len() == 130 && kept == ("public", "Accept"), "{path}: {tag:?}, {kept:?}");
        let headers = [("accept", AGGREGATED), ("if-none-match", tag)];
        let second = session.ask_with(Method::GET, path, &headers, Bytes::new()).await?;
        ensure!(second.status == 304 && second.body.is_empty(), "{path} once more: {}", second.status);
    }
    Ok(())
}

/// Who sends too much is told so, whenever they come to read it.
async fn refused(session: &mut Session) -> Result<()> {
    let body = Bytes::from(vec![b' '; 5 << 20]);
    let headers = [("content-type", "application/json")];
    let path = "/api/v1/namespaces/default/configmaps";
    let answer = session.ask_with(Method::POST, path, &headers, body).await?;
    let said = answer.json()["message"].clone();
    ensure!(
        answer.status == 413 && said == "Request entity too large: limit is 3145728",
        "5 MiB: {} {said}",
        answer.status
    );
    Ok(())
}

/// What upstream's dashboards and alerts look at.
const METRICS: &[&str] = &[
    "apiserver_audit_event_total",
    "apiserver_current_inflight_requests",
    "apiserver_request_duration_seconds_bucket",
    "apiserver_request_sli_duration_seconds_bucket",
    "apiserver_request_total",
    "apiserver_requested_deprecated_apis",
    "apiserver_resource_objects",
    "apiserver_response_sizes_bucket",
    "apiserver_storage_objects",
    "authenticated_user_requests",
    "authentication_attempts",
    "etcd_request_duration_seconds_bucket",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

async fn counted(session: &mut Session) -> Result<()> {
    let endpoints = session.get("/api/v1/endpoints").await?;
    let warned = endpoints.headers.get("warning").and_then(|v| v.to_str().ok()).unwrap_or_default();
    ensure!(warned.starts_with("299 - \"v1 Endpoints is deprecated in v1.33+"), "no warning: {warned:?}");
    session.get("/readyz").await?;
    let text = session.get("/metrics").await?.body;
    let text = String::from_utf8_lossy(&text);
    let shown = |name: &str| text.lines().any(|l| l.strip_prefix(name).is_some_and(|l| l.starts_with(['{', ' '])));
    let missing: Vec<_> = METRICS.iter().filter(|name| !shown(name)).collect();
    let slis = session.get("/metrics/slis").await?.body;
    let healthy = String::from_utf8_lossy(&slis).contains("kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 1");
    ensure!(missing.is_empty() && healthy, "no {missing:?}; the store's health is shown: {healthy}");
    Ok(())
}

/// The table's rows, each in its nine columns.
fn rows() -> impl Iterator<Item = [&'static str; 9]> {
    TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut cells = line.split('\t');
        std::array::from_fn(|_| cells.next().unwrap_or_default())
    })
}

fn wanted() -> Surface {
    let row = |[version, plural, kind, scope, verbs, short, categories, _, subs]: [&str; 9]| {
        let cells = [kind, scope, verbs, short, categories, subs].map(str::to_owned);
        let [kind, scope, verbs, short, categories, subs] = cells;
        let singular = kind.to_lowercase();
        ((version.to_owned(), plural.to_owned()), [kind, scope, verbs, short, categories, subs, singular])
    };
    rows().map(row).collect()
}

fn differences(wanted: &Surface, said: &Surface) -> Vec<String> {
    let keys: BTreeSet<_> = wanted.keys().chain(said.keys()).collect();
    let mut found = Vec::new();
    for key @ (version, plural) in keys {
        match (wanted.get(key), said.get(key)) {
            (Some(wanted), Some(said)) => {
                let cells = COLUMNS.iter().zip(wanted.iter().zip(said)).filter(|(_, (wanted, said))| wanted != said);
                found.extend(cells.map(|(column, (wanted, said))| {
                    format!("{version} {plural}: the {column} are {said:?}, not {wanted:?}")
                }));
            }
            (None, _) => found.push(format!("{version} {plural} is too much")),
            (_, None) => found.push(format!("{version} {plural} is missing")),
        }
    }
    found
}

/// What the two documents for all groups say.
async fn aggregated(session: &mut Session) -> Result<Surface> {
    let mut surface = Surface::new();
    for path in ["/api", "/apis"] {
        let answer = session.ask_with(Method::GET, path, &[("accept", AGGREGATED)], Bytes::new()).await?;
        let document = answer.json();
        ensure!(document["kind"] == "APIGroupDiscoveryList", "{path} is {document}");
        for group in list(&document["items"]) {
            let name = text(&group["metadata"]["name"]);
            for version in list(&group["versions"]) {
                let version_name = text(&version["version"]);
                ensure!(version["freshness"] == "Current", "{name}/{version_name} is {}", version["freshness"]);
                for resource in list(&version["resources"]) {
                    let row = aggregated_row(resource, name, version_name);
                    surface.insert((joined(name, version_name), text(&resource["resource"]).to_owned()), row);
                }
            }
        }
    }
    Ok(surface)
}

fn aggregated_row(resource: &Value, group: &str, version: &str) -> [String; COLUMNS.len()] {
    let kind = |of: &Value| {
        let [its_group, its_version, kind] = ["group", "version", "kind"].map(|key| text(&of["responseKind"][key]));
        kind_of((its_group, its_version), (group, version), kind)
    };
    let sub = |s: &Value| format!("{}:{}:{}", text(&s["subresource"]), kind(s), letters(&s["verbs"]));
    [
        kind(resource),
        text(&resource["scope"]).to_lowercase(),
        letters(&resource["verbs"]),
        words(&resource["shortNames"]),
        words(&resource["categories"]),
        sorted(list(&resource["subresources"]).iter().map(sub)),
        text(&resource["singularResource"]).to_owned(),
    ]
}

/// What the document of each version says, which groups point to.
async fn legacy(session: &mut Session, wanted: &Surface) -> Result<Surface> {
    let mut surface = Surface::new();
    let mut versions = vec!["v1".to_owned()];
    for group in list(&session.get("/apis").await?.json()["groups"]) {
        versions.extend(list(&group["versions"]).iter().map(|v| text(&v["groupVersion"]).to_owned()));
        let alone = session.get(&format!("/apis/{}", text(&group["name"]))).await?.json();
        ensure!(alone["versions"] == group["versions"], "two answers for {}", group["name"]);
    }
    let known: BTreeSet<&String> = wanted.keys().map(|(version, _)| version).collect();
    ensure!(versions.iter().collect::<BTreeSet<_>>() == known, "the versions {versions:?}");
    for version in versions {
        let document = session.get(&place(&version)).await?.json();
        ensure!(document["groupVersion"] == version.as_str(), "{version}: {document}");
        let (all, mut subs) = (list(&document["resources"]), BTreeMap::<&str, Vec<String>>::new());
        let (group, number) = version.rsplit_once('/').unwrap_or(("", &version));
        let kind = |of: &Value| {
            let [its_group, its_version] = ["group", "version"].map(|key| of[key].as_str());
            kind_of((its_group.unwrap_or(group), its_version.unwrap_or(number)), (group, number), text(&of["kind"]))
        };
        for resource in all {
            if let Some((plural, sub)) = text(&resource["name"]).split_once('/') {
                let line = format!("{sub}:{}:{}", kind(resource), letters(&resource["verbs"]));
                subs.entry(plural).or_default().push(line);
            }
        }
        for resource in all.iter().filter(|r| !text(&r["name"]).contains('/')) {
            let plural = text(&resource["name"]);
            let scope = if resource["namespaced"] == true { "namespaced" } else { "cluster" };
            let row = [
                kind(resource),
                scope.to_owned(),
                letters(&resource["verbs"]),
                words(&resource["shortNames"]),
                words(&resource["categories"]),
                sorted(subs.remove(plural).unwrap_or_default().into_iter()),
                text(&resource["singularName"]).to_owned(),
            ];
            surface.insert((version.clone(), plural.to_owned()), row);
        }
        ensure!(subs.is_empty(), "{version}: subresources of nothing: {subs:?}");
    }
    Ok(surface)
}

/// Lists by every field that there is, and by one that there is not.
async fn selected(session: &mut Session) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for [version, plural, _, scope, verbs, _, _, fields, _] in rows().filter(|row| row[4].contains('l')) {
        let own = ["metadata.name"].into_iter().chain((scope == "namespaced").then_some("metadata.namespace"));
        // A list of component statuses is made up on the spot.
        let wanted = own.chain(fields.split(',').filter(|f| !f.is_empty())).map(|field| (field, 200));
        let none = verbs.contains('w').then_some(("spec.nothing", 400));
        for (field, status) in wanted.chain(none) {
            let path = format!("{}/{plural}?fieldSelector={field}%3D{}", place(version), value(field));
            let answer = session.get(&path).await.context("a list")?;
            if answer.status != status {
                wrong.push(format!("GET {path}: {}, not {status}: {}", answer.status, answer.json()["message"]));
            }
        }
    }
    Ok(wrong)
}

/// Something that the field's type has.
fn value(field: &str) -> &'static str {
    if field.ends_with("unschedulable") || field.ends_with("hostNetwork") { "true" } else { "0" }
}

fn place(version: &str) -> String {
    if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") }
}

fn joined(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// A kind, with its group and version if they are not those of the resource.
fn kind_of(its: (&str, &str), own: (&str, &str), kind: &str) -> String {
    if its == own { kind.to_owned() } else { format!("{}.{kind}", joined(its.0, its.1)) }
}

fn letters(verbs: &Value) -> String {
    let letter = |verb: &Value| match text(verb) {
        "deletecollection" => "D".to_owned(),
        other => other.chars().take(1).collect(),
    };
    let mut letters: Vec<String> = list(verbs).iter().map(letter).collect();
    letters.sort_unstable();
    letters.concat()
}

fn words(value: &Value) -> String {
    list(value).iter().map(text).collect::<Vec<_>>().join(",")
}

fn sorted(parts: impl Iterator<Item = String>) -> String {
    let mut parts: Vec<String> = parts.collect();
    parts.sort_unstable();
    parts.join(",")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_names_its_row_and_column() {
        let wanted = wanted();
        assert!(differences(&wanted, &wanted).is_empty());
        let mut said = wanted.clone();
        let scale = json!({"resource": "deployments", "singularResource": "deployment", "scope": "Namespaced",
            "responseKind": {"group": "apps", "version": "v1", "kind": "Deployment"}, "verbs": ["get", "list"],
            "subresources": [{"subresource": "scale", "verbs": ["update"],
                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}]});
        said.insert(("apps/v1".into(), "deployments".into()), aggregated_row(&scale, "apps", "v1"));
        said.remove(&("v1".to_owned(), "pods".to_owned()));
        let found = differences(&wanted, &said);
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(found.iter().any(|d| d.contains("the subresources are \"scale:autoscaling/v1.Scale:u\", not")));
        assert!(found.contains(&"v1 pods is missing".to_owned()));
    }
}
