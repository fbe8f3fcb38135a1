//! Raft's messages as the protocol between members carries them. Entries travel as they stand in the log, with their
//! checksums, so that a flipped bit on the way is found before it is stored.

use openraft::raft as or;
use openraft::vote::RaftLeaderId;

use super::{Entry, LogId, Types, Vote, log, log_id, term};
use crate::error::Error;

/// The generated messages and services.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod pb {
    tonic::include_proto!("corten.store.peer.v1");
}

/// A message without a part that it must have.
fn missing(part: &str) -> Error {
    Error::Consensus(format!("a message between members without its {part}"))
}

/// A log id for the wire.
pub fn from_log_id(id: &LogId) -> pb::LogId {
    pb::LogId { term: term(id), index: id.index }
}

/// A log id from the wire.
pub fn to_log_id(id: pb::LogId) -> LogId {
    log_id(id.term, id.index)
}

/// A vote for the wire.
pub fn from_vote(vote: &Vote) -> pb::Ballot {
    pb::Ballot { term: vote.leader_id.term, voted_for: vote.leader_id.voted_for, committed: vote.committed }
}

/// A vote from the wire.
///
/// # Errors
/// There is none.
pub fn to_vote(ballot: Option<pb::Ballot>) -> Result<Vote, Error> {
    let ballot = ballot.ok_or_else(|| missing("vote"))?;
    let leader_id = openraft::impls::leader_id_std::LeaderId::new(ballot.term, ballot.voted_for);
    Ok(Vote { leader_id, committed: ballot.committed })
}

/// An append for the wire.
///
/// # Errors
/// A membership that cannot be encoded.
pub fn from_append(rpc: &or::AppendEntriesRequest<Types>, route: pb::Route) -> Result<pb::AppendRequest, Error> {
    let entry = |entry: &Entry| -> Result<pb::Entry, Error> {
        let record = log::encode(entry).map_err(|e| Error::Consensus(e.to_string()))?;
        Ok(pb::Entry { index: entry.log_id.index, record: record.into() })
    };
    Ok(pb::AppendRequest {
        route: Some(route),
        vote: Some(from_vote(&rpc.vote)),
        previous: rpc.prev_log_id.as_ref().map(from_log_id),
        entries: rpc.entries.iter().map(entry).collect::<Result<_, _>>()?,
        committed: rpc.leader_commit.as_ref().map(from_log_id),
    })
}

/// An append from the wire.
///
/// # Errors
/// An entry was changed on the way, or the entries have a hole.
pub fn to_append(request: pb::AppendRequest) -> Result<or::AppendEntriesRequest<Types>, Error> {
    let prev_log_id = request.previous.map(to_log_id);
    let first = prev_log_id.map_or(0, |id| id.index + 1);
    let mut entries = Vec::with_capacity(request.entries.len());
    for (next, entry) in (first..).zip(request.entries) {
        if entry.index != next {
            return Err(Error::Consensus(format!("entry {} where {next} belongs", entry.index)));
        }
        entries.push(log::decode(entry.index, &entry.record)?);
    }
    Ok(or::AppendEntriesRequest {
        vote: to_vote(request.vote)?,
        prev_log_id,
        entries,
        leader_commit: request.committed.map(to_log_id),
    })
}

/// The answer to an append for the wire.
pub fn from_append_response(response: &or::AppendEntriesResponse<Types>) -> pb::AppendResponse {
    use or::AppendEntriesResponse as Answer;
    use pb::append_response::Kind;
    let (kind, matching, vote) = match response {
        Answer::Success => (Kind::Success, None, None),
        Answer::PartialSuccess(matching) => (Kind::Partial, matching.as_ref().map(from_log_id), None),
        Answer::Conflict => (Kind::Conflict, None, None),
        Answer::HigherVote(vote) => (Kind::HigherVote, None, Some(from_vote(vote))),
    };
    pb::AppendResponse { kind: kind.into(), matching, vote }
}

/// The answer to an append from the wire.
///
/// # Errors
/// A higher vote without the vote.
pub fn to_append_response(response: pb::AppendResponse) -> Result<or::AppendEntriesResponse<Types>, Error> {
    use or::AppendEntriesResponse as Answer;
    use pb::append_response::Kind;
    Ok(match response.kind() {
        Kind::Success => Answer::Success,
        Kind::Partial => Answer::PartialSuccess(response.matching.map(to_log_id)),
        Kind::Conflict => Answer::Conflict,
        Kind::HigherVote => Answer::HigherVote(to_vote(response.vote)?),
    })
}

/// A request for a vote for the wire.
pub fn from_vote_request(rpc: &or::VoteRequest<Types>, route: pb::Route) -> pb::VoteRequest {
    pb::VoteRequest {
        route: Some(route),
        vote: Some(from_vote(&rpc.vote)),
        last: rpc.last_log_id.as_ref().map(from_log_id),
        leadership_transfer: rpc.leadership_transfer,
    }
}

/// A request for a vote from the wire.
///
/// # Errors
/// There is no vote in it.
pub fn to_vote_request(request: pb::VoteRequest) -> Result<or::VoteRequest<Types>, Error> {
    let mut rpc = or::VoteRequest::new(to_vote(request.vote)?, request.last.map(to_log_id));
    rpc.leadership_transfer = request.leadership_transfer;
    Ok(rpc)
}

/// The answer to a request for a vote for the wire.
pub fn from_vote_response(response: &or::VoteResponse<Types>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(from_vote(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(from_log_id),
    }
}

/// The answer to a request for a vote from the wire.
///
/// # Errors
/// There is no vote in it.
pub fn to_vote_response(response: pb::VoteResponse) -> Result<or::VoteResponse<Types>, Error> {
    Ok(or::VoteResponse::new(to_vote(response.vote)?, response.last.map(to_log_id), response.granted))
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use store_api::etcdserverpb::PutRequest;

    use super::*;
    use crate::command::{Command, Operation};

    fn append() -> or::AppendEntriesRequest<Types> {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let entry = |index, payload| Entry { log_id: log_id(3, index), payload };
        or::AppendEntriesRequest {
            vote: Vote::new_committed(3, 7),
            prev_log_id: Some(log_id(2, 4)),
            entries: vec![
                entry(5, EntryPayload::Blank),
                entry(6, EntryPayload::Normal(Command::new(Operation::Put(put)))),
            ],
            leader_commit: Some(log_id(2, 4)),
        }
    }

    #[test]
    fn messages_come_back() {
        let sent = append();
        let got = to_append(from_append(&sent, pb::Route::default()).unwrap()).unwrap();
        assert_eq!(format!("{got:?}"), format!("{sent:?}"));
        for answer in [
            or::AppendEntriesResponse::Success,
            or::AppendEntriesResponse::PartialSuccess(Some(log_id(1, 2))),
            or::AppendEntriesResponse::Conflict,
            or::AppendEntriesResponse::HigherVote(Vote::new(4, 9)),
        ] {
            assert_eq!(to_append_response(from_append_response(&answer)).unwrap(), answer);
        }
        let mut ask = or::VoteRequest::new(Vote::new(4, 9), None);
        ask.leadership_transfer = true;
        assert_eq!(to_vote_request(from_vote_request(&ask, pb::Route::default())).unwrap(), ask);
        let answer = or::VoteResponse::new(Vote::new(4, 9), Some(log_id(1, 2)), true);
        assert_eq!(to_vote_response(from_vote_response(&answer)).unwrap(), answer);
    }

    #[test]
    fn damage_on_the_way_is_found() {
        let good = from_append(&append(), pb::Route::default()).unwrap();
        let mut flipped = good.clone();
        let mut record = flipped.entries[1].record.to_vec();
        record[12] ^= 1;
        flipped.entries[1].record = record.into();
        assert!(to_append(flipped).unwrap_err().to_string().contains("checksum"));
        let mut moved = good.clone();
        moved.entries.swap(0, 1);
        assert!(to_append(moved).unwrap_err().to_string().contains("belongs"));
        assert!(to_append(pb::AppendRequest { vote: None, ..good }).is_err());
    }
}
