//! Who asks and whether they may: client certificates or tokens, then a SubjectAccessReview on the node.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use client::resource;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Refusal;
use crate::shared::Shared;

/// How long an answer of the API server stands, where the configuration does not say.
const KNOWN_FOR: Duration = Duration::from_secs(120);
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const DENIED_FOR: Duration = Duration::from_secs(30);
/// A wrong token is not asked about again for this long.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
const REMEMBERED: usize = 1024;

/// The DER of the client's certificate, which TLS has verified.
#[derive(Clone, Debug)]
pub struct Certificate(pub Option<Vec<u8>>);

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: String,
}

type Question = (User, &'static str, &'static str);

/// Answers that stand for a while.
#[derive(Debug)]
struct Memory<K, V>(HashMap<K, (V, Instant)>);

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn recall(&self, key: &K, now: Instant) -> Option<V> {
        self.0.get(key).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    /// When it is full everything that is out of date is forgotten; if that is nothing, everything.
    fn remember(&mut self, key: K, value: V, now: Instant, time: Duration) {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(key, (value, now + time));
    }
}

/// Decides about requests and remembers what the API server said.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
    /// By the token's digest: tokens themselves are not kept.
    users: Arc<Mutex<Memory<[u8; 32], Option<User>>>>,
    decisions: Arc<Mutex<Memory<Question, bool>>>,
}

impl Gate {
    /// Remembers nothing yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        let users = Arc::new(Mutex::new(Memory(HashMap::new())));
        Gate { shared, users, decisions: Arc::new(Mutex::new(Memory(HashMap::new()))) }
    }

    async fn user(&self, certificate: &Certificate, token: Option<String>) -> Option<User> {
        let config = &self.shared.config.authentication;
        if let Some(der) = &certificate.0 {
            let identity = pki::peer_identity(der).ok()?;
            let name = identity.common_name;
            return Some(User { name, groups: identity.organizations, ..User::default() });
        }
        match token {
            Some(token) if config.webhook.enabled => self.owner(&token).await,
            Some(_) => None,
            None => config.anonymous.enabled.then(|| User {
                name: "system:anonymous".into(),
                groups: vec!["system:unauthenticated".into()],
                ..User::default()
            }),
        }
    }

    async fn owner(&self, token: &str) -> Option<User> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let known = self.users.lock().recall(&digest, Instant::now());
        if let Some(known) = known {
            return known;
        }
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        let answer = self.shared.client.create(resource::TOKENREVIEWS, None, &review).await;
        let status = answer.map_err(|error| tracing::warn!(%error, "token not reviewed")).ok()?["status"].take();
        let user = (status["authenticated"] == true).then(|| user_of(&status["user"]));
        let ttl = duration(&self.shared.config.authentication.webhook.cache_ttl).unwrap_or(KNOWN_FOR);
        let time = if user.is_some() { ttl } else { UNKNOWN_FOR.min(ttl) };
        self.users.lock().remember(digest, user.clone(), Instant::now(), time);
        user
    }

    /// Whether any of the subresources may be used that way.
    async fn allowed(
        &self,
        user: &User,
        verb: &'static str,
        subresources: &[&'static str],
    ) -> Result<bool, client::Error> {
        // Members of this group may do everything everywhere; asking would say so.
        if user.groups.iter().any(|g| g == "system:masters") {
            return Ok(true);
        }
        for subresource in subresources {
            if self.decide((user.clone(), verb, subresource)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn decide(&self, question: Question) -> Result<bool, client::Error> {
        let known = self.decisions.lock().recall(&question, Instant::now());
        if let Some(known) = known {
            return Ok(known);
        }
        let (user, verb, subresource) = &question;
        let extra: Value = serde_json::from_str(&user.extra).unwrap_or(Value::Null);
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name, "uid": user.uid, "groups": user.groups, "extra": extra,
                "resourceAttributes": {
                    "verb": verb, "group": "", "version": "v1", "resource": "nodes", "subresource": subresource,
                    "name": self.shared.node_name,
                },
            },
        });
        let answer = self.shared.client.create(resource::SUBJECTACCESSREVIEWS, None, &review).await?;
        let allowed = answer["status"]["allowed"] == true;
        let webhook = &self.shared.config.authorization.webhook;
        let (field, default) =
            if allowed { ("cacheAuthorizedTTL", ALLOWED_FOR) } else { ("cacheUnauthorizedTTL", DENIED_FOR) };
        let time = webhook[field].as_str().and_then(duration).unwrap_or(default);
        self.decisions.lock().remember(question, allowed, Instant::now(), time);
        Ok(allowed)
    }
}

/// A configured duration such as `2m0s`; zero and nothing stand for the default.
fn duration(text: &str) -> Option<Duration> {
    apimachinery::duration::parse(text).ok().filter(|d| !d.is_zero())
}

fn user_of(value: &Value) -> User {
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let groups = value["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let extra = value.get("extra").map(Value::to_string).unwrap_or_default();
    User { name: text("username"), uid: text("uid"), groups: groups.collect(), extra }
}

/// The middleware.
pub async fn check(
    State(gate): State<Gate>,
    Extension(certificate): Extension<Certificate>,
    request: Request,
    next: Next,
) -> Response {
    let Some(user) = gate.user(&certificate, bearer(&request)).await else {
        return Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".into()).into_response();
    };
    let (verb, subresources) = (verb(request.method()), subresources(request.uri().path()));
    let asked =
        format!("(user={}, verb={verb}, resource=nodes, subresource(s)=[{}])", user.name, subresources.join(" "));
    match gate.allowed(&user, verb, subresources).await {
        Ok(true) => next.run(request).await,
        Ok(false) => Refusal(StatusCode::FORBIDDEN, format!("Forbidden {asked}")).into_response(),
        Err(error) => {
            let text = format!("Authorization error {asked}: {error}");
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

fn bearer(request: &Request) -> Option<String> {
    let header = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    header.strip_prefix("Bearer ").map(str::to_owned)
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// Any of these on the node lets a request pass (KEP-2862).
fn subresources(path: &str) -> &'static [&'static str] {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "healthz" => &["healthz", "proxy"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_become_questions_about_the_node() {
        assert_eq!((verb(&Method::GET), subresources("/containerLogs/a/b/c")), ("get", &["proxy"][..]));
        assert_eq!((verb(&Method::POST), subresources("/exec/a/b/c")), ("create", &["proxy"][..]));
        assert_eq!(subresources("/stats/summary"), ["stats"]);
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
    }

    #[test]
    fn answers_stand_for_their_time_and_memory_is_bounded() {
        let start = Instant::now();
        let mut memory = Memory(HashMap::new());
        memory.remember(0, true, start, Duration::from_secs(10));
        assert_eq!(memory.recall(&0, start + Duration::from_secs(9)), Some(true));
        assert_eq!(memory.recall(&0, start + Duration::from_secs(10)), None);
        let late = start + Duration::from_secs(60);
        for key in 0..2 * REMEMBERED {
            memory.remember(key, true, late, Duration::from_secs(10));
            assert!(memory.0.len() <= REMEMBERED);
        }
    }

    #[test]
    fn durations_read_as_in_configurations() {
        assert_eq!(duration("2m0s"), Some(Duration::from_secs(120)));
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!((duration("0s"), duration("")), (None, None));
    }
}
