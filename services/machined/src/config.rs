//! Where the configuration comes from, and which one wins.

use std::path::{Path, PathBuf};

use machine_config::{Config, Role};
use pki::Ca;

use crate::files::{self, FileError};
use crate::machine::Paths;

const ARGUMENT: &str = "corten.config=";

/// Why there is no configuration: one clear line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{ARGUMENT}{path}: {source}")]
    Argument { path: PathBuf, source: std::io::Error },
    #[error("no machine configuration yet")]
    None,
    #[error("{path}: {source}")]
    Stored { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Invalid(#[from] machine_config::Problems),
    #[error("{file}: {path}: {source}")]
    Authority { file: String, path: &'static str, source: pki::Error },
}

/// Finds and checks the configuration: what was applied during this boot, else the kernel argument's file, else the
/// stored one. A file that the argument names but that is missing or wrong is not replaced by the stored one: the
/// administrator asked for that file.
pub(crate) fn load(paths: &Paths, command_line: &str) -> Result<Config, ConfigError> {
    // Without this, a restart of this daemon alone would undo what got the machine out of maintenance mode.
    let applied = paths.applied_config();
    if let Ok(text) = std::fs::read_to_string(&applied) {
        return check(&applied.display().to_string(), &text);
    }
    if let Some(path) = argument(command_line) {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Argument { path: path.into(), source })?;
        return check(path, &text);
    }
    let path = paths.stored_config();
    match std::fs::read_to_string(&path) {
        Ok(text) => check(&path.display().to_string(), &text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(ConfigError::None),
        Err(source) => Err(ConfigError::Stored { path, source }),
    }
}

/// Checks a document, and that its keys belong to its certificates.
pub(crate) fn check(file: &str, text: &str) -> Result<Config, ConfigError> {
    let config = machine_config::parse(file, text)?;
    let wrong = |path| move |source| ConfigError::Authority { file: file.to_owned(), path, source };
    if let Role::ControlPlane(keys) = &config.role {
        Ca::from_pem(&config.machine.ca_cert, &keys.machine_ca_key).map_err(wrong("machine.ca"))?;
        Ca::from_pem(&config.cluster.ca_cert, &keys.cluster_ca_key).map_err(wrong("cluster.ca"))?;
        Ca::from_pem(&keys.etcd_ca.cert, &keys.etcd_ca.key).map_err(wrong("cluster.etcd.ca"))?;
        pki::KeyPair::from_pem(&keys.service_account_key).map_err(wrong("cluster.serviceAccount.key"))?;
    } else {
        pki::certificates_from_pem(&config.machine.ca_cert).map_err(wrong("machine.ca.crt"))?;
        pki::certificates_from_pem(&config.cluster.ca_cert).map_err(wrong("cluster.ca.crt"))?;
    }
    Ok(config)
}

/// Stores a configuration that was checked.
pub(crate) fn store(paths: &Paths, text: &str) -> Result<(), FileError> {
    files::replace(&paths.stored_config(), text.as_bytes(), true, true)
}

/// Keeps a configuration for the rest of this boot.
pub(crate) fn keep_applied(paths: &Paths, text: &str) -> Result<(), FileError> {
    files::replace(&paths.applied_config(), text.as_bytes(), true, false)
}

/// The file the kernel argument names. The last one counts, as everywhere on a kernel's command line.
pub(crate) fn argument(command_line: &str) -> Option<&str> {
    command_line
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix(ARGUMENT))
        .next_back()
        .filter(|p| !p.is_empty())
}

/// The kernel's command line, or what stands for it where there is no kernel of our own.
pub(crate) fn command_line() -> String {
    if std::env::var("CORTEN_DRIVER").is_ok_and(|d| d == "namespace") {
        return std::env::var("CORTEN_CMDLINE").unwrap_or_default();
    }
    std::fs::read_to_string(Path::new("/proc/cmdline")).unwrap_or_default()
}
