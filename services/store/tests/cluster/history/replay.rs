//! Reads of one member's own state: they may be old, but must show a state that existed.

use std::collections::BTreeMap;

use super::model::Value;
use super::watch::History;

/// What a member answered about its own state.
#[derive(Clone, Debug)]
pub struct LocalRead {
    pub prefix: String,
    pub revision: i64,
    pub values: Vec<(String, Value)>,
}

/// Checks reads against everything that happened; leases are left out, because the history does not say them.
///
/// # Errors
/// The first read that shows what never was.
pub fn check(reads: &[LocalRead], history: &History) -> Result<(), String> {
    let mut reads: Vec<&LocalRead> = reads.iter().collect();
    reads.sort_by_key(|read| read.revision);
    let mut held: BTreeMap<&str, Value> = BTreeMap::new();
    let mut changes = history.iter().peekable();
    for read in reads {
        while let Some((_, events)) = changes.next_if(|(revision, _)| **revision <= read.revision) {
            for event in events {
                if event.deleted {
                    held.remove(event.key.as_str());
                    continue;
                }
                let (modified, create, version) = (event.modified, event.create, event.version);
                held.insert(&event.key, Value { value: event.value.clone(), create, modified, version, lease: 0 });
            }
        }
        let expected = held.iter().filter(|(key, _)| key.starts_with(&read.prefix));
        let expected: Vec<_> = expected.map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let got: Vec<_> = read.values.iter().map(|(k, v)| (k.clone(), Value { lease: 0, ..v.clone() })).collect();
        if got != expected {
            return Err(format!("at revision {} of {:?}: {got:?} where {expected:?} was", read.revision, read.prefix));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::watch::Event;
    use super::*;

    #[test]
    fn old_is_right_and_never_was_is_not() {
        let event = |modified, version| Event {
            key: "k".into(),
            value: format!("v{modified}"),
            modified,
            create: 2,
            version,
            ..Event::default()
        };
        let history: History = [(2, vec![event(2, 1)]), (3, vec![event(3, 2)])].into();
        let read = |revision, modified, version| {
            let value = Value { value: format!("v{modified}"), create: 2, modified, version, lease: 0 };
            LocalRead { prefix: "k".into(), revision, values: vec![("k".into(), value)] }
        };
        assert_eq!(check(&[read(3, 3, 2), read(2, 2, 1)], &history), Ok(()));
        assert!(check(&[read(2, 3, 2)], &history).is_err(), "from the future");
        assert!(check(&[read(3, 2, 1)], &history).is_err(), "older than its header");
    }
}
