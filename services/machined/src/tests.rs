//! The machine API over TLS on the loopback interface, with a PID 1 that is only a socket.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daemon::{Shutdown, ShutdownTrigger};
use hyper_util::rt::TokioIo;
use init_api::{Reply, Request, Service, State};
use machine_api::v1::machine_service_client::MachineServiceClient;
use machine_api::v1::*;
use machine_config::{Authority, Config, NewCluster, Role, Secrets};
use pki::{Ca, CertInfo, IssueRequest, Issued, KeyPair};
use rustls_pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::credentials::{self, MACHINE_CA, Node};
use crate::machine::Machine;
use crate::server::{self, Api, Running};
use crate::{args, config, files};

fn document() -> (String, Ca) {
    let (machine, cluster, etcd) =
        (Ca::generate("corten").unwrap(), Ca::generate("kubernetes").unwrap(), Ca::generate("etcd").unwrap());
    let authority = |ca: &Ca| Authority { cert: ca.cert_pem().to_owned(), key: ca.key_pem().to_owned() };
    let secrets = Secrets {
        machine_ca: authority(&machine),
        cluster_ca: authority(&cluster),
        etcd_ca: authority(&etcd),
        service_account_key: pki::service_account_key().unwrap().private_pem().to_owned(),
        token: "t0123456789abcdef".to_owned(),
    };
    let new = NewCluster {
        name: "demo".into(),
        endpoint: "https://10.0.2.15:6443".into(),
        cert_sans: vec!["node.example".into()],
    };
    (machine_config::generate(&new, &secrets).unwrap().controlplane, machine)
}

fn node() -> Node {
    let ip = "10.0.2.15".parse().unwrap();
    Node { hostname: "n1".into(), ip, addresses: vec![ip] }
}

fn keys(config: &Config) -> &machine_config::ControlPlane {
    let Role::ControlPlane(keys) = &config.role else { panic!("not a control plane") };
    keys
}

fn all_files(config: &Config) -> BTreeMap<String, String> {
    let mut entries = credentials::node_files(config, &credentials::issue_own(config, keys(config), &node()).unwrap());
    entries.extend(credentials::control_plane_files(config, keys(config), &node()).unwrap());
    entries.extend(args::files(config, &node(), true));
    for entry in &entries {
        assert_eq!(
            entry.secret,
            entry.content.contains("PRIVATE KEY") || entry.path.ends_with(".conf"),
            "{}",
            entry.path
        );
    }
    entries.into_iter().map(|e| (e.path, e.content)).collect()
}

#[test]
fn every_file_of_the_contract_is_there_with_its_identity() {
    let config = config::check("c", &document().0).unwrap();
    let files = all_files(&config);
    for (path, name, group) in [
        ("pki/apiserver.crt", "kube-apiserver", ""),
        ("pki/apiserver-kubelet-client.crt", "kube-apiserver-kubelet-client", "system:masters"),
        ("pki/apiserver-etcd-client.crt", "kube-apiserver-etcd-client", ""),
        ("pki/kubelet.crt", "system:node:n1", ""),
        ("pki/etcd/server.crt", "n1", ""),
        ("pki/etcd/peer.crt", "n1", ""),
    ] {
        let info = CertInfo::from_pem(&files[&format!("/etc/kubernetes/{path}")]).unwrap();
        assert_eq!((info.common_name.as_str(), info.organizations.join(",").as_str()), (name, group), "{path}");
        assert!(files.contains_key(&format!("/etc/kubernetes/{}", path.replace(".crt", ".key"))), "{path}");
    }
    let api = CertInfo::from_pem(&files["/etc/kubernetes/pki/apiserver.crt"]).unwrap();
    for name in ["kubernetes.default.svc.cluster.local", "localhost", "node.example", "n1"] {
        assert!(api.dns_names.iter().any(|n| n == name), "{name}");
    }
    for ip in ["10.96.0.1", "127.0.0.1", "10.0.2.15"] {
        assert!(api.ips.contains(&ip.parse().unwrap()), "{ip}");
    }
    for (name, user, group) in [
        ("kubelet", "system:node:n1", "system:nodes"),
        ("kube-controller-manager", "system:kube-controller-manager", ""),
        ("kube-scheduler", "system:kube-scheduler", ""),
        ("metal-controller-manager", "system:metal-controller-manager", ""),
        ("kube-proxy", "system:kube-proxy", ""),
        ("pod-network", "system:pod-network", ""),
        ("cluster-dns", "system:cluster-dns", ""),
        ("announcer", "system:announcer", ""),
    ] {
        let text = &files[&format!("/etc/kubernetes/{name}.conf")];
        let crt = text.lines().find_map(|l| l.trim().strip_prefix("client-certificate-data: ")).unwrap();
        let info = CertInfo::from_pem(&String::from_utf8(STANDARD.decode(crt).unwrap()).unwrap()).unwrap();
        assert_eq!((info.common_name.as_str(), info.organizations.join(",").as_str()), (user, group), "{name}");
        assert!(text.contains("server: \"https://127.0.0.1:7445\""));
    }
    for path in ["pki/ca.crt", "pki/ca.key", "pki/sa.key", "pki/sa.pub", "pki/etcd/ca.crt", "kubelet.yaml"] {
        assert!(files.contains_key(&format!("/etc/kubernetes/{path}")), "{path}");
    }
}

#[test]
fn arguments_follow_the_configuration() {
    let text = document().0.replace(
        "  network:\n    # hostname",
        "  kubelet: {extraArgs: {node-ip: 192.0.2.1, v: \"2\"}, extraConfig: {cpuManagerPolicy: static, systemReserved: {cpu: 500m}, maxPods: 50}}\n  network:\n    # hostname",
    );
    let text = text.replace("allowSchedulingOnControlPlanes: true", "allowSchedulingOnControlPlanes: false");
    let pools = "  loadBalancerPools: [{name: lan, addresses: [192.0.2.0/28, 192.0.2.64-192.0.2.70]}]\n";
    let config = config::check("c", &(text + pools)).unwrap();
    let files = all_files(&config);
    let args = |service: &str| files[&format!("/run/corten/args/{service}")].as_str();
    for (service, line) in [
        ("store", "--listen-client-urls=https://127.0.0.1:2379,https://10.0.2.15:2379"),
        ("kube-apiserver", "--service-cluster-ip-range=10.96.0.0/12"),
        ("kube-apiserver", "--advertise-address=10.0.2.15"),
        ("kube-controller-manager", "--cluster-cidr=10.244.0.0/16"),
        ("kube-controller-manager", "--use-service-account-credentials"),
        ("kubelet", "--register-with-taints=node-role.kubernetes.io/control-plane=:NoSchedule"),
        ("metal-controller-manager", "--load-balancer-pool=lan=192.0.2.0/28,192.0.2.64-192.0.2.70"),
        ("kubelet", "--node-ip=192.0.2.1"),
        ("kubelet", "--v=2"),
        ("cluster-dns", "--cluster-ip=10.96.0.10"),
    ] {
        assert!(args(service).lines().any(|l| l == line), "{service}: {line} in {}", args(service));
    }
    assert_eq!(args("kubelet").matches("--node-ip").count(), 1);
    let fields = "cpuManagerPolicy: \"static\"\nmaxPods: 50\nsystemReserved: {\"cpu\":\"500m\"}\npodPidsLimit: 4096\n";
    assert!(files["/etc/kubernetes/kubelet.yaml"].ends_with(fields), "{}", files["/etc/kubernetes/kubelet.yaml"]);
    assert!(args("kube-scheduler").ends_with('\n'));
    let worker = Config { role: machine_config::Role::Worker, ..config };
    let files = crate::args::files(&worker, &node(), true);
    let announcer = files.iter().find(|entry| entry.path.ends_with("args/metal-controller-manager")).unwrap();
    let expected = "--kubeconfig=/etc/kubernetes/announcer.conf\n--node-name=n1\n--announce-only\n";
    assert_eq!(announcer.content, expected, "a worker needs no pools");
}

#[test]
fn the_kernel_argument_wins_and_a_bad_file_never_falls_back() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(folder.path().to_owned());
    assert_eq!(config::load(&machine.paths, "").unwrap_err().to_string(), "no machine configuration yet");
    let (text, _) = document();
    config::store(&machine.paths, &text).unwrap();
    config::load(&machine.paths, "quiet console=ttyS0").unwrap();
    let gone = config::load(&machine.paths, "corten.config=/nowhere/config").unwrap_err().to_string();
    assert_eq!(gone, "corten.config=/nowhere/config: No such file or directory (os error 2)");
    let bad = folder.path().join("bad.yaml");
    std::fs::write(&bad, text.replace("type: controlplane", "type: king")).unwrap();
    let wrong = config::load(&machine.paths, &format!("corten.config=/x corten.config={}", bad.display()))
        .unwrap_err()
        .to_string();
    assert!(
        wrong.ends_with("bad.yaml:3: machine.type: \"king\" is not a machine type (controlplane or worker)"),
        "{wrong}"
    );
    assert_eq!(std::fs::read_to_string(machine.paths.stored_config()).unwrap(), text);
    // Keys of one cluster with the certificates of another.
    let other = document().0;
    let key = |t: &str| t.lines().find(|l| l.trim().starts_with("key: ")).unwrap().to_owned();
    let mixed = config::check("c", &text.replacen(&key(&text), &key(&other), 1)).unwrap_err().to_string();
    assert_eq!(mixed, "c: machine.ca: the key does not belong to the certificate \"corten\"");
}

/// Answers as PID 1 would, for ever.
fn fake_init(socket: &Path) {
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut bytes) = (stream.unwrap(), Vec::new());
            let request = loop {
                if let Some((request, _)) = init_api::decode_request(&bytes).unwrap() {
                    break request;
                }
                let mut piece = [0; 1024];
                let n = stream.read(&mut piece).unwrap();
                bytes.extend_from_slice(&piece[..n]);
            };
            let reply = match request {
                Request::ServiceList => Reply::Services(vec![Service {
                    name: "store".into(),
                    state: State::Running { pid: 7, since_ms: 900 },
                    restarts: 1,
                    last_exit: "exit code 1".into(),
                }]),
                Request::ServiceRestart(name) if name == "store" => Reply::Done,
                Request::BootReport => Reply::Boot(vec![]),
                other => Reply::Refused(format!("not {other:?}")),
            };
            stream.write_all(&init_api::encode_reply(&reply)).unwrap();
        }
    });
}

struct Served {
    address: SocketAddr,
    folder: tempfile::TempDir,
    machine: Arc<Machine>,
    ca: Ca,
    _stop: ShutdownTrigger,
}

async fn serve() -> Served {
    daemon::tls::install_provider();
    let folder = tempfile::tempdir().unwrap();
    let machine = Arc::new(Machine::new(folder.path().to_owned()));
    fake_init(&machine.paths.at(init_api::SOCKET));
    let (text, ca) = document();
    let config = config::check("c", &text).unwrap();
    let entries = credentials::node_files(&config, &credentials::issue_own(&config, keys(&config), &node()).unwrap());
    files::write_all(&machine.paths, &entries).unwrap();
    let tls = server::tls::configured(&machine.paths).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, shutdown) = Shutdown::pair();
    let api = Api::running(machine.clone(), Running { config, node: node() });
    tokio::spawn(server::serve(listener, tls, api, shutdown));
    Served { address, folder, machine, ca, _stop: stop }
}

impl Served {
    async fn connect(&self, identity: Option<Issued>) -> MachineServiceClient<Channel> {
        let at = |name: &str| self.folder.path().join(name);
        let identity = identity.map(|issued| {
            std::fs::write(at("client.crt"), issued.cert_pem).unwrap();
            std::fs::write(at("client.key"), issued.key_pem).unwrap();
            (at("client.crt"), at("client.key"))
        });
        let identity = identity.as_ref().map(|(c, k)| (c.as_path(), k.as_path()));
        let mut tls = (*daemon::tls::client_config(&self.machine.paths.at(MACHINE_CA), identity).unwrap()).clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let (connector, address) = (TlsConnector::from(Arc::new(tls)), self.address);
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("127.0.0.1").unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        MachineServiceClient::new(Endpoint::from_static("http://machine").connect_with_connector_lazy(connect))
    }

    fn client(&self, group: &str) -> Issued {
        self.ca
            .issue(IssueRequest {
                common_name: "someone".into(),
                organizations: vec![group.into()],
                valid_for_days: 1,
                ..IssueRequest::default()
            })
            .unwrap()
    }
}

#[tokio::test]
async fn only_administrators_of_this_cluster_may_call() {
    let served = serve().await;
    let mut nobody = served.connect(None).await;
    assert_eq!(nobody.version(VersionRequest {}).await.unwrap().into_inner().mode(), Mode::ControlPlane);
    assert_eq!(nobody.service_list(ServiceListRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(nobody.kubeconfig(KubeconfigRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    let mut reader = served.connect(Some(served.client("os:reader"))).await;
    assert_eq!(
        reader.service_list(ServiceListRequest {}).await.unwrap_err().message(),
        "\"someone\" is not in the group os:admin"
    );
    let stranger = Ca::generate("other").unwrap().issue(IssueRequest {
        common_name: "admin".into(),
        organizations: vec!["os:admin".into()],
        valid_for_days: 1,
        ..IssueRequest::default()
    });
    let mut stranger = served.connect(Some(stranger.unwrap())).await;
    let refused = stranger.version(VersionRequest {}).await.unwrap_err();
    let text = daemon::chain(&refused);
    assert!(text.contains("UnknownCA") || text.contains("DecryptError"), "{text}");
}

#[tokio::test]
async fn an_administrator_sees_and_changes_the_machine() {
    let served = serve().await;
    let mut admin = served.connect(Some(served.client("os:admin"))).await;
    let services = admin.service_list(ServiceListRequest {}).await.unwrap().into_inner().services;
    assert_eq!((services[0].name.as_str(), services[0].state.as_str(), services[0].pid), ("store", "Running", 7));
    admin.service_restart(ServiceRequest { name: "store".into() }).await.unwrap();
    let refused = admin.service_restart(ServiceRequest { name: "x".into() }).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "not ServiceRestart(\"x\")"));
    let kubeconfig =
        String::from_utf8(admin.kubeconfig(KubeconfigRequest {}).await.unwrap().into_inner().kubeconfig).unwrap();
    assert!(kubeconfig.contains("server: \"https://10.0.2.15:6443\""));
    assert!(!admin.processes(ProcessesRequest {}).await.unwrap().into_inner().processes.is_empty());
    served.machine.stages.done("pki", "x");
    assert_eq!(admin.boot_report(BootReportRequest {}).await.unwrap().into_inner().stages[0].name, "pki");
}

#[tokio::test]
async fn logs_and_configurations() {
    let served = serve().await;
    let mut admin = served.connect(Some(served.client("os:admin"))).await;
    let log = served.machine.paths.at("/var/log/services/store.log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(&log, "one\ntwo\n").unwrap();
    let request = LogsRequest { service: "store".into(), follow: true, tail_lines: 1 };
    let mut stream = admin.logs(request).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().bytes, b"two\n");
    std::fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(b"three\n").unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().bytes, b"three\n");
    for (name, code) in [("../../etc/shadow", Code::InvalidArgument), ("nope", Code::NotFound)] {
        let request = LogsRequest { service: name.into(), ..LogsRequest::default() };
        assert_eq!(admin.logs(request).await.unwrap_err().code(), code, "{name}");
    }
    let bad = admin.apply_config(ApplyConfigRequest { config: b"version: v1\n".to_vec() }).await.unwrap_err();
    assert!(bad.message().contains("config:1: machine: is required"), "{}", bad.message());
    assert!(!served.machine.paths.stored_config().exists());
    let (text, _) = document();
    admin.apply_config(ApplyConfigRequest { config: text.clone().into_bytes() }).await.unwrap();
    assert_eq!(std::fs::read_to_string(served.machine.paths.stored_config()).unwrap(), text);
}

#[tokio::test]
async fn a_worker_joins_with_the_token_only() {
    let served = serve().await;
    let mut client = served.connect(None).await;
    let key = KeyPair::generate().unwrap();
    let csr = pki::csr(&key, "system:admin").unwrap();
    let request = |token: &str, hostname: &str, address: &str| JoinRequest {
        token: token.into(),
        hostname: hostname.into(),
        addresses: vec![address.into()],
        machine_csr: csr.clone(),
        kubelet_csr: csr.clone(),
        kubelet_serving_csr: csr.clone(),
        kube_proxy_csr: csr.clone(),
        pod_network_csr: csr.clone(),
        cluster_dns_csr: csr.clone(),
        announcer_csr: csr.clone(),
    };
    let token = "t0123456789abcdef";
    for (token, hostname, address, message) in [
        ("t0123456789abcdeg", "w1", "10.0.2.16", "wrong token"),
        (token, "n1", "10.0.2.16", "\"n1\" is a control-plane machine's name"),
        (token, "w1", "10.0.2.15", "10.0.2.15 is not the joining machine's address"),
        (token, "w1", "127.0.0.1", "127.0.0.1 is not the joining machine's address"),
        (token, "w1", "10.0.2.16", "the call does not come from one of the addresses it names"),
        (token, "w_1", "10.0.2.16", "\"w_1\" is not a host name"),
    ] {
        assert_eq!(client.join(request(token, hostname, address)).await.unwrap_err().message(), message);
    }
    let config = config::check("c", &document().0).unwrap();
    let running = Running { config, node: node() };
    let peer = Some("10.0.2.16".parse().unwrap());
    let granted = server::join::call(&running, peer, &request(token, "w1", "10.0.2.16")).unwrap();
    let info = CertInfo::from_pem(&granted.kubelet_crt).unwrap();
    assert_eq!(
        (info.common_name.as_str(), info.organizations[0].as_str(), info.issuer_common_name.as_str()),
        ("system:node:w1", "system:nodes", "kubernetes")
    );
    let info = CertInfo::from_pem(&granted.machine_crt).unwrap();
    assert_eq!((info.common_name.as_str(), info.issuer_common_name.as_str()), ("w1", "corten"));
    assert!(info.ips.contains(&"10.0.2.16".parse().unwrap()));
}

#[tokio::test]
async fn maintenance_takes_a_configuration_and_nothing_else() {
    daemon::tls::install_provider();
    let folder = tempfile::tempdir().unwrap();
    let machine = Arc::new(Machine::new(folder.path().to_owned()));
    let (api, mut applied) = Api::maintenance(machine.clone(), "no machine configuration yet".into());
    use machine_api::v1::machine_service_server::MachineService as _;
    let refused = api.service_list(tonic::Request::new(ServiceListRequest {})).await.unwrap_err();
    assert!(refused.message().contains("maintenance mode (no machine configuration yet)"), "{}", refused.message());
    assert_eq!(
        api.version(tonic::Request::new(VersionRequest {})).await.unwrap().into_inner().reason,
        "no machine configuration yet"
    );
    let (text, _) = document();
    api.apply_config(tonic::Request::new(ApplyConfigRequest { config: text.into_bytes() })).await.unwrap();
    assert_eq!(applied.recv().await.unwrap().cluster.name, "demo");
    // The daemon may restart: the machine stays out of maintenance mode whatever the kernel argument says.
    config::load(&machine.paths, "corten.config=/nowhere").unwrap();
}
