//! Table tests of changes and reads against an index and a map of records.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use store_api::etcdserverpb::range_request::{SortOrder, SortTarget};
use store_api::etcdserverpb::request_op::Request;
use store_api::etcdserverpb::response_op::Response;
use store_api::mvccpb::KeyValue;

use super::{Index, Load, Transaction, check, read, txn};
use crate::error::{Error, Refusal};
use crate::lease::LeaseTable;
use crate::schema::{Corruption, MVCC, Revision};

/// A store without a disk.
struct Store {
    index: Index,
    leases: LeaseTable,
    records: Records,
    revision: i64,
    compacted: i64,
}

#[derive(Default)]
struct Records(HashMap<Revision, KeyValue>);

impl Load for Records {
    fn load(&self, revision: Revision) -> Result<KeyValue, Error> {
        self.0.get(&revision).cloned().ok_or_else(|| Corruption::new(MVCC, &revision.key(), "missing").into())
    }
}

impl Store {
    fn new() -> Self {
        Store {
            index: Index::default(),
            leases: LeaseTable::default(),
            records: Records::default(),
            revision: 1,
            compacted: 0,
        }
    }

    fn run<T>(&mut self, act: impl FnOnce(&mut Transaction<'_, Records>) -> T) -> T {
        let mut transaction =
            Transaction::new(&mut self.index, &mut self.leases, &self.records, self.revision, self.compacted);
        let result = act(&mut transaction);
        let (revision, changes) = transaction.finish();
        self.revision = revision;
        self.records.0.extend(changes.into_iter().map(|change| (change.revision, change.kv)));
        result
    }

    fn put(&mut self, key: &'static str, value: &'static str) {
        self.run(|t| t.put(&put(key, value))).unwrap();
    }

    fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        let at = read::read_at(request.revision, self.revision, self.compacted)?;
        read::answer(read::select(&self.index, request, at), request, &self.records)
    }

    fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        check::txn(request, 128)?;
        self.run(|t| t.txn(request))
    }
}

fn put(key: &'static str, value: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn put_op(key: &'static str, value: &'static str) -> pb::RequestOp {
    op(Request::RequestPut(put(key, value)))
}

fn delete_op(key: &'static str, end: &'static str) -> pb::RequestOp {
    op(Request::RequestDeleteRange(pb::DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: true }))
}

fn range_op(key: &'static str) -> pb::RequestOp {
    op(Request::RequestRange(pb::RangeRequest { key: key.into(), ..Default::default() }))
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn all() -> pb::RangeRequest {
    pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() }
}

fn keys(response: &pb::RangeResponse) -> Vec<&str> {
    response.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// a: written three times; b: once; c: created and deleted; d: created anew. Revision 9.
fn filled() -> Store {
    let mut store = Store::new();
    for (key, value) in [("a", "3"), ("a", "1"), ("b", "2"), ("c", "9")] {
        store.put(key, value);
    }
    store.run(|t| t.delete(Bytes::from_static(b"c")));
    store.put("d", "old");
    store.run(|t| t.delete(Bytes::from_static(b"d")));
    store
        .run(|t| t.txn(&pb::TxnRequest { success: vec![put_op("d", "0"), put_op("a", "3")], ..Default::default() }))
        .unwrap();
    store
}

#[test]
fn counters_are_etcds() {
    let store = filled();
    let response = store.range(&all()).unwrap();
    let rows: Vec<_> =
        response.kvs.iter().map(|kv| (kv.key.as_ref(), kv.create_revision, kv.mod_revision, kv.version)).collect();
    assert_eq!(rows, [(b"a".as_ref(), 2, 9, 3), (b"b", 4, 4, 1), (b"d", 9, 9, 1)]);
    assert_eq!((response.count, response.more, store.revision), (3, false, 9));
}

#[test]
fn reads_see_one_revision() {
    let store = filled();
    let at = |revision| keys_at(&store, revision);
    assert_eq!(at(1), Vec::<String>::new());
    assert_eq!(at(2), ["a=3"]);
    assert_eq!(at(5), ["a=1", "b=2", "c=9"]);
    assert_eq!(at(6), ["a=1", "b=2"]);
    assert_eq!(at(0), ["a=3", "b=2", "d=0"]);
    assert_eq!(refusal(store.range(&pb::RangeRequest { revision: 10, ..all() })), Refusal::FutureRevision);
}

fn keys_at(store: &Store, revision: i64) -> Vec<String> {
    let response = store.range(&pb::RangeRequest { revision, ..all() }).unwrap();
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    response.kvs.iter().map(|kv| format!("{}={}", text(&kv.key), text(&kv.value))).collect()
}

#[test]
fn compaction_keeps_the_present() {
    let mut store = filled();
    store.compacted = 6;
    let (removed, next) = store.index.compact(6, None, 100);
    for revision in removed {
        store.records.0.remove(&revision);
    }
    assert_eq!(next, None);
    assert_eq!(refusal(store.range(&pb::RangeRequest { revision: 5, ..all() })), Refusal::Compacted);
    assert_eq!(keys_at(&store, 6), ["a=1", "b=2"]);
    assert_eq!(keys_at(&store, 0), ["a=3", "b=2", "d=0"]);
}

#[test]
fn ranges_limit_sort_and_filter() {
    let store = filled();
    let sorted = |target: SortTarget, order: SortOrder, limit| {
        let request = pb::RangeRequest { sort_target: target.into(), sort_order: order.into(), limit, ..all() };
        let response = store.range(&request).unwrap();
        (keys(&response).join(""), response.more, response.count)
    };
    assert_eq!(sorted(SortTarget::Key, SortOrder::None, 2), ("ab".into(), true, 3));
    assert_eq!(sorted(SortTarget::Key, SortOrder::Ascend, 3), ("abd".into(), false, 3));
    assert_eq!(sorted(SortTarget::Key, SortOrder::Descend, 2), ("db".into(), true, 3));
    assert_eq!(sorted(SortTarget::Value, SortOrder::None, 0), ("dba".into(), false, 3));
    assert_eq!(sorted(SortTarget::Version, SortOrder::Descend, 1), ("a".into(), true, 3));
    assert_eq!(sorted(SortTarget::Create, SortOrder::Ascend, 0), ("abd".into(), false, 3));
    assert_eq!(sorted(SortTarget::Mod, SortOrder::Ascend, 0), ("bad".into(), false, 3));

    let filtered = store.range(&pb::RangeRequest { min_mod_revision: 5, limit: 1, ..all() }).unwrap();
    assert_eq!((keys(&filtered), filtered.more, filtered.count), (vec!["a"], true, 3));
    let created = store.range(&pb::RangeRequest { min_create_revision: 3, max_create_revision: 8, ..all() }).unwrap();
    assert_eq!(keys(&created), ["b"]);
    let counted = store.range(&pb::RangeRequest { count_only: true, limit: 1, ..all() }).unwrap();
    assert_eq!((counted.kvs.len(), counted.more, counted.count), (0, false, 3));
    let names = store.range(&pb::RangeRequest { keys_only: true, ..all() }).unwrap();
    assert!(names.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0));
}

#[test]
fn ranges_alone_need_no_transaction() {
    let op = |request| pb::RequestOp { request: Some(request) };
    let range = || op(Request::RequestRange(all()));
    let table = [
        (vec![], vec![], Some(0)),
        (vec![], vec![range(), range()], Some(2)),
        (vec![], vec![range(), op(Request::RequestPut(put("a", "b")))], None),
        (vec![], vec![op(Request::RequestTxn(pb::TxnRequest::default()))], None),
        (vec![pb::Compare::default()], vec![range()], None),
    ];
    for (compare, success, expected) in table {
        let request = pb::TxnRequest { compare, success, failure: vec![] };
        assert_eq!(txn::only_ranges(&request).map(|ranges| ranges.len()), expected, "{request:?}");
    }
}

#[test]
fn compares_cover_every_target() {
    type Case = (&'static str, &'static str, CompareTarget, CompareResult, Option<TargetUnion>, bool);
    let cases: [Case; 14] = [
        ("a", "", CompareTarget::Version, CompareResult::Equal, Some(TargetUnion::Version(3)), true),
        ("a", "", CompareTarget::Create, CompareResult::Less, Some(TargetUnion::CreateRevision(3)), true),
        ("a", "", CompareTarget::Mod, CompareResult::Greater, Some(TargetUnion::ModRevision(9)), false),
        ("a", "", CompareTarget::Value, CompareResult::Equal, Some(TargetUnion::Value("3".into())), true),
        ("a", "", CompareTarget::Value, CompareResult::NotEqual, Some(TargetUnion::Value("3".into())), false),
        ("a", "", CompareTarget::Lease, CompareResult::Equal, Some(TargetUnion::Lease(0)), true),
        // Missing keys: counters are zero, values compare with nothing.
        ("x", "", CompareTarget::Create, CompareResult::Equal, Some(TargetUnion::CreateRevision(0)), true),
        ("x", "", CompareTarget::Mod, CompareResult::Equal, None, true),
        ("x", "", CompareTarget::Value, CompareResult::NotEqual, Some(TargetUnion::Value("1".into())), false),
        ("c", "", CompareTarget::Version, CompareResult::Equal, Some(TargetUnion::Version(0)), true),
        // Ranges: every key must hold.
        ("a", "\0", CompareTarget::Mod, CompareResult::Greater, Some(TargetUnion::ModRevision(3)), true),
        ("a", "\0", CompareTarget::Mod, CompareResult::Greater, Some(TargetUnion::ModRevision(4)), false),
        ("x", "z", CompareTarget::Version, CompareResult::Equal, Some(TargetUnion::Version(0)), true),
        ("x", "z", CompareTarget::Value, CompareResult::Equal, Some(TargetUnion::Value(Bytes::new())), false),
    ];
    for (key, end, target, result, union, expected) in cases {
        let compare = pb::Compare {
            key: key.into(),
            range_end: end.into(),
            target: target.into(),
            result: result.into(),
            target_union: union,
        };
        let request = pb::TxnRequest { compare: vec![compare.clone()], ..Default::default() };
        let mut store = filled();
        assert_eq!(store.txn(&request).unwrap().succeeded, expected, "{compare:?}");
        assert_eq!(store.revision, 9, "comparing changes nothing");
    }
}

#[test]
fn a_transaction_is_one_revision_and_sees_itself() {
    let mut store = filled();
    let request = pb::TxnRequest {
        success: vec![put_op("n", "1"), range_op("n"), delete_op("a", "c"), range_op("a")],
        ..Default::default()
    };
    let response = store.txn(&request).unwrap();
    let responses: Vec<_> = response.responses.into_iter().map(|r| r.response.unwrap()).collect();
    let [
        Response::ResponsePut(_),
        Response::ResponseRange(new),
        Response::ResponseDeleteRange(deleted),
        Response::ResponseRange(gone),
    ] = responses.as_slice()
    else {
        panic!("{responses:?}")
    };
    assert_eq!((new.kvs[0].mod_revision, new.kvs[0].version), (10, 1));
    assert_eq!((deleted.deleted, deleted.prev_kvs.len(), gone.count), (2, 2, 0));
    assert_eq!((store.revision, response.header.unwrap().revision), (10, 10));
    assert_eq!(keys_at(&store, 0), ["d=0", "n=1"]);
    assert!(store.records.0.contains_key(&Revision { main: 10, sub: 2 }), "three changes, three records");
}

#[test]
fn nested_comparisons_see_the_store_before() {
    let mut store = Store::new();
    let absent = pb::Compare { key: "k".into(), target: CompareTarget::Version.into(), ..Default::default() };
    let nested = pb::TxnRequest { compare: vec![absent], success: vec![put_op("inner", "1")], failure: vec![] };
    let request =
        pb::TxnRequest { success: vec![put_op("k", "v"), op(Request::RequestTxn(nested))], ..Default::default() };
    store.txn(&request).unwrap();
    assert_eq!(keys_at(&store, 0), ["inner=1", "k=v"]);
}

#[test]
fn refused_transactions_change_nothing() {
    let mut future = range_op("a");
    if let Some(Request::RequestRange(range)) = &mut future.request {
        range.revision = 99;
    }
    let leased = op(Request::RequestPut(pb::PutRequest { lease: 7, ..put("k", "v") }));
    let kept = op(Request::RequestPut(pb::PutRequest { ignore_value: true, ..put("missing", "") }));
    let cases = [
        (vec![put_op("k", "v"), future], Refusal::FutureRevision),
        (vec![put_op("j", "v"), leased], Refusal::LeaseNotFound),
        (vec![put_op("j", "v"), kept], Refusal::KeyNotFound),
    ];
    for (success, expected) in cases {
        let mut store = filled();
        assert_eq!(refusal(store.txn(&pb::TxnRequest { success, ..Default::default() })), expected);
        assert_eq!((store.revision, keys_at(&store, 0).len()), (9, 3));
    }
}

#[test]
fn puts_keep_what_they_are_told_to_keep() {
    let mut store = Store::new();
    store.leases.grant(7, 60, Instant::now()).unwrap();
    store.run(|t| t.put(&pb::PutRequest { lease: 7, ..put("k", "v1") })).unwrap();
    let response =
        store.run(|t| t.put(&pb::PutRequest { ignore_lease: true, prev_kv: true, ..put("k", "v2") })).unwrap();
    assert_eq!(response.prev_kv.unwrap().value, "v1");
    store.run(|t| t.put(&pb::PutRequest { ignore_value: true, lease: 0, ..put("k", "") })).unwrap();
    let kv = &store.range(&all()).unwrap().kvs[0];
    assert_eq!((kv.value.as_ref(), kv.lease, kv.version), (b"v2".as_ref(), 0, 3));
    assert_eq!(store.leases.keys(7), Vec::<Bytes>::new());
}

#[test]
fn requests_are_checked_before_anything_happens() {
    let txn =
        |success: Vec<pb::RequestOp>, failure| check::txn(&pb::TxnRequest { compare: vec![], success, failure }, 4);
    let nested = |success, failure| op(Request::RequestTxn(pb::TxnRequest { compare: vec![], success, failure }));
    let cases = [
        (txn(vec![put_op("a", ""), put_op("b", ""), delete_op("c", "")], vec![]), Ok(())),
        (txn(vec![put_op("a", ""), put_op("a", "")], vec![]), Err(Refusal::DuplicateKey)),
        (txn(vec![put_op("b", ""), delete_op("a", "c")], vec![]), Err(Refusal::DuplicateKey)),
        (txn(vec![delete_op("a", "c"), delete_op("b", "")], vec![]), Ok(())),
        (txn(vec![put_op("a", "")], vec![put_op("a", "")]), Ok(())),
        (txn(vec![nested(vec![put_op("a", "")], vec![delete_op("a", "")])], vec![]), Ok(())),
        (txn(vec![put_op("a", ""), nested(vec![], vec![delete_op("a", "")])], vec![]), Err(Refusal::DuplicateKey)),
        (
            txn(vec![nested(vec![put_op("a", "")], vec![]), nested(vec![put_op("a", "")], vec![])], vec![]),
            Err(Refusal::DuplicateKey),
        ),
        (txn(vec![put_op("", "")], vec![]), Err(Refusal::EmptyKey)),
        (txn((0..5).map(|_| range_op("a")).collect(), vec![]), Err(Refusal::TooManyOps)),
        (
            txn(vec![range_op("a"), range_op("a"), nested(vec![range_op("a"); 3], vec![])], vec![]),
            Err(Refusal::TooManyOps),
        ),
        (
            check::range(&pb::RangeRequest { key: "a".into(), sort_order: 9, ..Default::default() }),
            Err(Refusal::InvalidSortOption),
        ),
        (check::put(&pb::PutRequest { ignore_value: true, ..put("a", "v") }), Err(Refusal::ValueProvided)),
        (check::put(&pb::PutRequest { ignore_lease: true, lease: 1, ..put("a", "") }), Err(Refusal::LeaseProvided)),
    ];
    for (place, (actual, expected)) in cases.into_iter().enumerate() {
        assert_eq!(actual, expected, "case {place}");
    }
}
