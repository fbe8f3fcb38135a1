//! `etcdctl` against this store and against etcd: the same commands in the same order must print the same, but for ids,
//! terms and times. Left out where etcd is not installed (Debian: etcd-server, etcd-client).
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod ports;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use daemon::{Shutdown, ShutdownTrigger};
use ports::free_port;
use tokio::task::JoinHandle;

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
    ("user add '' --new-user-password p", ""),
    ("user add root:r", ""),
    ("user add ann:a", ""),
    ("user add ann:b", ""),
    ("user add cert --no-password", ""),
    ("user list", ""),
    ("user get ann", ""),
    ("user get nobody", ""),
    ("role add reader", ""),
    ("role add reader", ""),
    ("role add ''", ""),
    ("role grant-permission reader read a c", ""),
    ("role grant-permission reader readwrite m", ""),
    ("role grant-permission reader write n --prefix", ""),
    ("role grant-permission nobody read a", ""),
    ("role get reader", ""),
    ("role get nobody", ""),
    ("role revoke-permission reader x", ""),
    ("role list", ""),
    ("user grant-role ann reader", ""),
    ("user grant-role ann reader", ""),
    ("user grant-role ann nobody", ""),
    ("user grant-role nobody reader", ""),
    ("user revoke-role ann root", ""),
    ("user get ann --detail", ""),
    ("get a --user ann:a", ""),
    ("user delete root", ""),
    ("auth enable", ""),
    ("user add root:r", ""),
    ("auth enable", ""),
    ("auth enable --user root:r", ""),
    ("role get root --user root:r", ""),
    ("user get root --user root:r", ""),
    ("get a", ""),
    ("put a 1", ""),
    ("get a --user ann:wrong", ""),
    ("get a --user nobody:a", ""),
    ("get a --user cert:a", ""),
    ("put a 1 --user root:r", ""),
    ("put m 1 --user root:r", ""),
    ("get a --user ann:a", ""),
    ("get a c --user ann:a -w json", ""),
    ("get a d --user ann:a", ""),
    ("get '' --prefix --user ann:a", ""),
    ("put a 2 --user ann:a", ""),
    ("put m 2 --user ann:a --prev-kv", ""),
    ("put n1 2 --user ann:a", ""),
    ("put n1 2 --user ann:a --prev-kv", ""),
    ("get n1 --user ann:a", ""),
    ("del n --prefix --user ann:a", ""),
    ("del a --user ann:a", ""),
    ("txn --user ann:a", "value(\"a\") = \"1\"\n\nput m 3\nget b\n\nput n2 6\n\n"),
    ("txn --user ann:a", "value(\"x\") = \"1\"\n\nput m 3\n\n\n"),
    ("txn --user ann:a", "value(\"a\") = \"1\"\n\nput m 3\n\nput x 6\n\n"),
    ("watch x --user ann:a", ""),
    ("user list --user ann:a", ""),
    ("user get ann --user ann:a", ""),
    ("user get root --user ann:a", ""),
    ("role get reader --user ann:a", ""),
    ("role get root --user ann:a", ""),
    ("role list --user ann:a", ""),
    ("user delete root --user root:r", ""),
    ("user revoke-role root root --user root:r", ""),
    ("role delete root --user root:r", ""),
    ("role revoke-permission reader n --prefix --user root:r", ""),
    ("put n1 2 --user ann:a", ""),
    ("user passwd ann --interactive=false --user root:r", "new\n"),
    ("get a --user ann:a", ""),
    ("get a --user ann:new", ""),
    ("user revoke-role ann reader --user root:r", ""),
    ("get a --user ann:new", ""),
    ("user grant-role ann reader --user root:r", ""),
    ("role delete reader --user root:r", ""),
    ("user get ann --user root:r", ""),
    ("user delete ann --user root:r", ""),
    ("get a --user ann:new", ""),
    ("member remove 1 --user cert:x", ""),
    ("auth disable", ""),
    ("auth disable --user root:r", ""),
    ("auth disable", ""),
    ("get a", ""),
    // Dials the endpoint with its whole URL as the name of the server.
    ("defrag", ""),
    ("move-leader 1234", ""),
    ("version", ""),
];

fn installed(program: &str) -> bool {
    Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// etcd; killed at the end.
struct Etcd(Child);

impl Etcd {
    fn start(folder: &Path, url: &str, flags: &[String]) -> Self {
        let child = Command::new("etcd")
            .arg(format!("--data-dir={}", folder.display()))
            .args([format!("--listen-client-urls={url}"), "--advertise-client-urls=http://127.0.0.1:2379".into()])
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{}", free_port()))
            .args(flags)
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
    normal(&String::from_utf8_lossy(&text).replace(url, "URL"))
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

async fn wait_ready(url: &str, flags: &str) {
    let ready = async {
        while !etcdctl(url, &format!("get ready{flags}"), "").is_empty() {
            // There is no event for "a process answers now".
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, ready).await.expect("the server answers");
}

/// Both servers, one after the other asked the same.
struct Both {
    urls: [String; 2],
    trigger: ShutdownTrigger,
    store: JoinHandle<daemon::Outcome>,
    _etcd: Etcd,
}

impl Both {
    /// Starts both; `client` is what etcdctl needs to be let in.
    async fn start(folder: &Path, scheme: &str, flags: &[String], client: &str) -> Both {
        let urls = [(); 2].map(|()| format!("{scheme}://127.0.0.1:{}", free_port()));
        let (trigger, shutdown) = Shutdown::pair();
        let mut arguments = vec![
            "store".into(),
            format!("--data-dir={}", folder.join("store").display()),
            format!("--listen-client-urls={}", urls[0]),
        ];
        arguments.extend_from_slice(flags);
        let store = tokio::spawn(store::run(arguments, shutdown));
        let etcd = Etcd::start(&folder.join("etcd"), &urls[1], flags);
        for url in &urls {
            wait_ready(url, client).await;
        }
        Both { urls, trigger, store, _etcd: etcd }
    }

    async fn stop(self) {
        self.trigger.trigger();
        self.store.await.unwrap().unwrap();
    }

    /// What differs.
    fn ask(&self, command: &str, input: &str) -> Option<String> {
        let [ours, theirs] = [0, 1].map(|server| etcdctl(&self.urls[server], command, input));
        (ours != theirs).then(|| format!("etcdctl {command}\nthis store:\n{ours}etcd:\n{theirs}"))
    }
}

fn left_out() -> bool {
    let there = installed("etcd") && installed("etcdctl");
    if !there {
        println!("left out: etcd and etcdctl are not installed (apt-get install etcd-server etcd-client)");
    }
    !there
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_prints_the_same() {
    if left_out() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let both = Both::start(folder.path(), "http", &[], "").await;
    let different: Vec<String> = COMMANDS.iter().filter_map(|(command, input)| both.ask(command, input)).collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
    both.stop().await;
}

/// Who asks, by certificate, and what.
const BY_CERTIFICATE: &[(&str, &str)] = &[
    ("root", "user add root --no-password"),
    ("root", "user add ann --no-password"),
    ("root", "role add reader"),
    ("root", "role grant-permission reader read a"),
    ("root", "user grant-role ann reader"),
    ("root", "auth enable"),
    ("root", "put a 1"),
    ("ann", "get a"),
    ("ann", "get b"),
    ("ann", "put a 2"),
    ("ann", "user get ann"),
    ("ann", "user get root"),
    ("stranger", "get a"),
    ("root", "user list"),
    ("ann", "auth disable"),
    ("root", "auth disable"),
    ("stranger", "get a"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_name_users() {
    if left_out() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let ca = pki::Ca::generate("etcd").unwrap();
    let write = |name: String, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ca_file = write("ca".into(), ca.cert_pem());
    let issue = |name: &str| {
        let request = pki::IssueRequest {
            common_name: name.into(),
            ips: vec!["127.0.0.1".parse().unwrap()],
            usage: pki::Usage::Both,
            valid_for_days: 1,
            ..pki::IssueRequest::default()
        };
        let issued = ca.issue(request).unwrap();
        (write(format!("{name}.crt"), &issued.cert_pem), write(format!("{name}.key"), &issued.key_pem))
    };
    let client = |name: &str| {
        let (cert, key) = issue(name);
        format!(" --cacert={ca_file} --cert={cert} --key={key}")
    };
    let (cert, key) = issue("server");
    let flags = [
        format!("--cert-file={cert}"),
        format!("--key-file={key}"),
        format!("--trusted-ca-file={ca_file}"),
        "--client-cert-auth".to_owned(),
    ];
    let clients = ["root", "ann", "stranger"].map(|name| (name, client(name)));
    let both = Both::start(folder.path(), "https", &flags, &clients[0].1).await;
    let mut different = Vec::new();
    for (who, command) in BY_CERTIFICATE {
        let flags = &clients.iter().find(|(name, _)| name == who).unwrap().1;
        different.extend(both.ask(&format!("{command}{flags}"), ""));
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    both.stop().await;
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
