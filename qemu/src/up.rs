//! From a command to a cluster whose nodes are Ready, with its progress on the terminal.

use std::fs;
use std::time::{Duration, Instant};

use crate::artifacts::Artifacts;
use anyhow::{Context, Result, bail};

use crate::cluster::{self, Cluster, DriverName};
use crate::driver::driver;
use crate::kubectl::{cortenctl, kubectl, output};
use crate::setup;
use crate::wait::Deadline;

/// Emulated machines on a busy host need minutes, not seconds.
const MACHINE_API_LIMIT: Duration = Duration::from_secs(240);
const READY_LIMIT: Duration = Duration::from_secs(600);

/// Starts a cluster, or says what runs already.
///
/// # Errors
/// Anything on the way; names the step.
pub fn up(name: &str, driver_name: DriverName, nodes: u8) -> Result<Cluster> {
    // Before the build, which takes minutes and replaces the image of clusters that run.
    cluster::check(name, driver_name, nodes)?;
    if let Some(running) = already_running(name)? {
        return Ok(running);
    }
    let image = Artifacts::build()?;
    let cluster = start(name, driver_name, nodes, &image)?;
    println!("\ncluster {name} is ready\n  export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("  export CORTENCONFIG={}", cluster.machine_credentials().display());
    Ok(cluster)
}

/// Makes a new cluster and waits until its nodes are Ready.
///
/// # Errors
/// Anything on the way; names the step.
pub fn start(name: &str, driver: DriverName, nodes: u8, image: &Artifacts) -> Result<Cluster> {
    let start = Instant::now();
    let cluster = Cluster::create(name, driver, nodes)?;
    say(start, "writing machine configurations");
    setup::write_configs(&cluster, &image.cortenctl())?;
    boot(&cluster, image, start)?;
    Ok(cluster)
}

/// Switches all nodes on and waits until they are Ready.
///
/// # Errors
/// A node that does not start or does not get Ready in time.
pub fn boot(cluster: &Cluster, image: &Artifacts, start: Instant) -> Result<()> {
    let driver = driver(cluster.driver);
    driver.prepare(cluster, image)?;
    for node in &cluster.nodes {
        say(start, &format!("switching {} on; its console: {}", node.name, cluster.console_log(node).display()));
        driver.power_on(cluster, node, image)?;
    }
    wait_until_ready(cluster, image, start)
}

/// Waits for the machine API, fetches the kubeconfig, waits for the nodes.
///
/// # Errors
/// A deadline passed.
pub fn wait_until_ready(cluster: &Cluster, image: &Artifacts, start: Instant) -> Result<()> {
    let driver = driver(cluster.driver);
    let alive = || -> Result<()> {
        match cluster.nodes.iter().find(|node| !driver.is_on(cluster, node)) {
            Some(node) => bail!("{} has switched itself off; see {}", node.name, cluster.console_log(node).display()),
            None => Ok(()),
        }
    };
    say(start, "waiting for the machine API");
    let kubeconfig = Deadline::after(MACHINE_API_LIMIT).until("the machine API", || {
        alive()?;
        Ok(output(cortenctl(cluster, &image.cortenctl()).args(["kubeconfig", "-"])).ok())
    })?;
    fs::write(cluster.kubeconfig(), on_loopback(&kubeconfig, cluster)?).context("kubeconfig")?;
    say(start, "waiting for the API server");
    let deadline = Deadline::after(READY_LIMIT);
    deadline.until("the API server", || {
        alive()?;
        Ok(output(kubectl(cluster).args(["get", "--raw", "/readyz", "--request-timeout=5s"])).ok())
    })?;
    say(start, "waiting for Ready nodes");
    let mut names: Vec<String> = cluster.nodes.iter().map(|node| format!("node/{}", node.name)).collect();
    deadline.until("the nodes' registration", || {
        alive()?;
        Ok(output(kubectl(cluster).arg("get").args(&names)).ok())
    })?;
    let limit = format!("--timeout={}s", READY_LIMIT.as_secs());
    names.extend(["--for=condition=Ready".to_owned(), limit]);
    output(kubectl(cluster).arg("wait").args(&names))?;
    say(start, "all nodes are Ready");
    Ok(())
}

/// The kubeconfig names the cluster's own endpoint; from here the way leads through the forwarded port.
fn on_loopback(kubeconfig: &str, cluster: &Cluster) -> Result<String> {
    let port = cluster.control_plane().kubernetes_port;
    let mut config: serde_json::Value =
        serde_saphyr::from_str(kubeconfig).context("kubeconfig from the machine API")?;
    config["clusters"][0]["cluster"]["server"] = format!("https://127.0.0.1:{port}").into();
    Ok(serde_json::to_string_pretty(&config)?)
}

/// The cluster of this name if it runs; an error if only a part of it does.
fn already_running(name: &str) -> Result<Option<Cluster>> {
    let Some(cluster) = Cluster::load(name)? else { return Ok(None) };
    let driver = driver(cluster.driver);
    let on: Vec<&str> = cluster.nodes.iter().filter(|n| driver.is_on(&cluster, n)).map(|n| n.name.as_str()).collect();
    if on.len() < cluster.nodes.len() {
        bail!(
            "cluster {name} exists but {} of {} nodes run; `cargo down --name {name}` removes it",
            on.len(),
            cluster.nodes.len()
        );
    }
    println!("cluster {name} is running ({:?} driver): {}", cluster.driver, on.join(", "));
    println!("  export KUBECONFIG={}", cluster.kubeconfig().display());
    Ok(Some(cluster))
}

/// One line of progress with the seconds since the start.
pub fn say(start: Instant, text: &str) {
    println!("{:7.1} s  {text}", start.elapsed().as_secs_f64());
}
