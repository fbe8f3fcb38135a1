//! As much of ELF as an image builder reads: the sections of a 64-bit little-endian file, the libraries it needs, the tags of a
//! kernel module.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A parsed file.
pub struct Elf<'a> {
    sections: BTreeMap<&'a str, &'a [u8]>,
}

impl<'a> Elf<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Elf<'a>> {
        ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF file");
        let headers = usize::try_from(u64_at(bytes, 0x28)?)?;
        let (size, count, names) = (u16_at(bytes, 0x3A)?, u16_at(bytes, 0x3C)?, u16_at(bytes, 0x3E)?);
        let section = |index: u16| -> Result<(u32, &'a [u8])> {
            let at = headers + usize::from(index) * usize::from(size);
            let (name, kind) = (u32_at(bytes, at)?, u32_at(bytes, at + 4)?);
            let (offset, length) =
                (usize::try_from(u64_at(bytes, at + 0x18)?)?, usize::try_from(u64_at(bytes, at + 0x20)?)?);
            const NO_BITS: u32 = 8;
            let content = if kind == NO_BITS {
                &[]
            } else {
                bytes.get(offset..).and_then(|rest| rest.get(..length)).context("a section lies outside the file")?
            };
            Ok((name, content))
        };
        let (_, name_table) = section(names)?;
        let mut sections = BTreeMap::new();
        for index in 0..count {
            let (name, content) = section(index)?;
            sections.insert(text_at(name_table, name as usize)?, content);
        }
        Ok(Elf { sections })
    }

    /// The shared libraries it names, in order.
    pub fn needed(&self) -> Result<Vec<&'a str>> {
        const DT_NEEDED: u64 = 1;
        let (Some(dynamic), Some(strings)) = (self.sections.get(".dynamic"), self.sections.get(".dynstr")) else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in dynamic.chunks_exact(16) {
            if u64_at(entry, 0)? == DT_NEEDED {
                names.push(text_at(strings, usize::try_from(u64_at(entry, 8)?)?)?);
            }
        }
        Ok(names)
    }

    /// The program interpreter, that is the dynamic linker.
    pub fn interpreter(&self) -> Result<Option<&'a str>> {
        self.sections.get(".interp").map(|section| text_at(section, 0)).transpose()
    }

    /// The tags of a kernel module: `depends=a,b`, `name=x`.
    pub fn modinfo(&self, tag: &str) -> Option<&'a str> {
        let section = self.sections.get(".modinfo")?;
        section
            .split(|byte| *byte == 0)
            .filter_map(|line| std::str::from_utf8(line).ok())
            .find_map(|line| line.strip_prefix(tag)?.strip_prefix('='))
    }
}

/// The libraries that `programs` need, and those that these need, by the path `find` gives for a library's name.
pub fn closure(programs: &[&Path], find: impl Fn(&str) -> Option<PathBuf>) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut queue: Vec<PathBuf> = programs.iter().map(|path| (*path).to_owned()).collect();
    while let Some(path) = queue.pop() {
        let bytes = crate::read(&path)?;
        let elf = Elf::parse(&bytes).with_context(|| path.display().to_string())?;
        for name in elf.needed()? {
            if !seen.insert(name.to_owned()) {
                continue;
            }
            let library = find(name)
                .with_context(|| format!("{} needs {name}, which is in no package of the image", path.display()))?;
            queue.push(library.clone());
            found.insert(name.to_owned(), library);
        }
    }
    Ok(found)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().context("ELF file cut short")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(array_at(bytes, at)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(array_at(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(array_at(bytes, at)?))
}

fn text_at(table: &[u8], at: usize) -> Result<&str> {
    let rest = table.get(at..).context("an ELF name lies outside its table")?;
    let end = rest.iter().position(|byte| *byte == 0).context("an ELF name does not end")?;
    Ok(std::str::from_utf8(&rest[..end])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_itself_needs_the_c_library() {
        let own = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&own).unwrap();
        let elf = Elf::parse(&bytes).unwrap();
        assert!(elf.needed().unwrap().contains(&"libc.so.6"));
        assert!(elf.interpreter().unwrap().unwrap().contains("ld-linux"));
        assert_eq!(elf.modinfo("depends"), None);
        let error = closure(&[&own], |_| None).unwrap_err().to_string();
        assert!(error.contains("needs") && error.contains("in no package"), "{error}");
        assert!(Elf::parse(&bytes[..4000]).is_err());
        assert!(Elf::parse(b"#!/bin/sh").is_err());
    }
}
