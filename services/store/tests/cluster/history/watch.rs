//! What a watch guarantees, checked against everything that happened.

use std::collections::{BTreeMap, BTreeSet};

/// One change of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub key: String,
    pub deleted: bool,
    pub value: String,
    pub modified: i64,
    pub create: i64,
    pub version: i64,
    /// The value before, if the watcher asked for it.
    pub previous: Option<String>,
}

/// All changes by revision.
pub type History = BTreeMap<i64, Vec<Event>>;

/// What one watcher got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    Events(Vec<Event>),
    /// Everything up to this revision was sent.
    Progress(i64),
}

/// One watcher's stream, from its start to its end.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    pub prefix: String,
    /// The first revision it wanted.
    pub start: i64,
    pub previous: bool,
    pub responses: Vec<Response>,
}

/// Puts together what collectors on several members saw.
///
/// # Errors
/// Two of them saw different changes at the same revision.
pub fn merge(watches: &[Watch]) -> Result<History, String> {
    let mut all = History::new();
    for watch in watches {
        let mut own = History::new();
        for event in events(watch) {
            own.entry(event.modified).or_default().push(Event { previous: None, ..event.clone() });
        }
        for (revision, events) in own {
            match all.get(&revision) {
                Some(known) if *known != events => {
                    return Err(format!("members disagree about revision {revision}: {known:?} and {events:?}"));
                }
                Some(_) => {}
                None => {
                    all.insert(revision, events);
                }
            }
        }
    }
    Ok(all)
}

fn events(watch: &Watch) -> impl Iterator<Item = &Event> {
    watch.responses.iter().flat_map(|response| match response {
        Response::Events(events) => events.as_slice(),
        Response::Progress(_) => &[],
    })
}

/// Checks one watcher against everything that happened.
///
/// # Errors
/// The first guarantee that was broken, and where.
pub fn check(watch: &Watch, history: &History) -> Result<(), String> {
    filter(watch)?;
    ordered(watch)?;
    unique(watch)?;
    atomic(watch)?;
    bookmarkable(watch)?;
    complete(watch, history)?;
    previous(watch, history)?;
    created(watch)
}

/// Only what was asked for.
fn filter(watch: &Watch) -> Result<(), String> {
    match events(watch).find(|e| !e.key.starts_with(&watch.prefix) || e.modified < watch.start) {
        Some(event) => Err(format!("filter: {event:?} was not asked for")),
        None => Ok(()),
    }
}

/// Revisions never go back.
fn ordered(watch: &Watch) -> Result<(), String> {
    let mut last = 0;
    for event in events(watch) {
        if event.modified < last {
            return Err(format!("ordered: {event:?} after revision {last}"));
        }
        last = event.modified;
    }
    Ok(())
}

/// Nothing comes twice.
fn unique(watch: &Watch) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match events(watch).find(|event| !seen.insert((event.modified, &event.key))) {
        Some(event) => Err(format!("unique: {event:?} came twice")),
        None => Ok(()),
    }
}

/// A revision is never cut between two responses.
fn atomic(watch: &Watch) -> Result<(), String> {
    let mut last = 0;
    for response in &watch.responses {
        let Response::Events(events) = response else { continue };
        if events.first().is_some_and(|event| event.modified == last) {
            return Err(format!("atomic: revision {last} is in two responses"));
        }
        last = events.last().map_or(last, |event| event.modified);
    }
    Ok(())
}

/// After a progress notification nothing older comes, and the notifications never go back.
fn bookmarkable(watch: &Watch) -> Result<(), String> {
    let mut mark = 0;
    for response in &watch.responses {
        match response {
            Response::Progress(revision) if *revision < mark => {
                return Err(format!("bookmarkable: progress {revision} after {mark}"));
            }
            Response::Progress(revision) => mark = *revision,
            Response::Events(events) => {
                if let Some(event) = events.iter().find(|event| event.modified <= mark) {
                    return Err(format!("bookmarkable: {event:?} after progress {mark}"));
                }
                mark = events.last().map_or(mark, |event| event.modified - 1);
            }
        }
    }
    Ok(())
}

/// Nothing is missing: not at the start (resumable), and not between (reliable).
fn complete(watch: &Watch, history: &History) -> Result<(), String> {
    let through = watch.responses.iter().map(|response| match response {
        Response::Progress(revision) => *revision,
        Response::Events(events) => events.last().map_or(0, |event| event.modified),
    });
    let Some(through) = through.max().filter(|through| *through >= watch.start) else { return Ok(()) };
    let expected = history.range(watch.start..=through).flat_map(|(_, events)| events);
    let mut expected = expected.filter(|event| event.key.starts_with(&watch.prefix));
    let mut got = events(watch).map(|event| Event { previous: None, ..event.clone() });
    for place in 0.. {
        match (expected.next(), got.next()) {
            (None, None) => break,
            (expected, got) if expected == got.as_ref() => {}
            (expected, got) => {
                let what = if place == 0 { "resumable" } else { "reliable" };
                return Err(format!("{what}: {got:?} where {expected:?} was due"));
            }
        }
    }
    Ok(())
}

/// The value before is the one before.
fn previous(watch: &Watch, history: &History) -> Result<(), String> {
    if !watch.previous {
        return Ok(());
    }
    let mut held: BTreeMap<&str, &str> = BTreeMap::new();
    let mut before = BTreeMap::new();
    for event in history.values().flatten() {
        before.insert((event.modified, event.key.as_str()), held.get(event.key.as_str()).copied());
        match event.deleted {
            true => held.remove(event.key.as_str()),
            false => held.insert(&event.key, &event.value),
        };
    }
    for event in events(watch) {
        let expected = before.get(&(event.modified, event.key.as_str())).copied().flatten();
        if event.previous.as_deref() != expected {
            return Err(format!("previous: {event:?} where {expected:?} was before"));
        }
    }
    Ok(())
}

/// A key's first version is created by the change itself.
fn created(watch: &Watch) -> Result<(), String> {
    let wrong = |e: &&Event| !e.deleted && ((e.version == 1) != (e.create == e.modified) || e.create > e.modified);
    match events(watch).find(wrong) {
        Some(event) => Err(format!("created: {event:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, modified: i64, create: i64, version: i64) -> Event {
        Event { key: key.into(), value: format!("v{modified}"), modified, create, version, ..Event::default() }
    }

    fn history() -> History {
        [
            (2, vec![put("a", 2, 2, 1)]),
            (3, vec![put("b", 3, 3, 1)]),
            (4, vec![put("a", 4, 2, 2), put("b", 4, 3, 2)]),
            (5, vec![Event { key: "a".into(), deleted: true, modified: 5, ..Event::default() }]),
        ]
        .into()
    }

    fn watch(responses: Vec<Response>) -> Watch {
        Watch { start: 2, responses, ..Watch::default() }
    }

    fn all() -> Vec<Response> {
        history().into_values().map(Response::Events).collect()
    }

    #[test]
    fn a_good_watch_passes() {
        let mut responses = all();
        responses.insert(2, Response::Progress(3));
        responses.push(Response::Progress(9));
        assert_eq!(check(&watch(responses.clone()), &history()), Ok(()));
        assert_eq!(merge(&[watch(all()), watch(all()[..2].to_vec())]), Ok(history()));
        let only_b = Watch { prefix: "b".into(), ..watch(vec![Response::Events(vec![put("b", 3, 3, 1)])]) };
        assert_eq!(check(&only_b, &history()), Ok(()));
    }

    #[test]
    fn every_broken_guarantee_is_named() {
        let events = |list: Vec<Event>| Response::Events(list);
        let swapped = {
            let mut r = all();
            r.swap(0, 1);
            r
        };
        let twice = {
            let mut r = all();
            r.insert(1, r[0].clone());
            r[1] = events(vec![put("a", 2, 2, 1)]);
            r
        };
        let cut = {
            let mut r = all();
            r[2] = events(vec![put("a", 4, 2, 2)]);
            r.insert(3, events(vec![put("b", 4, 3, 2)]));
            r
        };
        let early = {
            let mut r = all();
            r.insert(1, Response::Progress(3));
            r
        };
        let gap = {
            let mut r = all();
            r.remove(1);
            r
        };
        let late = all()[1..].to_vec();
        let ahead = vec![Response::Progress(3)];
        let strange = vec![events(vec![put("a", 2, 1, 1)])];
        let cases = [
            ("ordered", swapped),
            ("unique", twice),
            ("atomic", cut),
            ("bookmarkable", early),
            ("reliable", gap),
            ("resumable", late),
            ("resumable", ahead),
        ];
        for (expected, responses) in cases {
            let error = check(&watch(responses), &history()).unwrap_err();
            assert!(error.starts_with(expected), "{expected}: {error}");
        }
        let other = Watch { prefix: "b".into(), ..watch(all()) };
        assert!(check(&other, &history()).unwrap_err().starts_with("filter"));
        let without = Watch { previous: true, ..watch(all()) };
        assert!(check(&without, &history()).unwrap_err().starts_with("previous"));
        let odd: History = [(2, vec![put("a", 2, 1, 1)])].into();
        assert!(check(&watch(strange), &odd).unwrap_err().starts_with("created"));
        let different = watch(vec![events(vec![put("b", 2, 2, 1)])]);
        assert!(merge(&[watch(all()), different]).unwrap_err().contains("disagree"));
    }
}
