//! Services of type LoadBalancer: they get addresses of the machine configuration's pool, the network learns which machine
//! has them, and they answer from outside the nodes.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::workload;
use crate::context::Context;

const SERVICES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: outside}
spec:
  type: LoadBalancer
  loadBalancerIP: 10.5.0.210
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: any}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: near}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: impossible}
spec:
  type: LoadBalancer
  loadBalancerIP: 198.51.100.1
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: foreign}
spec:
  type: LoadBalancer
  loadBalancerClass: example.com/other
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"#;

/// An answer takes no longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    workload::bring_up(context)?;
    context.apply(SERVICES)?;
    context.eventually("addresses", || {
        ensure!(address(context, "outside")? == "10.5.0.210" && !address(context, "any")?.is_empty());
        Ok(())
    })?;
    let events = context.eventually("the reason of the refusal", || {
        let events = context.kubectl("get events --field-selector involvedObject.name=impossible")?;
        ensure!(events.contains("198.51.100.1 is in none of the address pools"), "{events}");
        Ok(())
    });
    events?;
    ensure!(address(context, "foreign")?.is_empty(), "another class's Service has an address");
    for name in ["outside", "any", "near"] {
        context.eventually("an answer from outside", || {
            let ip: IpAddr = address(context, name)?.parse()?;
            let answer = ask(context, SocketAddr::new(ip, 80), PATIENCE)?;
            ensure!(answer.contains("200 OK"), "{ip}: {answer}");
            Ok(())
        })?;
    }
    // Other load balancers ask the node itself whether it has endpoints.
    let node = context.get(&format!("node {}", context.node().name))?;
    let ip: IpAddr = node["status"]["addresses"][0]["address"].as_str().unwrap_or_default().parse()?;
    let near = context.get("service near")?;
    let port = near["spec"]["healthCheckNodePort"].as_u64().context("near has no healthCheckNodePort")?;
    let check = SocketAddr::new(ip, u16::try_from(port)?);
    let health = ask(context, check, PATIENCE)?;
    ensure!(health.contains("200 OK") && health.contains(r#""localEndpoints":2"#), "{check}: {health}");
    // A node's identity is the machine's.
    let id = node["spec"]["providerID"].as_str().unwrap_or_default();
    ensure!(id.starts_with("metal://"), "providerID: {id:?}");
    context
        .kubectl("delete service/outside service/any service/near service/impossible service/foreign --timeout=60s")?;
    workload::take_down(context)
}

pub(super) fn address(context: &Context, name: &str) -> Result<String> {
    let service: Value = context.get(&format!("service {name}"))?;
    Ok(service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().unwrap_or_default().to_owned())
}

/// Asks from the segment that the nodes are plugged into, as a machine beside them would.
pub(super) fn ask(context: &Context, address: SocketAddr, patience: Duration) -> Result<String> {
    let segment = context.cluster.folder.join("segment.ns");
    linux::netns::run_in(&segment, || {
        let mut stream = TcpStream::connect_timeout(&address, patience).context("connect")?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: outside\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("read")?;
        Ok(answer)
    })?
}
