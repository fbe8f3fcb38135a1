//! The client side of the Kubernetes API: requests, informers, work queues, events and leader election on dynamic objects.
//!
//! Owns how Corten's processes talk to any API server, ours or upstream's. It must never know a controller's purpose and
//! never opens anything but HTTPS to the server that its kubeconfig names. Start reading at [`Client`], then
//! [`informer`]; what a resource is stands in [`resource`].

mod connection;
mod error;
pub mod events;
pub mod follow;
pub mod informer;
mod kept;
mod kubeconfig;
pub mod leader;
mod list_watch;
mod params;
mod requests;
pub mod resource;
mod watch;
pub mod workqueue;

pub use connection::requests_sent;
pub use error::{Error, Status};
pub use events::{EventQueue, EventRecorder};
pub use informer::{Change, Changes, Informer, InformerParams};
pub use kubeconfig::KubeconfigError;
pub use params::{DeleteParams, List, ListParams, Patch, WatchEvent, WatchKind, WatchParams};
pub use requests::Client;
pub use resource::Resource;
pub use workqueue::WorkQueue;
