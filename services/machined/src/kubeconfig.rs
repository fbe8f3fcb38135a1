//! kubeconfig files with everything inside.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pki::Issued;

/// A kubeconfig for one user of one cluster.
pub(crate) fn render(cluster: &str, user: &str, server: &str, ca_pem: &str, identity: &Issued) -> String {
    let context = format!("{user}@{cluster}");
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {context:?}\ncontexts:\n- name: {context:?}\n  context:\n    cluster: {cluster:?}\n    user: {user:?}\n\
         clusters:\n- name: {cluster:?}\n  cluster:\n    server: {server:?}\n    certificate-authority-data: {}\n\
         users:\n- name: {user:?}\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        STANDARD.encode(ca_pem),
        STANDARD.encode(&identity.cert_pem),
        STANDARD.encode(&identity.key_pem),
    )
}
