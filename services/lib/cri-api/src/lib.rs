//! The gRPC clients of the container runtime: CRI v1 ([`v1`]) and the part of containerd's own API that CRI cannot do
//! ([`containerd`]: image import); and those of a node's plugins ([`registration`], [`csi`], [`device_plugin`], [`dra`]) and of the
//! agents that ask the kubelet ([`pod_resources`]).
//!
//! Owns the messages and one way to connect to a Unix socket. It must never decide anything about pods or images, and it
//! must never hold state.
//! Start reading at [`Runtime`].

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// CRI v1 as the kubelet speaks it.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::too_many_lines)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// Device plugins, v1beta1; the kubelet serves the registration.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::too_many_lines)]
pub mod device_plugin {
    tonic::include_proto!("v1beta1");
}

/// Drivers of dynamic resources, v1.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::too_many_lines)]
pub mod dra {
    tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1");
}

/// podresources v1, which the kubelet serves.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::too_many_lines)]
pub mod pod_resources {
    tonic::include_proto!("v1");
}

/// containerd's own services.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::too_many_lines)]
pub mod containerd {
    pub mod types {
        tonic::include_proto!("containerd.types");
    }
    pub mod services {
        pub mod content {
            pub mod v1 {
                tonic::include_proto!("containerd.services.content.v1");
            }
        }
        pub mod images {
            pub mod v1 {
                tonic::include_proto!("containerd.services.images.v1");
            }
        }
        pub mod leases {
            pub mod v1 {
                tonic::include_proto!("containerd.services.leases.v1");
            }
        }
        pub mod namespaces {
            pub mod v1 {
                tonic::include_proto!("containerd.services.namespaces.v1");
            }
        }
    }
}

/// The Container Storage Interface's node service.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::too_many_lines)]
pub mod csi {
    tonic::include_proto!("csi.v1");
}

/// How node plugins register.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::too_many_lines)]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}

/// The containerd namespace that holds everything Kubernetes.
pub const NAMESPACE: &str = "k8s.io";

/// Image lists and exec output can be far larger than tonic's default of 4 MiB.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A channel to a gRPC server on a Unix socket. Connects on first use and again after the server restarted, so it can be
/// made before the server is up; calls made meanwhile fail with `Unavailable`.
pub fn connect_unix(path: impl AsRef<Path>) -> Channel {
    let path: PathBuf = path.as_ref().to_owned();
    // The authority is never resolved: the connector below ignores it.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    }))
}

/// Strips the `unix://` that `--container-runtime-endpoint` carries.
pub fn socket_path(endpoint: &str) -> &Path {
    Path::new(endpoint.strip_prefix("unix://").unwrap_or(endpoint))
}

/// Puts the containerd namespace header on a request to one of containerd's own services.
pub fn in_namespace<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    request
}

/// The same with a lease, which keeps what the request writes from containerd's garbage collector.
pub fn in_lease<T>(message: T, lease: &str) -> tonic::Request<T> {
    let mut request = in_namespace(message);
    if let Ok(value) = lease.parse() {
        request.metadata_mut().insert("containerd-lease", value);
    }
    request
}

/// Both CRI services on one channel.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Sandboxes and containers.
    pub runtime: v1::runtime_service_client::RuntimeServiceClient<Channel>,
    /// Images.
    pub images: v1::image_service_client::ImageServiceClient<Channel>,
    /// The channel itself, for containerd's own services.
    pub channel: Channel,
}

impl Runtime {
    /// Makes the clients; see [`connect_unix`] for when the connection is made.
    pub fn connect(path: impl AsRef<Path>) -> Self {
        let channel = connect_unix(path);
        Self {
            runtime: v1::runtime_service_client::RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE),
            images: v1::image_service_client::ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE),
            channel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_may_carry_the_scheme() {
        assert_eq!(socket_path("unix:///run/c.sock"), Path::new("/run/c.sock"));
        assert_eq!(socket_path("/run/c.sock"), Path::new("/run/c.sock"));
    }

    #[test]
    fn requests_name_the_namespace_and_the_lease() {
        let request = in_lease((), "import-1");
        assert_eq!(request.metadata().get("containerd-namespace").map(|v| v.as_bytes()), Some(&b"k8s.io"[..]));
        assert_eq!(request.metadata().get("containerd-lease").map(|v| v.as_bytes()), Some(&b"import-1"[..]));
    }
}
