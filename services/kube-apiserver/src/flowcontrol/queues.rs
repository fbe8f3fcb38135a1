//! The seats of one priority level and who gets them, as a pure function of arrivals, departures and the time (KEP-1040).
//!
//! A request needs one or more seats. While seats are free it runs at once. Else it waits in one of the queues its flow was dealt
//! (shuffle sharding: a flow that floods fills its own hand of queues, and hardly another flow has the same hand), and queues take turns
//! by start-time fair queueing: each carries the virtual time up to which it has been served, and the one that is furthest behind is next.
//! Times are [`Duration`]s since any fixed moment; work is counted in seat-seconds.

use std::collections::VecDeque;
use std::time::Duration;

/// What a request is taken to cost before it is known, per seat. Corrected when it ends.
const GUESS: f64 = 0.003;

/// How a level is divided into queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many queues; 0: nothing waits, what finds no seat is refused.
    pub queues: usize,
    /// How many of them a flow may use.
    pub hand: usize,
    /// How many requests may wait in one.
    pub length: usize,
}

impl Shape {
    /// Nothing waits.
    pub const NO_QUEUES: Self = Self { queues: 0, hand: 0, length: 0 };
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No seat is free and the level has no queues.
    ConcurrencyLimit,
    /// The shortest queue of the flow's hand is full.
    QueueFull,
    /// It waited too long.
    TimeOut,
    /// The client left.
    Cancelled,
}

impl Reason {
    /// All there are, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::ConcurrencyLimit, Self::QueueFull, Self::TimeOut, Self::Cancelled];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The right to run; to be given back.
#[derive(Debug, PartialEq)]
pub struct Grant {
    lane: Option<usize>,
    seats: u32,
    begun: Duration,
}

impl Grant {
    /// How many seats it is for.
    pub fn seats(&self) -> u32 {
        self.seats
    }
}

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    lane: usize,
    number: u64,
}

/// What becomes of a request.
#[derive(Debug, PartialEq)]
pub enum Arrival {
    /// It runs.
    Run(Grant),
    /// It waits until its token comes out of a later call, or until it leaves.
    Wait(Place),
    /// It is turned away.
    Refuse(Reason),
}

#[derive(Debug)]
struct Waiting<T> {
    number: u64,
    seats: u32,
    token: T,
}

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<Waiting<T>>,
    running: u32,
    /// Seat-seconds this queue has been given, in virtual time.
    served: f64,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), running: 0, served: 0.0 }
    }
}

/// One level's seats and queues. `T` is what the caller knows a waiting request by.
#[derive(Debug)]
pub struct Queues<T> {
    shape: Shape,
    limit: u32,
    lanes: Vec<Lane<T>>,
    used: u32,
    running: u32,
    wanted: u32,
    waiting: u32,
    active: u32,
    virtual_now: f64,
    now: Duration,
    robin: usize,
    numbers: u64,
    demand: Demand,
}

impl<T> Queues<T> {
    /// An idle level with this many seats.
    pub fn new(shape: Shape, limit: u32) -> Self {
        let lanes = std::iter::repeat_with(Lane::default).take(shape.queues).collect();
        Self {
            shape,
            limit,
            lanes,
            used: 0,
            running: 0,
            wanted: 0,
            waiting: 0,
            active: 0,
            virtual_now: 0.0,
            now: Duration::ZERO,
            robin: 0,
            numbers: 0,
            demand: Demand::default(),
        }
    }

    /// Another shape from now on. Queues that are no longer dealt are emptied in their turn.
    pub fn reshape(&mut self, shape: Shape) {
        self.shape = shape;
        if self.lanes.len() < shape.queues {
            self.lanes.resize_with(shape.queues, Lane::default);
        }
    }

    /// Another number of seats; what may run now.
    pub fn resize(&mut self, now: Duration, limit: u32) -> Vec<(T, Grant)> {
        self.advance(now);
        self.limit = limit;
        self.dispatch()
    }

    /// Seats there are.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Seats taken.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Requests that run.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// Requests that wait.
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// A request of a flow comes. `token` is only made if it has to wait.
    pub fn arrive(&mut self, now: Duration, flow: u64, seats: u32, token: impl FnOnce() -> T) -> Arrival {
        self.advance(now);
        if self.shape.queues == 0 {
            return if self.fits(seats) {
                Arrival::Run(self.begin(None, seats))
            } else {
                Arrival::Refuse(Reason::ConcurrencyLimit)
            };
        }
        let lane = self.shortest(flow);
        if self.lanes[lane].waiting.len() >= self.shape.length {
            return Arrival::Refuse(Reason::QueueFull);
        }
        if self.is_idle(lane) {
            // It has no claim to what it did not use while it was away.
            self.lanes[lane].served = self.virtual_now;
        }
        if self.waiting == 0 && self.fits(seats) {
            return Arrival::Run(self.begin(Some(lane), seats));
        }
        self.numbers += 1;
        let number = self.numbers;
        self.active += u32::from(self.is_idle(lane));
        self.lanes[lane].waiting.push_back(Waiting { number, seats, token: token() });
        self.wanted += seats;
        self.waiting += 1;
        self.note();
        Arrival::Wait(Place { lane, number })
    }

    /// A request has ended; what may run now.
    pub fn finish(&mut self, now: Duration, grant: &Grant) -> Vec<(T, Grant)> {
        self.advance(now);
        self.used -= grant.seats;
        self.running -= 1;
        if let Some(lane) = grant.lane {
            let took = now.saturating_sub(grant.begun).as_secs_f64();
            let lane_state = &mut self.lanes[lane];
            lane_state.running -= 1;
            lane_state.served += (took - GUESS) * f64::from(grant.seats);
            self.active -= u32::from(self.is_idle(lane));
        }
        self.note();
        self.dispatch()
    }

    /// A request stops waiting; `false` if it does not wait any more. What may run now.
    pub fn leave(&mut self, now: Duration, place: Place) -> (bool, Vec<(T, Grant)>) {
        self.advance(now);
        let lane = &mut self.lanes[place.lane];
        let Some(index) = lane.waiting.iter().position(|w| w.number == place.number) else {
            return (false, Vec::new());
        };
        if let Some(gone) = lane.waiting.remove(index) {
            self.wanted -= gone.seats;
            self.waiting -= 1;
        }
        self.active -= u32::from(self.is_idle(place.lane));
        self.note();
        // What stood behind it may need fewer seats.
        (true, self.dispatch())
    }

    /// How many seats were asked for since the last call.
    pub fn take_demand(&mut self, now: Duration) -> Observed {
        self.advance(now);
        self.demand.take(f64::from(self.used + self.wanted))
    }

    fn is_idle(&self, lane: usize) -> bool {
        self.lanes[lane].running == 0 && self.lanes[lane].waiting.is_empty()
    }

    /// A request wider than the whole level runs alone.
    fn fits(&self, seats: u32) -> bool {
        if seats > self.limit { self.running == 0 } else { self.used + seats <= self.limit }
    }

    fn begin(&mut self, lane: Option<usize>, seats: u32) -> Grant {
        self.used += seats;
        self.running += 1;
        if let Some(lane) = lane {
            self.active += u32::from(self.is_idle(lane));
            let lane = &mut self.lanes[lane];
            lane.running += 1;
            lane.served += GUESS * f64::from(seats);
        }
        self.note();
        Grant { lane, seats, begun: self.now }
    }

    /// Runs what there are seats for, fairest first. A request that is next but too wide is waited for: otherwise it would starve.
    fn dispatch(&mut self) -> Vec<(T, Grant)> {
        let mut started = Vec::new();
        while self.waiting > 0 {
            let Some((lane, seats)) = self.next() else { break };
            if !self.fits(seats) {
                break;
            }
            let Some(next) = self.lanes[lane].waiting.pop_front() else { break };
            self.wanted -= seats;
            self.waiting -= 1;
            // Keeps the count right while the lane is empty for a moment.
            self.active -= u32::from(self.is_idle(lane));
            started.push((next.token, self.begin(Some(lane), seats)));
            self.robin = lane;
        }
        started
    }

    /// The queue whose first request would be done first in virtual time; equals take turns.
    fn next(&self) -> Option<(usize, u32)> {
        let lanes = self.lanes.len();
        let finish = |(lane, seats): &(usize, u32)| self.lanes[*lane].served + GUESS * f64::from(*seats);
        (1..=lanes)
            .map(|step| (self.robin + step) % lanes)
            .filter_map(|lane| self.lanes[lane].waiting.front().map(|w| (lane, w.seats)))
            .min_by(|a, b| finish(a).total_cmp(&finish(b)))
    }

    /// The queue of the flow's hand with the least work in it.
    fn shortest(&self, flow: u64) -> usize {
        let work = |lane: &usize| {
            let lane = &self.lanes[*lane];
            (lane.waiting.iter().map(|w| w.seats).sum::<u32>(), lane.running)
        };
        deal(flow, self.shape.queues, self.shape.hand).into_iter().min_by_key(work).unwrap_or_default()
    }

    /// Virtual time passes at the rate at which each queue that wants something is served.
    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.now).as_secs_f64();
        self.now = self.now.max(now);
        let serving = (self.used + self.wanted).min(self.limit.max(1));
        if self.active > 0 {
            self.virtual_now += passed * f64::from(serving) / f64::from(self.active);
        }
        self.demand.pass(passed);
    }

    fn note(&mut self) {
        self.demand.set(f64::from(self.used + self.wanted));
    }
}

/// Different queues for a flow, each hand as likely as any other.
fn deal(flow: u64, queues: usize, hand: usize) -> Vec<usize> {
    let mut left = flow;
    let mut dealt: Vec<usize> = Vec::with_capacity(hand);
    for i in 0..hand.min(queues) {
        let deck = (queues - i) as u64;
        // Smaller than the deck, which is a usize.
        let mut card = (left % deck) as usize;
        left /= deck;
        let mut sorted = dealt.clone();
        sorted.sort_unstable();
        for taken in sorted {
            card += usize::from(card >= taken);
        }
        dealt.push(card);
    }
    dealt
}

/// Seats asked for over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observed {
    /// The most at any moment.
    pub high: f64,
    /// The time-weighted mean.
    pub mean: f64,
    /// The standard deviation.
    pub deviation: f64,
}

#[derive(Debug, Default)]
struct Demand {
    now: f64,
    high: f64,
    seconds: f64,
    sum: f64,
    squares: f64,
}

impl Demand {
    fn set(&mut self, seats: f64) {
        self.now = seats;
        self.high = self.high.max(seats);
    }

    fn pass(&mut self, seconds: f64) {
        self.seconds += seconds;
        self.sum += self.now * seconds;
        self.squares += self.now * self.now * seconds;
    }

    fn take(&mut self, now: f64) -> Observed {
        let taken = std::mem::replace(self, Self { now, high: now, ..Self::default() });
        if taken.seconds <= 0.0 {
            return Observed { high: taken.high, mean: taken.now, deviation: 0.0 };
        }
        let mean = taken.sum / taken.seconds;
        let variance = (taken.squares / taken.seconds - mean * mean).max(0.0);
        Observed { high: taken.high, mean, deviation: variance.sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { queues: 64, hand: 6, length: 10 };

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn run(arrival: Arrival) -> Grant {
        match arrival {
            Arrival::Run(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    fn wait(arrival: Arrival) -> Place {
        match arrival {
            Arrival::Wait(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hands_are_different_queues_and_all_are_used() {
        let mut used = [0u32; 16];
        for flow in 0..5000u64 {
            let flow = flow.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut hand = deal(flow, 16, 4);
            hand.iter().for_each(|q| used[*q] += 1);
            hand.sort_unstable();
            hand.dedup();
            assert_eq!(hand.len(), 4, "{flow}");
        }
        assert!(used.iter().all(|n| (1000..1500).contains(n)), "{used:?}");
        assert_eq!(deal(7, 1, 8), [0]);
    }

    #[test]
    fn what_finds_no_seat_waits_or_is_refused() {
        let mut open: Queues<u32> = Queues::new(Shape::NO_QUEUES, 2);
        let first = run(open.arrive(ms(0), 1, 1, || 1));
        run(open.arrive(ms(0), 1, 1, || 2));
        assert_eq!(open.arrive(ms(0), 1, 1, || 3), Arrival::Refuse(Reason::ConcurrencyLimit));
        assert!(open.finish(ms(1), &first).is_empty());
        run(open.arrive(ms(1), 1, 1, || 4));

        let mut queued: Queues<u32> = Queues::new(Shape { queues: 1, hand: 1, length: 2 }, 1);
        let first = run(queued.arrive(ms(0), 1, 1, || 1));
        wait(queued.arrive(ms(0), 1, 1, || 2));
        let third = wait(queued.arrive(ms(0), 1, 1, || 3));
        assert_eq!(queued.arrive(ms(0), 1, 1, || 4), Arrival::Refuse(Reason::QueueFull));
        let started = queued.finish(ms(1), &first);
        assert_eq!(started.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [2]);
        assert_eq!(queued.leave(ms(1), third), (true, Vec::new()));
        assert_eq!(queued.leave(ms(1), third), (false, Vec::new()), "gone already");
        assert!(queued.finish(ms(2), &started[0].1).is_empty());
        assert_eq!((queued.used(), queued.running(), queued.waiting(), queued.active), (0, 0, 0, 0));
    }

    #[test]
    fn wide_requests_are_waited_for_and_run_alone_if_they_must() {
        // One queue: what comes later stands behind, however narrow.
        let mut q: Queues<u32> = Queues::new(Shape { queues: 1, hand: 1, length: 10 }, 4);
        let narrow = run(q.arrive(ms(0), 1, 2, || 1));
        wait(q.arrive(ms(0), 2, 4, || 2));
        wait(q.arrive(ms(1), 2, 1, || 3));
        let started = q.finish(ms(2), &narrow);
        assert_eq!(started.iter().map(|(t, g)| (*t, g.seats)).collect::<Vec<_>>(), [(2, 4)]);
        let started = q.finish(ms(3), &started[0].1);
        assert_eq!(started.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [3]);
        q.finish(ms(4), &started[0].1);
        run(q.arrive(ms(5), 1, 10, || 4));
        wait(q.arrive(ms(5), 3, 1, || 5));
    }

    #[test]
    fn more_seats_start_what_waits() {
        let mut q: Queues<u32> = Queues::new(SHAPE, 0);
        run(q.arrive(ms(0), 1, 1, || 0));
        for i in 1..=3 {
            wait(q.arrive(ms(0), i, 1, || 1));
        }
        assert_eq!(q.resize(ms(1), 3).len(), 2);
        assert_eq!((q.limit(), q.used(), q.waiting()), (3, 3, 1));
    }

    /// A flood of one flow against single requests of others: those wait for about one turn, not for the whole flood.
    #[test]
    fn a_flood_does_not_starve_others() {
        let mut q: Queues<(&str, u64)> = Queues::new(Shape { queues: 128, hand: 6, length: 50 }, 10);
        let mut running: Vec<(u64, Grant)> = Vec::new();
        let (mut refused, mut worst, mut served) = (0, 0, [0u64; 2]);
        for now in 0..10_000u64 {
            running.sort_by_key(|(end, _)| *end);
            while running.first().is_some_and(|(end, _)| *end <= now) {
                let (_, grant) = running.remove(0);
                for ((who, since), grant) in q.finish(ms(now), &grant) {
                    served[usize::from(who == "mouse")] += 1;
                    if who == "mouse" {
                        worst = worst.max(now - since);
                    }
                    running.push((now + 20, grant));
                }
            }
            // The elephant asks four times for what the level can do; a mouse comes every 20 ms.
            for _ in 0..2 {
                match q.arrive(ms(now), 1, 1, || ("elephant", now)) {
                    Arrival::Run(grant) => running.push((now + 20, grant)),
                    Arrival::Wait(_) => {}
                    Arrival::Refuse(_) => refused += 1,
                }
            }
            if now % 20 == 0 {
                match q.arrive(ms(now), 1000 + now, 1, || ("mouse", now)) {
                    Arrival::Run(grant) => running.push((now + 20, grant)),
                    Arrival::Wait(_) => {}
                    Arrival::Refuse(_) => panic!("a mouse was refused"),
                }
            }
        }
        assert!(refused > 10_000, "the flood is held back: {refused}");
        assert!(served[0] > 3_000 && served[1] > 300, "{served:?}");
        assert!(worst <= 60, "a mouse waited {worst} ms");
    }

    #[test]
    fn demand_is_weighted_by_time() {
        let mut q: Queues<u32> = Queues::new(SHAPE, 10);
        let grant = run(q.arrive(ms(1000), 1, 4, || 1));
        q.finish(ms(2000), &grant);
        let seen = q.take_demand(ms(4000));
        assert_eq!((seen.high, seen.mean), (4.0, 1.0));
        assert!((seen.deviation - 3f64.sqrt()).abs() < 1e-9);
        assert_eq!(q.take_demand(ms(5000)), Observed::default());
    }
}
