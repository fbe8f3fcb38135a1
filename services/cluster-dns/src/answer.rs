//! From a question to an answer: pure. Names and records follow the Kubernetes DNS specification 1.1.0.

use std::net::IpAddr;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::zone::{Endpoint, Port, Service, Zone};

/// Seconds that resolvers may keep an answer; upstream's default for cluster names.
const TTL_SECONDS: u32 = 5;

/// What is known about a question.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// The zone has the last word; no records and `NoError` means that the name exists without such records.
    Authoritative { code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>, additionals: Vec<Record> },
    /// Somebody else's name.
    Forward,
}

/// Records that a name stands for; `None` where the name does not exist.
struct Records {
    answers: Vec<RData>,
    additionals: Vec<Record>,
}

/// Answers one question from the zone.
pub fn answer(zone: &Zone, query: &Query) -> Answer {
    let name = query.name().to_lowercase().to_ascii();
    let name = name.trim_end_matches('.');
    if query.query_class() != DNSClass::IN {
        return Answer::Forward;
    }
    if let Some(address) = reverse(query.name()) {
        return pointer(zone, query, address);
    }
    let labels = match name.strip_suffix(zone.domain()) {
        Some("") => Vec::new(),
        Some(rest) if rest.ends_with('.') => rest.trim_end_matches('.').split('.').collect(),
        _ => return Answer::Forward,
    };
    match resolve(zone, &labels, query.query_type()) {
        Some(records) if records.answers.is_empty() => negative(zone, ResponseCode::NoError),
        Some(records) => positive(query.name(), records),
        None => negative(zone, ResponseCode::NXDomain),
    }
}

/// `labels` are what stands before the zone's own name.
fn resolve(zone: &Zone, labels: &[&str], kind: RecordType) -> Option<Records> {
    let reversed: Vec<&str> = labels.iter().rev().copied().collect();
    match reversed.as_slice() {
        [] => Some(apex(zone, kind)),
        ["dns-version"] => Some(Records::new(text_record(kind))),
        ["svc" | "pod"] => Some(Records::new(Vec::new())),
        ["pod", namespace] | ["svc", namespace] => zone.has_namespace(namespace).then(|| Records::new(Vec::new())),
        ["pod", _, dashed] => pod(dashed, kind),
        ["svc", namespace, service] => whole_service(zone, namespace, service, kind),
        ["svc", namespace, service, endpoint] => one_endpoint(zone, namespace, service, endpoint, kind),
        ["svc", namespace, service, protocol, port] => named_port(zone, (namespace, service), protocol, port, kind),
        _ => None,
    }
}

impl Records {
    fn new(answers: Vec<RData>) -> Self {
        Records { answers, additionals: Vec::new() }
    }
}

fn apex(zone: &Zone, kind: RecordType) -> Records {
    Records::new(if kind == RecordType::SOA { vec![soa(zone)] } else { Vec::new() })
}

fn text_record(kind: RecordType) -> Vec<RData> {
    let text = hickory_proto::rr::rdata::TXT::new(vec!["1.1.0".to_owned()]);
    if kind == RecordType::TXT { vec![RData::TXT(text)] } else { Vec::new() }
}

fn pod(dashed: &str, kind: RecordType) -> Option<Records> {
    let address = dashed.replace('-', ".").parse().ok().map(IpAddr::V4);
    let address = address.or_else(|| dashed.replace('-', ":").parse().ok().map(IpAddr::V6))?;
    Some(Records::new(address_record(address, kind).into_iter().collect()))
}

fn whole_service(zone: &Zone, namespace: &str, name: &str, kind: RecordType) -> Option<Records> {
    match zone.service(namespace, name)? {
        Service::ClusterIp { addresses, ports } if kind == RecordType::SRV => {
            let target = zone_name(zone, &[name, namespace, "svc"]);
            Some(services(ports.iter().map(|port| (port.number, target.clone())), &target, addresses))
        }
        Service::ClusterIp { addresses, .. } => {
            Some(Records::new(addresses.iter().filter_map(|address| address_record(*address, kind)).collect()))
        }
        Service::Headless { publish_not_ready } => {
            let endpoints = zone.endpoints(namespace, name, *publish_not_ready);
            // A headless Service without endpoints has no name: clients must not mistake it for an empty answer.
            if endpoints.is_empty() {
                return None;
            }
            if kind == RecordType::SRV {
                return Some(endpoint_services(zone, (namespace, name), &endpoints, |_| true));
            }
            Some(Records::new(endpoints.iter().filter_map(|e| address_record(e.address, kind)).collect()))
        }
        Service::ExternalName(target) => Some(Records::new(alias(target))),
    }
}

fn one_endpoint(zone: &Zone, namespace: &str, service: &str, label: &str, kind: RecordType) -> Option<Records> {
    let Service::Headless { publish_not_ready } = zone.service(namespace, service)? else { return None };
    let endpoints = zone.endpoints(namespace, service, *publish_not_ready);
    let matching: Vec<&Endpoint> = endpoints.into_iter().filter(|e| e.label == label).collect();
    if matching.is_empty() {
        return None;
    }
    Some(Records::new(matching.iter().filter_map(|e| address_record(e.address, kind)).collect()))
}

fn named_port(zone: &Zone, key: (&str, &str), protocol: &str, port: &str, kind: RecordType) -> Option<Records> {
    let (protocol, port) = (protocol.strip_prefix('_')?, port.strip_prefix('_')?);
    let fits = |candidate: &Port| candidate.name == port && candidate.protocol == protocol;
    let records = match zone.service(key.0, key.1)? {
        Service::ClusterIp { addresses, ports } => {
            let target = zone_name(zone, &[key.1, key.0, "svc"]);
            let matching = ports.iter().filter(|p| fits(p)).map(|p| (p.number, target.clone()));
            services(matching, &target, addresses)
        }
        Service::Headless { publish_not_ready } => {
            endpoint_services(zone, key, &zone.endpoints(key.0, key.1, *publish_not_ready), fits)
        }
        Service::ExternalName(_) => return None,
    };
    if records.answers.is_empty() {
        return None;
    }
    Some(if kind == RecordType::SRV { records } else { Records::new(Vec::new()) })
}

fn services(ports: impl Iterator<Item = (u16, Name)>, target: &Name, addresses: &[IpAddr]) -> Records {
    Records {
        answers: ports.map(|(port, target)| RData::SRV(SRV::new(0, 100, port, target))).collect(),
        additionals: addresses.iter().map(|address| host(target.clone(), *address)).collect(),
    }
}

fn endpoint_services(zone: &Zone, key: (&str, &str), endpoints: &[&Endpoint], fits: impl Fn(&Port) -> bool) -> Records {
    let mut records = Records::new(Vec::new());
    for endpoint in endpoints {
        let target = zone_name(zone, &[&endpoint.label, key.1, key.0, "svc"]);
        for port in endpoint.ports.iter().filter(|port| fits(port)) {
            records.answers.push(RData::SRV(SRV::new(0, 100, port.number, target.clone())));
        }
        records.additionals.push(host(target, endpoint.address));
    }
    records
}

fn alias(target: &str) -> Vec<RData> {
    // An unusable name was refused by the API server's validation; should one appear, it has no records.
    Name::from_ascii(format!("{}.", target.trim_end_matches('.'))).map(|n| RData::CNAME(CNAME(n))).into_iter().collect()
}

fn address_record(address: IpAddr, kind: RecordType) -> Option<RData> {
    match (address, kind) {
        (IpAddr::V4(v4), RecordType::A | RecordType::ANY) => Some(RData::A(A(v4))),
        (IpAddr::V6(v6), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(v6))),
        _ => None,
    }
}

fn host(name: Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Record::from_rdata(name, TTL_SECONDS, data)
}

/// The address behind a complete reverse name.
fn reverse(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

fn pointer(zone: &Zone, query: &Query, address: IpAddr) -> Answer {
    let Some((namespace, name)) = zone.service_at(address) else { return Answer::Forward };
    let answers = if query.query_type() == RecordType::PTR {
        vec![RData::PTR(PTR(zone_name(zone, &[name, namespace, "svc"])))]
    } else {
        Vec::new()
    };
    positive(query.name(), Records::new(answers))
}

fn positive(name: &Name, records: Records) -> Answer {
    let owned = |data| Record::from_rdata(name.clone(), TTL_SECONDS, data);
    Answer::Authoritative {
        code: ResponseCode::NoError,
        answers: records.answers.into_iter().map(owned).collect(),
        authorities: Vec::new(),
        additionals: records.additionals,
    }
}

/// Negative answers carry the SOA so that resolvers know how long to believe them (RFC 2308).
fn negative(zone: &Zone, code: ResponseCode) -> Answer {
    let authorities = vec![Record::from_rdata(zone_name(zone, &[]), TTL_SECONDS, soa(zone))];
    Answer::Authoritative { code, answers: Vec::new(), authorities, additionals: Vec::new() }
}

fn soa(zone: &Zone) -> RData {
    let (server, contact) = (zone_name(zone, &["ns", "dns"]), zone_name(zone, &["hostmaster"]));
    RData::SOA(SOA::new(server, contact, 1, 7200, 1800, 86400, TTL_SECONDS))
}

/// A name inside the zone. Labels come from API names, which are DNS labels; one that is not gives the zone itself.
fn zone_name(zone: &Zone, labels: &[&str]) -> Name {
    let domain = Name::from_ascii(format!("{}.", zone.domain())).unwrap_or_else(|_| Name::root());
    let relative = Name::from_labels(labels.iter().map(|label| label.as_bytes())).unwrap_or_default();
    relative.append_domain(&domain).unwrap_or(domain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn zone() -> Zone {
        let mut zone = Zone::new("cluster.local");
        let service = |name: &str, spec| json!({"metadata": {"namespace": "n", "name": name}, "spec": spec});
        let port = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
        zone.apply_service(&service("web", json!({"clusterIP": "10.96.0.9", "ports": port})));
        zone.apply_service(&service("db", json!({"clusterIP": "None", "ports": port})));
        zone.apply_service(&service("empty", json!({"clusterIP": "None"})));
        zone.apply_service(&service("out", json!({"type": "ExternalName", "externalName": "example.org"})));
        zone.apply_slice(&json!({
            "metadata": {"namespace": "n", "name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.244.0.2"], "hostname": "db-0"},
                          {"addresses": ["10.244.0.3"], "conditions": {"ready": false}}],
        }));
        zone
    }

    fn ask(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let query = Query::query(Name::from_ascii(name).unwrap(), kind);
        match answer(&zone(), &query) {
            Answer::Authoritative { code, answers, .. } => (code, answers.iter().map(|r| r.data.to_string()).collect()),
            Answer::Forward => (ResponseCode::Refused, Vec::new()),
        }
    }

    #[test]
    fn names_follow_the_specification() {
        let found =
            |values: &[&str]| (ResponseCode::NoError, values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
        let (missing, foreign) = ((ResponseCode::NXDomain, Vec::new()), (ResponseCode::Refused, Vec::new()));
        let cases = [
            ("web.n.svc.cluster.local.", RecordType::A, found(&["10.96.0.9"])),
            ("WEB.n.svc.Cluster.Local.", RecordType::A, found(&["10.96.0.9"])),
            ("web.n.svc.cluster.local.", RecordType::AAAA, found(&[])),
            ("nope.n.svc.cluster.local.", RecordType::A, missing.clone()),
            ("n.svc.cluster.local.", RecordType::A, found(&[])),
            ("other.svc.cluster.local.", RecordType::A, missing.clone()),
            ("db.n.svc.cluster.local.", RecordType::A, found(&["10.244.0.2"])),
            ("db-0.db.n.svc.cluster.local.", RecordType::A, found(&["10.244.0.2"])),
            ("db-1.db.n.svc.cluster.local.", RecordType::A, missing.clone()),
            ("empty.n.svc.cluster.local.", RecordType::A, missing.clone()),
            ("out.n.svc.cluster.local.", RecordType::A, found(&["example.org."])),
            ("_http._tcp.web.n.svc.cluster.local.", RecordType::SRV, found(&["0 100 80 web.n.svc.cluster.local."])),
            (
                "_http._tcp.db.n.svc.cluster.local.",
                RecordType::SRV,
                found(&["0 100 8080 db-0.db.n.svc.cluster.local."]),
            ),
            ("_http._udp.web.n.svc.cluster.local.", RecordType::SRV, missing),
            ("10-244-0-7.n.pod.cluster.local.", RecordType::A, found(&["10.244.0.7"])),
            ("9.0.96.10.in-addr.arpa.", RecordType::PTR, found(&["web.n.svc.cluster.local."])),
            ("1.1.1.1.in-addr.arpa.", RecordType::PTR, foreign.clone()),
            ("example.org.", RecordType::A, foreign.clone()),
            ("notcluster.local.", RecordType::A, foreign),
        ];
        for (name, kind, expected) in cases {
            assert_eq!(ask(name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn a_deleted_service_has_no_name() {
        let mut zone = zone();
        zone.remove_service(&json!({"metadata": {"namespace": "n", "name": "web"}}));
        let query = Query::query(Name::from_ascii("web.n.svc.cluster.local.").unwrap(), RecordType::A);
        assert!(matches!(answer(&zone, &query), Answer::Authoritative { code: ResponseCode::NXDomain, .. }));
        assert!(zone.service_at("10.96.0.9".parse().unwrap()).is_none());
    }
}
