//! The cluster's names, kept from Services and EndpointSlices: pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde_json::Value;

/// All that the zone's names are made from.
#[derive(Debug)]
pub struct Zone {
    /// Lower-case labels of the zone, without the root.
    domain: String,
    services: HashMap<Key, Service>,
    /// EndpointSlices by their Service, then by their own name.
    slices: HashMap<Key, BTreeMap<String, Vec<Endpoint>>>,
    by_address: HashMap<IpAddr, Key>,
}

/// Namespace and name.
pub type Key = (String, String);

/// A Service as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Has addresses of its own.
    ClusterIp { addresses: Vec<IpAddr>, ports: Vec<Port> },
    /// Stands for its endpoints.
    Headless { publish_not_ready: bool },
    /// Stands for another name.
    ExternalName(String),
}

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    pub number: u16,
}

/// An endpoint of a headless Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host name, given or made from the address.
    pub label: String,
    pub address: IpAddr,
    pub ready: bool,
    pub ports: Vec<Port>,
}

impl Zone {
    pub fn new(domain: &str) -> Self {
        let domain = domain.trim_matches('.').to_lowercase();
        Zone { domain, services: HashMap::new(), slices: HashMap::new(), by_address: HashMap::new() }
    }

    /// The zone's name without the final dot.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    pub fn apply_service(&mut self, object: &Value) {
        self.remove_service(object);
        let key = key(object);
        if let Some(service) = service(&object["spec"]) {
            if let Service::ClusterIp { addresses, .. } = &service {
                for address in addresses {
                    self.by_address.insert(*address, key.clone());
                }
            }
            self.services.insert(key, service);
        }
    }

    pub fn remove_service(&mut self, object: &Value) {
        let key = key(object);
        self.services.remove(&key);
        self.by_address.retain(|_, owner| *owner != key);
    }

    pub fn apply_slice(&mut self, object: &Value) {
        self.remove_slice(object);
        if let Some(service) = slice_service(object) {
            let name = text(&object["metadata"]["name"]).to_owned();
            self.slices.entry(service).or_default().insert(name, endpoints(object));
        }
    }

    pub fn remove_slice(&mut self, object: &Value) {
        if let Some(service) = slice_service(object)
            && let Some(slices) = self.slices.get_mut(&service)
        {
            slices.remove(text(&object["metadata"]["name"]));
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub fn service_at(&self, address: IpAddr) -> Option<&Key> {
        self.by_address.get(&address)
    }

    /// The endpoints that a headless Service publishes.
    pub fn endpoints(&self, namespace: &str, name: &str, with_not_ready: bool) -> Vec<&Endpoint> {
        let slices = self.slices.get(&(namespace.to_owned(), name.to_owned()));
        let all = slices.into_iter().flat_map(BTreeMap::values).flatten();
        all.filter(|endpoint| endpoint.ready || with_not_ready).collect()
    }

    /// Whether any Service lives in the namespace: such names exist although they have no records.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.services.keys().any(|(ns, _)| ns == namespace)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn key(object: &Value) -> Key {
    (text(&object["metadata"]["namespace"]).to_owned(), text(&object["metadata"]["name"]).to_owned())
}

fn slice_service(object: &Value) -> Option<Key> {
    let service = object["metadata"]["labels"]["kubernetes.io/service-name"].as_str()?;
    Some((text(&object["metadata"]["namespace"]).to_owned(), service.to_owned()))
}

fn service(spec: &Value) -> Option<Service> {
    if spec["type"] == "ExternalName" {
        return Some(Service::ExternalName(text(&spec["externalName"]).to_owned()));
    }
    if spec["clusterIP"] == "None" {
        return Some(Service::Headless { publish_not_ready: spec["publishNotReadyAddresses"] == true });
    }
    let listed = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut addresses: Vec<IpAddr> =
        listed.chain(spec["clusterIP"].as_str()).filter_map(|ip| ip.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    // An address that is not allocated yet comes with the next event.
    (!addresses.is_empty()).then(|| Service::ClusterIp { addresses, ports: ports(&spec["ports"]) })
}

fn ports(list: &Value) -> Vec<Port> {
    let ports = list.as_array().into_iter().flatten();
    ports
        .filter_map(|port| {
            Some(Port {
                name: text(&port["name"]).to_owned(),
                protocol: port["protocol"].as_str().unwrap_or("TCP").to_lowercase(),
                number: port["port"].as_u64()?.try_into().ok()?,
            })
        })
        .collect()
}

fn endpoints(slice: &Value) -> Vec<Endpoint> {
    let ports = ports(&slice["ports"]);
    let mut found = Vec::new();
    for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
        let ready = endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
        for address in endpoint["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let Ok(parsed) = address.parse() else { continue };
            let made = || address.replace(['.', ':'], "-");
            let label = endpoint["hostname"].as_str().map_or_else(made, str::to_owned);
            found.push(Endpoint { label, address: parsed, ready, ports: ports.clone() });
        }
    }
    found
}
