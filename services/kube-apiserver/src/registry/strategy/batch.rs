//! Jobs and CronJobs: pods that run to completion.

use serde_json::{Value, json};

use super::checks::{IMMUTABLE, non_negative, one_of};
use super::kind::Kind;
use super::pod_defaults;
use super::tree::{at, bool_at, default, has, int_at, object, same, set, str_at};
use super::workload::template;
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;

/// Job.
pub static JOB: Kind = Kind {
    defaults: |j| job_spec(object(j, "spec")),
    create,
    check: |errors, j| check_job(errors, at(j, &["spec"]).unwrap_or(&Value::Null)),
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
    pod_defaults::template(spec);
}

fn create(_: &Context<'_>, job: &mut Value) -> Result<(), ApiError> {
    if bool_at(job, &["spec", "manualSelector"]) {
        return Ok(());
    }
    let (uid, name) = (str_at(job, &["metadata", "uid"]).to_owned(), str_at(job, &["metadata", "name"]).to_owned());
    let labels = object(object(object(&mut job["spec"], "template"), "metadata"), "labels");
    for (key, value) in [
        ("controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        set(labels, key, value.clone());
    }
    let selector = object(&mut job["spec"], "selector");
    set(object(selector, "matchLabels"), "batch.kubernetes.io/controller-uid", uid);
    Ok(())
}

fn check_job(errors: &mut Vec<FieldError>, spec: &Value) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "maxFailedIndexes",
    ] {
        non_negative(errors, &format!("spec.{field}"), spec.get(field));
    }
    one_of(errors, "spec.completionMode", str_at(spec, &["completionMode"]), &["Indexed", "NonIndexed"]);
    if str_at(spec, &["completionMode"]) == "Indexed" && !has(spec, "completions") {
        errors.push(FieldError::required("spec.completions", "when completion mode is Indexed"));
    }
    template(errors, spec, &["OnFailure", "Never"], "Job");
}

fn job_fixed(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub.is_some() {
        return;
    }
    for field in ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "template"] {
        let (n, o) = (at(new, &["spec", field]), at(old, &["spec", field]));
        if !same(n, o) {
            errors.push(FieldError::invalid(format!("spec.{field}"), n.cloned().unwrap_or(json!(null)), IMMUTABLE));
        }
    }
}

fn check_cron(errors: &mut Vec<FieldError>, c: &Value) {
    let spec = at(c, &["spec"]).unwrap_or(&Value::Null);
    match str_at(spec, &["schedule"]) {
        "" => errors.push(FieldError::required("spec.schedule", "")),
        text if !text.starts_with('@') && text.split_whitespace().count() != 5 => {
            let found = text.split_whitespace().count();
            errors.push(FieldError::invalid(
                "spec.schedule",
                text,
                format!("expected exactly 5 fields, found {found}: [{text}]"),
            ));
        }
        _ => {}
    }
    one_of(errors, "spec.concurrencyPolicy", str_at(spec, &["concurrencyPolicy"]), &["Allow", "Forbid", "Replace"]);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        non_negative(errors, &format!("spec.{field}"), spec.get(field));
    }
    if str_at(c, &["metadata", "name"]).len() > 52 {
        errors.push(FieldError::invalid(
            "metadata.name",
            str_at(c, &["metadata", "name"]),
            "must be no more than 52 characters",
        ));
    }
}
