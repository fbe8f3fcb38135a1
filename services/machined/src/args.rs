//! The other services' command lines and the kubelet's configuration file. Pure.

use machine_config::{Config, Role};

use crate::credentials::Node;
use crate::files::Entry;

/// Tasks of one pod. Upstream has no limit by default; then a pod that forks without end takes the whole machine with it.
const POD_PIDS_LIMIT: u32 = 4096;
const PKI: &str = "/etc/kubernetes/pki";

/// The files with each service's arguments, one per line, and the kubelet's configuration.
///
/// `cgroup_v2` says whether the kernel offers version 2 alone, as machines do; nodes of the namespace driver may have version 1.
pub(crate) fn files(config: &Config, node: &Node, cgroup_v2: bool) -> Vec<Entry> {
    let mut files = vec![
        arguments("kubelet", kubelet(config, node)),
        arguments("kube-proxy", kube_proxy(config, node)),
        arguments("pod-network", pod_network(config, node)),
        arguments("cluster-dns", cluster_dns(config)),
        arguments("metal-controller-manager", metal_controller_manager(config, node)),
        Entry::public("/etc/kubernetes/kubelet.yaml", kubelet_configuration(config, cgroup_v2)),
    ];
    if matches!(config.role, Role::ControlPlane(_)) {
        files.push(arguments("store", store(node)));
        files.push(arguments("kube-apiserver", kube_apiserver(config, node)));
        files.push(arguments("kube-controller-manager", kube_controller_manager(config)));
        files.push(arguments(
            "kube-scheduler",
            vec!["--kubeconfig=/etc/kubernetes/kube-scheduler.conf".to_owned(), "--leader-elect".to_owned()],
        ));
    }
    files
}

fn arguments(service: &str, mut lines: Vec<String>) -> Entry {
    lines.push(String::new());
    Entry::public(format!("/run/corten/args/{service}"), lines.join("\n"))
}

fn store(node: &Node) -> Vec<String> {
    let at = |port| format!("https://{}", std::net::SocketAddr::new(node.ip, port));
    vec![
        format!("--name={}", node.hostname),
        "--data-dir=/var/lib/store".to_owned(),
        format!("--listen-client-urls=https://127.0.0.1:2379,{}", at(2379)),
        format!("--advertise-client-urls={}", at(2379)),
        format!("--listen-peer-urls={}", at(2380)),
        format!("--initial-advertise-peer-urls={}", at(2380)),
        format!("--initial-cluster={}={}", node.hostname, at(2380)),
        format!("--cert-file={PKI}/etcd/server.crt"),
        format!("--key-file={PKI}/etcd/server.key"),
        format!("--trusted-ca-file={PKI}/etcd/ca.crt"),
        "--client-cert-auth".to_owned(),
        format!("--peer-cert-file={PKI}/etcd/peer.crt"),
        format!("--peer-key-file={PKI}/etcd/peer.key"),
        format!("--peer-trusted-ca-file={PKI}/etcd/ca.crt"),
        "--peer-client-cert-auth".to_owned(),
    ]
}

fn kube_apiserver(config: &Config, node: &Node) -> Vec<String> {
    vec![
        "--etcd-servers=https://127.0.0.1:2379".to_owned(),
        format!("--etcd-cafile={PKI}/etcd/ca.crt"),
        format!("--etcd-certfile={PKI}/apiserver-etcd-client.crt"),
        format!("--etcd-keyfile={PKI}/apiserver-etcd-client.key"),
        "--bind-address=0.0.0.0".to_owned(),
        "--secure-port=6443".to_owned(),
        format!("--advertise-address={}", node.ip),
        format!("--tls-cert-file={PKI}/apiserver.crt"),
        format!("--tls-private-key-file={PKI}/apiserver.key"),
        format!("--client-ca-file={PKI}/ca.crt"),
        format!("--service-account-key-file={PKI}/sa.pub"),
        format!("--service-account-signing-key-file={PKI}/sa.key"),
        format!("--service-account-issuer=https://kubernetes.default.svc.{}", config.cluster.dns_domain),
        format!("--service-cluster-ip-range={}", config.cluster.service_subnet),
        format!("--kubelet-client-certificate={PKI}/apiserver-kubelet-client.crt"),
        format!("--kubelet-client-key={PKI}/apiserver-kubelet-client.key"),
        format!("--kubelet-certificate-authority={PKI}/ca.crt"),
        "--authorization-mode=Node,RBAC".to_owned(),
    ]
}

fn kube_controller_manager(config: &Config) -> Vec<String> {
    vec![
        "--kubeconfig=/etc/kubernetes/kube-controller-manager.conf".to_owned(),
        format!("--root-ca-file={PKI}/ca.crt"),
        format!("--service-account-private-key-file={PKI}/sa.key"),
        format!("--cluster-signing-cert-file={PKI}/ca.crt"),
        format!("--cluster-signing-key-file={PKI}/ca.key"),
        format!("--cluster-cidr={}", config.cluster.pod_subnet),
        format!("--service-cluster-ip-range={}", config.cluster.service_subnet),
        "--use-service-account-credentials".to_owned(),
        "--leader-elect".to_owned(),
    ]
}

fn metal_controller_manager(config: &Config, node: &Node) -> Vec<String> {
    let node_name = format!("--node-name={}", node.hostname);
    if matches!(config.role, Role::Worker) {
        let kubeconfig = "--kubeconfig=/etc/kubernetes/announcer.conf".to_owned();
        return vec![kubeconfig, node_name, "--announce-only".to_owned()];
    }
    let mut args = vec!["--kubeconfig=/etc/kubernetes/metal-controller-manager.conf".to_owned(), node_name];
    for pool in &config.cluster.load_balancer_pools {
        args.push(format!("--load-balancer-pool={}={}", pool.name, pool.addresses.join(",")));
    }
    args
}

fn kubelet(config: &Config, node: &Node) -> Vec<String> {
    let mut args = vec![
        "--config=/etc/kubernetes/kubelet.yaml".to_owned(),
        "--kubeconfig=/etc/kubernetes/kubelet.conf".to_owned(),
        format!("--hostname-override={}", node.hostname),
        format!("--node-ip={}", node.ip),
        "--container-runtime-endpoint=unix:///run/containerd/containerd.sock".to_owned(),
    ];
    if matches!(config.role, Role::ControlPlane(_)) && !config.cluster.schedule_on_control_planes {
        args.push("--register-with-taints=node-role.kubernetes.io/control-plane=:NoSchedule".to_owned());
    }
    for (name, value) in &config.machine.kubelet.extra_args {
        let flag = format!("--{name}=");
        // Replaced, not added: a flag given twice is an error.
        args.retain(|a| !a.starts_with(&flag));
        args.push(flag + value);
    }
    args
}

fn kube_proxy(config: &Config, node: &Node) -> Vec<String> {
    vec![
        "--kubeconfig=/etc/kubernetes/kube-proxy.conf".to_owned(),
        format!("--cluster-cidr={}", config.cluster.pod_subnet),
        format!("--hostname-override={}", node.hostname),
    ]
}

fn pod_network(config: &Config, node: &Node) -> Vec<String> {
    vec![
        "--kubeconfig=/etc/kubernetes/pod-network.conf".to_owned(),
        format!("--node-name={}", node.hostname),
        format!("--cluster-cidr={}", config.cluster.pod_subnet),
    ]
}

fn cluster_dns(config: &Config) -> Vec<String> {
    vec![
        "--kubeconfig=/etc/kubernetes/cluster-dns.conf".to_owned(),
        format!("--cluster-domain={}", config.cluster.dns_domain),
        format!("--cluster-ip={}", config.cluster.dns_service_ip()),
        "--resolv-conf=/run/resolv.conf".to_owned(),
    ]
}

fn kubelet_configuration(config: &Config, cgroup_v2: bool) -> String {
    let cgroups = if cgroup_v2 { "" } else { "failCgroupV1: false\nenforceNodeAllocatable: []\n" };
    // JSON is YAML, and one line for each field.
    let extra = config.machine.kubelet.extra_config.iter().map(|(name, value)| format!("{name}: {value}\n"));
    let mut extra: String = extra.collect();
    if !config.machine.kubelet.extra_config.contains_key("podPidsLimit") {
        extra.push_str(&format!("podPidsLimit: {POD_PIDS_LIMIT}\n"));
    }
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
         authentication:\n  anonymous:\n    enabled: false\n  webhook:\n    enabled: true\n  x509:\n    clientCAFile: {PKI}/ca.crt\n\
         authorization:\n  mode: Webhook\n\
         cgroupDriver: cgroupfs\n{cgroups}\
         clusterDNS: [{dns}]\nclusterDomain: {domain}\n\
         containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n\
         failSwapOn: false\n\
         resolvConf: /run/resolv.conf\n\
         tlsCertFile: {PKI}/kubelet.crt\ntlsPrivateKeyFile: {PKI}/kubelet.key\n{extra}",
        dns = config.cluster.dns_service_ip(),
        domain = config.cluster.dns_domain,
    )
}
