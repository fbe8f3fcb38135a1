//! The machine configurations of a test cluster, made by the administrator's own tool and completed per node.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::cluster::{Cluster, DriverName, Node, Role};
use crate::drivers::namespace::BRIDGE_ADDRESS;

/// Addresses of the segment that no node has, for Services of type LoadBalancer. Those of a virtual machine's own network are
/// behind its user-mode gateway, where nobody asks for them.
const LOAD_BALANCERS: &str = "10.5.0.200-10.5.0.219";

/// Writes cortenctl.yaml and one configuration per node.
///
/// # Errors
/// The administrator's tool failed or a file could not be written.
pub fn write_configs(cluster: &Cluster, cortenctl: &Path) -> Result<()> {
    let port = cluster.control_plane().kubernetes_port;
    let endpoint = match cluster.driver {
        // The machine's own address is not reachable from here, its forwarded port is.
        DriverName::Qemu => format!("https://127.0.0.1:{port}"),
        DriverName::Namespace => format!("https://{}:6443", cluster.control_plane().address),
    };
    let mut command = Command::new(cortenctl);
    command.args(["gen", "config", &cluster.name, &endpoint, "-o"]).arg(&cluster.folder);
    let output = command.output().with_context(|| cortenctl.display().to_string())?;
    if !output.status.success() {
        bail!("cortenctl gen config: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    for node in &cluster.nodes {
        let source = match node.role {
            Role::ControlPlane => "controlplane.yaml",
            Role::Worker => "worker.yaml",
        };
        let source = cluster.folder.join(source);
        let text = fs::read_to_string(&source).with_context(|| source.display().to_string())?;
        let mut config: Value = serde_saphyr::from_str(&text).with_context(|| source.display().to_string())?;
        complete(&mut config, cluster.driver, node);
        // JSON is YAML.
        let target = cluster.machine_config(node);
        fs::write(&target, serde_json::to_vec_pretty(&config)?).with_context(|| target.display().to_string())?;
    }
    point_to_loopback(cluster)
}

/// What differs from node to node.
fn complete(config: &mut Value, driver: DriverName, node: &Node) {
    let network = &mut config["machine"]["network"];
    network["hostname"] = node.name.as_str().into();
    if driver == DriverName::Namespace {
        network["interfaces"] = json!([{
            "interface": "eth0",
            "addresses": [format!("{}/24", node.address)],
            "routes": [{"network": "0.0.0.0/0", "gateway": BRIDGE_ADDRESS}],
        }]);
        // The disk is the whole host's: how full others have made it says nothing about the cluster.
        config["machine"]["kubelet"]["extraArgs"]["eviction-hard"] =
            "memory.available<100Mi,nodefs.available<1Gi".into();
    }
    config["cluster"]["loadBalancerPools"] = json!([{"name": "lan", "addresses": [LOAD_BALANCERS]}]);
    if config["machine"]["certSANs"].is_array() {
        config["machine"]["certSANs"] = json!(["127.0.0.1"]);
    }
}

/// The administrator reaches machines through loopback ports.
fn point_to_loopback(cluster: &Cluster) -> Result<()> {
    let file = cluster.machine_credentials();
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let mut credentials: Value = serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?;
    let address = format!("127.0.0.1:{}", cluster.control_plane().machine_port);
    credentials["contexts"][&cluster.name]["endpoints"] = json!([address]);
    fs::write(&file, serde_json::to_vec_pretty(&credentials)?).with_context(|| file.display().to_string())
}
