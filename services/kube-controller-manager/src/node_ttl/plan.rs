//! Seconds by number of nodes, in steps that overlap so that one node more or less does not change every node. Pure.

/// A step: it ends below the first number of nodes and above the second.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// Where a cluster is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step(usize);

impl Step {
    /// Follows the number of nodes; returns whether the answer has changed.
    pub(super) fn follow(&mut self, nodes: usize) -> bool {
        let before = *self;
        while nodes > STEPS[self.0].1 {
            self.0 += 1;
        }
        while nodes < STEPS[self.0].0 {
            self.0 -= 1;
        }
        *self != before
    }

    /// The answer.
    pub(super) fn seconds(self) -> u32 {
        STEPS[self.0].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_overlap() {
        let mut step = Step::default();
        let cases = [(1, 0), (100, 0), (101, 15), (95, 15), (89, 0), (5000, 300), (1800, 300), (1799, 60), (0, 0)];
        for (nodes, seconds) in cases {
            step.follow(nodes);
            assert_eq!(step.seconds(), seconds, "{nodes} nodes");
        }
        assert!(step.follow(200) && !step.follow(200));
    }
}
