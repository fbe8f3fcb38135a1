//! Compaction by itself: `--auto-compaction-mode` and `--auto-compaction-retention`, as etcd understands them.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use store_api::etcdserverpb as pb;

use crate::command::{Operation, Proposal};
use crate::config::duration;
use crate::error::{Error, Refusal};
use crate::member::Member;

/// How often the revision mode looks.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// The periodic mode notes the revision this often in one retention time.
const SAMPLES: u32 = 10;

/// What retention means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A time.
    Periodic,
    /// A number of revisions.
    Revision,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "periodic" => Ok(Mode::Periodic),
            "revision" => Ok(Mode::Revision),
            _ => Err(format!("{text:?} is neither periodic nor revision")),
        }
    }
}

/// What history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// All of it.
    Everything,
    /// What happened in this time.
    Time(Duration),
    /// So many revisions.
    Revisions(i64),
}

impl Retention {
    /// Reads the two flags. A bare number is hours in periodic mode.
    ///
    /// # Errors
    /// The retention is not what the mode asks for.
    pub fn new(mode: Mode, retention: &str) -> Result<Self, String> {
        let bare: Option<u64> = retention.parse().ok();
        match (mode, bare) {
            (_, Some(0)) => Ok(Retention::Everything),
            (Mode::Periodic, Some(hours)) => Ok(Retention::Time(Duration::from_secs(hours.saturating_mul(3600)))),
            (Mode::Periodic, None) => duration(retention).map(Retention::Time),
            (Mode::Revision, Some(count)) => {
                i64::try_from(count).map(Retention::Revisions).map_err(|_| format!("{count} revisions are too many"))
            }
            (Mode::Revision, None) => Err(format!("{retention:?} is not a number of revisions")),
        }
    }
}

/// Decides when to compact to what. Pure: the caller brings the clock.
#[derive(Debug)]
struct Compactor {
    retention: Retention,
    /// Revisions and when they were the newest, oldest first.
    samples: VecDeque<(Instant, i64)>,
    done: i64,
}

impl Compactor {
    fn new(retention: Retention) -> Self {
        Compactor { retention, samples: VecDeque::new(), done: 0 }
    }

    fn interval(&self) -> Option<Duration> {
        match self.retention {
            Retention::Everything => None,
            Retention::Time(time) => Some((time / SAMPLES).max(Duration::from_millis(100))),
            Retention::Revisions(_) => Some(REVISION_INTERVAL),
        }
    }

    /// The revision to compact to at `now`, when the newest is `revision`; each is named once.
    fn due(&mut self, now: Instant, revision: i64) -> Option<i64> {
        let to = match self.retention {
            Retention::Everything => return None,
            Retention::Revisions(count) => revision - count,
            Retention::Time(time) => {
                self.samples.push_back((now, revision));
                let mut to = 0;
                while let Some((at, sample)) = self.samples.front().copied()
                    && now.duration_since(at) >= time
                {
                    to = sample;
                    self.samples.pop_front();
                }
                to
            }
        };
        if to <= self.done {
            return None;
        }
        self.done = to;
        Some(to)
    }
}

/// Compacts while this member leads, until `shutdown`.
pub async fn run(member: Arc<Member>, retention: Retention, shutdown: daemon::Shutdown) {
    let mut compactor = Compactor::new(retention);
    let Some(interval) = compactor.interval() else { return };
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let due = compactor.due(Instant::now(), member.state.mvcc.revision());
        let Some(revision) = due.filter(|_| member.consensus.is_leader()) else { continue };
        let request = pb::CompactionRequest { revision, physical: false };
        match member.consensus.propose(Proposal::by_store(Operation::Compact(request))).await {
            Ok(_) => tracing::info!(revision, "compacted automatically"),
            // Somebody else was faster.
            Err(Error::Refused(Refusal::Compacted)) => {}
            Err(error) => tracing::warn!(revision, %error, "automatic compaction failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_depends_on_the_mode() {
        let minutes = |m: u64| Retention::Time(Duration::from_secs(60 * m));
        let cases = [
            (Mode::Periodic, "0", Ok(Retention::Everything)),
            (Mode::Revision, "0", Ok(Retention::Everything)),
            (Mode::Periodic, "2", Ok(minutes(120))),
            (Mode::Periodic, "5m", Ok(minutes(5))),
            (Mode::Revision, "1000", Ok(Retention::Revisions(1000))),
            (Mode::Revision, "5m", Err("\"5m\" is not a number of revisions")),
            (Mode::Periodic, "soon", Err("unknown unit \"soon\"")),
        ];
        for (mode, text, expected) in cases {
            assert_eq!(Retention::new(mode, text), expected.map_err(str::to_owned), "{mode:?} {text}");
        }
    }

    #[test]
    fn time_and_revisions_are_kept() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut periodic = Compactor::new(Retention::Time(Duration::from_secs(100)));
        assert_eq!(periodic.interval(), Some(Duration::from_secs(10)));
        assert_eq!(periodic.due(at(0), 5), None);
        assert_eq!(periodic.due(at(60), 50), None);
        assert_eq!(periodic.due(at(100), 90), Some(5), "what was there 100 seconds ago stays readable");
        assert_eq!(periodic.due(at(110), 90), None);
        assert_eq!(periodic.due(at(170), 90), Some(50));
        assert_eq!(periodic.due(at(900), 90), Some(90));
        assert_eq!(periodic.due(at(2000), 90), None, "nothing new");
        let mut revisions = Compactor::new(Retention::Revisions(10));
        let due: Vec<_> = [5, 10, 11, 11, 30].map(|revision| revisions.due(start, revision)).into();
        assert_eq!(due, [None, None, Some(1), None, Some(20)]);
    }
}
