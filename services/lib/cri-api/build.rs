//! Compiles the `.proto` files with protox, so that no `protoc` is needed on the building machine.

use std::error::Error;

const PROTOS: &[&str] = &[
    "proto/runtime.proto",
    "proto/containerd/types.proto",
    "proto/containerd/content.proto",
    "proto/containerd/images.proto",
    "proto/containerd/leases.proto",
    "proto/containerd/namespaces.proto",
];

/// What node plugins and agents speak with the kubelet: the servers are for the kubelet, and for the plugins of tests.
const PLUGINS: &[&str] = &[
    "proto/csi.proto",
    "proto/pluginregistration.proto",
    "proto/kubelet/device_plugin.proto",
    "proto/kubelet/dra.proto",
    "proto/kubelet/pod_resources.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    tonic_prost_build::configure().compile_fds(protox::compile(PLUGINS, ["proto"])?)?;
    Ok(())
}
