//! Range reads: select revisions in the index, then load, filter, sort and cut.

use std::cmp::Ordering;

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::range_request::{SortOrder, SortTarget};
use store_api::mvccpb::KeyValue;

use super::{Index, KeyRange, Load};
use crate::error::{Error, Refusal};
use crate::schema::Revision;

/// The revision a request reads at.
///
/// # Errors
/// It lies in the future or was compacted.
pub fn read_at(wanted: i64, current: i64, compacted: i64) -> Result<i64, Refusal> {
    if wanted > current {
        return Err(Refusal::FutureRevision);
    }
    let at = if wanted > 0 { wanted } else { current };
    if at < compacted { Err(Refusal::Compacted) } else { Ok(at) }
}

/// What a request selects before values are read.
#[derive(Debug)]
pub struct Selected {
    revisions: Vec<Revision>,
    count: i64,
}

/// Finds the keys; only as many as the answer can hold, while the count covers all.
pub fn select(index: &Index, request: &pb::RangeRequest, at: i64) -> Selected {
    let wanted = match usize::try_from(request.limit) {
        _ if request.count_only => 0,
        Ok(limit) if limit > 0 && !needs_all(request) => limit,
        _ => usize::MAX,
    };
    let mut selected = Selected { revisions: Vec::new(), count: 0 };
    index.visit(&KeyRange::new(&request.key, &request.range_end), at, |_, revision| {
        selected.count += 1;
        if selected.revisions.len() < wanted {
            selected.revisions.push(revision);
        }
    });
    selected
}

/// Loads the selected records and builds the answer, without its header.
///
/// # Errors
/// A record is damaged or the disk failed.
pub fn answer(selected: Selected, request: &pb::RangeRequest, records: &impl Load) -> Result<pb::RangeResponse, Error> {
    let Selected { revisions, count } = selected;
    let mut kvs = Vec::with_capacity(revisions.len());
    for revision in revisions {
        let kv = records.load(revision)?;
        if passes(request, &kv) {
            kvs.push(kv);
        }
    }
    sort(request, &mut kvs);
    let matched = if needs_all(request) { kvs.len() } else { usize::try_from(count).unwrap_or(usize::MAX) };
    let mut more = false;
    if let Ok(limit @ 1..) = usize::try_from(request.limit)
        && !request.count_only
    {
        more = matched > limit;
        kvs.truncate(limit);
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value.clear();
        }
    }
    Ok(pb::RangeResponse { header: None, kvs, more, count })
}

/// A filter or a sort has to see every record before the limit cuts.
fn needs_all(request: &pb::RangeRequest) -> bool {
    let filtered =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    filtered.iter().any(|bound| *bound != 0) || order(request).is_some()
}

fn passes(request: &pb::RangeRequest, kv: &KeyValue) -> bool {
    let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

/// The sort that is left to do: keys come in ascending order by themselves, other targets ascend unless told otherwise.
fn order(request: &pb::RangeRequest) -> Option<(SortTarget, bool)> {
    match (request.sort_target(), request.sort_order()) {
        (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
        (target, order) => Some((target, order == SortOrder::Descend)),
    }
}

fn sort(request: &pb::RangeRequest, kvs: &mut [KeyValue]) {
    let Some((target, descend)) = order(request) else { return };
    let compare = |a: &KeyValue, b: &KeyValue| -> Ordering {
        match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    };
    kvs.sort_by(|a, b| if descend { compare(b, a) } else { compare(a, b) });
}
