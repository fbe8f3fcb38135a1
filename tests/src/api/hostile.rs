//! Broken and hostile input is answered by a 4xx: bodies, patches and selectors, mutated at random from a fixed seed, and the classics by hand.
//! The server may neither fail (5xx), nor end, nor grow.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::session::{Answer, Server, Session};
use crate::bench::stack::Stack;
use crate::random::Random;

/// How many mutants are sent.
const MUTANTS: u64 = 500;
/// By how much the server's memory may grow meanwhile.
const GROWTH_MIB: u64 = 150;
const PATH: &str = "/api/v1/namespaces/default/configmaps";
const ONE: &str = "/api/v1/namespaces/default/configmaps/seed";
/// What upstream, too, answers with 500: an apply of fields that do not exist, a strategic patch that the schema has no meaning for.
const UPSTREAMS: &[&str] = &[
    "failed to create typed patch object",
    "unknown patch type: ",
    "does not contain declared merge key",
    "merging lists cannot yet be specified in the patch",
    "cannot merge lists without merge key",
    "list element types are not identical",
    "doesn't match $setElementOrder list",
];
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

pub async fn run(stack: Stack) -> Result<()> {
    let server = Server { address: stack.api_address(), tls: stack.tls_of("root", &["system:masters"])? };
    let mut session = server.open().await?;
    let object = json!({"metadata": {"name": "seed", "labels": {"a": "b"}, "annotations": {"x": "y"}}, "data": {"k": "v", "n": "1e3"}});
    session.create(PATH, &object).await?;
    let before = resident(&stack);
    by_hand(&server).await?;
    inward(&mut session).await?;
    let (refused, slowest) = at_random(&server).await?;
    let after = resident(&stack);
    println!(
        "  {MUTANTS} mutants, {refused} of them refused, the slowest answer after {slowest:.1?}; resident {before} MiB, then {after} MiB"
    );
    ensure!(refused > MUTANTS / 4, "the mutants are too tame");
    ensure!(after < before + GROWTH_MIB, "the server grew from {before} to {after} MiB");
    Ok(())
}

fn resident(stack: &Stack) -> u64 {
    stack.memory().iter().find(|(name, _)| *name == "kube-apiserver").map_or(0, |(_, mib)| *mib)
}

/// Method, path, media type, body.
type Case = (Method, String, &'static str, Vec<u8>);

async fn by_hand(server: &Server) -> Result<()> {
    let deep = |open: &str, n: usize| open.repeat(n).into_bytes();
    let bomb = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, i| {
        let alias = vec![format!("*a{}", i - 1); 9].join(",");
        format!("{text}a{i}: &a{i} [{alias}]\n")
    });
    let many = json!(
        (0..20_000).map(|i| json!({"op": "add", "path": format!("/data/k{i}"), "value": "v"})).collect::<Vec<_>>()
    );
    let json_patch = "application/json-patch+json";
    let merge_patch = "application/merge-patch+json";
    let query = |q: &str| format!("{PATH}?{q}");
    let post = |media, body| (Method::POST, PATH.to_owned(), media, body);
    let patch = |media, body: &str| (Method::PATCH, ONE.to_owned(), media, body.as_bytes().to_vec());
    let get = |path: String| (Method::GET, path, "application/json", Vec::new());
    let cases: Vec<Case> = vec![
        post("application/json", deep("[", 1_000_000)),
        post("application/json", deep("{\"a\":", 200_000)),
        post("application/json", b"{\"metadata\":{\"name\":\"\xff\xfe\"}}".to_vec()),
        post("application/json", b"{\"metadata\":{\"name\":\"a\",\"generation\":1e999999}}".to_vec()),
        post("application/json", b"\0".to_vec()),
        // Bodies are never unpacked: what is packed is not JSON.
        post("application/json", [b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), &[0; 2000]].concat()),
        post("application/json", Vec::new()),
        post("application/yaml", deep("[", 100_000)),
        post("application/yaml", deep("- ", 100_000)),
        post("application/yaml", bomb.into_bytes()),
        post("application/yaml", b"a: &a [*a]\n".to_vec()),
        post(PROTOBUF, b"k8s\0".to_vec()),
        post(PROTOBUF, [b"k8s\0".as_slice(), &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat()),
        post(PROTOBUF, [b"k8s\0".as_slice(), &[0xff; 1000]].concat()),
        post("text/html", b"<html>".to_vec()),
        (Method::PATCH, ONE.to_owned(), json_patch, many.to_string().into_bytes()),
        patch(json_patch, r#"[{"op":"copy","from":"","path":"/data/x"}]"#),
        patch(json_patch, r#"[{"op":"move","from":"/data","path":"/data/x"}]"#),
        patch(json_patch, r#"[{"op":"add","path":"/data/18446744073709551616/x","value":1}]"#),
        patch(merge_patch, "[]"),
        patch(merge_patch, r#"{"metadata":{"name":"other"}}"#),
        patch("application/strategic-merge-patch+json", r#"{"$patch":"burn"}"#),
        patch("application/strategic-merge-patch+json", r#"{"data":{"$retainKeys":5}}"#),
        patch("application/apply-patch+yaml", "a: b"),
        get(query("labelSelector=a%20in%20(b")),
        get(query("labelSelector=,,,")),
        get(query(&format!("labelSelector={}", "a,".repeat(2000)))),
        get(query("fieldSelector=spec.nothing%3Dx")),
        get(query("limit=-1x")),
        get(query("continue=%00%ff")),
        get(query("continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTksInN0YXJ0IjoiLi4vLi4vc2VjcmV0cyJ9")),
        get(query("resourceVersion=99999999999999999999")),
        get(query("watch=true&resourceVersion=x")),
        get("/api/v1/namespaces/%2e%2e%2fx/configmaps/a%2f..%2fb".to_owned()),
    ];
    for (method, path, media, body) in cases {
        let what = format!("{method} {} {media} {}", shortened(path.as_bytes()), shortened(&body));
        // Who has not sent all of a body that is refused unread finds the connection closed.
        let mut session = server.open().await?;
        let answer = session.ask(method, &path, media, body.into()).await.with_context(|| what.clone())?;
        let refused = (400..500).contains(&answer.status) || is_upstreams(&answer);
        ensure!(refused, "{what}: {} {}", answer.status, shortened(&answer.body));
        ensure!(answer.json()["kind"] == "Status", "{what}: no Status but {}", shortened(&answer.body));
    }
    Ok(())
}

fn is_upstreams(answer: &Answer) -> bool {
    let said = String::from_utf8_lossy(&answer.body);
    answer.status == 500 && UPSTREAMS.iter().any(|text| said.contains(text))
}

/// Objects that name addresses only this machine can reach, or a cloud's metadata, do not make the server go there.
async fn inward(session: &mut Session) -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let core = "/api/v1/namespaces/default";
    session.create(&format!("{core}/serviceaccounts"), &json!({"metadata": {"name": "default"}})).await?;
    let status = |status: serde_json::Value| Bytes::from(json!({"status": status}).to_string());
    let merge = "application/merge-patch+json";
    let mut asked = Vec::new();
    for (i, ip) in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1"].iter().enumerate() {
        let (node, pod) = (format!("n{i}"), format!("p{i}"));
        session.create("/api/v1/nodes", &json!({"metadata": {"name": node}})).await?;
        let told = status(json!({"addresses": [{"type": "InternalIP", "address": ip}]}));
        let answer = session.ask(Method::PATCH, &format!("/api/v1/nodes/{node}/status"), merge, told).await?;
        ensure!(answer.status == 200, "a node at {ip}: {}", answer.json());
        let spec = json!({"containers": [{"name": "c", "image": "i"}]});
        session.create(&format!("{core}/pods"), &json!({"metadata": {"name": pod}, "spec": spec})).await?;
        let told = status(json!({"podIP": ip, "podIPs": [{"ip": ip}], "phase": "Running"}));
        let answer = session.ask(Method::PATCH, &format!("{core}/pods/{pod}/status"), merge, told).await?;
        // Some addresses are refused already where they are told.
        ensure!(matches!(answer.status, 200 | 422), "a pod at {ip}: {}", answer.json());
        asked.push(format!("/api/v1/nodes/{node}:{port}/proxy/latest/meta-data"));
        if answer.status == 200 {
            asked.push(format!("{core}/pods/{pod}:{port}/proxy/latest/meta-data"));
        }
    }
    for path in &asked {
        let answer = session.get(path).await?;
        let refused = answer.status == 400 && answer.json()["message"] == "address not allowed";
        ensure!(refused, "{path}: {} {}", answer.status, shortened(&answer.body));
    }
    let visitor = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    ensure!(visitor.is_err(), "the server came");
    println!("  {} ways inward are closed", asked.len());
    Ok(())
}

fn shortened(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}

/// How many were refused, and how long the slowest answer took.
async fn at_random(server: &Server) -> Result<(u64, Duration)> {
    let mut session = server.open().await?;
    let seeds = seeds(&mut session).await?;
    let mut random = Random(0x5eed);
    let (mut refused, mut slowest) = (0, Duration::ZERO);
    for _ in 0..MUTANTS {
        let (method, path, media, body) = &seeds[random.below(seeds.len())];
        let (mut path, mut body) = (path.clone(), body.clone());
        if body.is_empty() {
            let (own, query) = path.split_once('?').context("a query")?;
            let mut query = query.as_bytes().to_vec();
            random.mutate(&mut query);
            let escaped: String = query
                .iter()
                .map(|b| {
                    if b.is_ascii_alphanumeric() || *b == b'=' {
                        char::from(*b).to_string()
                    } else {
                        format!("%{b:02X}")
                    }
                })
                .collect();
            path = format!("{own}?{escaped}");
        } else {
            random.mutate(&mut body);
        }
        let what = || format!("{method} {path} {media} {:?}", String::from_utf8_lossy(&body));
        if session.is_closed() {
            session = server.open().await?;
        }
        let begun = Instant::now();
        let answer = session.ask(method.clone(), &path, media, body.clone().into()).await.with_context(what)?;
        slowest = slowest.max(begun.elapsed());
        ensure!(
            answer.status < 500 || is_upstreams(&answer),
            "{}: {} {}",
            what(),
            answer.status,
            shortened(&answer.body)
        );
        refused += u64::from(answer.status >= 400);
    }
    Ok((refused, slowest))
}

async fn seeds(session: &mut Session) -> Result<Vec<Case>> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "p-", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}}}]}});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "m-"}, "data": {"k": "v"}});
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  generateName: y-\n  labels: {a: &x b, c: *x}\ndata:\n  k: |\n    text\n";
    let headers = [("accept", PROTOBUF)];
    let binary = session.ask_with(Method::GET, ONE, &headers, Bytes::new()).await?.body.to_vec();
    ensure!(binary.starts_with(b"k8s\0"), "protobuf");
    let dry = |path: &str| format!("{path}?dryRun=All");
    let patch = |media, body: &str| (Method::PATCH, dry(ONE), media, body.as_bytes().to_vec());
    let strategic = r#"{"metadata":{"labels":{"$patch":"replace","c":"d"},"finalizers":["a.b/c"],"$setElementOrder/finalizers":["a.b/c"]}}"#;
    Ok(vec![
        (Method::POST, dry("/api/v1/namespaces/default/pods"), "application/json", pod.to_string().into_bytes()),
        (Method::POST, dry(PATH), "application/json", map.to_string().into_bytes()),
        (Method::POST, dry(PATH), "application/yaml", yaml.as_bytes().to_vec()),
        (Method::POST, dry(PATH), PROTOBUF, binary.clone()),
        (Method::PUT, dry(ONE), PROTOBUF, binary),
        patch(
            "application/json-patch+json",
            r#"[{"op":"test","path":"/data/k","value":"v"},{"op":"replace","path":"/data/k","value":"w"}]"#,
        ),
        patch("application/merge-patch+json", r#"{"data":{"k":null,"z":"1"},"metadata":{"labels":{"q":"r"}}}"#),
        patch("application/strategic-merge-patch+json", strategic),
        (
            Method::PATCH,
            format!("{ONE}?dryRun=All&fieldManager=f"),
            "application/apply-patch+yaml",
            yaml.replace("generateName: y-", "name: seed").into_bytes(),
        ),
        (Method::GET, format!("{PATH}?labelSelector=a in (b,c),d!=e,!f,g"), "application/json", Vec::new()),
        (
            Method::GET,
            format!("{PATH}?fieldSelector=metadata.name=seed,metadata.namespace!=x"),
            "application/json",
            Vec::new(),
        ),
        (Method::GET, format!("{PATH}?limit=5"), "application/json", Vec::new()),
    ])
}
