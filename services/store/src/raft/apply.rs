//! Applying committed entries: the only code that changes the state machine. Runs where consensus runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use openraft::EntryPayload;
use openraft::storage::ApplyResponder;
use parking_lot::Mutex;
use prost::Message;
use rocksdb::WriteBatch;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::alarm_request::AlarmAction;
use store_api::mvccpb::KeyValue;
use tokio::sync::watch;

use super::state_machine::AppliedState;
use super::transfer::{self, Received};
use super::{Entry, Types, log_id, membership, term};
use crate::auth::{self, Auth, Book};
use crate::command::{Command, Operation, Outcome, Proposal, Reply};
use crate::engine::Engine;
use crate::error::{Error, Refusal};
use crate::lease::LeaseTable;
use crate::metrics::Metrics;
use crate::mvcc::{Change, Load, Mvcc, Transaction, check};
use crate::schema::{self, Applied, Corruption, Revision, state};
use crate::watch::{Batch, Hub};

/// Keys per compaction step: short enough that a waiting write does not notice.
const COMPACT_KEYS: usize = 500;

/// The parts of the state machine that servers read and the writer changes.
#[derive(Clone)]
pub struct State {
    /// Key-values.
    pub mvcc: Arc<Mvcc>,
    /// Leases.
    pub leases: Arc<Mutex<LeaseTable>>,
    /// Watches.
    pub hub: Arc<Hub>,
    /// Active alarms.
    pub alarms: Arc<Mutex<pb::AlarmResponse>>,
    /// Users.
    pub auth: Arc<Auth>,
    /// The last applied entry and membership.
    pub applied: Arc<Mutex<AppliedState>>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Members that were removed.
    pub removed: Arc<Mutex<BTreeSet<u64>>>,
    /// The revision up to which superseded records are gone from disk.
    pub compacted: watch::Sender<i64>,
    /// Tells the expiry task that a deadline may be nearer than it thinks.
    pub leases_changed: Arc<tokio::sync::Notify>,
}

impl State {
    /// Reads and verifies the state on disk.
    ///
    /// # Errors
    /// The first damaged record, by name; or the disk failed.
    pub fn open(engine: &Engine) -> Result<Self, Error> {
        let now = Instant::now();
        let mut leases = LeaseTable::default();
        engine.scan(schema::LEASE, &[], |key, value| {
            let id = schema::decode_i64(schema::LEASE, key, key)?;
            let ttl = schema::decode_i64(schema::LEASE, key, schema::unseal(schema::LEASE, key, &value)?)?;
            leases.grant(id, ttl, now).map_err(|e| Corruption::new(schema::LEASE, key, e))?;
            Ok(true)
        })?;
        let mvcc = Mvcc::open(engine.clone(), &mut leases)?;
        let alarms = match engine.get(schema::STATE, state::ALARMS)? {
            None => pb::AlarmResponse::default(),
            Some(bytes) => pb::AlarmResponse::decode(bytes.as_slice())
                .map_err(|e| Corruption::new(schema::STATE, state::ALARMS, e))?,
        };
        let book = match engine.get(schema::STATE, state::AUTH)? {
            None => Book::default(),
            Some(bytes) => {
                Book::decode(bytes.as_slice()).map_err(|e| Corruption::new(schema::STATE, state::AUTH, e))?
            }
        };
        let done = match engine.get(schema::STATE, state::COMPACT_DONE)? {
            None => 0,
            Some(payload) => schema::decode_i64(schema::STATE, state::COMPACT_DONE, &payload)?,
        };
        Ok(State {
            hub: Arc::new(Hub::new(mvcc.revision())),
            mvcc: Arc::new(mvcc),
            leases: Arc::new(Mutex::new(leases)),
            alarms: Arc::new(Mutex::new(alarms)),
            auth: Arc::new(Auth::new(book)),
            applied: Arc::new(Mutex::new(applied_state(engine)?)),
            metrics: Arc::default(),
            removed: Arc::new(Mutex::new(membership::read_removed(engine)?)),
            compacted: watch::Sender::new(done),
            leases_changed: Arc::new(tokio::sync::Notify::new()),
        })
    }
}

fn applied_state(engine: &Engine) -> Result<AppliedState, Error> {
    let log = match engine.get(schema::STATE, state::APPLIED)? {
        None => None,
        Some(payload) => {
            let applied = Applied::decode(&payload)
                .ok_or_else(|| Corruption::new(schema::STATE, state::APPLIED, "not an applied mark"))?;
            applied.log.map(|(term, index)| log_id(term, index))
        }
    };
    let membership = match engine.get(schema::STATE, state::MEMBERSHIP)? {
        None => Default::default(),
        Some(payload) => {
            serde_json::from_slice(&payload).map_err(|e| Corruption::new(schema::STATE, state::MEMBERSHIP, e))?
        }
    };
    Ok(AppliedState { log, membership })
}

/// One batch being applied.
struct Round {
    batch: WriteBatch,
    /// Records of this round that are not on disk yet.
    pending: Pending,
    revision: i64,
    events: Vec<Batch>,
    leases_changed: bool,
}

struct Pending {
    engine: Engine,
    records: HashMap<Revision, KeyValue>,
}

impl Load for Pending {
    fn load(&self, revision: Revision) -> Result<KeyValue, Error> {
        match self.records.get(&revision) {
            Some(kv) => Ok(kv.clone()),
            None => self.engine.record(revision),
        }
    }
}

/// Applies entries.
pub struct Applier {
    engine: Engine,
    state: State,
    compaction: Option<Compaction>,
}

struct Compaction {
    to: i64,
    cursor: Option<Box<[u8]>>,
}

fn unfinished(state: &State) -> Option<Compaction> {
    let (wanted, done) = (state.mvcc.compacted(), *state.compacted.borrow());
    (wanted > done).then_some(Compaction { to: wanted, cursor: None })
}

impl Applier {
    /// Takes over the state; goes on with a compaction that was not finished.
    pub fn new(engine: Engine, state: State) -> Self {
        let compaction = unfinished(&state);
        Applier { engine, state, compaction }
    }

    /// Applies entries in one write, lets readers see them, then answers.
    ///
    /// # Errors
    /// The disk failed or holds damaged records: nothing was answered, and the process must end.
    pub fn apply(&mut self, entries: Vec<(Entry, Option<ApplyResponder<Types>>)>) -> Result<(), Error> {
        #[cfg(test)]
        super::sim::applying(&self.engine, self.compaction.is_none(), &entries);
        let mut round = Round {
            batch: WriteBatch::default(),
            pending: Pending { engine: self.engine.clone(), records: HashMap::new() },
            revision: self.state.mvcc.revision(),
            events: Vec::new(),
            leases_changed: false,
        };
        let mut applied = self.state.applied.lock().clone();
        let mut answers = Vec::with_capacity(entries.len());
        for (entry, responder) in entries {
            applied.log = Some(entry.log_id);
            let reply = match entry.payload {
                EntryPayload::Blank => Reply::default(),
                EntryPayload::Membership(membership) => {
                    let next = super::StoredMembership::new(Some(entry.log_id), membership);
                    membership::note_removed(
                        &self.engine,
                        &mut round.batch,
                        &mut self.state.removed.lock(),
                        &applied.membership,
                        &next,
                    )?;
                    applied.membership = next;
                    let payload =
                        serde_json::to_vec(&applied.membership).map_err(|e| Error::Consensus(e.to_string()))?;
                    self.engine.put(&mut round.batch, schema::STATE, state::MEMBERSHIP, &payload);
                    Reply::default()
                }
                EntryPayload::Normal(command) => self.command(&mut round, &command)?,
            };
            if let Some(responder) = responder {
                answers.push((responder, reply));
            }
        }
        self.commit(round, applied)?;
        for (responder, reply) in answers {
            responder.send(reply);
        }
        Ok(())
    }

    fn commit(&mut self, mut round: Round, applied: AppliedState) -> Result<(), Error> {
        let mark = Applied { log: applied.log.map(|id| (term(&id), id.index)), revision: round.revision };
        self.engine.put(&mut round.batch, schema::STATE, state::APPLIED, &mark.encode());
        self.engine.write(round.batch)?;
        *self.state.applied.lock() = applied;
        self.state.mvcc.publish(round.revision);
        self.state.hub.publish(round.events);
        if round.leases_changed {
            self.state.leases_changed.notify_one();
        }
        Ok(())
    }

    /// Does what one entry asks for; a refusal is an answer, any other error ends the process.
    fn command(&mut self, round: &mut Round, command: &Command) -> Result<Reply, Error> {
        let mut results = Vec::new();
        for proposal in command.proposals() {
            self.count(proposal.operation.as_ref());
            results.push(match self.operation(round, proposal) {
                Ok(outcome) => Ok(outcome),
                Err(Error::Refused(refusal)) => Err(refusal),
                Err(error) => return Err(error),
            });
        }
        Ok(Reply::new(results))
    }

    fn count(&self, operation: Option<&Operation>) {
        let metrics = &self.state.metrics;
        match operation {
            Some(Operation::Put(_)) => metrics.puts.increment(),
            Some(Operation::DeleteRange(_)) => metrics.deletes.increment(),
            Some(Operation::Txn(_)) => metrics.txns.increment(),
            _ => {}
        }
    }

    /// Replaces everything by a snapshot from another member.
    ///
    /// # Errors
    /// The disk failed or is full: the process must end, and the next start goes on.
    pub fn install(&mut self, received: &Received) -> Result<(), Error> {
        self.state.mvcc.replace(|| {
            transfer::install(&self.engine, &received.folder)?;
            let fresh = State::open(&self.engine)?;
            // Each in place: servers hold these handles.
            std::mem::swap(&mut *self.state.leases.lock(), &mut *fresh.leases.lock());
            std::mem::swap(&mut *self.state.alarms.lock(), &mut *fresh.alarms.lock());
            self.state.auth.replace(fresh.auth.book().clone());
            std::mem::swap(&mut *self.state.applied.lock(), &mut *fresh.applied.lock());
            std::mem::swap(&mut *self.state.removed.lock(), &mut *fresh.removed.lock());
            self.state.compacted.send_replace(*fresh.compacted.borrow());
            Arc::try_unwrap(fresh.mvcc).map_err(|_| Error::Consensus("the new content is in use already".into()))
        })?;
        self.compaction = unfinished(&self.state);
        self.state.hub.reset(self.state.mvcc.revision());
        self.state.leases_changed.notify_one();
        tracing::info!(revision = self.state.mvcc.revision(), "installed a snapshot from the leader");
        Ok(())
    }

    /// The check where everyone applies the same entries in the same order is the one that counts.
    fn permit(&self, Proposal { operation, caller, .. }: &Proposal) -> Result<(), Refusal> {
        match operation {
            Some(operation) if self.state.auth.enabled() => {
                let keys_on = |lease| self.state.leases.lock().keys(lease);
                auth::operation(&self.state.auth.book(), caller.as_ref(), operation, keys_on)
            }
            _ => Ok(()),
        }
    }

    fn operation(&mut self, round: &mut Round, proposal: &Proposal) -> Result<Outcome, Error> {
        self.permit(proposal)?;
        let operation = proposal.operation.as_ref();
        let full = self.state.alarms.lock().alarms.iter().any(|a| a.alarm() == pb::AlarmType::Nospace);
        let corrupt = self.state.alarms.lock().alarms.iter().any(|a| a.alarm() == pb::AlarmType::Corrupt);
        match operation {
            Some(Operation::Alarm(r)) => Ok(Outcome::Alarm(self.alarm(round, r))),
            // Nobody knows which content is right, so nothing is built on it until an administrator decides.
            Some(_) if corrupt => Err(Refusal::Corrupt.into()),
            Some(Operation::Put(_)) if full => Err(Refusal::NoSpace.into()),
            Some(Operation::Put(r)) => self.change(round, |t| t.put(r).map(Outcome::Put)),
            Some(Operation::DeleteRange(r)) => self.change(round, |t| t.delete_range(r).map(Outcome::DeleteRange)),
            Some(Operation::Txn(r)) if full && check::stores(r) => Err(Refusal::NoSpace.into()),
            Some(Operation::Txn(r)) => self.change(round, |t| t.txn(r).map(Outcome::Txn)),
            Some(Operation::Compact(r)) => self.compact(round, r.revision).map(Outcome::Compact),
            Some(Operation::LeaseGrant(_)) if full => Err(Refusal::NoSpace.into()),
            Some(Operation::LeaseGrant(r)) => self.grant(round, r).map(Outcome::LeaseGrant),
            Some(Operation::LeaseRevoke(r)) => self.revoke(round, r.id).map(Outcome::LeaseRevoke),
            Some(Operation::Auth(r)) => self.auth(round, r).map(Outcome::Auth),
            // A newer member proposed something this version does not know; skipping it would make the members differ.
            None => Err(Error::Consensus("an entry of an unknown kind: this member is too old for its cluster".into())),
        }
    }

    /// Runs one transaction and stores what it changed.
    fn change<F>(&mut self, round: &mut Round, run: F) -> Result<Outcome, Error>
    where
        F: FnOnce(&mut Transaction<'_, Pending>) -> Result<Outcome, Error>,
    {
        let mut index = self.state.mvcc.index.write();
        let mut leases = self.state.leases.lock();
        let compacted = self.state.mvcc.compacted();
        let mut transaction = Transaction::new(&mut index, &mut leases, &round.pending, round.revision, compacted);
        let outcome = run(&mut transaction);
        let (revision, changes) = transaction.finish();
        drop((index, leases));
        if let (Err(error), false) = (&outcome, changes.is_empty()) {
            // Refusals come before the first change; anything else leaves the index wrong.
            return Err(Error::Consensus(format!("a transaction failed half-way: {error}")));
        }
        self.store(round, revision, changes)?;
        outcome
    }

    fn store(&self, round: &mut Round, revision: i64, changes: Vec<Change>) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let previous = match self.state.hub.wants_previous() {
            true => Some(previous(&round.pending, &changes)?),
            false => None,
        };
        let mut events = Vec::with_capacity(changes.len());
        for mut change in changes {
            let value = schema::encode_record(change.revision, change.tombstone, &change.kv);
            self.engine.put_sealed(&mut round.batch, schema::MVCC, &change.revision.key(), &value);
            // From here on use slices of the compact record: the request's buffer may be much larger.
            change.kv = schema::decode_record(change.revision, value)?.1;
            round.pending.records.insert(change.revision, change.kv.clone());
            events.push(change);
        }
        round.revision = revision;
        round.events.push(Batch { revision, changes: events, previous });
        Ok(())
    }

    fn compact(&mut self, round: &mut Round, to: i64) -> Result<pb::CompactionResponse, Error> {
        if to <= self.state.mvcc.compacted() {
            return Err(Refusal::Compacted.into());
        }
        if to > round.revision {
            return Err(Refusal::FutureRevision.into());
        }
        self.engine.put(&mut round.batch, schema::STATE, state::COMPACT_WANTED, &to.to_be_bytes());
        self.state.mvcc.set_compacted(to);
        self.compaction = Some(Compaction { to, cursor: None });
        Ok(pb::CompactionResponse { header: header(round.revision) })
    }

    fn grant(&mut self, round: &mut Round, request: &pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Error> {
        let ttl = self.state.leases.lock().grant(request.id, request.ttl, Instant::now())?;
        self.engine.put(&mut round.batch, schema::LEASE, &request.id.to_be_bytes(), &ttl.to_be_bytes());
        round.leases_changed = true;
        Ok(pb::LeaseGrantResponse { header: header(round.revision), id: request.id, ttl, error: String::new() })
    }

    fn revoke(&mut self, round: &mut Round, id: i64) -> Result<pb::LeaseRevokeResponse, Error> {
        let keys = self.state.leases.lock().revoke(id)?;
        self.engine.delete(&mut round.batch, schema::LEASE, &id.to_be_bytes());
        self.change(round, |transaction| {
            keys.into_iter().for_each(|key| transaction.delete(key));
            Ok(Outcome::LeaseRevoke(pb::LeaseRevokeResponse::default()))
        })?;
        Ok(pb::LeaseRevokeResponse { header: header(round.revision) })
    }

    fn alarm(&mut self, round: &mut Round, request: &pb::AlarmRequest) -> pb::AlarmResponse {
        let mut alarms = self.state.alarms.lock();
        let answer = change_alarms(&mut alarms.alarms, request);
        self.engine.put(&mut round.batch, schema::STATE, state::ALARMS, &alarms.encode_to_vec());
        pb::AlarmResponse { header: header(round.revision), alarms: answer }
    }

    fn auth(&mut self, round: &mut Round, request: &auth::Change) -> Result<pb::AuthEnableResponse, Error> {
        let unknown = || Error::Consensus("a change of users of an unknown kind: this member is too old".into());
        self.state.auth.apply(request.change.as_ref().ok_or_else(unknown)?)?;
        let book = self.state.auth.book().encode_to_vec();
        self.engine.put(&mut round.batch, schema::STATE, state::AUTH, &book);
        Ok(pb::AuthEnableResponse { header: header(round.revision) })
    }

    /// Whether superseded records wait for their removal.
    pub fn compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Removes some of them.
    ///
    /// # Errors
    /// The disk failed.
    pub fn compact_step(&mut self) -> Result<(), Error> {
        let Some(Compaction { to, cursor }) = self.compaction.take() else { return Ok(()) };
        let (removed, next) = self.state.mvcc.index.write().compact(to, cursor.as_deref(), COMPACT_KEYS);
        let mut batch = WriteBatch::default();
        for revision in removed {
            self.engine.delete(&mut batch, schema::MVCC, &revision.key());
        }
        if next.is_none() {
            self.engine.put(&mut batch, schema::STATE, state::COMPACT_DONE, &to.to_be_bytes());
        }
        self.engine.write(batch)?;
        match next {
            Some(next) => self.compaction = Some(Compaction { to, cursor: Some(next) }),
            None => {
                tracing::info!(revision = to, "history compacted");
                self.state.compacted.send_replace(to);
            }
        }
        Ok(())
    }
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

fn previous(records: &Pending, changes: &[Change]) -> Result<Vec<Option<KeyValue>>, Error> {
    changes.iter().map(|change| change.previous.map(|revision| records.load(revision)).transpose()).collect()
}

/// Changes the list and returns the alarms the request is about.
fn change_alarms(alarms: &mut Vec<pb::AlarmMember>, request: &pb::AlarmRequest) -> Vec<pb::AlarmMember> {
    let member = pb::AlarmMember { member_id: request.member_id, alarm: request.alarm };
    match request.action() {
        AlarmAction::Get => {
            let wanted = |a: &&pb::AlarmMember| request.alarm() == pb::AlarmType::None || a.alarm == request.alarm;
            alarms.iter().filter(wanted).copied().collect()
        }
        AlarmAction::Activate => {
            if !alarms.contains(&member) {
                alarms.push(member);
            }
            vec![member]
        }
        AlarmAction::Deactivate => {
            let (off, on): (Vec<_>, Vec<_>) = alarms.drain(..).partition(|alarm| {
                let whose = request.member_id == 0 || alarm.member_id == request.member_id;
                whose && (request.alarm() == pb::AlarmType::None || alarm.alarm == request.alarm)
            });
            *alarms = on;
            off
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_raised_once_and_cleared_by_kind() {
        let request = |action: AlarmAction, member_id, alarm: pb::AlarmType| pb::AlarmRequest {
            action: action.into(),
            member_id,
            alarm: alarm.into(),
        };
        let mut alarms = Vec::new();
        for _ in 0..2 {
            assert_eq!(change_alarms(&mut alarms, &request(AlarmAction::Activate, 7, pb::AlarmType::Nospace)).len(), 1);
        }
        assert_eq!(alarms.len(), 1);
        assert_eq!(change_alarms(&mut alarms, &request(AlarmAction::Get, 0, pb::AlarmType::Corrupt)).len(), 0);
        assert_eq!(change_alarms(&mut alarms, &request(AlarmAction::Deactivate, 8, pb::AlarmType::None)).len(), 0);
        assert_eq!(change_alarms(&mut alarms, &request(AlarmAction::Deactivate, 0, pb::AlarmType::None)).len(), 1);
        assert!(alarms.is_empty());
    }
}
