//! Which Service has which addresses. Pure, and the same at every start: what a Service has and may have stays its own,
//! everything else is assigned afresh, oldest Service first.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::meta;
use serde_json::Value;

use super::Pool;

/// spec.loadBalancerClass of Services that ask for this process by name; those without a class are served as well.
pub const CLASS: &str = "corten.dev/l2";
/// Annotation: the pool to take addresses from.
pub const POOL: &str = "corten.dev/load-balancer-pool";
/// Annotation: the addresses to have, separated by commas. spec.loadBalancerIP does the same for one.
pub const ADDRESSES: &str = "corten.dev/load-balancer-ips";

/// status.condition of Services whose addresses are from a pool: announcers on every machine learn from it, without knowing the
/// pools, that the addresses are theirs to announce.
pub const MARK: &str = "corten.dev/Assigned";

/// What to write about one Service.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets these.
    Assign(Vec<IpAddr>),
    /// It has something that is no longer for it.
    Release,
    /// It cannot have what it asks for.
    Refuse(String),
}

/// Whether this process looks after a Service.
pub fn is_ours(service: &Value) -> bool {
    let class = service["spec"]["loadBalancerClass"].as_str();
    service["spec"]["type"] == "LoadBalancer" && class.is_none_or(|class| class == CLASS)
}

/// Whether a Service's addresses were assigned by this process.
pub fn is_marked(service: &Value) -> bool {
    let mut conditions = service["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == MARK && condition["status"] == "True")
}

/// The addresses that a Service has.
pub fn addresses(service: &Value) -> Vec<IpAddr> {
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
    ingress.filter_map(|point| point["ip"].as_str()?.parse().ok()).collect()
}

/// What a Service asks for.
struct Request<'p> {
    /// Exactly these, if any.
    fixed: Vec<IpAddr>,
    /// From these.
    pools: Vec<&'p Pool>,
    /// Whether IPv4, in the Service's order.
    families: Vec<bool>,
    /// All families, or as many as there are.
    all: bool,
}

/// Decides about all Services together.
pub fn plan(services: &[Arc<Value>], pools: &[Pool]) -> Vec<(Arc<Value>, Verdict)> {
    let mut services: Vec<&Arc<Value>> = services.iter().collect();
    services.sort_by_cached_key(|service| (meta::creation_timestamp(service).to_owned(), meta::key(service)));
    let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
    let mut verdicts = Vec::new();
    let mut waiting = Vec::new();
    for service in services {
        let has = addresses(service);
        if !is_ours(service) {
            // A Service of another class is another's; one that is no load balancer any more keeps nothing of ours.
            if service["spec"]["type"] != "LoadBalancer" && is_marked(service) {
                verdicts.push((Arc::clone(service), Verdict::Release));
            }
            continue;
        }
        let request = request(service, pools);
        let keeps = request.as_ref().is_ok_and(|request| request.accepts(&has));
        if keeps && has.iter().all(|ip| !taken.contains(ip)) {
            taken.extend(&has);
            if !is_marked(service) {
                verdicts.push((Arc::clone(service), Verdict::Assign(has)));
            }
        } else if meta::deletion_timestamp(service).is_none() {
            waiting.push((service, request));
        }
    }
    for (service, request) in waiting {
        let verdict = match request.and_then(|request| request.choose(&taken)) {
            Ok(ips) => {
                taken.extend(&ips);
                Verdict::Assign(ips)
            }
            Err(why) => Verdict::Refuse(why),
        };
        verdicts.push((Arc::clone(service), verdict));
    }
    verdicts
}

fn request<'p>(service: &Value, pools: &'p [Pool]) -> Result<Request<'p>, String> {
    let named = meta::annotation(service, POOL);
    let pools: Vec<&Pool> = pools.iter().filter(|pool| named.is_none_or(|name| pool.name == name)).collect();
    if pools.is_empty() {
        return Err(match named {
            Some(name) => format!("there is no address pool {name:?} (annotation {POOL})"),
            None => {
                "no address pools are configured (cluster.loadBalancerPools of the machine configuration)".to_owned()
            }
        });
    }
    let (field, text) = match meta::annotation(service, ADDRESSES) {
        Some(text) => (ADDRESSES, text),
        None => ("spec.loadBalancerIP", service["spec"]["loadBalancerIP"].as_str().unwrap_or_default()),
    };
    let mut fixed: Vec<IpAddr> = Vec::new();
    for ip in text.split(',').map(str::trim).filter(|ip| !ip.is_empty()) {
        let parsed = ip.parse().map_err(|_| format!("{field}: {ip:?} is not an IP address"))?;
        if !pools.iter().any(|pool| pool.contains(parsed)) {
            return Err(format!("{field}: {ip} is in none of the address pools it may be taken from"));
        }
        fixed.push(parsed);
    }
    let listed = service["spec"]["ipFamilies"].as_array().map(Vec::as_slice).unwrap_or_default();
    let families: Vec<bool> = listed.iter().map(|family| family == "IPv4").collect();
    let families = if families.is_empty() { vec![true] } else { families };
    Ok(Request { fixed, pools, families, all: service["spec"]["ipFamilyPolicy"] == "RequireDualStack" })
}

impl Request<'_> {
    /// Whether these addresses are what would be given out if they were free.
    fn accepts(&self, has: &[IpAddr]) -> bool {
        if !self.fixed.is_empty() {
            return self.fixed == has;
        }
        let inside = |ip: &IpAddr| self.pools.iter().any(|pool| pool.contains(*ip));
        let wanted = self.families.iter().filter(|v4| has.iter().any(|ip| ip.is_ipv4() == **v4)).count();
        !has.is_empty() && has.iter().all(inside) && wanted == has.len() && (!self.all || wanted == self.families.len())
    }

    fn choose(&self, taken: &BTreeSet<IpAddr>) -> Result<Vec<IpAddr>, String> {
        if let Some(ip) = self.fixed.iter().find(|ip| taken.contains(ip)) {
            return Err(format!("{ip} belongs to another Service"));
        }
        if !self.fixed.is_empty() {
            return Ok(self.fixed.clone());
        }
        let mut chosen = Vec::new();
        for v4 in &self.families {
            let mut free = self.pools.iter().flat_map(|pool| pool.addresses(*v4)).filter(|ip| !taken.contains(ip));
            match free.next() {
                Some(ip) => chosen.push(ip),
                None if self.all || chosen.is_empty() && self.families.len() == 1 => {
                    return Err(format!(
                        "the address pools have no free {} address",
                        if *v4 { "IPv4" } else { "IPv6" }
                    ));
                }
                None => {}
            }
        }
        if chosen.is_empty() { Err("the address pools have no free address".to_owned()) } else { Ok(chosen) }
    }
}
