//! A file tree in memory: what an image contains, before it is any particular file system.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// One entry. Everything belongs to root and has no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Dir { mode: u32 },
    File { mode: u32, source: Source },
    Link { to: String },
    Char { mode: u32, major: u32, minor: u32 },
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Bytes(Vec<u8>),
    Path(PathBuf),
}

impl Source {
    pub fn read(&self) -> Result<Vec<u8>> {
        match self {
            Source::Bytes(bytes) => Ok(bytes.clone()),
            Source::Path(path) => crate::read(path),
        }
    }

    pub fn len(&self) -> Result<u64> {
        match self {
            Source::Bytes(bytes) => Ok(bytes.len() as u64),
            Source::Path(path) => Ok(std::fs::metadata(path).with_context(|| path.display().to_string())?.len()),
        }
    }
}

/// Entries by path, without a leading slash. The order is the order of bytes, so parents come before children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Node>);

impl Tree {
    pub fn dir(&mut self, path: &str, mode: u32) {
        self.insert(path, Node::Dir { mode });
    }

    pub fn bytes(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) {
        self.insert(path, Node::File { mode, source: Source::Bytes(bytes.into()) });
    }

    pub fn file(&mut self, path: &str, mode: u32, from: &Path) {
        self.insert(path, Node::File { mode, source: Source::Path(from.to_owned()) });
    }

    pub fn link(&mut self, path: &str, to: &str) {
        self.insert(path, Node::Link { to: to.to_owned() });
    }

    pub fn char(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.insert(path, Node::Char { mode, major, minor });
    }

    pub fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Adds an entry and the folders above it.
    fn insert(&mut self, path: &str, node: Node) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Node::Dir { mode: 0o755 });
        }
        self.0.insert(path.to_owned(), node);
    }

    /// A sum over everything that ends up in an image of it.
    pub fn digest(&self) -> Result<String> {
        let mut sum = Sha256::new();
        for (path, node) in self.entries() {
            let (about, content) = match node {
                Node::Dir { mode } => (format!("dir {mode:o}"), Vec::new()),
                Node::File { mode, source } => (format!("file {mode:o}"), source.read()?),
                Node::Link { to } => (format!("link {to}"), Vec::new()),
                Node::Char { mode, major, minor } => (format!("char {mode:o} {major} {minor}"), Vec::new()),
            };
            sum.update(format!("{path}\0{about}\0{}\0", content.len()));
            sum.update(content);
        }
        Ok(crate::packages::hex(&sum.finalize()))
    }

    /// Writes it as a folder. Device nodes are left out: they need root, and a running node has a devtmpfs.
    pub fn write_to(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        for (path, node) in self.entries() {
            let target = folder.join(path);
            let written = match node {
                Node::Dir { mode } => std::fs::create_dir_all(&target).and_then(|()| set_mode(&target, *mode)),
                Node::File { mode, source: Source::Bytes(bytes) } => {
                    std::fs::write(&target, bytes).and_then(|()| set_mode(&target, *mode))
                }
                Node::File { mode, source: Source::Path(from) } => {
                    std::fs::copy(from, &target).and_then(|_| set_mode(&target, *mode))
                }
                Node::Link { to } => std::os::unix::fs::symlink(to, &target),
                Node::Char { .. } => Ok(()),
            };
            written.with_context(|| format!("write {}", target.display()))?;
        }
        Ok(())
    }
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Removes a folder that may not be there.
pub fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_by_themselves_and_first() {
        let mut tree = Tree::default();
        tree.bytes("/a/b/c", 0o600, "x");
        tree.dir("a", 0o700);
        let paths: Vec<&str> = tree.entries().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a", "a/b", "a/b/c"]);
    }

    #[test]
    fn the_digest_sees_every_difference() {
        let make = |mode, content: &str| {
            let mut tree = Tree::default();
            tree.bytes("f", mode, content);
            tree.link("l", "f");
            tree.digest().unwrap()
        };
        assert_eq!(make(0o644, "x"), make(0o644, "x"));
        assert_ne!(make(0o644, "x"), make(0o755, "x"));
        assert_ne!(make(0o644, "x"), make(0o644, "y"));
    }
}
