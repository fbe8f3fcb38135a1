//! /healthz, /livez and /readyz: each a list of checks, and each check by its own path. Texts are upstream's.

use super::body::Response;
use super::handler::Call;
use super::respond;
use crate::errors::ApiError;
use std::fmt::Write;
use std::time::Duration;

/// How long a probe waits for the store.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// What is done once at start, under upstream's names and in its order.
const HOOKS: &[&str] = &[
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
];

/// Where the checks are found. What depends on how the server is configured is not told here.
pub fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    for which in ["healthz", "livez", "readyz"] {
        let own: &[&str] = if which == "readyz" { &["etcd-readiness", "informer-sync", "shutdown"] } else { &[] };
        let checks = ["ping", "log", "etcd"].iter().chain(own).chain(HOOKS);
        paths.push(format!("/{which}"));
        paths.extend(checks.map(|check| format!("/{which}/{check}")));
    }
    paths
}

/// A check and what is wrong; reasons are shown only to who asks for that check.
type Check = (&'static str, Result<(), String>);

/// Answers `/readyz`, or `/readyz/etcd`, whose last part is `single`.
pub async fn serve(call: &Call, which: &'static str, single: &str) -> Result<Response, ApiError> {
    let checks = checks(call, which).await;
    for (name, result) in checks.iter().filter(|(name, _)| single.is_empty() || *name == single) {
        call.state.metrics.checked(which, name, result.is_ok());
    }
    if !single.is_empty() {
        let (_, result) = checks.iter().find(|(name, _)| *name == single).ok_or_else(ApiError::no_such_path)?;
        return Ok(match result {
            Ok(()) => respond::text(200, "ok"),
            Err(why) => respond::text(500, format!("internal server error: {why}\n")),
        });
    }
    let (status, text) = report(which, &checks, call.query.all("exclude").collect(), call.query.has("verbose"));
    Ok(respond::text(status, text))
}

async fn checks(call: &Call, which: &str) -> Vec<Check> {
    let state = &call.state;
    let store = match tokio::time::timeout(STORE_PATIENCE, state.storage.store().revision()).await {
        Ok(reply) => reply.map(drop).map_err(|e| e.to_string()),
        Err(_) => Err("the store does not answer in time".into()),
    };
    let started = |what: &str| {
        if state.is_started() { Ok(()) } else { Err(format!("{what} is not finished")) }
    };
    let mut checks: Vec<Check> = vec![("ping", Ok(())), ("log", Ok(())), ("etcd", store.clone())];
    if which == "readyz" {
        checks.push(("etcd-readiness", store));
    }
    if let Some(health) = state.storage.encryption().health().await {
        checks.push(("kms-providers", health.map_err(|e| e.to_string())));
    }
    if which == "readyz" {
        checks.push(("informer-sync", started("the first read of the store")));
    }
    checks.extend(HOOKS.iter().map(|hook| (*hook, started("the start"))));
    if which == "readyz" {
        let ending = state.shutdown.triggered();
        checks.push(("shutdown", if ending { Err("process is shutting down".into()) } else { Ok(()) }));
    }
    checks
}

/// `ok`, or the checks line by line: to who asks, and if one fails.
fn report(which: &str, checks: &[Check], mut excluded: Vec<&str>, verbose: bool) -> (u16, String) {
    excluded.sort_unstable();
    excluded.dedup();
    let mut text = String::new();
    let mut healthy = true;
    for (name, result) in checks {
        let skipped = excluded.iter().position(|e| e == name).map(|at| excluded.remove(at)).is_some();
        // Writing to a String cannot fail.
        let _ = match result {
            _ if skipped => writeln!(text, "[+]{name} excluded: ok"),
            Ok(()) => writeln!(text, "[+]{name} ok"),
            Err(_) => writeln!(text, "[-]{name} failed: reason withheld"),
        };
        healthy &= skipped || result.is_ok();
    }
    if !excluded.is_empty() {
        let unknown: Vec<String> = excluded.iter().map(|e| format!("{e:?}")).collect();
        let _ = writeln!(text, "warn: some health checks cannot be excluded: no matches for {}", unknown.join(","));
    }
    match (healthy, verbose) {
        (false, _) => (500, format!("{text}{which} check failed\n")),
        (true, true) => (200, format!("{text}{which} check passed\n")),
        (true, false) => (200, "ok".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_reported_check_by_check() {
        let checks: &[Check] = &[("ping", Ok(())), ("etcd", Err("secret".into()))];
        let good: &[Check] = &[("ping", Ok(())), ("etcd", Ok(()))];
        let table = [
            (checks, vec![], false, 500, "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n"),
            (checks, vec!["etcd"], false, 200, "ok"),
            (checks, vec!["etcd"], true, 200, "[+]ping ok\n[+]etcd excluded: ok\nreadyz check passed\n"),
            (good, vec![], false, 200, "ok"),
            (
                good,
                vec!["z", "a", "z"],
                true,
                200,
                "[+]ping ok\n[+]etcd ok\nwarn: some health checks cannot be excluded: no matches for \"a\",\"z\"\nreadyz check passed\n",
            ),
        ];
        for (checks, excluded, verbose, status, text) in table {
            assert_eq!(report("readyz", checks, excluded, verbose), (status, text.to_owned()));
        }
    }
}
