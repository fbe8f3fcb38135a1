//! Who the server takes its clients for, by everything that can say so: certificates, tokens of service accounts, bootstrap tokens, tokens of an OpenID
//! Connect provider, a proxy in front of the server, and those who act as others. Each of them is asked for, and each is refused when something is wrong with it.

mod accounts;
mod issuer;
mod jwt;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::session::{Answer, Session};
use crate::bench::stack::Stack;
use issuer::Issuer;

/// The server of this check; `{folder}` stands for the folder of its files.
pub const ARGUMENTS: &[&str] = &[
    "--authentication-config={folder}/authentication.yaml",
    BOOTSTRAP,
    "--requestheader-client-ca-file={folder}/front-ca.crt",
    "--requestheader-allowed-names=front",
];
/// The flag by which bootstrap tokens count.
pub const BOOTSTRAP: &str = "--enable-bootstrap-token-auth";
/// By when a change counts: of a file, of a role, of what a token is bound to.
const SOON: Duration = Duration::from_secs(10);
const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const TOKEN: &str = "abcdef.0123456789abcdef";

pub async fn run(mut stack: Stack) -> Result<()> {
    let mut admin = Client::of(&stack, "root", &["system:masters"]).await?;
    let mut nobody = Client(Session::open(stack.api_address(), &stack.tls_of_nobody()?).await?);
    let issuer = Issuer::start(&stack).await?;
    issuer.is_accepted(&stack, &mut nobody).await.context("OpenID Connect")?;
    certificates(&stack).await.context("certificates")?;
    front(&stack, &mut nobody).await.context("a proxy in front")?;
    impersonation(&stack, &mut admin).await.context("acting as others")?;
    bootstrap(&mut admin, &mut nobody).await.context("bootstrap tokens")?;
    accounts::run(&stack, &mut admin, &mut nobody).await.context("tokens of service accounts")?;
    issuer.rotates(&mut nobody).await.context("OpenID Connect, another key")?;
    accounts::rotation(&mut stack).await.context("another key for tokens of service accounts")
}

/// Whom the server takes a client for.
pub struct Client(Session);

impl Client {
    /// With a certificate.
    async fn of(stack: &Stack, user: &str, groups: &[&str]) -> Result<Self> {
        Ok(Self(Session::open(stack.api_address(), &stack.tls_of(user, groups)?).await?))
    }

    async fn asked(&mut self, headers: &[(&str, &str)]) -> Result<Answer> {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.0.ask_with(Method::POST, REVIEW, &all, body.to_string().into()).await
    }

    /// Who asks with these headers.
    async fn who(&mut self, headers: &[(&str, &str)]) -> Result<Value> {
        let answer = self.asked(headers).await?;
        let text = || String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == 201, "{headers:?}: {} {}", answer.status, text());
        Ok(answer.json()["status"]["userInfo"].clone())
    }

    /// Who bears this token.
    async fn bearer(&mut self, token: &str) -> Result<Value> {
        self.who(&[("authorization", &format!("Bearer {token}"))]).await
    }

    /// The token is nobody's, perhaps after a moment.
    async fn no_bearer(&mut self, token: &str, why: &str) -> Result<()> {
        let header = format!("Bearer {token}");
        let deadline = Instant::now() + SOON;
        loop {
            let status = self.asked(&[("authorization", &header)]).await?.status;
            if status == 401 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "a token that {why} is answered {status}");
        }
    }

    /// Asks until the answer is good, at most until something must count.
    async fn until(&mut self, status: u16, headers: &[(&str, &str)]) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            let answer = self.asked(headers).await?;
            if answer.status == status {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{headers:?}: {} {}, not {status}", answer.status, answer.json());
        }
    }

    async fn patch(&mut self, path: &str, patch: &Value) -> Result<()> {
        let media = "application/merge-patch+json";
        let answer = self.0.ask(Method::PATCH, path, media, patch.to_string().into()).await?;
        ensure!(answer.status == 200, "PATCH {path}: {} {}", answer.status, answer.json());
        Ok(())
    }

    /// Deletes at once, which must succeed.
    async fn delete(&mut self, path: &str) -> Result<()> {
        let answer = self
            .0
            .ask(Method::DELETE, &format!("{path}?gracePeriodSeconds=0"), "application/json", Bytes::new())
            .await?;
        ensure!(answer.status == 200, "DELETE {path}: {} {}", answer.status, answer.json());
        Ok(())
    }
}

/// Every group is there; the server may add its own.
fn is(user: &Value, name: &str, groups: &[&str]) -> Result<()> {
    let found: Vec<&str> = user["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let all = [groups, &["system:authenticated"]].concat();
    ensure!(user["username"] == name && found == all, "{name} of {all:?} is taken for {user}");
    Ok(())
}

/// Common name and organizations, and the certificate itself as what the user's credential was.
async fn certificates(stack: &Stack) -> Result<()> {
    let user = Client::of(stack, "jane", &["dev"]).await?.who(&[]).await?;
    is(&user, "jane", &["dev"])?;
    let pem = std::fs::read_to_string(stack.path("jane.crt"))?;
    let der = pki::certificates_from_pem(&pem)?.into_iter().next().context("a certificate")?;
    let id = json!([format!("X509SHA256={}", pki::fingerprint(&der))]);
    ensure!(user["extra"]["authentication.kubernetes.io/credential-id"] == id, "{user}");
    // Who has a certificate of another authority is nobody, whether TLS says so or the first answer.
    let strange = stack.tls_of_stranger("root", &["system:masters"])?;
    let status = match Session::open(stack.api_address(), &strange).await {
        Ok(session) => Client(session).asked(&[]).await.map_or(401, |answer| answer.status),
        Err(_) => 401,
    };
    ensure!(status == 401, "a certificate of another authority: {status}");
    Ok(())
}

/// The proxy's word counts if it comes with the proxy's certificate, and only then.
async fn front(stack: &Stack, nobody: &mut Client) -> Result<()> {
    let word = [
        ("x-remote-user", "jane"),
        ("x-remote-uid", "7"),
        ("x-remote-group", "dev"),
        ("x-remote-group", "ops"),
        ("x-remote-extra-example.org%2fteam", "blue"),
    ];
    let mut front = Client(Session::open(stack.api_address(), &stack.tls_of_front("front")?).await?);
    let user = front.who(&word).await?;
    is(&user, "jane", &["dev", "ops"])?;
    ensure!(user["uid"] == "7" && user["extra"] == json!({"example.org/team": ["blue"]}), "{user}");
    ensure!(front.asked(&[]).await?.status == 401, "a proxy that speaks for nobody is nobody");
    let mut other = Client(Session::open(stack.api_address(), &stack.tls_of_front("other")?).await?);
    ensure!(other.asked(&word).await?.status == 401, "a proxy of another name");
    ensure!(nobody.asked(&word).await?.status == 401, "headers without a certificate");
    let user = Client::of(stack, "jim", &[]).await?.who(&word).await?;
    is(&user, "jim", &[])
}

/// Each header needs a right of its own.
async fn impersonation(stack: &Stack, admin: &mut Client) -> Result<()> {
    let headers = [
        ("impersonate-user", "jane"),
        ("impersonate-uid", "7"),
        ("impersonate-group", "dev"),
        ("impersonate-extra-example.org%2fteam", "blue"),
    ];
    let rights = [
        ("", "users", "jane"),
        ("authentication.k8s.io", "uids", "7"),
        ("", "groups", "dev"),
        ("authentication.k8s.io", "userextras/example.org/team", "blue"),
    ];
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = |rules: &[(&str, &str, &str)]| {
        let rule = |(group, resource, name): &(&str, &str, &str)| json!({"verbs": ["impersonate"], "apiGroups": [group], "resources": [resource], "resourceNames": [name]});
        json!({"metadata": {"name": "act"}, "rules": rules.iter().map(rule).collect::<Value>()})
    };
    admin.0.create(roles, &role(&[])).await?;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({"metadata": {"name": "act"}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "act"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "jim"}]});
    admin.0.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await?;
    let mut jim = Client::of(stack, "jim", &[]).await?;
    for (i, (group, resource, name)) in rights.iter().enumerate() {
        let answer = jim.asked(&headers[..=i]).await?;
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        let wanted = format!("cannot impersonate resource \"{resource}\" in API group \"{group}\"");
        ensure!(answer.status == 403 && message.contains(&wanted), "{name}: {} {message}, not {wanted}", answer.status);
        admin.patch(&format!("{roles}/act"), &role(&rights[..=i])).await?;
        jim.until(201, &headers[..=i]).await?;
    }
    let user = jim.who(&headers).await?;
    is(&user, "jane", &["dev"])?;
    ensure!(user["uid"] == "7" && user["extra"] == json!({"example.org/team": ["blue"]}), "{user}");
    let masters = [headers[0], ("impersonate-group", "system:masters")];
    ensure!(jim.asked(&masters).await?.status == 403, "a group that was not granted");
    let user = admin.who(&[("impersonate-user", "system:serviceaccount:default:robot")]).await?;
    is(&user, "system:serviceaccount:default:robot", &["system:serviceaccounts", "system:serviceaccounts:default"])?;
    let alone = admin.asked(&headers[2..3]).await?;
    ensure!(alone.status >= 400, "a group without a user: {}", alone.status);
    Ok(())
}

/// A secret makes a token good, and every part of it can make it bad.
async fn bootstrap(admin: &mut Client, nobody: &mut Client) -> Result<()> {
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let good = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        "expiration": "2999-01-01T00:00:00Z", "auth-extra-groups": "system:bootstrappers:worker,system:bootstrappers:rack-1"});
    let secret = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "stringData": good});
    nobody.no_bearer(TOKEN, "has no secret yet").await?;
    admin.0.create(secrets, &secret).await?;
    let groups = ["system:bootstrappers", "system:bootstrappers:worker", "system:bootstrappers:rack-1"];
    is(&nobody.bearer(TOKEN).await?, "system:bootstrap:abcdef", &groups)?;
    nobody.no_bearer("abcdef.0123456789abcdee", "has another secret").await?;
    let own = format!("{secrets}/bootstrap-token-abcdef");
    for (key, value) in [
        ("expiration", "2020-01-01T00:00:00Z"),
        ("usage-bootstrap-authentication", "false"),
        ("auth-extra-groups", "system:masters"),
        ("token-id", "ghijkl"),
    ] {
        admin.patch(&own, &json!({"stringData": {key: value}})).await?;
        nobody.no_bearer(TOKEN, &format!("has {key} {value}")).await?;
        admin.patch(&own, &json!({"stringData": {key: good[key]}})).await?;
        nobody.until(201, &[("authorization", &format!("Bearer {TOKEN}"))]).await?;
    }
    Ok(())
}
