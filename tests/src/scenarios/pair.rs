//! A second machine joins: pods run on both and reach each other, both answer for logs and exec, and load balancers' addresses
//! are announced by a machine that can serve them, also when that machine dies.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use qemu::{down, up};

use super::load_balancer::{PATIENCE, address, ask};
use super::workload;
use crate::context::Context;

const CLUSTER: &str = "e2epair";
/// Addresses whose endpoints are on both machines: which announces how many is left to chance, that one has all is one in 2,000.
const SHARED: u8 = 12;
/// From the death of their machine until they answer.
const MOVED_WITHIN: Duration = Duration::from_secs(2);

/// The scenario, on a cluster of its own.
pub fn run(context: &Context) -> Result<()> {
    down::down(CLUSTER)?;
    let cluster = up::start(CLUSTER, context.cluster.driver, 2, &context.artifacts)?;
    let pair = Context { cluster, artifacts: context.artifacts.clone() };
    let outcome = on_both(&pair);
    down::down(CLUSTER)?;
    outcome
}

fn on_both(pair: &Context) -> Result<()> {
    let image = pair.artifacts.image.test_web.display().to_string();
    for node in &pair.cluster.nodes {
        pair.cortenctl(&["-e", &format!("127.0.0.1:{}", node.machine_port), "image", "import", &image])?;
    }
    workload::bring_up(pair)?;
    let pods = pair.get("pods -l app=web")?;
    let placed: Vec<(&str, &str)> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| Some((pod["metadata"]["name"].as_str()?, pod["spec"]["nodeName"].as_str()?)))
        .collect();
    let nodes: BTreeSet<&str> = placed.iter().map(|(_, node)| *node).collect();
    ensure!(nodes.len() == 2, "the replicas are not spread: {placed:?}");
    workload::reachable(pair)?;
    for (name, node) in placed {
        let log = pair.kubectl(&format!("logs {name}"))?;
        ensure!(log.contains("GET /"), "log from {node}: {log:?}");
        let host = pair.kubectl(&format!("exec {name} -- /test-web env HOSTNAME"))?;
        ensure!(host.trim() == name, "exec on {node}: {host:?}");
    }
    announced(pair)?;
    workload::take_down(pair)
}

/// Addresses of Services that see their clients' addresses are announced by machines with endpoints, and move when one dies.
fn announced(pair: &Context) -> Result<()> {
    let worker = pair.cluster.nodes.last().context("a second machine")?;
    pair.apply(&manifest(&worker.name))?;
    let shared: Vec<IpAddr> = (0..SHARED).map(|n| Ipv4Addr::new(10, 5, 0, 200 + n).into()).collect();
    for name in (0..SHARED).map(|n| format!("shared-{n}")).chain(["far".to_owned()]) {
        pair.eventually(&format!("an answer from {name}"), || answers(pair, address(pair, &name)?.parse()?, PATIENCE))?;
    }
    let hers = mac(pair, worker.address.into())?;
    let far: IpAddr = address(pair, "far")?.parse()?;
    let found = mac(pair, far)?;
    ensure!(found == hers, "what only the worker serves is announced by {found}, not by {hers}");
    let moving = shared.iter().map(|ip| Ok((*ip, mac(pair, *ip)? == hers))).collect::<Result<Vec<_>>>()?;
    let moving: Vec<IpAddr> = moving.into_iter().filter_map(|(ip, moves)| moves.then_some(ip)).collect();
    ensure!(!moving.is_empty(), "the worker announces nothing that both can serve");
    let begun = Instant::now();
    pair.driver().power_off(&pair.cluster, worker)?;
    let off = begun.elapsed();
    // What is asked too early is lost, and asked again.
    while moving.iter().any(|ip| answers(pair, *ip, Duration::from_millis(50)).is_err()) {
        ensure!(begun.elapsed() < PATIENCE * 10, "{moving:?} do not answer any more");
    }
    let took = begun.elapsed();
    println!(
        "  {} of {SHARED} addresses answered elsewhere {took:.2?} after the plug was pulled (off after {off:.2?})",
        moving.len()
    );
    ensure!(took < MOVED_WITHIN, "the addresses moved only after {took:?}");
    pair.driver().power_on(&pair.cluster, worker, &pair.artifacts)?;
    pair.eventually("the machine that is back", || answers(pair, far, PATIENCE))?;
    pair.kubectl("delete service -l test=announced --timeout=60s")?;
    pair.kubectl("delete pod/far --timeout=60s").map(drop)
}

fn manifest(worker: &str) -> String {
    let service = |name: &str, app: &str, last: u8| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, labels: {{test: announced}}}}\nspec: {{type: LoadBalancer, externalTrafficPolicy: Local, loadBalancerIP: 10.5.0.{last}, selector: {{app: {app}}}, ports: [{{port: 80, targetPort: http}}]}}\n---\n"
        )
    };
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: far, labels: {{app: far}}}}\nspec:\n  nodeName: {worker}\n  terminationGracePeriodSeconds: 1\n  containers: [{{name: web, image: \"corten.local/test-web:v1\", ports: [{{containerPort: 8080, name: http}}]}}]\n"
    );
    let shared: String = (0..SHARED).map(|n| service(&format!("shared-{n}"), "web", 200 + n)).collect();
    shared + &service("far", "far", 219) + &pod
}

fn answers(pair: &Context, ip: IpAddr, patience: Duration) -> Result<()> {
    let answer = ask(pair, SocketAddr::new(ip, 80), patience)?;
    ensure!(answer.contains("200 OK"), "{ip}: {answer}");
    Ok(())
}

/// Who has an address, as a machine beside the nodes has learned. It asked before.
fn mac(pair: &Context, ip: IpAddr) -> Result<String> {
    let table = linux::netns::run_in(&pair.cluster.folder.join("segment.ns"), || {
        std::fs::read_to_string("/proc/thread-self/net/arp")
    })??;
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(&ip.to_string()));
    let mac = line.and_then(|line| line.split_whitespace().nth(3));
    Ok(mac.with_context(|| format!("{ip} is not in {table}"))?.to_owned())
}
