//! replicationcontroller-controller: the ReplicaSet's rules for the older kind.

use crate::context::Context;
use crate::replicaset;
use crate::resource::REPLICATIONCONTROLLERS;

/// Runs the controller.
pub async fn run(context: Context) {
    replicaset::run_for(context, REPLICATIONCONTROLLERS).await;
}
