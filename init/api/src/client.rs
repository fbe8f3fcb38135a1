//! The client: connect, one request, one reply, with a deadline.

use crate::{Malformed, Reply, Request, SOCKET, decode_reply, encode_request};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket did not work.
    #[error("init socket {path}: {source}")]
    Io {
        /// The socket.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The answer made no sense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// PID 1 said no.
    #[error("init refused: {0}")]
    Refused(String),
}

/// PID 1 never does anything slow before it answers; one that is silent for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks PID 1. A refusal is an error. Blocks: call it from a thread that may.
pub fn call(request: &Request) -> Result<Reply, Error> {
    call_at(Path::new(SOCKET), request)
}

/// Asks at another socket (tests).
pub fn call_at(socket: &Path, request: &Request) -> Result<Reply, Error> {
    let failed = |source| Error::Io { path: socket.display().to_string(), source };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(&encode_request(request)).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some((reply, _)) = decode_reply(&bytes)? {
            return match reply {
                Reply::Refused(why) => Err(Error::Refused(why)),
                reply => Ok(reply),
            };
        }
        match stream.read(&mut chunk).map_err(failed)? {
            0 => return Err(failed(ErrorKind::UnexpectedEof.into())),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode_request, encode_reply};
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_refusal_is_an_error() {
        let path = std::env::temp_dir().join(format!("corten-init-api-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            for reply in [Reply::Done, Reply::Refused("not today".into())] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut bytes = [0; 64];
                let n = stream.read(&mut bytes).unwrap();
                assert!(decode_request(&bytes[..n]).unwrap().is_some());
                stream.write_all(&encode_reply(&reply)).unwrap();
            }
        });
        assert_eq!(call_at(&path, &Request::Reboot).unwrap(), Reply::Done);
        assert!(matches!(call_at(&path, &Request::Reboot), Err(Error::Refused(why)) if why == "not today"));
        server.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
