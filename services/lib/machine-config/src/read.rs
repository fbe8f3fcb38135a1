//! From document to [`Config`]: which fields there are and what each must be.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::config::{Authority, Cluster, Config, ControlPlane, Interface, Kubelet, Machine, Pool, Role, Route};
use crate::node;
use crate::problem::Problems;
use crate::reader::{Field, Map, Report};
use crate::values;

/// Reads and checks a document; `file` is only for messages.
pub fn parse(file: &str, text: &str) -> Result<Config, Problems> {
    let problems = |list| Problems { file: file.to_owned(), list };
    let root = node::read(text).map_err(|problem| problems(vec![problem]))?;
    let report = Report::default();
    let config = document(Field::root(&report, &root).map());
    let list = report.into_list();
    match config {
        Some(config) if list.is_empty() => Ok(config),
        _ => Err(problems(list)),
    }
}

/// Keys that only a control-plane machine needs.
struct Keys {
    machine_ca: Option<String>,
    cluster_ca: Option<String>,
    etcd_ca: Option<Authority>,
    service_account: Option<String>,
}

fn document(root: Map<'_>) -> Option<Config> {
    let version = root.required("version").and_then(|f| {
        f.parse(|v| if v == "v1" { Ok(()) } else { Err("is not a version this system knows (v1)".to_owned()) })
    });
    let machine_field = root.required("machine");
    let cluster_field = root.required("cluster");
    let machine_map = machine_field.as_ref().map(Field::map);
    let control_plane = machine_map.as_ref().and_then(|m| m.required("type")).and_then(|f| f.parse(machine_type));
    let needs_keys = control_plane == Some(true);
    let machine = machine_map.and_then(|m| machine(m, needs_keys));
    let cluster = cluster_field.and_then(|f| cluster(f.map(), needs_keys));
    root.finish();
    version?;
    let (machine, machine_ca) = machine?;
    let (cluster, mut keys) = cluster?;
    keys.machine_ca = machine_ca;
    let role = if control_plane? { Role::ControlPlane(Box::new(control_plane_role(keys)?)) } else { Role::Worker };
    Some(Config { machine, cluster, role })
}

fn control_plane_role(keys: Keys) -> Option<ControlPlane> {
    Some(ControlPlane {
        machine_ca_key: keys.machine_ca?,
        cluster_ca_key: keys.cluster_ca?,
        etcd_ca: keys.etcd_ca?,
        service_account_key: keys.service_account?,
    })
}

fn machine_type(text: &str) -> Result<bool, String> {
    match text {
        "controlplane" => Ok(true),
        "worker" => Ok(false),
        _ => Err("is not a machine type (controlplane or worker)".to_owned()),
    }
}

fn machine(map: Map<'_>, needs_key: bool) -> Option<(Machine, Option<String>)> {
    let token = map.required("token").and_then(|f| f.parse_secret(token));
    let ca = map.required("ca").and_then(|f| authority(f.map(), needs_key));
    let cert_sans = map.items("certSANs").iter().filter_map(|f| f.parse(values::name_or_address)).collect();
    let network = map.optional("network").map(|f| f.map());
    let (hostname, nameservers, interfaces) = network.map(network_section).unwrap_or_default();
    let kubelet = map.optional("kubelet").map(|f| kubelet(f.map())).unwrap_or_default();
    map.finish();
    let (ca_cert, ca_key) = ca?;
    Some((Machine { token: token?, ca_cert, cert_sans, hostname, nameservers, interfaces, kubelet }, ca_key))
}

fn token(text: &str) -> Result<String, String> {
    if text.len() < 16 { Err("must have at least 16 characters".to_owned()) } else { Ok(text.to_owned()) }
}

type Network = (Option<String>, Vec<std::net::IpAddr>, Vec<Interface>);

fn network_section(map: Map<'_>) -> Network {
    let hostname = map.optional("hostname").and_then(|f| f.parse(values::host_name));
    let nameservers = map.items("nameservers").iter().filter_map(|f| f.parse(values::address)).collect();
    let mut interfaces: Vec<Interface> = Vec::new();
    for field in map.items("interfaces") {
        if let Some(one) = interface(&field) {
            if interfaces.iter().any(|i| i.name == one.name) {
                field.wrong(format!("interface {:?} is listed twice", one.name));
            }
            interfaces.push(one);
        }
    }
    map.finish();
    (hostname, nameservers, interfaces)
}

fn interface(field: &Field<'_>) -> Option<Interface> {
    let map = field.map();
    let name = map.required("interface").and_then(|f| f.parse(values::interface));
    let dhcp = map.optional("dhcp").and_then(|f| f.boolean()).unwrap_or(false);
    let addresses = map.items("addresses").iter().filter_map(|f| f.parse(values::address_with_prefix)).collect();
    let routes = map.items("routes").iter().filter_map(route).collect();
    let mtu = map.optional("mtu").and_then(|f| f.number(576, 65535));
    map.finish();
    Some(Interface { name: name?, dhcp, addresses, routes, mtu })
}

fn route(field: &Field<'_>) -> Option<Route> {
    let map = field.map();
    let network = map.required("network").and_then(|f| f.parse(values::network));
    let gateway_field = map.optional("gateway");
    let gateway = gateway_field.as_ref().and_then(|f| f.parse(values::address));
    map.finish();
    let network = network?;
    if let (Some(gateway), Some(field)) = (gateway, gateway_field)
        && gateway.is_ipv4() != network.addr().is_ipv4()
    {
        field.wrong(format!("{gateway} and {network} are of different address families"));
    }
    Some(Route { network, gateway })
}

/// Fields of KubeletConfiguration without which the machine's parts would not fit together.
const SET_BY_THE_MACHINE: &[&str] = &[
    "apiVersion",
    "kind",
    "authentication",
    "authorization",
    "cgroupDriver",
    "cgroupsPerQOS",
    "clusterDNS",
    "clusterDomain",
    "containerRuntimeEndpoint",
    "enforceNodeAllocatable",
    "failCgroupV1",
    "failSwapOn",
    "resolvConf",
    "tlsCertFile",
    "tlsPrivateKeyFile",
];

fn kubelet(map: Map<'_>) -> Kubelet {
    let node_ip = map.optional("nodeIP").and_then(|f| f.parse(values::address));
    let mut extra_args = BTreeMap::new();
    if let Some(field) = map.optional("extraArgs") {
        for (name, value) in field.map().all() {
            if name.is_empty() || name.starts_with('-') || name.contains(['=', '\n']) {
                value.wrong("is not a flag's name (written without dashes)");
            } else if let Some(text) = value
                .parse(|v| if v.contains('\n') { Err("must stand on one line".to_owned()) } else { Ok(v.to_owned()) })
            {
                extra_args.insert(name.to_owned(), text);
            }
        }
    }
    let mut extra_config = BTreeMap::new();
    if let Some(field) = map.optional("extraConfig") {
        for (name, value) in field.map().all() {
            if SET_BY_THE_MACHINE.contains(&name) {
                value.wrong("is set by the machine itself");
            } else {
                extra_config.insert(name.to_owned(), value.json());
            }
        }
    }
    map.finish();
    Kubelet { extra_args, extra_config, node_ip }
}

fn cluster(map: Map<'_>, needs_keys: bool) -> Option<(Cluster, Keys)> {
    let name = map.required("name").and_then(|f| f.parse(values::dns_name));
    let endpoint = map.required("endpoint").and_then(|f| f.parse(values::endpoint));
    let ca = map.required("ca").and_then(|f| authority(f.map(), needs_keys));
    let etcd_ca = section(&map, "etcd", needs_keys).and_then(|m| {
        let ca = m.required("ca").and_then(|f| authority(f.map(), true));
        m.finish();
        let (cert, key) = ca?;
        Some(Authority { cert, key: key? })
    });
    let service_account = section(&map, "serviceAccount", needs_keys).and_then(|m| {
        let key = m.required("key").and_then(|f| f.parse_secret(values::private_key));
        m.finish();
        key
    });
    let (pod_subnet, service_subnet, dns_domain) = match map.optional("network") {
        Some(field) => subnets(&field),
        None => (default_net(PODS), default_net(SERVICES), DOMAIN.to_owned()),
    };
    let schedule_on_control_planes =
        map.optional("allowSchedulingOnControlPlanes").and_then(|f| f.boolean()).unwrap_or(false);
    let load_balancer_pools = pools(&map.items("loadBalancerPools"));
    map.finish();
    let (ca_cert, cluster_ca) = ca?;
    let cluster = Cluster {
        name: name?,
        endpoint: endpoint?,
        ca_cert,
        pod_subnet: pod_subnet?,
        service_subnet: service_subnet?,
        dns_domain,
        schedule_on_control_planes,
        load_balancer_pools,
    };
    Some((cluster, Keys { machine_ca: None, cluster_ca, etcd_ca, service_account }))
}

fn pools(fields: &[Field<'_>]) -> Vec<Pool> {
    let mut pools: Vec<Pool> = Vec::new();
    for field in fields {
        let map = field.map();
        let name = map.required("name").and_then(|f| f.parse(values::dns_name));
        let addresses = map.required("addresses").map(|f| f.list()).unwrap_or_default();
        let addresses = addresses.iter().filter_map(|f| f.parse(values::address_range)).collect();
        map.finish();
        let Some(name) = name else { continue };
        if pools.iter().any(|pool| pool.name == name) {
            field.wrong(format!("pool {name:?} is listed twice"));
        }
        pools.push(Pool { name, addresses });
    }
    pools
}

fn section<'a>(map: &Map<'a>, name: &'static str, needed: bool) -> Option<Map<'a>> {
    if needed { map.required(name) } else { map.optional(name) }.map(|f| f.map())
}

fn authority(map: Map<'_>, needs_key: bool) -> Option<(String, Option<String>)> {
    let cert = map.required("crt").and_then(|f| f.parse_secret(values::certificate));
    let key = if needs_key { map.required("key") } else { map.optional("key") };
    let key = key.and_then(|f| f.parse_secret(values::private_key));
    map.finish();
    Some((cert?, key))
}

pub(crate) const PODS: &str = "10.244.0.0/16";
pub(crate) const SERVICES: &str = "10.96.0.0/12";
pub(crate) const DOMAIN: &str = "cluster.local";

fn default_net(text: &str) -> Option<IpNet> {
    text.parse().ok()
}

fn subnets(field: &Field<'_>) -> (Option<IpNet>, Option<IpNet>, String) {
    let map = field.map();
    // A node gets a /24 of the pods' network; services have at most 20 bits, the allocator's bound.
    let pods = one_subnet(&map, "podSubnets", PODS, 8..=24);
    let services = one_subnet(&map, "serviceSubnets", SERVICES, 12..=24);
    let domain = map.optional("dnsDomain").and_then(|f| f.parse(values::dns_name)).unwrap_or_else(|| DOMAIN.to_owned());
    map.finish();
    if let (Some(p), Some(s)) = (pods, services)
        && (p.contains(&s) || s.contains(&p))
    {
        field.wrong(format!("the pod subnet {p} and the service subnet {s} overlap"));
    }
    (pods, services, domain)
}

fn one_subnet(
    map: &Map<'_>,
    name: &'static str,
    default: &str,
    prefixes: std::ops::RangeInclusive<u8>,
) -> Option<IpNet> {
    let Some(field) = map.optional(name) else { return default_net(default) };
    let items = field.list();
    let [item] = items.as_slice() else {
        field.wrong("must hold exactly one network (dual stack is not supported yet)");
        return None;
    };
    item.parse(|text| {
        let net = values::network(text)?;
        if !net.addr().is_ipv4() {
            return Err("is not an IPv4 network (IPv6 pods and services are not supported yet)".to_owned());
        }
        if !prefixes.contains(&net.prefix_len()) {
            return Err(format!("must have a prefix from /{} to /{}", prefixes.start(), prefixes.end()));
        }
        Ok(net)
    })
}
