//! hostPath: a path of the node as it is, made or checked as its type says.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;

use crate::pod::HostPath;

/// The path.
///
/// # Errors
/// It is not what its type says, or cannot be made.
pub fn setup(volume: &HostPath) -> Result<PathBuf, String> {
    let path = PathBuf::from(&volume.path);
    let text = |e: io::Error| e.to_string();
    let kind = volume.kind.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(&path).map_err(text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(text)?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::File::create(&path).map_err(text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(text)?;
        }
        _ => {}
    }
    let found = fs::metadata(&path).map(|m| m.file_type());
    let fits = match kind {
        "" => return Ok(path),
        "Directory" | "DirectoryOrCreate" => (found.is_ok_and(|t| t.is_dir()), "directory"),
        "File" | "FileOrCreate" => (found.is_ok_and(|t| t.is_file()), "file"),
        "Socket" => (found.is_ok_and(|t| t.is_socket()), "socket file"),
        "CharDevice" => (found.is_ok_and(|t| t.is_char_device()), "character device"),
        "BlockDevice" => (found.is_ok_and(|t| t.is_block_device()), "block device"),
        _ => return Err(format!("hostPath type {kind:?} is unknown")),
    };
    match fits {
        (true, _) => Ok(path),
        (false, what) => Err(format!("hostPath type check failed: {} is not a {what}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_missing_paths_made_where_asked() {
        let base = std::env::temp_dir().join(format!("kubelet-hostpath-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        let at = |name: &str, kind: &str| {
            setup(&HostPath { path: base.join(name).to_string_lossy().into_owned(), kind: Some(kind.into()) })
        };
        assert!(at("d", "Directory").unwrap_err().ends_with("/d is not a directory"));
        assert!(at("d", "DirectoryOrCreate").unwrap().is_dir());
        assert!(at("f", "FileOrCreate").unwrap().is_file());
        assert!(at("f", "File").is_ok() && at("d", "Directory").is_ok());
        for (name, kind) in
            [("f", "Directory"), ("d", "File"), ("f", "Socket"), ("f", "CharDevice"), ("f", "BlockDevice")]
        {
            assert!(at(name, kind).is_err(), "{name} {kind}");
        }
        assert!(at("f", "Sock").unwrap_err().contains("unknown"));
        std::os::unix::net::UnixListener::bind(base.join("s")).unwrap();
        assert!(at("s", "Socket").is_ok());
        assert!(setup(&HostPath { path: "/dev/null".into(), kind: Some("CharDevice".into()) }).is_ok());
        assert!(at("none", "").is_ok(), "without a type nothing is checked");
        fs::remove_dir_all(base).unwrap();
    }
}
