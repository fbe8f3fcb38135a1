//! The server's TLS: with the machine authority once there is a configuration, self-signed before.

use std::sync::Arc;

use daemon::tls::{ClientAuth, server_config};
use pki::{IssueRequest, Usage};

use crate::credentials::{MACHINE_CA, MACHINE_CRT, MACHINE_KEY};
use crate::files::{self, Entry};
use crate::machine::Paths;

const ALPN: &[&[u8]] = &[b"h2"];
const MAINTENANCE_CRT: &str = "/run/corten/pki/maintenance.crt";
const MAINTENANCE_KEY: &str = "/run/corten/pki/maintenance.key";

/// A client's certificate is optional for the handshake, since a joining machine has none yet; a wrong one ends it. Who
/// may call what is decided per call.
pub(crate) fn configured(paths: &Paths) -> Result<Arc<rustls::ServerConfig>, daemon::Failure> {
    Ok(server_config(
        &paths.at(MACHINE_CRT),
        &paths.at(MACHINE_KEY),
        Some(&paths.at(MACHINE_CA)),
        ClientAuth::Optional,
        ALPN,
    )?)
}

/// Encrypted, but the client cannot know with whom it speaks.
pub(crate) fn maintenance(paths: &Paths) -> Result<Arc<rustls::ServerConfig>, daemon::Failure> {
    let request = IssueRequest {
        common_name: "corten maintenance".to_owned(),
        dns_names: vec!["localhost".to_owned()],
        usage: Usage::Server,
        valid_for_days: 365,
        ..IssueRequest::default()
    };
    let issued = pki::self_signed(&request)?;
    files::write_all(
        paths,
        &[Entry::public(MAINTENANCE_CRT, issued.cert_pem), Entry::secret(MAINTENANCE_KEY, issued.key_pem)],
    )?;
    Ok(server_config(&paths.at(MAINTENANCE_CRT), &paths.at(MAINTENANCE_KEY), None, ClientAuth::None, ALPN)?)
}
