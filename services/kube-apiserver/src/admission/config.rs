//! The file of `--admission-control-config-file`: apiserver.config.k8s.io/v1 AdmissionConfiguration, of which one plugin has anything to set.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config_file;

use super::pod_security::policy::{Level, Policy, Version};

const POD_SECURITY: &str = "pod-security.admission.config.k8s.io/v1";

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("--admission-control-config-file {0}: {1}")]
    Read(String, std::io::Error),
    /// It is not an AdmissionConfiguration.
    #[error("--admission-control-config-file {0}: {1}")]
    Form(String, String),
}

/// What plugins are told.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// What namespaces without labels enforce.
    pub enforce: Policy,
    /// What they warn about.
    pub warn: Policy,
    /// Whom PodSecurity does not concern.
    pub exempt: Exemptions,
}

/// Users, runtime classes and namespaces that are not judged.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Exemptions {
    /// User names.
    pub usernames: Vec<String>,
    /// Names of RuntimeClasses.
    pub runtime_classes: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
}

impl Default for Configuration {
    fn default() -> Self {
        Self { enforce: Policy::OPEN, warn: Policy::OPEN, exempt: Exemptions::default() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    plugins: Vec<PluginEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginEntry {
    name: String,
    configuration: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodSecurityFile {
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Defaults {
    enforce: Option<String>,
    enforce_version: Option<String>,
    audit: Option<String>,
    audit_version: Option<String>,
    warn: Option<String>,
    warn_version: Option<String>,
}

impl Configuration {
    /// From the file, or the defaults if there is none.
    pub fn read(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self::default()) };
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Error::Read(shown.clone(), e))?;
        Self::parse(&text).map_err(|why| Error::Form(shown, why))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (file, lines): (File, _) = config_file::parse(text, &[config_file::V1], "AdmissionConfiguration")?;
        let mut read = Self::default();
        for (index, plugin) in file.plugins.into_iter().enumerate() {
            if plugin.name != "PodSecurity" {
                return Err(lines.place(&format!("plugins[{index}].name: {} is not supported", plugin.name)));
            }
            let at = format!("plugins[{index}].configuration");
            let kind = "PodSecurityConfiguration";
            let inner: PodSecurityFile =
                config_file::of_kind(plugin.configuration, &[POD_SECURITY], kind, &lines, &at)?;
            let policy =
                |mode, level, version| policy(mode, level, version).map_err(|why| lines.place(&format!("{at}.{why}")));
            let defaults = inner.defaults;
            read.enforce = policy("enforce", defaults.enforce, defaults.enforce_version)?;
            read.warn = policy("warn", defaults.warn, defaults.warn_version)?;
            policy("audit", defaults.audit, defaults.audit_version)?;
            read.exempt = inner.exemptions;
        }
        Ok(read)
    }
}

fn policy(mode: &str, level: Option<String>, version: Option<String>) -> Result<Policy, String> {
    let mut policy = Policy::OPEN;
    if let Some(text) = level {
        policy.level = Level::parse(&text).map_err(|why| format!("defaults.{mode}: {why}"))?;
    }
    if let Some(text) = version {
        policy.version = Version::parse(&text).map_err(|why| format!("defaults.{mode}-version: {why}"))?;
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: PodSecurity\n  configuration:\n    apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: PodSecurityConfiguration\n";

    #[test]
    fn pod_security_is_configured() {
        let text = format!(
            "{HEAD}    defaults:\n      enforce: baseline\n      warn: restricted\n      warn-version: v1.30\n    exemptions:\n      namespaces: [kube-system]\n"
        );
        let read = Configuration::parse(&text).expect("valid");
        assert_eq!(
            (read.enforce.to_string(), read.warn.to_string()),
            ("baseline:latest".into(), "restricted:v1.30".into())
        );
        assert_eq!(read.exempt.namespaces, ["kube-system"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            (
                format!("{HEAD}    defaults:\n      enforce: tight\n"),
                "line 9: plugins[0].configuration.defaults.enforce: must be one of privileged, baseline, restricted",
            ),
            (format!("{HEAD}    defalts: {{}}\n"), "line 8: plugins[0].configuration.defalts: unknown field"),
            (HEAD.replace("- name: PodSecurity", "- name: Other"), "line 4: plugins[0].name: Other is not supported"),
            ("apiVersion: v1\nkind: Pod\n".to_owned(), "expected apiserver.config.k8s.io/v1 AdmissionConfiguration"),
        ] {
            let said = Configuration::parse(&text).expect_err("wrong");
            assert!(said.contains(why), "{said}");
        }
    }
}
