//! The machine as every part sees it: where its files are, how to ask PID 1, what has happened so far.

use std::path::{Path, PathBuf};

use crate::init::Init;
use crate::stages::Stages;

/// Shared by all parts.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) paths: Paths,
    pub(crate) init: Init,
    pub(crate) stages: Stages,
}

impl Machine {
    pub(crate) fn new(root: PathBuf) -> Self {
        let paths = Paths { root };
        let init = Init::new(paths.at(init_api::SOCKET));
        Self { paths, init, stages: Stages::default() }
    }

    /// Tells the administrator of something wrong. PID 1 shows this daemon's warnings on the console, line by line.
    pub(crate) fn announce(&self, text: &str) {
        for line in text.lines() {
            tracing::warn!("{line}");
        }
    }

    /// Tells the administrator how things are. PID 1 shows lines with this mark on the console.
    pub(crate) fn tell(&self, text: &str) {
        tracing::info!("console: {text}");
    }
}

/// Where files are. Tests move the root.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    root: PathBuf,
}

impl Paths {
    pub(crate) fn at(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let path = absolute.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(crate) fn stored_config(&self) -> PathBuf {
        self.at("/var/lib/corten/config.yaml")
    }

    /// What was applied in maintenance mode of this boot, gone with the next.
    pub(crate) fn applied_config(&self) -> PathBuf {
        self.at("/run/corten/config.yaml")
    }

    pub(crate) fn containerd(&self) -> PathBuf {
        self.at("/run/containerd/containerd.sock")
    }
}
