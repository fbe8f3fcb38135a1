//! The rules of the code base that a machine can check. Every list of exceptions here may only shrink: an entry that
//! is no longer needed fails the test.
#![expect(clippy::expect_used, reason = "a test that cannot look has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that are longer than allowed, as `file: function`. Only removals are welcome here.
const LONG_FUNCTIONS: [&str; 0] = [];

/// Crates that may contain `unsafe`, with their folders.
const UNSAFE_ALLOWED: [&str; 2] = ["services/lib/linux/", "services/pause/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// Every Rust file of the repository with its text; paths are relative to the root.
fn sources() -> Vec<(String, String)> {
    files(&["*.rs"])
}

/// The files that these patterns match, with their texts.
fn files(patterns: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .args(patterns)
        .current_dir(&root)
        .output()
        .expect("git lists the files");
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let mut files: Vec<(String, String)> = names
        .lines()
        .filter_map(|name| std::fs::read_to_string(root.join(name)).ok().map(|text| (name.to_owned(), text)))
        .collect();
    files.sort();
    assert!(files.len() > 100, "the list of sources looks wrong: {} files", files.len());
    files
}

/// The lines that `hit` is content with, as `file:number`.
fn lines_where(files: &[(String, String)], hit: impl Fn(&str) -> bool) -> Vec<String> {
    let of = |(name, text): &(String, String)| {
        let hits = text.lines().enumerate().filter(|(_, line)| hit(line));
        hits.map(|(number, _)| format!("{name}:{}", number + 1)).collect::<Vec<_>>()
    };
    files.iter().flat_map(of).collect()
}

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn crates_depend_only_downwards() {
    let metadata = metadata();
    let layers = metadata["metadata"]["layers"].as_object().expect("[workspace.metadata.layers]");
    let mut layer_of = BTreeMap::new();
    for (layer, members) in layers {
        for member in names(members) {
            layer_of.insert(member, layer.as_str());
        }
    }
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(layer) = layer_of.get(name) else {
            wrong.push(format!("{name} stands in no layer of the root manifest"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let dependency = dependency["name"].as_str().unwrap_or_default();
            let Some(below) = layer_of.get(dependency) else { continue };
            let same_allowed = *layer != "L3";
            if below > layer || (below == layer && !same_allowed) {
                wrong.push(format!("{name} ({layer}) uses {dependency} ({below})"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn exclusive_rights_are_kept() {
    let metadata = metadata();
    let rights = metadata["metadata"]["rights"].as_object().expect("[workspace.metadata.rights]");
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let dependency = dependency["name"].as_str().unwrap_or_default();
            if rights.get(dependency).is_some_and(|owners| !names(owners).contains(name)) {
                wrong.push(format!("{name} must not use {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn init_stays_small() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", "init", "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    for banned in ["tokio", "rustls", "serde", "librocksdb-sys", "hyper"] {
        let found = tree.lines().any(|line| line.split(' ').next() == Some(banned));
        assert!(!found, "PID 1 must not link {banned}");
    }
}

#[test]
fn unsafe_stays_on_its_island() {
    // Split so that this file does not find itself.
    let needles = [
        concat!("unsafe", " {"),
        concat!("unsafe", " fn"),
        concat!("unsafe", " impl"),
        concat!("allow(unsafe", "_code)"),
    ];
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|(name, _)| !UNSAFE_ALLOWED.iter().any(|folder| name.starts_with(folder)))
        .filter(|(_, text)| {
            text.lines().any(|l| !l.trim_start().starts_with("//") && needles.iter().any(|n| l.contains(n)))
        })
        .map(|(name, _)| name.clone())
        .collect();
    assert!(wrong.is_empty(), "unsafe outside its crates:\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines, {FILE_LINES_MAX} allowed"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn functions_are_short() {
    let mut found = BTreeSet::new();
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (function, lines) in long_functions(&text) {
            let entry = format!("{name}: {function}");
            if !LONG_FUNCTIONS.contains(&entry.as_str()) {
                wrong.push(format!("{entry} has {lines} lines, {FUNCTION_LINES_MAX} allowed"));
            }
            found.insert(entry);
        }
    }
    for exception in LONG_FUNCTIONS {
        if !found.contains(exception) {
            wrong.push(format!("{exception} is short now: remove its exception"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Functions over the limit. Relies on rustfmt: a function ends at the first `}` in the column where it began.
fn long_functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let is_function = [
            "fn ",
            "pub fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) fn ",
            "pub(super) fn ",
            "const fn ",
            "pub const fn ",
        ]
        .iter()
        .any(|prefix| trimmed.starts_with(prefix));
        if !is_function || trimmed.ends_with(';') {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        let Some(length) = lines[start..].iter().position(|l| *l == closing) else { continue };
        if length + 1 > FUNCTION_LINES_MAX {
            let name = trimmed.split("fn ").nth(1).unwrap_or_default();
            let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            long.push((name, length + 1));
        }
    }
    long
}

#[test]
fn every_crate_says_what_it_is() {
    let metadata = metadata();
    let mut silent = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let kinds = names(&target["kind"]);
            if !(kinds.contains("lib") || kinds.contains("bin")) {
                continue;
            }
            let path = target["src_path"].as_str().unwrap_or_default();
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if !text.starts_with("//!") {
                silent.push(path.to_owned());
            }
        }
    }
    assert!(silent.is_empty(), "crate roots without //! documentation:\n{}", silent.join("\n"));
}

#[test]
fn no_merge_is_half_done() {
    let marks = ["<".repeat(7) + " ", ">".repeat(7) + " "];
    let all = files(&["*.rs", "*.md", "*.toml", "*.json", "*.yaml", "*.proto", "*.txt"]);
    let wrong = lines_where(&all, |line| marks.iter().any(|mark| line.starts_with(mark)));
    assert!(wrong.is_empty(), "marks of a merge:\n{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_for_later() {
    // Split so that this file does not find itself.
    let needles = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
    let wrong = lines_where(&sources(), |line| needles.iter().any(|needle| line.contains(needle)));
    assert!(wrong.is_empty(), "unfinished places:\n{}", wrong.join("\n"));
}
