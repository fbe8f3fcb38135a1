//! Server-side apply: who applies the same again changes nothing, what nobody applies any more goes, what somebody else applies stays, and who contradicts
//! another is told whom.

use super::objects::pair;
use super::random::Random;
use super::times;
use crate::fields;
use crate::managed::{ApplyError, Managers, Operation, Scope, Versions, Writer, apply, same_but_for_times};
use crate::schema::TypeRef;
use serde_json::{Value, json};

const TRIES: u64 = 1500;

/// Served in one version only.
#[derive(Debug)]
struct Alone;

impl Versions for Alone {
    fn ty(&self, _: &str) -> Option<TypeRef<'_>> {
        None
    }

    fn convert(&self, _: &Value, _: &str, _: &str) -> Option<Value> {
        None
    }
}

fn writer<'a>(ty: TypeRef<'a>, version: &'a str, manager: &'a str, now: &'a str) -> Writer<'a> {
    Writer { ty, versions: &Alone, manager, api_version: version, subresource: "", now, scope: Scope::Except(&[]) }
}

/// A kind with two configurations of one object, which all of their lists allow.
fn configurations(random: &mut Random) -> Option<(TypeRef<'static>, String, Value, Value)> {
    let (ty, mut first, mut second) = pair(random);
    let gvk = ty.gvk().expect("a kind");
    let version = if gvk.group.is_empty() { gvk.version.to_string() } else { format!("{}/{}", gvk.group, gvk.version) };
    for object in [&mut first, &mut second] {
        let labels = object["metadata"]["labels"].clone();
        object["metadata"] = json!({"name": "n", "labels": if labels.is_object() { labels } else { json!({}) }});
        object["apiVersion"] = json!(version);
        object["kind"] = json!(gvk.kind);
        fields::of(ty, object).ok()?;
    }
    Some((ty, version, first, second))
}

/// As stored: with a uid.
fn stored(mut object: Value) -> Value {
    object["metadata"]["uid"] = json!("u");
    object
}

/// Without what the server keeps, and without maps and lists with nothing in them: whoever reads an object cannot tell them from none, and as with
/// upstream nobody owns an empty list.
fn content(object: &Value) -> Value {
    let mut object = object.clone();
    for own in ["managedFields", "uid"] {
        crate::meta::metadata_mut(&mut object).remove(own);
    }
    drop_empty(&mut object);
    object
}

fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(drop_empty);
            map.retain(|_, below| *below != json!({}) && *below != json!([]));
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

#[test]
fn applying_again_changes_nothing() {
    times(TRIES, |random| {
        let Some((ty, version, first, _)) = configurations(random) else { return };
        let live =
            stored(apply(&writer(ty, &version, "one", "t1"), &json!({}), &first, false).expect("nobody contradicts"));
        assert_eq!(content(&live), content(&first));
        let again = apply(&writer(ty, &version, "one", "t2"), &live, &first, false).expect("nobody contradicts");
        assert!(same_but_for_times(&live, &again), "{live} became {again}");
        // Another who states the same owns the same, and neither changes anything.
        let shared = apply(&writer(ty, &version, "two", "t3"), &live, &first, false).expect("the same is no conflict");
        assert_eq!(content(&shared), content(&first));
        let [one, two] = Managers::of(&shared).expect("readable").0.try_into().expect("two managers");
        assert_eq!(one.fields, two.fields);
    });
}

#[test]
fn what_its_only_owner_leaves_out_goes() {
    let mut tried = 0;
    for seed in 0..TRIES {
        tried += u64::from(configurations(&mut Random(Random(seed).next())).is_some());
    }
    assert!(tried > TRIES / 2, "{tried} of {TRIES} can be applied");
    times(TRIES, |random| {
        let Some((ty, version, first, second)) = configurations(random) else { return };
        let live =
            stored(apply(&writer(ty, &version, "one", "t1"), &json!({}), &first, false).expect("nobody contradicts"));
        let next = apply(&writer(ty, &version, "one", "t2"), &live, &second, false).expect("nobody contradicts");
        assert_eq!(content(&next), content(&second), "{ty:?} after {first}");
    });
}

#[test]
fn what_another_owns_stays() {
    times(TRIES, |random| {
        let Some((ty, version, first, second)) = configurations(random) else { return };
        let live =
            stored(apply(&writer(ty, &version, "one", "t1"), &json!({}), &first, false).expect("nobody contradicts"));
        let forced = apply(&writer(ty, &version, "two", "t2"), &live, &second, true).expect("by force");
        let nothing = json!({"apiVersion": version, "kind": first["kind"], "metadata": {"name": "n"}});
        let left = apply(&writer(ty, &version, "one", "t3"), &forced, &nothing, false)
            .expect("who gives up contradicts nobody");
        assert_eq!(content(&left), content(&second), "{ty:?} after {first}");
        let owners: Vec<_> =
            Managers::of(&left).expect("readable").0.into_iter().map(|e| (e.manager, e.operation)).collect();
        // Who states nothing but a name owns nothing.
        assert!(owners.iter().all(|owner| *owner == ("two".to_owned(), Operation::Apply)), "{owners:?}");
        let again = apply(&writer(ty, &version, "two", "t4"), &left, &second, false).expect("its own");
        assert_eq!(content(&again), content(&left));
    });
}

#[test]
fn conflicts_name_the_manager_and_its_field() {
    let mut conflicts = 0;
    for seed in 0..TRIES {
        let Some((ty, version, first, second)) = configurations(&mut Random(Random(seed).next())) else { continue };
        let live =
            stored(apply(&writer(ty, &version, "one", "t1"), &json!({}), &first, false).expect("nobody contradicts"));
        let owned = Managers::of(&live).expect("readable").0.remove(0).fields;
        match apply(&writer(ty, &version, "two", "t2"), &live, &second, false) {
            Ok(next) => {
                let changed = fields::compare(ty, &content(&live), &content(&next)).modified.intersection(&owned);
                assert!(changed.is_empty(), "seed {seed}: {:?} were changed without a conflict", changed.paths());
            }
            Err(error @ ApplyError::Conflicts(_)) => {
                conflicts += 1;
                let text = error.to_string();
                let ApplyError::Conflicts(list) = error else { unreachable!("matched above") };
                let paths = owned.paths();
                assert!(
                    list.iter().all(|c| c.manager == "\"one\"" && paths.contains(&c.field)),
                    "seed {seed}: {list:?}"
                );
                let all_named = list.iter().all(|c| text.contains(&c.field));
                assert!(all_named && text.contains("with \"one\":"), "seed {seed}: {text}");
            }
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    assert!(conflicts > 100, "only {conflicts} conflicts");
}
