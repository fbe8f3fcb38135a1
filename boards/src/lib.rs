//! Boards: what differs from one kind of machine to another, as data.
//!
//! Owns: the board type, its files (`<board>/board.toml`) and inheritance. Must never: read anything at run time or decide what an image
//! contains (crate `image` does). Adding a board is adding a folder and its line in [`BOARDS`]. Start reading at [`Board`].

use serde::Deserialize;

/// Every board: its name and the text of its file.
pub const BOARDS: &[(&str, &str)] = &[
    ("generic-x86_64", include_str!("../generic-x86_64/board.toml")),
    ("qemu-x86_64", include_str!("../qemu-x86_64/board.toml")),
];

/// How deep boards may inherit: more is a loop.
const DEEPEST: usize = 8;

/// Why there is no such board.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is not in the table.
    #[error("there is no board {0:?}; there are: {1}")]
    Unknown(String, String),
    /// The file is wrong.
    #[error("board {0}: {1}")]
    Malformed(String, toml::de::Error),
    /// A field that somebody in the line must set is set by nobody.
    #[error("board {0}: nothing sets {1}")]
    Missing(String, &'static str),
    /// A board inherits itself.
    #[error("board {0}: its inheritance does not end")]
    Loop(String),
}

/// A machine kind with everything inherited filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Processor architecture, in the kernel's words.
    pub arch: String,
    /// The Debian package that brings the kernel.
    pub kernel_package: String,
    /// Kernel arguments, the inherited ones first.
    pub kernel_arguments: Vec<String>,
    /// Modules without which the root file system cannot be reached.
    pub initramfs_modules: Vec<String>,
    /// Modules of the machine's devices: loaded before anything looks for a disk or a network.
    pub driver_modules: Vec<String>,
    /// Modules that pods and services need: loaded while the node boots on.
    pub node_modules: Vec<String>,
}

/// A file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    description: Option<String>,
    inherit: Option<String>,
    arch: Option<String>,
    #[serde(default)]
    kernel: RawKernel,
    #[serde(default)]
    modules: RawModules,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKernel {
    package: Option<String>,
    #[serde(default)]
    arguments: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModules {
    #[serde(default)]
    initramfs: Vec<String>,
    #[serde(default)]
    drivers: Vec<String>,
    #[serde(default)]
    node: Vec<String>,
}

/// The board of this name.
pub fn board(name: &str) -> Result<Board, Error> {
    resolve(BOARDS, name)
}

fn resolve(boards: &[(&str, &str)], name: &str) -> Result<Board, Error> {
    let mut line = vec![raw(boards, name)?];
    while let Some(parent) = line.last().and_then(|board| board.inherit.clone()) {
        if line.len() >= DEEPEST {
            return Err(Error::Loop(name.to_owned()));
        }
        line.push(raw(boards, &parent)?);
    }
    let missing = |field| Error::Missing(name.to_owned(), field);
    let own_first = |get: fn(&Raw) -> &Option<String>| line.iter().find_map(|raw| get(raw).clone());
    let oldest_first = |get: fn(&Raw) -> &Vec<String>| line.iter().rev().flat_map(get).cloned().collect();
    Ok(Board {
        name: name.to_owned(),
        description: own_first(|raw| &raw.description).ok_or_else(|| missing("description"))?,
        arch: own_first(|raw| &raw.arch).ok_or_else(|| missing("arch"))?,
        kernel_package: own_first(|raw| &raw.kernel.package).ok_or_else(|| missing("kernel.package"))?,
        kernel_arguments: oldest_first(|raw| &raw.kernel.arguments),
        initramfs_modules: oldest_first(|raw| &raw.modules.initramfs),
        driver_modules: oldest_first(|raw| &raw.modules.drivers),
        node_modules: oldest_first(|raw| &raw.modules.node),
    })
}

fn raw(boards: &[(&str, &str)], name: &str) -> Result<Raw, Error> {
    let names = || boards.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let (_, text) =
        boards.iter().find(|(known, _)| *known == name).ok_or_else(|| Error::Unknown(name.to_owned(), names()))?;
    toml::from_str(text).map_err(|e| Error::Malformed(name.to_owned(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_board_is_complete() {
        for (name, _) in BOARDS {
            board(name).unwrap();
        }
        let qemu = board("qemu-x86_64").unwrap();
        assert!(qemu.kernel_arguments.contains(&"console=ttyS0".to_owned()));
        assert!(qemu.node_modules.contains(&"overlay".to_owned()), "inherited");
    }

    #[test]
    fn mistakes_are_named() {
        let boards = [
            ("typo", "descripton = 'x'"),
            ("bare", "description = 'x'"),
            ("loop", "inherit = 'loop'"),
            ("orphan", "inherit = 'nobody'"),
        ];
        for (name, words) in [
            ("typo", "descripton"),
            ("bare", "arch"),
            ("loop", "does not end"),
            ("orphan", "nobody"),
            ("none", "there are: typo"),
        ] {
            let error = resolve(&boards, name).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
    }
}
