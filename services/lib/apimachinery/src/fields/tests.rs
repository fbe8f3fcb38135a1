use super::*;
use crate::schema::{TypeRef, builtin};
use serde_json::{Value, json};

fn ty(api_version: &str, kind: &str) -> TypeRef<'static> {
    builtin().of(api_version, kind).unwrap()
}

fn set(value: Value) -> FieldSet {
    FieldSet::parse(&value).unwrap()
}

#[test]
fn sets_keep_their_form_and_obey_their_algebra() {
    let a = json!({"f:a": {}, "f:b": {".": {}, "f:c": {}}, "f:l": {"k:{\"name\":\"x\"}": {"f:v": {}}}});
    assert_eq!(set(a.clone()).to_value(), a);
    let b = set(json!({"f:b": {"f:c": {}}, "f:z": {}}));
    assert_eq!(set(a.clone()).intersection(&b).to_value(), json!({"f:b": {"f:c": {}}}));
    assert_eq!(
        set(a.clone()).difference(&b).to_value(),
        json!({"f:a": {}, "f:b": {}, "f:l": {"k:{\"name\":\"x\"}": {"f:v": {}}}})
    );
    assert_eq!(set(json!({"f:b": {}})).union(&b).to_value(), json!({"f:b": {".": {}, "f:c": {}}, "f:z": {}}));
    assert_eq!(set(a).paths(), [".a", ".b", ".b.c", ".l[name=\"x\"].v"]);
    assert!(set(json!({})).is_empty());
    for bad in [json!([]), json!({"x:a": {}}), json!({"f:a": 1})] {
        assert!(FieldSet::parse(&bad).is_none(), "{bad}");
    }
}

#[test]
fn fields_of_a_pod() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"labels": {"app": "x"}, "finalizers": ["a/b"]},
        "spec": {"volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {"a": "b"}, "containers": [
            {"name": "c", "args": ["x"], "ports": [{"containerPort": 80}], "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "p"}}}]}]},
    });
    let want = json!({
        "f:apiVersion": {}, "f:kind": {},
        "f:metadata": {"f:labels": {"f:app": {}}, "f:finalizers": {"v:\"a/b\"": {}}},
        "f:spec": {
            "f:volumes": {"k:{\"name\":\"v\"}": {".": {}, "f:name": {}, "f:emptyDir": {}}},
            "f:nodeSelector": {},
            "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:args": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                "f:env": {"k:{\"name\":\"E\"}": {".": {}, "f:name": {}, "f:valueFrom": {"f:fieldRef": {}}}}}},
        },
    });
    assert_eq!(of(ty("v1", "Pod"), &pod).unwrap().to_value(), want);
}

#[test]
fn lists_must_tell_their_elements_apart() {
    let error =
        |containers: Value| of(ty("v1", "Pod"), &json!({"spec": {"containers": containers}})).unwrap_err().to_string();
    assert_eq!(
        error(json!([{"image": "i"}])),
        ".spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] \
         (and doesn't have default values for any key fields)"
    );
    assert_eq!(
        error(json!([{"name": "a"}, {"name": "a"}])),
        ".spec.containers: duplicate entries for key [name=\"a\"]"
    );
    let twice = json!({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}});
    assert!(!observed(ty("v1", "Pod"), &twice).is_empty());
}

#[test]
fn comparisons() {
    let deployment = ty("apps/v1", "Deployment");
    let new = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]}}}});
    let created = compare(deployment, &json!({}), &new);
    assert_eq!(
        created.added.to_value(),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}, "f:resources": {}}}}}},
        })
    );
    let mut changed = new.clone();
    changed["spec"]["replicas"] = json!(2);
    changed["spec"]["template"]["spec"]["containers"] =
        json!([{"name": "d"}, {"name": "c", "image": "j", "resources": {}}]);
    changed["metadata"] = json!({});
    let changes = compare(deployment, &new, &changed);
    assert_eq!(changes.modified.paths(), [".spec.replicas", ".spec.template.spec.containers[name=\"c\"].image"]);
    assert_eq!(
        changes.added.paths(),
        [".spec.template.spec.containers[name=\"d\"]", ".spec.template.spec.containers[name=\"d\"].name"]
    );
    assert_eq!(changes.removed.paths(), [".metadata.labels", ".metadata.labels.a"]);
    assert!(compare(deployment, &new, &new).is_empty());
}

#[test]
fn merging() {
    let pod = |containers: Value| json!({"spec": {"containers": containers}});
    let names = |object: &Value| -> String {
        object["spec"]["containers"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect()
    };
    let list = |names: &str| pod(names.chars().map(|c| json!({"name": c.to_string()})).collect());
    for (live, config, want) in [
        ("abs", "xs", "abxs"),
        ("12a", "21", "2a1"),
        ("", "ba", "ba"),
        ("ab", "", "ab"),
        ("abc", "cxa", "bcxa"),
        ("ab", "ba", "ba"),
    ] {
        assert_eq!(names(&merge(ty("v1", "Pod"), &list(live), &list(config))), want, "{live} {config}");
    }
    let live = pod(json!([{"name": "c", "image": "i", "args": ["a", "b"], "env": [{"name": "E", "value": "1"}]}]));
    let config = pod(json!([{"name": "c", "args": ["z"], "env": [{"name": "F", "value": "2"}]}]));
    assert_eq!(
        merge(ty("v1", "Pod"), &live, &config),
        pod(
            json!([{"name": "c", "image": "i", "args": ["z"], "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]}])
        )
    );
}

#[test]
fn removing() {
    let object = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d"}]}});
    let gone = set(json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:containers": {
        "k:{\"name\":\"d\"}": {}, "k:{\"name\":\"c\"}": {"f:image": {}}}}}));
    assert_eq!(remove(ty("v1", "Pod"), &object, &gone), json!({"spec": {"containers": [{"name": "c"}]}}));
    let named = named_members(
        ty("v1", "Pod"),
        &set(json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {"f:image": {}}}}})),
    );
    assert_eq!(
        named.to_value(),
        json!({"f:spec": {".": {}, "f:containers": {".": {}, "k:{\"name\":\"c\"}": {"f:image": {}}}}})
    );
}
