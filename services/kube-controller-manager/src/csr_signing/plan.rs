//! Which certificates a signer gives. Pure.

use apimachinery::meta;
use pki::{Requested, Uses};
use serde_json::Value;

use crate::object;

pub(crate) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY: &str = "kubernetes.io/legacy-unknown";
/// All signers of the cluster's own.
pub(crate) const SIGNERS: [&str; 4] = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY];
/// Nobody gets less, in seconds.
const SHORTEST: i64 = 600;

/// Approved, not denied, and neither signed nor given up.
pub(super) fn is_to_be_signed(csr: &Value) -> bool {
    let has = |kind| meta::condition(csr, kind).is_some();
    let signed = csr["status"]["certificate"].as_str().is_some_and(|certificate| !certificate.is_empty());
    let ours = SIGNERS.contains(&object::text(csr, "/spec/signerName"));
    ours && has("Approved") && !has("Denied") && !has("Failed") && !signed
}

/// Seconds that the certificate lives: what was asked for, within the signer's limit.
pub(super) fn lifetime(csr: &Value, limit: i64) -> i64 {
    object::int(csr, "/spec/expirationSeconds").map_or(limit, |asked| asked.max(SHORTEST).min(limit))
}

/// What the certificate may be used for.
///
/// # Errors
/// The request breaks a rule of its signer; the text names it.
pub(crate) fn permit(csr: &Value, requested: &Requested) -> Result<Uses, String> {
    let uses = uses(csr)?;
    match object::text(csr, "/spec/signerName") {
        CLIENT if uses.server_auth || !uses.client_auth => {
            Err("usages did not match expected usages: \"client auth\" and no \"server auth\"".to_owned())
        }
        KUBELET_CLIENT => check_kubelet_client(requested, uses).map(|()| uses),
        KUBELET_SERVING => check_kubelet_serving(requested, uses).map(|()| uses),
        _ => Ok(uses),
    }
}

fn uses(csr: &Value) -> Result<Uses, String> {
    let mut uses = Uses::default();
    for usage in object::list(csr, "/spec/usages") {
        match usage.as_str().unwrap_or_default() {
            "digital signature" => uses.digital_signature = true,
            "key encipherment" => uses.key_encipherment = true,
            "client auth" => uses.client_auth = true,
            "server auth" => uses.server_auth = true,
            other => return Err(format!("unsupported usage: {other:?}")),
        }
    }
    Ok(uses)
}

fn check_node(requested: &Requested) -> Result<(), String> {
    if requested.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes".to_owned());
    }
    if !requested.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node:".to_owned());
    }
    Ok(())
}

fn check_kubelet_client(requested: &Requested, uses: Uses) -> Result<(), String> {
    check_node(requested)?;
    if requested.other_names + requested.dns_names.len() + requested.ips.len() > 0 {
        return Err("subjectAltNames are not allowed".to_owned());
    }
    if !uses.client_auth || uses.server_auth || !uses.digital_signature {
        return Err("usages did not match expected usages".to_owned());
    }
    Ok(())
}

fn check_kubelet_serving(requested: &Requested, uses: Uses) -> Result<(), String> {
    check_node(requested)?;
    if requested.dns_names.is_empty() && requested.ips.is_empty() {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    if requested.other_names > 0 {
        return Err("only DNS and IP subjectAltNames are allowed".to_owned());
    }
    if uses.client_auth || !uses.server_auth || !uses.digital_signature {
        return Err("usages did not match expected usages".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_signer_has_its_rules() {
        let node = Requested {
            common_name: "system:node:a".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            ..Requested::default()
        };
        let serving = Requested { dns_names: vec!["a".to_owned()], ..node.clone() };
        let user = Requested { common_name: "jane".to_owned(), ..Requested::default() };
        let client = json!(["digital signature", "client auth"]);
        let server = json!(["digital signature", "key encipherment", "server auth"]);
        let cases = [
            (CLIENT, &user, &client, Ok(())),
            (CLIENT, &user, &server, Err("usages")),
            (KUBELET_CLIENT, &node, &client, Ok(())),
            (KUBELET_CLIENT, &user, &client, Err("organization")),
            (KUBELET_CLIENT, &serving, &client, Err("subjectAltNames")),
            (KUBELET_CLIENT, &node, &server, Err("usages")),
            (KUBELET_SERVING, &serving, &server, Ok(())),
            (KUBELET_SERVING, &node, &server, Err("required")),
            (KUBELET_SERVING, &serving, &client, Err("usages")),
            (LEGACY, &user, &server, Ok(())),
            (LEGACY, &user, &json!(["code signing"]), Err("code signing")),
        ];
        for (signer, requested, usages, expected) in cases {
            let csr = json!({"spec": {"signerName": signer, "usages": usages}});
            match (permit(&csr, requested), expected) {
                (Ok(_), Ok(())) => {}
                (Err(got), Err(part)) => assert!(got.contains(part), "{signer}: {got}"),
                (got, _) => panic!("{signer} {usages}: {got:?}"),
            }
        }
    }

    #[test]
    fn only_approved_requests_and_only_once() {
        let csr = |conditions: &[&str], certificate: &str| {
            let conditions: Vec<Value> = conditions.iter().map(|kind| json!({"type": kind})).collect();
            json!({"spec": {"signerName": CLIENT, "expirationSeconds": 10},
                   "status": {"conditions": conditions, "certificate": certificate}})
        };
        let cases: [(&[&str], &str, bool); 5] = [
            (&[], "", false),
            (&["Approved"], "", true),
            (&["Approved"], "x", false),
            (&["Approved", "Denied"], "", false),
            (&["Approved", "Failed"], "", false),
        ];
        for (conditions, certificate, expected) in cases {
            assert_eq!(is_to_be_signed(&csr(conditions, certificate)), expected, "{conditions:?}");
        }
        assert_eq!(lifetime(&csr(&[], ""), 3600), 600);
        assert_eq!(lifetime(&json!({}), 3600), 3600);
    }
}
