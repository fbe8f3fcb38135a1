//! HTTP/1.1, as little of it as a test needs.

use crate::dns;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// Serves for ever: `/` answers the host name (or `text`), `/healthz` ok, `/client` the caller's address, `/echo/...` the rest.
pub fn serve(port: u16, text: Option<&str>) -> Result<(), String> {
    // A kernel without IPv6 has no [::]; with it, [::] takes IPv4 as well.
    let any = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
    let listener = TcpListener::bind(&any[..]).map_err(|e| format!("listen on port {port}: {e}"))?;
    let host = match text {
        Some(text) => text.to_owned(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(|e| e.to_string())?.trim().to_owned(),
    };
    println!("test-web {host}: listening on port {port}");
    for stream in listener.incoming().flatten() {
        let host = host.clone();
        std::thread::spawn(move || {
            if let Err(error) = answer(&stream, &host) {
                eprintln!("test-web: {error}");
            }
        });
    }
    Ok(())
}

fn answer(stream: &TcpStream, host: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let peer = stream.peer_addr()?;
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    println!("{peer} {}", request.trim_end());
    let (status, body) = match path {
        "/" | "/hostname" => ("200 OK", format!("{host}\n")),
        "/healthz" => ("200 OK", "ok\n".to_owned()),
        "/client" => ("200 OK", format!("{}\n", peer.ip().to_canonical())),
        _ => match path.strip_prefix("/echo/") {
            Some(rest) => ("200 OK", format!("{rest}\n")),
            None => ("404 Not Found", "not found\n".to_owned()),
        },
    };
    let mut stream = stream;
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Fetches `http://host[:port]/path`.
pub fn get(url: &str) -> Result<(u16, Vec<u8>), String> {
    let (host, port, path) = split(url)?;
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => dns::resolve(host)?,
    };
    let mut last = format!("{host} has no address");
    for address in addresses {
        match fetch(SocketAddr::new(address, port), host, path) {
            Ok(answer) => return Ok(answer),
            Err(error) => last = format!("{address} port {port}: {error}"),
        }
    }
    Err(last)
}

fn fetch(to: SocketAddr, host: &str, path: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse_response(&bytes).ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

fn parse_response(bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, bytes[end + 4..].to_vec()))
}

fn split(url: &str) -> Result<(&str, u16, &str), String> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']').ok_or_else(|| format!("{url}: no closing bracket"))?;
        return Ok((host, port.strip_prefix(':').map_or(Ok(80), str::parse).map_err(|e| format!("{url}: {e}"))?, path));
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    Ok((host, port.parse().map_err(|e| format!("{url}: {e}"))?, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, want) in [
            ("http://web", ("web", 80, "/")),
            ("http://web.default:8080/a/b", ("web.default", 8080, "/a/b")),
            ("10.0.0.1:81", ("10.0.0.1", 81, "/")),
            ("http://[::1]:82/x", ("::1", 82, "/x")),
            ("http://[::1]/", ("::1", 80, "/")),
        ] {
            assert_eq!(split(url).unwrap(), want);
        }
        assert!(split("http://web:port/").is_err());
    }

    #[test]
    fn a_server_answers_the_client() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for path in ["/", "/missing"] {
                let (stream, _) = listener.accept().unwrap();
                answer(&stream, "pod-1").unwrap();
                let _ = path;
            }
        });
        assert_eq!(get(&format!("http://127.0.0.1:{port}/")).unwrap(), (200, b"pod-1\n".to_vec()));
        assert_eq!(get(&format!("http://127.0.0.1:{port}/missing")).unwrap().0, 404);
        server.join().unwrap();
    }
}
