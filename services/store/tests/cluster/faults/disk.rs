//! Disks that fail, and members that come and go: what an administrator has to do about the one is the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::Rng;
use rand::rngs::SmallRng;
use store_api::etcdserverpb as pb;

use crate::harness::{Cluster, FAIL_SYNCS, FILL_DISK, LIMIT};

const PAUSE: Duration = Duration::from_millis(50);

/// How a member's disk fails.
#[derive(Clone, Copy, Debug)]
pub enum Disk {
    SyncFails,
    Full,
}

impl Disk {
    fn signal(self) -> Signal {
        match self {
            Disk::SyncFails => FAIL_SYNCS,
            Disk::Full => FILL_DISK,
        }
    }

    /// What a member says before it ends.
    fn complaint(self) -> &'static str {
        match self {
            Disk::SyncFails => "cannot sync the log",
            Disk::Full => "cannot write the log",
        }
    }

    /// The member must end by itself at the next write; on a mended disk it comes back with everything.
    pub async fn fail(self, cluster: &mut Cluster, member: usize) {
        cluster.signal(member, self.signal());
        assert!(!cluster.ended(member).await, "a failed disk is no orderly end");
        assert!(cluster.log(member).contains(self.complaint()), "{}", cluster.log(member));
        cluster.start_member(member);
        cluster.wait_ready(member).await;
    }
}

/// One more member joins, takes part, and leaves for good.
pub async fn come_and_go(cluster: &mut Cluster, voters: usize, long: Duration) {
    let guest = voters;
    let id = admit(cluster, guest).await;
    cluster.will_join(guest, &(0..voters).collect::<Vec<_>>());
    cluster.start_member(guest);
    cluster.wait_ready(guest).await;
    tokio::time::sleep(long).await;
    expel(cluster, id).await;
    assert!(!cluster.ended(guest).await);
    fs::remove_dir_all(&cluster.nodes[guest].folder).unwrap();
}

/// One bit in a table of a stopped member flips. Either nobody needs it, or the member refuses to start, and a new one takes
/// its place.
pub async fn flip_bit(cluster: &mut Cluster, voters: usize, member: usize, random: &mut SmallRng) {
    let id = cluster.id(member).await;
    cluster.kill(member);
    let Some((table, offset)) = flip(&cluster.nodes[member].folder.join("member"), random) else {
        println!("no table yet");
        cluster.start_member(member);
        return cluster.wait_ready(member).await;
    };
    cluster.start_member(member);
    if cluster.serves_or_ends(member).await {
        println!("{} at {offset} is of no use", table.display());
        return;
    }
    let log = cluster.log(member).to_lowercase();
    assert!(log.contains("corrupt"), "{} at {offset}: {log}", table.display());
    expel(cluster, id).await;
    fs::remove_dir_all(&cluster.nodes[member].folder).unwrap();
    admit(cluster, member).await;
    cluster.will_join(member, &(0..voters).filter(|m| *m != member).collect::<Vec<_>>());
    cluster.start_member(member);
    cluster.wait_ready(member).await;
}

fn flip(folder: &Path, random: &mut SmallRng) -> Option<(PathBuf, usize)> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut tables: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "sst")).collect();
    tables.sort();
    if tables.is_empty() {
        return None;
    }
    let table = tables.swap_remove(random.random_range(0..tables.len()));
    let mut bytes = fs::read(&table).unwrap();
    let offset = random.random_range(0..bytes.len());
    bytes[offset] ^= 1 << random.random_range(0..8);
    fs::write(&table, bytes).unwrap();
    Some((table, offset))
}

/// Makes a member part of the cluster, and returns its id.
async fn admit(cluster: &Cluster, member: usize) -> u64 {
    let peer_urls = vec![cluster.nodes[member].peer_url.clone()];
    let deadline = Instant::now() + LIMIT;
    loop {
        let leader = cluster.leader().await;
        let add = pb::MemberAddRequest { peer_urls: peer_urls.clone(), is_learner: false };
        let added = cluster.clients(leader).cluster.member_add(add).await;
        // What went wrong may have happened all the same.
        let list = cluster.clients(leader).cluster.member_list(pb::MemberListRequest { linearizable: true }).await;
        let members = list.map(|list| list.into_inner().members).unwrap_or_default();
        if let Some(member) = members.into_iter().find(|member| member.peer_urls == peer_urls) {
            return member.id;
        }
        assert!(Instant::now() < deadline, "{added:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Removes a member from the cluster.
async fn expel(cluster: &Cluster, id: u64) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let leader = cluster.leader().await;
        let removed = cluster.clients(leader).cluster.member_remove(pb::MemberRemoveRequest { id }).await;
        match &removed {
            Ok(_) => return,
            Err(status) if status.message() == "etcdserver: member not found" => return,
            Err(_) => {}
        }
        assert!(Instant::now() < deadline, "{removed:?}");
        tokio::time::sleep(PAUSE).await;
    }
}
