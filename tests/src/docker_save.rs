//! From the OCI archive that the image build makes to the older form that `docker save` writes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Writes `archive`'s only image to `target` under another name.
pub fn convert(archive: &Path, name: &str, target: &Path) -> Result<()> {
    let mut files = HashMap::new();
    let source = File::open(archive).with_context(|| archive.display().to_string())?;
    for entry in tar::Archive::new(source).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(path, bytes);
    }
    let file = |path: &str| files.get(path).with_context(|| format!("{}: no {path}", archive.display()));
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        file(&format!("blobs/{}", digest.replace(':', "/")))
    };
    let index: Value = serde_json::from_slice(file("index.json")?)?;
    let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0])?)?;
    let saved = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["0/layer.tar"] }]);
    let mut builder = tar::Builder::new(File::create(target).with_context(|| target.display().to_string())?);
    let mut add = |path: &str, bytes: &[u8]| -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        Ok(builder.append_data(&mut header, path, bytes)?)
    };
    add("config.json", blob(&manifest["config"])?)?;
    add("0/layer.tar", blob(&manifest["layers"][0])?)?;
    add("manifest.json", &serde_json::to_vec(&saved)?)?;
    builder.finish()?;
    fs::metadata(target).map(drop).with_context(|| target.display().to_string())
}
