//! Files that remember what containers were given, in upstream's formats, so that either kubelet can go on with the
//! other's. Their checksum is FNV-1a over the text that Go's `%#v` in the flavour of go-spew gives of the data.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a manager's policy keeps in a file.
pub trait Kept: Serialize + DeserializeOwned {
    /// What upstream puts before an error about the policy.
    const PREFIX: &str;
    /// The policy that wrote it.
    fn policy(&self) -> &str;
    /// The data as Go prints it, with a checksum of nothing.
    fn text(&self) -> String;
    /// Where the checksum stands.
    fn checksum(&mut self) -> &mut u32;
}

/// The file's text, with its checksum.
///
/// # Errors
/// Never in practice: what was put together here can be encoded.
pub fn encode(mut file: impl Kept) -> Result<String, String> {
    *file.checksum() = checksum(&file.text());
    serde_json::to_string(&file).map_err(|e| e.to_string())
}

/// What the file says.
///
/// # Errors
/// It is not such a file, its checksum is not that of its content, or another policy wrote it.
pub fn decode<F: Kept>(text: &str, policy: &str) -> Result<F, String> {
    let mut file: F = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if *file.checksum() != checksum(&file.text()) {
        return Err("checkpoint is corrupted".into());
    }
    if file.policy() != policy {
        let old = file.policy();
        let prefix = F::PREFIX;
        return Err(format!("{prefix}configured policy {policy:?} differs from state checkpoint policy {old:?}"));
    }
    Ok(file)
}

/// The checksum of the data's text.
pub fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A list as Go prints it: `[a b]`.
pub fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    format!("[{}]", items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(" "))
}

/// A map as Go prints it, of pairs in order of their keys: `map[a:1 b:2]`.
pub fn map<K: std::fmt::Display, V: std::fmt::Display>(pairs: impl IntoIterator<Item = (K, V)>) -> String {
    format!("map{}", list(pairs.into_iter().map(|(key, value)| format!("{key}:{value}"))))
}

/// The file's text; nothing if there is none.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Replaces the file as a whole.
///
/// # Errors
/// It cannot be written; the old one is still there.
pub fn write(path: &Path, text: &str) -> Result<(), String> {
    let fresh = path.with_extension("new");
    let make = || -> io::Result<()> {
        let mut file = fs::File::create(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    make().map_err(|e| format!("{}: {e}", path.display()))
}
