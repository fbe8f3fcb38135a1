//! Whether a change of the membership may be made. Pure; the rules and refusals are etcd's.

use std::collections::BTreeSet;

use super::MemberNode;
use crate::config::Url;
use crate::error::Refusal;

/// A member and what the leader knows about it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its id.
    pub id: u64,
    /// What all members know.
    pub node: MemberNode,
    /// It does not vote and was not added to.
    pub learner: bool,
    /// It answered the leader lately, or is the leader.
    pub active: bool,
    /// The last entry it is known to have.
    pub matched: u64,
}

impl Known {
    fn started(&self) -> bool {
        !self.node.name.is_empty()
    }
}

fn check_urls(members: &[Known], own: Option<u64>, urls: &[String]) -> Result<(), Refusal> {
    if urls.is_empty() || urls.iter().any(|url| url.parse::<Url>().is_err()) {
        return Err(Refusal::BadMemberUrls);
    }
    let others = members.iter().filter(|member| Some(member.id) != own);
    let taken: BTreeSet<&String> = others.flat_map(|member| &member.node.peer_urls).collect();
    if urls.iter().any(|url| taken.contains(url)) { Err(Refusal::PeerUrlExists) } else { Ok(()) }
}

fn find(members: &[Known], id: u64) -> Result<&Known, Refusal> {
    members.iter().find(|member| member.id == id).ok_or(Refusal::MemberNotFound)
}

fn voters(members: &[Known]) -> impl Iterator<Item = &Known> {
    members.iter().filter(|member| !member.learner)
}

/// Checks an addition.
///
/// # Errors
/// Bad or taken URLs, too many learners, or too few of the voters were ever started.
pub fn add(
    members: &[Known],
    urls: &[String],
    learner: bool,
    max_learners: usize,
    strict: bool,
) -> Result<(), Refusal> {
    check_urls(members, None, urls)?;
    if learner {
        let learners = members.iter().filter(|member| member.learner).count();
        return if learners >= max_learners { Err(Refusal::TooManyLearners) } else { Ok(()) };
    }
    let started = voters(members).filter(|member| member.started()).count();
    let after = voters(members).count() + 1;
    // The second member of a cluster of one is always allowed.
    if strict && started < after / 2 + 1 && !(started == 1 && after == 2) {
        return Err(Refusal::NotEnoughStarted);
    }
    Ok(())
}

/// Checks a removal; `leader` decides.
///
/// # Errors
/// There is no such member, or too few would be left.
pub fn remove(members: &[Known], leader: u64, id: u64, strict: bool) -> Result<(), Refusal> {
    let member = find(members, id)?;
    if member.learner {
        return Ok(());
    }
    let left: Vec<&Known> = voters(members).filter(|other| other.id != id).collect();
    if left.is_empty() {
        return Err(Refusal::NotEnoughStarted);
    }
    if !strict {
        return Ok(());
    }
    if left.iter().filter(|other| other.started()).count() < left.len() / 2 + 1 {
        return Err(Refusal::NotEnoughStarted);
    }
    // A member that is down is not part of the quorum, so removing it costs nothing.
    let down = id != leader && !member.active;
    let active = voters(members).filter(|other| other.active).count();
    if !down && active - usize::from(member.active) < left.len() / 2 + 1 {
        return Err(Refusal::Unhealthy);
    }
    Ok(())
}

/// Checks new peer URLs.
///
/// # Errors
/// There is no such member, or the URLs are bad or taken.
pub fn update(members: &[Known], id: u64, urls: &[String]) -> Result<(), Refusal> {
    find(members, id)?;
    check_urls(members, Some(id), urls)
}

/// Checks a promotion; `last` is the leader's last entry.
///
/// # Errors
/// There is no such member, it votes already, or it is too far behind.
pub fn promote(members: &[Known], id: u64, last: u64) -> Result<(), Refusal> {
    let member = find(members, id)?;
    if !member.learner {
        return Err(Refusal::NotLearner);
    }
    // Nine tenths of the log, as etcd wants it.
    if u128::from(member.matched) * 10 < u128::from(last) * 9 { Err(Refusal::LearnerNotReady) } else { Ok(()) }
}

/// Members added as voters that have caught up: within this many entries.
pub fn caught_up(members: &[Known], last: u64) -> BTreeSet<u64> {
    const NEAR: u64 = 100;
    let near = |member: &&Known| member.node.to_vote && member.active && last.saturating_sub(member.matched) <= NEAR;
    members.iter().filter(near).map(|member| member.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member as "v" or "l" (voter, learner), then "s" (started), then "a" (active).
    fn members(kinds: &[&str]) -> Vec<Known> {
        let member = |(place, kind): (usize, &&str)| {
            let name = if kind.contains('s') { format!("m{place}") } else { String::new() };
            let node = MemberNode { name, peer_urls: vec![format!("http://10.0.0.{place}:1")], ..Default::default() };
            Known { id: place as u64, node, learner: kind.contains('l'), active: kind.contains('a'), matched: 50 }
        };
        kinds.iter().enumerate().map(member).collect()
    }

    fn url(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn additions() {
        let new = url("http://10.0.0.9:1");
        type Case<'a> = (&'a [&'a str], &'a [String], bool, Result<(), Refusal>);
        let cases: [Case; 8] = [
            (&["vsa"], &new, false, Ok(())),
            (&["vsa", "v"], &new, false, Err(Refusal::NotEnoughStarted)),
            (&["vsa", "vsa", "v"], &new, false, Err(Refusal::NotEnoughStarted)),
            (&["vsa", "vs", "vsa"], &new, false, Ok(())),
            (&["vsa"], &new, true, Ok(())),
            (&["vsa", "l"], &new, true, Err(Refusal::TooManyLearners)),
            (&["vsa"], &url("http://10.0.0.0:1"), false, Err(Refusal::PeerUrlExists)),
            (&["vsa"], &url("10.0.0.9"), false, Err(Refusal::BadMemberUrls)),
        ];
        for (kinds, urls, learner, expected) in cases {
            assert_eq!(add(&members(kinds), urls, learner, 1, true), expected, "{kinds:?} {urls:?}");
        }
        assert_eq!(add(&members(&["vsa", "v"]), &new, false, 1, false), Ok(()));
        assert_eq!(add(&members(&["vsa"]), &[], false, 1, true), Err(Refusal::BadMemberUrls));
    }

    #[test]
    fn removals() {
        let cases: [(&[&str], u64, Result<(), Refusal>); 8] = [
            (&["vsa"], 0, Err(Refusal::NotEnoughStarted)),
            (&["vsa", "vsa", "vsa"], 7, Err(Refusal::MemberNotFound)),
            (&["vsa", "vsa", "vsa"], 1, Ok(())),
            (&["vsa", "vsa", "vsa"], 0, Ok(())),
            (&["vsa", "vsa", "vs"], 2, Ok(())),
            (&["vsa", "vsa", "vs"], 1, Err(Refusal::Unhealthy)),
            (&["vsa", "v", "vsa"], 2, Err(Refusal::NotEnoughStarted)),
            (&["vsa", "ls"], 1, Ok(())),
        ];
        for (kinds, id, expected) in cases {
            assert_eq!(remove(&members(kinds), 0, id, true), expected, "{kinds:?} {id}");
        }
    }

    #[test]
    fn promotions_and_updates() {
        let all = members(&["vsa", "lsa"]);
        assert_eq!(promote(&all, 1, 55), Ok(()));
        assert_eq!(promote(&all, 1, 56), Err(Refusal::LearnerNotReady));
        assert_eq!(promote(&all, 0, 50), Err(Refusal::NotLearner));
        assert_eq!(promote(&all, 9, 50), Err(Refusal::MemberNotFound));
        assert_eq!(update(&all, 1, &url("http://10.0.0.1:1")), Ok(()));
        assert_eq!(update(&all, 1, &url("http://10.0.0.0:1")), Err(Refusal::PeerUrlExists));
        assert_eq!(update(&all, 9, &url("http://10.0.0.8:1")), Err(Refusal::MemberNotFound));
        let mut all = members(&["vsa", "sa", "s", "sa"]);
        (1..4).for_each(|place| all[place].node.to_vote = true);
        all[3].matched = 10;
        assert_eq!(caught_up(&all, 120), BTreeSet::from([1]));
    }
}
