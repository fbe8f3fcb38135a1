//! `etcdctl` against this store and against etcd: the same commands in the same order must print the same, but for ids,
//! terms and times. Left out where etcd is not installed (Debian: etcd-server, etcd-client).
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod ports;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use daemon::Shutdown;
use ports::free_port;

const LIMIT: Duration = Duration::from_secs(30);
const PEER_URL: &str = "http://127.0.0.1:2380";

/// Arguments, separated by spaces (`''` is an empty one), and the standard input.
const COMMANDS: &[(&str, &str)] = &[
    ("put a 1", ""),
    ("put a 2 --prev-kv", ""),
    ("put b 3", ""),
    ("put b --ignore-value", ""),
    ("put c --ignore-value", ""),
    ("put '' v", ""),
    ("put d 4 -w json", ""),
    ("put k v --lease=1234", ""),
    ("get a", ""),
    ("get ''", ""),
    ("get a -w json", ""),
    ("get a -w fields", ""),
    ("get a --print-value-only", ""),
    ("get a --consistency s", ""),
    ("get a --rev 2", ""),
    ("get a --rev 99", ""),
    ("get '' --prefix", ""),
    ("get '' --prefix --keys-only", ""),
    ("get '' --prefix --limit 1 -w json", ""),
    ("get '' --prefix --sort-by CREATE --order ASCEND", ""),
    ("get '' --from-key --order DESCEND --sort-by VALUE", ""),
    ("get a z --count-only -w json", ""),
    ("txn", "value(\"a\") = \"2\"\n\nput a 5\nget a\n\nput e 6\n\n"),
    ("txn -w json", "value(\"a\") = \"2\"\n\nput a 5\nget a\n\nput e 6\n\n"),
    ("txn", "version(\"a\") > \"1\"\n\nput x 5\nput x 6\n\n\n"),
    ("del b --prev-kv", ""),
    ("del nothing", ""),
    ("del ''", ""),
    ("del '' --prefix -w json", ""),
    ("lease grant 100 -w json", ""),
    ("lease grant 0", ""),
    ("lease grant 9999999999", ""),
    ("lease list -w json", ""),
    ("lease revoke 1", ""),
    ("lease timetolive 1", ""),
    ("lease keep-alive 1 --once", ""),
    ("put h 1", ""),
    ("put h 2", ""),
    ("put h 3", ""),
    ("compaction 8", ""),
    ("compaction 8", ""),
    ("compaction 800", ""),
    ("get h --rev 3", ""),
    // Compacted: the watch ends by itself.
    ("watch h --rev 3", ""),
    ("alarm list", ""),
    ("alarm disarm", ""),
    ("member list", ""),
    ("member list -w table", ""),
    ("member remove 1", ""),
    ("lock l --ttl 5 echo held", ""),
    ("version", ""),
];

fn installed(program: &str) -> bool {
    Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// etcd; killed at the end.
struct Etcd(Child);

impl Etcd {
    fn start(folder: &Path, url: &str) -> Self {
        let child = Command::new("etcd")
            .arg(format!("--data-dir={}", folder.display()))
            .args([format!("--listen-client-urls={url}"), "--advertise-client-urls=http://127.0.0.1:2379".into()])
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{}", free_port()))
            .args([
                format!("--initial-advertise-peer-urls={PEER_URL}"),
                format!("--initial-cluster=default={PEER_URL}"),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Etcd(child.expect("etcd starts"))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn etcdctl(url: &str, command: &str, input: &str) -> String {
    let arguments = command.split(' ').map(|argument| if argument == "''" { "" } else { argument });
    let mut child = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={url}"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    normal(&String::from_utf8_lossy(&text))
}

/// The text without what differs between any two clusters: ids (long numbers), terms and log lines.
fn normal(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with("{\"level\"")) {
        let mut rest = line;
        while !rest.is_empty() {
            let run = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
            let term = ["\"raft_term\":", "\"RaftTerm\" : "].iter().any(|name| out.ends_with(name));
            let (word, after) = rest.split_at(run.max(rest.chars().next().map_or(1, char::len_utf8)));
            out.push_str(if run >= 13 || (term && run > 0) { "N" } else { word });
            rest = after;
        }
        out.push('\n');
    }
    out
}

async fn wait_ready(url: &str) {
    let ready = async {
        while !etcdctl(url, "get ready", "").is_empty() {
            // There is no event for "a process answers now".
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, ready).await.expect("the server answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_prints_the_same() {
    if !installed("etcd") || !installed("etcdctl") {
        println!("left out: etcd and etcdctl are not installed (apt-get install etcd-server etcd-client)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let urls = [(); 2].map(|()| format!("http://127.0.0.1:{}", free_port()));
    let (trigger, shutdown) = Shutdown::pair();
    let arguments = vec![
        "store".into(),
        format!("--data-dir={}", folder.path().join("store").display()),
        format!("--listen-client-urls={}", urls[0]),
    ];
    let store = tokio::spawn(store::run(arguments, shutdown));
    let _etcd = Etcd::start(&folder.path().join("etcd"), &urls[1]);
    for url in &urls {
        wait_ready(url).await;
    }
    let mut different = Vec::new();
    for (command, input) in COMMANDS {
        let [ours, theirs] = [0, 1].map(|server| etcdctl(&urls[server], command, input));
        if ours != theirs {
            different.push(format!("etcdctl {command}\nthis store:\n{ours}etcd:\n{theirs}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    trigger.trigger();
    store.await.unwrap().unwrap();
}

#[test]
fn ids_terms_and_log_lines_do_not_count() {
    let cases = [
        ("{\"cluster_id\":1234567890123456789,\"raft_term\":3}", "{\"cluster_id\":N,\"raft_term\":N}\n"),
        ("\"RaftTerm\" : 12\n{\"level\":\"warn\"}", "\"RaftTerm\" : N\n"),
        ("8e9e05c52164694d, started, déjà", "N, started, déjà\n"),
        ("lease 1234 revision 10", "lease 1234 revision 10\n"),
    ];
    for (text, expected) in cases {
        assert_eq!(normal(text), expected);
    }
}
