use super::{Action, Client, Event, Incoming, Lease, Outgoing};

fn lease(address: &str) -> Lease {
    Lease {
        address: address.parse().unwrap(),
        server: "10.0.2.2".parse().unwrap(),
        routes: vec![],
        nameservers: vec![],
        hostname: None,
        mtu: None,
        t1: 500,
        t2: 875,
        lifetime: 1000,
    }
}

fn bound() -> Client {
    let (mut client, _) = Client::start(0);
    client.step(Event::Received(Incoming::Offer(lease("10.0.2.15/24"))), 10);
    let actions = client.step(Event::Received(Incoming::Ack(lease("10.0.2.15/24"))), 20);
    assert_eq!(actions, [Action::Configure(Box::new(lease("10.0.2.15/24")))]);
    assert_eq!(client.deadline(), 20 + 500_000);
    client
}

#[test]
fn discovery_is_repeated_with_growing_pauses() {
    let (mut client, actions) = Client::start(0);
    assert_eq!(actions, [Action::Send(Outgoing::Discover)]);
    let mut now = 0;
    for pause in [1000, 2000, 4000, 8000, 16000, 16000] {
        assert_eq!(client.deadline(), now + pause);
        now = client.deadline();
        assert_eq!(client.step(Event::Timer, now), [Action::Send(Outgoing::Discover)]);
    }
}

#[test]
fn an_offer_is_requested_a_few_times_and_then_given_up() {
    let (mut client, _) = Client::start(0);
    let select =
        Action::Send(Outgoing::Select { address: "10.0.2.15".parse().unwrap(), server: "10.0.2.2".parse().unwrap() });
    assert_eq!(client.step(Event::Received(Incoming::Offer(lease("10.0.2.15/24"))), 5), vec![select.clone()]);
    // A second server's offer changes nothing.
    assert_eq!(client.step(Event::Received(Incoming::Offer(lease("10.0.9.9/24"))), 6), []);
    for _ in 0..3 {
        assert_eq!(client.step(Event::Timer, client.deadline()), vec![select.clone()]);
    }
    assert_eq!(client.step(Event::Timer, client.deadline()), [Action::Send(Outgoing::Discover)]);
}

#[test]
fn a_refusal_starts_again() {
    let (mut client, _) = Client::start(0);
    client.step(Event::Received(Incoming::Offer(lease("10.0.2.15/24"))), 5);
    assert_eq!(client.step(Event::Received(Incoming::Nak), 6), [Action::Send(Outgoing::Discover)]);
}

#[test]
fn a_lease_is_renewed_from_its_server_then_from_anybody_then_lost() {
    let mut client = bound();
    let address = "10.0.2.15".parse().unwrap();
    let renew = Action::Send(Outgoing::Extend { address, server: Some("10.0.2.2".parse().unwrap()) });
    let rebind = Action::Send(Outgoing::Extend { address, server: None });
    assert_eq!(client.step(Event::Timer, client.deadline()), vec![renew.clone()]);
    // Half of the 375 s until t2, then less, never under a minute.
    assert_eq!(client.deadline(), 20 + 687_500);
    let mut seen = Vec::new();
    while seen.last() != Some(&Action::Send(Outgoing::Discover)) {
        let now = client.deadline();
        seen.extend(client.step(Event::Timer, now));
        assert!(seen.len() < 20);
    }
    let lost = seen.len() - 2;
    assert_eq!(seen[lost], Action::Deconfigure(Box::new(lease("10.0.2.15/24"))));
    let turn = seen.iter().position(|a| *a == rebind).unwrap();
    assert!(seen[..turn].iter().all(|a| *a == renew) && seen[turn..lost].iter().all(|a| *a == rebind), "{seen:?}");
    // Deconfigured exactly at the end of the lease, and looking again a second later.
    assert_eq!(client.deadline(), 20 + 1_000_000 + 1000);
}

#[test]
fn an_extension_keeps_or_changes_the_address() {
    let mut client = bound();
    let at = client.deadline();
    client.step(Event::Timer, at);
    assert_eq!(
        client.step(Event::Received(Incoming::Ack(lease("10.0.2.15/24"))), at + 5),
        [Action::Configure(Box::new(lease("10.0.2.15/24")))]
    );
    assert_eq!(client.deadline(), at + 5 + 500_000);
    let at = client.deadline();
    client.step(Event::Timer, at);
    let new = lease("10.0.2.99/24");
    assert_eq!(
        client.step(Event::Received(Incoming::Ack(new.clone())), at + 5),
        [Action::Deconfigure(Box::new(lease("10.0.2.15/24"))), Action::Configure(Box::new(new.clone()))]
    );
    let at = client.deadline();
    client.step(Event::Timer, at);
    assert_eq!(
        client.step(Event::Received(Incoming::Nak), at + 5),
        [Action::Deconfigure(Box::new(new)), Action::Send(Outgoing::Discover)]
    );
}
