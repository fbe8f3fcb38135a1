//! Names: a pod's resolver configuration, host name and hosts file. Pure.

use crate::pod::Pod;

/// The contents of a resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// Reads a resolv.conf.
pub fn parse(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(keyword) = words.next() else { continue };
        let rest = words.map(str::to_owned);
        match keyword {
            "nameserver" => resolver.servers.extend(rest.take(1)),
            // The last search line wins, as in the C library.
            "search" => resolver.searches = rest.collect(),
            "options" => resolver.options = rest.collect(),
            _ => {}
        }
    }
    resolver
}

/// What a pod gets, by its DNS policy.
pub fn resolver(pod: &Pod, node: &Resolver, cluster_dns: &[String], domain: &str) -> Resolver {
    let policy = pod.spec.dns_policy.as_str();
    let cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "" | "ClusterFirst" => !pod.spec.host_network,
        _ => false,
    };
    let mut result = if policy == "None" {
        Resolver::default()
    } else if cluster && !cluster_dns.is_empty() {
        let mut searches = Vec::new();
        if !domain.is_empty() {
            let namespace = &pod.metadata.namespace;
            searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
        }
        searches.extend(node.searches.iter().cloned());
        Resolver { servers: cluster_dns.to_vec(), searches, options: vec!["ndots:5".into()] }
    } else {
        node.clone()
    };
    if let Some(own) = &pod.spec.dns_config {
        result.servers.extend(own.nameservers.iter().cloned());
        result.searches.extend(own.searches.iter().cloned());
        for option in &own.options {
            let key = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
            result.options.retain(|o| key(o) != option.name);
            result.options.push(match option.value.as_deref().filter(|v| !v.is_empty()) {
                Some(value) => format!("{}:{value}", option.name),
                None => option.name.clone(),
            });
        }
    }
    dedup(&mut result.servers);
    dedup(&mut result.searches);
    result
}

/// What the C library of every container understands at least: name servers, search domains, and letters of these together.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LETTERS_MAX: usize = 2048;

/// Cuts a resolver configuration to what can be used; tells what was left out, in upstream's words.
pub fn fit(resolver: &mut Resolver) -> Vec<String> {
    let mut told = Vec::new();
    if resolver.servers.len() > SERVERS_MAX {
        resolver.servers.truncate(SERVERS_MAX);
        let line = resolver.servers.join(" ");
        told.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {line}"
        ));
    }
    let all = resolver.searches.len();
    resolver.searches.truncate(SEARCHES_MAX);
    while resolver.searches.join(" ").len() > SEARCH_LETTERS_MAX {
        resolver.searches.pop();
    }
    if resolver.searches.len() < all {
        let line = resolver.searches.join(" ");
        told.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {line}"
        ));
    }
    told
}

fn dedup(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

/// The pod's host name and, with a subdomain, its full name.
pub fn host_name(pod: &Pod, node_name: &str, domain: &str) -> (String, Option<String>) {
    if let Some(name) = pod.spec.hostname_override.as_ref().filter(|n| !n.is_empty()) {
        return (name.clone(), None);
    }
    let base = if !pod.spec.hostname.is_empty() {
        pod.spec.hostname.clone()
    } else if pod.spec.host_network {
        return (node_name.to_owned(), None);
    } else {
        pod.metadata.name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
    };
    let full = (!pod.spec.subdomain.is_empty() && !domain.is_empty())
        .then(|| format!("{base}.{}.{}.svc.{domain}", pod.spec.subdomain, pod.metadata.namespace));
    match &full {
        Some(full) if pod.spec.set_hostname_as_fqdn == Some(true) => (full.clone(), Some(full.clone())),
        _ => (base, full),
    }
}

/// The kernel keeps no longer host name.
pub const HOST_NAME_MAX: usize = 64;

/// The text of /etc/hosts.
pub fn hosts_file(pod: &Pod, ips: &[String], name: &str, full: Option<&str>, node_hosts: &str) -> String {
    let mut text = String::new();
    if pod.spec.host_network {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(node_hosts);
    } else {
        text.push_str("# Kubernetes-managed hosts file.\n");
        text.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        text.push_str(
            "fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        for ip in ips {
            match full.filter(|f| *f != name) {
                Some(full) => text.push_str(&format!("{ip}\t{full}\t{name}\n")),
                None => text.push_str(&format!("{ip}\t{name}\n")),
            }
        }
    }
    if !pod.spec.host_aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in &pod.spec.host_aliases {
            text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        Pod::from_value(&json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap()
    }

    #[test]
    fn what_no_container_could_use_is_left_out_and_told() {
        let list = |count: usize, text: &str| -> Vec<String> { (0..count).map(|n| format!("{text}{n}")).collect() };
        let table = [
            (3, 32, 1, vec![]),
            (4, 1, 1, vec!["Nameserver limits were exceeded"]),
            (1, 33, 1, vec!["Search Line limits were exceeded"]),
            (4, 21, 100, vec!["Nameserver limits were exceeded", "Search Line limits were exceeded"]),
        ];
        for (servers, searches, length, expected) in table {
            let mut resolver = Resolver {
                servers: list(servers, "192.0.2."),
                searches: list(searches, &"s".repeat(length)),
                options: vec![],
            };
            let told = fit(&mut resolver);
            assert_eq!(told.iter().filter_map(|t| t.split(',').next()).collect::<Vec<_>>(), expected);
            assert!(resolver.servers.len() <= 3 && resolver.searches.join(" ").len() <= 2048);
        }
    }

    #[test]
    fn policies_choose_servers_and_searches() {
        let node = parse("# c\nnameserver 10.0.2.3\nsearch lan\noptions edns0\n");
        let dns = ["10.96.0.10".to_owned()];
        let first = resolver(&pod(json!({"dnsPolicy": "ClusterFirst"})), &node, &dns, "cluster.local");
        assert_eq!(first.servers, dns);
        assert_eq!(first.searches, ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"]);
        assert_eq!(first.options, ["ndots:5"]);
        let host = pod(json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}));
        assert_eq!(resolver(&host, &node, &dns, "cluster.local"), node);
        let own = pod(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}}),
        );
        assert_eq!(
            resolver(&own, &node, &dns, "d"),
            Resolver { servers: vec!["1.1.1.1".into()], searches: vec![], options: vec!["ndots:2".into()] }
        );
    }

    #[test]
    fn names_follow_hostname_and_subdomain() {
        assert_eq!(host_name(&pod(json!({})), "node", "d"), ("p".into(), None));
        assert_eq!(host_name(&pod(json!({"hostNetwork": true})), "node", "d"), ("node".into(), None));
        let both = pod(json!({"hostname": "h", "subdomain": "s"}));
        assert_eq!(host_name(&both, "node", "d"), ("h".into(), Some("h.s.n.svc.d".into())));
        let chosen = pod(json!({"hostname": "h", "subdomain": "s", "hostnameOverride": "o.example"}));
        assert_eq!(host_name(&chosen, "node", "d"), ("o.example".into(), None));
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let pod = pod(json!({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = hosts_file(&pod, &["10.0.0.1".into()], "p", Some("p.s.n.svc.d"), "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n"));
        assert!(text.contains("10.0.0.1\tp.s.n.svc.d\tp\n") && text.contains("1.2.3.4\ta\tb\n"));
    }
}
