//! Group commit: what waits while an entry is on its way goes into the next entry together.
//!
//! One entry costs one write, one sync and one round through consensus, however many changes it carries. Nobody waits for
//! company: an idle member proposes a lone change at once, a busy one collects exactly as long as it is busy. The next entry
//! goes as soon as the one before is committed, so that it is on its way to the disk while the other is applied and answered.

use std::collections::VecDeque;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use crate::command::{Command, Outcome, Proposal, Reply};
use crate::error::{Error, Refusal};

/// Entries that are committed, but not answered yet.
const UNANSWERED: usize = 8;
/// Changes in one entry.
const ENTRY_CHANGES: usize = 512;
/// Bytes in one entry, unless a single change is larger.
const ENTRY_BYTES: usize = 1 << 20;
/// Changes that may wait; whoever comes then waits before the queue.
const QUEUE: usize = 4096;

/// A change and who wants to know its outcome.
struct Proposed {
    proposal: Proposal,
    answer: oneshot::Sender<Result<Outcome, Error>>,
}

/// Where changes are proposed.
#[derive(Clone)]
pub struct Proposer(mpsc::Sender<Proposed>);

impl Proposer {
    /// Proposes a change and waits for its outcome.
    ///
    /// # Errors
    /// The change was refused, or this member cannot propose.
    pub async fn propose(&self, proposal: Proposal) -> Result<Outcome, Error> {
        let (answer, outcome) = oneshot::channel();
        let proposed = Proposed { proposal, answer };
        self.0.send(proposed).await.map_err(|_| Refusal::Stopped)?;
        outcome.await.unwrap_or(Err(Refusal::Stopped.into()))
    }
}

/// Set to `None` as soon as the next entry may be proposed.
pub type Committed = Option<oneshot::Sender<std::convert::Infallible>>;

/// What was proposed and is not in an entry yet.
pub struct Queue(mpsc::Receiver<Proposed>);

/// Makes the queue; [`Queue::collect`] serves it.
pub fn queue() -> (Proposer, Queue) {
    let (sender, queue) = mpsc::channel(QUEUE);
    (Proposer(sender), Queue(queue))
}

impl Queue {
    /// Proposes entries with `submit`, one after the other. Ends when the last [`Proposer`] is gone.
    pub async fn collect<S, F>(self, submit: S)
    where
        S: Fn(Command, Committed) -> F,
        F: Future<Output = Result<Reply, Error>>,
    {
        collect(self.0, submit).await;
    }
}

async fn collect<S, F>(mut queue: mpsc::Receiver<Proposed>, submit: S)
where
    S: Fn(Command, Committed) -> F,
    F: Future<Output = Result<Reply, Error>>,
{
    let mut waiting = VecDeque::new();
    let mut arrived = Vec::new();
    let mut running = FuturesUnordered::new();
    let mut before: Option<oneshot::Receiver<_>> = None;
    loop {
        if before.is_none() && running.len() < UNANSWERED && !waiting.is_empty() {
            let (proposals, answers) = cut(&mut waiting);
            let (committed, on_its_way) = oneshot::channel();
            if !proposals.is_empty() {
                let reply = submit(Command::batch(proposals), Some(committed));
                running.push(async move { answer(answers, reply.await) });
                before = Some(on_its_way);
            }
            continue;
        }
        let room = QUEUE - waiting.len();
        tokio::select! {
            biased;
            () = end(&mut before) => before = None,
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

/// Resolves when the entry before, if there is one, is committed or has failed.
async fn end(before: &mut Option<oneshot::Receiver<std::convert::Infallible>>) {
    match before {
        // Nothing is ever sent.
        Some(before) => {
            let _ = before.await;
        }
        None => std::future::pending().await,
    }
}

type Answers = Vec<oneshot::Sender<Result<Outcome, Error>>>;

/// Takes one entry's share from the front, without those who do not wait any more.
fn cut(waiting: &mut VecDeque<Proposed>) -> (Vec<Proposal>, Answers) {
    let mut bytes = 0;
    let fits = |proposed: &&Proposed| {
        bytes += proposed.proposal.encoded_len();
        bytes <= ENTRY_BYTES
    };
    let count = waiting.iter().take(ENTRY_CHANGES).take_while(fits).count().max(1).min(waiting.len());
    let wanted = waiting.drain(..count).filter(|proposed| !proposed.answer.is_closed());
    wanted.map(|proposed| (proposed.proposal, proposed.answer)).unzip()
}

fn answer(answers: Answers, reply: Result<Reply, Error>) {
    let outcomes = match reply {
        Ok(reply) => reply.into_results(answers.len()),
        Err(error) => vec![Err(error); answers.len()],
    };
    for (answer, outcome) in answers.into_iter().zip(outcomes) {
        // A client that hung up does not want to know.
        let _ = answer.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use store_api::etcdserverpb as pb;

    use super::*;
    use crate::command::Operation;

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
        tokio::spawn(queue.collect(move |command: Command, committed| {
            seen.lock().push(command.proposals().count());
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                drop(committed);
                Ok(reply_to(&command))
            }
        }));
        let calls: Vec<_> = (0..10).map(|id| if id == 7 { -7 } else { id }).collect();
        let waiting: Vec<_> = calls
            .iter()
            .map(|id| {
                let (proposer, id) = (proposer.clone(), *id);
                tokio::spawn(async move { proposer.propose(revoke(id)).await })
            })
            .collect();
        opened.add_permits(10);
        for (id, call) in calls.into_iter().zip(waiting) {
            match call.await.unwrap() {
                Ok(Outcome::LeaseRevoke(response)) => assert_eq!(response.header.unwrap().revision, id),
                Err(Error::Refused(Refusal::LeaseNotFound)) => assert_eq!(id, -7),
                other => panic!("{other:?}"),
            }
        }
        let sizes = sizes.lock().clone();
        assert!(sizes.iter().sum::<usize>() == 10 && sizes.len() <= 4, "{sizes:?}");
    }

    #[test]
    fn an_entry_is_bounded_but_never_empty() {
        let mut receivers = Vec::new();
        let mut proposed = |bytes: usize| {
            let put = pb::PutRequest { key: "k".into(), value: vec![0; bytes].into(), ..Default::default() };
            let (answer, waiting) = oneshot::channel();
            receivers.push(waiting);
            Proposed { proposal: Proposal::by_store(Operation::Put(put)), answer }
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
}
