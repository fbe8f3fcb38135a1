//! Who asks and whether they may: client certificates or tokens, then a SubjectAccessReview on the node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use client::resource;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Refusal;
use crate::shared::Shared;

/// How long an answer of the API server stands.
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const DENIED_FOR: Duration = Duration::from_secs(30);
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
}

type Question = (User, &'static str, &'static str);

/// Decides about requests and remembers decisions.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
    decisions: Arc<Mutex<HashMap<Question, (bool, Instant)>>>,
}

impl Gate {
    /// Remembers nothing yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        Gate { shared, decisions: Arc::default() }
    }

    async fn user(&self, certificate: &Certificate, token: Option<String>) -> Option<User> {
        if let Some(der) = &certificate.0 {
            let identity = pki::peer_identity(der).ok()?;
            return Some(User { name: identity.common_name, uid: String::new(), groups: identity.organizations });
        }
        let token = token.filter(|_| self.shared.config.authentication.webhook.enabled)?;
        self.review_token(&token).await
    }

    async fn review_token(&self, token: &str) -> Option<User> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        let answer = self.shared.client.create(resource::TOKENREVIEWS, None, &review).await;
        let status = answer.map_err(|error| tracing::warn!(%error, "token not reviewed")).ok()?["status"].take();
        (status["authenticated"] == true).then(|| user_of(&status["user"]))
    }

    async fn allowed(&self, user: &User, verb: &'static str, subresource: &'static str) -> Result<bool, client::Error> {
        // Members of this group may do everything everywhere; asking would say so.
        if user.groups.iter().any(|g| g == "system:masters") {
            return Ok(true);
        }
        let question = (user.clone(), verb, subresource);
        if let Some((answer, until)) = self.decisions.lock().get(&question)
            && Instant::now() < *until
        {
            return Ok(*answer);
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name, "uid": user.uid, "groups": user.groups,
                "resourceAttributes": {
                    "verb": verb, "group": "", "version": "v1", "resource": "nodes", "subresource": subresource,
                    "name": self.shared.node_name,
                },
            },
        });
        let answer = self.shared.client.create(resource::SUBJECTACCESSREVIEWS, None, &review).await?;
        let allowed = answer["status"]["allowed"] == true;
        let until = Instant::now() + if allowed { ALLOWED_FOR } else { DENIED_FOR };
        let mut decisions = self.decisions.lock();
        if decisions.len() >= REMEMBERED {
            decisions.clear();
        }
        decisions.insert(question, (allowed, until));
        Ok(allowed)
    }
}

fn user_of(value: &Value) -> User {
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let groups = value["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    User { name: text("username"), uid: text("uid"), groups: groups.collect() }
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
    let (verb, subresource) = (verb(request.method()), subresource(request.uri().path()));
    match gate.allowed(&user, verb, subresource).await {
        Ok(true) => next.run(request).await,
        Ok(false) => {
            let text =
                format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])", user.name);
            Refusal(StatusCode::FORBIDDEN, text).into_response()
        }
        Err(error) => {
            let text = format!(
                "Authorization error (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource}]): {error}",
                user.name
            );
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

fn subresource(path: &str) -> &'static str {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => "stats",
        "metrics" => "metrics",
        "logs" => "log",
        _ => "proxy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_become_questions_about_the_node() {
        assert_eq!((verb(&Method::GET), subresource("/containerLogs/a/b/c")), ("get", "proxy"));
        assert_eq!((verb(&Method::POST), subresource("/exec/a/b/c")), ("create", "proxy"));
        assert_eq!(subresource("/stats/summary"), "stats");
    }
}
