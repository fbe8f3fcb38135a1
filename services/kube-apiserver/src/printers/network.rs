//! Services and what stands behind and in front of them.

use apimachinery::intstr;
use serde_json::{Value, json};

use super::cells::{NONE, age, first_few, name, or_none, pairs, selector};
use super::{AGE, NAME, Printer, text, wide};
use crate::registry::strategy::tree::{at, has, int_at, items, map_at, str_at};

const SHOWN: usize = 3;

pub static PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        plural: "services",
        columns: &[NAME, text("Type"), text("Cluster-IP"), text("External-IP"), text("Port(s)"), AGE, wide("Selector")],
        cells: |s, now| {
            vec![
                name(s),
                json!(str_at(s, &["spec", "type"])),
                or_none(s, &["spec", "clusterIP"]),
                json!(external(s)),
                json!(ports(s)),
                age(s, now),
                json!(pairs(map_at(s, &["spec", "selector"]))),
            ]
        },
    },
    Printer {
        group: "",
        plural: "endpoints",
        columns: &[NAME, text("Endpoints"), AGE],
        cells: |e, now| vec![name(e), json!(first_few(&endpoints(e), SHOWN, NONE)), age(e, now)],
    },
    Printer {
        group: "discovery.k8s.io",
        plural: "endpointslices",
        columns: &[NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE],
        cells: |e, now| {
            let ports: Vec<String> = items(e, &["ports"]).iter().map(slice_port).collect();
            let addresses: Vec<String> = items(e, &["endpoints"])
                .iter()
                .flat_map(|ep| items(ep, &["addresses"]))
                .filter_map(|a| a.as_str().map(str::to_owned))
                .collect();
            vec![
                name(e),
                json!(str_at(e, &["addressType"])),
                json!(first_few(&ports, SHOWN, "<unset>")),
                json!(first_few(&addresses, SHOWN, "<unset>")),
                age(e, now),
            ]
        },
    },
    Printer {
        group: "networking.k8s.io",
        plural: "ingresses",
        columns: &[NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), AGE],
        cells: |i, now| {
            let hosts: Vec<String> = items(i, &["spec", "rules"])
                .iter()
                .map(|r| str_at(r, &["host"]))
                .filter(|h| !h.is_empty())
                .map(str::to_owned)
                .collect();
            let tls = !items(i, &["spec", "tls"]).is_empty();
            vec![
                name(i),
                or_none(i, &["spec", "ingressClassName"]),
                json!(first_few(&hosts, SHOWN, "*")),
                json!(balancer(i)),
                json!(if tls { "80, 443" } else { "80" }),
                age(i, now),
            ]
        },
    },
    Printer {
        group: "networking.k8s.io",
        plural: "ingressclasses",
        columns: &[NAME, text("Controller"), text("Parameters"), AGE],
        cells: |c, now| {
            let parameters = at(c, &["spec", "parameters"]).map_or(NONE.to_owned(), |p| {
                let group = str_at(p, &["apiGroup"]);
                let dot = if group.is_empty() { "" } else { "." };
                format!("{}{dot}{group}/{}", str_at(p, &["kind"]), str_at(p, &["name"]))
            });
            vec![name(c), json!(str_at(c, &["spec", "controller"])), json!(parameters), age(c, now)]
        },
    },
    Printer {
        group: "networking.k8s.io",
        plural: "networkpolicies",
        columns: &[NAME, text("Pod-Selector"), AGE],
        cells: |n, now| vec![name(n), json!(selector(at(n, &["spec", "podSelector"]))), age(n, now)],
    },
    Printer {
        group: "networking.k8s.io",
        plural: "servicecidrs",
        columns: &[NAME, text("CIDRs"), AGE],
        cells: |c, now| {
            let list: Vec<&str> = items(c, &["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
            vec![name(c), json!(list.join(",")), age(c, now)]
        },
    },
    Printer {
        group: "networking.k8s.io",
        plural: "ipaddresses",
        columns: &[NAME, text("ParentRef"), AGE],
        cells: |ip, now| {
            let parent = at(ip, &["spec", "parentRef"]).map_or(NONE.to_owned(), |p| {
                let parts = ["group", "resource", "namespace", "name"].map(|f| str_at(p, &[f]));
                parts.into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join("/")
            });
            vec![name(ip), json!(parent), age(ip, now)]
        },
    },
];

fn balancer(object: &Value) -> String {
    let list = items(object, &["status", "loadBalancer", "ingress"]);
    let shown: Vec<&str> = list
        .iter()
        .map(|i| match str_at(i, &["ip"]) {
            "" => str_at(i, &["hostname"]),
            ip => ip,
        })
        .collect();
    shown.join(",")
}

fn external(s: &Value) -> String {
    let own: Vec<&str> = items(s, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    let own = own.join(",");
    let or = |text: String, empty: &str| if text.is_empty() { empty.to_owned() } else { text };
    match str_at(s, &["spec", "type"]) {
        "ExternalName" => str_at(s, &["spec", "externalName"]).to_owned(),
        "LoadBalancer" => {
            let parts: Vec<String> = [balancer(s), own].into_iter().filter(|t| !t.is_empty()).collect();
            or(parts.join(","), "<pending>")
        }
        _ => or(own, NONE),
    }
}

fn ports(s: &Value) -> String {
    let list: Vec<String> = items(s, &["spec", "ports"])
        .iter()
        .map(|p| {
            let (port, protocol) = (int_at(p, &["port"]).unwrap_or(0), str_at(p, &["protocol"]));
            match int_at(p, &["nodePort"]).unwrap_or(0) {
                0 => format!("{port}/{protocol}"),
                node => format!("{port}:{node}/{protocol}"),
            }
        })
        .collect();
    if list.is_empty() { NONE.to_owned() } else { list.join(",") }
}

fn endpoints(e: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for subset in items(e, &["subsets"]) {
        let addresses: Vec<&str> = items(subset, &["addresses"]).iter().map(|a| str_at(a, &["ip"])).collect();
        let ports = items(subset, &["ports"]);
        if ports.is_empty() {
            out.extend(addresses.iter().map(|a| (*a).to_owned()));
        }
        for p in ports {
            let port = int_at(p, &["port"]).unwrap_or(0);
            out.extend(
                addresses.iter().map(|a| if a.contains(':') { format!("[{a}]:{port}") } else { format!("{a}:{port}") }),
            );
        }
    }
    out
}

fn slice_port(p: &Value) -> String {
    if has(p, "port") { intstr::to_text(&p["port"]) } else { "*".to_owned() }
}
