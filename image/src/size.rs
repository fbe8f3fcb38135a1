//! What an image weighs, by part: a promise is only kept when it is measured at every build.

use crate::tree::{Node, Tree};
use anyhow::Result;
use std::path::Path;

/// A file of the root file system is listed by name from this size on.
const WORTH_A_LINE: u64 = 4 << 20;

/// Prints the parts of the root file system (before compression) and the finished files.
pub fn report(root: &Tree, files: &[(&str, &Path)]) -> Result<()> {
    let (mut small, mut total) = (0, 0);
    eprintln!("image: size by part, before compression");
    for (path, node) in root.entries() {
        let Node::File { source, .. } = node else { continue };
        let size = source.len()?;
        total += size;
        if size >= WORTH_A_LINE {
            eprintln!("  {} /{path}", mebibytes(size));
        } else {
            small += size;
        }
    }
    eprintln!("  {} everything else\n  {} together", mebibytes(small), mebibytes(total));
    eprintln!("image: size of the finished files");
    for (name, path) in files {
        eprintln!("  {} {name}", mebibytes(std::fs::metadata(path)?.len()));
    }
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    format!("{:>4}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}
