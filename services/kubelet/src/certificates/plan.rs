//! What a certificate request says, what its answer means and when the next one is due. Pure.

use std::net::IpAddr;

use pki::IssueRequest;
use serde_json::{Value, json};

/// What a certificate of the node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The node as a client of the API server.
    Client,
    /// The kubelet's own server.
    Server,
}

impl Role {
    /// The file names' beginning, as upstream's.
    pub fn stem(self) -> &'static str {
        match self {
            Role::Client => "kubelet-client",
            Role::Server => "kubelet-server",
        }
    }

    fn signer(self) -> &'static str {
        match self {
            Role::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Role::Server => "kubernetes.io/kubelet-serving",
        }
    }

    /// With elliptic curves nothing is ever encrypted to the key.
    fn uses(self) -> [&'static str; 2] {
        ["digital signature", if self == Role::Client { "client auth" } else { "server auth" }]
    }

    /// The names that stand in the certificate.
    pub fn names(self, node: &str, ips: &[String]) -> IssueRequest {
        let own = self == Role::Server;
        let ips: Vec<IpAddr> = ips.iter().filter(|_| own).filter_map(|ip| ip.parse().ok()).collect();
        IssueRequest {
            common_name: format!("system:node:{node}"),
            organizations: vec!["system:nodes".into()],
            dns_names: if own { vec![node.to_owned()] } else { Vec::new() },
            ips,
            ..IssueRequest::default()
        }
    }
}

/// The CertificateSigningRequest with a request in PEM, already in base64.
pub fn object(role: Role, request: &str) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "csr-"},
        "spec": {"request": request, "signerName": role.signer(), "usages": role.uses()},
    })
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody has decided, or the signer is not done.
    Pending,
    /// The certificate in base64 of PEM.
    Issued(String),
    /// It will never be issued.
    Refused(String),
}

/// Reads the answer.
pub fn verdict(csr: &Value) -> Verdict {
    let conditions = csr["status"]["conditions"].as_array().into_iter().flatten();
    let mut approved = false;
    for condition in conditions.filter(|c| c["status"] != "False") {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        match condition["type"].as_str() {
            Some("Denied") => {
                return Verdict::Refused(format!(
                    "certificate signing request is denied, reason: {}, message: {}",
                    text("reason"),
                    text("message")
                ));
            }
            Some("Failed") => {
                return Verdict::Refused(format!(
                    "certificate signing request failed, reason: {}, message: {}",
                    text("reason"),
                    text("message")
                ));
            }
            Some("Approved") => approved = true,
            _ => {}
        }
    }
    match csr["status"]["certificate"].as_str() {
        Some(certificate) if approved && !certificate.is_empty() => Verdict::Issued(certificate.to_owned()),
        _ => Verdict::Pending,
    }
}

/// When a certificate is due for renewal, in seconds since 1970: after 70 to 90 % of its life, by a number from 0 to 1, so
/// that the nodes of a cluster do not all come at once.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "lifetimes are far below 2^53 seconds"
)]
pub fn renew_at(not_before: i64, not_after: i64, jitter: f64) -> i64 {
    let life = (not_after - not_before) as f64;
    not_before + (life * (0.7 + 0.2 * jitter)).round() as i64
}

/// The kubeconfig of the node that has bootstrapped: the cluster of the bootstrap one, with the certificate's file.
///
/// # Errors
/// The bootstrap kubeconfig has no current context.
pub fn kubeconfig(bootstrap: &Value, pem: &str) -> Result<Value, String> {
    let entry = |list: &str, name: &Value| {
        let mut all = bootstrap[list].as_array().into_iter().flatten();
        all.find(|e| e["name"] == *name).cloned().ok_or(format!("{list}: {name} is not defined"))
    };
    let context = entry("contexts", &bootstrap["current-context"])?;
    let cluster = entry("clusters", &context["context"]["cluster"])?;
    Ok(json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": cluster["cluster"]}],
        "contexts": [{"name": "default-context", "context": {"cluster": "default-cluster", "user": "default-auth", "namespace": "default"}}],
        "current-context": "default-context",
        "users": [{"name": "default-auth", "user": {"client-certificate": pem, "client-key": pem}}],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_between_70_and_90_percent() {
        for (jitter, at) in [(0.0, 1700), (0.5, 1800), (1.0, 1900)] {
            assert_eq!(renew_at(1000, 2000, jitter), at);
        }
    }

    #[test]
    fn requests_are_of_the_signers_the_cluster_knows() {
        let client = object(Role::Client, "R");
        assert_eq!(client["spec"]["signerName"], "kubernetes.io/kube-apiserver-client-kubelet");
        assert_eq!(client["spec"]["usages"], json!(["digital signature", "client auth"]));
        let names = Role::Server.names("n", &["192.0.2.1".into()]);
        assert_eq!((names.common_name.as_str(), names.organizations[0].as_str()), ("system:node:n", "system:nodes"));
        assert_eq!((names.dns_names.len(), names.ips.len()), (1, 1));
        assert!(Role::Client.names("n", &["192.0.2.1".into()]).ips.is_empty());
    }

    #[test]
    fn answers_are_told_apart() {
        let csr = |kind: &str, certificate: Value| {
            verdict(
                &json!({"status": {"conditions": [{"type": kind, "status": "True", "reason": "R", "message": "M"}], "certificate": certificate}}),
            )
        };
        assert_eq!(verdict(&json!({})), Verdict::Pending);
        assert_eq!(csr("Approved", Value::Null), Verdict::Pending);
        assert_eq!(csr("Approved", "Q0VSVA==".into()), Verdict::Issued("Q0VSVA==".into()));
        assert_eq!(
            csr("Denied", Value::Null),
            Verdict::Refused("certificate signing request is denied, reason: R, message: M".into())
        );
        assert!(matches!(csr("Failed", Value::Null), Verdict::Refused(_)));
    }

    #[test]
    fn a_bootstrapped_node_keeps_its_cluster() {
        let bootstrap = json!({"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://s"}}], "users": [{"name": "u", "user": {"token": "t"}}]});
        let config = kubeconfig(&bootstrap, "/pki/kubelet-client-current.pem").unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://s");
        assert_eq!(config["users"][0]["user"]["client-key"], "/pki/kubelet-client-current.pem");
        assert!(config["users"][0]["user"].get("token").is_none());
        assert!(kubeconfig(&json!({"current-context": "y"}), "p").is_err());
    }
}
