use super::*;
use crate::schema::builtin;
use serde_json::json;

fn deployment(text: &str) -> Result<Decoded, DecodeError> {
    decode(text.as_bytes(), builtin().of("apps/v1", "Deployment").unwrap())
}

#[test]
fn complaints_come_in_the_order_of_the_text() {
    let text = r#"{"spec": {"unknown": 1, "dup": 1, "dup": 2, "paused": true, "paused": false, "template": {"spec": {"containers": [
        {"name": "c", "nested": {"a": 1, "a": 2}, "imagePullPolicy": "Always", "imagePullPolicy": "Never"}]}}},
        "metadata": {"labels": {"a": "1", "a": "2"}, "Name": "x"}, "spec": {"replicas": null, "replicas": 1}}"#;
    let decoded = deployment(text).unwrap();
    assert_eq!(
        decoded.complaints,
        [
            r#"unknown field "spec.unknown""#,
            r#"unknown field "spec.dup""#,
            r#"duplicate field "spec.paused""#,
            r#"unknown field "spec.template.spec.containers[0].nested""#,
            r#"duplicate field "spec.template.spec.containers[0].imagePullPolicy""#,
            r#"duplicate field "metadata.labels.a""#,
            r#"unknown field "metadata.Name""#,
            r#"duplicate field "spec""#,
            r#"duplicate field "spec.replicas""#,
        ]
    );
    assert_eq!(decoded.object, json!({"metadata": {"labels": {"a": "2"}}, "spec": {"replicas": 1}}));
    assert!(
        decoded
            .strict_error()
            .unwrap()
            .starts_with(r#"strict decoding error: unknown field "spec.unknown", unknown field"#)
    );
}

#[test]
fn wrong_types_are_named_as_go_names_them() {
    let cases = [
        (
            r#"{"spec": {"replicas": "1"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec": {"replicas": 1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec": {"replicas": 3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"metadata": {"labels": {"a": 1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"spec": []}"#,
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            r#"{"spec": {"template": {"spec": {"containers": [{"env": [{"name": "a", "value": true}]}]}}}}"#,
            "json: cannot unmarshal bool into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            r#"{"spec": {"template": {"spec": {"containers": {}}}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        ("[]", "json: cannot unmarshal array into Go value of type v1.Deployment"),
    ];
    for (text, want) in cases {
        assert_eq!(deployment(text), Err(DecodeError::Value(want.to_string())), "{text}");
        let value: Value = serde_json::from_str(text).unwrap();
        let ty = builtin().of("apps/v1", "Deployment").unwrap();
        assert_eq!(decode_value(value, ty), Err(DecodeError::Value(want.to_string())), "{text}");
    }
    for text in ["", "{", r#"{"spec": {}} x"#, r#"{"spec": tru}"#] {
        assert!(matches!(deployment(text), Err(DecodeError::Syntax(_))), "{text}");
    }
}

#[test]
fn values_become_canonical() {
    let on = |text: &str, api_version: &str, kind: &str| {
        decode(text.as_bytes(), builtin().of(api_version, kind).unwrap()).map(|d| d.object)
    };
    let pod = r#"{"spec": {"containers": [null, {"resources": {"limits": {"cpu": 0.5, "memory": "1024Ki", "x": 2}}, "env": null,
        "livenessProbe": {"httpGet": {"port": "http"}}, "readinessProbe": {"httpGet": {"port": 80}}}], "nodeSelector": {"a": null}},
        "metadata": {"creationTimestamp": "2026-01-02T03:04:05.9+01:00", "deletionTimestamp": null}}"#;
    assert_eq!(
        on(pod, "v1", "Pod").unwrap(),
        json!({"spec": {"containers": [{}, {"resources": {"limits": {"cpu": "500m", "memory": "1Mi", "x": "2"}},
            "livenessProbe": {"httpGet": {"port": "http"}}, "readinessProbe": {"httpGet": {"port": 80}}}], "nodeSelector": {"a": ""}},
            "metadata": {"creationTimestamp": "2026-01-02T02:04:05Z"}})
    );
    assert_eq!(on(r#"{"data": {"a": "YWJj\n"}}"#, "v1", "Secret").unwrap(), json!({"data": {"a": "YWJj"}}));
    assert_eq!(
        on(r#"{"data": {"a": "YW$j"}}"#, "v1", "Secret"),
        Err(DecodeError::Value("illegal base64 data at input byte 2".into()))
    );
    let lease =
        on(r#"{"spec": {"renewTime": "2026-01-02T03:04:05.123456Z"}}"#, "coordination.k8s.io/v1", "Lease").unwrap();
    assert_eq!(lease, json!({"spec": {"renewTime": "2026-01-02T03:04:05.123456Z"}}));
    let bad = on(r#"{"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}}"#, "v1", "Pod");
    assert!(bad.is_err_and(|e| e.to_string().starts_with("quantities must match the regular expression")));
    // what the schema leaves open is kept as it is
    let revision = r#"{"data": {"a": null, "b": [1, {"c": 1.0}]}, "revision": 1}"#;
    assert_eq!(
        on(revision, "apps/v1", "ControllerRevision").unwrap(),
        json!({"data": {"a": null, "b": [1, {"c": 1.0}]}, "revision": 1})
    );
}

#[test]
fn untyped_text_keeps_everything_and_notices_duplicates() {
    let decoded = parse(br#"{"a": 1, "a": null, "b": [{"c": 1, "c": 2}]}"#).unwrap();
    assert_eq!(decoded.object, json!({"a": null, "b": [{"c": 2}]}));
    assert_eq!(decoded.complaints, [r#"duplicate field "a""#, r#"duplicate field "b[0].c""#]);
    assert_eq!(
        type_meta(br#"{"kind": "Pod", "apiVersion": "v1", "spec": {}}"#).unwrap(),
        TypeMeta { api_version: "v1".into(), kind: "Pod".into() }
    );
    assert_eq!(type_meta(br#"{"kind": null}"#).unwrap(), TypeMeta::default());
    assert!(type_meta(b"{").is_err());
}
