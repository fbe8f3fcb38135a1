//! Files that remember what containers were given, in upstream's formats, so that either kubelet can go on with the
//! other's. Their checksum is FNV-1a over the text that Go's `%#v` in the flavour of go-spew gives of the data.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

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
