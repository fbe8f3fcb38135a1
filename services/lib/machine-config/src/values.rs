//! Checks of single values. An error is a phrase that follows the quoted value.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;

use crate::config::Endpoint;

pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "is not an IP address".to_owned())
}

pub(crate) fn address_with_prefix(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| "is not an address with prefix".to_owned())
}

pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text.parse().map_err(|_| "is not a network with prefix".to_owned())?;
    if net.addr() != net.network() {
        return Err(format!("has bits set behind its prefix (did you mean {}?)", net.trunc()));
    }
    Ok(net)
}

/// A network, `first-last` or one address; kept as text, since it is read again by whom it concerns.
pub(crate) fn address_range(text: &str) -> Result<String, String> {
    let fine = if text.contains('/') {
        network(text)?;
        true
    } else if let Some((first, last)) = text.split_once('-') {
        let ends = (first.parse::<IpAddr>(), last.parse::<IpAddr>());
        matches!(ends, (Ok(first), Ok(last)) if first.is_ipv4() == last.is_ipv4() && first <= last)
    } else {
        text.parse::<IpAddr>().is_ok()
    };
    if fine { Ok(text.to_owned()) } else { Err("is not a network, a range first-last or an address".to_owned()) }
}

/// RFC 1123, lower case, as Kubernetes wants node names.
pub(crate) fn host_name(text: &str) -> Result<String, String> {
    if text.len() > 63 || text.contains('.') || !is_dns_name(text) {
        return Err("is not a host name (lower-case letters, digits and dashes, at most 63)".to_owned());
    }
    Ok(text.to_owned())
}

pub(crate) fn dns_name(text: &str) -> Result<String, String> {
    if is_dns_name(text) { Ok(text.to_owned()) } else { Err("is not a DNS name".to_owned()) }
}

pub(crate) fn name_or_address(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() || is_dns_name(text) {
        Ok(text.to_owned())
    } else {
        Err("is neither a DNS name nor an IP address".to_owned())
    }
}

fn is_dns_name(text: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// IFNAMSIZ leaves 15 bytes; the kernel refuses slashes and white space.
pub(crate) fn interface(text: &str) -> Result<String, String> {
    let fine = text.len() <= 15
        && text != "."
        && text != ".."
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    if fine { Ok(text.to_owned()) } else { Err("is not an interface name".to_owned()) }
}

pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    let form = || "is not of the form https://host:port".to_owned();
    let rest = text.strip_prefix("https://").ok_or_else(form)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':').ok_or_else(form)?;
    let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(form)?;
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().map_err(|_| form())?.to_string(),
        None if !host.contains(':') => name_or_address(host).map_err(|_| form())?,
        None => return Err(form()),
    };
    Ok(Endpoint { host, port })
}

pub(crate) fn certificate(text: &str) -> Result<String, String> {
    pem(text, "CERTIFICATE")
}

pub(crate) fn private_key(text: &str) -> Result<String, String> {
    pem(text, "PRIVATE KEY")
}

/// Base64 of a PEM text that contains a block whose label ends in `label` ("EC PRIVATE KEY" is a private key).
fn pem(text: &str, label: &str) -> Result<String, String> {
    let compact: String = text.split_whitespace().collect();
    let bytes = STANDARD.decode(compact).map_err(|_| "is not base64".to_owned())?;
    let pem = String::from_utf8(bytes).map_err(|_| "is not base64 of a PEM text".to_owned())?;
    let found = pem.lines().any(|l| {
        l.strip_prefix("-----BEGIN ").and_then(|l| l.strip_suffix("-----")).is_some_and(|l| l.ends_with(label))
    });
    if found { Ok(pem) } else { Err(format!("is not base64 of a PEM text with a {}", label.to_lowercase())) }
}
