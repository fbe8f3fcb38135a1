//! The DHCPv4 client (RFC 2131) as a pure state machine: events and the time in, actions out. `wire.rs` turns its messages
//! into packets, `socket.rs` runs it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

pub(crate) mod socket;
#[cfg(test)]
mod tests;
mod wire;

/// Milliseconds on a clock that never goes back.
pub(crate) type Millis = u64;

/// What a server lends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Net,
    pub(crate) server: Ipv4Addr,
    /// Destination and gateway; gateway 0.0.0.0 means on the link.
    pub(crate) routes: Vec<(Ipv4Net, Ipv4Addr)>,
    pub(crate) nameservers: Vec<Ipv4Addr>,
    pub(crate) hostname: Option<String>,
    pub(crate) mtu: Option<u16>,
    /// Seconds. Renewal at `t1` from the same server, at `t2` from any, the end at `lifetime`.
    pub(crate) t1: u32,
    pub(crate) t2: u32,
    pub(crate) lifetime: u32,
}

/// What the client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outgoing {
    Discover,
    /// Takes an offer.
    Select {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    /// Asks for more time; to `server`, or to everybody when it is gone.
    Extend {
        address: Ipv4Addr,
        server: Option<Ipv4Addr>,
    },
}

/// What the client receives; other messages and other clients' are dropped before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    Offer(Lease),
    Ack(Lease),
    Nak,
}

/// What happens to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Received(Incoming),
    /// The deadline has passed.
    Timer,
}

/// What the client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Send(Outgoing),
    Configure(Box<Lease>),
    /// Takes the address away.
    Deconfigure(Box<Lease>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Selecting {
        tries: u32,
    },
    Requesting {
        offer: Lease,
        tries: u32,
    },
    Bound {
        lease: Lease,
        since: Millis,
    },
    /// Asked for more time: the lender until `t2`, then everybody.
    Extending {
        lease: Lease,
        since: Millis,
    },
}

/// A client on one interface.
#[derive(Debug)]
pub(crate) struct Client {
    state: State,
    deadline: Millis,
}

/// Four tries for an offer, then look for another.
const REQUEST_TRIES: u32 = 4;

impl Client {
    /// Starts looking for a server.
    pub(crate) fn start(now: Millis) -> (Self, Vec<Action>) {
        let mut client = Self { state: State::Selecting { tries: 0 }, deadline: now };
        let actions = client.discover(0, now);
        (client, actions)
    }

    /// When the next [`Event::Timer`] is due.
    pub(crate) fn deadline(&self) -> Millis {
        self.deadline
    }

    /// Takes one event.
    pub(crate) fn step(&mut self, event: Event, now: Millis) -> Vec<Action> {
        let state = std::mem::replace(&mut self.state, State::Selecting { tries: 0 });
        match (state, event) {
            (State::Selecting { .. }, Event::Received(Incoming::Offer(offer))) => self.request(offer, 0, now),
            (State::Selecting { tries }, Event::Timer) => self.discover(tries, now),
            (State::Requesting { offer, .. }, Event::Received(Incoming::Ack(lease)))
                if lease.address.addr() == offer.address.addr() =>
            {
                self.bind(lease, None, now)
            }
            (State::Requesting { .. }, Event::Received(Incoming::Nak)) => self.discover(0, now),
            (State::Requesting { offer, tries }, Event::Timer) if tries < REQUEST_TRIES => {
                self.request(offer, tries, now)
            }
            (State::Requesting { .. }, Event::Timer) => self.discover(0, now),
            (State::Bound { lease, since } | State::Extending { lease, since }, Event::Timer) => {
                self.extend(lease, since, now)
            }
            (State::Extending { lease, .. }, Event::Received(Incoming::Ack(new))) => self.bind(new, Some(lease), now),
            (State::Extending { lease, .. }, Event::Received(Incoming::Nak)) => self.lost(lease, now),
            // Everything else is late or not for this state.
            (state, Event::Received(_)) => {
                self.state = state;
                Vec::new()
            }
        }
    }

    fn discover(&mut self, tries: u32, now: Millis) -> Vec<Action> {
        self.state = State::Selecting { tries: tries.saturating_add(1) };
        self.deadline = now + pause(tries);
        vec![Action::Send(Outgoing::Discover)]
    }

    fn request(&mut self, offer: Lease, tries: u32, now: Millis) -> Vec<Action> {
        let send = Outgoing::Select { address: offer.address.addr(), server: offer.server };
        self.state = State::Requesting { offer, tries: tries + 1 };
        self.deadline = now + pause(tries);
        vec![Action::Send(send)]
    }

    fn bind(&mut self, lease: Lease, old: Option<Lease>, now: Millis) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(old) = old.filter(|old| old.address != lease.address) {
            actions.push(Action::Deconfigure(Box::new(old)));
        }
        actions.push(Action::Configure(Box::new(lease.clone())));
        self.deadline = now + seconds(lease.t1);
        self.state = State::Bound { lease, since: now };
        actions
    }

    /// Between `t1` and the lease's end: asks again after half of what is left of the phase, a minute at least (RFC 2131,
    /// 4.4.5).
    fn extend(&mut self, lease: Lease, since: Millis, now: Millis) -> Vec<Action> {
        let (rebind, end) = (since + seconds(lease.t2), since + seconds(lease.lifetime));
        if now >= end {
            return self.lost(lease, now);
        }
        let (server, phase_end) = if now < rebind { (Some(lease.server), rebind) } else { (None, end) };
        let send = Outgoing::Extend { address: lease.address.addr(), server };
        self.deadline = (now + ((phase_end - now) / 2).max(60_000)).min(phase_end);
        self.state = State::Extending { lease, since };
        vec![Action::Send(send)]
    }

    fn lost(&mut self, lease: Lease, now: Millis) -> Vec<Action> {
        let mut actions = vec![Action::Deconfigure(Box::new(lease))];
        actions.extend(self.discover(0, now));
        actions
    }
}

/// 1, 2, 4, 8, 16 and then every 16 seconds: quicker than the RFC's four at first, since a boot waits for it.
fn pause(tries: u32) -> Millis {
    1000 << tries.min(4)
}

fn seconds(s: u32) -> Millis {
    u64::from(s) * 1000
}
