use super::claims::{Bound, Life, build, check};
use super::keys::{Signer, Verifier};
use super::*;

const ISSUER: &str = "https://issuer";

fn tokens(pem: &str) -> Tokens {
    let signer = Signer::from_pem(pem).expect("key");
    let verifiers = vec![signer.verifier()];
    Tokens { signer, verifiers, seen: Seen::default(), issuers: vec![ISSUER.into()], audiences: vec!["api".into()] }
}

fn bound() -> Bound {
    Bound {
        namespace: "ns".into(),
        service_account: ("sa".into(), "sa-uid".into()),
        pod: Some(("pod".into(), "pod-uid".into())),
        node: Some(("node".into(), "node-uid".into())),
        secret: None,
    }
}

fn now() -> i64 {
    jsonwebtoken::get_current_timestamp().cast_signed()
}

#[test]
fn both_kinds_of_key_sign_and_verify() {
    let ec = pki::KeyPair::generate().expect("ec");
    let rsa = pki::service_account_key().expect("rsa");
    for (pair, algorithm) in [(&ec, "ES256"), (&rsa, "RS256")] {
        let tokens = tokens(pair.private_pem());
        let token = tokens.issue(&bound(), &["api".into()], 600, now()).expect("token");
        let seen = tokens.verify(&token, &[]).expect("verifies");
        assert_eq!(seen.user.name, "system:serviceaccount:ns:sa");
        assert_eq!(seen.user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
        assert_eq!(seen.user.extra["authentication.kubernetes.io/pod-name"], ["pod"]);
        assert_eq!(seen.pod, Some(("pod".into(), "pod-uid".into())));
        let mut forged = token.clone();
        let last = if forged.pop() == Some('A') { 'B' } else { 'A' };
        forged.insert(forged.len() - 8, last);
        assert!(tokens.verify(&forged, &[]).is_err(), "a changed signature");
        assert_eq!(tokens.openid_configuration()["id_token_signing_alg_values_supported"], json!([algorithm]));
        assert_eq!(tokens.jwks()["keys"][0]["alg"], algorithm);
        let public = Verifier::from_pem(pair.public_pem()).expect("public half");
        assert_eq!(public[0].kid, tokens.verifiers[0].kid, "both halves have one name");
    }
    let stranger = tokens(rsa.private_pem());
    let token = tokens(ec.private_pem()).issue(&bound(), &["api".into()], 600, now()).expect("token");
    assert!(stranger.verify(&token, &[]).is_err(), "another cluster's key");
}

#[test]
fn claims_are_judged() {
    let issuers = [ISSUER.to_owned()];
    let api = ["api".to_owned()];
    let life = Life { seconds: 600, now: 1000, extend: true };
    let good = build(ISSUER, &bound(), &api, life);
    type Change = fn(&mut Value);
    let table: [(&str, Change, i64, bool); 7] = [
        ("as issued", |_| {}, 1000, true),
        ("within the leeway", |_| {}, 1650, true),
        ("expired", |_| {}, 1700, false),
        ("from the future", |c| c["nbf"] = json!(2000), 1500, false),
        ("another issuer", |c| c["iss"] = json!("x"), 1000, false),
        ("another audience", |c| c["aud"] = json!(["x"]), 1000, false),
        ("a subject that lies", |c| c["sub"] = json!("system:serviceaccount:kube-system:root"), 1000, false),
    ];
    for (name, change, now, ok) in table {
        let mut claims = good.clone();
        change(&mut claims);
        assert_eq!(check(&claims, &issuers, &api, now).is_ok(), ok, "{name}");
    }
}

#[test]
fn injected_tokens_outlive_their_refresh() {
    let at = |seconds, extend| build(ISSUER, &bound(), &["api".into()], Life { seconds, now: 0, extend });
    assert_eq!(at(3607, true)["exp"], 365 * 24 * 3600);
    assert_eq!(at(3607, true)["kubernetes.io"]["warnafter"], 3607);
    assert_eq!(at(3607, false)["exp"], 3607);
    assert_eq!(at(3600, true)["exp"], 3600);
}
