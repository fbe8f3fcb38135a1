//! Eviction thresholds as the configuration writes them. Pure.

use std::time::Duration;

use apimachinery::quantity::Quantity;

use crate::config::{GoDuration, KubeletConfiguration};
use crate::pod::Map;

/// What can run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Memory of the node.
    Memory,
    /// Space of the file system with pods' volumes and logs.
    NodeSpace,
    /// Its inodes.
    NodeInodes,
    /// Space of the file system with images.
    ImageSpace,
    /// Its inodes.
    ImageInodes,
    /// Process ids.
    Pids,
}

/// Names in the configuration. Writable layers lie where images lie, so `containerfs` is the same as `imagefs`.
const SIGNALS: &[(&str, Signal)] = &[
    ("memory.available", Signal::Memory),
    ("nodefs.available", Signal::NodeSpace),
    ("nodefs.inodesFree", Signal::NodeInodes),
    ("imagefs.available", Signal::ImageSpace),
    ("imagefs.inodesFree", Signal::ImageInodes),
    ("pid.available", Signal::Pids),
];

/// Upstream's hard thresholds on Linux.
const DEFAULT_HARD: &[(&str, &str)] = &[
    ("memory.available", "100Mi"),
    ("nodefs.available", "10%"),
    ("nodefs.inodesFree", "5%"),
    ("imagefs.available", "15%"),
    ("imagefs.inodesFree", "5%"),
];

impl Signal {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        SIGNALS.iter().find(|(_, signal)| *signal == self).map_or("", |(name, _)| name)
    }

    /// The resource that messages name.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::Memory => "memory",
            Signal::NodeSpace | Signal::ImageSpace => "ephemeral-storage",
            Signal::NodeInodes | Signal::ImageInodes => "inodes",
            Signal::Pids => "pids",
        }
    }
}

/// An amount, or a share of what there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes or pieces.
    Fixed(i128),
    /// Of one.
    Share(f64),
}

impl Amount {
    /// The amount where `capacity` is all there is.
    pub fn of(self, capacity: i128) -> i128 {
        match self {
            Amount::Fixed(amount) => amount,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                reason = "a share of bytes needs no more"
            )]
            Amount::Share(share) => (capacity as f64 * share) as i128,
        }
    }

    fn parse(text: &str) -> Option<Amount> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().ok()?;
            return (0.0..=100.0).contains(&percent).then_some(Amount::Share(percent / 100.0));
        }
        Quantity::parse(text).ok().map(|q| Amount::Fixed(i128::from(q.value()))).filter(|a| *a != Amount::Fixed(-1))
    }
}

/// One threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// What runs short.
    pub signal: Signal,
    /// Below this much.
    pub below: Amount,
    /// For this long before pods are evicted; at once if nothing.
    pub grace: Option<Duration>,
    /// Once it was crossed, it holds until there is this much more.
    pub reclaim: Amount,
}

/// All thresholds of a configuration.
///
/// # Errors
/// The field and the signal that are wrong.
pub fn parse(config: &KubeletConfiguration) -> Result<Vec<Threshold>, String> {
    let reclaim = &config.eviction_minimum_reclaim;
    let mut hard = Map::new();
    let merge = config.merge_default_eviction_settings == Some(true);
    if config.eviction_hard.is_none() || merge {
        hard.extend(DEFAULT_HARD.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned())));
    }
    hard.extend(config.eviction_hard.clone().unwrap_or_default());
    let mut all = Vec::new();
    for (name, text) in &hard {
        all.extend(one("evictionHard", name, text, None, reclaim)?);
    }
    for (name, text) in &config.eviction_soft {
        let grace = config.eviction_soft_grace_period.get(name);
        let grace = grace.ok_or_else(|| format!("evictionSoftGracePeriod.{name}: required by evictionSoft.{name}"))?;
        let grace = GoDuration::parse(grace).map_err(|e| format!("evictionSoftGracePeriod.{name}: {e}"))?;
        all.extend(one("evictionSoft", name, text, Some(grace.0), reclaim)?);
    }
    for name in reclaim.keys() {
        signal("evictionMinimumReclaim", name)?;
    }
    Ok(all)
}

fn signal(field: &str, name: &str) -> Result<Signal, String> {
    let found = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal);
    found.ok_or_else(|| format!("{field}.{name}: there is no such signal"))
}

/// Nothing if the threshold is switched off by zero.
fn one(
    field: &str,
    name: &str,
    text: &str,
    grace: Option<Duration>,
    reclaim: &Map,
) -> Result<Option<Threshold>, String> {
    let signal = signal(field, name)?;
    let wrong = |text: &str| format!("{field}.{name}: {text:?} is neither a quantity nor a percentage");
    let below = Amount::parse(text).ok_or_else(|| wrong(text))?;
    if matches!(below, Amount::Fixed(0) | Amount::Share(0.0)) || text == "100%" {
        return Ok(None);
    }
    let reclaim = match reclaim.get(name) {
        Some(text) => Amount::parse(text).ok_or_else(|| wrong(text))?,
        None => Amount::Fixed(0),
    };
    Ok(Some(Threshold { signal, below, grace, reclaim }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn defaults_hold_until_hard_thresholds_are_given() {
        let mut config = KubeletConfiguration::default();
        assert_eq!(parse(&config).unwrap().len(), 5);
        config.eviction_hard = Some(map(&[("memory.available", "1Gi"), ("pid.available", "0")]));
        let own = parse(&config).unwrap();
        assert_eq!(own.len(), 1);
        assert_eq!((own[0].signal, own[0].below.of(0)), (Signal::Memory, 1 << 30));
        config.merge_default_eviction_settings = Some(true);
        assert_eq!(parse(&config).unwrap().len(), 5);
    }

    #[test]
    fn soft_thresholds_need_their_grace_and_names_must_be_known() {
        let eviction_soft = map(&[("nodefs.available", "20%")]);
        let mut config = KubeletConfiguration { eviction_soft, ..KubeletConfiguration::default() };
        assert!(parse(&config).unwrap_err().starts_with("evictionSoftGracePeriod.nodefs.available"));
        config.eviction_soft_grace_period = map(&[("nodefs.available", "90s")]);
        config.eviction_minimum_reclaim = map(&[("nodefs.available", "1Gi")]);
        let soft = parse(&config).unwrap().pop().unwrap();
        assert_eq!((soft.grace, soft.below.of(100), soft.reclaim.of(0)), (Some(Duration::from_secs(90)), 20, 1 << 30));
        config.eviction_hard = Some(map(&[("memory.free", "1")]));
        assert!(parse(&config).unwrap_err().contains("memory.free"));
        config.eviction_hard = Some(map(&[("memory.available", "101%")]));
        assert!(parse(&config).unwrap_err().contains("101%"));
    }
}
