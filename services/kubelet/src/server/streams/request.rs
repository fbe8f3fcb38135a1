//! What a client wants to be connected to, read from the query. Pure.

use crate::server::query::pairs;

/// The streams of exec and attach, in the kubelet's own names (`input`, `output`, `error`) or the API's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Program and arguments; empty for attach.
    pub command: Vec<String>,
    /// Which streams are wanted.
    pub stdin: bool,
    /// As above.
    pub stdout: bool,
    /// As above.
    pub stderr: bool,
    /// On a terminal.
    pub tty: bool,
}

/// The command of `/run`, which stands in one parameter.
pub fn command(query: &str) -> Vec<String> {
    let text = pairs(query).find(|(key, _)| *key == "cmd").map(|(_, value)| value).unwrap_or_default();
    text.split(' ').map(str::to_owned).collect()
}

impl Streams {
    /// Reads a query.
    ///
    /// # Errors
    /// No stream is wanted.
    pub fn parse(query: &str) -> Result<Streams, String> {
        let mut wanted = Streams::default();
        for (key, value) in pairs(query) {
            let on = matches!(value.as_str(), "1" | "true");
            match key {
                "command" => wanted.command.push(value),
                "input" | "stdin" => wanted.stdin |= on,
                "output" | "stdout" => wanted.stdout |= on,
                "error" | "stderr" => wanted.stderr |= on,
                "tty" => wanted.tty |= on,
                _ => {}
            }
        }
        if wanted.stdin || wanted.stdout || wanted.stderr {
            Ok(wanted)
        } else {
            Err("you must specify at least 1 of stdin, stdout, stderr".into())
        }
    }
}

/// Ports to forward. Only WebSocket clients name them up front; with SPDY each stream names its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<i32>);

impl Ports {
    /// Reads a query: `port` may repeat and may be a list.
    ///
    /// # Errors
    /// Something that is not a port.
    pub fn parse(query: &str) -> Result<Ports, String> {
        let values = pairs(query).filter(|(key, _)| matches!(*key, "port" | "ports"));
        let texts: Vec<String> =
            values.flat_map(|(_, v)| v.split(',').map(str::to_owned).collect::<Vec<_>>()).collect();
        let port = |text: &String| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(i32::from(port)),
            _ => Err(format!("unable to parse {text:?} as a port")),
        };
        texts.iter().map(port).collect::<Result<_, _>>().map(Ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_in_both_spellings() {
        let wanted = Streams::parse("command=sh&command=-c&command=echo+a%20b%26&input=1&output=true&error=1").unwrap();
        assert_eq!(wanted.command, ["sh", "-c", "echo a b&"]);
        assert!(wanted.stdin && wanted.stdout && wanted.stderr && !wanted.tty);
        assert!(Streams::parse("stdout=true").unwrap().command.is_empty());
        assert!(Streams::parse("command=ls&stdout=false").is_err());
    }

    #[test]
    fn a_command_stands_in_one_parameter() {
        assert_eq!(command("cmd=ls+-l%20/&timeout=1"), ["ls", "-l", "/"]);
        assert_eq!(command(""), [""], "which no runtime starts");
    }

    #[test]
    fn ports_are_read_singly_and_in_lists() {
        assert_eq!(Ports::parse("port=80&port=443,8080"), Ok(Ports(vec![80, 443, 8080])));
        assert_eq!(Ports::parse(""), Ok(Ports(Vec::new())), "SPDY clients name none");
        for bad in ["port=0", "port=x", "port=65536", "port=80,"] {
            assert!(Ports::parse(bad).is_err(), "{bad}");
        }
    }
}
