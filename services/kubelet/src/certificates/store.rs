//! The files of the node's certificates: `STEM-DATE.pem` with certificate and key, and the link `STEM-current.pem` to the
//! one in use.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use pki::CertInfo;

/// The link to the certificate in use.
pub fn current(folder: &Path, stem: &str) -> PathBuf {
    folder.join(format!("{stem}-current.pem"))
}

/// The certificate in use with its key, if there is one and it has not expired.
pub fn load(folder: &Path, stem: &str, now: i64) -> Option<(String, CertInfo)> {
    let pem = fs::read_to_string(current(folder, stem)).ok()?;
    let info = CertInfo::from_pem(&pem).ok()?;
    (now < info.not_after).then_some((pem, info))
}

/// Writes a new pair and makes it the one in use; the moment is part of the name.
///
/// # Errors
/// The file system's.
pub fn keep(folder: &Path, stem: &str, pem: &str, moment: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let name = format!("{stem}-{moment}.pem");
    let path = folder.join(&name);
    let _ = fs::remove_file(&path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()?;
    let fresh = folder.join(format!("{stem}-current.new"));
    let _ = fs::remove_file(&fresh);
    symlink(folder.join(name), &fresh)?;
    fs::rename(fresh, current(folder, stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_link_follows_the_newest_and_expired_ones_do_not_count() {
        let folder = std::env::temp_dir().join(format!("kubelet-pki-{}", std::process::id()));
        let request = pki::IssueRequest { common_name: "n".into(), valid_for_days: 1, ..Default::default() };
        let pair = pki::self_signed(&request).unwrap();
        let pem = format!("{}{}", pair.cert_pem, pair.key_pem);
        assert!(load(&folder, "kubelet-client", 0).is_none());
        keep(&folder, "kubelet-client", "old", "2026-01-01-00-00-00").unwrap();
        keep(&folder, "kubelet-client", &pem, "2026-01-02-00-00-00").unwrap();
        let now = pki::now();
        let (found, info) = load(&folder, "kubelet-client", now).unwrap();
        assert_eq!((found, info.common_name.as_str()), (pem, "n"));
        assert!(load(&folder, "kubelet-client", now + 3 * 86400).is_none());
        let path = folder.join("kubelet-client-2026-01-02-00-00-00.pem");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_dir_all(folder).unwrap();
    }
}
