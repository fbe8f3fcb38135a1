//! Histograms as Prometheus knows them.

use super::line;

/// How many observations there were, how many of them up to each of `N` bounds, and their sum.
#[derive(Clone, Debug)]
pub struct Histogram<const N: usize> {
    buckets: [u64; N],
    count: u64,
    sum: f64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { buckets: [0; N], count: 0, sum: 0.0 }
    }
}

impl<const N: usize> Histogram<N> {
    /// How many observations there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// One more. The bounds ascend, and are always the same for one histogram.
    pub fn observe(&mut self, bounds: &[f64; N], value: f64) {
        self.count += 1;
        self.sum += value;
        if let Some(bucket) = bounds.iter().position(|bound| value <= *bound) {
            self.buckets[bucket] += 1;
        }
    }

    /// Those of another one as well.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, n)| *sum += n);
    }

    /// Its series.
    pub fn text(&self, out: &mut String, name: &str, labels: &str, bounds: &[f64; N]) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (bound, n) in bounds.iter().zip(self.buckets) {
            below += n;
            line(out, &format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), below);
        }
        line(out, &format!("{name}_bucket"), &format!("{labels}{comma}le=\"+Inf\""), self.count);
        line(out, &format!("{name}_sum"), labels, self.sum);
        line(out, &format!("{name}_count"), labels, self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_add_up() {
        let bounds = [1.0, 2.0];
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        [0.5, 1.0, 5.0].into_iter().for_each(|value| one.observe(&bounds, value));
        other.observe(&bounds, 1.5);
        one.add(&other);
        let mut out = String::new();
        one.text(&mut out, "h", "a=\"b\"", &bounds);
        let want = "h_bucket{a=\"b\",le=\"1\"} 2\nh_bucket{a=\"b\",le=\"2\"} 3\nh_bucket{a=\"b\",le=\"+Inf\"} 4\nh_sum{a=\"b\"} 8\nh_count{a=\"b\"} 4\n";
        assert_eq!(out, want);
    }
}
