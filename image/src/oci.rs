//! OCI image archives, made by hand: a layer with one static program, a configuration, a manifest, an index, in one tar file.
//! Every byte follows from the input, so the image's digest is a fact about the program.

use crate::packages::hex;
use crate::workspace::source_date_epoch;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// An image of one program.
pub struct Image<'a> {
    name: &'a str,
    program_path: &'a str,
    program: PathBuf,
    arguments: &'a [&'a str],
}

/// `name` is the full reference; `arguments` the default command after the entry point.
pub fn single_binary<'a>(name: &'a str, program_path: &'a str, program: &Path, arguments: &'a [&'a str]) -> Image<'a> {
    Image { name, program_path, program: program.to_owned(), arguments }
}

/// The archive's bytes.
pub fn archive(image: &Image) -> Result<Vec<u8>> {
    let program = crate::read(&image.program)?;
    assemble(image, &program)
}

fn assemble(image: &Image, program: &[u8]) -> Result<Vec<u8>> {
    // Not compressed: the root file system that carries it is, and unpacking costs a node time.
    let layer = tar_of(&[(image.program_path.trim_start_matches('/').to_owned(), 0o755, program.to_vec())])?;
    let layer_digest = digest(&layer);
    let created = jiff::Timestamp::from_second(source_date_epoch()).context("SOURCE_DATE_EPOCH")?.to_string();
    let config = to_bytes(&json!({
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": { "Entrypoint": [image.program_path], "Cmd": image.arguments, "WorkingDir": "/", "User": "65535:65535" },
        "rootfs": { "type": "layers", "diff_ids": [layer_digest] },
        "history": [{ "created": created, "created_by": "corten image" }],
    }))?;
    let manifest = to_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    entry["annotations"] = json!({
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": image.name.rsplit(':').next().unwrap_or("latest"),
    });
    let index = to_bytes(
        &json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry] }),
    )?;
    let mut files = vec![
        ("oci-layout".to_owned(), 0o644, to_bytes(&json!({ "imageLayoutVersion": "1.0.0" }))?),
        ("index.json".to_owned(), 0o644, index),
    ];
    for blob in [layer, config, manifest] {
        files.push((format!("blobs/sha256/{}", hex(&Sha256::digest(&blob))), 0o644, blob));
    }
    files.sort();
    tar_of(&files)
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn to_bytes(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

fn tar_of(files: &[(String, u32, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(source_date_epoch()).unwrap_or(0));
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, path, &bytes[..])?;
    }
    Ok(builder.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    fn image() -> Image<'static> {
        single_binary("corten.local/x:v1", "/x", Path::new("/nowhere"), &["serve"])
    }

    fn unpack(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect()
    }

    #[test]
    fn every_reference_leads_to_its_bytes() {
        let files = unpack(&assemble(&image(), b"program").unwrap());
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let blob = |descriptor: &Value| {
            let name = descriptor["digest"].as_str().unwrap().replace(':', "/");
            let bytes = files[&format!("blobs/{name}")].clone();
            assert_eq!(descriptor["size"], bytes.len());
            assert_eq!(descriptor["digest"], digest(&bytes));
            bytes
        };
        let index = parse(&files["index.json"]);
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "corten.local/x:v1");
        let manifest = parse(&blob(&index["manifests"][0]));
        let layer = blob(&manifest["layers"][0]);
        let config = parse(&blob(&manifest["config"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(config["config"]["Cmd"][0], "serve");
        assert_eq!(unpack(&layer)["x"], b"program");
    }

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        let make = || assemble(&image(), b"program").unwrap();
        assert_eq!(make(), make());
        assert_ne!(make(), assemble(&image(), b"another").unwrap());
    }
}
