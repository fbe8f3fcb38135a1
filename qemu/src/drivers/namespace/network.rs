//! The network of a namespace cluster: a bridge, and a cable from it to each node.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use ipnet::{IpNet, Ipv4Net};
use netlink::{Handle, Link};

const BRIDGE: &str = "br0";

/// Makes the cluster's segment.
pub fn create_segment(path: &Path, address: Ipv4Addr) -> Result<()> {
    linux::netns::create(path)?;
    inside(path, async move |handle| {
        let loopback = link(&handle, "lo").await?;
        handle.set_up(loopback.index).await?;
        handle.add_bridge(BRIDGE).await?;
        let bridge = link(&handle, BRIDGE).await?;
        handle.add_address(bridge.index, IpNet::V4(Ipv4Net::new(address, 24)?)).await?;
        Ok(())
    })
}

/// Makes a node's namespace with an `eth0` that is plugged into the segment.
pub fn attach_node(segment: &Path, node: &Path, address: Ipv4Addr) -> Result<()> {
    remove(node)?;
    linux::netns::create(node)?;
    let number = address.octets()[3];
    let (port, plug) = (format!("port{number}"), format!("plug{number}"));
    let namespace = std::fs::File::open(node).with_context(|| node.display().to_string())?;
    let plug_name = plug.clone();
    inside(segment, async move |handle| {
        // The plug of an earlier boot went away with its namespace, but that may take the kernel a moment.
        if let Some(old) = handle.link_by_name(&port).await? {
            handle.delete_link(old.index).await?;
        }
        handle.add_veth(&port, &plug_name).await?;
        let (bridge, port, plug) =
            (link(&handle, BRIDGE).await?, link(&handle, &port).await?, link(&handle, &plug_name).await?);
        handle.set_bridge(port.index, bridge.index).await?;
        handle.set_up(port.index).await?;
        handle.move_to_namespace(plug.index, namespace.as_fd()).await?;
        Ok(())
    })?;
    inside(node, async move |handle| {
        let plug = link(&handle, &plug).await?;
        handle.rename(plug.index, "eth0").await?;
        Ok(())
    })
}

/// Removes a namespace; one that is not there is fine.
pub fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    if linux::mount::is_mount_point(path)? {
        linux::netns::remove(path)?;
    } else {
        std::fs::remove_file(path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

async fn link(handle: &Handle, name: &str) -> Result<Link> {
    handle.link_by_name(name).await?.ok_or_else(|| anyhow!("there is no interface {name}"))
}

/// Runs a task with an rtnetlink socket of the namespace.
fn inside<T: Send>(path: &Path, task: impl AsyncFnOnce(Handle) -> Result<T> + Send) -> Result<T> {
    let shown: PathBuf = path.to_owned();
    linux::netns::run_in(path, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { task(Handle::new()?).await })
    })?
    .with_context(|| shown.display().to_string())
}
