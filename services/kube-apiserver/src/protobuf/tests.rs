use super::*;
use apimachinery::schema::Shape;
use serde_json::json;

fn varint(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// A field of type bytes: texts and messages.
fn b(number: usize, content: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(content.len()), content.to_vec()].concat()
}

/// A number.
fn v(number: usize, n: usize) -> Vec<u8> {
    [varint(number << 3), varint(n)].concat()
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [b(1, api_version.as_bytes()), b(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), b(1, &meta), b(2, raw), b(3, b""), b(4, b"")].concat()
}

fn read(group: &str, kind: &str, raw: &[u8]) -> Result<Value, Error> {
    let api_version = if group.is_empty() { "v1".to_string() } else { format!("{group}/v1") };
    decode(&envelope(&api_version, kind, raw), builtin().kind(group, "v1", kind).expect("a kind"))
}

#[test]
fn a_deployment_with_everything_that_is_special() {
    let creation = b(8, b"");
    let metadata = [b(1, b"web"), b(2, b""), creation, v(7, 0), b(11, &[b(1, b"app"), b(2, b"web")].concat())].concat();
    let request = b(2, &[b(1, b"cpu"), b(2, &b(1, b"100m"))].concat());
    // containerPort 80; hostPort, not behind a pointer, is zero.
    let port = [v(2, 0), v(3, 80)].concat();
    let get = b(2, &[b(1, b"/"), b(2, &[v(1, 1), b(3, b"http")].concat())].concat());
    let probe = b(10, &[b(1, &get), v(2, 0)].concat());
    let container =
        [b(1, b"c"), b(2, b"img"), b(3, b"sh"), b(3, b"-c"), b(6, &port), b(8, &request), probe, v(16, 0)].concat();
    let volume = [b(1, b"tmp"), b(2, &b(2, &b(1, b"")))].concat();
    let spec = [b(1, &volume), b(2, &container), v(21, 0)].concat();
    let template = [b(1, b""), b(2, &spec)].concat();
    let selector = b(1, &[b(1, b"app"), b(2, b"web")].concat());
    let raw = [
        b(1, &metadata),
        b(2, &[v(1, 0), b(2, &selector), b(3, &template), b(4, b""), v(5, 0)].concat()),
        b(3, &v(1, 0)),
    ]
    .concat();
    let want = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            // replicas is a pointer: its zero was meant. minReadySeconds is not.
            "replicas": 0, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {}, "spec": {
                "automountServiceAccountToken": false,
                "containers": [{"name": "c", "image": "img", "command": ["sh", "-c"], "ports": [{"containerPort": 80}],
                    "resources": {"requests": {"cpu": "100m"}}, "livenessProbe": {"httpGet": {"path": "/", "port": "http"}}}],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            }},
        },
    });
    let mut got = read("apps", "Deployment", &raw).expect("decodes");
    // An empty metadata of a template may be there or not.
    got["spec"]["template"]["metadata"] = json!({});
    assert_eq!(got, want);
}

#[test]
fn a_secret_and_a_lease() {
    let data = b(2, &[b(1, b"k"), b(2, b"\x00\xff")].concat());
    assert_eq!(read("", "Secret", &data).map(|o| o["data"].clone()), Ok(json!({"k": "AP8="})));
    let renew = b(4, &[v(1, 5), v(2, 1_000_000)].concat());
    let lease = b(2, &renew);
    assert_eq!(
        read("coordination.k8s.io", "Lease", &lease).map(|o| o["spec"]["renewTime"].clone()),
        Ok(json!("1970-01-01T00:00:05.001000Z"))
    );
}

#[test]
fn delete_options_and_nonsense() {
    let raw = [v(1, 0), b(4, b"Foreground")].concat();
    let got = delete_options(&envelope("v1", "DeleteOptions", &raw)).expect("decodes");
    assert_eq!(
        got,
        json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Foreground"})
    );
    assert_eq!(delete_options(b"{}"), Err(Error::Magic));
    assert_eq!(delete_options(&envelope("v1", "DeleteOptions", &[0x0a, 0x05, 1])), Err(Error::Malformed));
}

/// A value of a shape, never a zero, which protobuf cannot tell from nothing.
fn sample(shape: Shape<'_>, depth: usize) -> Option<Value> {
    Some(match shape {
        Shape::String => json!(format!("s{depth}")),
        Shape::Bytes => json!("AP8="),
        Shape::Time => json!("2026-01-02T03:04:05Z"),
        Shape::MicroTime => json!("2026-01-02T03:04:05.000006Z"),
        Shape::Bool => json!(true),
        Shape::Int32 => json!(-7),
        Shape::Int64 => json!(1_i64 << 40),
        Shape::Double => json!(0.5),
        Shape::Quantity => json!("100m"),
        Shape::IntOrString if depth.is_multiple_of(2) => json!("50%"),
        Shape::IntOrString => json!(3),
        // A schema in a schema ends somewhere, too.
        Shape::Any(Some(ty)) if ty.name().ends_with("JSONSchemaPropsOrBool") => json!(depth.is_multiple_of(2)),
        Shape::Any(Some(ty)) if ty.name().ends_with("JSONSchemaPropsOrStringArray") => json!(["a", "b"]),
        Shape::Any(Some(ty)) if ty.name().ends_with("JSONSchemaPropsOrArray") => json!([{"type": "string"}]),
        Shape::Any(_) | Shape::Object(_) => json!({"free": [1, {"a": null}]}),
        Shape::List(element) => json!([sample(element.shape(), depth + 1)?]),
        Shape::Map(element) => json!({"k": sample(element.shape(), depth + 1)?}),
        // Types that contain themselves end somewhere.
        Shape::Struct(_) if depth > 12 => return None,
        Shape::Struct(ty) => {
            // On the wire an object's type stands outside of it, or goes without saying.
            let object = depth == 0 || ty.field("metadata").is_some();
            let own = |name: &str| object && matches!(name, "apiVersion" | "kind");
            let fields = ty.fields().filter(|f| !own(f.name()));
            let map: serde_json::Map<String, Value> =
                fields.filter_map(|f| Some((f.name().to_string(), sample(f.shape(), depth + 1)?))).collect();
            map.into()
        }
    })
}

#[test]
fn every_kind_survives_the_round_trip() {
    let mut kinds = 0;
    for row in crate::registry::table() {
        let Some(ty) = builtin().kind(row.group, row.version, row.kind) else { continue };
        let mut object = sample(ty.shape(), 0).expect("a sample");
        object["apiVersion"] = row.api_version().into();
        object["kind"] = row.kind.into();
        match super::object(&object) {
            Ok(bytes) => assert_eq!(decode(&bytes, ty).expect("decodes"), object, "{}", row.kind),
            Err(error) => panic!("{}: {error}", row.kind),
        }
        kinds += 1;
    }
    assert!(kinds > 40, "{kinds}");
}

#[test]
fn lists_and_watch_frames() {
    let ty = builtin().kind("", "v1", "ConfigMap").expect("a kind");
    let item = message(&json!({"metadata": {"name": "a"}, "data": {"k": "v"}}), ty).expect("encodes");
    let bytes = list("v1", "ConfigMapList", &json!({"resourceVersion": "5"}), &[&item, &item]).expect("encodes");
    let got = decode(&bytes, builtin().kind("", "v1", "ConfigMapList").expect("a kind")).expect("decodes");
    let one = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let want =
        json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "5"}, "items": [one, one]});
    assert_eq!(got, want);
    let frame = watch_frame("ADDED", &super::envelope("v1", "ConfigMap", &[&item]));
    assert_eq!(frame[..4], u32::try_from(frame.len() - 4).expect("small").to_be_bytes());
    assert_eq!(&frame[4..11], &[0x0a, 5, b'A', b'D', b'D', b'E', b'D']);
}

#[test]
fn no_time_has_its_place_in_a_map() {
    let budget =
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "status": {"disruptedPods": {"p": null}}});
    let bytes = super::object(&budget).expect("encodes");
    let ty = builtin().kind("policy", "v1", "PodDisruptionBudget").expect("a kind");
    assert_eq!(decode(&bytes, ty), Ok(budget));
}

#[test]
fn a_schema_or_something_else() {
    let schema = json!({"type": "object", "$ref": "r", "maximum": 0.5, "default": {"a": [null]}, "enum": [1, "x", null],
        "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-validations": [{"rule": "true", "message": "m"}],
        "items": {"type": "string"}, "additionalItems": {"minLength": 0}, "additionalProperties": false,
        "dependencies": {"a": ["b", "c"], "d": {"required": ["e"]}},
        "properties": {"p": {"items": [{"type": "string"}, {"type": "integer"}], "additionalProperties": true}}});
    let version = json!({"name": "v1", "served": true, "storage": false, "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".a", "statusReplicasPath": ".b"}}});
    let wanted = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "spec": {"group": "g", "scope": "Cluster", "names": {"plural": "p", "kind": "K"}, "versions": [version]}});
    let bytes = super::object(&wanted).expect("encodes");
    let ty = builtin().kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").expect("a kind");
    assert_eq!(decode(&bytes, ty), Ok(wanted));
    // `additionalProperties` with a schema also says that it allows something, as Go writes it.
    let allowed = b(30, &[v(1, 1), b(2, &b(5, b"string"))].concat());
    let raw = b(2, &b(7, &b(4, &b(1, &allowed))));
    let got = read("apiextensions.k8s.io", "CustomResourceDefinition", &raw).expect("decodes");
    assert_eq!(
        got["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        json!({"additionalProperties": {"type": "string"}})
    );
}

#[test]
fn schemas_in_schemas_end_somewhere() {
    let deep = |levels| (0..levels).fold(b(5, b"string"), |inner, _| b(28, &inner));
    let crd = |levels| b(2, &b(7, &b(4, &b(1, &deep(levels)))));
    let kind = |levels| read("apiextensions.k8s.io", "CustomResourceDefinition", &crd(levels));
    assert!(kind(100).is_ok());
    assert_eq!(kind(200), Err(Error::Depth));
    assert_eq!(kind(5_000), Err(Error::Depth));
}
