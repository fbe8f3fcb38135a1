//! Group commit: what waits while an entry is on its way goes into the next entry together.
//!
//! One entry costs one write, one sync and one round through consensus, however many changes it carries. Nobody waits for
//! company: an idle member proposes a lone change at once, a busy one collects exactly as long as it is busy. Of a member on
//! its own the next entry goes as soon as the one before is committed: there the disk is the only wait, and the entry is on its
//! way to it while the other is applied and answered. With other members the round trips of several entries overlap.

use std::collections::VecDeque;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use crate::command::{Command, Proposal, Reply};
use crate::error::{Error, Refusal};

/// Entries that are not answered yet.
const UNANSWERED: usize = 8;
/// Changes in one entry.
const ENTRY_CHANGES: usize = 512;
/// Bytes in one entry, unless a single change is larger.
const ENTRY_BYTES: usize = 1 << 20;
/// Changes that may wait; whoever comes then waits before the queue.
const QUEUE: usize = 4096;

/// What a client wants, or all that clients of another member want at a time, and who waits for it.
struct Proposed {
    changes: Vec<Proposal>,
    answer: oneshot::Sender<Result<Applied, Error>>,
}

/// What became of changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// One per change, in their order.
    pub replies: Vec<Reply>,
    /// Where their entry stands in the log.
    pub index: u64,
}

/// Where changes are proposed.
#[derive(Clone)]
pub struct Proposer(mpsc::Sender<Proposed>);

impl Proposer {
    /// Proposes changes, which come into one entry in their order, and waits until they are applied.
    ///
    /// # Errors
    /// It is unknown whether they happened, or this member cannot propose.
    pub async fn propose(&self, changes: Vec<Proposal>) -> Result<Applied, Error> {
        let (answer, applied) = oneshot::channel();
        self.0.send(Proposed { changes, answer }).await.map_err(|_| Refusal::Stopped)?;
        applied.await.unwrap_or(Err(Refusal::Stopped.into()))
    }
}

/// Set to `None` as soon as the entry is committed.
pub type Committed = Option<oneshot::Sender<std::convert::Infallible>>;

/// What was proposed and is not in an entry yet.
pub struct Queue(mpsc::Receiver<Proposed>);

/// Makes the queue; [`Queue::collect`] serves it.
pub fn queue() -> (Proposer, Queue) {
    let (sender, queue) = mpsc::channel(QUEUE);
    (Proposer(sender), Queue(queue))
}

impl Queue {
    /// Proposes entries with `submit`; `alone` says whether there is no other member. Ends when the last [`Proposer`] is gone.
    pub async fn collect<S, F>(self, alone: impl Fn() -> bool, submit: S)
    where
        S: Fn(Command, Committed) -> F,
        F: Future<Output = Result<(Reply, u64), Error>>,
    {
        collect(self.0, alone, submit).await;
    }
}

async fn collect<S, F>(mut queue: mpsc::Receiver<Proposed>, alone: impl Fn() -> bool, submit: S)
where
    S: Fn(Command, Committed) -> F,
    F: Future<Output = Result<(Reply, u64), Error>>,
{
    let mut waiting = VecDeque::new();
    let mut arrived = Vec::new();
    let mut running = FuturesUnordered::new();
    let mut uncommitted = FuturesUnordered::new();
    loop {
        let most = if alone() { 1 } else { UNANSWERED };
        if uncommitted.len() < most && running.len() < UNANSWERED && !waiting.is_empty() {
            let (changes, callers) = cut(&mut waiting);
            let (committed, on_its_way) = oneshot::channel::<std::convert::Infallible>();
            if !changes.is_empty() {
                let applied = submit(Command::batch(changes), Some(committed));
                running.push(async move { answer(callers, applied.await) });
                uncommitted.push(on_its_way);
            }
            continue;
        }
        let room = QUEUE - waiting.len();
        tokio::select! {
            biased;
            // Nothing is ever sent: the entry is committed or has failed.
            Some(Err(_)) = uncommitted.next() => {}
            Some(()) = running.next() => {}
            count = queue.recv_many(&mut arrived, room), if room > 0 => match count {
                0 => break,
                _ => waiting.extend(arrived.drain(..)),
            },
        }
    }
    // Whoever asked is gone; what was proposed happens all the same.
    while running.next().await.is_some() {}
}

/// Those who wait for an entry, with the number of their changes.
type Callers = Vec<(usize, oneshot::Sender<Result<Applied, Error>>)>;

/// Takes one entry's share from the front, without those who do not wait any more.
fn cut(waiting: &mut VecDeque<Proposed>) -> (Vec<Proposal>, Callers) {
    let (mut count, mut bytes) = (0, 0);
    let fits = |proposed: &&Proposed| {
        count += proposed.changes.len();
        bytes += proposed.changes.iter().map(Message::encoded_len).sum::<usize>();
        count <= ENTRY_CHANGES && bytes <= ENTRY_BYTES
    };
    let share = waiting.iter().take_while(fits).count().max(1).min(waiting.len());
    let (mut changes, mut callers) = (Vec::new(), Vec::new());
    for proposed in waiting.drain(..share).filter(|proposed| !proposed.answer.is_closed()) {
        callers.push((proposed.changes.len(), proposed.answer));
        changes.extend(proposed.changes);
    }
    (changes, callers)
}

fn answer(callers: Callers, applied: Result<(Reply, u64), Error>) {
    let proposed = callers.iter().map(|(count, _)| count).sum();
    let applied = applied.and_then(|(reply, index)| Ok((reply.into_replies(proposed)?, index)));
    let mut replies = applied.map(|(replies, index)| (replies.into_iter(), index));
    for (count, caller) in callers {
        let own = match &mut replies {
            Ok((replies, index)) => Ok(Applied { replies: replies.take(count).collect(), index: *index }),
            Err(error) => Err(error.clone()),
        };
        // A client that hung up does not want to know.
        let _ = caller.send(own);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use store_api::etcdserverpb as pb;

    use super::*;
    use crate::command::{Operation, Outcome};

    fn revoke(id: i64) -> Proposal {
        Proposal::by_store(Operation::LeaseRevoke(pb::LeaseRevokeRequest { id }))
    }

    fn reply_to(command: &Command) -> Reply {
        let outcome = |proposal: &Proposal| match &proposal.operation {
            Some(Operation::LeaseRevoke(request)) if request.id < 0 => Err(Refusal::LeaseNotFound),
            Some(Operation::LeaseRevoke(request)) => {
                let header = Some(pb::ResponseHeader { revision: request.id, ..Default::default() });
                Ok(Outcome::LeaseRevoke(pb::LeaseRevokeResponse { header }))
            }
            other => panic!("{other:?}"),
        };
        Reply::new(command.proposals().map(outcome).collect())
    }

    #[tokio::test]
    async fn what_waits_goes_into_the_next_entry_and_everyone_gets_his_own_answer() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let (gate, seen) = (Arc::new(tokio::sync::Semaphore::new(0)), sizes.clone());
        let opened = gate.clone();
        let (proposer, queue) = queue();
        tokio::spawn(queue.collect(
            || true,
            move |command: Command, committed| {
                seen.lock().push(command.proposals().count());
                let gate = gate.clone();
                async move {
                    gate.acquire().await.unwrap().forget();
                    drop(committed);
                    Ok((reply_to(&command), 5))
                }
            },
        ));
        let calls: Vec<_> = (0..10).map(|id| if id == 7 { -7 } else { id }).collect();
        let waiting: Vec<_> = calls
            .iter()
            .map(|id| {
                let (proposer, id) = (proposer.clone(), *id);
                tokio::spawn(async move { proposer.propose(vec![revoke(id)]).await })
            })
            .collect();
        opened.add_permits(10);
        for (id, call) in calls.into_iter().zip(waiting) {
            let mut applied = call.await.unwrap().unwrap();
            assert!(applied.index == 5 && applied.replies.len() == 1);
            match applied.replies.remove(0).into_result() {
                Ok(Outcome::LeaseRevoke(response)) => assert_eq!(response.header.unwrap().revision, id),
                Err(Error::Refused(Refusal::LeaseNotFound)) => assert_eq!(id, -7),
                other => panic!("{other:?}"),
            }
        }
        let sizes = sizes.lock().clone();
        assert!(sizes.iter().sum::<usize>() == 10 && sizes.len() <= 4, "{sizes:?}");
    }

    #[tokio::test]
    async fn entries_overlap_where_there_are_other_members() {
        for (alone, overlapping) in [(true, 1), (false, UNANSWERED)] {
            let entries = Arc::new(Mutex::new(Vec::new()));
            let seen = entries.clone();
            let (proposer, queue) = queue();
            tokio::spawn(queue.collect(
                move || alone,
                move |_, committed| {
                    seen.lock().push(committed);
                    std::future::pending()
                },
            ));
            for id in 0..20 {
                let proposer = proposer.clone();
                tokio::spawn(async move { proposer.propose(vec![revoke(id)]).await });
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!(entries.lock().len(), overlapping, "none of them is committed");
        }
    }

    #[test]
    fn an_entry_is_bounded_but_never_empty() {
        let mut receivers = Vec::new();
        let mut proposed = |bytes: usize| {
            let put = pb::PutRequest { key: "k".into(), value: vec![0; bytes].into(), ..Default::default() };
            let (answer, waiting) = oneshot::channel();
            receivers.push(waiting);
            Proposed { changes: vec![Proposal::by_store(Operation::Put(put))], answer }
        };
        let mut waiting: VecDeque<_> =
            [2 * ENTRY_BYTES, ENTRY_BYTES / 2, ENTRY_BYTES / 3, ENTRY_BYTES / 2, 0].map(&mut proposed).into();
        let mut sizes = Vec::new();
        while !waiting.is_empty() {
            sizes.push(cut(&mut waiting).0.len());
        }
        assert_eq!(sizes, [1, 2, 2]);
        let mut many: VecDeque<_> = (0..ENTRY_CHANGES + 1).map(|_| proposed(1)).collect();
        receivers.pop();
        assert_eq!((cut(&mut many).0.len(), cut(&mut many).0.len()), (ENTRY_CHANGES, 0), "the last one hung up");
    }

    #[test]
    fn changes_of_one_caller_stay_together_and_count() {
        let mut receivers = Vec::new();
        let mut proposed = |ids: std::ops::Range<i64>| {
            let (answer, waiting) = oneshot::channel();
            receivers.push(waiting);
            Proposed { changes: ids.map(revoke).collect(), answer }
        };
        let most = i64::try_from(ENTRY_CHANGES).unwrap();
        let mut waiting: VecDeque<_> = [0..3, 3..4, 4..most, most..most + 1].map(&mut proposed).into();
        let (changes, callers) = cut(&mut waiting);
        assert_eq!((changes.len(), callers.len(), waiting.len()), (ENTRY_CHANGES, 3, 1));
        answer(callers, Ok((reply_to(&Command::batch(changes)), 9)));
        let sizes: Vec<usize> =
            receivers[..3].iter_mut().map(|one| one.try_recv().unwrap().unwrap().replies.len()).collect();
        assert_eq!(sizes, [3, 1, ENTRY_CHANGES - 4]);
        let (changes, callers) = cut(&mut waiting);
        answer(callers, Ok((reply_to(&Command::batch(vec![changes[0].clone(), revoke(1)])), 9)));
        assert!(receivers[3].try_recv().unwrap().is_err(), "two replies to one change");
    }
}
