//! Seats through locks and futures.

use super::*;

fn attributes(verb: &str) -> Attributes {
    Attributes {
        verb: verb.into(),
        version: "v1".into(),
        resource: "pods".into(),
        namespace: "a".into(),
        ..Default::default()
    }
}

fn user(name: &str) -> UserInfo {
    UserInfo::authenticated(name, [])
}

#[tokio::test(start_paused = true)]
async fn a_full_level_makes_others_wait_and_frees_itself() {
    // One seat for global-default: nominal 20 of 245 shares of 12 seats, rounded up, and nobody lends.
    let control = FlowControl::new(1);
    let a = attributes("get");
    let class = control.classify(&user("joe"), &a).expect("global-default");
    assert_eq!((class.schema.name.as_str(), class.level.name.as_str()), ("global-default", "global-default"));
    class.level.state.lock().resize(Duration::ZERO, 1);
    let first = class.clone().enter(&user("joe"), &a, Work::Plain).await.expect("free");
    let second = tokio::spawn({
        let (class, a) = (class.clone(), a.clone());
        async move { class.enter(&user("jane"), &a, Work::Plain).await.map(drop) }
    });
    let third = tokio::spawn({
        let (class, a) = (class.clone(), a.clone());
        async move { class.enter(&user("jim"), &a, Work::Plain).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert_eq!(class.level.state.lock().waiting(), 2);
    third.abort();
    assert!(third.await.is_err());
    assert_eq!(class.level.state.lock().waiting(), 1, "who leaves does not wait");
    drop(first);
    assert_eq!(second.await.expect("runs"), Ok(()));
    let state = class.level.state.lock();
    assert_eq!((state.used(), state.running(), state.waiting()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let control = FlowControl::new(1);
    let a = attributes("get");
    let class = control.classify(&user("joe"), &a).expect("global-default");
    class.level.state.lock().resize(Duration::ZERO, 1);
    let _held = class.clone().enter(&user("joe"), &a, Work::Plain).await.expect("free");
    assert_eq!(class.clone().enter(&user("joe"), &a, Work::Plain).await.map(drop), Err(Reason::TimeOut));
    let mut text = String::new();
    metrics::text(&mut text, &control);
    let labels = "flow_schema=\"global-default\",priority_level=\"global-default\"";
    for line in [
        format!("apiserver_flowcontrol_rejected_requests_total{{{labels},reason=\"time-out\"}} 1"),
        format!("apiserver_flowcontrol_dispatched_requests_total{{{labels}}} 1"),
        format!("apiserver_flowcontrol_current_executing_seats{{{labels}}} 1"),
    ] {
        assert!(text.contains(&line), "{line} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_keeps_its_seats_while_watchers_are_told() {
    let control = FlowControl::new(600);
    let a = attributes("update");
    let class = control.classify(&user("joe"), &a).expect("global-default");
    let used = || class.level.state.lock().used();
    let ticket = class.clone().enter(&user("joe"), &a, Work::Write(40)).await.expect("free");
    assert_eq!(used(), 4);
    drop(ticket);
    assert_eq!(used(), 4, "the answer is out, the events are not");
    tokio::time::sleep(Duration::from_millis(6)).await;
    assert_eq!(used(), 0);
    assert_eq!(class.refused(), 1);
}

#[tokio::test]
async fn exempt_requests_never_wait() {
    let control = FlowControl::new(1);
    let a = attributes("list");
    let root = UserInfo::loopback();
    let class = control.classify(&root, &a).expect("exempt");
    let mut tickets = Vec::new();
    for _ in 0..1000 {
        tickets.push(class.clone().enter(&root, &a, Work::Write(100)).await.expect("exempt"));
    }
    assert_eq!(class.level.state.lock().running(), 1000);
}

#[test]
fn configuration_takes_effect_and_mandatory_objects_need_not_exist() {
    let control = FlowControl::new(600);
    control.configure(&[], &[]);
    assert_eq!(
        control.classify(&user("joe"), &attributes("get")).map(|c| c.level.name.clone()),
        Some("catch-all".into())
    );
    let mut levels = defaults::priority_levels();
    let mut schemas = defaults::flow_schemas();
    for object in levels.iter_mut().chain(&mut schemas) {
        object["metadata"]["uid"] =
            serde_json::json!(format!("uid-{}", object["metadata"]["name"].as_str().unwrap_or_default()));
    }
    levels.retain(|l| l["metadata"]["name"] != "global-default");
    control.configure(&levels, &schemas);
    let class = control.classify(&user("joe"), &attributes("get")).expect("somebody");
    assert_eq!(class.schema.name, "catch-all", "a schema without its level does not count");
    let mut headers = HeaderMap::new();
    class.mark(&mut headers);
    assert_eq!(headers[HEADERS[0]], "uid-catch-all");
    assert_eq!(headers[HEADERS[1]], "uid-catch-all");
}
