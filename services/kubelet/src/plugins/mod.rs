//! Plugins of the node: programs that put a socket into the registry folder (`plugins_registry` below the root folder) and
//! say there what they are (pluginregistration v1).
//!
//! [`registry`] finds the sockets and speaks with them; who takes plugins of a type in is a [`Handler`] in the [`Table`].

pub mod registry;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;

/// What a plugin says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plugin {
    /// `CSIPlugin`, `DRAPlugin` or `DevicePlugin`.
    pub kind: String,
    /// The driver's or the resource's name.
    pub name: String,
    /// The socket that it serves.
    pub endpoint: PathBuf,
    /// Versions of the interface.
    pub versions: Vec<String>,
}

/// Takes plugins of one type in.
pub trait Handler: Send + Sync {
    /// The type, as plugins say it.
    fn kind(&self) -> &'static str;

    /// Makes the plugin usable; what is wrong with it is told to it.
    fn register<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, Result<(), String>>;

    /// Its socket is gone. Also called when a registration did not come to its end.
    fn deregister<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, ()>;
}

/// Who takes in what: one entry for each type.
pub type Table = Arc<Vec<Arc<dyn Handler>>>;
