//! The Pod Security Standards: levels, versions and how the checks of a level are put together.

use std::fmt;

use serde_json::Value;

use super::{baseline, restricted};

/// How strict, and as of which release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The level.
    pub level: Level,
    /// The release whose rules apply.
    pub version: Version,
}

/// The three levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything goes.
    Privileged,
    /// Known ways to the host are closed.
    Baseline,
    /// What pods should be like.
    Restricted,
}

/// A release; the newest there is has no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.N.
    Minor(u32),
    /// The newest.
    Latest,
}

impl Policy {
    /// What applies where nothing is said.
    pub const OPEN: Policy = Policy { level: Level::Privileged, version: Version::Latest };
}

impl Level {
    /// By its name.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "privileged" => Ok(Self::Privileged),
            "baseline" => Ok(Self::Baseline),
            "restricted" => Ok(Self::Restricted),
            _ => Err("must be one of privileged, baseline, restricted".into()),
        }
    }
}

impl Version {
    /// `latest` or `v1.N`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let digits = text.strip_prefix("v1.").filter(|d| *d == "0" || !d.starts_with('0'));
        let number =
            digits.filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit())).and_then(|d| d.parse().ok());
        number.map(Self::Minor).ok_or_else(|| "must be \"latest\" or \"v1.x\"".into())
    }

    /// Whether the rules of 1.`minor` apply.
    pub fn since(self, minor: u32) -> bool {
        match self {
            Self::Minor(n) => n >= minor,
            Self::Latest => true,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(f, "{level}:latest"),
            Version::Minor(n) => write!(f, "{level}:v1.{n}"),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In few words.
    pub reason: String,
    /// Where and what.
    pub detail: String,
}

impl Finding {
    /// A finding.
    pub fn new(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: detail.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

/// A check of a pod: its metadata, its spec.
pub type Check = fn(&Value, &Value, Version) -> Option<Finding>;

/// Everything a policy has against a pod or template.
pub fn evaluate(policy: Policy, metadata: &Value, spec: &Value) -> Vec<Finding> {
    let run = |checks: &[Check]| -> Vec<Finding> {
        checks.iter().filter_map(|check| check(metadata, spec, policy.version)).collect()
    };
    match policy.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => run(baseline::CHECKS),
        Level::Restricted => {
            let replaced = restricted::replaces(policy.version);
            let kept: Vec<Check> = baseline::CHECKS
                .iter()
                .copied()
                .filter(|c| !replaced.iter().any(|r| std::ptr::fn_addr_eq(*c, *r)))
                .collect();
            [run(&kept), run(restricted::CHECKS)].concat()
        }
    }
}

/// The findings in one line.
pub fn words(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
