//! What requests come to: quotas under contention, owners that speak different versions, YAML as people write it, health check by check, what is recorded
//! of it all, and who may do without credentials.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_rustls::rustls;

use super::session::{Answer, Session};
use crate::bench::stack::Stack;

/// Nobody needs credentials for /livez, and for nothing else.
pub const AUTHENTICATION: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions: [{path: /livez}]
";
/// All of what quotas are made of and become, that secrets were touched, and nothing else.
pub const AUDIT: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: RequestResponse, verbs: [create], resources: [{resources: [resourcequotas]}]}
- {level: Metadata, resources: [{resources: [secrets]}]}
- {level: None}
";
/// By when a changed file counts.
const RELOAD: Duration = Duration::from_secs(10);
/// What the quota allows, how many clients try, and how often each.
const ALLOWED: usize = 40;
const CLIENTS: usize = 8;
const TRIES: usize = 15;
const DEFAULT: &str = "/api/v1/namespaces/default";
const SCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const OLD_SCALERS: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

pub async fn run(stack: Stack) -> Result<()> {
    let tls = stack.tls_of("root", &["system:masters"])?;
    let mut session = Session::open(stack.api_address(), &tls).await?;
    quota(&stack, &tls, &mut session).await?;
    audited(&stack, &mut session).await?;
    owners(&mut session).await?;
    yaml(&mut session).await?;
    health(&mut session).await?;
    let document =
        session.ask_with(Method::GET, "/openapi/v3/apis/apps/v1", &[("accept", PROTOBUF)], Bytes::new()).await?;
    ensure!(
        document.status == 200 && document.body.starts_with(b"\x0a\x053.0.0"),
        "OpenAPI 3.0 as protobuf: {}",
        document.status
    );
    let mut nobody = Session::open(stack.api_address(), &stack.tls_of_nobody()?).await?;
    for (path, status) in [("/livez", 200), ("/readyz", 401), ("/version", 401), ("/api", 401)] {
        let answer = nobody.get(path).await?;
        ensure!(answer.status == status, "{path} without credentials: {}", answer.status);
    }
    admitted(&stack, &mut nobody).await
}

/// A changed file counts as soon as it is there, and one that is wrong never.
async fn admitted(stack: &Stack, nobody: &mut Session) -> Result<()> {
    for (file, path) in [(AUTHENTICATION.replace("/livez", "/version"), "/version"), ("kind: Pod".into(), "/version")] {
        stack.write("authentication.yaml", &file)?;
        let deadline = Instant::now() + RELOAD;
        while nobody.get(path).await?.status != 200 {
            ensure!(Instant::now() < deadline, "the file is not read again");
        }
    }
    stack.write("authentication.yaml", AUTHENTICATION)?;
    let deadline = Instant::now() + RELOAD;
    while nobody.get("/livez").await?.status != 200 {
        ensure!(Instant::now() < deadline, "the file is not read after one that was wrong");
    }
    ensure!(nobody.get("/version").await?.status == 401, "what is no longer in the file");
    Ok(())
}

/// The log has what its policy says of what [`quota`] did, and no word more.
async fn audited(stack: &Stack, session: &mut Session) -> Result<()> {
    session.create(&format!("{DEFAULT}/secrets"), &json!({"metadata": {"name": "s"}, "data": {"k": "dg=="}})).await?;
    session.get("/livez").await?;
    let log = std::fs::read_to_string(stack.path("audit.log")).context("the audit log")?;
    let lines = log.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    for line in &lines {
        let said = |pointer: &str| line.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let same = said("/apiVersion") == "audit.k8s.io/v1"
            && (said("/verb"), said("/stage"), said("/user/username")) == ("create", "ResponseComplete", "root")
            && line["responseStatus"]["code"] == 201
            && !said("/auditID").is_empty();
        let bodies = [&line["requestObject"], &line["responseObject"]];
        let whole = match said("/objectRef/resource") {
            "resourcequotas" => {
                said("/level") == "RequestResponse" && bodies.iter().all(|b| b["spec"]["hard"].is_object())
            }
            "secrets" => said("/level") == "Metadata" && bodies.iter().all(|b| b.is_null()),
            _ => false,
        };
        ensure!(same && whole, "the audit log says {line}");
    }
    ensure!(lines.len() == 3, "the audit log has {} lines", lines.len());
    Ok(())
}

/// Each name is tried by two clients: one of them is charged and refused, and gets back what it paid.
async fn quota(stack: &Stack, tls: &Arc<rustls::ClientConfig>, session: &mut Session) -> Result<()> {
    let quotas = format!("{DEFAULT}/resourcequotas");
    let hard = json!({"configmaps": ALLOWED.to_string(), "count/configmaps": "1000"});
    for name in ["one", "two"] {
        session.create(&quotas, &json!({"metadata": {"name": name}, "spec": {"hard": hard}})).await?;
        let status = json!({"status": {"hard": hard, "used": {"configmaps": "0", "count/configmaps": "0"}}});
        let path = format!("{quotas}/{name}/status");
        let answer =
            session.ask(Method::PATCH, &path, "application/merge-patch+json", status.to_string().into()).await?;
        is(&answer, 200, "the quota's status")?;
    }
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let mut session = Session::open(stack.api_address(), tls).await?;
        clients.spawn(async move {
            let mut counts = [0; 3];
            for i in 0..TRIES {
                let map = json!({"metadata": {"name": format!("m-{}-{i}", client / 2)}});
                let path = format!("{DEFAULT}/configmaps");
                let answer = session.ask(Method::POST, &path, "application/json", map.to_string().into()).await?;
                match (answer.status, answer.json()["reason"].as_str()) {
                    (201, _) => counts[0] += 1,
                    (409, Some("AlreadyExists")) => counts[1] += 1,
                    (403, _) => counts[2] += 1,
                    _ => anyhow::bail!("a write within a quota: {} {}", answer.status, answer.json()),
                }
            }
            Ok(counts)
        });
    }
    let mut made = 0;
    let (mut twice, mut refused) = (0, 0);
    for counts in clients.join_all().await {
        let [m, t, r] = counts?;
        (made, twice, refused) = (made + m, twice + t, refused + r);
    }
    println!("  within two quotas {made} made, {twice} there already, {refused} refused");
    ensure!(made <= ALLOWED && made > ALLOWED / 2, "{made} made of {ALLOWED} allowed");
    for name in ["one", "two"] {
        let found = session.get(&format!("{quotas}/{name}")).await?.json();
        let used = json!({"configmaps": made.to_string(), "count/configmaps": made.to_string()});
        ensure!(found["status"]["used"] == used, "{name} counts {} where {made} were made", found["status"]["used"]);
    }
    Ok(())
}

async fn owners(session: &mut Session) -> Result<()> {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let of = |version: &str, spec: Value| {
        let object = json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec});
        Bytes::from(object.to_string())
    };
    let old = of("v1", json!({"maxReplicas": 5, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50}));
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}});
    let new = of("v2", json!({"maxReplicas": 5, "scaleTargetRef": target, "metrics": [cpu]}));
    let apply = "application/apply-patch+yaml";
    let made = session.ask(Method::PATCH, &format!("{OLD_SCALERS}/h?fieldManager=old"), apply, old.clone()).await?;
    is(&made, 201, "an apply in v1")?;
    let path = format!("{SCALERS}/h?fieldManager=new");
    let conflict = session.ask(Method::PATCH, &path, apply, new.clone()).await?;
    says(&conflict, 409, "conflict with \"old\": .spec.targetCPUUtilizationPercentage")?;
    let forced = session.ask(Method::PATCH, &format!("{path}&force=true"), apply, new).await?;
    is(&forced, 200, "by force")?;
    let conflict = session.ask(Method::PATCH, &format!("{OLD_SCALERS}/h?fieldManager=old"), apply, old).await?;
    says(&conflict, 409, "conflict with \"new\": .spec.metrics")
}

async fn yaml(session: &mut Session) -> Result<()> {
    let text = "
apiVersion: v1
kind: Secret
metadata: &m {name: conf, labels: {a: 'yes'}}
immutable: yes
stringData: {<<: {k: v}, mode: '0777'}
---
kind: Rubbish
";
    let made = session.ask(Method::POST, &format!("{DEFAULT}/secrets"), "application/yaml", text.into()).await?;
    is(&made, 201, "YAML")?;
    ensure!(made.json()["immutable"] == true && made.json()["data"]["k"] == "dg==", "{}", made.json());
    let wrong = text.replace("name: conf", "name: other").replace("'yes'", "yes");
    let refused = session.ask(Method::POST, &format!("{DEFAULT}/secrets"), "application/yaml", wrong.into()).await?;
    ensure!(refused.status == 400, "a label that is a boolean: {}", refused.status);
    Ok(())
}

async fn health(session: &mut Session) -> Result<()> {
    let hook = "[+]poststarthook/start-apiserver-admission-initializer ok\n";
    let table = [
        ("/readyz", "ok".into(), "ok"),
        ("/readyz/etcd", "ok".into(), "ok"),
        ("/livez?verbose", format!("[+]ping ok\n[+]log ok\n[+]etcd ok\n{hook}"), "\nlivez check passed\n"),
        (
            "/livez?verbose&exclude=etcd",
            format!("[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n{hook}"),
            "\nlivez check passed\n",
        ),
    ];
    for (path, begin, end) in table {
        let answer = session.get(path).await?;
        let said = String::from_utf8_lossy(&answer.body);
        let right = answer.status == 200 && said.starts_with(&begin) && said.ends_with(end);
        ensure!(right, "{path}: {} {said:?}", answer.status);
    }
    is(&session.get("/readyz/nothing").await?, 404, "a check that does not exist")
}

fn is(answer: &Answer, status: u16, what: &str) -> Result<()> {
    ensure!(answer.status == status, "{what}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(())
}

fn says(answer: &Answer, status: u16, part: &str) -> Result<()> {
    let body = answer.json();
    let message = body["message"].as_str().context("no message")?;
    ensure!(answer.status == status && message.contains(part), "{} {message:?}, not {part:?}", answer.status);
    Ok(())
}
