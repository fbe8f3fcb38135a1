//! Answers for load balancers' addresses on the local network. What this machine can serve is decided in [`servable`], which
//! machine of several announces it in [`contest`]; [`frames`] and [`claims`] are the words, [`links`] the mouths and ears.
//!
//! Every machine of the cluster takes part. A machine that dies falls silent, and others take its addresses over within two
//! seconds, with an announcement that moves every neighbour's entry at once. The API is not asked for that: the cluster may
//! have died with the machine. Nothing is said or asked while no Service has an address.

mod claims;
mod contest;
mod frames;
mod links;
mod reach;
mod servable;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use client::{Change, Changes, Client, Informer, InformerParams, Resource, resource};
use daemon::Shutdown;
use tokio::sync::mpsc;
use tracing::{info, warn};

use self::claims::Said;
use self::contest::{Claim, Contest, Outcome, PACE};
use self::links::{Lines, News, Place};
use self::reach::Reach;

/// A new owner says so this often, one [`PACE`] apart: a frame may be lost.
const REPEATS: u32 = 4;
/// Two beats are at least so far apart, whoever defies us.
const BREATH: Duration = Duration::from_millis(25);
/// After an interface could not be used.
const RETRY: Duration = Duration::from_secs(1);
/// Words of other announcers that wait to be heard.
const NEWS_MAX: usize = 256;

/// Objects that are followed for as long as they matter.
struct Feed {
    informer: Informer,
    changes: Changes,
}

impl Feed {
    fn start(client: &Client, resource: Resource<'static>, params: InformerParams) -> Feed {
        let informer = Informer::start(client.clone(), resource, params);
        Feed { changes: informer.subscribe(), informer }
    }
}

/// The next change of something that may not be followed.
async fn next(feed: &mut Option<Feed>) -> Option<Change> {
    match feed {
        Some(feed) => feed.changes.recv().await,
        None => std::future::pending().await,
    }
}

struct Announcer<'a> {
    client: &'a Client,
    node: &'a str,
    services: &'a Informer,
    /// All EndpointSlices, while a Service is served only where it has endpoints.
    slices: Option<Feed>,
    /// This machine's Node, while anything is announced at all.
    own: Option<Feed>,
    reach: Reach,
    servable: BTreeSet<IpAddr>,
    places: BTreeMap<IpAddr, Place>,
    contest: Contest,
    lines: Lines,
    /// New addresses of ours, and how often they are still to be announced.
    fresh: BTreeMap<IpAddr, u32>,
    /// When what we have is to be claimed again, and was last.
    beat: Option<Instant>,
    spoke: Instant,
    /// When interfaces are to be looked at again.
    retry: Option<Instant>,
}

/// Runs until `shutdown`, then hands this machine's addresses on.
pub async fn run(client: &Client, node: &str, services: &Informer, shutdown: &Shutdown) {
    let mut changes = services.subscribe();
    let (sender, mut news) = mpsc::channel(NEWS_MAX);
    let mut announcer = Announcer {
        client,
        node,
        services,
        slices: None,
        own: None,
        reach: Reach::start(client.clone()),
        servable: BTreeSet::new(),
        places: BTreeMap::new(),
        contest: Contest::new(),
        lines: Lines::new(sender),
        fresh: BTreeMap::new(),
        beat: None,
        spoke: Instant::now(),
        retry: None,
    };
    loop {
        let due = announcer.due();
        let more = tokio::select! {
            () = shutdown.wait() => break,
            change = changes.recv() => {
                while changes.try_recv().is_ok() {}
                announcer.follow();
                change
            }
            change = next(&mut announcer.slices) => {
                while announcer.slices.as_mut().is_some_and(|feed| feed.changes.try_recv().is_ok()) {}
                change
            }
            change = next(&mut announcer.own) => change,
            () = announcer.reach.changed() => {
                announcer.survey().await;
                continue;
            }
            Some(news) = news.recv() => {
                announcer.hear(news).await;
                continue;
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                announcer.tick(Instant::now()).await;
                continue;
            }
        };
        if more.is_none() {
            break;
        }
        announcer.survey().await;
    }
    announcer.lines.claim(Claim::GivenUp).await;
}

impl Announcer<'_> {
    /// Follows what matters to the Services that there are.
    fn follow(&mut self) {
        let services = self.services.list();
        let announced = || services.iter().filter(|service| servable::is_announced(service));
        if announced().next().is_none() {
            self.own = None;
        } else if self.own.is_none() {
            let field_selector = format!("metadata.name={}", self.node);
            let params =
                InformerParams { field_selector, trim: Some(servable::trim_node), ..InformerParams::default() };
            self.own = Some(Feed::start(self.client, resource::NODES, params));
        }
        if !announced().any(|service| servable::is_local(service)) {
            self.slices = None;
        } else if self.slices.is_none() {
            let params =
                InformerParams { trim: Some(servable::trim_slice), compact: true, ..InformerParams::default() };
            self.slices = Some(Feed::start(self.client, resource::ENDPOINTSLICES, params));
        }
    }

    /// Looks at what this machine can serve now.
    async fn survey(&mut self) {
        let node = self.own.as_ref().and_then(|feed| feed.informer.get("", self.node));
        self.contest.fit = self.reach.is_informed() && node.as_ref().is_some_and(|node| servable::is_ready(node));
        let slices = self.slices.as_ref().map(|feed| &feed.informer);
        let near = |namespace: &str| slices.map(|slices| slices.each_in(namespace)).into_iter().flatten();
        let servable = match node {
            Some(node) if !servable::is_excluded(&node) => servable::addresses(&self.services.list(), self.node, near),
            _ => BTreeSet::new(),
        };
        if servable != self.servable {
            self.servable = servable;
            self.find_places().await;
        }
    }

    /// Finds the interfaces for what can be served.
    async fn find_places(&mut self) {
        self.retry = None;
        let ports = match netlink::Handle::new() {
            _ if self.servable.is_empty() => Ok(Vec::new()),
            Ok(handle) => links::ports(&handle).await,
            Err(error) => Err(error),
        };
        match ports {
            Ok(ports) => {
                let place = |ip: &IpAddr| {
                    let port = links::port_for(*ip, &ports)?;
                    Some((*ip, Place { index: port.index, mac: port.mac }))
                };
                self.places = self.servable.iter().filter_map(place).collect();
            }
            Err(error) => warn!("interfaces: {error}"),
        }
        if let Some(ip) = self.servable.iter().find(|ip| !self.places.contains_key(ip)) {
            warn!("no interface leads to {ip}: it is not announced");
            self.retry = Some(Instant::now() + RETRY);
        }
        let macs = self.places.iter().map(|(ip, place)| (*ip, place.mac)).collect();
        let before = self.contest.ours();
        self.contest.stand(&macs, Instant::now());
        self.settle(&before);
    }

    /// Answers for what is ours now.
    fn settle(&mut self, before: &BTreeSet<IpAddr>) {
        let ours = self.contest.ours();
        if !self.lines.set(&self.places, &ours) {
            self.retry = Some(Instant::now() + RETRY);
        }
        if ours != *before {
            info!("announcing {ours:?}");
        }
        self.fresh.retain(|ip, _| ours.contains(ip));
        self.reach.announcing(!ours.is_empty());
        self.beat = if ours.is_empty() { None } else { Some(self.beat.unwrap_or_else(Instant::now)) };
    }

    /// When there is something to do unless something happens first.
    fn due(&self) -> Option<Instant> {
        [self.beat, self.retry, self.contest.next()].into_iter().flatten().min()
    }

    async fn tick(&mut self, now: Instant) {
        if self.retry.is_some_and(|at| at <= now) {
            self.find_places().await;
        }
        let before = self.contest.ours();
        let gained = self.contest.take(now);
        if !gained.is_empty() {
            self.fresh.extend(gained.into_iter().map(|ip| (ip, REPEATS)));
            self.settle(&before);
            self.beat = Some(now);
        }
        if self.beat.is_some_and(|at| at <= now) {
            self.speak(now).await;
        }
    }

    /// One beat: our claims, and announcements that are still to be made.
    async fn speak(&mut self, now: Instant) {
        self.lines.claim(Claim::Held { fit: self.contest.fit }).await;
        if !self.fresh.is_empty() {
            self.lines.announce(&self.fresh.keys().copied().collect()).await;
        }
        self.fresh.retain(|_, left| {
            *left -= 1;
            *left > 0
        });
        (self.spoke, self.beat) = (now, Some(now + PACE));
    }

    async fn hear(&mut self, news: News) {
        let Said { from, claim, addresses } = match news {
            News::Said(said) => said,
            News::Ended => {
                self.retry = Some(Instant::now() + RETRY);
                return;
            }
        };
        let (before, now) = (self.contest.ours(), Instant::now());
        let mut lost = false;
        for ip in addresses {
            match self.contest.hear(ip, from, claim, now) {
                Outcome::None => {}
                Outcome::Lost => lost = true,
                Outcome::Defied => {
                    self.fresh.entry(ip).or_insert(1);
                    self.beat = self.beat.map(|at| at.min(self.spoke + BREATH).max(now));
                }
            }
        }
        if lost {
            self.settle(&before);
        }
    }
}
