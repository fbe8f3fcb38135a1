//! Parts of devices that several claims share: counters, capacities that are given out in portions, and conditions that a device waits for.

use std::collections::BTreeSet;

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::checks::{dns_label, named, qualified_name, required_named};
use super::device::set_of;
use super::tree::{at, bool_at, has, items, map_at, str_at};
use crate::errors::FieldError;

const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const CONSUMPTIONS_MAX: usize = 2;
const OPTIONS_MAX: usize = 10;
const CONDITIONS_MAX: usize = 4;

/// The counters of a slice, which has either those or devices.
pub fn counter_sets(errors: &mut Vec<FieldError>, spec: &Value) {
    if has(spec, "sharedCounters") && has(spec, "devices") {
        errors.push(FieldError::invalid("spec", "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let name = |set: &Value| str_at(set, &["name"]).to_owned();
    set_of(
        errors,
        "spec.sharedCounters",
        items(spec, &["sharedCounters"]),
        COUNTER_SETS_MAX,
        name,
        |errors, path, set| {
            counters(errors, path, set, "name");
        },
    );
}

/// What a device takes of the counters of its pool.
pub fn consumptions(errors: &mut Vec<FieldError>, path: &str, device: &Value) {
    let (list, name) = (items(device, &["consumesCounters"]), |c: &Value| str_at(c, &["counterSet"]).to_owned());
    set_of(errors, &format!("{path}.consumesCounters"), list, CONSUMPTIONS_MAX, name, |errors, path, taken| {
        counters(errors, path, taken, "counterSet");
    });
}

fn counters(errors: &mut Vec<FieldError>, path: &str, set: &Value, name: &str) {
    required_named(errors, &format!("{path}.{name}"), str_at(set, &[name]), dns_label);
    let path = format!("{path}.counters");
    match map_at(set, &["counters"]).filter(|counters| !counters.is_empty()) {
        None => errors.push(FieldError::required(path, "")),
        Some(counters) if counters.len() > COUNTERS_MAX => {
            errors.push(FieldError::too_many(path, counters.len(), COUNTERS_MAX));
        }
        Some(counters) => {
            counters.keys().for_each(|key| named(errors, &format!("{path}[{key}]"), key, dns_label));
        }
    }
}

/// One capacity of a device: what may be asked of it.
pub fn capacity(errors: &mut Vec<FieldError>, path: &str, capacity: &Value, device: &Value) {
    let path = format!("{path}.requestPolicy");
    let Some(policy) = at(capacity, &["requestPolicy"]) else { return };
    if !bool_at(device, &["allowMultipleAllocations"]) {
        errors.push(FieldError::forbidden(path, "allowMultipleAllocations must be true"));
        return;
    }
    let (values, range) = (items(policy, &["validValues"]), at(policy, &["validRange"]));
    if !values.is_empty() && range.is_some() {
        let why =
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
        errors.push(FieldError::forbidden(path, why));
        return;
    }
    let most = amount(capacity, "value").unwrap_or(Quantity::ZERO);
    match (amount(policy, "default"), range) {
        (Some(default), _) if !values.is_empty() => {
            choices(errors, &format!("{path}.validValues"), values, most, default);
        }
        (Some(default), Some(range)) => Range::read(range, most, default).check(errors, &format!("{path}.validRange")),
        (None, None) if values.is_empty() => {}
        (None, range) => {
            let which = if range.is_some() { "validRange" } else { "validValues" };
            errors.push(FieldError::required(format!("{path}.default"), format!("required when {which} is defined")));
        }
        (Some(_), None) => {}
    }
}

fn amount(of: &Value, field: &str) -> Option<Quantity> {
    at(of, &[field])?.as_str()?.parse().ok()
}

fn choices(errors: &mut Vec<FieldError>, path: &str, values: &[Value], most: Quantity, default: Quantity) {
    let read = |v: &Value| v.as_str().and_then(|text| text.parse::<Quantity>().ok()).unwrap_or(Quantity::ZERO);
    for (i, pair) in values.windows(2).enumerate() {
        if read(&pair[0]) > read(&pair[1]) {
            let shown = read(&pair[1]).to_string();
            let why = "values must be sorted in ascending order";
            errors.push(FieldError::invalid(format!("{path}[{}]", i + 1), shown, why));
        }
    }
    let key = |v: &Value| read(v).value().to_string();
    set_of(errors, path, values, OPTIONS_MAX, key, |errors, path, value| {
        if read(value) > most {
            let why = format!("option is larger than capacity value: {most}");
            errors.push(FieldError::invalid(path, read(value).to_string(), why));
        }
    });
    if values.len() > OPTIONS_MAX || values.iter().all(|v| read(v) != default) {
        let why = "default value is not valid according to the requestPolicy";
        errors.push(FieldError::invalid(path, default.to_string(), why));
    }
}

struct Range {
    min: Option<Quantity>,
    max: Option<Quantity>,
    step: Option<Quantity>,
    most: Quantity,
    default: Quantity,
}

impl Range {
    fn read(range: &Value, most: Quantity, default: Quantity) -> Self {
        let [min, max, step] = ["min", "max", "step"].map(|field| amount(range, field));
        Self { min, max, step, most, default }
    }

    fn check(&self, errors: &mut Vec<FieldError>, path: &str) {
        let (most, default) = (self.most, self.default);
        let Some(min) = self.min else {
            errors.push(FieldError::required(format!("{path}.min"), "required when validRange is defined"));
            return;
        };
        let mut wrong = |broken: bool, field: &str, value: Quantity, why: String| {
            if broken {
                errors.push(FieldError::invalid(format!("{path}.{field}"), value.to_string(), why));
            }
        };
        wrong(min > most, "min", min, format!("min is larger than capacity value: {most}"));
        wrong(default < min, "default", default, format!("default is less than min: {min}"));
        if let Some(max) = self.max {
            wrong(min > max, "max", min, format!("min is larger than max: {max}"));
            wrong(max > most, "max", max, format!("max is larger than capacity value: {most}"));
            wrong(default > max, "default", default, format!("default is more than max: {max}"));
        }
        let Some(step) = self.step else { return };
        if step.sign() <= 0 {
            wrong(true, "step", step, "must be greater than zero".into());
            return;
        }
        let first = min.add(step);
        wrong(first > most, "step", step, format!("one step {first} is larger than capacity value: {most}"));
        for value in [Some(default), self.max].into_iter().flatten() {
            let off = value.value().wrapping_sub(min.value()).checked_rem(step.value()) != Some(0);
            wrong(off, "step", value, format!("value is not a multiple of a given step ({step}) from ({min})"));
        }
    }
}

/// What must happen, or must not, before a device counts as bound.
pub fn binding(errors: &mut Vec<FieldError>, path: &str, of: &Value) {
    let fields = ["bindingConditions", "bindingFailureConditions"];
    let [wanted, failures] = fields.map(|field| items(of, &[field]));
    for (field, list) in fields.into_iter().zip([wanted, failures]) {
        let path = format!("{path}.{field}");
        if list.len() > CONDITIONS_MAX {
            errors.push(FieldError::too_many(path, list.len(), CONDITIONS_MAX));
            continue;
        }
        for (i, name) in list.iter().enumerate() {
            named(errors, &format!("{path}[{i}]"), name.as_str().unwrap_or_default(), qualified_name);
        }
    }
    let twice = |list: &[Value], field: &str, errors: &mut Vec<FieldError>| {
        let mut seen = BTreeSet::new();
        for (i, name) in list.iter().enumerate() {
            if !seen.insert(name.to_string()) {
                errors.push(FieldError::duplicate(format!("{path}.{field}[{i}]"), name.clone()));
            }
        }
    };
    twice(wanted, fields[0], errors);
    twice(failures, fields[1], errors);
    for (i, name) in failures.iter().enumerate().filter(|(_, name)| wanted.contains(name)) {
        let why = "bindingFailureConditions must not overlap with bindingConditions";
        errors.push(FieldError::invalid(format!("{path}.{}[{i}]", fields[1]), name.clone(), why));
    }
    for (missing, there, lists) in
        [(fields[0], fields[1], (wanted, failures)), (fields[1], fields[0], (failures, wanted))]
    {
        if lists.0.is_empty() && !lists.1.is_empty() {
            let why = format!("{missing} are required to use {there}");
            errors.push(FieldError::invalid(format!("{path}.{missing}"), Value::Array(vec![]), why));
        }
    }
}
