use super::*;
use crate::schema::builtin;
use serde_json::json;

fn on_pod_spec(object: Value, patch: Value) -> Result<Value, PatchError> {
    let pod = builtin().of("v1", "Pod").unwrap();
    strategic(pod, json!({"spec": object}), json!({"spec": patch})).map(|mut pod| pod["spec"].take())
}

#[test]
fn maps_and_scalars() {
    let cases = [
        (
            json!({"nodeName": "a"}),
            json!({"nodeName": "b", "hostNetwork": true}),
            json!({"nodeName": "b", "hostNetwork": true}),
        ),
        (json!({"nodeName": "a"}), json!({"nodeName": null, "hostname": null}), json!({})),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"b": "2", "a": null}}),
            json!({"nodeSelector": {"b": "2"}}),
        ),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": "replace", "b": "2"}}),
            json!({"nodeSelector": {"b": "2"}}),
        ),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": "delete"}}),
            json!({"nodeSelector": {}}),
        ),
        (json!({}), json!({"nodeSelector": {"$patch": "delete"}}), json!({})),
        (
            json!({}),
            json!({"securityContext": {"runAsUser": null, "$retainKeys": ["fsGroup"], "fsGroup": 1}}),
            json!({"securityContext": {"fsGroup": 1}}),
        ),
        (
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "b"}]}),
            json!({"tolerations": [{"key": "b"}]}),
        ),
        (json!({"nodeSelector": []}), json!({"nodeSelector": {"a": "1"}}), json!({"nodeSelector": {"a": "1"}})),
    ];
    for (object, patch, want) in cases {
        assert_eq!(on_pod_spec(object, patch.clone()), Ok(want), "{patch}");
    }
}

#[test]
fn lists_merge_by_key() {
    let two = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]});
    let cases = [
        (json!([{"name": "b", "image": "3"}]), json!([{"name": "a", "image": "1"}, {"name": "b", "image": "3"}])),
        (
            json!([{"name": "c", "env": null}]),
            json!([{"name": "c"}, {"name": "a", "image": "1"}, {"name": "b", "image": "2"}]),
        ),
        (
            json!([{"name": "b", "image": "3"}, {"name": "a"}]),
            json!([{"name": "b", "image": "3"}, {"name": "a", "image": "1"}]),
        ),
        (json!([{"name": "a", "$patch": "delete"}]), json!([{"name": "b", "image": "2"}])),
        (json!([{"name": "c"}, {"$patch": "replace"}]), json!([{"name": "c"}])),
        (json!([{"name": "a", "image": null}]), json!([{"name": "a"}, {"name": "b", "image": "2"}])),
        (json!([]), two["containers"].clone()),
    ];
    for (patch, want) in cases {
        assert_eq!(
            on_pod_spec(two.clone(), json!({"containers": patch.clone()})),
            Ok(json!({"containers": want})),
            "{patch}"
        );
    }
    // nested: ports by containerPort, and a new list takes the patch as it is
    let patch = json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}]}]});
    let once = on_pod_spec(two, patch).unwrap();
    let patch =
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]}]});
    assert_eq!(
        on_pod_spec(once, patch).unwrap()["containers"][0]["ports"],
        json!([{"containerPort": 80, "name": "web"}, {"containerPort": 81}])
    );
}

#[test]
fn order_and_retained_keys() {
    let volumes = json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}, {"name": "c", "emptyDir": {}}]});
    let patch = json!({"$setElementOrder/volumes": [{"name": "c"}, {"name": "a"}], "volumes": [{"name": "a", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]});
    assert_eq!(
        on_pod_spec(volumes.clone(), patch),
        Ok(
            json!({"volumes": [{"name": "b", "emptyDir": {}}, {"name": "c", "emptyDir": {}}, {"name": "a", "hostPath": {"path": "/"}}]})
        )
    );
    let patch = json!({"$setElementOrder/volumes": [{"name": "c"}, {"name": "b"}, {"name": "a"}]});
    let names = |spec: Value| {
        spec["volumes"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(on_pod_spec(volumes.clone(), patch).map(names), Ok(vec!["c".into(), "b".into(), "a".into()]));
    let patch = json!({"$setElementOrder/volumes": [{"name": "a"}], "volumes": [{"name": "z"}]});
    assert!(on_pod_spec(volumes.clone(), patch).is_err());
    let patch = json!({"$setElementOrder/volumes": [{"name": "x"}], "volumes": [{"name": "x", "emptyDir": {}}]});
    assert_eq!(on_pod_spec(json!({}), patch), Ok(json!({"volumes": [{"name": "x", "emptyDir": {}}]})));
    let patch = json!({"volumes": [{"name": "a", "$retainKeys": ["name"], "hostPath": {}}]});
    assert_eq!(on_pod_spec(volumes, patch), Err(PatchError::Malformed("invalid patch format of retainKeys".into())));
}

#[test]
fn lists_of_scalars() {
    let pod = builtin().of("v1", "Pod").unwrap();
    let on = |old: Value, patch: Value| {
        strategic(pod, json!({"metadata": {"finalizers": old}}), json!({"metadata": patch}))
            .map(|mut p| p["metadata"]["finalizers"].take())
    };
    assert_eq!(on(json!(["a", "b"]), json!({"finalizers": ["c", "b"]})), Ok(json!(["c", "a", "b"])));
    assert_eq!(on(json!(["a", "b"]), json!({"$deleteFromPrimitiveList/finalizers": ["a", "z"]})), Ok(json!(["b"])));
    assert_eq!(
        on(
            json!(["a", "b"]),
            json!({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]})
        ),
        Ok(json!(["c", "b"]))
    );
    assert_eq!(on(json!(["a"]), json!({"finalizers": null})), Ok(json!(null)));
    assert_eq!(
        on(json!(["a"]), json!({"$deleteFromPrimitiveList/finalizers": "a"})),
        Err(PatchError::Malformed("invalid patch format of primitive list".into()))
    );
}

#[test]
fn refused() {
    let one = json!({"containers": [{"name": "a"}]});
    for patch in [
        json!({"containers": [{"image": "x"}]}),
        json!({"containers": [{"name": "a", "$patch": "merge"}]}),
        json!({"containers": [{"name": "a", "$patch": "x"}]}),
        json!({"$patch": "merge"}),
        json!({"containers": ["a"]}),
    ] {
        assert!(matches!(on_pod_spec(one.clone(), patch.clone()), Err(PatchError::Meaningless(_))), "{patch}");
    }
    let node = builtin().of("v1", "Node").unwrap();
    // extended resources, as tests patch them into a node's status
    let patched = strategic(
        node,
        json!({"status": {"capacity": {"cpu": "1"}}}),
        json!({"status": {"capacity": {"example.com/x": "5"}}}),
    );
    assert_eq!(patched, Ok(json!({"status": {"capacity": {"cpu": "1", "example.com/x": "5"}}})));
    let conditions = strategic(
        node,
        json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "X", "status": "True"}]}}),
        json!({"status": {"$setElementOrder/conditions": [{"type": "Ready"}, {"type": "X"}], "conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    assert_eq!(
        conditions.unwrap()["status"]["conditions"],
        json!([{"type": "Ready", "status": "True"}, {"type": "X", "status": "True"}])
    );
}
