//! What is known about a test cluster, kept in its folder.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// How the nodes of a cluster run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DriverName {
    /// Virtual machines under emulation.
    Qemu,
    /// Namespaces of this host; needs root.
    Namespace,
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs the control plane, and pods.
    ControlPlane,
    /// Runs pods.
    Worker,
}

/// One node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Host name and name of the Node object.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its address in the cluster's network.
    pub address: Ipv4Addr,
    /// Loopback port that leads to its API server.
    pub kubernetes_port: u16,
    /// Loopback port that leads to its machine API.
    pub machine_port: u16,
}

/// A cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// How its nodes run.
    pub driver: DriverName,
    /// Its nodes; the first is a control plane.
    pub nodes: Vec<Node>,
    /// What `corten.config=` says instead of where the driver puts the configuration.
    #[serde(default)]
    pub config_argument: Option<String>,
    /// `.corten/<name>` below the workspace.
    #[serde(skip)]
    pub folder: PathBuf,
}

const FILE: &str = "cluster.json";

/// The workspace: where `Cargo.lock` of this source tree lies.
pub fn workspace() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder).to_owned()
}

/// Where the cluster of this name has its files.
pub fn folder(name: &str) -> PathBuf {
    workspace().join(".corten").join(name)
}

impl Cluster {
    /// The cluster of this name, if there is one.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn load(name: &str) -> Result<Option<Cluster>> {
        let folder = folder(name);
        let file = folder.join(FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(file.display().to_string()),
        };
        let cluster: Cluster = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        Ok(Some(Cluster { folder, ..cluster }))
    }

    /// A new cluster with free loopback ports; nothing is started yet.
    ///
    /// # Errors
    /// The name is unusable, the folder cannot be made or no port is free.
    pub fn create(name: &str, driver: DriverName, nodes: u8) -> Result<Cluster> {
        check(name, driver, nodes)?;
        let folder = folder(name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut list = Vec::new();
        // Listeners stay open until all ports are chosen, so that no port is chosen twice.
        let mut held = Vec::new();
        for index in 1..=nodes {
            let mut port = || -> Result<u16> {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free loopback port")?;
                let port = listener.local_addr()?.port();
                held.push(listener);
                Ok(port)
            };
            let role = if index == 1 { Role::ControlPlane } else { Role::Worker };
            let (kubernetes_port, machine_port) = (port()?, port()?);
            list.push(Node {
                name: format!("{name}-{index}"),
                role,
                address: address(driver, index),
                kubernetes_port,
                machine_port,
            });
        }
        let cluster = Cluster { name: name.to_owned(), driver, nodes: list, config_argument: None, folder };
        cluster.save()?;
        Ok(cluster)
    }

    /// Writes the cluster's file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self) -> Result<()> {
        let file = self.folder.join(FILE);
        fs::write(&file, serde_json::to_vec_pretty(self)?).with_context(|| file.display().to_string())
    }

    /// The node that runs the control plane.
    pub fn control_plane(&self) -> &Node {
        &self.nodes[0]
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The administrator's credentials for the machine API.
    pub fn machine_credentials(&self) -> PathBuf {
        self.folder.join("cortenctl.yaml")
    }

    /// Everything that a node's console has said.
    pub fn console_log(&self, node: &Node) -> PathBuf {
        self.folder.join(format!("{}.console.log", node.name))
    }

    /// The node's machine configuration.
    pub fn machine_config(&self, node: &Node) -> PathBuf {
        self.folder.join(format!("{}.yaml", node.name))
    }
}

/// Whether a cluster of this kind can be made.
///
/// # Errors
/// Names the option that is wrong.
pub fn check(name: &str, driver: DriverName, nodes: u8) -> Result<()> {
    let usable =
        !name.is_empty() && name.len() <= 20 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !usable {
        bail!("--name {name}: a cluster's name has 1 to 20 lower-case letters and digits");
    }
    if nodes == 0 || (driver == DriverName::Qemu && nodes > 1) {
        bail!("--nodes {nodes}: the {driver:?} driver cannot run that many nodes");
    }
    Ok(())
}

/// QEMU's user-mode network gives every machine the same address; namespaces share one segment.
fn address(driver: DriverName, index: u8) -> Ipv4Addr {
    match driver {
        DriverName::Qemu => Ipv4Addr::new(10, 0, 2, 15),
        DriverName::Namespace => Ipv4Addr::new(10, 5, 0, 10 + index),
    }
}
