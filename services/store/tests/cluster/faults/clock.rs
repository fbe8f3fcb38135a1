//! Wall clocks that jump, by libfaketime where it is installed. Only the wall clock: the monotonic one never jumps.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::SmallRng;

use store_api::etcdserverpb as pb;

use crate::harness::{Cluster, LIMIT};

/// The library looks at the file this often.
const LOOKS: Duration = Duration::from_secs(1);

/// Debian's place for it.
fn library() -> Option<PathBuf> {
    let path = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    Some(PathBuf::from(path)).filter(|path| path.exists())
}

/// What a member's process needs in its environment for its clock to follow `file`; nothing without the library.
pub fn environment(file: &Path) -> Vec<(&'static str, String)> {
    let Some(library) = library() else { return Vec::new() };
    set(file, 0);
    vec![
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_CACHE_DURATION", LOOKS.as_secs().to_string()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

fn set(file: &Path, offset: i64) {
    // As a whole: a half-written offset is one, too.
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{offset:+}\n")).unwrap();
    std::fs::rename(&new, file).unwrap();
}

/// A member's clock jumps by up to two days in either direction, and back.
pub async fn jump(cluster: &Cluster, member: usize, random: &mut SmallRng) {
    if library().is_none() {
        println!("left out: no libfaketime (package faketime)");
        return;
    }
    let file = cluster.clock(member);
    set(&file, random.random_range(-172_800..172_800));
    tokio::time::sleep(2 * LOOKS).await;
    set(&file, 0);
    tokio::time::sleep(LOOKS).await;
}

/// The library does what is expected of it: a process's wall clock jumps while it runs, its monotonic one does not.
#[tokio::test]
async fn a_members_clock_follows_its_file() {
    if library().is_none() {
        println!("left out: no libfaketime (package faketime)");
        return;
    }
    let cluster = Cluster::start(1, 0, &[]).await;
    set(&cluster.clock(0), 10 * 365 * 86_400);
    tokio::time::sleep(2 * LOOKS).await;
    let mut kv = cluster.clients(0).kv;
    kv.put(crate::client::put("/k", "v")).await.unwrap();
    // A member tells of it, with the time.
    kv.compact(pb::CompactionRequest { revision: 2, ..Default::default() }).await.unwrap();
    let deadline = Instant::now() + LIMIT;
    while !cluster.log(0).contains("compacted") {
        assert!(Instant::now() < deadline, "nothing is told:\n{}", cluster.log(0));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let years: Vec<i32> = cluster.log(0).lines().filter_map(|line| line.get(..4)?.parse().ok()).collect();
    assert!(years.last() > years.first().map(|first| first + 8).as_ref(), "{}", cluster.log(0));
}
