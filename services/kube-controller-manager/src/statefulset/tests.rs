use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Action, Observed, Plan, plan};
use super::pod;
use crate::revisions;

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

fn set(replicas: i64, change: impl Fn(&mut Value)) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "n", "uid": "set", "generation": 2},
        "spec": {
            "replicas": replicas, "serviceName": "svc", "selector": {"matchLabels": {"app": "web"}},
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [], "volumes": [{"name": "data"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
        },
    });
    change(&mut set);
    set
}

/// A revision whose name is all that matters here.
fn revision(name: &str) -> Value {
    let mut made = revisions::new(&set(1, |_| {}), 1, None);
    made["metadata"]["name"] = name.into();
    made
}

/// `what` is the pod's revision and its state: `+` healthy, `-` unready, `x` failed, `p` pending, `t` terminating.
fn pods(all: &[(i64, &str)]) -> Vec<Arc<Value>> {
    let one = |(ordinal, what): &(i64, &str)| {
        let (revision, state) = what.split_at(what.len() - 1);
        let mut pod = pod::build(&set(1, |_| {}), *ordinal, &self::revision(revision));
        pod["metadata"]["uid"] = ordinal.to_string().into();
        let (phase, ready) = match state {
            "+" | "t" => ("Running", "True"),
            "-" => ("Running", "False"),
            "p" => ("Pending", "False"),
            _ => ("Failed", "False"),
        };
        if state == "t" {
            pod["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into();
        }
        let ready = json!({"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T23:59:55Z"});
        pod["status"] = json!({"phase": phase, "conditions": [ready]});
        Arc::new(pod)
    };
    all.iter().map(one).collect()
}

fn decide(set: &Value, all: &[(i64, &str)]) -> Plan {
    let (current, update) = (revision("old"), revision("new"));
    let pods = pods(all);
    plan(&Observed { set, pods: &pods, current: &current, update: &update, collisions: None, now: now() })
}

/// `+2new`: create ordinal 2 in revision new; `-2`: delete it; `!2`: replace it; `?2`: see to its claims.
fn text(plan: &Plan) -> Vec<String> {
    let ordinal = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().trim_start_matches("web-").to_owned();
    let one = |action: &Action| match action {
        Action::Create(pod) => {
            format!("+{}{}", ordinal(pod), pod["metadata"]["labels"]["controller-revision-hash"].as_str().unwrap())
        }
        Action::Claims(pod) => format!("?{}", ordinal(pod)),
        Action::Replace(pod) => format!("!{}", ordinal(pod)),
        Action::Delete(pod) => format!("-{}", ordinal(pod)),
    };
    plan.actions.iter().map(one).collect()
}

type Case = (&'static str, Value, &'static [(i64, &'static str)], &'static [&'static str]);

fn check(cases: Vec<Case>) {
    for (what, set, pods, expected) in cases {
        assert_eq!(text(&decide(&set, pods)), expected, "{what}");
    }
}

#[test]
fn ordered_sets_grow_and_shrink_one_by_one() {
    check(vec![
        ("first", set(3, |_| {}), &[], &["+0new"]),
        ("next after a ready one", set(3, |_| {}), &[(0, "new+")], &["+1new"]),
        ("an unready one halts", set(3, |_| {}), &[(0, "new-")], &[]),
        ("claims that were deleted come again", set(2, |_| {}), &[(0, "newp"), (1, "new+")], &["?0"]),
        ("a terminating one halts", set(3, |_| {}), &[(0, "newt")], &[]),
        ("a gap is filled first", set(3, |_| {}), &[(1, "new+")], &["+0new"]),
        ("failed pods come again", set(2, |_| {}), &[(0, "newx"), (1, "new+")], &["!0"]),
        ("the highest goes first", set(1, |_| {}), &[(0, "new+"), (1, "new+"), (2, "new+")], &["-2"]),
        ("one at a time", set(1, |_| {}), &[(0, "new+"), (1, "new+"), (2, "newt")], &[]),
        ("a broken one is condemned itself", set(1, |_| {}), &[(0, "new+"), (1, "new+"), (2, "new-")], &["-2"]),
        ("a lower one halts shrinking", set(1, |_| {}), &[(0, "new-"), (1, "new+")], &[]),
        ("a condemned one halts", set(1, |_| {}), &[(0, "new+"), (1, "new-"), (2, "new-")], &[]),
        ("start ordinal", set(2, |s| s["spec"]["ordinals"]["start"] = 5.into()), &[(5, "new+")], &["+6new"]),
        (
            "below the start",
            set(1, |s| s["spec"]["ordinals"]["start"] = 5.into()),
            &[(5, "new+"), (0, "new+")],
            &["-0"],
        ),
        ("ready but not for long enough", set(2, |s| s["spec"]["minReadySeconds"] = 10.into()), &[(0, "new+")], &[]),
    ]);
    let waits = decide(&set(2, |s| s["spec"]["minReadySeconds"] = 10.into()), &[(0, "new+")]);
    assert_eq!(waits.next, Some(std::time::Duration::from_secs(5)));
}

#[test]
fn parallel_sets_ignore_health() {
    let parallel = |replicas| set(replicas, |s| s["spec"]["podManagementPolicy"] = "Parallel".into());
    check(vec![
        ("all at once", parallel(3), &[(1, "new-")], &["+0new", "+2new"]),
        ("shrinks at once", parallel(0), &[(0, "new-"), (1, "new+"), (2, "newt")], &["-1", "-0"]),
    ]);
}

#[test]
fn rollouts_go_down_to_the_partition() {
    let partition = |p: i64| set(3, move |s| s["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = p.into());
    let unavailable = |n: Value| {
        set(4, move |s| {
            s["spec"]["podManagementPolicy"] = "Parallel".into();
            s["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = n.clone();
        })
    };
    let old4 = &[(0, "old+"), (1, "old+"), (2, "old+"), (3, "old+")];
    check(vec![
        ("highest first", partition(0), &[(0, "old+"), (1, "old+"), (2, "old+")], &["-2"]),
        ("waits for the new one", partition(0), &[(0, "old+"), (1, "old+"), (2, "new-")], &[]),
        ("then the next", partition(0), &[(0, "old+"), (1, "old+"), (2, "new+")], &["-1"]),
        ("not below the partition", partition(2), &[(0, "old+"), (1, "old+"), (2, "new+")], &[]),
        ("made anew as it was", partition(2), &[(1, "old+"), (2, "new+")], &["+0old"]),
        ("made anew as it will be", partition(1), &[(0, "old+"), (2, "new+")], &["+1new"]),
        ("only on delete", set(1, |s| s["spec"]["updateStrategy"] = json!({"type": "OnDelete"})), &[(0, "old+")], &[]),
        ("two at a time", unavailable(json!(2)), old4, &["-3", "-2"]),
        ("half at a time", unavailable(json!("50%")), old4, &["-3", "-2"]),
        (
            "one is missing already",
            unavailable(json!(2)),
            &[(0, "old+"), (1, "old+"), (2, "old+"), (3, "new-")],
            &["-2"],
        ),
        (
            "the broken cost nothing",
            unavailable(json!(2)),
            &[(0, "old-"), (1, "old+"), (2, "old+"), (3, "new-")],
            &["-0"],
        ),
    ]);
}

#[test]
fn status_counts_and_completes() {
    let status = |pods| decide(&set(2, |_| {}), pods).status.unwrap();
    let rolling = status(&[(0, "old+"), (1, "new-")]);
    for (field, expected) in [
        ("replicas", 2),
        ("readyReplicas", 1),
        ("currentReplicas", 1),
        ("updatedReplicas", 1),
        ("observedGeneration", 2),
    ] {
        assert_eq!(rolling[field], expected, "{field}");
    }
    assert_eq!((&rolling["currentRevision"], &rolling["updateRevision"]), (&json!("old"), &json!("new")));
    let done = status(&[(0, "new+"), (1, "new+")]);
    assert_eq!((&done["currentRevision"], &done["currentReplicas"]), (&json!("new"), &json!(2)));
    let again = set(2, |s| s["status"] = done.clone());
    assert!(decide(&again, &[(0, "new+"), (1, "new+")]).status.is_none(), "settled");
    let ending = set(2, |s| s["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    assert!(decide(&ending, &[]).actions.is_empty());
}

#[test]
fn pods_have_names_and_storage_of_their_own() {
    let made = pod::build(&set(1, |_| {}), 3, &revision("r"));
    assert_eq!(made["metadata"]["name"], "web-3");
    assert_eq!(made["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "3");
    assert_eq!(made["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"], "web-3");
    assert_eq!((&made["spec"]["hostname"], &made["spec"]["subdomain"]), (&json!("web-3"), &json!("svc")));
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-3"}}]);
    assert_eq!(made["spec"]["volumes"], volumes);
    let claims = pod::claims(&set(1, |_| {}), "web-3");
    assert_eq!(
        (&claims[0]["metadata"]["name"], &claims[0]["metadata"]["labels"]["app"]),
        (&json!("data-web-3"), &json!("web"))
    );
    for (name, expected) in
        [("web-0", Some(0)), ("web-10", Some(10)), ("web-01", None), ("web-a", None), ("webs-1", None)]
    {
        assert_eq!(pod::ordinal("web", name), expected, "{name}");
    }
}

#[test]
fn claims_go_with_whom_the_policy_says() {
    let pod = json!({"metadata": {"name": "web-0", "uid": "pod"}});
    let cases: &[(&str, &str, bool, &[&str])] = &[
        ("Retain", "Retain", false, &[]),
        ("Delete", "Retain", false, &["set"]),
        ("Delete", "Retain", true, &["set"]),
        ("Retain", "Delete", false, &[]),
        ("Retain", "Delete", true, &["pod"]),
        ("Delete", "Delete", false, &["set"]),
        ("Delete", "Delete", true, &["pod"]),
    ];
    for (deleted, scaled, scaled_down, expected) in cases {
        let policy = json!({"whenDeleted": deleted, "whenScaled": scaled});
        let set = set(1, |s| s["spec"]["persistentVolumeClaimRetentionPolicy"] = policy.clone());
        let stale = json!({"apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "earlier"});
        let mut claim = json!({"metadata": {"ownerReferences": [{"uid": "other"}, stale]}});
        let owners = pod::claim_owners(&set, &claim, &pod, *scaled_down).unwrap();
        let uids: Vec<&str> = owners.iter().filter_map(|o| o["uid"].as_str()).collect();
        assert_eq!(uids[0], "other");
        assert_eq!(&uids[1..], *expected, "{deleted} {scaled} {scaled_down}");
        claim["metadata"]["ownerReferences"] = owners.into();
        assert_eq!(pod::claim_owners(&set, &claim, &pod, *scaled_down), None, "settled");
    }
}
