//! Debian's etcdctl against three members, where it is installed.

use std::process::Command;

use crate::harness::Cluster;

/// Runs etcdctl on one member and returns its output and whether it succeeded.
fn etcdctl(cluster: &Cluster, member: usize, arguments: &[&str]) -> (String, bool) {
    let output = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={}", cluster.nodes[member].client_url))
        // A password is slow to check by design, and slower beside other tests.
        .args(["--dial-timeout=60s", "--command-timeout=60s"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (text, output.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_administers_the_cluster() {
    if Command::new("etcdctl").arg("version").output().is_err() {
        println!("skipped: etcdctl is not installed");
        return;
    }
    let cluster = Cluster::start(3, 1, &[]).await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let ids: Vec<String> = {
        let mut ids = Vec::new();
        for member in 0..3 {
            ids.push(format!("{:x}", cluster.id(member).await));
        }
        ids
    };
    let new_peer = format!("--peer-urls={}", cluster.nodes[3].peer_url);
    let cases: [(usize, &[&str], &str, bool); 22] = [
        (follower, &["put", "k", "v"], "OK", true),
        (leader, &["get", "k"], "v", true),
        (follower, &["member", "list"], "started, m0", true),
        (follower, &["endpoint", "health", "--cluster"], "is healthy", true),
        (leader, &["member", "remove", "abc"], "member not found", false),
        (leader, &["member", "add", "m3", &new_peer, "--learner"], "added to cluster", true),
        (leader, &["member", "promote", &ids[0]], "can only promote a learner member", false),
        (leader, &["alarm", "list"], "", true),
        // These dial each endpoint with its whole URL as the name of the server.
        (follower, &["endpoint", "status", "--cluster", "-w", "json"], "\"raftIndex\"", true),
        (follower, &["endpoint", "hashkv", "--cluster", "-w", "json"], "\"hash\"", true),
        (follower, &["defrag"], "Finished defragmenting", true),
        (follower, &["move-leader", &ids[follower]], "no leader endpoint", false),
        (leader, &["move-leader", &ids[follower]], "Leadership transferred", true),
        // Users are the same on every member, and so are the tokens.
        (leader, &["user", "add", "root:r"], "User root created", true),
        (leader, &["auth", "enable"], "Authentication Enabled", true),
        (follower, &["get", "k"], "user name is empty", false),
        (follower, &["get", "k", "--user=root:wrong"], "authentication failed", false),
        (follower, &["get", "k", "--user=root:r"], "v", true),
        (leader, &["member", "remove", "abc"], "user name is empty", false),
        (leader, &["member", "remove", "abc", "--user=root:r"], "member not found", false),
        (follower, &["auth", "disable", "--user=root:r"], "Authentication Disabled", true),
        (leader, &["get", "k"], "v", true),
    ];
    for (member, arguments, expected, succeeds) in cases {
        let (text, ok) = etcdctl(&cluster, member, arguments);
        assert!(text.contains(expected) && ok == succeeds, "{arguments:?}: {text}");
    }
}
