//! What the runtime asks of the plugin: environment variables and the network configuration on standard input.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::Deserialize;

use super::{Error, code};

/// The version of results.
pub const VERSION: &str = "1.0.0";
/// Versions of configurations that are understood.
pub const SUPPORTED: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// The plugin's part of the network configuration that the node process writes.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    pub cni_version: String,
    /// The node's pod addresses.
    pub subnet: Option<Ipv4Net>,
    /// The node's own address: the source of its connections to pods.
    pub node_address: Option<Ipv4Addr>,
    pub mtu: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub command: Command,
    pub container: String,
    /// Empty when a DEL comes after the namespace is gone.
    pub namespace: PathBuf,
    pub interface: String,
    pub network: Network,
}

/// Reads the request from the environment (through `variable`) and standard input.
pub fn parse(variable: impl Fn(&str) -> Option<String>, stdin: &[u8]) -> Result<Request, Error> {
    let invalid =
        |name: &str, value: &str| Error::new(code::INVALID_ENVIRONMENT, format!("{name}={value:?} is not valid"));
    let command = variable("CNI_COMMAND").unwrap_or_default();
    let command = match command.as_str() {
        "ADD" => Command::Add,
        "DEL" => Command::Del,
        "CHECK" => Command::Check,
        "GC" => Command::Gc,
        "STATUS" => Command::Status,
        "VERSION" => Command::Version,
        other => return Err(invalid("CNI_COMMAND", other)),
    };
    let network: Network =
        serde_json::from_slice(stdin).map_err(|e| Error::new(code::DECODE, format!("network configuration: {e}")))?;
    let needs_container = !matches!(command, Command::Version | Command::Gc | Command::Status);
    let text = |name: &str, required: bool| {
        let value = variable(name).unwrap_or_default();
        if value.is_empty() && required { Err(invalid(name, "")) } else { Ok(value) }
    };
    Ok(Request {
        command,
        container: text("CNI_CONTAINERID", needs_container)?,
        namespace: text("CNI_NETNS", matches!(command, Command::Add | Command::Check))?.into(),
        interface: text("CNI_IFNAME", needs_container)?,
        network,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(command: &str, namespace: &str) -> impl Fn(&str) -> Option<String> {
        let (command, namespace) = (command.to_owned(), namespace.to_owned());
        move |name| match name {
            "CNI_COMMAND" => Some(command.clone()),
            "CNI_CONTAINERID" => Some("abc".to_owned()),
            "CNI_NETNS" if !namespace.is_empty() => Some(namespace.clone()),
            "CNI_IFNAME" => Some("eth0".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn an_add_needs_a_namespace_and_a_del_does_not() {
        let config = br#"{"cniVersion":"1.0.0","name":"corten","subnet":"10.244.1.0/24","nodeAddress":"192.0.2.1"}"#;
        let request = parse(environment("ADD", "/run/netns/x"), config).unwrap();
        assert_eq!(request.network.subnet, Some("10.244.1.0/24".parse().unwrap()));
        assert_eq!(parse(environment("ADD", ""), config).unwrap_err().code, code::INVALID_ENVIRONMENT);
        assert_eq!(parse(environment("DEL", ""), config).unwrap().namespace, PathBuf::new());
    }

    #[test]
    fn wrong_input_has_the_specified_code() {
        assert_eq!(parse(environment("EAT", "/x"), b"{}").unwrap_err().code, code::INVALID_ENVIRONMENT);
        assert_eq!(parse(environment("ADD", "/x"), b"{").unwrap_err().code, code::DECODE);
    }
}
