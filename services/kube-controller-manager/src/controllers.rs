//! The table of controllers: a name, as in upstream's `--controllers`, and what starts it.

use std::future::Future;
use std::pin::Pin;

use tokio::task::JoinSet;
use tracing::info;

use crate::context::Context;
use crate::{
    deployment, endpoints, endpointslice, garbage_collector, namespace, node_ipam, node_lifecycle, pod_gc, replicaset,
    root_ca, service_account, taint_eviction,
};

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A row of the table.
pub struct Controller {
    /// Upstream's name.
    pub name: &'static str,
    /// Runs until the process ends.
    pub start: fn(Context) -> Running,
}

macro_rules! controller {
    ($name:literal, $module:ident) => {
        Controller { name: $name, start: |context| Box::pin($module::run(context)) }
    };
}

/// All controllers.
pub const TABLE: &[Controller] = &[
    controller!("namespace-controller", namespace),
    controller!("serviceaccount-controller", service_account),
    controller!("root-ca-certificate-publisher-controller", root_ca),
    controller!("garbage-collector-controller", garbage_collector),
    controller!("replicaset-controller", replicaset),
    controller!("deployment-controller", deployment),
    controller!("endpointslice-controller", endpointslice),
    controller!("endpoints-controller", endpoints),
    controller!("node-ipam-controller", node_ipam),
    controller!("node-lifecycle-controller", node_lifecycle),
    controller!("taint-eviction-controller", taint_eviction),
    controller!("pod-garbage-collector-controller", pod_gc),
];

/// A wrong `--controllers`, or a controller that ended although nothing asked it to.
#[derive(Debug, thiserror::Error)]
pub enum ControllersError {
    /// Not in the table.
    #[error("--controllers: {0:?} is not one of: {names}", names = TABLE.iter().map(|c| c.name).collect::<Vec<_>>().join(", "))]
    Unknown(String),
    /// A task ended or panicked.
    #[error("{0} ended")]
    Ended(String),
}

/// The rows that `--controllers` selects.
pub fn enabled(selection: &[String]) -> Result<Vec<&'static Controller>, ControllersError> {
    for item in selection.iter().filter(|item| *item != "*") {
        let name = item.strip_prefix('-').unwrap_or(item);
        if !TABLE.iter().any(|c| c.name == name) {
            return Err(ControllersError::Unknown(item.clone()));
        }
    }
    let all = selection.iter().any(|item| item == "*");
    let chosen = |c: &&Controller| {
        let excluded = selection.iter().any(|item| item.strip_prefix('-') == Some(c.name));
        !excluded && (all || selection.iter().any(|item| item == c.name))
    };
    Ok(TABLE.iter().filter(chosen).collect())
}

/// Runs them all; returns only when one of them ends, which none should.
pub async fn run(enabled: Vec<&'static Controller>, context: Context) -> ControllersError {
    let mut tasks = JoinSet::new();
    for controller in enabled {
        info!("starting {}", controller.name);
        let running = (controller.start)(context.clone());
        tasks.spawn(async move {
            running.await;
            controller.name
        });
    }
    match tasks.join_next().await {
        Some(Ok(name)) => ControllersError::Ended(name.to_owned()),
        Some(Err(error)) => ControllersError::Ended(error.to_string()),
        None => ControllersError::Ended("every controller".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection() {
        let names = |items: &[&str]| {
            let items: Vec<String> = items.iter().map(|s| (*s).to_owned()).collect();
            enabled(&items).map(|rows| rows.len())
        };
        assert_eq!(names(&["*"]).ok(), Some(TABLE.len()));
        assert_eq!(names(&["*", "-deployment-controller"]).ok(), Some(TABLE.len() - 1));
        assert_eq!(names(&["deployment-controller"]).ok(), Some(1));
        assert!(names(&["deployments"]).is_err());
    }
}
