//! The text of /metrics and /metrics/slis.

use super::{ADMISSION, EVENTS, Histogram, Labels, Metrics, SECONDS, SIZES, Series, USERS, family, line, process};
use crate::admission::{Operation, PLUGINS};
use crate::flowcontrol;
use crate::registry::warnings;
use crate::server::{GIT_VERSION, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

impl Labels {
    fn text(&self) -> String {
        let Self { verb, group, version, resource, subresource, scope, .. } = self;
        format!(
            "component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }

    fn text_with_dry_run(&self) -> String {
        self.text().replacen("component=\"apiserver\",", "component=\"apiserver\",dry_run=\"\",", 1)
    }
}

/// Everything.
pub fn text(state: &State) -> String {
    let mut out = String::new();
    let m = &state.metrics;
    let load = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
    admission(&mut out, m);
    family(&mut out, "apiserver_audit_event_total", "counter");
    line(&mut out, "apiserver_audit_event_total", "", state.audit.as_ref().map_or(0, |audit| audit.events()));
    family(&mut out, "apiserver_current_inflight_requests", "gauge");
    for (kind, gauge) in [("mutating", &m.writing), ("readOnly", &m.reading)] {
        line(&mut out, "apiserver_current_inflight_requests", &format!("request_kind=\"{kind}\""), load(gauge));
    }
    family(&mut out, "apiserver_longrunning_requests", "gauge");
    for (labels, count) in m.running.lock().iter() {
        line(&mut out, "apiserver_longrunning_requests", &labels.text(), count);
    }
    requests(&mut out, &m.requests.lock());
    family(&mut out, "apiserver_request_terminations_total", "counter");
    for (labels, count) in m.terminated.lock().iter() {
        let text = format!("code=\"{}\",{}", labels.code, labels.text());
        line(&mut out, "apiserver_request_terminations_total", &text, count);
    }
    objects(&mut out, state);
    events(&mut out, m);
    authentication(&mut out, m);
    state.storage.store().timings().text(&mut out);
    family(&mut out, "kubernetes_build_info", "gauge");
    line(&mut out, "kubernetes_build_info", &format!("git_version=\"{GIT_VERSION}\",major=\"1\",minor=\"35\""), 1);
    if let Some(flow) = state.flow.fair() {
        flowcontrol::metrics::text(&mut out, flow);
    }
    process::text(&mut out);
    out
}

fn admission(out: &mut String, m: &Metrics) {
    const NAME: &str = "apiserver_admission_controller_admission_duration_seconds";
    family(out, NAME, "histogram");
    for (plugin, cells) in PLUGINS.iter().zip(&m.admission) {
        let cells = cells.lock();
        for (index, cell) in cells.iter().enumerate().filter(|(_, cell)| cell.count() > 0) {
            let phase = if index < 8 { "admit" } else { "validate" };
            let operation = Operation::ALL[index / 2 % 4].name();
            let (name, rejected) = (plugin.name(), index % 2 == 1);
            let labels = format!("name=\"{name}\",operation=\"{operation}\",rejected=\"{rejected}\",type=\"{phase}\"");
            cell.text(out, NAME, &labels, &ADMISSION);
        }
    }
}

fn requests(out: &mut String, series: &BTreeMap<Labels, Series>) {
    family(out, "apiserver_request_total", "counter");
    for (labels, one) in series {
        let text = format!("code=\"{}\",{}", labels.code, labels.text_with_dry_run());
        line(out, "apiserver_request_total", &text, one.durations.count());
    }
    // Neither durations nor sizes are told apart by their code.
    let mut merged: BTreeMap<Labels, Series> = BTreeMap::new();
    for (labels, one) in series {
        let sum = merged.entry(Labels { code: 0, ..*labels }).or_default();
        sum.durations.add(&one.durations);
        sum.sizes.add(&one.sizes);
    }
    histograms(out, "apiserver_request_duration_seconds", &SECONDS, &merged, |labels, one| {
        Some((labels.text_with_dry_run(), &one.durations))
    });
    // Nothing here waits for webhooks, which is what upstream takes off.
    histograms(out, "apiserver_request_sli_duration_seconds", &SECONDS, &merged, |labels, one| {
        (!labels.goes_on()).then(|| (labels.text(), &one.durations))
    });
    histograms(out, "apiserver_response_sizes", &SIZES, &merged, |labels, one| {
        (one.sizes.count() > 0).then(|| (labels.text(), &one.sizes))
    });
    family(out, "apiserver_requested_deprecated_apis", "gauge");
    let asked = merged.keys().filter(|l| warnings::deprecation(l.group, l.version, l.resource).is_some());
    let asked: BTreeSet<String> = asked
        .map(|Labels { group, version, resource, subresource, .. }| {
            format!("group=\"{group}\",removed_release=\"\",resource=\"{resource}\",subresource=\"{subresource}\",version=\"{version}\"")
        })
        .collect();
    asked.iter().for_each(|labels| line(out, "apiserver_requested_deprecated_apis", labels, 1));
}

fn histograms<'a, const N: usize>(
    out: &mut String,
    name: &str,
    bounds: &[f64; N],
    series: &'a BTreeMap<Labels, Series>,
    of: impl Fn(&'a Labels, &'a Series) -> Option<(String, &'a Histogram<N>)>,
) {
    family(out, name, "histogram");
    for (labels, histogram) in series.iter().filter_map(|(labels, one)| of(labels, one)) {
        histogram.text(out, name, &labels, bounds);
    }
}

fn objects(out: &mut String, state: &State) {
    let sizes = state.storage.sizes();
    family(out, "apiserver_resource_objects", "gauge");
    for (res, objects) in &sizes {
        let labels = format!("group=\"{}\",resource=\"{}\"", res.group, res.plural);
        line(out, "apiserver_resource_objects", &labels, objects);
    }
    family(out, "apiserver_storage_objects", "gauge");
    for (res, objects) in &sizes {
        line(out, "apiserver_storage_objects", &format!("resource=\"{}\"", res.group_resource()), objects);
    }
}

fn events(out: &mut String, m: &Metrics) {
    let series: Vec<(String, Histogram<8>)> = m
        .events
        .lock()
        .iter()
        .map(|((group, version, kind), sizes)| {
            (format!("group=\"{group}\",kind=\"{kind}\",version=\"{version}\""), sizes.lock().clone())
        })
        .collect();
    family(out, "apiserver_watch_events_sizes", "histogram");
    series.iter().for_each(|(labels, sizes)| sizes.text(out, "apiserver_watch_events_sizes", labels, &EVENTS));
    family(out, "apiserver_watch_events_total", "counter");
    series.iter().for_each(|(labels, sizes)| line(out, "apiserver_watch_events_total", labels, sizes.count()));
}

fn authentication(out: &mut String, m: &Metrics) {
    family(out, "authenticated_user_requests", "counter");
    for (user, count) in USERS.iter().chain(&["email_id", "other"]).zip(&m.users) {
        let count = count.load(Ordering::Relaxed);
        if count > 0 {
            line(out, "authenticated_user_requests", &format!("username=\"{user}\""), count);
        }
    }
    family(out, "authentication_attempts", "counter");
    for (result, count) in ["success", "failure", "error"].iter().zip(&m.attempts) {
        line(out, "authentication_attempts", &format!("result=\"{result}\""), count.load(Ordering::Relaxed));
    }
}

/// What health checks came to (KEP-3466).
pub fn slis(m: &Metrics) -> String {
    let mut out = String::new();
    let checks = m.checks.lock();
    family(&mut out, "kubernetes_healthcheck", "gauge");
    for ((name, which), checked) in checks.iter() {
        let labels = format!("name=\"{name}\",type=\"{which}\"");
        line(&mut out, "kubernetes_healthcheck", &labels, u8::from(checked.good));
    }
    family(&mut out, "kubernetes_healthchecks_total", "counter");
    for ((name, which), checked) in checks.iter() {
        for (status, count) in [("error", checked.errors), ("success", checked.successes)] {
            if count > 0 {
                let labels = format!("name=\"{name}\",status=\"{status}\",type=\"{which}\"");
                line(&mut out, "kubernetes_healthchecks_total", &labels, count);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Phase;
    use super::*;
    use std::time::Duration;

    #[test]
    fn requests_are_counted_once_and_shown_in_many_ways() {
        let metrics = Metrics::default();
        let get = Labels { verb: "GET", ..Labels::default() };
        for (code, millis) in [(200, 1), (200, 30), (404, 70_000)] {
            metrics.record(get, code, Duration::from_millis(millis), Some(5000));
        }
        let watch = Labels { verb: "WATCH", version: "v1", resource: "endpoints", ..Labels::default() };
        metrics.record(watch, 200, Duration::from_millis(1), None);
        let mut out = String::new();
        requests(&mut out, &metrics.requests.lock());
        let series =
            "component=\"apiserver\",group=\"\",resource=\"\",scope=\"\",subresource=\"\",verb=\"GET\",version=\"\"";
        let wanted = [
            "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"\",scope=\"\",subresource=\"\",verb=\"GET\",version=\"\"} 2".to_string(),
            format!("apiserver_request_sli_duration_seconds_bucket{{{series},le=\"0.005\"}} 1"),
            format!("apiserver_request_sli_duration_seconds_bucket{{{series},le=\"60\"}} 2"),
            format!("apiserver_request_sli_duration_seconds_count{{{series}}} 3"),
            format!("apiserver_response_sizes_bucket{{{series},le=\"10000\"}} 3"),
            "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1".to_string(),
        ];
        for part in wanted {
            assert!(out.contains(&part), "{part} in {out}");
        }
        assert!(!out.contains("sli_duration_seconds_count{component=\"apiserver\",group=\"\",resource=\"endpoints\""));
        assert!(!out.contains("response_sizes_count{component=\"apiserver\",group=\"\",resource=\"endpoints\""));
    }

    #[test]
    fn plugins_are_told_apart() {
        let metrics = Metrics::default();
        let took = Duration::from_millis(1);
        metrics.admitted(0, Phase::Admit, Operation::Create, false, took);
        metrics.admitted(0, Phase::Validate, Operation::Connect, true, took);
        metrics.admitted(PLUGINS.len() - 1, Phase::Validate, Operation::Delete, false, took);
        let mut out = String::new();
        admission(&mut out, &metrics);
        let (first, last) = (PLUGINS[0].name(), PLUGINS[PLUGINS.len() - 1].name());
        for labels in [
            format!("name=\"{first}\",operation=\"CREATE\",rejected=\"false\",type=\"admit\""),
            format!("name=\"{first}\",operation=\"CONNECT\",rejected=\"true\",type=\"validate\""),
            format!("name=\"{last}\",operation=\"DELETE\",rejected=\"false\",type=\"validate\""),
        ] {
            assert!(out.contains(&format!("_count{{{labels}}} 1")), "{labels} in {out}");
        }
        assert_eq!(out.matches("_count").count(), 3);
    }

    #[test]
    fn health_is_counted() {
        let metrics = Metrics::default();
        [true, false].into_iter().for_each(|good| metrics.checked("readyz", "etcd", good));
        let want = [
            "kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 0",
            "kubernetes_healthchecks_total{name=\"etcd\",status=\"error\",type=\"readyz\"} 1",
            "kubernetes_healthchecks_total{name=\"etcd\",status=\"success\",type=\"readyz\"} 1",
        ];
        let text = slis(&metrics);
        assert!(want.iter().all(|line| text.contains(line)), "{text}");
        let users = ["admin", "a@b", "root", "root"];
        users.iter().for_each(|user| metrics.asked_by(user));
        let mut out = String::new();
        authentication(&mut out, &metrics);
        for want in ["username=\"admin\"} 1", "username=\"email_id\"} 1", "username=\"other\"} 2"] {
            assert!(out.contains(want), "{want} in {out}");
        }
    }
}
