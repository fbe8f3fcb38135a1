//! Upstream's wire fixtures: of every kind one object with every field, as Go wrote it in JSON, YAML and protobuf.
//!
//! They are data of Debian's package golang-k8s-api-dev, not of this repository. `cargo verify` runs this test with those of Debian 13, which are of v1.32;
//! later packages have those of v1.35.0, for which it is
//!
//!     CORTEN_WIRE_FIXTURES=…/k8s.io/api/testdata/v1.35.0 cargo test --workspace wire_fixtures -- --ignored

use super::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Groups whose types are not in that package.
const ELSEWHERE: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];
/// Kinds that Debian 13's package, of v1.32, does not have in the version that is served.
const YOUNGER: [&str; 7] = [
    "DeviceClass",
    "IPAddress",
    "ResourceClaim",
    "ResourceClaimTemplate",
    "ResourceSlice",
    "ServiceCIDR",
    "VolumeAttributesClass",
];

/// What is wrong with one kind, if anything; none for a kind that is not served here.
fn one(stem: &Path) -> Option<Result<(), String>> {
    let file = |end: &str| {
        // Not with_extension: the names themselves have dots.
        let path = format!("{}.{end}", stem.display());
        std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let want: Value = serde_json::from_slice(&file("json")).expect("JSON");
    if ["alpha", "beta"].iter().any(|unstable| meta::api_version(&want).contains(unstable)) {
        return None;
    }
    let ty = builtin().of(meta::api_version(&want), meta::kind(&want))?;
    let differs = |what: &str, got: &Value| {
        Err(format!("{}: {what} differs at {}", stem.display(), difference(got, &want, "").unwrap_or_default()))
    };
    Some((|| {
        let decoded = apimachinery::strict::decode(&file("json"), ty).map_err(|e| e.to_string())?;
        if let Some(complaint) = decoded.strict_error() {
            return Err(format!("{}: {complaint}", stem.display()));
        }
        let (yaml, _) = crate::endpoints::yaml::parse(&file("yaml"))?;
        if yaml != want {
            return differs("its YAML", &yaml);
        }
        let read = decode(&file("pb"), ty).map_err(|e| format!("{}: {e}", stem.display()))?;
        if read != want {
            return differs("its protobuf", &read);
        }
        let written = super::object(&want).map_err(|e| format!("{}: {e}", stem.display()))?;
        if written != file("pb") {
            return Err(format!("{}: other bytes than Go's: {written:?}", stem.display()));
        }
        Ok(())
    })())
}

/// The first place where two trees differ.
fn difference(got: &Value, want: &Value, at: &str) -> Option<String> {
    match (got, want) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| difference(&got[key], &want[key], &format!("{at}/{key}")))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            (0..a.len()).find_map(|i| difference(&a[i], &b[i], &format!("{at}/{i}")))
        }
        _ if got == want => None,
        _ => Some(format!("{at}: {got}, not {want}")),
    }
}

#[test]
#[ignore = "needs the files of golang-k8s-api-dev; cargo verify fetches them"]
fn wire_fixtures() {
    let folder = PathBuf::from(std::env::var_os("CORTEN_WIRE_FIXTURES").expect("CORTEN_WIRE_FIXTURES names a folder"));
    let mut stems = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).expect("the folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        stems.extend(name.strip_suffix(".pb").filter(|n| !n.ends_with("after_roundtrip")).map(str::to_owned));
    }
    let (mut seen, mut wrong) = (0, Vec::new());
    for outcome in stems.iter().filter_map(|stem| one(&folder.join(stem))) {
        seen += 1;
        wrong.extend(outcome.err());
    }
    for row in crate::registry::table().iter().filter(|row| !ELSEWHERE.contains(&row.group)) {
        let group = if row.group.is_empty() { "core" } else { row.group };
        let stem = format!("{group}.{}.{}", row.version, row.kind);
        if !stems.contains(&stem) && !YOUNGER.contains(&row.kind) {
            wrong.push(format!("there is no fixture {stem}"));
        }
    }
    println!("{seen} kinds");
    assert!(wrong.is_empty(), "{} of {seen} kinds:\n{}", wrong.len(), wrong.join("\n"));
}
