//! The control socket. Nothing here blocks: a client that sends half a request or does not read its reply hurts only itself.

use init_api::{MAX_FRAME, Reply, Request, decode_request, encode_reply};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// machined holds one connection at a time; more than this many are somebody's mistake.
const MAX_CLIENTS: usize = 16;

/// The listening socket and its clients.
pub struct Control {
    listener: UnixListener,
    clients: BTreeMap<usize, Client>,
    next_id: usize,
}

struct Client {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Control {
    /// Listens; only root may connect.
    pub fn listen(path: &str) -> std::io::Result<Control> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(Path::new(path))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Control { listener, clients: BTreeMap::new(), next_id: 0 })
    }

    /// Every client and its descriptor.
    pub fn clients(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.clients.iter().map(|(id, client)| (*id, client.stream.as_fd()))
    }

    /// Takes a waiting connection.
    pub fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        if self.clients.len() < MAX_CLIENTS && stream.set_nonblocking(true).is_ok() {
            self.clients.insert(self.next_id, Client { stream, received: Vec::new() });
            self.next_id += 1;
        }
    }

    /// The client's next complete request; reads what has come. A client that ends or talks nonsense is dropped.
    pub fn next_request(&mut self, id: usize) -> Option<Request> {
        let client = self.clients.get_mut(&id)?;
        let open = client.receive();
        match decode_request(&client.received) {
            Ok(Some((request, length))) => {
                client.received.drain(..length);
                Some(request)
            }
            Ok(None) if open => None,
            Ok(None) | Err(_) => {
                self.clients.remove(&id);
                None
            }
        }
    }

    /// Answers. A reply fits a socket's buffer many times over, so one that cannot be written has a client that never reads.
    pub fn reply(&mut self, id: usize, reply: &Reply) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.stream.write_all(&encode_reply(reply)).is_err() {
            self.clients.remove(&id);
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Client {
    /// False when the client has closed.
    fn receive(&mut self) -> bool {
        let mut chunk = [0; 4096];
        while self.received.len() <= MAX_FRAME {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(e) => return e.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use init_api::encode_request;

    #[test]
    fn pieces_make_a_request_and_nonsense_ends_the_connection() {
        let path = std::env::temp_dir().join(format!("corten-control-{}", std::process::id()));
        let mut control = Control::listen(path.to_str().unwrap()).unwrap();
        let mut peer = UnixStream::connect(&path).unwrap();
        control.accept();
        let request = Request::ServiceStop("kubelet".into());
        let bytes = encode_request(&request);
        peer.write_all(&bytes[..5]).unwrap();
        assert_eq!(control.next_request(0), None);
        peer.write_all(&bytes[5..]).unwrap();
        peer.write_all(&encode_request(&Request::Reboot)).unwrap();
        assert_eq!(control.next_request(0), Some(request));
        assert_eq!(control.next_request(0), Some(Request::Reboot));
        control.reply(0, &Reply::Done);
        let mut answer = [0; 5];
        peer.read_exact(&mut answer).unwrap();
        peer.write_all(&[255; 8]).unwrap();
        assert_eq!(control.next_request(0), None);
        assert_eq!(control.clients().count(), 0);
        std::fs::remove_file(path).unwrap();
    }
}
