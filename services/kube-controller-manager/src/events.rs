//! Events beside the work: nobody waits for a note to be written.

use client::EventRecorder;
use serde_json::{Value, json};

/// Records events as this process.
#[derive(Clone)]
pub struct Events(EventRecorder);

impl Events {
    /// Writes through this recorder.
    pub fn new(recorder: EventRecorder) -> Self {
        Events(recorder)
    }

    /// Notes that `reason` happened to `object`, sooner or later.
    pub fn note(&self, object: &Value, kind: &'static str, reason: &str, message: String) {
        let metadata = &object["metadata"];
        let about = json!({
            "apiVersion": object["apiVersion"], "kind": object["kind"],
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
                         "resourceVersion": metadata["resourceVersion"]},
        });
        let (recorder, reason) = (self.0.clone(), reason.to_owned());
        tokio::spawn(async move { recorder.event(&about, kind, &reason, &message).await });
    }
}
