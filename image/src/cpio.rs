//! The initramfs format of the kernel: cpio, "new ASCII" (070701). Not compressed: the image inside already is, and unpacking would cost boot time.

use crate::tree::{Node, Source, Tree};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes the tree as an archive.
pub fn write(tree: &Tree, path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut out = Counted { inner: BufWriter::new(file), written: 0 };
    archive(tree, &mut out)?;
    out.inner.flush().with_context(|| format!("write {}", path.display()))
}

struct Counted<W> {
    inner: W,
    written: u64,
}

impl<W: Write> Counted<W> {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.written += bytes.len() as u64;
        self.inner.write_all(bytes)
    }

    /// Headers and contents start at multiples of four.
    fn pad(&mut self) -> std::io::Result<()> {
        let rest = usize::try_from(self.written % 4).unwrap_or(0);
        self.put(&[0; 4][..(4 - rest) % 4])
    }
}

fn archive<W: Write>(tree: &Tree, out: &mut Counted<W>) -> Result<()> {
    for (number, (path, node)) in tree.entries().enumerate() {
        let (mode, device, content) = match node {
            Node::Dir { mode } => (0o040_000 | mode, (0, 0), Source::Bytes(Vec::new())),
            Node::File { mode, source } => (0o100_000 | mode, (0, 0), source.clone()),
            Node::Link { to } => (0o120_777, (0, 0), Source::Bytes(to.clone().into_bytes())),
            Node::Char { mode, major, minor } => (0o020_000 | mode, (*major, *minor), Source::Bytes(Vec::new())),
        };
        let content = content.read()?;
        let inode = u32::try_from(number + 1).context("too many files for an initramfs")?;
        let size = u32::try_from(content.len()).with_context(|| format!("{path} is too long for an initramfs"))?;
        out.put(header(path, inode, mode, size, device).as_bytes())?;
        out.put(path.as_bytes())?;
        out.put(&[0])?;
        out.pad()?;
        out.put(&content)?;
        out.pad()?;
    }
    out.put(header("TRAILER!!!", 0, 0, 0, (0, 0)).as_bytes())?;
    out.put(b"TRAILER!!!\0")?;
    out.pad()?;
    Ok(())
}

fn header(path: &str, inode: u32, mode: u32, size: u32, device: (u32, u32)) -> String {
    let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    let fields =
        [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, u32::try_from(path.len() + 1).unwrap_or(0), 0];
    fields.iter().fold("070701".to_owned(), |text, field| format!("{text}{field:08X}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        let mut tree = Tree::default();
        tree.bytes("a/bc", 0o755, "hello");
        tree.char("dev/console", 0o600, 5, 1);
        let mut out = Counted { inner: Vec::new(), written: 0 };
        archive(&tree, &mut out).unwrap();
        let bytes = out.inner;
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"07070100000001000041ED"), "a folder first");
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("00000005000000010000000C"), "device numbers and the length of dev/console");
        let at = text.find("a/bc\0").unwrap();
        assert_eq!((at - 110) % 4, 0, "headers are aligned");
        assert_eq!(&bytes[at + 6..at + 11], b"hello", "110 + 5 bytes of header and name need one of padding");
    }
}
