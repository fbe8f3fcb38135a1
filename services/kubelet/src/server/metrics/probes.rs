//! `/metrics/probes`.

use std::sync::Arc;

use axum::extract::State;

use super::{Kind, Page};
use crate::shared::Shared;

/// Answers a request.
pub async fn serve(State(shared): State<Arc<Shared>>) -> Page {
    let mut page = Page::default();
    let name = "prober_probe_total";
    page.family(
        name,
        Kind::Counter,
        "Cumulative number of a liveness, readiness or startup probe for a container by result.",
    );
    // Pods that are gone are not counted any longer.
    let counts = shared.probe_tally.of(|namespace, pod| shared.pods.get(namespace, pod).is_some());
    for (probed, count) in counts {
        let labels = [
            ("container", probed.container.as_str()),
            ("namespace", &probed.namespace),
            ("pod", &probed.pod),
            ("pod_uid", &probed.uid),
            ("probe_type", probed.kind),
            ("result", probed.result),
        ];
        page.sample(name, &labels, count);
    }
    page
}
