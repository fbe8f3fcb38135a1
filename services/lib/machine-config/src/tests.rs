use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{Authority, Documents, NewCluster, Role, Secrets, generate, parse};

fn pem(label: &str) -> String {
    format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
}

fn documents() -> Documents {
    let ca = Authority { cert: pem("CERTIFICATE"), key: pem("PRIVATE KEY") };
    let secrets = Secrets {
        machine_ca: ca.clone(),
        cluster_ca: ca.clone(),
        etcd_ca: ca,
        service_account_key: pem("RSA PRIVATE KEY"),
        token: "0123456789abcdef.x".into(),
    };
    let cluster = NewCluster {
        name: "demo".into(),
        endpoint: "https://10.0.2.15:6443".into(),
        cert_sans: vec!["127.0.0.1".into()],
    };
    generate(&cluster, &secrets).unwrap()
}

#[test]
fn generated_documents_are_valid_and_the_worker_has_no_keys() {
    let docs = documents();
    let control_plane = parse("c", &docs.controlplane).unwrap();
    assert!(matches!(control_plane.role, Role::ControlPlane(_)));
    assert_eq!(control_plane.cluster.endpoint.to_string(), "https://10.0.2.15:6443");
    assert_eq!(control_plane.cluster.api_service_ip().to_string(), "10.96.0.1");
    assert_eq!(control_plane.cluster.dns_service_ip().to_string(), "10.96.0.10");
    let worker = parse("w", &docs.worker).unwrap();
    assert_eq!(worker.role, Role::Worker);
    assert!(!docs.worker.contains("key:"), "{}", docs.worker);
}

/// A valid worker's document with room for a network section: the section starts at line 9.
fn worker(network: &str, cluster: &str) -> String {
    let crt = STANDARD.encode(pem("CERTIFICATE"));
    format!(
        "version: v1\nmachine:\n  type: worker\n  token: 0123456789abcdef.x\n  ca:\n    crt: {crt}\n  network:\n    hostname: n1\n{network}cluster:\n  name: demo\n  endpoint: https://h:6443\n  ca: {{crt: {crt}}}\n{cluster}"
    )
}

#[test]
fn problems_name_line_and_path() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "  kubelet: {extraConfig: {maxPods: 50, resolvConf: /x}}\n",
            "",
            "config.yaml:9: machine.kubelet.extraConfig.resolvConf: is set by the machine itself",
        ),
        (
            "    interfaces:\n      - interface: eth0\n        addresses: [\"10.0.0/24\"]\n",
            "",
            "config.yaml:11: machine.network.interfaces[0].addresses[0]: \"10.0.0/24\" is not an address with prefix",
        ),
        (
            "    interfaces:\n      - interface: eth0\n        dhpc: true\n",
            "",
            "config.yaml:11: machine.network.interfaces[0].dhpc: unknown field (known here: interface, dhcp, addresses, routes, mtu)",
        ),
        (
            "    interfaces:\n      - interface: eth0\n        dhcp: \"yes\"\n",
            "",
            "config.yaml:11: machine.network.interfaces[0].dhcp: expected true or false, found text",
        ),
        (
            "    interfaces:\n      - dhcp: true\n",
            "",
            "config.yaml:10: machine.network.interfaces[0].interface: is required",
        ),
        (
            "    interfaces:\n      - interface: eth0\n        routes:\n          - {network: 0.0.0.0/0, gateway: \"fd00::1\"}\n",
            "",
            "config.yaml:12: machine.network.interfaces[0].routes[0].gateway: fd00::1 and 0.0.0.0/0 are of different address families",
        ),
        (
            "",
            "  loadBalancerPools: [{name: lan, addresses: [10.0.0.9-10.0.0.1]}]\n",
            "config.yaml:13: cluster.loadBalancerPools[0].addresses[0]: \"10.0.0.9-10.0.0.1\" is not a network, a range first-last or an address",
        ),
        (
            "",
            "  loadBalancerPools: [{name: lan, addresses: [10.0.0.9]}, {name: lan, addresses: []}]\n",
            "config.yaml:13: cluster.loadBalancerPools[1]: pool \"lan\" is listed twice",
        ),
        ("    nameservers: 1.1.1.1\n", "", "config.yaml:9: machine.network.nameservers: expected a list, found text"),
        (
            "    nameservers:\n    - 53\n",
            "",
            "config.yaml:10: machine.network.nameservers[0]: expected text, found the number 53 (put it in quotes)",
        ),
        (
            "",
            "  network:\n    podSubnets: [10.244.1.0/16]\n",
            "config.yaml:14: cluster.network.podSubnets[0]: \"10.244.1.0/16\" has bits set behind its prefix (did you mean 10.244.0.0/16?)",
        ),
        (
            "",
            "  network: {podSubnets: [10.96.0.0/16]}\n",
            "config.yaml:13: cluster.network: the pod subnet 10.96.0.0/16 and the service subnet 10.96.0.0/12 overlap",
        ),
        (
            "",
            "  frobnicate: 1\n",
            "config.yaml:13: cluster.frobnicate: unknown field (known here: name, endpoint, ca, etcd, serviceAccount, network, allowSchedulingOnControlPlanes, loadBalancerPools)",
        ),
    ];
    parse("config.yaml", &worker("", "")).unwrap();
    for (network, cluster, expected) in cases {
        let found = parse("config.yaml", &worker(network, cluster)).unwrap_err().to_string();
        assert_eq!(&found, expected);
    }
}

#[test]
fn single_values() {
    let good = worker("", "");
    for (from, to, expected) in [
        ("version: v1", "version: v2", "c:1: version: \"v2\" is not a version this system knows (v1)"),
        (
            "type: worker",
            "type: controller",
            "c:3: machine.type: \"controller\" is not a machine type (controlplane or worker)",
        ),
        (
            "hostname: n1",
            "hostname: N_1",
            "c:8: machine.network.hostname: \"N_1\" is not a host name (lower-case letters, digits and dashes, at most 63)",
        ),
        ("https://h:6443", "h:6443", "c:11: cluster.endpoint: \"h:6443\" is not of the form https://host:port"),
        (
            "https://h:6443",
            "https://[::1]:6443x",
            "c:11: cluster.endpoint: \"https://[::1]:6443x\" is not of the form https://host:port",
        ),
        ("0123456789abcdef.x", "short", "c:4: machine.token: must have at least 16 characters"),
        ("ca: {crt: ", "ca: {crt: A", "c:12: cluster.ca.crt: is not base64"),
    ] {
        assert_eq!(good.matches(from).count(), 1, "{from}");
        assert_eq!(parse("c", &good.replace(from, to)).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_control_plane_needs_its_keys_and_all_problems_are_told() {
    let text = worker("", "").replace("type: worker", "type: controlplane");
    let found = parse("c", &text).unwrap_err();
    let paths: Vec<_> = found.list.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(paths, ["machine.ca.key", "cluster.etcd", "cluster.serviceAccount", "cluster.ca.key"]);
}

#[test]
fn broken_yaml_names_the_line() {
    let found = parse("c", "version: v1\nmachine: [\n").unwrap_err();
    assert!(found.to_string().starts_with("c:") && found.to_string().contains("not valid YAML"), "{found}");
    let twice = parse("c", "version: v1\nversion: v1\n").unwrap_err().to_string();
    assert!(twice.starts_with("c:2: not valid YAML"), "{twice}");
    assert!(parse("c", "").is_err());
    assert!(parse("c", "- a\n").unwrap_err().to_string().contains("expected a mapping, found a list"));
}

#[test]
fn arguments_of_generate_are_checked_by_name() {
    let ca = Authority { cert: pem("CERTIFICATE"), key: pem("PRIVATE KEY") };
    let secrets = Secrets {
        machine_ca: ca.clone(),
        cluster_ca: ca.clone(),
        etcd_ca: ca,
        service_account_key: pem("PRIVATE KEY"),
        token: "0123456789abcdef".into(),
    };
    let cluster = NewCluster { name: "Demo".into(), endpoint: "https://h:1".into(), cert_sans: vec![] };
    assert_eq!(generate(&cluster, &secrets).unwrap_err().to_string(), "name: \"Demo\" is not a DNS name");
}
