//! A stub resolver: A records over UDP, search list and ndots as resolv.conf(5) has them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, PartialEq, Eq)]
struct Config {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    ndots: usize,
}

/// The addresses of a name: from /etc/hosts, else from the name servers.
pub fn resolve(name: &str) -> Result<Vec<IpAddr>, String> {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let local = from_hosts(&hosts, name);
    if !local.is_empty() {
        return Ok(local);
    }
    let text = std::fs::read_to_string("/etc/resolv.conf").map_err(|e| format!("/etc/resolv.conf: {e}"))?;
    let config = parse_config(&text);
    let mut last = "no name server in /etc/resolv.conf".to_owned();
    for candidate in candidates(name, &config) {
        for server in &config.servers {
            match query(*server, &candidate) {
                Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
                Ok(_) => last = format!("{candidate} has no address"),
                Err(error) => last = format!("{candidate} at {server}: {error}"),
            }
        }
    }
    Err(last)
}

fn from_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().split_ascii_whitespace());
    lines
        .filter_map(|mut words| Some((words.next()?.parse().ok()?, words)))
        .filter(|(_, names)| names.clone().any(|n| n == name))
        .map(|(ip, _)| ip)
        .collect()
}

fn parse_config(text: &str) -> Config {
    let mut config = Config { servers: Vec::new(), search: Vec::new(), ndots: 1 };
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
            Some("search") => config.search = words.map(str::to_owned).collect(),
            Some("options") => {
                if let Some(n) = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok()) {
                    config.ndots = n;
                }
            }
            _ => {}
        }
    }
    config
}

/// The full names to try, in order.
fn candidates(name: &str, config: &Config) -> Vec<String> {
    if let Some(full) = name.strip_suffix('.') {
        return vec![full.to_owned()];
    }
    let searched = config.search.iter().map(|domain| format!("{name}.{}", domain.trim_end_matches('.')));
    let own = std::iter::once(name.to_owned());
    if name.matches('.').count() >= config.ndots {
        own.chain(searched).collect()
    } else {
        searched.chain(own).collect()
    }
}

fn query(server: IpAddr, name: &str) -> Result<Vec<IpAddr>, String> {
    let bind = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(bind).map_err(|e| e.to_string())?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
    socket.connect(SocketAddr::new(server, 53)).map_err(|e| e.to_string())?;
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or(1);
    socket.send(&question(id, name)?).map_err(|e| e.to_string())?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).map_err(|e| e.to_string())?;
    parse_answer(id, &answer[..length]).unwrap_or_else(|| Err("malformed answer".to_owned()))
}

fn question(id: u16, name: &str) -> Result<Vec<u8>, String> {
    let mut message = Vec::new();
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]); // recursion desired, one question
    for part in name.split('.') {
        let length = u8::try_from(part.len())
            .ok()
            .filter(|n| (1..=63).contains(n))
            .ok_or_else(|| format!("{name:?} is not a name"))?;
        message.push(length);
        message.extend_from_slice(part.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]); // root, type A, class IN
    Ok(message)
}

fn parse_answer(id: u16, message: &[u8]) -> Option<Result<Vec<IpAddr>, String>> {
    let number = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    if number(0)? != id {
        return None;
    }
    match message.get(3)? & 15 {
        0 => {}
        3 => return Some(Ok(Vec::new())),
        code => return Some(Err(format!("response code {code}"))),
    }
    let (questions, answers) = (number(4)?, number(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = skip_name(message, at)? + 4;
    }
    let mut addresses = Vec::new();
    for _ in 0..answers {
        at = skip_name(message, at)?;
        let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
        let data = message.get(at + 10..at + 10 + length)?;
        if let (1, &[a, b, c, d]) = (kind, data) {
            addresses.push(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
        }
        at += 10 + length;
    }
    Some(Ok(addresses))
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xC0 == 0xC0 => return Some(at + 2),
            length => at += usize::from(*length) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_list_comes_first_for_short_names() {
        let config =
            parse_config("nameserver 10.96.0.10\nsearch a.svc.cluster.local svc.cluster.local\noptions ndots:5\n");
        assert_eq!(config.servers, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(candidates("web", &config), ["web.a.svc.cluster.local", "web.svc.cluster.local", "web"]);
        assert_eq!(candidates("web.", &config), ["web"]);
        assert_eq!(candidates("a.b.c.d.e.f", &config)[0], "a.b.c.d.e.f");
    }

    #[test]
    fn answers_with_compressed_names() {
        let mut message = question(7, "web").unwrap();
        message[2] |= 0x80;
        message[7] = 2;
        message.extend_from_slice(&[0xC0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xC0, 12]); // a CNAME in front
        message.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 96, 0, 7]);
        assert_eq!(parse_answer(7, &message), Some(Ok(vec!["10.96.0.7".parse().unwrap()])));
        assert_eq!(parse_answer(8, &message), None);
        for cut in 0..message.len() {
            let _ = parse_answer(7, &message[..cut]);
        }
        message[3] = 3;
        assert_eq!(parse_answer(7, &message), Some(Ok(vec![])));
    }

    #[test]
    fn hosts_lines() {
        let text = "127.0.0.1 localhost # web\n10.1.2.3 web web.local\n";
        assert_eq!(from_hosts(text, "web"), ["10.1.2.3".parse::<IpAddr>().unwrap()]);
        assert!(from_hosts(text, "other").is_empty());
    }
}
