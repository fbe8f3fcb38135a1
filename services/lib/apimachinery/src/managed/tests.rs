use super::*;
use crate::schema::builtin;
use serde_json::{Value, json};

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

fn writer<'a>(manager: &'a str, now: &'a str) -> Writer<'a> {
    Writer {
        ty: builtin().of("apps/v1", "Deployment").unwrap(),
        versions: &Alone,
        manager,
        api_version: "apps/v1",
        subresource: "",
        now,
        scope: Scope::Except(&["status"]),
    }
}

fn deployment(replicas: Option<i64>, containers: Value) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": containers}}}});
    if let Some(replicas) = replicas {
        object["spec"]["replicas"] = json!(replicas);
    }
    object
}

/// As stored: with a uid.
fn stored(mut object: Value) -> Value {
    object["metadata"]["uid"] = json!("u");
    object
}

fn owners(object: &Value) -> Vec<(String, Vec<String>)> {
    let managers = Managers::of(object).unwrap();
    let name = |e: &Entry| format!("{}/{:?}{}", e.manager, e.operation, e.subresource);
    managers.0.iter().map(|e| (name(e), e.fields.paths())).collect()
}

fn owner_of(object: &Value, path: &str) -> Vec<String> {
    owners(object).into_iter().filter(|(_, paths)| paths.iter().any(|p| p == path)).map(|(name, _)| name).collect()
}

#[test]
fn updates_are_followed() {
    let mut first = deployment(Some(1), json!([{"name": "c", "image": "i"}]));
    update(&writer("alice", "t1"), &json!({}), &mut first);
    assert_eq!(owner_of(&first, ".spec.replicas"), ["alice/Update"]);
    assert!(owner_of(&first, ".metadata.name").is_empty());
    let live = stored(first);
    let mut second = live.clone();
    second["spec"]["replicas"] = json!(2);
    second["status"] = json!({"replicas": 1});
    update(&writer("bob", "t2"), &live, &mut second);
    assert_eq!(
        owners(&second).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["alice/Update", "bob/Update"]
    );
    assert_eq!(owner_of(&second, ".spec.replicas"), ["bob/Update"]);
    // Nothing changed: nothing is written, not even a time.
    let mut same = second.clone();
    update(&writer("carol", "t3"), &second, &mut same);
    assert_eq!(same, second);
    // A client that does not know the field does not lose it; one that empties it ends the tracking.
    let mut bare = second.clone();
    meta_remove(&mut bare);
    update(&writer("bob", "t4"), &second, &mut bare);
    assert_eq!(bare["metadata"]["managedFields"], second["metadata"]["managedFields"]);
    let mut reset = second.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    update(&writer("bob", "t4"), &second, &mut reset);
    let mut later = reset.clone();
    later["spec"]["replicas"] = json!(9);
    update(&writer("bob", "t5"), &reset, &mut later);
    assert!(later["metadata"].get("managedFields").is_none());
}

fn meta_remove(object: &mut Value) {
    crate::meta::metadata_mut(object).remove("managedFields");
}

#[test]
fn many_updaters_are_folded() {
    let mut object = stored(deployment(Some(1), json!([{"name": "c"}])));
    update(&writer("m0", "t00"), &json!({}), &mut object);
    for i in 1..15 {
        let (mut next, manager, now) = (object.clone(), format!("m{i}"), format!("t{i:02}"));
        next["metadata"]["labels"][&manager] = json!("x");
        update(&writer(&manager, &now), &object, &mut next);
        object = next;
    }
    let owners = owners(&object);
    assert_eq!(owners.len(), 10);
    assert_eq!(owner_of(&object, ".metadata.labels.m1"), ["ancient-changes/Update"]);
    assert_eq!(owner_of(&object, ".metadata.labels.m14"), ["m14/Update"]);
}

#[test]
fn applying_creates_shares_and_gives_up() {
    let config = deployment(Some(3), json!([{"name": "c", "image": "i"}, {"name": "d"}]));
    let live = stored(apply(&writer("ci", "t1"), &json!({}), &config, false).unwrap());
    assert_eq!(
        live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"],
        json!({"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}, "k:{\"name\":\"d\"}": {".": {}, "f:name": {}}})
    );
    // The same again changes nothing but the time.
    let again = apply(&writer("ci", "t2"), &live, &config, false).unwrap();
    assert!(same_but_for_times(&live, &again) && again != live);
    // Another manager may state the same value, and a new field.
    let other = deployment(Some(3), json!([{"name": "c", "imagePullPolicy": "Always"}]));
    let shared = apply(&writer("hpa", "t3"), &live, &other, false).unwrap();
    assert_eq!(owner_of(&shared, ".spec.replicas"), ["ci/Apply", "hpa/Apply"]);
    // What one gives up stays while the other applies it; what nobody applies goes.
    let less = deployment(None, json!([{"name": "c"}]));
    let left = apply(&writer("ci", "t4"), &shared, &less, false).unwrap();
    assert_eq!(left["spec"]["replicas"], json!(3));
    assert_eq!(left["spec"]["template"]["spec"]["containers"], json!([{"name": "c", "imagePullPolicy": "Always"}]));
    assert_eq!(owner_of(&left, ".spec.replicas"), ["hpa/Apply"]);
}

#[test]
fn giving_up_a_label_keeps_those_that_others_wrote() {
    let config =
        |labels| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": labels}});
    let live = stored(apply(&writer("ci", "t1"), &json!({}), &config(json!({"a": "1"})), false).unwrap());
    let mut touched = live.clone();
    touched["metadata"]["labels"]["b"] = json!("2");
    update(&writer("bob", "t2"), &live, &mut touched);
    let without = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
    for config in [config(json!({})), without] {
        let left = apply(&writer("ci", "t3"), &touched, &config, false).unwrap();
        assert_eq!(left["metadata"]["labels"], json!({"b": "2"}));
        assert_eq!(left["metadata"]["name"], json!("d"));
    }
}

#[test]
fn an_empty_struct_does_not_lose_what_others_put_into_it() {
    let config =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"strategy": {}}});
    let mut live = stored(apply(&writer("ci", "t1"), &json!({}), &config, false).unwrap());
    live["spec"]["strategy"] = json!({"type": "Recreate"});
    let again = apply(&writer("ci", "t2"), &live, &config, false).unwrap();
    assert_eq!(again["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn giving_up_an_element_keeps_what_others_put_in_it() {
    let live = stored(
        apply(&writer("ci", "t1"), &json!({}), &deployment(None, json!([{"name": "c"}, {"name": "d"}])), false)
            .unwrap(),
    );
    let mut touched = live.clone();
    touched["spec"]["template"]["spec"]["containers"][1]["image"] = json!("i");
    update(&writer("bob", "t2"), &live, &mut touched);
    let left = apply(&writer("ci", "t3"), &touched, &deployment(None, json!([{"name": "c"}])), false).unwrap();
    assert_eq!(
        left["spec"]["template"]["spec"]["containers"],
        json!([{"name": "c"}]),
        "an updater does not hold an element"
    );
    let other = deployment(None, json!([{"name": "d", "image": "j"}]));
    let held = apply(&writer("ops", "t2"), &live, &other, false).unwrap();
    let left = apply(&writer("ci", "t3"), &held, &deployment(None, json!([{"name": "c"}])), false).unwrap();
    assert_eq!(left["spec"]["template"]["spec"]["containers"], json!([{"name": "c"}, {"name": "d", "image": "j"}]));
}

#[test]
fn conflicts_name_managers_and_fields() {
    let config = deployment(Some(3), json!([{"name": "c", "image": "i"}]));
    let live = stored(apply(&writer("ci", "t1"), &json!({}), &config, false).unwrap());
    let mut touched = live.clone();
    touched["spec"]["replicas"] = json!(5);
    let scaler = Writer { subresource: "scale", ..writer("kubectl", "t2") };
    update(&scaler, &live, &mut touched);
    let refused = apply(&writer("ci", "t3"), &touched, &config, false).unwrap_err();
    let text = "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas";
    assert_eq!(refused.to_string(), text);
    let forced = apply(&writer("ci", "t3"), &touched, &config, true).unwrap();
    assert_eq!(
        (&forced["spec"]["replicas"], owner_of(&forced, ".spec.replicas")),
        (&json!(3), vec!["ci/Apply".to_string()])
    );
    let other = deployment(Some(4), json!([{"name": "c", "image": "j"}]));
    let refused = apply(&writer("ops", "t3"), &live, &other, false).unwrap_err();
    let text = "Apply failed with 2 conflicts: conflicts with \"ci\":\n- .spec.replicas\n- .spec.template.spec.containers[name=\"c\"].image";
    assert_eq!(refused.to_string(), text);
}

#[test]
fn users_of_client_side_apply_may_go_on() {
    let config = deployment(Some(3), json!([{"name": "c", "image": "i"}]));
    let mut live = config.clone();
    crate::meta::set_annotation(&mut live, "kubectl.kubernetes.io/last-applied-configuration", &config.to_string());
    update(&writer("kubectl-client-side-apply", "t1"), &json!({}), &mut live);
    let live = stored(live);
    let next = deployment(Some(4), json!([{"name": "c", "image": "i"}]));
    let applied = apply(&writer("kubectl", "t2"), &live, &next, false).unwrap();
    assert_eq!(applied["spec"]["replicas"], json!(4));
    let noted: Value = serde_json::from_str(
        crate::meta::annotation(&applied, "kubectl.kubernetes.io/last-applied-configuration").unwrap(),
    )
    .unwrap();
    assert_eq!(noted, next);
}

#[test]
fn unmanaged_objects_have_a_past() {
    let live = stored(deployment(Some(1), json!([{"name": "c", "image": "i"}])));
    let refused = apply(&writer("ci", "t"), &live, &deployment(Some(2), json!([{"name": "c"}])), false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
}
