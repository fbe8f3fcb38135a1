//! kubeconfig files: the current context's server, authorities and credentials.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Why a kubeconfig cannot be used; always names the file.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// The file, or one that it refers to, cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is not a kubeconfig.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
}

/// What a connection needs, in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub server: String,
    pub ca: Vec<u8>,
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    pub token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
}

/// Reads the current context of a kubeconfig.
pub(crate) fn load(path: &Path) -> Result<Access, KubeconfigError> {
    let text = read(path)?;
    let content = |reason: String| KubeconfigError::Content { path: path.to_owned(), reason };
    let text = String::from_utf8(text).map_err(|e| content(e.to_string()))?;
    let config: Kubeconfig = serde_saphyr::from_str(&text).map_err(|e| content(e.to_string()))?;
    let missing = |what: &str, name: &str| content(format!("{what} {name:?} is not defined"));
    let context = config
        .contexts
        .into_iter()
        .find(|c| c.name == config.current_context)
        .ok_or_else(|| missing("current-context", &config.current_context))?
        .context;
    let cluster = config
        .clusters
        .into_iter()
        .find(|c| c.name == context.cluster)
        .ok_or_else(|| missing("cluster", &context.cluster))?
        .cluster;
    let user =
        config.users.into_iter().find(|u| u.name == context.user).ok_or_else(|| missing("user", &context.user))?.user;
    let pem = |field: &str, data: Option<String>, file: Option<PathBuf>| inline_or_file(path, field, data, file);
    let ca = pem("certificate-authority", cluster.certificate_authority_data, cluster.certificate_authority)?
        .ok_or_else(|| content("certificate-authority is missing".to_owned()))?;
    let certificate = pem("client-certificate", user.client_certificate_data, user.client_certificate)?;
    let key = pem("client-key", user.client_key_data, user.client_key)?;
    Ok(Access { server: cluster.server, ca, certificate: certificate.zip(key), token: user.token })
}

/// Data wins over a file name, as in upstream's clients; relative names are taken from the kubeconfig's folder.
fn inline_or_file(
    config: &Path,
    field: &str,
    data: Option<String>,
    file: Option<PathBuf>,
) -> Result<Option<Vec<u8>>, KubeconfigError> {
    if let Some(data) = data {
        return STANDARD
            .decode(data.trim())
            .map(Some)
            .map_err(|e| KubeconfigError::Content { path: config.to_owned(), reason: format!("{field}-data: {e}") });
    }
    let folder = config.parent().unwrap_or(Path::new(""));
    file.map(|file| read(&folder.join(file))).transpose()
}

fn read(path: &Path) -> Result<Vec<u8>, KubeconfigError> {
    std::fs::read(path).map_err(|source| KubeconfigError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(name: &str, text: &str) -> Result<Access, KubeconfigError> {
        let path = std::env::temp_dir().join(format!("kubeconfig-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let access = load(&path);
        std::fs::remove_file(path).unwrap();
        access
    }

    #[test]
    fn reads_the_current_context_with_inline_data() {
        let access = load_text(
            "inline",
            "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts:\n- name: x\n  context: {cluster: c, user: u}\n\
             clusters:\n- name: c\n  cluster: {server: 'https://h:6443', certificate-authority-data: Q0E=}\n\
             users:\n- name: u\n  user: {client-certificate-data: Q1JU, client-key-data: S0VZ}\n",
        )
        .unwrap();
        assert_eq!((access.server.as_str(), access.ca.as_slice()), ("https://h:6443", b"CA".as_slice()));
        assert_eq!(access.certificate, Some((b"CRT".to_vec(), b"KEY".to_vec())));
    }

    #[test]
    fn names_what_is_missing() {
        let error = load_text("missing", "current-context: nope\n").unwrap_err();
        assert!(error.to_string().contains("current-context \"nope\" is not defined"), "{error}");
    }
}
