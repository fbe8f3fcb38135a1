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

    /// Tells the administrator: one line in the log, and on the console by way of the kernel's log.
    pub(crate) fn announce(&self, text: &str) {
        tracing::warn!("{text}");
        if self.paths.is_real()
            && let Ok(mut kmsg) = linux::kmsg::Kmsg::open()
        {
            for line in text.lines() {
                kmsg.line(linux::kmsg::Level::Warning, "machined", line);
            }
        }
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

    /// Is this the machine itself and not a test's folder? Only then may kernel state be changed.
    pub(crate) fn is_real(&self) -> bool {
        self.root == Path::new("/")
    }

    pub(crate) fn stored_config(&self) -> PathBuf {
        self.at("/var/lib/corten/config.yaml")
    }

    pub(crate) fn containerd(&self) -> PathBuf {
        self.at("/run/containerd/containerd.sock")
    }
}
