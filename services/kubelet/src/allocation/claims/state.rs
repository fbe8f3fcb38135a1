//! `dra_manager_state`: the claims that drivers have prepared, in upstream's form.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The file's name, in the kubelet's folder.
pub const FILE: &str = "dra_manager_state";

const KIND: &str = "DRACheckpoint";
const VERSION: &str = "checkpoint.dra.kubelet.k8s.io/v1";

/// A device as its driver described it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Device {
    /// Its pool.
    pub pool_name: String,
    /// Its name in the pool.
    pub device_name: String,
    /// The requests it is for; none means all.
    #[serde(with = "list")]
    pub request_names: Vec<String>,
    /// What the runtime knows it by.
    #[serde(rename = "CDIDeviceIDs", with = "list")]
    pub cdi_ids: Vec<String>,
}

/// A claim of at least one pod here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The pods that use it.
    pub pods: BTreeSet<String>,
    /// The drivers of its devices, with what each described.
    pub drivers: BTreeMap<String, Vec<Device>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: String,
    checksum: u32,
}

#[derive(Debug, Deserialize, Serialize)]
struct Data {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: String,
    #[serde(rename = "ClaimInfoStateList", with = "list")]
    claims: Vec<Entry>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ClaimUID")]
    uid: String,
    #[serde(rename = "ClaimName")]
    name: String,
    namespace: String,
    #[serde(rename = "PodUIDs")]
    pods: Map<String, Value>,
    driver_state: BTreeMap<String, Driver>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Driver {
    #[serde(with = "list")]
    devices: Vec<Device>,
}

/// Go writes a list that was never made as null.
mod list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer, T: Serialize>(list: &[T], to: S) -> Result<S::Ok, S::Error> {
        if list.is_empty() { to.serialize_none() } else { list.serialize(to) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
        Option::<Vec<T>>::deserialize(from).map(Option::unwrap_or_default)
    }
}

fn checksum(text: &str) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(text.as_bytes());
    crc.sum()
}

/// The file's text.
///
/// # Errors
/// Never in practice: what was put together here can be encoded.
pub fn encode<'a>(claims: impl Iterator<Item = &'a Claim>) -> Result<String, String> {
    let entry = |claim: &Claim| Entry {
        uid: claim.uid.clone(),
        name: claim.name.clone(),
        namespace: claim.namespace.clone(),
        pods: claim.pods.iter().map(|uid| (uid.clone(), Value::Object(Map::new()))).collect(),
        driver_state: claim.drivers.iter().map(|(n, d)| (n.clone(), Driver { devices: d.clone() })).collect(),
    };
    let data = Data { kind: KIND.into(), api_version: VERSION.into(), claims: claims.map(entry).collect() };
    let data = serde_json::to_string(&data).map_err(|e| e.to_string())?;
    serde_json::to_string(&File { checksum: checksum(&data), data }).map_err(|e| e.to_string())
}

/// What the file says.
///
/// # Errors
/// It is not such a file, or its checksum is not that of its content.
pub fn decode(text: &str) -> Result<Vec<Claim>, String> {
    let file: File = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if file.checksum != checksum(&file.data) {
        return Err("checkpoint is corrupted".into());
    }
    let data: Data = serde_json::from_str(&file.data).map_err(|e| e.to_string())?;
    if (data.kind.as_str(), data.api_version.as_str()) != (KIND, VERSION) {
        return Err(format!("checkpoint is of an unknown version {:?}", data.api_version));
    }
    let claim = |entry: Entry| Claim {
        uid: entry.uid,
        name: entry.name,
        namespace: entry.namespace,
        pods: entry.pods.into_iter().map(|(uid, _)| uid).collect(),
        drivers: entry.driver_state.into_iter().map(|(name, state)| (name, state.devices)).collect(),
    };
    Ok(data.claims.into_iter().map(claim).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_files_are_read_and_written() {
        let text = r#"{"Data":"{\"kind\":\"DRACheckpoint\",\"apiVersion\":\"checkpoint.dra.kubelet.k8s.io/v1\",\"ClaimInfoStateList\":[{\"ClaimUID\":\"067798be-454e-4be4-9047-1aa06aea63f7\",\"ClaimName\":\"example-1\",\"Namespace\":\"default\",\"PodUIDs\":{\"139cdb46-f989-4f17-9561-ca10cfb509a6\":{}},\"DriverState\":{\"test-driver.cdi.k8s.io\":{\"Devices\":[{\"PoolName\":\"worker-1\",\"DeviceName\":\"dev-1\",\"RequestNames\":[\"test request\"],\"CDIDeviceIDs\":[\"example.com/example=cdi-example\"]}]}}},{\"ClaimUID\":\"4cf8db2d-06c0-7d70-1a51-e59b25b2c16c\",\"ClaimName\":\"example-2\",\"Namespace\":\"default\",\"PodUIDs\":{\"139cdb46-f989-4f17-9561-ca10cfb509a6\":{}},\"DriverState\":{\"test-driver.cdi.k8s.io\":{\"Devices\":[{\"PoolName\":\"worker-1\",\"DeviceName\":\"dev-2\",\"RequestNames\":null,\"CDIDeviceIDs\":null}]}}}]}","Checksum":1582256999}"#;
        let claims = decode(text).unwrap();
        assert_eq!((claims.len(), claims[1].drivers["test-driver.cdi.k8s.io"][0].request_names.len()), (2, 0));
        assert_eq!(encode(claims.iter()).unwrap(), text);
        assert_eq!(decode(&text.replace("dev-1", "dev-3")).unwrap_err(), "checkpoint is corrupted");
    }
}
