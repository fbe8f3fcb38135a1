//! Removing a cluster with everything that belongs to it.

use std::fs;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::driver::driver;

/// Switches the nodes off and removes the cluster. `false` if there is none of this name.
///
/// # Errors
/// Something could not be removed; names it.
pub fn down(name: &str) -> Result<bool> {
    let Some(cluster) = Cluster::load(name)? else { return Ok(false) };
    let driver = driver(cluster.driver);
    for node in &cluster.nodes {
        driver.power_off(&cluster, node)?;
    }
    driver.clean_up(&cluster)?;
    fs::remove_dir_all(&cluster.folder).with_context(|| cluster.folder.display().to_string())?;
    Ok(true)
}
