//! The audit log: who asked for what and what came of it, as a policy decides, one event a line.
//!
//! [`policy`] is pure, [`log`] is the file, [`legacy`] the shorter of the two forms of a line, [`Record`] follows one request: it is written when the request is known, when a long answer begins, and when the last
//! who holds it lets go, which is when the answer has been made.

mod legacy;
pub mod log;
pub mod policy;

use crate::authn::UserInfo;
use crate::authz::Attributes;
use crate::config::{AuditFormat, Config};
use apimachinery::{meta, time};
use log::{Limits, Log};
use parking_lot::Mutex;
use policy::{Level, Policy, Stage, Verdict};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

/// What zero means as a size, in megabytes.
const DEFAULT_SIZE: u64 = 100;
const MEGABYTE: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Policy and log.
pub struct Auditor {
    policy: Policy,
    log: Log,
    format: AuditFormat,
    events: AtomicU64,
}

impl Auditor {
    /// As the flags say; `None` without a log.
    pub fn new(config: &Config) -> Result<Option<Arc<Self>>, String> {
        let (Some(log), Some(file)) = (&config.audit_log_path, &config.audit_policy_file) else { return Ok(None) };
        let text = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let policy = Policy::parse(&text).map_err(|e| format!("{}: {e}", file.display()))?;
        let limits = Limits {
            size: if config.audit_log_maxsize == 0 { DEFAULT_SIZE } else { config.audit_log_maxsize } * MEGABYTE,
            backups: config.audit_log_maxbackup,
            age: DAY * config.audit_log_maxage,
        };
        let log = Log::open(log, limits).map_err(|e| format!("{}: {e}", log.display()))?;
        Ok(Some(Arc::new(Self { policy, log, format: config.audit_log_format, events: AtomicU64::new(0) })))
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Begins to follow a request, if it is to be recorded.
    pub fn follow(self: &Arc<Self>, request: &Asked<'_>) -> Option<Arc<Record>> {
        let verdict = self.policy.verdict(request.user, request.attributes);
        if verdict.level == Level::None {
            return None;
        }
        let mut event = request.to_event();
        event.insert("level".into(), verdict.level.name().into());
        let record = Record { auditor: self.clone(), verdict, event: Mutex::new(event), code: AtomicU16::new(0) };
        record.write(Stage::RequestReceived);
        Some(Arc::new(record))
    }
}

/// What is known of a request when its sender is.
pub struct Asked<'a> {
    /// The id that the response carries.
    pub id: &'a str,
    /// Who.
    pub user: &'a UserInfo,
    /// What.
    pub attributes: &'a Attributes,
    /// Path and query.
    pub uri: String,
    /// From where.
    pub source: String,
    /// With which program.
    pub agent: &'a str,
}

impl Asked<'_> {
    fn to_event(&self) -> Map<String, Value> {
        let mut event = Map::new();
        let mut put = |name: &str, value: Value| event.insert(name.into(), value);
        put("kind", "Event".into());
        put("apiVersion", "audit.k8s.io/v1".into());
        put("auditID", self.id.into());
        put("requestURI", self.uri.as_str().into());
        put("verb", self.attributes.verb.as_str().into());
        put("user", user(self.user));
        put("sourceIPs", json!([self.source]));
        put("userAgent", self.agent.into());
        if self.attributes.path.is_none() {
            put("objectRef", reference(self.attributes));
        }
        put("requestReceivedTimestamp", time::now_rfc3339_micro().into());
        event
    }
}

fn user(user: &UserInfo) -> Value {
    let mut out = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        out["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        out["extra"] = json!(user.extra);
    }
    out
}

fn reference(a: &Attributes) -> Value {
    let fields = [
        ("resource", &a.resource),
        ("namespace", &a.namespace),
        ("name", &a.name),
        ("apiGroup", &a.group),
        ("apiVersion", &a.version),
        ("subresource", &a.subresource),
    ];
    fields.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_string(), json!(v))).collect()
}

/// One request being followed.
pub struct Record {
    auditor: Arc<Auditor>,
    verdict: Verdict,
    event: Mutex<Map<String, Value>>,
    /// 0 until the answer is known.
    code: AtomicU16,
}

impl Record {
    /// Who the sender became by impersonation.
    pub fn impersonates(&self, other: &UserInfo) {
        self.event.lock().insert("impersonatedUser".into(), user(other));
    }

    /// What authorization decided, and by which rule.
    pub fn decided(&self, decision: &str, reason: &str) {
        let notes = json!({"authorization.k8s.io/decision": decision, "authorization.k8s.io/reason": reason});
        self.event.lock().insert("annotations".into(), notes);
    }

    /// What was sent.
    pub fn sent(&self, object: &Value) {
        if self.verdict.level >= Level::Request {
            let object = self.shown(object.clone());
            let mut event = self.event.lock();
            if let Some(reference) = event.get_mut("objectRef").filter(|r| r.get("name").is_none())
                && !meta::name(&object).is_empty()
            {
                reference["name"] = meta::name(&object).into();
            }
            event.insert("requestObject".into(), object);
        }
    }

    /// Whether what is answered is part of it.
    pub fn holds_answers(&self) -> bool {
        self.verdict.level >= Level::RequestResponse
    }

    /// What was answered, if it is JSON.
    pub fn received(&self, body: &[u8]) {
        if self.holds_answers()
            && let Ok(object) = serde_json::from_slice(body)
        {
            let object = self.shown(object);
            self.event.lock().insert("responseObject".into(), object);
        }
    }

    fn shown(&self, mut object: Value) -> Value {
        if self.verdict.omit_managed_fields
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("managedFields");
        }
        object
    }

    /// The answer begins. Of one that goes on for long, this is recorded too.
    pub fn answered(&self, code: u16, goes_on: bool) {
        self.code.store(code, Ordering::Relaxed);
        if goes_on {
            self.write(Stage::ResponseStarted);
        }
    }

    /// The handler failed badly.
    pub fn panicked(&self) {
        self.code.store(500, Ordering::Relaxed);
        self.write(Stage::Panic);
    }

    fn write(&self, stage: Stage) {
        if self.verdict.omit.contains(&stage) {
            return;
        }
        self.auditor.events.fetch_add(1, Ordering::Relaxed);
        let mut event = self.event.lock().clone();
        event.insert("stage".into(), stage.name().into());
        event.insert("stageTimestamp".into(), time::now_rfc3339_micro().into());
        let code = self.code.load(Ordering::Relaxed);
        if code > 0 {
            event.insert("responseStatus".into(), json!({"metadata": {}, "code": code}));
        }
        if stage == Stage::RequestReceived || stage == Stage::ResponseStarted {
            event.remove("responseObject");
        }
        let line = match self.auditor.format {
            AuditFormat::Json => Value::Object(event).to_string(),
            AuditFormat::Legacy => legacy::line(&Value::Object(event)),
        };
        if let Err(error) = self.auditor.log.write(line.as_bytes()) {
            tracing::error!(%error, "the audit log cannot be written");
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.write(Stage::ResponseComplete);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_leaves_its_trail() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let policy =
            b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse, omitManagedFields: true}]";
        let limits = Limits { size: MEGABYTE, backups: 0, age: Duration::ZERO };
        let auditor = Arc::new(Auditor {
            policy: Policy::parse(policy).expect("a policy"),
            log: Log::open(&path, limits).expect("opens"),
            format: AuditFormat::Json,
            events: AtomicU64::new(0),
        });
        let (who, what) = (
            UserInfo::authenticated("alice", []),
            Attributes {
                verb: "create".into(),
                version: "v1".into(),
                resource: "pods".into(),
                namespace: "n".into(),
                ..Attributes::default()
            },
        );
        let asked = Asked {
            id: "1",
            user: &who,
            attributes: &what,
            uri: "/api/v1/namespaces/n/pods".into(),
            source: "10.0.0.1".into(),
            agent: "kubectl",
        };
        let record = auditor.follow(&asked).expect("is recorded");
        record.sent(&json!({"metadata": {"name": "p", "managedFields": []}}));
        record.received(b"{\"kind\":\"Pod\"}");
        record.answered(201, false);
        drop(record);
        assert_eq!(auditor.events(), 2);
        let text = std::fs::read_to_string(&path).expect("reads");
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert_eq!(
            lines.iter().map(|l| l["stage"].as_str().unwrap_or_default()).collect::<Vec<_>>(),
            ["RequestReceived", "ResponseComplete"]
        );
        assert_eq!(
            lines[1]["objectRef"],
            json!({"apiVersion": "v1", "name": "p", "namespace": "n", "resource": "pods"})
        );
        assert_eq!(lines[1]["requestObject"], json!({"metadata": {"name": "p"}}));
        assert_eq!(
            (&lines[1]["responseStatus"]["code"], &lines[1]["responseObject"]["kind"]),
            (&json!(201), &json!("Pod"))
        );
    }
}
