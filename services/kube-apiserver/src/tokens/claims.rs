//! What a token says, and whether that is acceptable. No clock, no keys.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::authn::{CREDENTIAL_ID, UserInfo};
use crate::registry::strategy::tree::{at, int_at, items, str_at};

/// Clocks of a cluster's machines differ by less than this.
const LEEWAY: i64 = 60;
/// The lifetime that admission asks for: such tokens are refreshed by the kubelet at that pace but stay valid for a year, for clients
/// that read the file only once.
const INJECTED_SECONDS: i64 = 3607;
const YEAR: i64 = 365 * 24 * 3600;

/// A name and the uid that makes it unique for all time.
pub type Ref = (String, String);

/// What a token stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// The account's namespace.
    pub namespace: String,
    /// The account.
    pub service_account: Ref,
    /// The pod it dies with.
    pub pod: Option<Ref>,
    /// The node of that pod, or the node it dies with.
    pub node: Option<Ref>,
    /// The secret it dies with.
    pub secret: Option<Ref>,
}

/// For how long, from when.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Asked for.
    pub seconds: i64,
    /// Unix time.
    pub now: i64,
    /// Only this server is the audience, so that an injected token may outlive its refresh.
    pub extend: bool,
}

/// A token that was signed by us, is in force, and is meant for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// Who bears it.
    pub user: UserInfo,
    /// The audiences that fit.
    pub audiences: Vec<String>,
    /// The account's namespace.
    pub namespace: String,
    /// The account's name.
    pub service_account: String,
    /// The account's uid.
    pub sa_uid: String,
    /// The pod it is bound to.
    pub pod: Option<Ref>,
    /// The secret it is bound to.
    pub secret: Option<Ref>,
    /// The node it is bound to, when it is bound to that alone.
    pub node: Option<Ref>,
}

/// The claims of a new token.
pub fn build(issuer: &str, bound: &Bound, audiences: &[String], life: Life) -> Value {
    let object = |(name, uid): &Ref| json!({"name": name, "uid": uid});
    let mut private = json!({"namespace": bound.namespace, "serviceaccount": object(&bound.service_account)});
    for (key, target) in [("pod", &bound.pod), ("node", &bound.node), ("secret", &bound.secret)] {
        if let Some(target) = target {
            private[key] = object(target);
        }
    }
    let mut expiry = life.now + life.seconds;
    if life.extend && life.seconds == INJECTED_SECONDS && bound.pod.is_some() {
        private["warnafter"] = json!(expiry);
        expiry = life.now + YEAR;
    }
    json!({
        "iss": issuer,
        "sub": user_name(&bound.namespace, &bound.service_account.0),
        "aud": audiences,
        "iat": life.now,
        "nbf": life.now,
        "exp": expiry,
        "jti": uuid::Uuid::new_v4().to_string(),
        "kubernetes.io": private,
    })
}

/// The user name of an account.
pub fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// Judges the claims of a token whose signature is good.
pub fn check(claims: &Value, issuers: &[String], audiences: &[String], now: i64) -> Result<VerifiedToken, String> {
    let issuer = str_at(claims, &["iss"]);
    if !issuers.iter().any(|i| i == issuer) {
        return Err(format!("the token's issuer {issuer:?} is not this cluster"));
    }
    match int_at(claims, &["exp"]) {
        Some(exp) if now <= exp + LEEWAY => {}
        _ => return Err("service account token has expired".into()),
    }
    if int_at(claims, &["nbf"]).is_some_and(|nbf| now + LEEWAY < nbf) {
        return Err("service account token is not valid yet".into());
    }
    let single = claims["aud"].as_str();
    let own: Vec<&str> = items(claims, &["aud"]).iter().filter_map(Value::as_str).chain(single).collect();
    let fitting: Vec<String> = audiences.iter().filter(|a| own.contains(&a.as_str())).cloned().collect();
    if fitting.is_empty() {
        return Err(format!("token audiences {own:?} is invalid for the target audiences {audiences:?}"));
    }
    let private = at(claims, &["kubernetes.io"]).ok_or("the token is not bound to a service account")?;
    let target =
        |key: &str| at(private, &[key]).map(|o| (str_at(o, &["name"]).to_owned(), str_at(o, &["uid"]).to_owned()));
    let namespace = str_at(private, &["namespace"]).to_owned();
    let (service_account, sa_uid) = target("serviceaccount").ok_or("the token names no service account")?;
    let name = user_name(&namespace, &service_account);
    if str_at(claims, &["sub"]) != name || namespace.is_empty() || service_account.is_empty() {
        return Err("the token's subject does not fit its service account".into());
    }
    let (pod, node, secret) = (target("pod"), target("node"), target("secret"));
    let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    let mut user = UserInfo::authenticated(name, groups);
    user.uid.clone_from(&sa_uid);
    user.extra = extra(str_at(claims, &["jti"]), pod.as_ref(), node.as_ref());
    let node = node.filter(|_| pod.is_none());
    Ok(VerifiedToken { user, audiences: fitting, namespace, service_account, sa_uid, pod, secret, node })
}

fn extra(id: &str, pod: Option<&Ref>, node: Option<&Ref>) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::new();
    if !id.is_empty() {
        extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
    }
    for (kind, target) in [("pod", pod), ("node", node)] {
        if let Some((name, uid)) = target {
            extra.insert(format!("authentication.kubernetes.io/{kind}-name"), vec![name.clone()]);
            extra.insert(format!("authentication.kubernetes.io/{kind}-uid"), vec![uid.clone()]);
        }
    }
    extra
}
