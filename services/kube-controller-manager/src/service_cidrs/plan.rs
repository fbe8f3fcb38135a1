//! Whether a range is ready or may go. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::{meta, time};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{object, protection};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

/// What to write: finalizers or status, whichever has to change.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) finalizers: Option<Vec<String>>,
    pub(super) status: Option<Value>,
}

/// Decides. `used` are the addresses in use.
pub(super) fn plan(range: &Value, all: &[Arc<Value>], used: &[&str], now: Timestamp) -> Plan {
    let others: Vec<&Arc<Value>> = all
        .iter()
        .filter(|other| meta::uid(other) != meta::uid(range) && meta::deletion_timestamp(other).is_none())
        .collect();
    let needed = |address: &&str| {
        let Ok(address) = address.parse::<IpAddr>() else { return false };
        contains(range, address) && !others.iter().any(|other| contains(other, address))
    };
    let in_use = meta::deletion_timestamp(range).is_some() && used.iter().any(needed);
    let finalizers = protection::plan(range, FINALIZER, in_use);
    let condition = if in_use {
        json!({"type": "Ready", "status": "False", "reason": "Terminating",
               "message": "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"})
    } else {
        json!({"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready"})
    };
    let mut conditions = object::list(range, "/status/conditions").to_vec();
    let changed = object::set_condition(&mut conditions, condition, &time::rfc3339(now));
    Plan { finalizers, status: changed.then(|| json!({"conditions": conditions})) }
}

fn contains(range: &Value, address: IpAddr) -> bool {
    object::list(range, "/spec/cidrs").iter().filter_map(Value::as_str).any(|cidr| within(cidr, address))
}

fn within(cidr: &str, address: IpAddr) -> bool {
    let Some((network, prefix)) = cidr.split_once('/') else { return false };
    let (Ok(network), Ok(prefix)) = (network.parse::<IpAddr>(), prefix.parse::<u32>()) else { return false };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if prefix <= 32 => {
            (network.to_bits() ^ address.to_bits()).checked_shr(32 - prefix).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) if prefix <= 128 => {
            (network.to_bits() ^ address.to_bits()).checked_shr(128 - prefix).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(name: &str, cidr: &str, going: bool) -> Arc<Value> {
        let mut range = json!({"metadata": {"uid": name, "finalizers": [FINALIZER]}, "spec": {"cidrs": [cidr]}});
        if going {
            range["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        Arc::new(range)
    }

    #[test]
    fn a_range_stays_while_it_is_needed() {
        let used = ["10.96.0.1", "fd00::1"];
        let going = range("a", "10.96.0.0/16", true);
        let alone = plan(&going, std::slice::from_ref(&going), &used, Timestamp::UNIX_EPOCH);
        assert_eq!(alone.finalizers, None);
        assert_eq!(alone.status.unwrap()["conditions"][0]["reason"], "Terminating");
        let covered = [Arc::clone(&going), range("b", "10.0.0.0/8", false)];
        assert_eq!(plan(&going, &covered, &used, Timestamp::UNIX_EPOCH).finalizers, Some(Vec::new()));
        let elsewhere = range("c", "192.168.0.0/24", true);
        assert_eq!(plan(&elsewhere, &covered, &used, Timestamp::UNIX_EPOCH).finalizers, Some(Vec::new()));
        let ready = plan(&covered[1], &covered, &used, Timestamp::UNIX_EPOCH);
        assert_eq!(ready.status.unwrap()["conditions"][0]["status"], "True");
        for (cidr, address, expected) in
            [("0.0.0.0/0", "1.2.3.4", true), ("10.0.0.0/31", "10.0.0.2", false), ("fd00::/64", "fd00::5", true)]
        {
            assert_eq!(within(cidr, address.parse().unwrap()), expected, "{cidr} {address}");
        }
    }
}
