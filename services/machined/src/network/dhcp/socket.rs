//! Runs the DHCP client on a UDP socket that is bound to its interface.
//!
//! The broadcast flag makes servers answer to 255.255.255.255, which Linux delivers to a bound UDP socket even while the
//! interface has no address, so no packet socket is needed.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::wire::{self, Identity};
use super::{Action, Client, Event, Lease, Outgoing};

/// What the client tells the network.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) interface: u32,
    pub(crate) lease: Box<Lease>,
    /// Did the lease begin (or go on), or is it over?
    pub(crate) active: bool,
}

/// Runs a client until `changes` closes.
pub(crate) async fn run(name: String, interface: u32, mac: [u8; 6], changes: UnboundedSender<Change>) {
    if let Err(error) = serve(&name, interface, mac, &changes).await {
        tracing::error!("DHCP on {name}: {error}");
    }
}

async fn serve(name: &str, interface: u32, mac: [u8; 6], changes: &UnboundedSender<Change>) -> io::Result<()> {
    let socket = open(name)?;
    let who = Identity { mac, xid: rand::random() };
    let epoch = Instant::now();
    let now = || u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (mut client, mut actions) = Client::start(now());
    let mut buffer = [0u8; 2048];
    loop {
        for action in actions.drain(..) {
            let change = match action {
                Action::Send(message) => {
                    send(&socket, &message, who).await;
                    continue;
                }
                Action::Configure(lease) => Change { interface, lease, active: true },
                Action::Deconfigure(lease) => Change { interface, lease, active: false },
            };
            if changes.send(change).is_err() {
                return Ok(());
            }
        }
        let deadline = epoch + Duration::from_millis(client.deadline());
        let event = tokio::select! {
            () = changes.closed() => return Ok(()),
            received = socket.recv(&mut buffer) => match received.map(|n| wire::decode(&buffer[..n], who)) {
                Ok(Some(message)) => Event::Received(message),
                Ok(None) => continue,
                Err(error) => return Err(error),
            },
            () = tokio::time::sleep_until(deadline) => Event::Timer,
        };
        actions = client.step(event, now());
    }
}

fn open(name: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    // Several interfaces have a client each, all on port 68.
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68)).into())?;
    UdpSocket::from_std(socket.into())
}

/// A packet that cannot be sent (the link is down) is as one that was lost: the timer repeats it.
async fn send(socket: &UdpSocket, message: &Outgoing, who: Identity) {
    let Some(packet) = wire::encode(message, who) else { return };
    let to = match message {
        Outgoing::Extend { server: Some(server), .. } => *server,
        _ => Ipv4Addr::BROADCAST,
    };
    if let Err(error) = socket.send_to(&packet, (to, 67)).await {
        tracing::debug!("DHCP packet to {to} not sent: {error}");
    }
}
