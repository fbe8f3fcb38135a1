//! Debian packages: mmdebstrap picks and downloads them once, they are unpacked side by side, and files are looked up by path.
//!
//! Whole packages are never installed: an image takes single files, and the package each came from is known for the bill of materials.

use crate::{run, say, tree};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The suite everything comes from.
pub const SUITE: &str = "trixie";

/// One downloaded package, unpacked.
#[derive(Debug, Clone)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// Of the .deb file.
    pub sha256: String,
    folder: PathBuf,
}

/// All packages an image can take files from.
#[derive(Debug, Clone)]
pub struct Packages(pub Vec<Package>);

/// Fetches these packages and their dependencies, or takes them from the cache.
pub fn fetch(cache: &Path, names: &[String], refresh: bool) -> Result<Packages> {
    let key = hex(&Sha256::digest(format!("{SUITE} {}", names.join(" "))));
    let folder = cache.join(&key[..16]);
    let complete = folder.join("complete");
    if refresh || !complete.exists() {
        tree::remove(&folder)?;
        std::fs::create_dir_all(&folder)?;
        download(&folder, names)?;
        unpack(&folder)?;
        std::fs::write(&complete, names.join("\n"))?;
    }
    index(&folder)
}

fn download(folder: &Path, names: &[String]) -> Result<()> {
    say(&format!("fetching {} packages of {SUITE} and what they need", names.len()));
    let folder = std::path::absolute(folder)?;
    // The hook runs when everything is downloaded; the file system that mmdebstrap would make of it is not wanted.
    let hook = format!("cp \"$1\"/var/cache/apt/archives/*.deb '{}'", folder.display());
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=extract", "--format=tar"]).arg(format!("--include={}", names.join(",")));
    command.arg(format!("--extract-hook={hook}")).arg(SUITE).arg("/dev/null");
    run(&mut command).context("fetch Debian packages (does this machine reach a Debian mirror?)").map(drop)
}

fn unpack(folder: &Path) -> Result<()> {
    for deb in debs(folder)? {
        run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(deb.with_extension("")))?;
        let fields = run(Command::new("dpkg-deb").args(["-W", "--showformat=${Package}\n${Version}\n"]).arg(&deb))?;
        let sum = hex(&Sha256::digest(crate::read(&deb)?));
        std::fs::write(deb.with_extension("about"), [&fields[..], sum.as_bytes(), b"\n"].concat())?;
    }
    Ok(())
}

fn index(folder: &Path) -> Result<Packages> {
    let mut packages = Vec::new();
    for deb in debs(folder)? {
        let about = String::from_utf8(crate::read(&deb.with_extension("about"))?)?;
        let mut lines = about.lines().map(str::to_owned);
        let mut line =
            || lines.next().with_context(|| format!("{}: damaged cache; run again with --refresh", deb.display()));
        packages.push(Package { name: line()?, version: line()?, sha256: line()?, folder: deb.with_extension("") });
    }
    ensure!(!packages.is_empty(), "{} holds no packages; run again with --refresh", folder.display());
    Ok(Packages(packages))
}

fn debs(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut debs: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    debs.retain(|path| path.extension().is_some_and(|e| e == "deb"));
    debs.sort();
    Ok(debs)
}

impl Packages {
    /// The file at this path of an installed system (`usr/bin/containerd`), links followed inside its package.
    pub fn file(&self, path: &str) -> Result<PathBuf> {
        self.find(path).with_context(|| format!("no package of the image has {path}"))
    }

    /// As [`Packages::file`], for a path that may not exist.
    pub fn find(&self, path: &str) -> Option<PathBuf> {
        self.0.iter().map(|package| package.folder.join(path)).find(|candidate| candidate.is_file())
    }

    /// A shared library by its name.
    pub fn library(&self, name: &str) -> Option<PathBuf> {
        ["usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64"]
            .iter()
            .find_map(|folder| self.find(&format!("{folder}/{name}")))
    }

    /// All files below a folder, by path.
    pub fn below(&self, folder: &str) -> Result<BTreeMap<String, PathBuf>> {
        let mut files = BTreeMap::new();
        for package in &self.0 {
            collect(&package.folder, &package.folder.join(folder), &mut files)?;
        }
        Ok(files)
    }

    /// Which package a file lies in.
    pub fn owner(&self, file: &Path) -> Option<&Package> {
        self.0.iter().find(|package| file.starts_with(&package.folder))
    }
}

fn collect(base: &Path, folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            collect(base, &path, files)?;
        } else if let Ok(relative) = path.strip_prefix(base) {
            files.insert(relative.to_string_lossy().into_owned(), path);
        }
    }
    Ok(())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
