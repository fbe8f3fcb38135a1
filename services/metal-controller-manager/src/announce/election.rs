//! Which machine announces which address. Pure: every machine computes the same from the Leases that it sees.
//!
//! Clocks are not compared. A machine renews its own Lease at a fixed pace, and another one is taken for dead when
//! several of our renewals have passed without one of its own. While the API server stands still nobody's renewals
//! pass, so nothing moves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Addresses, and the machines that can serve each; all can where none are named.
pub type Addresses = BTreeMap<IpAddr, Option<BTreeSet<String>>>;

/// Renewals of our own that another machine may let pass; with one more it is dead.
const MISSES_MAX: u32 = 2;

/// The other machines that announce.
#[derive(Debug, Default)]
pub struct Members(BTreeMap<String, u32>);

impl Members {
    /// A machine renewed its Lease, or has its first one.
    pub fn seen(&mut self, name: &str) {
        self.0.insert(name.to_owned(), 0);
    }

    /// A machine took its Lease back.
    pub fn left(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// We renewed ours. Returns whether somebody has died by that.
    pub fn renewed(&mut self) -> bool {
        let mut died = false;
        for misses in self.0.values_mut() {
            died |= *misses == MISSES_MAX;
            *misses = misses.saturating_add(1);
        }
        died
    }

    /// The others that live.
    pub fn living(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, misses)| **misses <= MISSES_MAX).map(|(name, _)| name.as_str())
    }

    /// Those of the addresses that are for us to announce. `isolated` says that our own renewals fail: then the others,
    /// if there are any, have taken over.
    pub fn ours(&self, me: &str, addresses: &Addresses, isolated: bool) -> BTreeSet<IpAddr> {
        if isolated && self.living().next().is_some() {
            return BTreeSet::new();
        }
        let wins = |(ip, able): &(&IpAddr, &Option<BTreeSet<String>>)| {
            let is_able = |name: &str| able.as_ref().is_none_or(|able| able.contains(name));
            is_able(me) && self.living().filter(|other| is_able(other)).all(|other| weight(ip, me) > weight(ip, other))
        };
        addresses.iter().filter(wins).map(|(ip, _)| *ip).collect()
    }
}

/// Highest random weight: when a machine goes, only its addresses move.
fn weight<'n>(ip: &IpAddr, name: &'n str) -> (u64, &'n str) {
    // FNV-1a with a final mix (as MurmurHash3), so that names that differ in their last letter are far apart.
    let bytes = ip.to_string().into_bytes().into_iter().chain([b'|']).chain(name.bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (hash ^ (hash >> 33), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        (0..100).map(|last| (IpAddr::from([192, 0, 2, last]), None)).collect()
    }

    fn all_of(addresses: &Addresses) -> BTreeSet<IpAddr> {
        addresses.keys().copied().collect()
    }

    fn members(names: &[&str]) -> Members {
        let mut members = Members::default();
        names.iter().for_each(|name| members.seen(name));
        members
    }

    #[test]
    fn every_address_has_one_announcer_and_all_have_some() {
        let all = addresses();
        let shares = [
            members(&["b", "c"]).ours("a", &all, false),
            members(&["a", "c"]).ours("b", &all, false),
            members(&["a", "b"]).ours("c", &all, false),
        ];
        assert_eq!(shares.iter().map(BTreeSet::len).sum::<usize>(), 100);
        assert!(shares.iter().all(|share| share.len() > 20), "{shares:?}");
        let mut union = BTreeSet::new();
        shares.iter().for_each(|share| union.extend(share));
        assert_eq!(union, all_of(&all));
        let without_c = members(&["b"]).ours("a", &all, false);
        assert!(shares[0].is_subset(&without_c), "only the addresses of the dead move");
    }

    #[test]
    fn a_machine_dies_by_missing_our_renewals() {
        let all = addresses();
        let mut members = members(&["b"]);
        for _ in 0..MISSES_MAX {
            assert!(!members.renewed());
        }
        assert!(members.ours("a", &all, false).len() < 100, "it may only be late");
        members.seen("b");
        (0..MISSES_MAX).for_each(|_| assert!(!members.renewed()));
        assert!(members.renewed(), "now it is dead");
        assert_eq!(members.ours("a", &all, false), all_of(&all));
        assert!(!members.renewed(), "said once");
        members.seen("b");
        assert!(members.ours("a", &all, false).len() < 100, "back again");
    }

    #[test]
    fn who_is_cut_off_steps_back_unless_alone() {
        let all = addresses();
        assert!(members(&["b"]).ours("a", &all, true).is_empty());
        assert_eq!(Members::default().ours("a", &all, true), all_of(&all));
    }

    #[test]
    fn only_machines_that_can_serve_an_address_announce_it() {
        let able = |names: &[&str]| -> Addresses {
            addresses().into_keys().map(|ip| (ip, Some(names.iter().map(|n| (*n).to_owned()).collect()))).collect()
        };
        assert_eq!(members(&["b", "c"]).ours("a", &able(&["a", "gone"]), false), all_of(&addresses()));
        assert!(members(&["b"]).ours("a", &able(&["b"]), false).is_empty());
        assert!(members(&["b"]).ours("a", &able(&[]), false).is_empty(), "nobody can");
        let both = able(&["a", "b"]);
        let shares = [members(&["b", "c"]).ours("a", &both, false), members(&["a", "c"]).ours("b", &both, false)];
        assert_eq!(shares.iter().map(BTreeSet::len).sum::<usize>(), 100);
    }
}
