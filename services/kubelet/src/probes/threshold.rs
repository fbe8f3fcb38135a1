//! When a run of probe results becomes a verdict. Pure.

/// Counts equal results in a row.
#[derive(Clone, Debug)]
pub struct Threshold {
    success: i64,
    failure: i64,
    last: Option<bool>,
    run: i64,
}

impl Threshold {
    /// How many successes or failures in a row make a verdict; at least one each.
    pub fn new(success: i64, failure: i64) -> Self {
        Threshold { success: success.max(1), failure: if failure <= 0 { 3 } else { failure }, last: None, run: 0 }
    }

    /// Takes one result; gives the verdict once the run is long enough.
    pub fn observe(&mut self, ok: bool) -> Option<bool> {
        self.run = if self.last == Some(ok) { self.run + 1 } else { 1 };
        self.last = Some(ok);
        let needed = if ok { self.success } else { self.failure };
        (self.run >= needed).then_some(ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_need_enough_equal_results_in_a_row() {
        let mut threshold = Threshold::new(2, 3);
        let results = [true, true, false, false, true, false, false, false, true];
        let verdicts = results.map(|r| threshold.observe(r));
        assert_eq!(verdicts, [None, Some(true), None, None, None, None, None, Some(false), None]);
    }

    #[test]
    fn missing_thresholds_have_the_apis_defaults() {
        let mut threshold = Threshold::new(0, 0);
        assert_eq!([true, false, false, false].map(|r| threshold.observe(r)), [Some(true), None, None, Some(false)]);
    }
}
