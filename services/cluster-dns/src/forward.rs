//! Questions about other zones, passed on to the servers of resolv.conf.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// Two servers are asked within the five seconds that most resolvers wait.
const SERVER_LIMIT: Duration = Duration::from_secs(2);
const DATAGRAM_MAX: usize = 4096;
const TRUNCATED_FLAG: u8 = 0x02;

/// The servers that a resolv.conf(5) names.
pub fn servers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().parse().ok()).collect()
}

/// Asks the servers one after the other; `None` when none answers. `ours` is never asked: that would be a loop.
pub async fn ask(resolv_conf: &Path, question: &[u8], ours: IpAddr) -> Option<Vec<u8>> {
    // Read each time: it is one small file, and DHCP may change it.
    let text = tokio::fs::read_to_string(resolv_conf).await.ok()?;
    for server in servers(&text).into_iter().filter(|server| *server != ours) {
        let address = SocketAddr::new(server, 53);
        if let Ok(Ok(answer)) = tokio::time::timeout(SERVER_LIMIT, over_udp(address, question)).await {
            let truncated = answer.get(2).is_some_and(|flags| flags & TRUNCATED_FLAG != 0);
            if !truncated {
                return Some(answer);
            }
            if let Ok(Ok(whole)) = tokio::time::timeout(SERVER_LIMIT, over_tcp(address, question)).await {
                return Some(whole);
            }
            return Some(answer);
        }
    }
    None
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything with another identifier is a stray or forged datagram.
        if length >= 12 && buffer[..2] == question[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nameserver_lines_count() {
        let text =
            "# comment\nsearch example.org\nnameserver 192.0.2.1\n nameserver\t2001:db8::1\nnameserver nonsense\n";
        let expected: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(servers(text), expected);
    }
}
