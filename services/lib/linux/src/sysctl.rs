//! Kernel parameters below /proc/sys.

use crate::{Error, Result};
use std::path::PathBuf;

/// Writes one parameter, named as the administrator writes it: `net.ipv4.ip_forward`.
pub fn set(name: &str, value: &str) -> Result<()> {
    let path = path_of(name);
    std::fs::write(&path, value).map_err(|e| Error::at("write", &path, e))
}

/// Reads one parameter, without the line end.
pub fn get(name: &str) -> Result<String> {
    let path = path_of(name);
    std::fs::read_to_string(&path).map(|v| v.trim_end().to_owned()).map_err(|e| Error::at("read", &path, e))
}

/// Dots separate the parts; a slash stands for a dot inside a part (interface names: `net.ipv4.conf.eth0/1.proxy_arp`).
fn path_of(name: &str) -> PathBuf {
    let parts: Vec<String> = name.split('.').map(|part| part.replace('/', ".")).collect();
    PathBuf::from(format!("/proc/sys/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_become_paths() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/7.proxy_arp", "/proc/sys/net/ipv4/conf/eth0.7/proxy_arp"),
        ] {
            assert_eq!(super::path_of(name), std::path::Path::new(path));
        }
    }
}
