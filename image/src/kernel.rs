//! The kernel: its image, and its modules in an order in which they can be loaded one after the other.

use crate::elf::Elf;
use crate::packages::Packages;
use crate::run;
use anyhow::{Context, Result, bail};
use boards::Board;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel found in the packages.
pub struct Kernel {
    pub image: PathBuf,
    pub release: String,
    /// Compressed module files by module name.
    modules: BTreeMap<String, PathBuf>,
    /// Names of what is compiled in.
    builtin: BTreeSet<String>,
}

/// A module that is part of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    pub name: String,
    /// Decompressed.
    pub file: PathBuf,
}

/// An image's modules, each list in load order.
pub struct Modules {
    pub initramfs: Vec<Module>,
    /// Each without what the lists before it have loaded by then.
    pub drivers: Vec<Module>,
    pub node: Vec<Module>,
}

/// Finds the one kernel of the packages.
pub fn find(packages: &Packages) -> Result<Kernel> {
    let images = packages.below("boot")?;
    let (path, image) =
        images.iter().find(|(path, _)| path.starts_with("boot/vmlinuz-")).context("no package has a kernel")?;
    let release = path.trim_start_matches("boot/vmlinuz-").to_owned();
    let folder = format!("usr/lib/modules/{release}");
    let files = packages.below(&folder)?;
    let modules = files.iter().filter_map(|(path, file)| Some((module_name(path)?, file.clone()))).collect();
    let list = packages.file(&format!("{folder}/modules.builtin"))?;
    let builtin = String::from_utf8(crate::read(&list)?)?.lines().filter_map(module_name).collect();
    Ok(Kernel { image: image.clone(), release, modules, builtin })
}

/// `kernel/net/8021q.ko.xz` is the module `8021q`; a dash in a file name is an underscore in the module's.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (stem, _) = file.split_once(".ko")?;
    Some(stem.replace('-', "_"))
}

impl Kernel {
    /// Decompresses what the board wants and what that depends on, into `work`.
    pub fn modules(&self, work: &Path, board: &Board) -> Result<Modules> {
        std::fs::create_dir_all(work)?;
        let mut loaded = Vec::new();
        let mut next = |wanted: &[String]| -> Result<Vec<Module>> {
            let before = loaded.len();
            self.add(work, wanted, &mut loaded)?;
            Ok(loaded[before..].to_vec())
        };
        Ok(Modules {
            initramfs: next(&board.initramfs_modules)?,
            drivers: next(&board.driver_modules)?,
            node: next(&board.node_modules)?,
        })
    }

    fn add(&self, work: &Path, wanted: &[String], loaded: &mut Vec<Module>) -> Result<()> {
        let depends = |name: &str| -> Result<Vec<String>> {
            let file = self.decompress(work, name)?;
            let bytes = crate::read(&file)?;
            let elf = Elf::parse(&bytes).with_context(|| file.display().to_string())?;
            Ok(elf
                .modinfo("depends")
                .unwrap_or_default()
                .split(',')
                .filter(|d| !d.is_empty())
                .map(|d| d.replace('-', "_"))
                .collect())
        };
        let have: BTreeSet<String> = loaded.iter().map(|module| module.name.clone()).collect();
        let wanted: Vec<String> = wanted.iter().map(|name| name.replace('-', "_")).collect();
        for name in load_order(&wanted, &have, &self.builtin, depends)? {
            loaded.push(Module { file: self.decompress(work, &name)?, name });
        }
        Ok(())
    }

    fn decompress(&self, work: &Path, name: &str) -> Result<PathBuf> {
        let out = work.join(format!("{name}.ko"));
        if out.exists() {
            return Ok(out);
        }
        let file = self.modules.get(name).with_context(|| format!("kernel {} has no module {name}", self.release))?;
        let bytes = match file.extension().and_then(|e| e.to_str()) {
            Some("xz") => run(Command::new("xz").arg("-dc").arg(file))?,
            Some("ko") => crate::read(file)?,
            _ => bail!("{}: unknown compression", file.display()),
        };
        std::fs::write(&out, bytes)?;
        Ok(out)
    }
}

/// Every wanted module after everything it depends on, each once, without what is loaded or compiled in. Pure but for `depends`.
fn load_order(
    wanted: &[String],
    have: &BTreeSet<String>,
    builtin: &BTreeSet<String>,
    depends: impl Fn(&str) -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    enum Visit {
        Enter(String),
        Leave(String),
    }
    let mut order = Vec::new();
    let mut seen: BTreeSet<String> = have.union(builtin).cloned().collect();
    let mut stack: Vec<Visit> = wanted.iter().rev().map(|name| Visit::Enter(name.clone())).collect();
    while let Some(visit) = stack.pop() {
        match visit {
            Visit::Enter(name) => {
                if seen.insert(name.clone()) {
                    let needs = depends(&name)?;
                    stack.push(Visit::Leave(name));
                    stack.extend(needs.into_iter().rev().map(Visit::Enter));
                }
            }
            Visit::Leave(name) => order.push(name),
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (path, want) in [
            ("kernel/drivers/char/hw_random/virtio-rng.ko.xz", Some("virtio_rng")),
            ("kernel/net/8021q.ko", Some("8021q")),
            ("modules.order", None),
        ] {
            assert_eq!(module_name(path).as_deref(), want);
        }
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let graph = |name: &str| {
            Ok(names(match name {
                "nft_masq" => &["nf_tables", "nf_nat"],
                "nf_nat" => &["nf_conntrack", "libcrc32c"],
                "nf_conntrack" => &["libcrc32c", "ipv6"],
                _ => &[],
            }))
        };
        let order =
            load_order(&names(&["nft_masq", "nf_nat", "loop"]), &set(&["loop"]), &set(&["ipv6"]), graph).unwrap();
        assert_eq!(order, ["nf_tables", "libcrc32c", "nf_conntrack", "nf_nat", "nft_masq"]);
    }
}
