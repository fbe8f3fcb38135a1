use super::*;

const GPU: &str = "example.com/gpu";

fn listed(devices: &[(&str, bool, Option<i64>)]) -> Pool {
    let mut pool = Pool::default();
    pool.resources.insert(GPU.into(), Resource::default());
    let one = |(id, healthy, node): &(&str, bool, Option<i64>)| api::Device {
        id: (*id).into(),
        health: if *healthy { "Healthy" } else { "Unhealthy" }.into(),
        topology: node.map(|id| api::TopologyInfo { nodes: vec![api::NumaNode { id }] }),
    };
    pool.list(GPU, 0, devices.iter().map(one).collect());
    pool
}

fn ask(container: &str, count: usize) -> Ask<'_> {
    Ask { uid: "u", container, resource: GPU, count }
}

fn ids(text: &str) -> Ids {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn amounts_follow_health_and_the_plugins_presence() {
    let mut pool = listed(&[("a", true, None), ("b", false, None)]);
    let numbers = |pool: &Pool, now| {
        let (capacity, allocatable) = pool.amounts(now);
        (capacity[GPU].clone(), allocatable[GPU].clone())
    };
    assert_eq!(numbers(&pool, 0), ("2".into(), "1".into()));
    pool.lose(GPU, 7, 100);
    assert_eq!(numbers(&pool, 100), ("2".into(), "1".into()), "news of another registration");
    pool.lose(GPU, 0, 100);
    assert_eq!(numbers(&pool, 100), ("2".into(), "0".into()));
    assert_eq!(numbers(&pool, 100 + GRACE), ("0".into(), "0".into()));
}

#[test]
fn what_cannot_be_given_is_told_in_upstreams_words() {
    let mut pool = listed(&[("a", true, None), ("b", true, None), ("c", false, None)]);
    pool.give(&ask("first", 1), &ids("a"), Vec::new());
    let refusal = |pool: &Pool, ask: Ask<'_>| pool.choose(&ask, &Ids::new(), None).unwrap_err();
    assert_eq!(
        refusal(&pool, ask("second", 2)),
        "requested number of devices unavailable for example.com/gpu. Requested: 2, Available: 1"
    );
    assert_eq!(
        refusal(&pool, ask("first", 2)),
        r#"pod "u" container "first" changed request for resource "example.com/gpu" from 1 to 2"#
    );
    assert_eq!(pool.choose(&ask("first", 1), &Ids::new(), None), Ok(None), "it has its device");
    let other = Ask { resource: "example.com/x", ..ask("second", 1) };
    assert_eq!(refusal(&pool, other), "cannot allocate unregistered device example.com/x");
    pool.lose(GPU, 0, 0);
    let unhealthy = "no healthy devices present; cannot allocate unhealthy devices example.com/gpu";
    assert_eq!(refusal(&pool, ask("first", 1)), unhealthy);
    assert!(pool.keep_only(&|_| false) && pool.held.is_empty());
}

#[test]
fn devices_are_taken_from_the_wanted_nodes_and_by_the_plugins_wish() {
    let pool = listed(&[("a", true, Some(0)), ("b", true, Some(1)), ("c", true, Some(1)), ("d", true, None)]);
    for (count, reusable, nodes, preferred, expected) in [
        (1, "", None, "", "a"),
        (1, "", None, "c", "c"),
        (1, "", Some([1]), "", "b"),
        (1, "", Some([1]), "c a", "c"),
        (2, "", Some([1]), "a d", "b c"),
        (3, "", Some([1]), "d", "b c d"),
        (3, "", Some([1]), "", "a b c"),
        (2, "c", None, "", "a c"),
        (1, "c d", None, "", "c"),
    ] {
        let choice = pool.choose(&ask("x", count), &ids(reusable), nodes.map(Nodes::of)).unwrap().unwrap();
        assert_eq!(choice.pick(&ids(preferred)), ids(expected), "{count} {reusable} {nodes:?} {preferred}");
    }
}

#[test]
fn a_plugin_is_asked_within_the_nodes_if_they_have_enough() {
    let pool = listed(&[("a", true, Some(0)), ("b", true, Some(1)), ("c", true, Some(1))]);
    let question =
        |count| pool.choose(&ask("x", count), &Ids::new(), Some(Nodes::of([1]))).unwrap().unwrap().question();
    assert_eq!(question(1), (ids("b c"), ids("")));
    assert_eq!(question(3), (ids("a b c"), ids("b c")));
}

#[test]
fn hints_name_the_nodes_that_have_enough() {
    let mut pool = listed(&[("a", true, Some(0)), ("b", true, Some(1)), ("c", true, Some(1))]);
    let all = Nodes::of([0, 1]);
    let hints = |pool: &Pool, container: &str, count| -> Vec<(u64, bool)> {
        let found = pool.hints(&ask(container, count), &Ids::new(), all).unwrap();
        found.iter().map(|h| (h.nodes.unwrap().0, h.preferred)).collect()
    };
    assert_eq!(hints(&pool, "x", 1), [(1, true), (2, true), (3, false)]);
    assert_eq!(hints(&pool, "x", 2), [(2, true), (3, false)]);
    pool.give(&ask("y", 1), &ids("b"), Vec::new());
    assert_eq!(hints(&pool, "x", 2), [(3, false)]);
    assert_eq!(hints(&pool, "y", 1), [(2, true), (3, false)], "its own device alone counts");
    assert!(listed(&[("a", true, None)]).hints(&ask("x", 1), &Ids::new(), all).is_none());
}
