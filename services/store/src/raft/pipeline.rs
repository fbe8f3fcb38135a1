//! Entries on their way to one member: requests go out while earlier ones wait for the other member's disk.
//!
//! The stream keeps their order there, and the other member answers in that order. What the leader takes in while
//! [`DEPTH`] requests are unanswered travels together in the next one: so the network batches by itself, as the log's
//! sync does.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use openraft::errors::{NetworkError, RPCError, Unreachable};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::transport::Transport;
use super::wire::{self, pb};
use super::{LogId, Types};
use crate::error::Error;

/// Requests without an answer, at most.
const DEPTH: usize = 16;

type Outcome = Result<StreamAppendResult<Types>, RPCError<Types>>;

/// A request without an answer yet.
struct Waiting {
    previous: Option<LogId>,
    last: Option<LogId>,
    deadline: Instant,
}

/// One stream of requests and answers. It owns openraft's side of the requests, so that dropping it ends them.
pub struct Pipeline<S> {
    member: u64,
    transport: Transport,
    limit: Duration,
    /// What openraft wants sent, and the way to the connection; `None` when there is nothing more.
    open: Option<(S, mpsc::Sender<pb::AppendRequest>)>,
    answers: Streaming<pb::AppendResponse>,
    waiting: VecDeque<Waiting>,
}

/// What happens next.
enum Event {
    Answer(Result<Option<pb::AppendResponse>, Status>),
    Request(Option<AppendEntriesRequest<Types>>),
    Late,
}

impl<S> Pipeline<S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin,
{
    /// Both ends of the requests' channel: what the connection sends, and the way there.
    pub fn requests() -> (ReceiverStream<pb::AppendRequest>, mpsc::Sender<pb::AppendRequest>) {
        let (feed, requests) = mpsc::channel(DEPTH);
        (ReceiverStream::new(requests), feed)
    }

    /// A stream to `member` that was just opened; each answer may take `limit`.
    pub fn new(
        member: u64,
        transport: Transport,
        limit: Duration,
        input: S,
        feed: mpsc::Sender<pb::AppendRequest>,
        answers: Streaming<pb::AppendResponse>,
    ) -> Self {
        Pipeline { member, transport, limit, open: Some((input, feed)), answers, waiting: VecDeque::new() }
    }

    /// The requests' outcomes in their order, until one is not a success or there are no more requests.
    pub fn results(self) -> impl Stream<Item = Outcome> + Send {
        stream::unfold(Some(self), |pipeline| async {
            let mut pipeline = pipeline?;
            let outcome = pipeline.next().await?;
            let goes_on = matches!(outcome, Ok(Ok(_)));
            Some((outcome, goes_on.then_some(pipeline)))
        })
    }

    async fn next(&mut self) -> Option<Outcome> {
        loop {
            match self.event().await {
                Event::Answer(Ok(Some(answer))) => return Some(self.settle(answer)),
                Event::Answer(Ok(None)) if self.open.is_none() && self.waiting.is_empty() => return None,
                Event::Answer(Ok(None)) => return Some(Err(self.unreachable("the stream ended"))),
                Event::Answer(Err(status)) => {
                    let status = self.transport.judge(status);
                    return Some(Err(self.unreachable(status.message())));
                }
                Event::Request(None) => self.open = None,
                Event::Request(Some(request)) => {
                    if let Err(error) = self.send(&request) {
                        return Some(Err(self.unreachable(error)));
                    }
                }
                Event::Late => {
                    let error = NetworkError::from_string(format!("member {:x} does not answer", self.member));
                    return Some(Err(error.into()));
                }
            }
        }
    }

    async fn event(&mut self) -> Event {
        let deadline = self.waiting.front().map(|oldest| oldest.deadline);
        let free = self.waiting.len() < DEPTH;
        tokio::select! {
            biased;
            answer = self.answers.message() => Event::Answer(answer),
            request = async { self.open.as_mut()?.0.next().await }, if free && self.open.is_some() => Event::Request(request),
            () = async { tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)).await }, if deadline.is_some() => Event::Late,
        }
    }

    fn send(&mut self, request: &AppendEntriesRequest<Types>) -> Result<(), Error> {
        let Some((_, feed)) = &self.open else { return Ok(()) };
        let previous = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(previous);
        let request = wire::from_append(request, self.transport.route(self.member))?;
        // There is room for as many as may wait. If the connection is gone, the answers say why.
        let _ = feed.try_send(request);
        self.waiting.push_back(Waiting { previous, last, deadline: Instant::now() + self.limit });
        Ok(())
    }

    fn settle(&mut self, answer: pb::AppendResponse) -> Outcome {
        let Some(oldest) = self.waiting.pop_front() else {
            return Err(self.unreachable("an answer without its request"));
        };
        let answer = wire::to_append_response(answer).map_err(|error| self.unreachable(error))?;
        if answer.is_conflict() && oldest.previous.is_none() {
            return Err(self.unreachable("a conflict before the first entry"));
        }
        Ok(answer.into_stream_result(oldest.previous, oldest.last))
    }

    fn unreachable(&self, error: impl std::fmt::Display) -> RPCError<Types> {
        Unreachable::from_string(format!("member {:x}: {error}", self.member)).into()
    }
}
