//! How a member with an empty data directory becomes one: it founds a cluster with others, or joins one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Identity, MemberNode, random_id};
use crate::config::{ClusterFlags, ClusterState, Config, Url};
use crate::error::Error;
use crate::raft::transport::Transport;
use crate::raft::wire::pb;
use crate::raft::wire::pb::peer_client::PeerClient;

/// How long other members may take to say whether they know this one.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// How long a member that joins looks for itself: the one it asks may not have heard of the addition yet.
const JOIN_LIMIT: Duration = Duration::from_secs(20);

/// What to do at start.
#[derive(Clone, Debug)]
pub struct Start {
    /// Who this member is.
    pub identity: Identity,
    /// The first members, if this is one of them.
    pub founders: BTreeMap<u64, MemberNode>,
    /// All members as others described them, if this one joins.
    pub met: BTreeMap<u64, MemberNode>,
}

fn hash(parts: &[&[u8]]) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let bytes = digest.finalize();
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[..8]);
    u64::from_be_bytes(number).max(1)
}

/// The first members of a cluster of several: all of them must come to the same ids without having met.
fn founders(config: &Config) -> Result<(u64, BTreeMap<u64, MemberNode>), Error> {
    let named = config.cluster.first_members().map_err(|e| Error::Layout(e.to_string()))?;
    Ok(with_ids(named, &config.cluster.initial_cluster_token))
}

/// The cluster, this member and the founders of a cluster that starts from a snapshot. The snapshot's digest goes into
/// the ids: neither the old cluster's members nor those of another restoration are taken for members.
///
/// # Errors
/// Flags that do not fit together.
pub fn restored(
    flags: &ClusterFlags,
    own: (&str, &[Url]),
    salt: &str,
) -> Result<(u64, u64, BTreeMap<u64, MemberNode>), Error> {
    let mut named = flags.first_members().map_err(|e| Error::Layout(e.to_string()))?;
    if named.is_empty() {
        named.insert(own.0.to_owned(), own.1.iter().map(Url::to_string).collect());
    }
    let (cluster, founders) = with_ids(named, &format!("{}-{salt}", flags.initial_cluster_token));
    let member = founders.iter().find(|(_, node)| node.name == own.0).map(|(id, _)| *id);
    let member = member.ok_or_else(|| Error::Layout("--initial-cluster does not name this member".into()))?;
    Ok((cluster, member, founders))
}

fn with_ids(named: BTreeMap<String, BTreeSet<String>>, token: &str) -> (u64, BTreeMap<u64, MemberNode>) {
    let token = token.as_bytes();
    let mut members = BTreeMap::new();
    for (name, urls) in named {
        let urls: Vec<String> = urls.into_iter().collect();
        let id = hash(&[b"member", token, urls.join(",").as_bytes()]);
        members.insert(id, MemberNode { name, peer_urls: urls, ..MemberNode::default() });
    }
    let ids: Vec<u8> = members.keys().flat_map(|id| id.to_be_bytes()).collect();
    (hash(&[b"cluster", token, &ids]), members)
}

/// Decides from what the data directory says, the flags, and what the other members answer. `has_entries`: the cluster
/// has reached this member with its log or a snapshot.
///
/// # Errors
/// The other members know this one already, or (for one that joins) do not know it or do not answer.
pub async fn decide(
    known: Option<Identity>,
    has_entries: bool,
    config: &Config,
    transport: &Transport,
) -> Result<Start, Error> {
    let flags = &config.cluster;
    let several = flags.first_members().map_err(|e| Error::Layout(e.to_string()))?.len() > 1;
    let alone = |identity: Identity| Start {
        identity,
        founders: BTreeMap::from([(identity.member, MemberNode::of(config, identity.incarnation))]),
        met: BTreeMap::new(),
    };
    if let Some(identity) = known {
        if !identity.founder && !has_entries {
            // It may have been removed before anything reached it, and nobody would tell: it has to know whom to ask.
            return Ok(Start { met: meet_again(identity.cluster, config, transport).await?, ..alone(identity) });
        }
        if !identity.founder || !several {
            return Ok(alone(identity));
        }
        let (_, founders) = founders(config)?;
        return Ok(Start { identity, founders, met: BTreeMap::new() });
    }
    let incarnation = random_id();
    if flags.initial_cluster_state == ClusterState::Existing {
        return join(config, transport, incarnation).await;
    }
    if !several {
        let identity = Identity { cluster: random_id(), member: random_id(), incarnation, founder: true };
        return Ok(alone(identity));
    }
    let (cluster, founders) = founders(config)?;
    let own: Vec<String> = config.initial_advertise_peer_urls.iter().map(Url::to_string).collect();
    let me = founders.iter().find(|(_, node)| node.name == config.name).map(|(id, _)| *id);
    let member = me.ok_or_else(|| Error::Layout("--initial-cluster does not name this member".into()))?;
    for answer in ask(config, transport, &own).await {
        let known = answer.members.iter().find(|m| m.id == member);
        if answer.cluster == cluster && known.is_some_and(|m| m.incarnation != 0) {
            return Err(Error::Layout(format!(
                "member {member:x} has already been bootstrapped: with an empty data directory it can only come back as a new member"
            )));
        }
    }
    let identity = Identity { cluster, member, incarnation, founder: true };
    Ok(Start { identity, founders, met: BTreeMap::new() })
}

/// Asks all other members of `--initial-cluster` at once what they know; who does not answer in time has no say.
async fn ask(config: &Config, transport: &Transport, own: &[String]) -> Vec<pb::DescribeResponse> {
    let others = config.cluster.initial_cluster.iter().filter_map(|pair| pair.split_once('=')).map(|(_, url)| url);
    let calls = others.filter(|url| !own.iter().any(|o| o == url)).map(|url| {
        let mut peer = PeerClient::new(transport.connect(&[url.to_owned()]));
        async move {
            let answer = tokio::time::timeout(ASK_LIMIT, peer.describe(pb::DescribeRequest {})).await;
            match answer {
                Ok(Ok(answer)) => Some(answer.into_inner()),
                Ok(Err(error)) => {
                    tracing::info!(url, %error, "a member of --initial-cluster does not answer");
                    None
                }
                Err(_) => {
                    tracing::info!(url, "a member of --initial-cluster does not answer in time");
                    None
                }
            }
        }
    });
    futures_util::future::join_all(calls).await.into_iter().flatten().collect()
}

async fn join(config: &Config, transport: &Transport, incarnation: u64) -> Result<Start, Error> {
    let mut own: Vec<String> = config.initial_advertise_peer_urls.iter().map(Url::to_string).collect();
    own.sort();
    let deadline = Instant::now() + JOIN_LIMIT;
    loop {
        let mut started = None;
        let answers = ask(config, transport, &own).await;
        for answer in &answers {
            let mine = |m: &&pb::Member| {
                let mut urls = m.peer_urls.clone();
                urls.sort();
                urls == own
            };
            match answer.members.iter().find(mine) {
                Some(found) if found.incarnation == 0 => {
                    let identity = Identity { cluster: answer.cluster, member: found.id, incarnation, founder: false };
                    return Ok(Start { identity, founders: BTreeMap::new(), met: met(answer) });
                }
                Some(found) => started = Some(found.id),
                None => {}
            }
        }
        if let Some(id) = started {
            return Err(Error::Layout(format!(
                "member {id:x} with these peer URLs was started before: remove it from the cluster and add it as a new one"
            )));
        }
        if Instant::now() >= deadline {
            let reason = match answers.is_empty() {
                true => "no other member of --initial-cluster answers",
                false => "unmatched member while checking PeerURLs: add this member to the cluster first",
            };
            return Err(Error::Layout(format!("cannot join: {reason}")));
        }
        tokio::time::sleep(ASK_LIMIT / 4).await;
    }
}

/// The members of `cluster`, as one of them knows them.
async fn meet_again(cluster: u64, config: &Config, transport: &Transport) -> Result<BTreeMap<u64, MemberNode>, Error> {
    let own: Vec<String> = config.initial_advertise_peer_urls.iter().map(Url::to_string).collect();
    let deadline = Instant::now() + JOIN_LIMIT;
    loop {
        let answers = ask(config, transport, &own).await;
        match answers.iter().filter(|answer| answer.cluster == cluster).map(met).find(|members| !members.is_empty()) {
            Some(members) => return Ok(members),
            None if Instant::now() >= deadline => {
                return Err(Error::Layout("cannot join: no other member of --initial-cluster answers".into()));
            }
            None => tokio::time::sleep(ASK_LIMIT / 4).await,
        }
    }
}

fn met(answer: &pb::DescribeResponse) -> BTreeMap<u64, MemberNode> {
    let node = |m: &pb::Member| MemberNode {
        peer_urls: m.peer_urls.clone(),
        incarnation: m.incarnation,
        ..MemberNode::default()
    };
    answer.members.iter().map(|m| (m.id, node(m))).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn config(name: &str, token: &str) -> Config {
        Config::try_parse_from([
            "store",
            "--data-dir=/d",
            &format!("--name={name}"),
            "--initial-cluster=a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3",
            &format!("--initial-cluster-token={token}"),
        ])
        .unwrap()
    }

    #[test]
    fn founders_agree_on_ids_without_having_met() {
        let (cluster, members) = founders(&config("a", "t")).unwrap();
        assert_eq!(founders(&config("b", "t")).unwrap(), (cluster, members.clone()));
        assert_eq!(members.len(), 3);
        let (other, others) = founders(&config("a", "u")).unwrap();
        assert!(other != cluster && others.keys().all(|id| !members.contains_key(id)));
    }
}
