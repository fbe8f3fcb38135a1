//! Node ports: one bitmap for the whole range, changed by compare-and-swap.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{invalid, node_ports, row};
use crate::errors::{ApiError, FieldError};
use crate::registry::strategy::tree::{each_indexed, int_at, items, set, str_at};
use crate::registry::{Context, Generic, Resource};
use crate::server::State;
use crate::storage::{Preconditions, Storage};

/// Where the bitmap lives. It is not an API resource, so it has no row in the table.
static RECORD: Resource = Resource {
    group: "",
    version: "v1",
    plural: "servicenodeports",
    singular: "servicenodeports",
    kind: "RangeAllocation",
    namespaced: false,
    short_names: &[],
    categories: &[],
    verbs: &[],
    subresources: &[],
    storage: "ranges",
    strategy: &Generic,
    virtual_: false,
};
const NAME: &str = "servicenodeports";
/// A port claimed by a request of this process is that request's for this long, whatever the Services say.
const IN_FLIGHT: Duration = Duration::from_secs(60);

/// The set of ports taken in a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    range: (u16, u16),
    taken: BTreeSet<u16>,
}

impl Bitmap {
    /// Nothing taken.
    pub fn new(range: (u16, u16)) -> Self {
        Self { range, taken: BTreeSet::new() }
    }

    /// From the stored record; a record of another range keeps what still fits.
    pub fn read(range: (u16, u16), record: &Value) -> Self {
        let mut map = Self::new(range);
        let low = str_at(record, &["range"]).split('-').next().and_then(|t| t.parse::<u16>().ok()).unwrap_or(range.0);
        let bytes = STANDARD.decode(str_at(record, &["data"])).unwrap_or_default();
        for (i, byte) in bytes.iter().enumerate() {
            for bit in 0..8 {
                if byte & (1 << bit) != 0 {
                    let port = usize::from(low) + i * 8 + bit;
                    map.taken.extend(u16::try_from(port).ok().filter(|p| (range.0..=range.1).contains(p)));
                }
            }
        }
        map
    }

    /// As stored.
    pub fn write(&self, record: &mut Value) {
        let mut bytes = vec![0u8; usize::from(self.range.1 - self.range.0) / 8 + 1];
        for port in &self.taken {
            let at = usize::from(port - self.range.0);
            bytes[at / 8] |= 1 << (at % 8);
        }
        set(record, "range", format!("{}-{}", self.range.0, self.range.1));
        set(record, "data", STANDARD.encode(bytes));
    }

    /// A free port: from a random place upwards, the first 86 (kept for people's own choice) last.
    pub fn free(&self, random: u16) -> Option<u16> {
        let size = u32::from(self.range.1 - self.range.0) + 1;
        let band = if size < 32 { 0 } else { (size / 32).clamp(16, 128) };
        let upper = size - band;
        let order = (0..upper).map(|i| band + (u32::from(random) + i) % upper).chain(0..band);
        order.filter_map(|i| u16::try_from(u32::from(self.range.0) + i).ok()).find(|p| !self.taken.contains(p))
    }
}

/// Gives every port that lacks one its node port and claims those that clients chose.
pub async fn assign(cx: &Context<'_>, svc: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
    let held: Vec<u16> = old.map(node_ports).unwrap_or_default();
    let (low, high) = cx.state.alloc.ports;
    let mut wanted = BTreeSet::new();
    let mut missing = 0;
    for (i, p) in items(svc, &["spec", "ports"]).iter().enumerate() {
        let number = int_at(p, &["nodePort"]).unwrap_or(0);
        match u16::try_from(number).ok().filter(|n| (low..=high).contains(n)) {
            _ if number == 0 => missing += 1,
            Some(n) if held.contains(&n) => {}
            Some(n) => {
                // TCP and UDP of one Service may share a number.
                wanted.insert((n, i));
            }
            None => {
                let detail =
                    format!("provided port is not in the valid range. The range of valid ports is {low}-{high}");
                return Err(invalid(svc, &[FieldError::invalid(format!("spec.ports[{i}].nodePort"), number, detail)]));
            }
        }
    }
    if missing == 0 && wanted.is_empty() {
        return Ok(());
    }
    let fresh = claim(cx, svc, &wanted, missing).await?;
    let mut fresh = fresh.into_iter();
    each_indexed(&mut svc["spec"], "ports", |_, p| {
        if int_at(p, &["nodePort"]).unwrap_or(0) == 0
            && let Some(n) = fresh.next()
        {
            set(p, "nodePort", n);
        }
    });
    Ok(())
}

async fn claim(
    cx: &Context<'_>,
    svc: &Value,
    wanted: &BTreeSet<(u16, usize)>,
    missing: usize,
) -> Result<Vec<u16>, ApiError> {
    let storage = &cx.state.storage;
    let range = cx.state.alloc.ports;
    // Taken by a bit but by no Service: left over from a request that failed later on.
    let used = in_use(storage).await?;
    let pending = pending(cx);
    let mut fresh = Vec::new();
    let mut choose = |mut record: Value| {
        let mut map = Bitmap::read(range, &record);
        // Whatever the bitmap says, a Service's port is taken.
        map.taken.extend(&used);
        fresh.clear();
        for (port, i) in wanted {
            let left_over = !used.contains(port) && !pending.contains(port);
            if map.taken.contains(port) && !left_over {
                let path = format!("spec.ports[{i}].nodePort");
                return Err(invalid(svc, &[FieldError::invalid(path, *port, "provided port is already allocated")]));
            }
        }
        map.taken.extend(wanted.iter().map(|(p, _)| *p));
        for _ in 0..missing {
            if map.free(0).is_none() {
                map.taken = used
                    .union(&pending)
                    .copied()
                    .chain(wanted.iter().map(|(p, _)| *p))
                    .chain(fresh.iter().copied())
                    .collect();
            }
            let port = map
                .free(rand::random())
                .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?;
            map.taken.insert(port);
            fresh.push(port);
        }
        map.write(&mut record);
        Ok(record)
    };
    if cx.dry_run {
        let record = storage.get(&RECORD, "", NAME).await?.map_or_else(|| json!({}), |s| s.object());
        choose(record)?;
    } else {
        ensure(storage, range).await?;
        storage.guaranteed_update(&RECORD, "", NAME, &Preconditions::default(), choose).await?;
        let now = Instant::now();
        cx.state.alloc.pending.lock().extend(fresh.iter().chain(wanted.iter().map(|(p, _)| p)).map(|p| (*p, now)));
    }
    Ok(fresh)
}

fn pending(cx: &Context<'_>) -> BTreeSet<u16> {
    let mut pending = cx.state.alloc.pending.lock();
    pending.retain(|(_, since)| since.elapsed() < IN_FLIGHT);
    pending.iter().map(|(p, _)| *p).collect()
}

async fn ensure(storage: &Storage, range: (u16, u16)) -> Result<(), ApiError> {
    if storage.get(&RECORD, "", NAME).await?.is_some() {
        return Ok(());
    }
    let mut record = json!({"apiVersion": "v1", "kind": "RangeAllocation", "metadata": {"name": NAME}});
    Bitmap::new(range).write(&mut record);
    match storage.create(&RECORD, record).await {
        Err(e) if e.code() != 409 => Err(e),
        _ => Ok(()),
    }
}

/// Gives ports back.
pub fn release(cx: &Context<'_>, ports: Vec<u16>) {
    if ports.is_empty() {
        return;
    }
    cx.state.alloc.pending.lock().retain(|(p, _)| !ports.contains(p));
    let (storage, range) = (cx.state.storage.clone(), cx.state.alloc.ports);
    tokio::spawn(async move {
        if let Err(error) = drop_claims(&storage, range, ports).await {
            tracing::warn!(%error, "node ports are not given back; the next start will do it");
        }
    });
}

async fn drop_claims(storage: &Storage, range: (u16, u16), mut ports: Vec<u16>) -> Result<(), ApiError> {
    // A write whose answer was lost may have made the Service after all.
    let used = in_use(storage).await?;
    ports.retain(|p| !used.contains(p));
    let drop = |mut record: Value| {
        let mut map = Bitmap::read(range, &record);
        map.taken.retain(|p| !ports.contains(p));
        map.write(&mut record);
        Ok(record)
    };
    storage.guaranteed_update(&RECORD, "", NAME, &Preconditions::default(), drop).await.map(|_| ())
}

async fn in_use(storage: &Storage) -> Result<BTreeSet<u16>, ApiError> {
    Ok(storage.list(row("", "services")?, None).await?.0.iter().flat_map(|s| node_ports(&s.object())).collect())
}

/// The bitmap of what the Services hold.
pub async fn sweep(state: &State, services: &[Value]) -> Result<(), ApiError> {
    let range = state.alloc.ports;
    let used: BTreeSet<u16> =
        services.iter().flat_map(node_ports).filter(|p| (range.0..=range.1).contains(p)).collect();
    ensure(&state.storage, range).await?;
    let set = |mut record: Value| {
        Bitmap { range, taken: used.clone() }.write(&mut record);
        Ok(record)
    };
    state.storage.guaranteed_update(&RECORD, "", NAME, &Preconditions::default(), set).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_survives_its_record() {
        let mut map = Bitmap::new((30000, 32767));
        map.taken.extend([30000, 30007, 30008, 32767]);
        let mut record = json!({});
        map.write(&mut record);
        assert_eq!(record["range"], "30000-32767");
        assert_eq!(Bitmap::read((30000, 32767), &record), map);
        assert_eq!(Bitmap::read((30005, 30010), &record).taken, BTreeSet::from([30007, 30008]));
    }

    #[test]
    fn free_ports_run_out_one_by_one() {
        let mut map = Bitmap::new((30000, 30099));
        for i in 0..100 {
            let port = map.free(7).expect("one is left");
            assert!(map.taken.insert(port), "{port} twice");
            assert_eq!(port < 30016, i >= 84, "the lower band last");
        }
        assert_eq!(map.free(7), None);
    }
}
