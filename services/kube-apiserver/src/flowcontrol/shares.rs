//! How the server's seats are divided among priority levels: by shares, and by what each can spare or lacks. Pure (KEP-1040).

use super::queues::Observed;

/// How much of the past remains in a level's smoothed demand after one adjustment.
const SMOOTHING: f64 = 0.977;
/// Halvings of the interval in which the fair fraction is sought; enough for any double.
const STEPS: u32 = 60;

/// What a level's configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// Whether its requests are never held back.
    pub exempt: bool,
    /// Its part of the server's seats, in proportion to the sum of all.
    pub shares: u32,
    /// How much of that others may use while it does not, in percent.
    pub lendable_percent: u32,
    /// How much it may use of others', in percent of its own; `None`: all there is.
    pub borrowing_percent: Option<u32>,
}

/// Between how many seats a level may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Its own.
    pub nominal: u32,
    /// What it never lends.
    pub min: u32,
    /// With all it may borrow.
    pub max: u32,
}

/// The bounds of each level when the server has this many seats.
pub fn bounds(server: u32, levels: &[Share]) -> Vec<Bounds> {
    let sum: u32 = levels.iter().map(|l| l.shares).sum();
    let percent = |seats: u32, percent: u32| round(f64::from(seats) * f64::from(percent) / 100.0);
    let one = |level: &Share| {
        // Rounded up: the sum may be a little more than the server has.
        let nominal = (f64::from(server) * f64::from(level.shares) / f64::from(sum.max(1))).ceil() as u32;
        let min = nominal - percent(nominal, level.lendable_percent.min(100));
        let max = level.borrowing_percent.map_or(server.max(nominal), |p| nominal.saturating_add(percent(nominal, p)));
        Bounds { nominal, min, max }
    };
    levels.iter().map(one).collect()
}

/// What a level has asked for, with the past smoothed in: it rises at once and falls slowly.
pub fn smooth(before: f64, observed: &Observed) -> f64 {
    let envelope = observed.mean + observed.deviation;
    envelope.max(SMOOTHING * before + (1.0 - SMOOTHING) * envelope)
}

/// One level's claim when seats are divided anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// Its bounds.
    pub bounds: Bounds,
    /// Whether it takes what it wants.
    pub exempt: bool,
    /// The most seats it asked for since the last division.
    pub high: f64,
    /// What it asks for in the long run: see [`smooth`].
    pub smooth: f64,
}

/// The outcome for each level, with the fraction of its target that every level gets unless a bound stops it.
pub fn divide(server: u32, claims: &[Claim]) -> (f64, Vec<u32>) {
    let nominal: u32 = claims.iter().map(|c| c.bounds.nominal).sum();
    let exempt: u32 = claims.iter().filter(|c| c.exempt).map(|c| round(c.high.ceil())).sum();
    let total = f64::from(nominal.max(server).saturating_sub(exempt));
    let limited: Vec<&Claim> = claims.iter().filter(|c| !c.exempt).collect();
    // Whoever used its own seats keeps them.
    let lower = |c: &Claim| f64::from(c.bounds.min).max(c.high.min(f64::from(c.bounds.nominal)));
    let target = |c: &Claim| c.smooth.max(lower(c));
    let least: f64 = limited.iter().map(|c| lower(c)).sum();
    let at = |fraction: f64, c: &Claim| (fraction * target(c)).clamp(lower(c), f64::from(c.bounds.max).max(lower(c)));
    let sum = |fraction: f64| limited.iter().map(|c| at(fraction, c)).sum::<f64>();
    if least >= total {
        let scale = total / least.max(1.0);
        return (
            scale,
            claims.iter().map(|c| if c.exempt { round(c.high) } else { round(lower(c) * scale) }).collect(),
        );
    }
    let smallest = limited.iter().map(|c| target(c)).filter(|t| *t > 0.0).fold(f64::INFINITY, f64::min);
    let mut low = 0.0;
    // At this fraction even the level with the smallest target has all.
    let mut high = if smallest.is_finite() { total.max(1.0) / smallest } else { 1.0 };
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if sum(middle) < total { low = middle } else { high = middle }
    }
    (high, claims.iter().map(|c| if c.exempt { round(c.high) } else { round(at(high, c)) }).collect())
}

/// Halves go up; negative numbers do not come here.
fn round(seats: f64) -> u32 {
    seats.round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_shares() {
        let share = |shares, lendable_percent, borrowing_percent| Share {
            exempt: false,
            shares,
            lendable_percent,
            borrowing_percent,
        };
        // The default levels with upstream's 600 seats.
        let table = [
            (share(30, 33, None), Bounds { nominal: 74, min: 50, max: 600 }),
            (share(40, 25, None), Bounds { nominal: 98, min: 73, max: 600 }),
            (share(10, 0, None), Bounds { nominal: 25, min: 25, max: 600 }),
            (share(40, 50, None), Bounds { nominal: 98, min: 49, max: 600 }),
            (share(100, 90, None), Bounds { nominal: 245, min: 24, max: 600 }),
            (share(20, 50, Some(50)), Bounds { nominal: 49, min: 24, max: 74 }),
            (share(5, 0, Some(0)), Bounds { nominal: 13, min: 13, max: 13 }),
            (Share { exempt: true, ..Share::default() }, Bounds { nominal: 0, min: 0, max: 600 }),
        ];
        let levels: Vec<Share> = table.iter().map(|(s, _)| *s).collect();
        let wanted: Vec<Bounds> = table.iter().map(|(_, b)| *b).collect();
        assert_eq!(bounds(600, &levels), wanted);
    }

    #[test]
    fn idle_seats_are_lent_and_come_back() {
        let claim = |nominal, min, max, high: f64| Claim {
            bounds: Bounds { nominal, min, max },
            exempt: false,
            high,
            smooth: high,
        };
        let table = [
            ("nobody asks: all keep at least what they never lend", [0.0, 0.0], [50, 50]),
            ("one asks for all: the other keeps its minimum", [100.0, 0.0], [80, 20]),
            ("it is bound by what it may borrow", [400.0, 0.0], [80, 20]),
            ("both ask: each has its own", [400.0, 400.0], [50, 50]),
            ("a small want is met in full", [90.0, 30.0], [70, 30]),
        ];
        for (what, high, want) in table {
            let claims = [claim(50, 20, 80, high[0]), claim(50, 20, 80, high[1])];
            let (_, got) = divide(100, &claims);
            let close = got.iter().zip(want).all(|(g, w)| g.abs_diff(w) <= 5);
            assert!(close && got.iter().sum::<u32>() <= 101, "{what}: {got:?}, not {want:?}");
        }
        let exempt = Claim { exempt: true, high: 30.0, ..claim(0, 0, 100, 0.0) };
        assert_eq!(divide(100, &[exempt, claim(100, 0, 100, 100.0)]).1, [30, 70]);
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let busy = Observed { high: 40.0, mean: 30.0, deviation: 5.0 };
        let up = smooth(0.0, &busy);
        assert!((up - 35.0).abs() < 1e-9);
        let down = smooth(up, &Observed::default());
        assert!(down > 34.0 && down < up);
    }
}
