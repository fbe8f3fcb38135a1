//! Flags and the KubeSchedulerConfiguration file: parsed strictly, checked, then turned into profiles that cannot be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use apimachinery::{config_file, duration};
use client::Client;
use serde::Deserialize;
use serde_json::Value;

use crate::extender::{self, Extender};
use crate::plugins;
use crate::profile::{Enabled, Profile};
use crate::spec::DEFAULT_SCHEDULER;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
/// Plugins that are not rows of the table: the queue's order, preemption and binding are the scheduler's own.
const OWN: [&str; 3] = ["PrioritySort", "DefaultPreemption", "DefaultBinder"];

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A field is unknown or wrong.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The field and what is wrong with it.
        reason: String,
    },
}

/// Everything that is configured.
pub struct Settings {
    /// One for each scheduler name.
    pub profiles: Vec<Profile>,
    /// Asked in this order.
    pub extenders: Vec<Extender>,
    /// Wait after a first failure.
    pub backoff_first: Duration,
    /// Longest wait after failures.
    pub backoff_limit: Duration,
}

/// The file. Fields with upstream's names; unknown ones are errors.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    api_version: String,
    kind: String,
    parallelism: Option<i64>,
    /// Leader election, where it differs from the flags.
    pub leader_election: LeaderElection,
    /// The connection to the API server.
    pub client_connection: ClientConnection,
    enable_profiling: Option<bool>,
    enable_contention_profiling: Option<bool>,
    percentage_of_nodes_to_score: Option<usize>,
    pod_initial_backoff_seconds: Option<u64>,
    pod_max_backoff_seconds: Option<u64>,
    delay_cache_until_active: Option<bool>,
    profiles: Vec<FileProfile>,
    extenders: Vec<FileExtender>,
}

/// Leader election.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaderElection {
    /// Only the holder of the Lease schedules.
    pub leader_elect: Option<bool>,
    /// The Lease's name.
    pub resource_name: Option<String>,
    /// The Lease's namespace.
    pub resource_namespace: Option<String>,
    lease_duration: Option<String>,
    renew_deadline: Option<String>,
    retry_period: Option<String>,
    resource_lock: Option<String>,
}

/// The connection to the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientConnection {
    /// The kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    accept_content_types: Option<String>,
    content_type: Option<String>,
    qps: Option<f64>,
    burst: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct FileProfile {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<usize>,
    plugins: BTreeMap<String, PluginSet>,
    plugin_config: Vec<PluginConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PluginSet {
    enabled: Vec<PluginRef>,
    disabled: Vec<PluginRef>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PluginRef {
    name: String,
    weight: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PluginConfig {
    name: String,
    args: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct FileExtender {
    url_prefix: String,
    filter_verb: String,
    preempt_verb: String,
    prioritize_verb: String,
    weight: Option<i64>,
    bind_verb: String,
    #[serde(rename = "enableHTTPS")]
    enable_https: bool,
    tls_config: Option<Value>,
    http_timeout: Option<String>,
    node_cache_capable: bool,
    managed_resources: Vec<ManagedResource>,
    ignorable: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct ManagedResource {
    name: String,
    ignored_by_scheduler: bool,
}

/// Extension points in whose lists plugins may stand.
const POINTS: [&str; 13] = [
    "preEnqueue",
    "queueSort",
    "preFilter",
    "filter",
    "postFilter",
    "preScore",
    "score",
    "reserve",
    "permit",
    "preBind",
    "bind",
    "postBind",
    "multiPoint",
];

/// Reads the file, or what holds without one.
///
/// # Errors
/// The file cannot be read, or a field of it is unknown or wrong; names the field.
pub fn read(path: Option<&Path>) -> Result<File, ConfigError> {
    let Some(path) = path else { return Ok(File::default()) };
    let content = |reason: String| ConfigError::Content { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(content)
}

fn parse(text: &str) -> Result<File, String> {
    let (file, lines): (File, _) = config_file::parse(text)?;
    let place = |why: String| lines.place(&why);
    check(&file).map_err(place)?;
    // Settings are made from it later; what would fail then fails now.
    profiles(&file).map_err(place)?;
    extenders(&file).map_err(place)?;
    Ok(file)
}

impl File {
    /// The settings. `client` is what extenders' pods are read with.
    ///
    /// # Errors
    /// A wrong field, for a file that did not come from [`read`].
    pub fn settings(&self, client: &Client) -> Result<Settings, String> {
        let extenders = extenders(self)?;
        Ok(Settings {
            profiles: profiles(self)?,
            extenders: extenders.into_iter().map(|e| Extender::new(e, client.clone())).collect(),
            backoff_first: Duration::from_secs(self.pod_initial_backoff_seconds.unwrap_or(1)),
            backoff_limit: Duration::from_secs(self.pod_max_backoff_seconds.unwrap_or(10)),
        })
    }
}

fn check(file: &File) -> Result<(), String> {
    if file.api_version != API_VERSION || file.kind != KIND {
        return Err(format!("kind: {:?} {:?} is not {API_VERSION} {KIND}", file.api_version, file.kind));
    }
    let (first, limit) = (file.pod_initial_backoff_seconds.unwrap_or(1), file.pod_max_backoff_seconds.unwrap_or(10));
    if first == 0 {
        return Err("podInitialBackoffSeconds: Invalid value: 0: must be greater than 0".to_owned());
    }
    if limit < first {
        return Err(format!(
            "podMaxBackoffSeconds: Invalid value: {limit}: must be greater than or equal to PodInitialBackoffSeconds"
        ));
    }
    let percent = [("percentageOfNodesToScore", file.percentage_of_nodes_to_score)];
    let own = file.profiles.iter().map(|p| ("profiles.percentageOfNodesToScore", p.percentage_of_nodes_to_score));
    for (name, percent) in percent.into_iter().chain(own) {
        if percent.is_some_and(|p| p > 100) {
            return Err(format!("{name}: Invalid value: {}: not in valid range [0-100]", percent.unwrap_or(0)));
        }
    }
    let lock = file.leader_election.resource_lock.as_deref().unwrap_or("leases");
    if lock != "leases" {
        return Err(format!("leaderElection.resourceLock: Invalid value: {lock:?}: resourceLock must be \"leases\""));
    }
    let times = &file.leader_election;
    let fixed = [
        ("leaseDuration", &times.lease_duration, "15s"),
        ("renewDeadline", &times.renew_deadline, "10s"),
        ("retryPeriod", &times.retry_period, "2s"),
    ];
    for (name, value, only) in fixed {
        if value.as_deref().is_some_and(|value| value != only) {
            return Err(format!("leaderElection.{name}: only {only} is supported"));
        }
    }
    Ok(())
}

fn profiles(file: &File) -> Result<Vec<Profile>, String> {
    let default = [FileProfile::default()];
    let given = if file.profiles.is_empty() { &default[..] } else { &file.profiles };
    let mut names = BTreeSet::new();
    let mut profiles = Vec::new();
    for (index, given) in given.iter().enumerate() {
        let profile = profile(given, file.percentage_of_nodes_to_score.unwrap_or(0))
            .map_err(|e| format!("profiles[{index}].{e}"))?;
        if !names.insert(profile.name.clone()) {
            return Err(format!("profiles[{index}].schedulerName: Duplicate value: {:?}", profile.name));
        }
        profiles.push(profile);
    }
    Ok(profiles)
}

fn profile(given: &FileProfile, percent: usize) -> Result<Profile, String> {
    let name = given.scheduler_name.as_deref().unwrap_or(DEFAULT_SCHEDULER);
    if name.is_empty() {
        return Err("schedulerName: Required value".to_owned());
    }
    let mut args = BTreeMap::new();
    for (index, config) in given.plugin_config.iter().enumerate() {
        if !exists(&config.name) {
            return Err(format!("pluginConfig[{index}].name: plugin {:?} does not exist", config.name));
        }
        if args.insert(config.name.clone(), config.args.clone()).is_some() {
            return Err(format!("pluginConfig[{index}]: Duplicate value: {:?}", config.name));
        }
    }
    let mut profile = Profile::default_with(name, &args).map_err(|e| format!("pluginConfig.{e}"))?;
    profile.percentage_of_nodes_to_score = given.percentage_of_nodes_to_score.unwrap_or(percent);
    if let Some(args) = args.get("DefaultPreemption") {
        preemption_args(&mut profile, args).map_err(|e| format!("pluginConfig.DefaultPreemption: {e}"))?;
    }
    let timeout = args.get("VolumeBinding").and_then(|args| args["bindTimeoutSeconds"].as_u64());
    profile.bind_timeout_seconds = timeout.unwrap_or(profile.bind_timeout_seconds);
    if let Some(point) = given.plugins.keys().find(|point| !POINTS.contains(&point.as_str())) {
        return Err(format!("plugins: unknown field {point:?}"));
    }
    // multiPoint first: what single points say is more specific.
    let (all, single): (Vec<_>, Vec<_>) = given.plugins.iter().partition(|(point, _)| *point == "multiPoint");
    for (point, set) in all.into_iter().chain(single) {
        apply(&mut profile, point, set).map_err(|e| format!("plugins.{point}.{e}"))?;
    }
    Ok(profile)
}

fn preemption_args(profile: &mut Profile, args: &Value) -> Result<(), String> {
    use plugins::resources::{no_fields_but, number};
    no_fields_but(args, &["minCandidateNodesPercentage", "minCandidateNodesAbsolute"])?;
    let of = |name, default, range| Ok::<_, String>(usize::try_from(number(args, name, default, range)?).unwrap_or(0));
    profile.candidates_percent = of("minCandidateNodesPercentage", 10, 0..=100)?;
    profile.candidates_min = of("minCandidateNodesAbsolute", 100, 0..=i64::MAX)?;
    if profile.candidates_percent == 0 && profile.candidates_min == 0 {
        return Err("minCandidateNodesPercentage and minCandidateNodesAbsolute cannot both be zero".to_owned());
    }
    Ok(())
}

fn exists(name: &str) -> bool {
    OWN.contains(&name) || plugins::ALL.iter().any(|row| row.name == name)
}

fn apply(profile: &mut Profile, point: &str, set: &PluginSet) -> Result<(), String> {
    for (list, plugins) in [("disabled", &set.disabled), ("enabled", &set.enabled)] {
        for (index, plugin) in plugins.iter().enumerate() {
            let wild = list == "disabled" && plugin.name == "*";
            if !wild && !exists(&plugin.name) {
                return Err(format!("{list}[{index}].name: plugin {:?} does not exist", plugin.name));
            }
            let on = list == "enabled";
            if !on && (point == "queueSort" || point == "bind") && set.enabled.is_empty() {
                return Err(format!("{list}[{index}]: at least one plugin is needed here"));
            }
            if on && plugin.weight.is_some_and(|weight| weight < 0) {
                return Err(format!("{list}[{index}].weight: Invalid value: must not be negative"));
            }
            if wild || plugin.name == "DefaultPreemption" {
                profile.preempts = if matches!(point, "multiPoint" | "postFilter") { on } else { profile.preempts };
            }
            let meant = |rule: &&mut Enabled| wild || rule.plugin.name() == plugin.name;
            profile.rules.iter_mut().filter(meant).for_each(|rule| switch(rule, point, on, plugin.weight));
        }
    }
    Ok(())
}

/// Turns what a rule does at an extension point on or off.
fn switch(rule: &mut Enabled, point: &str, on: bool, weight: Option<i64>) {
    let default = plugins::ALL.iter().find(|row| row.name == rule.plugin.name()).map_or(0, |row| row.weight);
    if matches!(point, "multiPoint" | "filter" | "preFilter") {
        rule.filters = on;
    }
    if matches!(point, "multiPoint" | "score" | "preScore") {
        rule.scores = on && default > 0;
        if on {
            // A weight of zero or none is the plugin's own in a list of all points, and one in a list of its own.
            let own = if point == "multiPoint" { default } else { default.min(1) };
            rule.weight = weight.filter(|weight| *weight > 0).unwrap_or(own);
        }
    }
}

fn extenders(file: &File) -> Result<Vec<extender::Settings>, String> {
    let read = |(index, given): (usize, &FileExtender)| {
        let at = |what: &str| format!("extenders[{index}].{what}");
        if !given.url_prefix.starts_with("http://") || given.enable_https || given.tls_config.is_some() {
            return Err(at("urlPrefix: only plain http:// is supported"));
        }
        let unsupported = [("preemptVerb", &given.preempt_verb), ("bindVerb", &given.bind_verb)];
        if let Some((name, _)) = unsupported.iter().find(|(_, verb)| !verb.is_empty()) {
            return Err(at(&format!("{name}: not supported")));
        }
        if !given.node_cache_capable {
            return Err(at("nodeCacheCapable: only true is supported: nodes are sent by name"));
        }
        if given.managed_resources.iter().any(|resource| resource.ignored_by_scheduler) {
            return Err(at("managedResources.ignoredByScheduler: set NodeResourcesFit's ignoredResources instead"));
        }
        if !given.prioritize_verb.is_empty() && given.weight.is_none_or(|weight| weight <= 0) {
            return Err(at("weight: Invalid value: must have a positive weight applied to it"));
        }
        let timeout = given
            .http_timeout
            .as_deref()
            .map(|text| duration::parse(text).map_err(|e| at(&format!("httpTimeout: {e}"))));
        Ok(extender::Settings {
            url_prefix: given.url_prefix.clone(),
            filter_verb: given.filter_verb.clone(),
            prioritize_verb: given.prioritize_verb.clone(),
            weight: given.weight.unwrap_or(1),
            timeout: timeout.transpose()?,
            ignorable: given.ignorable,
            managed_resources: given.managed_resources.iter().map(|r| r.name.clone()).collect(),
        })
    };
    file.extenders.iter().enumerate().map(read).collect()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
