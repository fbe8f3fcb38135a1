//! cortenctl.yaml: where machines are and how to prove who one is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::Global;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The current context.
    context: String,
    contexts: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    endpoints: Vec<String>,
    #[serde(default)]
    nodes: Vec<String>,
    ca: String,
    crt: String,
    key: String,
}

/// One context, with its PEM texts decoded.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) endpoints: Vec<String>,
    pub(crate) nodes: Vec<String>,
    pub(crate) ca: String,
    pub(crate) crt: String,
    pub(crate) key: String,
}

/// The context the flags choose.
pub(crate) fn load(global: &Global) -> anyhow::Result<Context> {
    let path = path(global)?;
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    parse(&text, global.context.as_deref()).with_context(|| path.display().to_string())
}

fn path(global: &Global) -> anyhow::Result<PathBuf> {
    if let Some(path) = &global.config {
        return Ok(path.clone());
    }
    if let Some(path) = std::env::var_os("CORTENCONFIG").filter(|p| !p.is_empty()) {
        return Ok(path.into());
    }
    let home = std::env::var_os("HOME").ok_or_else(|| anyhow!("no credentials: give --config or set CORTENCONFIG"))?;
    let path = Path::new(&home).join(".corten/config");
    if !path.exists() {
        bail!("no credentials: give --config or set CORTENCONFIG ({} does not exist either)", path.display());
    }
    Ok(path)
}

fn parse(text: &str, name: Option<&str>) -> anyhow::Result<Context> {
    let file: File = serde_saphyr::from_str(text).map_err(|e| anyhow!("{}", e.without_snippet()))?;
    let name = name.unwrap_or(&file.context);
    let entry = file.contexts.get(name).ok_or_else(|| anyhow!("there is no context {name:?}"))?.clone();
    let pem = |field: &str, value: &str| {
        let bytes = STANDARD.decode(value.trim()).map_err(|_| anyhow!("contexts.{name}.{field} is not base64"))?;
        String::from_utf8(bytes).map_err(|_| anyhow!("contexts.{name}.{field} is not base64 of a PEM text"))
    };
    Ok(Context {
        ca: pem("ca", &entry.ca)?,
        crt: pem("crt", &entry.crt)?,
        key: pem("key", &entry.key)?,
        endpoints: entry.endpoints,
        nodes: entry.nodes,
    })
}

/// The text of a file with one context.
pub(crate) fn render(name: &str, endpoint: &str, ca: &str, identity: &pki::Issued) -> String {
    format!(
        "context: {name:?}\ncontexts:\n  {name:?}:\n    endpoints: [{endpoint:?}]\n    ca: {}\n    crt: {}\n    key: {}\n",
        STANDARD.encode(ca),
        STANDARD.encode(&identity.cert_pem),
        STANDARD.encode(&identity.key_pem),
    )
}

#[cfg(test)]
mod tests {
    use super::{parse, render};

    #[test]
    fn what_is_written_can_be_read() {
        let identity = pki::Issued { cert_pem: "C".into(), key_pem: "K".into() };
        let context = parse(&render("demo", "10.0.2.15", "CA", &identity), None).unwrap();
        assert_eq!(
            (context.endpoints[0].as_str(), context.ca.as_str(), context.crt.as_str(), context.key.as_str()),
            ("10.0.2.15", "CA", "C", "K")
        );
        let wrong = parse(&render("demo", "h", "CA", &identity), Some("other")).unwrap_err();
        assert_eq!(wrong.to_string(), "there is no context \"other\"");
        assert!(parse("contexts: {}\n", None).is_err());
    }
}
