//! What an archive's images consist of: the blobs to store, each with the labels by which the runtime's garbage collector
//! finds what it refers to, and the names that point at them.
//!
//! Understands OCI image layouts and the older docker-save form, whose manifests are made here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read as _;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::ImportError;
use super::archive::Archive;

/// What to store.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Children before the blobs that refer to them.
    pub(crate) blobs: Vec<Blob>,
    pub(crate) images: Vec<Image>,
}

#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) source: Source,
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(crate) enum Source {
    /// A file of the archive.
    Entry(String),
    /// Made here.
    Bytes(Vec<u8>),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) target: Descriptor,
}

/// A reference to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// An index or a manifest: the fields of both.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// One image of a docker-save archive.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

pub(super) fn plan(archive: &Archive) -> Result<Plan, ImportError> {
    let saved = archive.document("manifest.json")?;
    let plan = match (archive.document("index.json")?, saved) {
        (Some(index), saved) => layout(archive, &index, saved.as_deref())?,
        (None, Some(saved)) => docker_save(archive, &saved)?,
        (None, None) => {
            return Err(format_error("neither index.json (OCI layout) nor manifest.json (docker-save) is in it"));
        }
    };
    if plan.images.is_empty() {
        return Err(format_error("no image in it has a name"));
    }
    Ok(plan)
}

fn format_error(text: impl Into<String>) -> ImportError {
    ImportError::Format(text.into())
}

fn parse<'a, T: Deserialize<'a>>(name: &str, bytes: &'a [u8]) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|e| format_error(format!("{name}: {e}")))
}

fn layout(archive: &Archive, index: &[u8], saved: Option<&[u8]>) -> Result<Plan, ImportError> {
    let index: Document = parse("index.json", index)?;
    // Docker writes both forms and full names only into its own.
    let saved: Vec<Saved> = saved.map(|s| parse("manifest.json", s)).transpose()?.unwrap_or_default();
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    for target in index.manifests {
        let config = collect(archive, &target, &mut plan, &mut seen)?;
        let mut names: BTreeSet<String> = names_of(&target).into_iter().collect();
        for image in &saved {
            if config.as_deref().is_some_and(|c| image.config.ends_with(c)) {
                names.extend(image.repo_tags.iter().flatten().map(|n| full_name(n)));
            }
        }
        plan.images.extend(names.into_iter().map(|name| Image { name, target: target.clone() }));
    }
    Ok(plan)
}

/// containerd's annotation holds the full name; the standard's often holds only the tag, which names nothing.
fn names_of(target: &Descriptor) -> Option<String> {
    let name = target
        .annotations
        .get("io.containerd.image.name")
        .or_else(|| target.annotations.get("org.opencontainers.image.ref.name"))?;
    (name.contains('/') || name.contains(':')).then(|| full_name(name))
}

/// Adds a blob and all it refers to; returns the hexadecimal digest of the configuration if it is a manifest.
fn collect(
    archive: &Archive,
    target: &Descriptor,
    plan: &mut Plan,
    seen: &mut BTreeSet<String>,
) -> Result<Option<String>, ImportError> {
    let entry = blob_path(&target.digest)?;
    let bytes = archive.document(&entry)?.ok_or_else(|| format_error(format!("{entry} is missing")))?;
    let document: Document = parse(&entry, &bytes)?;
    let mut labels = BTreeMap::new();
    for (i, child) in document.manifests.iter().enumerate() {
        // An index may list platforms that the archive leaves out.
        if archive.size(&blob_path(&child.digest)?).is_some() {
            labels.insert(format!("containerd.io/gc.ref.content.m.{i}"), child.digest.clone());
            collect(archive, child, plan, seen)?;
        }
    }
    let config = document.config.as_ref().map(|c| (("containerd.io/gc.ref.content.config".to_owned()), c));
    let layers = document.layers.iter().enumerate().map(|(i, l)| (format!("containerd.io/gc.ref.content.l.{i}"), l));
    for (label, child) in config.into_iter().chain(layers) {
        labels.insert(label, child.digest.clone());
        leaf(archive, child, plan, seen)?;
    }
    if seen.insert(target.digest.clone()) {
        plan.blobs.push(Blob {
            digest: target.digest.clone(),
            size: target.size,
            source: Source::Entry(entry),
            labels,
        });
    }
    Ok(document.config.and_then(|c| c.digest.strip_prefix("sha256:").map(str::to_owned)))
}

fn leaf(
    archive: &Archive,
    child: &Descriptor,
    plan: &mut Plan,
    seen: &mut BTreeSet<String>,
) -> Result<(), ImportError> {
    let entry = blob_path(&child.digest)?;
    match archive.size(&entry) {
        None => return Err(format_error(format!("{entry} is missing"))),
        Some(size) if size != child.size => {
            return Err(format_error(format!("{entry} has {size} bytes, not {}", child.size)));
        }
        Some(_) => {}
    }
    if seen.insert(child.digest.clone()) {
        plan.blobs.push(Blob {
            digest: child.digest.clone(),
            size: child.size,
            source: Source::Entry(entry),
            labels: BTreeMap::new(),
        });
    }
    Ok(())
}

fn blob_path(digest: &str) -> Result<String, ImportError> {
    let fine =
        digest.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if fine {
        Ok(format!("blobs/{}", digest.replace(':', "/")))
    } else {
        Err(format_error(format!("{digest:?} is not a SHA-256 digest")))
    }
}

fn docker_save(archive: &Archive, saved: &[u8]) -> Result<Plan, ImportError> {
    let saved: Vec<Saved> = parse("manifest.json", saved)?;
    let mut plan = Plan::default();
    for image in saved {
        let config = add_file(archive, &image.config, DOCKER_CONFIG, &mut plan)?;
        let mut layers = Vec::new();
        for layer in &image.layers {
            layers.push(add_file(archive, layer, DOCKER_LAYER, &mut plan)?);
        }
        let mut labels = BTreeMap::from([("containerd.io/gc.ref.content.config".to_owned(), config.digest.clone())]);
        labels.extend(
            layers.iter().enumerate().map(|(i, l)| (format!("containerd.io/gc.ref.content.l.{i}"), l.digest.clone())),
        );
        let json = |d: &Descriptor| serde_json::json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size});
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": json(&config), "layers": layers.iter().map(json).collect::<Vec<_>>(),
        });
        let bytes = manifest.to_string().into_bytes();
        let target = Descriptor {
            media_type: DOCKER_MANIFEST.to_owned(),
            digest: digest(&bytes),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
        };
        plan.blobs.push(Blob {
            digest: target.digest.clone(),
            size: target.size,
            source: Source::Bytes(bytes),
            labels,
        });
        plan.images.extend(
            image.repo_tags.iter().flatten().map(|name| Image { name: full_name(name), target: target.clone() }),
        );
    }
    Ok(plan)
}

/// Adds a file whose digest nobody told us.
fn add_file(archive: &Archive, name: &str, media_type: &str, plan: &mut Plan) -> Result<Descriptor, ImportError> {
    let failed = |e: std::io::Error| format_error(format!("{name}: {e}"));
    let mut reader = archive.reader(name).map_err(failed)?;
    let (mut hash, mut size, mut gzip) = (Sha256::new(), 0, false);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = reader.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            break;
        }
        if size == 0 {
            gzip = buffer.starts_with(&[0x1f, 0x8b]);
        }
        hash.update(&buffer[..n]);
        size += n as u64;
    }
    let digest = hex(hash);
    let media_type = if gzip { format!("{media_type}.gzip") } else { media_type.to_owned() };
    if !plan.blobs.iter().any(|b| b.digest == digest) {
        plan.blobs.push(Blob {
            digest: digest.clone(),
            size,
            source: Source::Entry(name.to_owned()),
            labels: BTreeMap::new(),
        });
    }
    Ok(Descriptor { media_type, digest, size, annotations: BTreeMap::new() })
}

fn digest(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

fn hex(hash: Sha256) -> String {
    let mut text = "sha256:".to_owned();
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The name as the runtime looks it up: with a registry, a folder for Docker's own images, and a tag.
fn full_name(name: &str) -> String {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    let has_registry = !first.is_empty() && (first.contains(['.', ':']) || first == "localhost");
    let mut full = match (has_registry, first.is_empty()) {
        (true, _) => name.to_owned(),
        (false, true) => format!("docker.io/library/{name}"),
        (false, false) => format!("docker.io/{name}"),
    };
    if !rest.contains(':') && !rest.contains('@') {
        full.push_str(":latest");
    }
    full
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> (tempfile::NamedTempFile, Archive) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, *content).unwrap();
        }
        file.write_all(&tar.into_inner().unwrap()).unwrap();
        let archive = Archive::open(file.path()).unwrap();
        (file, archive)
    }

    #[test]
    fn names_are_completed_as_the_runtime_does() {
        for (name, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("library/nginx:1", "docker.io/library/nginx:1"),
            ("corten.local/test-web:v1", "corten.local/test-web:v1"),
            ("localhost/a", "localhost/a:latest"),
            ("host:5000/a/b", "host:5000/a/b:latest"),
            ("registry.k8s.io/pause:3.10.1", "registry.k8s.io/pause:3.10.1"),
        ] {
            assert_eq!(full_name(name), full);
        }
    }

    #[test]
    fn a_docker_archive_gets_a_manifest() {
        let manifest =
            br#"[{"Config":"c.json","RepoTags":["corten.local/test-web:v1"],"Layers":["l/layer.tar","l/layer.tar"]}]"#;
        let (_file, archive) =
            archive(&[("manifest.json", manifest), ("c.json", b"{}"), ("l/layer.tar", &[0x1f, 0x8b, 1, 2])]);
        let plan = plan(&archive).unwrap();
        assert_eq!(plan.images.len(), 1);
        assert_eq!(plan.blobs.len(), 3, "{plan:?}");
        let Source::Bytes(bytes) = &plan.blobs[2].source else { panic!("the manifest is last") };
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains("rootfs.diff.tar.gzip") && text.contains(&digest(b"{}")), "{text}");
        assert_eq!(plan.images[0].target.digest, digest(bytes));
        assert_eq!(plan.blobs[2].labels.len(), 3);
    }

    #[test]
    fn a_layout_is_taken_as_it_is_and_checked() {
        let (config, layer) = (b"{}".as_slice(), b"layer".as_slice());
        let manifest = format!(
            r#"{{"config":{{"digest":"{}","size":2}},"layers":[{{"digest":"{}","size":5}}]}}"#,
            digest(config),
            digest(layer)
        );
        let index = format!(
            r#"{{"manifests":[{{"mediaType":"m","digest":"{}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"registry.k8s.io/pause:3.10.1"}}}}]}}"#,
            digest(manifest.as_bytes()),
            manifest.len()
        );
        let path = |bytes: &[u8]| format!("blobs/{}", digest(bytes).replace(':', "/"));
        let (paths, all) =
            ([path(manifest.as_bytes()), path(config), path(layer)], [manifest.as_bytes(), config, layer]);
        let mut files: Vec<(&str, &[u8])> = vec![("oci-layout", b"{}"), ("index.json", index.as_bytes())];
        files.extend(paths.iter().map(String::as_str).zip(all));
        let (_file, whole) = archive(&files);
        let plan_of_whole = plan(&whole).unwrap();
        assert_eq!(plan_of_whole.images[0].name, "registry.k8s.io/pause:3.10.1");
        let order: Vec<_> = plan_of_whole.blobs.iter().map(|b| b.digest.clone()).collect();
        assert_eq!(order, [digest(config), digest(layer), digest(manifest.as_bytes())]);
        assert_eq!(plan_of_whole.blobs[2].labels["containerd.io/gc.ref.content.l.0"], digest(layer));

        let (_file, part) = archive(&files[..4]);
        assert!(plan(&part).unwrap_err().to_string().contains("is missing"));
        let (_file, other) = archive(&[("readme", b"x")]);
        assert!(plan(&other).unwrap_err().to_string().contains("not an image archive"));
    }
}
