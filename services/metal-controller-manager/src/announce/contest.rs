//! Which of several machines announces an address. Pure: claims and times go in, decisions come out.
//!
//! Only announcers speak. Each claims its addresses aloud every [`PACE`]; a machine that could serve an address too listens, and
//! takes it when nobody better has claimed it for [`SILENCE`]. So the machines of a network need no list of each other, a
//! network that falls apart has an announcer in each part, and a thousand machines that stand by cost nothing.
//!
//! ```text
//! Listening ──nobody better for SILENCE──▶ Ours ──somebody better──▶ Listening
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::frames::Mac;

/// Between two claims of the same address.
pub const PACE: Duration = Duration::from_millis(250);
/// Who is not heard for so long has died. Four claims are lost by then.
pub const SILENCE: Duration = Duration::from_secs(1);
/// The best of those that stand by comes first, the worst so much later: then it hears the best.
pub const SPREAD: Duration = Duration::from_millis(250);

/// What one machine says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It announces it. One that is not `fit` does so only until a fit one does.
    Held { fit: bool },
    /// It announces it no more.
    GivenUp,
}

/// What a claim changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    None,
    /// The address is another's now.
    Lost,
    /// Another one thought that it was free: it, and everybody, has to be told.
    Defied,
}

/// An address that this machine can serve.
#[derive(Debug)]
struct Seat {
    /// By which hardware.
    mac: Mac,
    /// When it becomes ours unless somebody better claims it; none while it is ours.
    due: Option<Instant>,
}

/// This machine's part in the contests for all addresses that it can serve.
#[derive(Debug)]
pub struct Contest {
    seats: BTreeMap<IpAddr, Seat>,
    /// Whether this machine knows what is asked of it, and is ready for it.
    pub fit: bool,
}

impl Contest {
    /// Nothing to serve yet.
    pub fn new() -> Self {
        Contest { seats: BTreeMap::new(), fit: true }
    }

    /// Takes part for these addresses, each by its hardware, and for no others.
    pub fn stand(&mut self, wanted: &BTreeMap<IpAddr, Mac>, now: Instant) {
        self.seats.retain(|ip, seat| wanted.get(ip) == Some(&seat.mac));
        for (ip, mac) in wanted {
            // Whoever has it already says so before this time is over.
            self.seats.entry(*ip).or_insert_with(|| Seat { mac: *mac, due: Some(now + SILENCE + delay(*ip, *mac)) });
        }
    }

    /// Another machine said something.
    pub fn hear(&mut self, ip: IpAddr, from: Mac, claim: Claim, now: Instant) -> Outcome {
        let Some(seat) = self.seats.get_mut(&ip).filter(|seat| seat.mac != from) else { return Outcome::None };
        match claim {
            Claim::GivenUp => {
                seat.due = seat.due.map(|due| due.min(now + delay(ip, seat.mac)));
                Outcome::None
            }
            Claim::Held { fit } if (fit, weight(ip, from), from) > (self.fit, weight(ip, seat.mac), seat.mac) => {
                let lost = seat.due.is_none();
                seat.due = Some(now + SILENCE + delay(ip, seat.mac));
                if lost { Outcome::Lost } else { Outcome::None }
            }
            Claim::Held { .. } if seat.due.is_none() => Outcome::Defied,
            Claim::Held { .. } => Outcome::None,
        }
    }

    /// Takes what nobody better has claimed for long enough; returns what is new.
    pub fn take(&mut self, now: Instant) -> BTreeSet<IpAddr> {
        let free = self.seats.iter_mut().filter(|(_, seat)| seat.due.is_some_and(|due| due <= now));
        free.map(|(ip, seat)| {
            seat.due = None;
            *ip
        })
        .collect()
    }

    /// When there may be something to take.
    pub fn next(&self) -> Option<Instant> {
        self.seats.values().filter_map(|seat| seat.due).min()
    }

    /// What this machine announces.
    pub fn ours(&self) -> BTreeSet<IpAddr> {
        self.seats.iter().filter(|(_, seat)| seat.due.is_none()).map(|(ip, _)| *ip).collect()
    }
}

/// The heavier, the sooner.
fn delay(ip: IpAddr, mac: Mac) -> Duration {
    // The upper bits alone: a number of milliseconds times them fits.
    SPREAD * ((u64::MAX - weight(ip, mac)) >> 48) as u32 / (1 << 16)
}

/// Highest random weight: the addresses are spread over the machines, and when one goes only its addresses move.
fn weight(ip: IpAddr, mac: Mac) -> u64 {
    // FNV-1a with a final mix (as MurmurHash3), so that numbers that differ in their last bit are far apart.
    let bytes = ip.to_string().into_bytes().into_iter().chain([b'|']).chain(mac);
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u8) -> Mac {
        [2, 0, 0, 0, 0, number]
    }

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// Machines on one network, where every claim is heard by all that live.
    struct Net {
        machines: Vec<(Contest, bool)>,
        start: Instant,
        ms: u64,
    }

    impl Net {
        fn new(count: u8, addresses: u8) -> Self {
            let start = Instant::now();
            let wanted = |number| (0..addresses).map(|last| (ip(last), mac(number))).collect();
            let machine = |number| {
                let mut contest = Contest::new();
                contest.stand(&wanted(number), start);
                (contest, true)
            };
            Net { machines: (0..count).map(machine).collect(), start, ms: 0 }
        }

        fn say(&mut self, speaker: usize, ips: BTreeSet<IpAddr>, claim: Claim) {
            let (from, now) = (mac(u8::try_from(speaker).unwrap()), self.start + Duration::from_millis(self.ms));
            let mut answers = Vec::new();
            for ip in ips {
                for (listener, (contest, _)) in self.machines.iter_mut().enumerate().filter(|(_, (_, lives))| *lives) {
                    if listener != speaker && contest.hear(ip, from, claim, now) == Outcome::Defied {
                        answers.push((listener, ip));
                    }
                }
            }
            for (listener, ip) in answers {
                let fit = self.machines[listener].0.fit;
                self.say(listener, BTreeSet::from([ip]), Claim::Held { fit });
            }
        }

        /// Lets time pass in steps of five milliseconds.
        fn pass(&mut self, ms: u64) {
            for _ in 0..ms / 5 {
                self.ms += 5;
                let now = self.start + Duration::from_millis(self.ms);
                for number in 0..self.machines.len() {
                    let (contest, lives) = &mut self.machines[number];
                    let (fit, fresh, ours) = (contest.fit, contest.take(now), contest.ours());
                    if *lives {
                        let said = if self.ms.is_multiple_of(250) { ours } else { fresh };
                        self.say(number, said, Claim::Held { fit });
                    }
                }
            }
        }

        /// How many addresses each living machine announces; every one must have one announcer.
        fn shares(&self, addresses: u8) -> Vec<usize> {
            let living = self.machines.iter().filter(|(_, lives)| *lives);
            let shares: Vec<BTreeSet<IpAddr>> = living.map(|(contest, _)| contest.ours()).collect();
            let all: BTreeSet<IpAddr> = shares.iter().flatten().copied().collect();
            assert_eq!(all.len(), usize::from(addresses), "some have no announcer");
            assert_eq!(shares.iter().map(BTreeSet::len).sum::<usize>(), all.len(), "some have two");
            shares.iter().map(BTreeSet::len).collect()
        }
    }

    #[test]
    fn every_address_has_one_announcer_and_all_have_some() {
        let mut net = Net::new(3, 100);
        net.pass(900);
        assert!(net.machines.iter().all(|(contest, _)| contest.ours().is_empty()), "they listen first");
        net.pass(600);
        assert!(net.shares(100).iter().all(|share| *share > 15), "{:?}", net.shares(100));
    }

    #[test]
    fn what_a_dead_machine_had_moves_within_its_time_and_nothing_else_does() {
        let mut net = Net::new(3, 100);
        net.pass(1500);
        let before: Vec<BTreeSet<IpAddr>> = net.machines.iter().map(|(contest, _)| contest.ours()).collect();
        net.machines[1].1 = false;
        net.pass(950);
        assert_eq!(net.machines[0].0.ours(), before[0], "it may only be late");
        net.pass(310);
        net.shares(100);
        assert!(net.machines[0].0.ours().is_superset(&before[0]) && net.machines[2].0.ours().is_superset(&before[2]));
        net.machines[1].1 = true;
        net.pass(500);
        assert_eq!(net.machines[1].0.ours(), before[1], "back again");
        net.shares(100);
    }

    #[test]
    fn who_gives_up_is_followed_at_once() {
        let mut net = Net::new(3, 20);
        net.pass(1500);
        let given = net.machines[1].0.ours();
        net.machines[1].1 = false;
        net.say(1, given, Claim::GivenUp);
        net.pass(260);
        net.shares(20);
    }

    #[test]
    fn who_is_cut_off_steps_back_unless_all_are() {
        let mut net = Net::new(3, 20);
        net.machines[0].0.fit = false;
        net.pass(3000);
        assert_eq!(net.shares(20)[0], 0);
        net.machines.iter_mut().for_each(|(contest, _)| contest.fit = false);
        net.pass(3000);
        assert!(net.shares(20).iter().all(|share| *share > 0));
    }

    #[test]
    fn many_stand_by_and_few_speak() {
        let mut net = Net::new(200, 1);
        let now = net.start;
        let mut dues: Vec<Duration> = net.machines.iter().map(|(c, _)| c.next().unwrap() - now - SILENCE).collect();
        dues.sort();
        assert!(dues[199] <= SPREAD && dues[0] < SPREAD / 20 && dues[100] > SPREAD / 4, "{dues:?}");
        net.pass(1500);
        net.shares(1);
    }

    #[test]
    fn an_address_that_is_no_longer_served_here_is_let_go() {
        let (start, mut contest) = (Instant::now(), Contest::new());
        contest.stand(&BTreeMap::from([(ip(1), mac(1)), (ip(2), mac(1))]), start);
        assert_eq!(contest.take(start + SILENCE + SPREAD).len(), 2);
        contest.stand(&BTreeMap::from([(ip(1), mac(1)), (ip(2), mac(9))]), start);
        assert_eq!(contest.ours(), BTreeSet::from([ip(1)]), "other hardware begins anew");
        assert_eq!(contest.hear(ip(1), mac(1), Claim::Held { fit: true }, start), Outcome::None, "our own echo");
    }
}
