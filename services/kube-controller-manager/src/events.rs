//! Events beside the work: nobody waits for a note to be written.

use client::{EventQueue, EventRecorder};
use serde_json::Value;

/// Records events as this process.
#[derive(Clone)]
pub struct Events {
    recorder: EventRecorder,
    queue: EventQueue,
}

impl Events {
    /// Writes through this recorder.
    pub fn new(recorder: EventRecorder) -> Self {
        Events { recorder, queue: EventQueue::start() }
    }

    /// Notes that `reason` happened to `object`, sooner or later.
    pub fn note(&self, object: &Value, kind: &'static str, reason: &str, message: String) {
        self.queue.note(&self.recorder, object, kind, reason, message);
    }
}
