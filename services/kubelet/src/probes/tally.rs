//! How often which probe had which result, for the metrics.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// One probe with one result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probed {
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// The container.
    pub container: String,
    /// `Liveness`, `Readiness` or `Startup`.
    pub kind: &'static str,
    /// `successful`, `failed` or `unknown`.
    pub result: &'static str,
}

/// Counts since the kubelet's start.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<Probed, u64>>);

impl Tally {
    /// One more.
    pub fn count(&self, probed: Probed) {
        *self.0.lock().entry(probed).or_default() += 1;
    }

    /// The counts of the pods, by namespace and name, that are still there; the others are forgotten.
    pub fn of(&self, exists: impl Fn(&str, &str) -> bool) -> Vec<(Probed, u64)> {
        let mut counts = self.0.lock();
        counts.retain(|probed, _| exists(&probed.namespace, &probed.pod));
        counts.iter().map(|(probed, count)| (probed.clone(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_are_gone_are_forgotten() {
        let probed = |pod: &str, result| Probed {
            namespace: "n".into(),
            pod: pod.into(),
            uid: "u".into(),
            container: "c".into(),
            kind: "Liveness",
            result,
        };
        let tally = Tally::default();
        for result in ["successful", "failed", "successful"] {
            tally.count(probed("a", result));
            tally.count(probed("b", result));
        }
        let counts = tally.of(|_, pod| pod == "a");
        assert_eq!(counts, [(probed("a", "failed"), 1), (probed("a", "successful"), 2)]);
        assert_eq!(tally.of(|_, _| true).len(), 2);
    }
}
