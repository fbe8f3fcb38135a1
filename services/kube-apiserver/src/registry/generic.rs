//! What happens to every object whatever its kind, before its strategy has its say. Pure.

use super::Context;
use crate::errors::ApiError;
use apimachinery::{meta, names};
use serde_json::{Map, Value, json};

/// How many random characters a generated name ends in.
const SUFFIX: usize = 5;
/// The longest prefix that leaves room for them in a DNS label.
const PREFIX_MAX: usize = names::DNS_LABEL_MAX - SUFFIX;

/// A name from a generateName prefix.
pub fn generate_name(prefix: &str) -> String {
    use rand::Rng;
    // No vowels and no digits that look like letters: no words come out.
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    let cut = (0..=prefix.len().min(PREFIX_MAX)).rev().find(|i| prefix.is_char_boundary(*i)).unwrap_or(0);
    let mut name = prefix[..cut].to_string();
    name.extend((0..SUFFIX).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])));
    name
}

/// Sets what the server decides about a new object's metadata. The namespace of the path wins over an empty one in the object.
pub fn prepare_for_create(object: &mut Value, namespace: &str, uid: &str, now: &str) -> Result<(), ApiError> {
    let generated = (meta::name(object).is_empty() && !meta::generate_name(object).is_empty())
        .then(|| generate_name(meta::generate_name(object)));
    let own = meta::namespace(object).to_string();
    if !own.is_empty() && own != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !meta::resource_version(object).is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let metadata = meta::metadata_mut(object);
    if let Some(name) = generated {
        metadata.insert("name".into(), name.into());
    }
    if !namespace.is_empty() {
        metadata.insert("namespace".into(), namespace.into());
    }
    for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), now.into());
    drop_empty(metadata);
    Ok(())
}

/// An owner that is named twice is named once, and the client is told.
pub fn dedup_owners(cx: &Context<'_>, object: &mut Value) {
    let Some(owners) = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) else { return };
    let mut twice = Vec::new();
    let mut once: Vec<Value> = Vec::new();
    for owner in std::mem::take(owners) {
        if once.contains(&owner) {
            twice.push(owner["uid"].as_str().unwrap_or_default().to_owned());
        } else {
            once.push(owner);
        }
    }
    *owners = once;
    if !twice.is_empty() {
        cx.warn(format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
             reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        ));
    }
}

/// Keeps what only the server may change about an existing object's metadata.
pub fn keep_metadata(new: &mut Value, old: &Value) {
    let metadata = meta::metadata_mut(new);
    let fixed = [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "name",
        "namespace",
        "generateName",
        "resourceVersion",
    ];
    for field in fixed {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    metadata.remove("selfLink");
    drop_empty(metadata);
}

/// Empty maps and lists in metadata are the same as none, and nulls mean absent.
fn drop_empty(metadata: &mut Map<String, Value>) {
    metadata.retain(|_, value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    });
}

/// The generic update: a main update keeps the status, a status update keeps everything but the status, and the generation counts changes
/// of anything that is neither metadata nor status, for kinds that have a generation.
pub fn prepare_for_update(sub: Option<&str>, new: &mut Value, old: &Value) {
    match sub {
        None => {
            restore(new, old, "status");
            bump_generation(new, old);
        }
        Some("status") => keep_all_but_status(new, old),
        Some(_) => {}
    }
}

/// Takes a top-level field from the old object.
pub fn restore(new: &mut Value, old: &Value, field: &str) {
    if let Some(map) = new.as_object_mut() {
        match old.get(field) {
            Some(value) => map.insert(field.into(), value.clone()),
            None => map.remove(field),
        };
    }
}

/// A status update may also change labels, annotations and finalizers of most kinds, as upstream lets it; nothing else.
pub fn keep_all_but_status(new: &mut Value, old: &Value) {
    let fields: Vec<String> =
        new.as_object().into_iter().chain(old.as_object()).flat_map(|m| m.keys().cloned()).collect();
    for field in fields.iter().filter(|f| !matches!(f.as_str(), "status" | "metadata")) {
        restore(new, old, field);
    }
    if let Some(owners) = new.pointer_mut("/metadata/ownerReferences") {
        *owners = old["metadata"]["ownerReferences"].clone();
    }
    let metadata = meta::metadata_mut(new);
    drop_empty(metadata);
}

/// Raises metadata.generation if the desired state changed.
pub fn bump_generation(new: &mut Value, old: &Value) {
    let generation = meta::generation(old);
    if generation == 0 || !desired_differs(new, old) {
        return;
    }
    meta::metadata_mut(new).insert("generation".into(), json!(generation + 1));
}

/// A namespace being deleted says so in its phase, which is what stops new objects from being made in it.
pub fn mark_deleted(object: &mut Value) {
    if meta::kind(object) == "Namespace" && meta::api_version(object) == "v1" {
        meta::child_mut(object, "status").insert("phase".into(), "Terminating".into());
    }
}

fn desired_differs(new: &Value, old: &Value) -> bool {
    let fields = new.as_object().into_iter().chain(old.as_object()).flat_map(|m| m.keys());
    fields
        .filter(|f| !matches!(f.as_str(), "status" | "metadata" | "apiVersion" | "kind"))
        .any(|f| new.get(f) != old.get(f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let name = generate_name(&"a".repeat(80));
        assert_eq!(name.len(), 63);
        assert!(generate_name("web-").starts_with("web-") && generate_name("web-").len() == 9);
    }

    #[test]
    fn updates_keep_the_other_half() {
        let old = json!({"metadata": {"name": "a", "generation": 1}, "spec": {"x": 1}, "status": {"s": 1}});
        let mut new = json!({"metadata": {"name": "a", "generation": 1}, "spec": {"x": 2}, "status": {"s": 2}});
        prepare_for_update(None, &mut new, &old);
        assert_eq!(new, json!({"metadata": {"name": "a", "generation": 2}, "spec": {"x": 2}, "status": {"s": 1}}));
        let mut new = json!({"metadata": {"name": "a", "generation": 1, "labels": {}}, "spec": {"x": 2}, "status": {"s": 2}, "data": 1});
        prepare_for_update(Some("status"), &mut new, &old);
        assert_eq!(new, json!({"metadata": {"name": "a", "generation": 1}, "spec": {"x": 1}, "status": {"s": 2}}));
        let mut same = old.clone();
        prepare_for_update(None, &mut same, &old);
        assert_eq!(same, old);
    }

    #[test]
    fn creation_ignores_what_clients_may_not_set() {
        let mut object = json!({"metadata": {"generateName": "p-", "deletionGracePeriodSeconds": 5, "uid": "x", "labels": {}, "creationTimestamp": null}});
        prepare_for_create(&mut object, "ns", "u", "now").expect("valid");
        let metadata = object["metadata"].as_object().expect("map");
        assert_eq!(
            metadata.keys().collect::<Vec<_>>(),
            ["creationTimestamp", "generateName", "name", "namespace", "uid"]
        );
        assert_eq!(metadata["uid"], "u");
        let mut wrong = json!({"metadata": {"name": "a", "namespace": "other"}});
        assert!(prepare_for_create(&mut wrong, "ns", "u", "now").is_err());
    }
}
