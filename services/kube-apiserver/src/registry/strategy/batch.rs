//! Jobs and CronJobs: pods that run to completion.

use apimachinery::selector::LabelSelector;
use serde_json::{Value, json};

use super::checks::{
    IMMUTABLE, dns_label, immutable, label_selector, non_negative, one_of, optional_one_of, qualified_name,
    required_one_of,
};
use super::cron;
use super::kind::Kind;
use super::pod_defaults;
use super::tree::{at, bool_at, default, has, int_at, items, keep, map_at, object, remove, same, set, str_at};
use super::workload::template_itself;
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
    check_create: new_job,
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
    check_create: new_cron,
    check_update: cron_changed,
    ..Kind::SPEC_STATUS
};

/// A CronJob's Jobs get eleven more characters.
const CRON_NAME_MAX: usize = 52;
const MANAGED_BY_MAX: usize = 63;
/// How many pods may run at once where every index is remembered.
const PARALLEL_MAX: i64 = 100_000;
/// The same where there are more completions than that, and each index has failures of its own; also how many may fail.
const MANY_PARALLEL_MAX: i64 = 10_000;
const POLICY_RULES_MAX: usize = 20;
/// The longest list of indexes, bytes.
const INDEXES_MAX: usize = 64 * 1024;
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
    if let Some(manager) = at(spec, &["managedBy"]).and_then(Value::as_str) {
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
    let known: &[&str] = if has(spec, "podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    optional_one_of(errors, &format!("{path}.podReplacementPolicy"), replacement, known);
    template_itself(errors, &format!("{path}.template"), at(spec, &["template"]).unwrap_or(&Value::Null));
    let restart = str_at(spec, &["template", "spec", "restartPolicy"]);
    let path = format!("{path}.template.spec.restartPolicy");
    match restart {
        "" | "Always" => errors.push(FieldError::required(path, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if has(spec, "podFailurePolicy") => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(path, restart, detail));
        }
        other => one_of(errors, &path, other, &["OnFailure", "Never"]),
    }
}

/// Pods of an indexed job are named after it and their index, which has to make a good host name.
fn new_job(errors: &mut Vec<FieldError>, job: &Value) {
    let (name, spec) = (str_at(job, &["metadata", "name"]), at(job, &["spec"]).unwrap_or(&Value::Null));
    let completions = int_at(spec, &["completions"]).unwrap_or(0);
    let host = format!("{name}-{}", completions - 1);
    if str_at(spec, &["completionMode"]) == "Indexed" && completions > 0 && !dns_label(&host).is_empty() {
        let detail = format!("will not able to create pod with invalid DNS label: {host}");
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
    generated_selector(errors, job);
}

/// Labels by which a job knows its pods; whoever writes the selector by hand must not claim others' pods.
fn generated_selector(errors: &mut Vec<FieldError>, job: &Value) {
    if bool_at(job, &["spec", "manualSelector"]) {
        return;
    }
    let (name, uid) = (str_at(job, &["metadata", "name"]), str_at(job, &["metadata", "uid"]));
    let own = [(LEGACY, uid), ("job-name", name), (UID_LABEL, uid), (NAME_LABEL, name)];
    let labels = at(job, &["spec", "template", "metadata", "labels"]).unwrap_or(&Value::Null);
    for (key, want) in own {
        let path = format!("spec.template.metadata.labels[{key}]");
        match labels.get(key).and_then(Value::as_str) {
            None => errors.push(FieldError::required(path, format!("must be '{want}'"))),
            Some(is) if is != want => {
                errors.push(FieldError::invalid(path, labels.clone(), format!("must be '{want}'")));
            }
            Some(_) => {}
        }
    }
    let expected = own.into_iter().map(|(k, v)| (k.to_owned(), Value::from(v))).collect();
    let selector = at(job, &["spec", "selector"]).unwrap_or(&Value::Null);
    if LabelSelector::from_object(selector).is_ok_and(|s| !s.matches(Some(&expected))) {
        errors.push(FieldError::invalid("spec.selector", selector.clone(), "`selector` not auto-generated"));
    }
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
    if has(spec, "maxFailedIndexes") && !has(spec, "backoffLimitPerIndex") {
        let detail = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(format!("{path}.backoffLimitPerIndex"), detail));
    }
    let (failed, completions) = (int_at(spec, &["maxFailedIndexes"]), int_at(spec, &["completions"]).unwrap_or(0));
    let mut too_many = |field: &str, n: i64, detail: String| {
        errors.push(FieldError::invalid(format!("{path}.{field}"), n, detail));
    };
    if !indexed {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(n) = int_at(spec, &[field]) {
                too_many(field, n, "requires indexed completion mode".to_owned());
            }
        }
        return;
    }
    if let Some(n) = failed.filter(|n| has(spec, "completions") && *n > completions) {
        too_many("maxFailedIndexes", n, "must be less than or equal to completions".to_owned());
    }
    if let Some(n) = failed.filter(|n| *n > PARALLEL_MAX) {
        too_many("maxFailedIndexes", n, format!("must be less than or equal to {PARALLEL_MAX}"));
    }
    if completions <= PARALLEL_MAX || !has(spec, "backoffLimitPerIndex") {
        return;
    }
    let most = |limit: i64| {
        format!(
            "must be less than or equal to {limit} when completions are above {PARALLEL_MAX} and used with backoff limit per index"
        )
    };
    if parallel > MANY_PARALLEL_MAX {
        too_many("parallelism", parallel, most(MANY_PARALLEL_MAX));
    }
    match failed {
        Some(n) if n > MANY_PARALLEL_MAX => too_many("maxFailedIndexes", n, most(MANY_PARALLEL_MAX)),
        Some(_) => {}
        None => {
            let detail = format!("must be specified when completions is above {PARALLEL_MAX}");
            errors.push(FieldError::required(format!("{path}.maxFailedIndexes"), detail));
        }
    }
}

fn failure_policy(errors: &mut Vec<FieldError>, path: &str, policy: &Value, spec: &Value) {
    let rules = items(policy, &["rules"]);
    if rules.len() > POLICY_RULES_MAX {
        errors.push(FieldError::too_many(format!("{path}.rules"), rules.len(), POLICY_RULES_MAX));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("{path}.rules[{i}]");
        let action = str_at(rule, &["action"]);
        valid_one_of(errors, &format!("{path}.action"), action, &["Count", "FailIndex", "FailJob", "Ignore"]);
        if action == "FailIndex" && !has(spec, "backoffLimitPerIndex") {
            let detail = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(format!("{path}.action"), action, detail));
        }
        let (codes, conditions) = (at(rule, &["onExitCodes"]), items(rule, &["onPodConditions"]));
        match (codes, conditions.is_empty()) {
            (Some(_), false) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.push(FieldError::invalid_whole(path.clone(), detail));
            }
            (None, true) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.push(FieldError::invalid_whole(path.clone(), detail));
            }
            _ => {}
        }
        if let Some(codes) = codes {
            exit_codes(errors, &format!("{path}.onExitCodes"), codes, spec);
        }
        if conditions.len() > POLICY_RULES_MAX {
            errors.push(FieldError::too_many(format!("{path}.onPodConditions"), conditions.len(), POLICY_RULES_MAX));
        }
        for (j, c) in conditions.iter().enumerate() {
            let path = format!("{path}.onPodConditions[{j}]");
            super::checks::named(errors, &format!("{path}.type"), str_at(c, &["type"]), qualified_name);
            valid_one_of(errors, &format!("{path}.status"), str_at(c, &["status"]), &["False", "True", "Unknown"]);
        }
    }
}

/// One of a few, which are told to whoever says nothing.
fn valid_one_of(errors: &mut Vec<FieldError>, path: &str, v: &str, allowed: &[&str]) {
    if v.is_empty() {
        let list = allowed.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(" ");
        errors.push(FieldError::required(path, format!("valid values: [{list}]")));
    } else {
        one_of(errors, path, v, allowed);
    }
}

fn exit_codes(errors: &mut Vec<FieldError>, path: &str, codes: &Value, spec: &Value) {
    let operator = str_at(codes, &["operator"]);
    valid_one_of(errors, &format!("{path}.operator"), operator, &["In", "NotIn"]);
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
        let (count, chosen) = (int_at(rule, &["succeededCount"]), at(rule, &["succeededIndexes"]));
        if count.is_none() && chosen.is_none() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(path.clone(), detail));
        }
        let mut named = None;
        if let Some(text) = chosen.and_then(Value::as_str) {
            let path = format!("{path}.succeededIndexes");
            if text.len() > INDEXES_MAX {
                errors.push(FieldError::too_long(path.clone(), INDEXES_MAX));
            }
            named = Some(indexes_of(text, completions).unwrap_or_else(|why| {
                errors.push(FieldError::invalid(path, text, format!("error parsing succeededIndexes: {why}")));
                0
            }));
        }
        let Some(n) = count else { continue };
        let path = format!("{path}.succeededCount");
        non_negative(errors, &path, Some(&json!(n)));
        if n > completions {
            let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.push(FieldError::invalid(path.clone(), n, detail));
        }
        if let Some(most) = named.filter(|most| n > *most) {
            let detail = format!(
                "must be less than or equal to {most} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.push(FieldError::invalid(path, n, detail));
        }
    }
}

/// How many indexes a text such as `1,3-5` names; ascending and below the number of completions.
pub fn indexes_of(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let number = |t: &str| match t.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {t:?}")),
        Ok(n) if n >= completions => Err(format!("too large index: {t:?}")),
        Ok(n) => Ok(n),
    };
    let disorder = |before: i64, now: i64| format!("non-increasing order, previous: {before}, current: {now}");
    let (mut last, mut total) = (None, 0);
    for part in text.split(',') {
        let limits: Vec<&str> = part.split('-').collect();
        let (from, to) = match limits.as_slice() {
            [one] => (number(one)?, number(one)?),
            [from, to] => match (number(from)?, number(to)?) {
                (from, to) if from >= to => return Err(disorder(from, to)),
                ends => ends,
            },
            _ => {
                return Err(format!(
                    "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        if let Some(last) = last.filter(|last| *last >= from) {
            return Err(disorder(last, from));
        }
        total += to - from + 1;
        last = Some(to);
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
    if LabelSelector::from_object(selector).is_ok_and(|s| !s.matches(own)) {
        let value = at(job, &["spec", "template", "metadata", "labels"]).cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            value,
            "`selector` does not match template `labels`",
        ));
    }
}

/// What a suspended job that has not started may still say about where its pods run.
const PLACEMENT: [&str; 3] = ["nodeSelector", "tolerations", "schedulingGates"];

fn job_fixed(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub == Some("status") {
        super::job_status_checks::check(errors, new, old);
    }
    if sub.is_some() {
        return;
    }
    let indexed = str_at(new, &["spec", "completionMode"]) == "Indexed";
    let (is, was) = (at(new, &["spec", "completions"]), at(old, &["spec", "completions"]));
    if !indexed {
        immutable(errors, "spec.completions", is, was);
    } else if !same(is, was) && is.is_some() && int_at(new, &["spec", "parallelism"]) != is.and_then(Value::as_i64) {
        let detail = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid("spec.completions", is.cloned().unwrap_or(json!(null)), detail));
    }
    for field in
        ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        immutable(errors, &format!("spec.{field}"), at(new, &["spec", field]), at(old, &["spec", field]));
    }
    template_fixed(errors, new, old);
}

/// The template stays, but for where pods may run while none has been made.
fn template_fixed(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let suspended = bool_at(old, &["spec", "suspend"]);
    let mut template = new["spec"]["template"].clone();
    let before = &old["spec"]["template"];
    if suspended && at(old, &["status", "startTime"]).is_none() {
        for field in PLACEMENT {
            keep(&mut template["spec"], &before["spec"], field);
        }
        for field in ["labels", "annotations"] {
            keep(&mut template["metadata"], &before["metadata"], field);
        }
        let node = at(before, &["spec", "affinity", "nodeAffinity"]).cloned();
        match node {
            Some(node) => set(object(&mut template["spec"], "affinity"), "nodeAffinity", node),
            None => super::tree::within(&mut template["spec"], "affinity", |a| {
                remove(a, "nodeAffinity");
            }),
        }
    }
    if !same(Some(&template), Some(before)) {
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
            }
        }
    }
    let policy = str_at(spec, &["concurrencyPolicy"]);
    required_one_of(errors, "spec.concurrencyPolicy", policy, &["Allow", "Forbid", "Replace"]);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        non_negative(errors, &format!("spec.{field}"), spec.get(field));
    }
    let job = at(spec, &["jobTemplate", "spec"]).unwrap_or(&Value::Null);
    check_spec(errors, "spec.jobTemplate.spec", job);
    if let Some(selector) = at(job, &["selector"]) {
        let detail = "`selector` will be auto-generated";
        errors.push(FieldError::invalid("spec.jobTemplate.spec.selector", selector.clone(), detail));
    }
    if bool_at(job, &["manualSelector"]) {
        errors.push(FieldError::not_supported("spec.jobTemplate.spec.manualSelector", true, &["nil", "false"]));
    }
}

/// What only a new CronJob has to keep to.
fn new_cron(errors: &mut Vec<FieldError>, c: &Value) {
    let name = str_at(c, &["metadata", "name"]);
    if name.len() > CRON_NAME_MAX {
        let detail = format!("must be no more than {CRON_NAME_MAX} characters");
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
    let schedule = str_at(c, &["spec", "schedule"]);
    if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid("spec.schedule", schedule, detail));
    }
    if let Some(zone) = at(c, &["spec", "timeZone"]).and_then(Value::as_str) {
        time_zone(errors, zone);
    }
}

/// A zone that stands in an old schedule may stay there.
fn cron_changed(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub.is_some() {
        return;
    }
    let schedule = str_at(new, &["spec", "schedule"]);
    let (is, was) = (at(new, &["spec", "timeZone"]), at(old, &["spec", "timeZone"]));
    let tolerated = str_at(old, &["spec", "schedule"]).contains("TZ");
    let detail = match (schedule.contains("TZ"), tolerated, is.is_some()) {
        (true, true, true) => "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        (true, false, _) => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        _ => "",
    };
    if !detail.is_empty() {
        errors.push(FieldError::invalid("spec.schedule", schedule, detail));
    }
    if let Some(zone) = is.filter(|_| is != was).and_then(Value::as_str) {
        time_zone(errors, zone);
    }
}

fn time_zone(errors: &mut Vec<FieldError>, zone: &str) {
    let path = "spec.timeZone";
    let good = |part: &str| {
        (1..=14).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_+".contains(&b))
    };
    if zone.is_empty() {
        errors.push(FieldError::invalid(path, zone, "timeZone must be nil or non-empty string"));
    } else if !zone.split('/').all(good) {
        errors.push(FieldError::invalid(path, zone, format!("unknown time zone {zone}")));
    } else if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(FieldError::invalid(path, zone, detail));
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
