//! The bill of materials, SPDX 2.3 as JSON: every Debian package a file was taken from and every Rust crate linked into our programs.

use crate::kernel::Kernel;
use crate::packages::{Package, Packages};
use crate::tree::{Node, Source, Tree};
use crate::workspace::{metadata, source_date_epoch};
use anyhow::{Context, Result};
use boards::Board;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The programs whose crates are listed.
const PROGRAMS: &[&str] = &["corten", "init", "pause"];

/// The document's bytes.
pub fn document(board: &Board, packages: &Packages, root: &Tree, kernel: &Kernel) -> Result<Vec<u8>> {
    let created = jiff::Timestamp::from_second(source_date_epoch()).context("SOURCE_DATE_EPOCH")?.to_string();
    let mut parts: Vec<Value> = debian(packages, root, kernel).into_iter().map(debian_package).collect();
    parts.extend(crates(&metadata(false)?)?);
    let describes: Vec<Value> = parts.iter().map(|part| relationship("SPDXRef-DOCUMENT", part)).collect();
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("corten-{}-{}", board.name, env!("CARGO_PKG_VERSION")),
        "documentNamespace": format!("urn:corten:{}:{}", board.name, env!("CARGO_PKG_VERSION")),
        "creationInfo": { "created": created, "creators": ["Tool: corten-image"] },
        "packages": parts,
        "relationships": describes,
    });
    Ok(serde_json::to_vec_pretty(&document)?)
}

fn relationship(from: &str, to: &Value) -> Value {
    json!({ "spdxElementId": from, "relationshipType": "DESCRIBES", "relatedSpdxElement": to["SPDXID"] })
}

/// The packages that gave at least one file.
fn debian<'a>(packages: &'a Packages, root: &Tree, kernel: &Kernel) -> Vec<&'a Package> {
    let from_tree = root.entries().filter_map(|(_, node)| match node {
        Node::File { source: Source::Path(path), .. } => packages.owner(path),
        _ => None,
    });
    // Two sources are not visible in the tree: the kernel lies beside it, and the certificates are joined into one file.
    let hidden =
        packages.owner(&kernel.image).into_iter().chain(packages.0.iter().filter(|p| p.name == "ca-certificates"));
    let by_name: BTreeMap<&str, &Package> =
        from_tree.chain(hidden).map(|package| (package.name.as_str(), package)).collect();
    by_name.into_values().collect()
}

fn debian_package(package: &Package) -> Value {
    json!({
        "SPDXID": format!("SPDXRef-deb-{}", spdx_id(&package.name)),
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "licenseComments": format!("usr/share/doc/{}/copyright of the package", package.name),
        "filesAnalyzed": false,
        "checksums": [{ "algorithm": "SHA256", "checksumValue": package.sha256 }],
        "externalRefs": [purl(&format!("pkg:deb/debian/{}@{}?arch=amd64", package.name, package.version))],
    })
}

fn purl(locator: &str) -> Value {
    json!({ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator })
}

/// SPDX allows letters, digits, dots and dashes.
fn spdx_id(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '-' }).collect()
}

/// Crates that only build, but of which something ends up in a program: the descriptions of the API.
const QUOTED: [&str; 1] = ["k8s-openapi"];

/// The crates reachable from our programs by normal dependencies (not those that only build or test), and the quoted.
fn crates(metadata: &Value) -> Result<Vec<Value>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages = list(&metadata["packages"]);
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .filter_map(|node| Some((node["id"].as_str()?.to_owned(), node)))
        .collect();
    let mut queue: Vec<String> = packages
        .iter()
        .filter(|p| p["source"].is_null() && p["name"].as_str().is_some_and(|name| PROGRAMS.contains(&name)))
        .filter_map(|p| p["id"].as_str().map(str::to_owned))
        .collect();
    let mut reached = BTreeSet::new();
    while let Some(id) = queue.pop() {
        if !reached.insert(id.clone()) {
            continue;
        }
        let node = nodes.get(&id).with_context(|| format!("cargo metadata does not resolve {id}"))?;
        let normal = |dep: &Value| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        queue.extend(
            list(&node["deps"])
                .iter()
                .filter(|dep| normal(dep))
                .filter_map(|dep| dep["pkg"].as_str().map(str::to_owned)),
        );
    }
    let mut described: Vec<Value> = packages
        .iter()
        .filter(|p| {
            p["id"].as_str().is_some_and(|id| reached.contains(id))
                || p["name"].as_str().is_some_and(|name| QUOTED.contains(&name))
        })
        .map(crate_package)
        .collect();
    described.sort_by_key(|part| part["SPDXID"].to_string());
    Ok(described)
}

fn crate_package(package: &Value) -> Value {
    let (name, version) =
        (package["name"].as_str().unwrap_or_default(), package["version"].as_str().unwrap_or_default());
    // Old manifests write a slash where SPDX has OR.
    let license = package["license"].as_str().map_or("NOASSERTION".to_owned(), |text| text.replace('/', " OR "));
    json!({
        "SPDXID": format!("SPDXRef-crate-{}-{}", spdx_id(name), spdx_id(version)),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "licenseDeclared": license,
        "filesAnalyzed": false,
        "externalRefs": [purl(&format!("pkg:cargo/{name}@{version}"))],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_linked_crates_are_listed() {
        let package = |name: &str, source: Value| json!({ "id": name, "name": name, "version": "1.0.0", "source": source, "license": "MIT/Apache-2.0" });
        let dep = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("corten", Value::Null), package("tests", Value::Null), package("a", json!("r")), package("b", json!("r")), package("t", json!("r")), package("k8s-openapi", json!("r"))],
            "resolve": { "nodes": [
                { "id": "corten", "deps": [dep("a", Value::Null), dep("t", json!("dev"))] },
                { "id": "a", "deps": [dep("b", json!("build"))] },
                { "id": "b", "deps": [] }, { "id": "t", "deps": [] }, { "id": "tests", "deps": [dep("t", Value::Null)] },
            ] },
        });
        let listed = crates(&metadata).unwrap();
        let names: Vec<&str> = listed.iter().filter_map(|part| part["name"].as_str()).collect();
        assert_eq!(names, ["a", "corten", "k8s-openapi"]);
        assert_eq!(listed[0]["licenseDeclared"], "MIT OR Apache-2.0");
        assert_eq!(spdx_id("libstdc++6"), "libstdc--6");
    }
}
