//! CEL expressions that select devices, compiled once, and what each said of each device.

use std::collections::HashMap;
use std::sync::Arc;

use cel::device::Selector;
use parking_lot::Mutex;
use serde_json::Value;

use super::search::Reachable;
use crate::objects::DeviceClassObject;
use crate::terms::{list, text};

/// So many verdicts are kept; then all start anew. Devices that change have others.
const VERDICTS_MAX: usize = 200_000;

/// Which device of which state of which slice.
pub type Place = (u64, usize);

/// All expressions that were needed so far.
#[derive(Debug, Default)]
pub struct Selectors(Mutex<HashMap<Box<str>, Arc<Known>>>);

#[derive(Debug)]
struct Known {
    selector: Result<Selector, String>,
    verdicts: Mutex<HashMap<Place, Result<bool, String>>>,
}

/// An expression that a class or a claim selects by.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Whose, for errors.
    of: String,
    known: Arc<Known>,
}

impl Selectors {
    /// The expressions that a device must satisfy: the class's, then the request's own.
    pub fn rules(&self, class: Option<&DeviceClassObject>, claim: &str, request: &Value) -> Vec<Rule> {
        let of_class = class.into_iter().flat_map(|class| {
            let name = &class.metadata.name;
            class.spec.selectors.iter().enumerate().map(move |(i, s)| (format!("class {name}: selector #{i}"), s))
        });
        let own = list(request, "/selectors").iter().enumerate();
        let own = own.map(|(i, s)| (format!("claim {claim}: selector #{i}"), s));
        of_class.chain(own).map(|(of, s)| Rule { of, known: self.known(text(s, "/cel/expression")) }).collect()
    }

    fn known(&self, expression: &str) -> Arc<Known> {
        let mut all = self.0.lock();
        if let Some(known) = all.get(expression) {
            return Arc::clone(known);
        }
        if all.values().map(|known| known.verdicts.lock().len() + 1).sum::<usize>() > VERDICTS_MAX {
            all.clear();
        }
        let selector = Selector::compile(expression).map_err(|error| error.to_string());
        let known = Arc::new(Known { selector, verdicts: Mutex::default() });
        all.insert(expression.into(), Arc::clone(&known));
        known
    }
}

impl Rule {
    /// Whether it selects a device.
    ///
    /// # Errors
    /// Upstream's sentence on an expression that gives no answer.
    pub fn selects(&self, device: &Reachable<'_>) -> Result<bool, String> {
        let selector = match &self.known.selector {
            Ok(selector) => selector,
            Err(error) => return Err(format!("{}: CEL compile error: {error}", self.of)),
        };
        let mut verdicts = self.known.verdicts.lock();
        if verdicts.len() > VERDICTS_MAX {
            verdicts.clear();
        }
        let verdict = verdicts.entry(device.place).or_insert_with(|| {
            let seen = device.seen.as_ref().map_err(Clone::clone)?;
            selector.matches(seen).map_err(|error| error.to_string())
        });
        verdict.clone().map_err(|error| format!("{}: CEL runtime error: {error}", self.of))
    }
}
