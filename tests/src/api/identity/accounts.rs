//! Tokens of service accounts: for whom, for how long, bound to what, and signed by which key.

use std::fs;

use anyhow::{Result, ensure};
use http::Method;
use serde_json::{Value, json};

use super::super::session::Answer;
use super::{BOOTSTRAP, Client, TOKEN, is, jwt};
use crate::bench::stack::Stack;

const DEFAULT: &str = "/api/v1/namespaces/default";
const GROUPS: [&str; 2] = ["system:serviceaccounts", "system:serviceaccounts:default"];
const ROBOT: &str = "system:serviceaccount:default:robot";

async fn requested(admin: &mut Client, spec: &Value) -> Result<Answer> {
    let path = format!("{DEFAULT}/serviceaccounts/robot/token");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    admin.0.ask(Method::POST, &path, "application/json", request.to_string().into()).await
}

async fn token(admin: &mut Client, spec: &Value) -> Result<String> {
    let answer = requested(admin, spec).await?;
    let made = answer.json();
    ensure!(answer.status == 201, "{spec}: {} {made}", answer.status);
    Ok(made["status"]["token"].as_str().unwrap_or_default().to_owned())
}

pub async fn run(stack: &Stack, admin: &mut Client, nobody: &mut Client) -> Result<()> {
    admin.0.create(&format!("{DEFAULT}/serviceaccounts"), &json!({"metadata": {"name": "robot"}})).await?;
    let plain = token(admin, &json!({})).await?;
    let user = nobody.bearer(&plain).await?;
    is(&user, ROBOT, &GROUPS)?;
    let id = jwt::claims(&plain)?["jti"].as_str().unwrap_or_default().to_owned();
    ensure!(user["extra"]["authentication.kubernetes.io/credential-id"] == json!([format!("JTI={id}")]), "{user}");
    refused(admin).await?;
    forged(stack, nobody, &plain).await?;
    audiences(admin, nobody).await?;
    bound(admin, nobody).await?;
    admin.delete(&format!("{DEFAULT}/serviceaccounts/robot")).await?;
    nobody.no_bearer(&plain, "has lost its account").await?;
    admin.0.create(&format!("{DEFAULT}/serviceaccounts"), &json!({"metadata": {"name": "robot"}})).await?;
    nobody.no_bearer(&plain, "is of an account that was made anew").await
}

async fn refused(admin: &mut Client) -> Result<()> {
    let pod = |uid: &str| json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "none", "uid": uid}});
    for (spec, status, part) in [
        (json!({"expirationSeconds": 599}), 422, "may not specify a duration less than 10 minutes"),
        (json!({"expirationSeconds": 1i64 << 33}), 422, "may not specify a duration larger than 2^32 seconds"),
        (
            json!({"boundObjectRef": {"kind": "ConfigMap", "name": "x"}}),
            400,
            "cannot bind token for serviceaccount to object of type",
        ),
        (pod(""), 404, "pods \"none\" not found"),
    ] {
        let answer = requested(admin, &spec).await?;
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        ensure!(answer.status == status && message.contains(part), "{spec}: {} {message}", answer.status);
    }
    Ok(())
}

/// The same claims with one of them changed, by the cluster's own key or another's.
async fn forged(stack: &Stack, nobody: &mut Client, good: &str) -> Result<()> {
    let own = fs::read_to_string(stack.path("sa.key"))?;
    let stranger = pki::service_account_key()?;
    let kid = jwt::kid(good)?;
    let signed = |key: &str, claim: &str, value: Value| -> Result<String> {
        let mut claims = jwt::claims(good)?;
        claims[claim] = value;
        jwt::sign(key, &kid, &claims)
    };
    let again = signed(&own, "iat", json!(jwt::now()))?;
    is(&nobody.bearer(&again).await?, ROBOT, &GROUPS)?;
    for (claim, value) in [
        ("exp", json!(jwt::now() - 120)),
        ("nbf", json!(jwt::now() + 600)),
        ("aud", json!(["vault"])),
        ("iss", json!("https://elsewhere.example.com")),
        ("sub", json!("system:serviceaccount:kube-system:robot")),
    ] {
        let why = format!("has {claim} {value}");
        nobody.no_bearer(&signed(&own, claim, value)?, &why).await?;
    }
    let theirs = signed(stranger.private_pem(), "iat", json!(jwt::now()))?;
    nobody.no_bearer(&theirs, "was signed by somebody else").await
}

/// A token for somebody else is no token here; a review says for whom it is.
async fn audiences(admin: &mut Client, nobody: &mut Client) -> Result<()> {
    let vault = token(admin, &json!({"audiences": ["vault"], "expirationSeconds": 600})).await?;
    nobody.no_bearer(&vault, "is for somebody else").await?;
    let claims = jwt::claims(&vault)?;
    let life = claims["exp"].as_i64().unwrap_or_default() - claims["iat"].as_i64().unwrap_or_default();
    ensure!(claims["aud"] == json!(["vault"]) && life == 600, "{claims}");
    for (audiences, good) in [(json!(["vault", "other"]), true), (json!(["other"]), false), (Value::Null, false)] {
        let review = json!({"spec": {"token": vault, "audiences": audiences}});
        let status = admin.0.create("/apis/authentication.k8s.io/v1/tokenreviews", &review).await?["status"].clone();
        let right = if good {
            status["authenticated"] == true
                && status["audiences"] == json!(["vault"])
                && status["user"]["username"] == ROBOT
        } else {
            status["authenticated"] != true && status["error"].is_string()
        };
        ensure!(right, "reviewed for {audiences}: {status}");
    }
    Ok(())
}

/// A token dies with what it is bound to, and is not brought back by another thing of the same name.
async fn bound(admin: &mut Client, nobody: &mut Client) -> Result<()> {
    let pod = json!({"metadata": {"name": "b"}, "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]}});
    let plain = json!({"metadata": {"name": "b"}});
    for (kind, path, object) in [
        ("Pod", format!("{DEFAULT}/pods"), &pod),
        ("Secret", format!("{DEFAULT}/secrets"), &plain),
        ("Node", "/api/v1/nodes".to_owned(), &plain),
    ] {
        let made = admin.0.create(&path, object).await?;
        let spec =
            json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": "b", "uid": made["metadata"]["uid"]}});
        let token = token(admin, &spec).await?;
        let user = nobody.bearer(&token).await?;
        is(&user, ROBOT, &GROUPS)?;
        let key = format!("authentication.kubernetes.io/{}-uid", kind.to_lowercase());
        let told = kind == "Secret" || user["extra"][key] == json!([made["metadata"]["uid"]]);
        ensure!(told, "the user does not say the {kind} that its token is bound to: {user}");
        admin.delete(&format!("{path}/b")).await?;
        nobody.no_bearer(&token, &format!("has lost its {kind}")).await?;
        admin.0.create(&path, object).await?;
        nobody.no_bearer(&token, &format!("is bound to a {kind} that was made anew")).await?;
        let answer = requested(admin, &spec).await?;
        ensure!(answer.status == 409, "a {kind} of another uid: {}", answer.status);
        admin.delete(&format!("{path}/b")).await?;
    }
    Ok(())
}

/// A new key signs; tokens of the old one count as long as its public half is among the files.
pub async fn rotation(stack: &mut Stack) -> Result<()> {
    let (mut admin, _) = open(stack).await?;
    let old = token(&mut admin, &json!({})).await?;
    ensure!(published(&mut admin).await? == [jwt::kid(&old)?], "one key is published");
    let [old_file, new_key, new_file] = ["old.pub", "sa.key", "sa.pub"].map(|name| stack.path(name));
    fs::rename(&new_file, &old_file)?;
    let key = pki::service_account_key()?;
    fs::write(new_key, key.private_pem())?;
    fs::write(new_file, key.public_pem())?;
    let flag = format!("--service-account-key-file={}", old_file.display());
    again(stack, |arguments| {
        arguments.push(flag.clone());
        arguments.retain(|argument| argument != BOOTSTRAP);
    })
    .await?;
    let (mut admin, mut nobody) = open(stack).await?;
    let new = token(&mut admin, &json!({})).await?;
    let kids = published(&mut admin).await?;
    let wanted = [jwt::kid(&new)?, jwt::kid(&old)?];
    ensure!(wanted[0] != wanted[1] && kids == wanted, "{kids:?} are published, not {wanted:?}");
    for token in [&old, &new] {
        is(&nobody.bearer(token).await?, ROBOT, &GROUPS)?;
    }
    nobody.no_bearer(TOKEN, "is a bootstrap token where those do not count").await?;
    let configuration = admin.0.get("/.well-known/openid-configuration").await?.json();
    let issuer = jwt::claims(&new)?["iss"].as_str().unwrap_or_default().to_owned();
    let right =
        configuration["issuer"] == issuer.as_str() && configuration["jwks_uri"] == format!("{issuer}/openid/v1/jwks");
    ensure!(right, "{configuration}");
    again(stack, |arguments| arguments.retain(|argument| *argument != flag)).await?;
    let (mut admin, mut nobody) = open(stack).await?;
    ensure!(published(&mut admin).await? == [jwt::kid(&new)?], "the old key is still published");
    nobody.no_bearer(&old, "was signed by a key that was taken away").await?;
    is(&nobody.bearer(&new).await?, ROBOT, &GROUPS)
}

async fn open(stack: &Stack) -> Result<(Client, Client)> {
    let nobody = super::Session::open(stack.api_address(), &stack.tls_of_nobody()?).await?;
    Ok((Client::of(stack, "root", &["system:masters"]).await?, Client(nobody)))
}

async fn again(stack: &mut Stack, change: impl FnOnce(&mut Vec<String>)) -> Result<()> {
    let ended = tokio::task::block_in_place(|| stack.stop_api())?;
    ensure!(ended.success(), "the API server did not end well: {ended}");
    change(stack.api_arguments());
    stack.run_api().await
}

/// The keys by their names, that which signs first.
async fn published(admin: &mut Client) -> Result<Vec<String>> {
    let keys = admin.0.get("/openid/v1/jwks").await?.json();
    let names = keys["keys"].as_array().into_iter().flatten().filter_map(|key| key["kid"].as_str());
    Ok(names.map(str::to_owned).collect())
}
