//! The parsers of what clients send, fed with what no client would send: from a fixed seed, so that a failure comes again. None may panic, take long or
//! make much of little; what they answer is theirs. A stack that overflows would end the test itself.

use std::time::{Duration, Instant};

use apimachinery::patch;
use apimachinery::quantity::Quantity;
use apimachinery::schema::{TypeRef, builtin};
use apimachinery::selector::{FieldSelector, LabelSelector};
use apimachinery::{strict, time};
use serde_json::{Value, json};

use crate::protobuf;

/// The same mutants that are sent to a server (`cargo verify`).
#[path = "../../../../tests/src/random.rs"]
mod random;
use random::Random;

const MUTANTS: usize = 20_000;
/// How long one input may take, on a busy machine.
const LONGEST: Duration = Duration::from_secs(2);
/// How many values a parser may make of one byte.
const GROWTH: usize = 10;

/// Every parser, given the same bytes; how many values came out.
fn parsed(bytes: &[u8], ty: TypeRef<'_>) -> usize {
    let text = String::from_utf8_lossy(bytes);
    let mut trees = Vec::new();
    trees.extend(strict::decode(bytes, ty).ok().map(|d| d.object));
    trees.extend(strict::parse(bytes).ok().map(|d| d.object));
    trees.extend(super::yaml::parse(bytes).ok().map(|(tree, _)| tree));
    trees.extend(protobuf::decode(bytes, ty).ok());
    trees.extend(protobuf::delete_options(bytes).ok());
    // What is written must be readable, whatever it was made of.
    for tree in &trees {
        let _ = protobuf::message(tree, ty).map(|raw| protobuf::decode(&protobuf::envelope("v1", "Pod", &[&raw]), ty));
    }
    let _ = (LabelSelector::parse(&text).map(|s| s.matches(None)), FieldSelector::parse(&text).map(|s| s.is_empty()));
    let _ = (Quantity::parse(&text).map(|q| q.to_string()), time::parse_rfc3339(&text));
    trees.iter().map(values).max().unwrap_or(0)
}

/// A patch of every kind by the same tree.
fn patched(object: &Value, body: &Value, ty: TypeRef<'_>) -> usize {
    let results = [
        patch::json(object.clone(), body).ok(),
        patch::merge(object.clone(), body).ok(),
        patch::strategic(ty, object.clone(), body.clone()).ok(),
    ];

    results.iter().flatten().map(values).max().unwrap_or(0)
}

fn values(tree: &Value) -> usize {
    1 + match tree {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(map) => map.values().map(values).sum(),
        _ => 0,
    }
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["x.y/z"]},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "E", "value": "1"}],
            "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}}}], "tolerations": [{"operator": "Exists"}]}})
}

fn seeds() -> Vec<Vec<u8>> {
    let binary = protobuf::object(&pod()).expect("encodes");
    let texts = [
        pod().to_string(),
        "apiVersion: v1\nkind: Pod\nmetadata:\n  labels: {a: &x b, c: *x}\nspec:\n- |\n  text\n- !!binary aGk=\n<<: *x\n".to_owned(),
        r#"[{"op":"test","path":"/metadata/labels/a","value":"b"},{"op":"move","from":"/spec","path":"/metadata/-"},{"op":"copy","from":"","path":"/x"}]"#.to_owned(),
        r#"{"metadata":{"labels":{"$patch":"replace","c":"d"},"$deleteFromPrimitiveList/finalizers":["x.y/z"]},"spec":{"$setElementOrder/containers":[{"name":"c"}],"containers":[{"name":"c","$patch":"delete"}],"$retainKeys":["containers"]}}"#.to_owned(),
        "a in (b,c),d!=e,!f,g>1".to_owned(),
        "metadata.name=seed,metadata.namespace!=x\\,y".to_owned(),
        "-1.5e3Ki".to_owned(),
        "2026-01-02T03:04:05.000006Z".to_owned(),
    ];
    texts.into_iter().map(String::into_bytes).chain([binary]).collect()
}

#[test]
fn mutants_are_answered() {
    let ty = builtin().kind("", "v1", "Pod").expect("a kind");
    let (seeds, mut random) = (seeds(), Random(0x5eed));
    for _ in 0..MUTANTS {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        random.mutate(&mut bytes);
        let begun = Instant::now();
        let most = parsed(&bytes, ty).max(match strict::parse(&bytes) {
            Ok(body) => patched(&pod(), &body.object, ty).saturating_sub(values(&pod()) * 8),
            Err(_) => 0,
        });
        let what = String::from_utf8_lossy(&bytes);
        assert!(begun.elapsed() < LONGEST, "{:?} for {what}", begun.elapsed());
        assert!(most <= GROWTH * bytes.len() + 10, "{most} values of {} bytes: {what}", bytes.len());
    }
}

#[test]
fn classics_are_refused_or_stay_small() {
    let ty = builtin().kind("", "v1", "Pod").expect("a kind");
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n)).into_bytes();
    let nested = |bytes: Vec<u8>| {
        (0..2000).fold(bytes, |inner, _| {
            let mut out = protobuf::wire::Writer::default();
            out.bytes(2, &inner);
            out.into_vec()
        })
    };
    let inputs = [
        deep("[", "]", 100_000),
        deep("{\"a\":", "}", 100_000),
        deep("{\"metadata\":", "}", 100_000),
        deep("- ", "", 50_000),
        deep("? ", "", 50_000),
        deep("(", ")", 50_000),
        "a,".repeat(50_000).into_bytes(),
        "9".repeat(100_000).into_bytes(),
        "\\".repeat(100_000).into_bytes(),
        vec![0xff; 100_000],
        [b"k8s\0".as_slice(), &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat(),
        [b"k8s\0".as_slice(), &nested(vec![])].concat(),
    ];
    for bytes in inputs {
        let begun = Instant::now();
        let most = parsed(&bytes, ty);
        let what = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert!(begun.elapsed() < LONGEST * 5, "{:?} for {what}", begun.elapsed());
        assert!(most <= GROWTH * bytes.len() + 10, "{most} values of {what}");
    }
}

#[test]
fn patches_do_not_multiply() {
    let copies = |n: usize| Value::Array(vec![json!({"op": "copy", "from": "", "path": "/metadata/annotations"}); n]);
    let begun = Instant::now();
    for n in [10, 30, 100, 1000] {
        if let Ok(tree) = patch::json(pod(), &copies(n)) {
            assert!(values(&tree) < 1_000_000, "{n} copies make {} values", values(&tree));
        }
    }
    assert!(begun.elapsed() < LONGEST * 5, "{:?}", begun.elapsed());
}
