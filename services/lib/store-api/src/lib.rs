//! The etcd v3 API as Rust types, clients and server traits, compatible on the wire with stock etcd and etcdctl.
//!
//! Owns the message shapes and nothing else: no defaults, no retries, no storage. It must never gain behaviour, because the
//! store and the API server have to agree on bytes only. Start reading at `proto/etcd.proto`; keys and values are
//! [`bytes::Bytes`](prost::bytes::Bytes).

pub mod codec;

/// Key-value pairs and events.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Permissions of roles.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// The KV, Watch, Lease, Cluster, Maintenance and Auth services.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// The standard gRPC health service.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// The largest request a store accepts unless configured otherwise: 1.5 MiB.
pub const MAX_REQUEST_BYTES: usize = 3 << 19;
