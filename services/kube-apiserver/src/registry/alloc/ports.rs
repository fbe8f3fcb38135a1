//! Node ports: one bitmap for the whole range, changed by compare-and-swap.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{invalid, node_ports, row};
use crate::errors::{ApiError, FieldError};
use crate::registry::strategy::service::{wants_health_port, wants_node_ports};
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

/// Which field of a Service asks for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// `spec.ports[i].nodePort`.
    Port(usize),
    /// `spec.healthCheckNodePort`.
    HealthCheck,
}

impl Field {
    fn of(self, svc: &Value) -> i64 {
        let number = match self {
            Self::Port(i) => items(svc, &["spec", "ports"]).get(i).and_then(|p| int_at(p, &["nodePort"])),
            Self::HealthCheck => int_at(svc, &["spec", "healthCheckNodePort"]),
        };
        number.unwrap_or(0)
    }

    fn fill(self, svc: &mut Value, port: u16) {
        match self {
            Self::Port(at) => each_indexed(&mut svc["spec"], "ports", |i, p| {
                if i == at {
                    set(p, "nodePort", port);
                }
            }),
            Self::HealthCheck => set(&mut svc["spec"], "healthCheckNodePort", port),
        }
    }

    /// As upstream: a port in the list is the client's mistake, the other one an error of the server.
    fn refused(self, svc: &Value, port: i64, detail: &str) -> ApiError {
        match self {
            Self::Port(i) => {
                invalid(svc, &[FieldError::invalid(format!("spec.ports[{i}].nodePort"), port, detail.to_owned())])
            }
            Self::HealthCheck => {
                ApiError::internal(format!("failed to allocate requested HealthCheck NodePort {port}: {detail}"))
            }
        }
    }
}

/// What a Service asks for, in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wishes {
    /// Ports that the client chose and the Service does not hold yet.
    chosen: Vec<(Field, u16)>,
    /// Fields that get any free port.
    any: Vec<Field>,
}

impl Wishes {
    /// A number outside the range is an error.
    fn of(svc: &Value, held: &[u16], (low, high): (u16, u16)) -> Result<Self, ApiError> {
        let listed = if wants_node_ports(svc) { items(svc, &["spec", "ports"]).len() } else { 0 };
        let health = wants_health_port(svc).then_some(Field::HealthCheck);
        let mut wishes = Self::default();
        for field in (0..listed).map(Field::Port).chain(health) {
            let number = field.of(svc);
            match u16::try_from(number).ok().filter(|port| (low..=high).contains(port)) {
                _ if number == 0 => wishes.any.push(field),
                Some(port) if held.contains(&port) => {}
                Some(port) => wishes.chosen.push((field, port)),
                None => {
                    let range = format!("The range of valid ports is {low}-{high}");
                    return Err(field.refused(
                        svc,
                        number,
                        &format!("provided port is not in the valid range. {range}"),
                    ));
                }
            }
        }
        Ok(wishes)
    }
}

/// Gives every port that lacks one its node port, the Service its health check's, and claims those that clients chose.
pub async fn assign(cx: &Context<'_>, svc: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
    let wishes = Wishes::of(svc, &old.map(node_ports).unwrap_or_default(), cx.state.alloc.ports)?;
    if wishes != Wishes::default() {
        let fresh = claim(cx, svc, &wishes).await?;
        for (field, port) in wishes.any.iter().zip(fresh) {
            field.fill(svc, port);
        }
    }
    Ok(())
}

async fn claim(cx: &Context<'_>, svc: &Value, wishes: &Wishes) -> Result<Vec<u16>, ApiError> {
    let storage = &cx.state.storage;
    let range = cx.state.alloc.ports;
    // Taken by a bit but by no Service: left over from a request that failed later on.
    let used = in_use(storage).await?;
    let pending = pending(cx);
    let chosen: BTreeSet<u16> = wishes.chosen.iter().map(|(_, port)| *port).collect();
    let mut fresh = Vec::new();
    let mut choose = |mut record: Value| {
        let mut map = Bitmap::read(range, &record);
        // Whatever the bitmap says, a Service's port is taken.
        map.taken.extend(&used);
        fresh.clear();
        for (field, port) in &wishes.chosen {
            let left_over = !used.contains(port) && !pending.contains(port);
            // TCP and UDP of one Service may share a number; a health check shares it with nobody.
            let shared = *field == Field::HealthCheck && wishes.chosen.iter().any(|(f, p)| f != field && p == port);
            if shared || (map.taken.contains(port) && !left_over) {
                return Err(field.refused(svc, i64::from(*port), "provided port is already allocated"));
            }
        }
        map.taken.extend(&chosen);
        for _ in &wishes.any {
            if map.free(0).is_none() {
                map.taken = used.iter().chain(&pending).chain(&chosen).chain(&fresh).copied().collect();
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
        cx.state.alloc.pending.lock().extend(fresh.iter().chain(&chosen).map(|p| (*p, now)));
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
    fn a_service_asks_for_what_it_lacks() {
        let balancer = |policy: &str, ports: Value| json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": ports}});
        let range = (30000, 32767);
        let wishes_of = |svc: &Value, held: &[u16]| Wishes::of(svc, held, range).expect("in range");
        let mut local = balancer("Local", json!([{"port": 80}, {"port": 81, "nodePort": 30001}]));
        let wishes = wishes_of(&local, &[]);
        assert_eq!(wishes.any, [Field::Port(0), Field::HealthCheck]);
        assert_eq!(wishes.chosen, [(Field::Port(1), 30001)]);
        for field in wishes.any {
            field.fill(&mut local, if field == Field::HealthCheck { 30005 } else { 30004 });
        }
        assert_eq!(node_ports(&local), [30004, 30001, 30005]);
        assert_eq!(wishes_of(&local, &node_ports(&local)), Wishes::default(), "nothing is asked for twice");
        local["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
        assert_eq!(wishes_of(&local, &[]).chosen, [(Field::HealthCheck, 30005)]);
        assert_eq!(wishes_of(&balancer("Cluster", json!([])), &[]), Wishes::default());
        for wrong in [80, 70_000, -1] {
            local["spec"]["healthCheckNodePort"] = json!(wrong);
            let error = Wishes::of(&local, &[], range).expect_err("out of range").to_string();
            assert!(error.contains("The range of valid ports is 30000-32767"), "{error}");
        }
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
