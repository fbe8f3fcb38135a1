//! When each stage of the boot was done, in milliseconds since the kernel's start.

use std::sync::{Mutex, PoisonError};

use machine_api::v1::Stage;

/// The record.
#[derive(Debug, Default)]
pub(crate) struct Stages(Mutex<Vec<Stage>>);

impl Stages {
    /// Notes that a stage is done.
    pub(crate) fn done(&self, name: &str, detail: impl Into<String>) {
        self.add(name, detail.into(), true);
    }

    /// Notes that a stage failed; the boot goes on.
    pub(crate) fn failed(&self, name: &str, detail: impl Into<String>) {
        self.add(name, detail.into(), false);
    }

    fn add(&self, name: &str, detail: String, ok: bool) {
        let done_ms = u64::try_from(linux::clock::since_boot().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(stage = name, done_ms, ok, "{detail}");
        let stage = Stage { component: "machined".to_owned(), name: name.to_owned(), done_ms, detail, ok };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(stage);
    }

    pub(crate) fn list(&self) -> Vec<Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
