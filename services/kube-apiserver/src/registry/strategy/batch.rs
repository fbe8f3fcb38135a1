//! Jobs and CronJobs: pods that run to completion.

use serde_json::{Value, json};

use super::checks::{
    IMMUTABLE, immutable, label_selector, labels, non_negative, one_of, optional_one_of, qualified_name,
    required_one_of,
};
use super::cron;
use super::kind::Kind;
use super::pod_defaults;
use super::tree::{at, bool_at, default, has, int_at, items, keep, map_at, object, remove, same, set, str_at};
use super::workload::template_at;
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;

/// Job.
pub static JOB: Kind = Kind {
    defaults: |j| {
        job_spec(object(j, "spec"));
        label_from_template(j);
    },
    create,
    check: |errors, j| {
        let spec = at(j, &["spec"]).unwrap_or(&Value::Null);
        check_spec(errors, "spec", spec);
        check_selector(errors, j);
    },
    check_update: job_fixed,
    fields: |j| vec![("status.successful", int_at(j, &["status", "succeeded"]).unwrap_or(0).to_string())],
    ..Kind::SPEC_STATUS
};

/// CronJob.
pub static CRON_JOB: Kind = Kind {
    defaults: |c| {
        let spec = object(c, "spec");
        default(spec, "concurrencyPolicy", "Allow");
        default(spec, "suspend", false);
        default(spec, "successfulJobsHistoryLimit", 3);
        default(spec, "failedJobsHistoryLimit", 1);
        let job = object(spec, "jobTemplate");
        object(job, "metadata");
        pod_defaults::template(object(job, "spec"));
    },
    check: check_cron,
    ..Kind::SPEC_STATUS
};

/// A CronJob's Jobs get eleven more characters.
const CRON_NAME_MAX: usize = 52;
const MANAGED_BY_MAX: usize = 63;
/// How many pods may run at once where every index is remembered.
const PARALLEL_MAX: i64 = 100_000;
const POLICY_RULES_MAX: usize = 20;
const LEGACY: &str = "controller-uid";
const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";

fn job_spec(spec: &mut Value) {
    // Both unset is one run; only parallelism set is a work queue without a fixed number of completions.
    if !has(spec, "completions") && !has(spec, "parallelism") {
        set(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    default(spec, "backoffLimit", if has(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 });
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    default(spec, "podReplacementPolicy", if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" });
    if let Some(rules) = spec.pointer_mut("/podFailurePolicy/rules").and_then(Value::as_array_mut) {
        for rule in rules {
            super::tree::each(rule, "onPodConditions", |c| default(c, "status", "True"));
        }
    }
    pod_defaults::template(spec);
}

/// A Job without labels has those of its pods, as it always had.
fn label_from_template(job: &mut Value) {
    if map_at(job, &["metadata", "labels"]).is_none_or(serde_json::Map::is_empty)
        && let Some(labels) = at(job, &["spec", "template", "metadata", "labels"]).cloned()
        && labels.as_object().is_some_and(|l| !l.is_empty())
    {
        set(object(job, "metadata"), "labels", labels);
    }
}

fn create(_: &Context<'_>, job: &mut Value) -> Result<(), ApiError> {
    if bool_at(job, &["spec", "manualSelector"]) {
        return Ok(());
    }
    let (uid, name) = (str_at(job, &["metadata", "uid"]).to_owned(), str_at(job, &["metadata", "name"]).to_owned());
    let labels = object(object(object(&mut job["spec"], "template"), "metadata"), "labels");
    for (key, value) in [(LEGACY, &uid), ("job-name", &name), (UID_LABEL, &uid), (NAME_LABEL, &name)] {
        set(labels, key, value.clone());
    }
    let selector = object(&mut job["spec"], "selector");
    set(object(selector, "matchLabels"), UID_LABEL, uid);
    // Whoever reads it and writes it back would label it otherwise, and change it.
    label_from_template(job);
    Ok(())
}

/// A job's spec, in a Job or in a CronJob's template.
fn check_spec(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    let counted = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    for field in counted {
        non_negative(errors, &format!("{path}.{field}"), spec.get(field));
    }
    indexes(errors, path, spec);
    let manager = str_at(spec, &["managedBy"]);
    if !manager.is_empty() {
        super::checks::domain_prefixed_path(errors, &format!("{path}.managedBy"), manager);
        if manager.len() > MANAGED_BY_MAX {
            errors.push(FieldError::too_long(format!("{path}.managedBy"), MANAGED_BY_MAX));
        }
    }
    if let Some(policy) = at(spec, &["podFailurePolicy"]) {
        failure_policy(errors, &format!("{path}.podFailurePolicy"), policy, spec);
    }
    if let Some(policy) = at(spec, &["successPolicy"]) {
        success_policy(errors, &format!("{path}.successPolicy"), policy, spec);
    }
    let replacement = str_at(spec, &["podReplacementPolicy"]);
    let replacement_path = format!("{path}.podReplacementPolicy");
    optional_one_of(errors, &replacement_path, replacement, &["Failed", "TerminatingOrFailed"]);
    if has(spec, "podFailurePolicy") && !matches!(replacement, "" | "Failed") {
        errors.push(FieldError::not_supported(replacement_path, replacement, &["Failed"]));
    }
    template_at(errors, &format!("{path}.template"), spec, &["OnFailure", "Never"], "Job");
}

fn indexes(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    let mode = str_at(spec, &["completionMode"]);
    let indexed = mode == "Indexed";
    if !mode.is_empty() {
        one_of(errors, &format!("{path}.completionMode"), mode, &["Indexed", "NonIndexed"]);
    }
    if indexed && !has(spec, "completions") {
        errors.push(FieldError::required(format!("{path}.completions"), "when completion mode is Indexed"));
    }
    let parallel = int_at(spec, &["parallelism"]).unwrap_or(0);
    if indexed && parallel > PARALLEL_MAX {
        let detail = format!("must be less than or equal to {PARALLEL_MAX} when completion mode is Indexed");
        errors.push(FieldError::invalid(format!("{path}.parallelism"), parallel, detail));
    }
    if has(spec, "backoffLimitPerIndex") && !indexed {
        let detail = "requires indexed completion mode";
        let value = spec["backoffLimitPerIndex"].clone();
        errors.push(FieldError::invalid(format!("{path}.backoffLimitPerIndex"), value, detail));
    }
    if has(spec, "maxFailedIndexes") && !has(spec, "backoffLimitPerIndex") {
        let detail = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(format!("{path}.backoffLimitPerIndex"), detail));
    }
    let (failed, completions) = (int_at(spec, &["maxFailedIndexes"]), int_at(spec, &["completions"]).unwrap_or(0));
    if let Some(n) = failed.filter(|n| *n > completions) {
        let detail = "must be less than or equal to completions";
        errors.push(FieldError::invalid(format!("{path}.maxFailedIndexes"), n, detail));
    }
}

fn failure_policy(errors: &mut Vec<FieldError>, path: &str, policy: &Value, spec: &Value) {
    if str_at(spec, &["template", "spec", "restartPolicy"]) != "Never" {
        let value = str_at(spec, &["template", "spec", "restartPolicy"]);
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(FieldError::invalid(
            format!("{}.template.spec.restartPolicy", path.trim_end_matches(".podFailurePolicy")),
            value,
            detail,
        ));
    }
    let rules = items(policy, &["rules"]);
    if rules.len() > POLICY_RULES_MAX {
        errors.push(FieldError::too_many(format!("{path}.rules"), rules.len(), POLICY_RULES_MAX));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("{path}.rules[{i}]");
        let action = str_at(rule, &["action"]);
        required_one_of(errors, &format!("{path}.action"), action, &["Count", "FailIndex", "FailJob", "Ignore"]);
        if action == "FailIndex" && !has(spec, "backoffLimitPerIndex") {
            let detail = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(format!("{path}.action"), action, detail));
        }
        let (codes, conditions) = (at(rule, &["onExitCodes"]), items(rule, &["onPodConditions"]));
        match (codes, conditions.is_empty()) {
            (Some(_), false) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.push(FieldError::invalid(path.clone(), rule.clone(), detail));
            }
            (None, true) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.push(FieldError::invalid(path.clone(), rule.clone(), detail));
            }
            _ => {}
        }
        if let Some(codes) = codes {
            exit_codes(errors, &format!("{path}.onExitCodes"), codes, spec);
        }
        for (j, c) in conditions.iter().enumerate() {
            let path = format!("{path}.onPodConditions[{j}]");
            super::checks::named(errors, &format!("{path}.type"), str_at(c, &["type"]), qualified_name);
            required_one_of(errors, &format!("{path}.status"), str_at(c, &["status"]), &["False", "True", "Unknown"]);
        }
    }
}

fn exit_codes(errors: &mut Vec<FieldError>, path: &str, codes: &Value, spec: &Value) {
    let operator = str_at(codes, &["operator"]);
    required_one_of(errors, &format!("{path}.operator"), operator, &["In", "NotIn"]);
    let name = str_at(codes, &["containerName"]);
    let lists = ["containers", "initContainers"].iter().flat_map(|l| items(spec, &["template", "spec", l]));
    if !name.is_empty() && !lists.into_iter().any(|c| str_at(c, &["name"]) == name) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(format!("{path}.containerName"), name, detail));
    }
    let values: Vec<i64> = items(codes, &["values"]).iter().filter_map(Value::as_i64).collect();
    let path = format!("{path}.values");
    if values.is_empty() {
        errors.push(FieldError::invalid(path.clone(), values.clone(), "at least one value is required"));
    } else if values.len() > 255 {
        errors.push(FieldError::too_many(path.clone(), values.len(), 255));
    }
    for (i, n) in values.iter().enumerate() {
        if operator == "In" && *n == 0 {
            errors.push(FieldError::invalid(format!("{path}[{i}]"), 0, "must not be 0 for the In operator"));
        }
        if values[..i].contains(n) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), *n));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(path, values, "must be ordered"));
    }
}

fn success_policy(errors: &mut Vec<FieldError>, path: &str, policy: &Value, spec: &Value) {
    if str_at(spec, &["completionMode"]) != "Indexed" {
        errors.push(FieldError::invalid(path, policy.clone(), "requires indexed completion mode"));
        return;
    }
    let rules = items(policy, &["rules"]);
    if rules.is_empty() {
        errors.push(FieldError::required(
            format!("{path}.rules"),
            "at least one rules must be specified when the successPolicy is specified",
        ));
    }
    if rules.len() > POLICY_RULES_MAX {
        errors.push(FieldError::too_many(format!("{path}.rules"), rules.len(), POLICY_RULES_MAX));
    }
    let completions = int_at(spec, &["completions"]).unwrap_or(0);
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("{path}.rules[{i}]");
        let (count, chosen) = (int_at(rule, &["succeededCount"]), str_at(rule, &["succeededIndexes"]));
        if count.is_none() && chosen.is_empty() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(path.clone(), detail));
        }
        let mut most = completions;
        if !chosen.is_empty() {
            match indexes_of(chosen, completions) {
                Ok(n) => most = n,
                Err(why) => errors.push(FieldError::invalid(
                    format!("{path}.succeededIndexes"),
                    chosen,
                    format!("error parsing succeededIndexes: {why}"),
                )),
            }
        }
        if let Some(n) = count.filter(|n| *n > most) {
            let detail = if chosen.is_empty() {
                format!("must be less than or equal to {completions} (the number of specified completions)")
            } else {
                format!(
                    "must be less than or equal to {most} (the number of indexes in the specified succeededIndexes field)"
                )
            };
            errors.push(FieldError::invalid(format!("{path}.succeededCount"), n, detail));
        }
    }
}

/// How many indexes a text such as `1,3-5` names; ascending and below the number of completions.
fn indexes_of(text: &str, completions: i64) -> Result<i64, String> {
    let number = |t: &str| t.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: {t:?}"));
    let (mut last, mut total) = (-1, 0);
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (number(from)?, number(to)?);
        if to >= completions {
            return Err(format!("too large index: {part:?}"));
        }
        if from <= last || to < from {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        total += to - from + 1;
        last = to;
    }
    Ok(total)
}

fn check_selector(errors: &mut Vec<FieldError>, job: &Value) {
    let Some(selector) = at(job, &["spec", "selector"]) else {
        errors.push(FieldError::required("spec.selector", ""));
        return;
    };
    label_selector(errors, "spec.selector", selector);
    let own = map_at(job, &["spec", "template", "metadata", "labels"]);
    if apimachinery::selector::LabelSelector::from_object(selector).is_ok_and(|s| !s.matches(own)) {
        let value = at(job, &["spec", "template", "metadata", "labels"]).cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            value,
            "`selector` does not match template `labels`",
        ));
    }
}

/// What a suspended job that has not started may still say about where its pods run.
const PLACEMENT: [&str; 3] = ["nodeSelector", "affinity", "tolerations"];

fn job_fixed(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub.is_some() {
        for field in ["active", "succeeded", "failed", "ready", "terminating"] {
            non_negative(errors, &format!("status.{field}"), at(new, &["status", field]));
        }
        return;
    }
    for field in
        ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        immutable(errors, &format!("spec.{field}"), at(new, &["spec", field]), at(old, &["spec", field]));
    }
    let elastic = str_at(new, &["spec", "completionMode"]) == "Indexed"
        && int_at(new, &["spec", "completions"]) == int_at(new, &["spec", "parallelism"])
        && int_at(old, &["spec", "completions"]) == int_at(old, &["spec", "parallelism"]);
    let (is, was) = (at(new, &["spec", "completions"]), at(old, &["spec", "completions"]));
    if !same(is, was) && !elastic {
        let value = is.cloned().unwrap_or(json!(null));
        let indexed = str_at(new, &["spec", "completionMode"]) == "Indexed";
        let detail = if indexed { "can only be modified in tandem with spec.parallelism" } else { IMMUTABLE };
        errors.push(FieldError::invalid("spec.completions", value, detail));
    }
    let waiting = bool_at(old, &["spec", "suspend"]) && at(old, &["status", "startTime"]).is_none();
    let mut template = new["spec"]["template"].clone();
    if waiting {
        for field in PLACEMENT {
            keep(&mut template["spec"], &old["spec"]["template"]["spec"], field);
        }
        keep(&mut template["spec"], &old["spec"]["template"]["spec"], "schedulingGates");
        for field in ["labels", "annotations"] {
            keep(&mut template["metadata"], &old["spec"]["template"]["metadata"], field);
        }
    }
    if !same(Some(&template), at(old, &["spec", "template"])) {
        errors.push(FieldError::invalid("spec.template", new["spec"]["template"].clone(), IMMUTABLE));
    }
}

fn check_cron(errors: &mut Vec<FieldError>, c: &Value) {
    let spec = at(c, &["spec"]).unwrap_or(&Value::Null);
    match str_at(spec, &["schedule"]) {
        "" => errors.push(FieldError::required("spec.schedule", "")),
        text => {
            if let Err(why) = cron::parse(text) {
                errors.push(FieldError::invalid("spec.schedule", text, why));
            } else if text.contains("TZ") {
                let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
                errors.push(FieldError::invalid("spec.schedule", text, detail));
            }
        }
    }
    if let Some(zone) = at(spec, &["timeZone"]).and_then(Value::as_str) {
        time_zone(errors, zone);
    }
    let policy = str_at(spec, &["concurrencyPolicy"]);
    required_one_of(errors, "spec.concurrencyPolicy", policy, &["Allow", "Forbid", "Replace"]);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        non_negative(errors, &format!("spec.{field}"), spec.get(field));
    }
    let mut job = at(spec, &["jobTemplate", "spec"]).cloned().unwrap_or(json!({}));
    if bool_at(&job, &["manualSelector"]) {
        errors.push(FieldError::not_supported("spec.jobTemplate.spec.manualSelector", true, &["nil", "false"]));
    }
    remove(&mut job, "selector");
    check_spec(errors, "spec.jobTemplate.spec", &job);
    labels(errors, "spec.jobTemplate.labels", at(spec, &["jobTemplate", "metadata", "labels"]));
    let name = str_at(c, &["metadata", "name"]);
    if name.len() > CRON_NAME_MAX {
        errors.push(FieldError::invalid(
            "metadata.name",
            name,
            format!("must be no more than {CRON_NAME_MAX} characters"),
        ));
    }
}

fn time_zone(errors: &mut Vec<FieldError>, zone: &str) {
    let path = "spec.timeZone";
    if zone.is_empty() {
        errors.push(FieldError::invalid(path, zone, "timeZone must be nil or non-empty string"));
    } else if zone.eq_ignore_ascii_case("local") {
        errors.push(FieldError::invalid(
            path,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ));
    } else if jiff::tz::TimeZone::get(zone).is_err() {
        errors.push(FieldError::invalid(path, zone, format!("unknown time zone {zone}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_lists() {
        assert_eq!(indexes_of("0,2-4", 5), Ok(4));
        for (text, why) in
            [("1,1", "non-increasing"), ("5", "too large"), ("a", "cannot convert"), ("3-2", "non-increasing")]
        {
            assert!(indexes_of(text, 5).is_err_and(|e| e.contains(why)), "{text}");
        }
    }
}
