//! How large a benchmark is, where it differs from the shape.

use clap::Args;

use super::shapes::Shape;

/// Sizes from the command line.
#[derive(Args, Clone, Debug, Default)]
pub struct Sizes {
    /// Nodes.
    #[arg(long)]
    pub nodes: Option<usize>,
    /// Pods that are there before.
    #[arg(long)]
    pub before: Option<usize>,
    /// Pods that are measured.
    #[arg(long)]
    pub pods: Option<usize>,
}

impl Sizes {
    /// Nodes, pods before and measured pods.
    pub fn of(&self, shape: &Shape) -> (usize, usize, usize) {
        (self.nodes.unwrap_or(shape.nodes), self.before.unwrap_or(shape.before), self.pods.unwrap_or(shape.measured))
    }
}
