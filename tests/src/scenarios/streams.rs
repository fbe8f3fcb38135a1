//! Connections that pass through the API server: exec and port-forward in every protocol that kubectl speaks, the proxy subresources, and
//! what the kubelet tells about its pods.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use qemu::kubectl::{kubectl, output};

use crate::context::Context;
use crate::scenarios::workload;

/// By these kubectl is told to do without WebSocket.
const WEBSOCKETS: [&str; 2] = ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"];

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    workload::bring_up(context)?;
    for websockets in ["true", "false"] {
        commands(context, websockets).with_context(|| format!("with WebSocket {websockets}"))?;
        forwarding(context, websockets).with_context(|| format!("with WebSocket {websockets}"))?;
    }
    proxying(context)?;
    node(context)?;
    workload::take_down(context)
}

/// A command's output and exit code arrive.
fn commands(context: &Context, websockets: &str) -> Result<()> {
    let exec = |args: &[&str]| {
        let mut command = kubectl(&context.cluster);
        command.envs(WEBSOCKETS.map(|name| (name, websockets)));
        output(command.args(["exec", "client", "--"]).args(args))
    };
    let text = exec(&["/test-web", "cat", "/etc/greeting/text"])?;
    ensure!(text.contains("hello from a file"), "exec: {text:?}");
    let Err(failure) = exec(&["/test-web", "exit", "7"]) else { anyhow::bail!("exit 7 counts as success") };
    ensure!(format!("{failure:#}").contains("exit code 7"), "exec's exit code: {failure:#}");
    let Err(failure) = exec(&["/no-such-program"]) else { anyhow::bail!("a missing program counts as success") };
    ensure!(format!("{failure:#}").contains("no such file"), "a missing program: {failure:#}");
    Ok(())
}

/// Several connections to several ports over one session.
fn forwarding(context: &Context, websockets: &str) -> Result<()> {
    let mut command = kubectl(&context.cluster);
    command.envs(WEBSOCKETS.map(|name| (name, websockets))).args(["port-forward", "deployment/web", ":8080", ":8080"]);
    let mut session = Session(command.stdout(Stdio::piped()).spawn().context("kubectl port-forward")?);
    let mut lines = BufReader::new(session.0.stdout.take().context("its output")?).lines();
    let mut ports = Vec::new();
    while ports.len() < 2 {
        let line = lines.next().context("kubectl port-forward ended")??;
        // Forwarding from 127.0.0.1:41234 -> 8080
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok());
        ports.extend(port);
    }
    for port in ports.iter().chain(&ports) {
        let mut stream = TcpStream::connect(("127.0.0.1", *port))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains(" 200 ") && answer.contains("web-"), "port {port} answers {answer:?}");
    }
    Ok(())
}

/// kubectl in the background; ends with its owner.
struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn proxying(context: &Context) -> Result<()> {
    let pods = context.get("pods -l app=web")?;
    let pod = pods["items"][0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let namespace = "/api/v1/namespaces/default";
    for path in [
        format!("{namespace}/pods/{pod}/proxy/"),
        format!("{namespace}/pods/{pod}:8080/proxy/"),
        format!("{namespace}/pods/http:{pod}:http/proxy/"),
        format!("{namespace}/services/web:http/proxy/"),
        format!("{namespace}/services/web:80/proxy/"),
    ] {
        let answer = context.kubectl(&format!("get --raw {path}"))?;
        ensure!(answer.starts_with("web-"), "{path} answers {answer:?}");
    }
    let missing = context.kubectl_fails(&format!("get --raw {namespace}/services/web:nothing/proxy/"))?;
    ensure!(missing.contains("no endpoints available for service \"web:nothing\""), "{missing}");
    let closed = context.kubectl_fails(&format!("get --raw {namespace}/pods/{pod}:1/proxy/"))?;
    ensure!(closed.contains("error trying to reach service"), "{closed}");
    Ok(())
}

fn node(context: &Context) -> Result<()> {
    let node = format!("/api/v1/nodes/{}/proxy", context.node().name);
    let raw = |path: &str| context.kubectl(&format!("get --raw {node}{path}"));
    for (path, wanted) in [
        ("/healthz", "ok"),
        ("/configz", "\"kubeletconfig\""),
        ("/pods", "\"client\""),
        ("/runningpods/", "\"client\""),
        ("/stats/summary", "\"podRef\""),
        ("/metrics", "kubelet_running_pods"),
        ("/metrics/cadvisor", "container_cpu_usage_seconds_total"),
        ("/metrics/resource", "resource_scrape_error 0"),
        ("/metrics/probes", "probe_type=\"Readiness\""),
        ("/logs/?query=kubelet&tailLines=5", "\n"),
    ] {
        let answer = raw(path)?;
        ensure!(answer.contains(wanted), "{path} answers {answer:?}");
    }
    let command = "/test-web+cat+/etc/greeting/text";
    let output = context.create_raw(&format!("{node}/run/default/client/client?cmd={command}"), "{}")?;
    ensure!(output.contains("hello from a file"), "run: {output:?}");
    Ok(())
}
