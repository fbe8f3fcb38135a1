//! Loopback ports of this host that lead into a cluster's network namespace.

use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

/// Listens on each port until the process is ended.
///
/// # Errors
/// A port cannot be bound.
pub fn run(namespace: &Path, map: &[(u16, SocketAddrV4)]) -> Result<()> {
    let namespace: Arc<Path> = Arc::from(namespace);
    let mut listeners = Vec::new();
    for (port, target) in map {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).with_context(|| format!("127.0.0.1:{port}"))?;
        let (namespace, target) = (Arc::clone(&namespace), *target);
        listeners.push(std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let namespace = Arc::clone(&namespace);
                std::thread::spawn(move || {
                    // A node that is off refuses the client by closing its connection.
                    if let Ok(Ok(server)) = linux::netns::run_in(&namespace, || TcpStream::connect(target)) {
                        join(client, server);
                    }
                });
            }
        }));
    }
    for listener in listeners {
        // A listener's thread ends only by a panic.
        let _ = listener.join();
    }
    Ok(())
}

/// Copies both ways until both sides have finished.
fn join(client: TcpStream, server: TcpStream) {
    let (Ok(client_in), Ok(server_in)) = (client.try_clone(), server.try_clone()) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let up = std::thread::spawn(move || copy(client_in, server));
    copy(server_in, client);
    let _ = up.join();
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
