//! What the name in a proxied path stands for: `[http:|https:]name[:port]` of a pod, a service or a node. Pure.

use super::backend::{Place, Scheme};
use crate::errors::ApiError;
use apimachinery::meta;
use serde_json::Value;
use std::net::IpAddr;

/// A name as a path has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// How to speak to it.
    pub scheme: Scheme,
    /// The object.
    pub name: &'a str,
    /// A number, a name, or nothing for the default.
    pub port: &'a str,
}

impl<'a> Wanted<'a> {
    /// Reads a name; `kind` is for the error.
    pub fn parse(kind: &str, id: &'a str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => ("?", "", ""),
        };
        let scheme = match scheme {
            "" | "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(invalid(kind, id)),
        };
        if name.is_empty() { Err(invalid(kind, id)) } else { Ok(Self { scheme, name, port }) }
    }

    fn port_number(&self) -> Option<u16> {
        self.port.parse().ok().filter(|p| *p > 0)
    }
}

fn invalid(kind: &str, id: &str) -> ApiError {
    ApiError::bad_request(format!("invalid {kind} request {id:?}"))
}

/// Only what other machines can reach as well may be reached through this server: not its own loopback, no link-local metadata
/// services, no multicast.
fn allowed(address: IpAddr) -> bool {
    let (special, link_local) = match address {
        IpAddr::V4(v4) => (v4.is_broadcast(), v4.is_link_local()),
        IpAddr::V6(v6) => (v6.to_ipv4_mapped().is_some_and(|v4| !allowed(v4.into())), v6.is_unicast_link_local()),
    };
    !(special || link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

fn allowed_address(text: &str) -> Result<IpAddr, ApiError> {
    let address = text.parse().ok().filter(|a| allowed(*a));
    address.ok_or_else(|| ApiError::bad_request("address not allowed"))
}

/// A pod, at the wanted port or the first one that a container declares.
pub fn pod(pod: &Value, wanted: Wanted<'_>) -> Result<Place, ApiError> {
    let address = allowed_address(pod["status"]["podIP"].as_str().unwrap_or_default())?;
    let mut ports = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["ports"].as_array())
        .flatten()
        .filter_map(|p| {
            Some((p["name"].as_str().unwrap_or_default(), u16::try_from(p["containerPort"].as_u64()?).ok()?))
        });
    let default = if wanted.scheme == Scheme::Https { 443 } else { 80 };
    let port = match (wanted.port, wanted.port_number()) {
        ("", _) => Some(ports.next().map_or(default, |(_, number)| number)),
        (_, Some(number)) => Some(number),
        (name, None) => ports.find(|(n, _)| *n == name).map(|(_, number)| number),
    };
    let port =
        port.ok_or_else(|| ApiError::bad_request(format!("pod {:?} has no port {:?}", wanted.name, wanted.port)))?;
    Ok(Place { scheme: wanted.scheme, address, port })
}

/// An address behind a service, and the pod that has to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where to connect.
    pub place: Place,
    /// Namespace and name of the pod.
    pub pod: (String, String),
}

impl Candidate {
    /// Whether the pod still has the address: endpoints that people write do not lead anywhere else.
    pub fn is_of(&self, pod: &Value) -> bool {
        let text = self.place.address.to_string();
        let ips = pod["status"]["podIPs"].as_array().into_iter().flatten().filter_map(|ip| ip["ip"].as_str());
        pod["status"]["podIP"].as_str().into_iter().chain(ips).any(|ip| ip == text)
    }
}

/// Everything behind a service's port. `endpoints` is the Endpoints object of the service's name.
pub fn service(service: &Value, endpoints: &Value, id: &str, wanted: Wanted<'_>) -> Result<Vec<Candidate>, ApiError> {
    let mut name = wanted.port;
    if let Ok(number) = wanted.port.parse::<i64>() {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let port = ports.into_iter().find(|p| p["port"].as_i64() == Some(number)).ok_or_else(|| {
            ApiError::unavailable(format!("no service port {number} found for service {:?}", wanted.name))
        })?;
        name = port["name"].as_str().unwrap_or_default();
    }
    let subsets = endpoints["subsets"].as_array().into_iter().flatten();
    let mut found = Vec::new();
    for subset in subsets {
        let ports = subset["ports"].as_array().into_iter().flatten();
        let Some(port) = ports.into_iter().find(|p| p["name"].as_str().unwrap_or_default() == name) else { continue };
        let Some(port) = port["port"].as_u64().and_then(|p| u16::try_from(p).ok()) else { continue };
        found.extend(subset["addresses"].as_array().into_iter().flatten().filter_map(|a| candidate(a, port, wanted)));
    }
    if found.is_empty() { Err(none_available(id)) } else { Ok(found) }
}

fn candidate(address: &Value, port: u16, wanted: Wanted<'_>) -> Option<Candidate> {
    let target = &address["targetRef"];
    let text = |v: &Value| v.as_str().map(str::to_owned);
    if target["kind"] != "Pod" {
        return None;
    }
    let place =
        Place { scheme: wanted.scheme, address: address["ip"].as_str()?.parse().ok().filter(|a| allowed(*a))?, port };
    Some(Candidate { place, pod: (text(&target["namespace"])?, text(&target["name"])?) })
}

/// The 503 of a service that nobody serves.
pub fn none_available(id: &str) -> ApiError {
    ApiError::unavailable(format!("no endpoints available for service {id:?}"))
}

/// A node: its kubelet, or whatever else listens there.
pub fn node(node: &Value, wanted: Wanted<'_>) -> Result<Place, ApiError> {
    let kubelet = kubelet(node).ok_or_else(|| {
        ApiError::internal(format!("no preferred addresses found; known addresses: [] of node {}", meta::name(node)))
    })?;
    if wanted.port.is_empty() || wanted.port_number() == Some(kubelet.port) {
        return Ok(kubelet);
    }
    let address = allowed_address(&kubelet.address.to_string())?;
    let port = wanted.port_number().ok_or_else(|| invalid("node", &format!("{}:{}", wanted.name, wanted.port)))?;
    Ok(Place { scheme: wanted.scheme, address, port })
}

/// Where a node's kubelet listens: by its internal address, else any other.
pub fn kubelet(node: &Value) -> Option<Place> {
    let addresses = node["status"]["addresses"].as_array()?;
    let of =
        |kind: &str| addresses.iter().filter(|a| a["type"] == kind).find_map(|a| a["address"].as_str()?.parse().ok());
    let address = of("InternalIP").or_else(|| of("ExternalIP"))?;
    let port =
        node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().and_then(|p| u16::try_from(p).ok());
    Some(Place { scheme: Scheme::Kubelet, address, port: port.filter(|p| *p > 0).unwrap_or(10250) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn place(scheme: Scheme, address: &str, port: u16) -> Place {
        Place { scheme, address: address.parse().expect("address"), port }
    }

    fn wanted(id: &str) -> Wanted<'_> {
        Wanted::parse("test", id).expect("valid")
    }

    #[test]
    fn names() {
        let table = [
            ("web", Some((Scheme::Http, "web", ""))),
            ("web:80", Some((Scheme::Http, "web", "80"))),
            ("https:web:admin", Some((Scheme::Https, "web", "admin"))),
            ("http:web:", Some((Scheme::Http, "web", ""))),
            ("ftp:web:21", None),
            (":80", None),
            ("", None),
            ("a:b:c:d", None),
        ];
        for (id, want) in table {
            let got = Wanted::parse("pod", id).ok().map(|w| (w.scheme, w.name, w.port));
            assert_eq!(got, want, "{id}");
        }
        let error = Wanted::parse("service", "a:b:c:d").expect_err("invalid");
        assert_eq!((error.code(), error.to_string().as_str()), (400, "invalid service request \"a:b:c:d\""));
    }

    #[test]
    fn pods() {
        let object = |ip: &str| {
            json!({"spec": {"containers": [{}, {"ports": [{"containerPort": 8080}, {"name": "adm", "containerPort": 9}]}]},
                "status": {"podIP": ip}})
        };
        let table = [
            ("p", Some(place(Scheme::Http, "10.0.0.1", 8080))),
            ("p:81", Some(place(Scheme::Http, "10.0.0.1", 81))),
            ("https:p:adm", Some(place(Scheme::Https, "10.0.0.1", 9))),
            ("p:none", None),
        ];
        for (id, want) in table {
            assert_eq!(pod(&object("10.0.0.1"), wanted(id)).ok(), want, "{id}");
        }
        assert_eq!(pod(&json!({"status": {"podIP": "10.0.0.1"}}), wanted("p")).map(|p| p.port), Ok(80));
        let bad = ["127.0.0.1", "169.254.169.254", "224.0.0.1", "::1", "fe80::1", "::ffff:127.0.0.1", "0.0.0.0", ""];
        for ip in bad {
            let error = pod(&object(ip), wanted("p")).expect_err(ip);
            assert_eq!((error.code(), error.to_string().as_str()), (400, "address not allowed"), "{ip}");
        }
    }

    #[test]
    fn services() {
        let object = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"port": 443}]}});
        let of = |name: &str| json!({"kind": "Pod", "namespace": "n", "name": name});
        let endpoints = json!({"subsets": [
            {"addresses": [{"ip": "10.0.0.1", "targetRef": of("a")}, {"ip": "10.9.9.9"}, {"ip": "127.0.0.1", "targetRef": of("b")}],
                "ports": [{"name": "web", "port": 8080}]},
            {"addresses": [{"ip": "10.0.0.2", "targetRef": of("c")}], "ports": [{"name": "web", "port": 8081}, {"port": 8443}]},
            {"notReadyAddresses": [{"ip": "10.0.0.3", "targetRef": of("d")}], "ports": [{"name": "web", "port": 1}]},
        ]});
        let get = |id: &str| {
            service(&object, &endpoints, id, wanted(id)).map(|c| c.iter().map(|c| c.place).collect::<Vec<_>>())
        };
        let (one, two) = (place(Scheme::Http, "10.0.0.1", 8080), place(Scheme::Http, "10.0.0.2", 8081));
        assert_eq!(get("s:web"), Ok(vec![one, two]), "pods only, ready ones only, no loopback");
        assert_eq!(get("s:80"), get("s:web"));
        assert_eq!(get("https:s:443"), Ok(vec![place(Scheme::Https, "10.0.0.2", 8443)]));
        assert_eq!(get("s").map(|p| p.len()), Ok(1), "the port without a name");
        let text = |r: Result<Vec<Place>, ApiError>| r.map_err(|e| (e.code(), e.to_string())).expect_err("refused");
        assert_eq!(text(get("s:81")), (503, "no service port 81 found for service \"s\"".into()));
        assert_eq!(text(get("s:other")), (503, "no endpoints available for service \"s:other\"".into()));
    }

    #[test]
    fn an_endpoint_is_the_pods_own_or_nobodys() {
        let candidate = Candidate { place: place(Scheme::Http, "10.0.0.1", 1), pod: ("n".into(), "p".into()) };
        assert!(candidate.is_of(&json!({"status": {"podIP": "10.0.0.1"}})));
        assert!(
            candidate
                .is_of(&json!({"status": {"podIP": "fd00::1", "podIPs": [{"ip": "fd00::1"}, {"ip": "10.0.0.1"}]}}))
        );
        assert!(!candidate.is_of(&json!({"status": {"podIP": "10.0.0.2"}})));
    }

    #[test]
    fn nodes() {
        let object = json!({"status": {"addresses": [{"type": "Hostname", "address": "x"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10255}}}});
        let kubelet = place(Scheme::Kubelet, "10.0.0.1", 10255);
        assert_eq!(node(&object, wanted("n")), Ok(kubelet));
        assert_eq!(node(&object, wanted("n:10255")), Ok(kubelet));
        assert_eq!(node(&object, wanted("https:n:9100")), Ok(place(Scheme::Https, "10.0.0.1", 9100)));
        assert!(node(&object, wanted("n:metrics")).is_err());
        assert!(node(&json!({"status": {}}), wanted("n")).is_err());
        let local = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
        assert!(node(&local, wanted("n:22")).is_err(), "a node that claims to be this machine");
    }
}
