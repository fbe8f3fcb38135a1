//! `kubelet_internal_checkpoint`: who holds which devices, in upstream's form.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::super::checkpoint::{checksum, list, map};
use super::pool::{Held, Pool, Resource};

/// The file's name, in the folder of the plugins' sockets.
pub const FILE: &str = "kubelet_internal_checkpoint";

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Checkpoint {
    data: Data,
    checksum: u32,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    pod_device_entries: Option<Vec<Entry>>,
    registered_devices: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    uid: String,
    #[serde(rename = "ContainerName")]
    container: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    #[serde(rename = "DeviceIDs")]
    devices: BTreeMap<i64, Vec<String>>,
    #[serde(rename = "AllocResp")]
    answer: String,
}

impl Data {
    fn checksum(&self) -> Result<u32, String> {
        let mut entries = Vec::new();
        for e in self.pod_device_entries.iter().flatten() {
            let answer =
                STANDARD.decode(&e.answer).map_err(|error| format!("AllocResp of {}: {error}", e.container))?;
            entries.push(format!(
                "{{PodUID:(string){} ContainerName:(string){} ResourceName:(string){} \
                 DeviceIDs:(checkpoint.DevicesPerNUMA){} AllocResp:([]uint8){}}}",
                e.uid,
                e.container,
                e.resource,
                map(e.devices.iter().map(|(node, ids)| (node, list(ids)))),
                list(answer)
            ));
        }
        let entries = if self.pod_device_entries.is_some() { list(entries) } else { "<nil>".to_owned() };
        let registered = map(self.registered_devices.iter().map(|(name, ids)| (name, list(ids))));
        Ok(checksum(&format!(
            "(checkpoint.checkpointData){{PodDeviceEntries:([]checkpoint.PodDevicesEntry){entries} \
             RegisteredDevices:(map[string][]string){registered}}}"
        )))
    }
}

/// The file's text.
///
/// # Errors
/// Never in practice: what was put together here can be encoded.
pub fn encode(pool: &Pool) -> Result<String, String> {
    let entry = |h: &Held| Entry {
        uid: h.uid.clone(),
        container: h.container.clone(),
        resource: h.resource.clone(),
        devices: h.devices.clone(),
        answer: STANDARD.encode(&h.answer),
    };
    let healthy = |r: &Resource| r.devices.iter().filter(|(_, d)| d.healthy).map(|(id, _)| id.clone()).collect();
    let data = Data {
        pod_device_entries: (!pool.held.is_empty()).then(|| pool.held.iter().map(entry).collect()),
        registered_devices: pool.resources.iter().map(|(name, r)| (name.clone(), healthy(r))).collect(),
    };
    let checksum = data.checksum()?;
    serde_json::to_string(&Checkpoint { data, checksum }).map_err(|e| e.to_string())
}

/// What the file says. Its resources have no devices until their plugins register again, for which they have the grace
/// period from `now` on, in seconds since 1970.
///
/// # Errors
/// It is not such a file, or the checksum is not that of its content.
pub fn decode(text: &str, now: i64) -> Result<Pool, String> {
    let file: Checkpoint = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if file.data.checksum()? != file.checksum {
        return Err("checkpoint is corrupted".into());
    }
    let mut pool = Pool::default();
    for entry in file.data.pod_device_entries.into_iter().flatten() {
        let answer = STANDARD.decode(&entry.answer).map_err(|e| e.to_string())?;
        let Entry { uid, container, resource, devices, .. } = entry;
        pool.held.push(Held { uid, container, resource, devices, answer });
    }
    for name in file.data.registered_devices.into_keys() {
        pool.resources.insert(name, Resource { lost_at: Some(now), ..Resource::default() });
    }
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files that upstream kubelets wrote.
    const EMPTY: &str = r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{"nvidia.com/gpu":["GPU-0650a168-e770-3ea8-8ac3-8a1d419763e0"]}},"Checksum":3952659280}"#;
    const HELD: &str = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"bf52b2cd-b611-4e79-86b1-280b283185c3","ContainerName":"check","ResourceName":"nvidia.com/gpu","DeviceIDs":{"-1":["tegra"]},"AllocResp":"Ch8KFk5WSURJQV9WSVNJQkxFX0RFVklDRVMSBXRlZ3Jh"}],"RegisteredDevices":{"nvidia.com/gpu":["tegra"]}},"Checksum":3660592824}"#;

    #[test]
    fn upstreams_files_are_read_and_written() {
        let pool = decode(HELD, 5).unwrap();
        assert_eq!(pool.held[0].ids().into_iter().collect::<Vec<_>>(), ["tegra"]);
        assert_eq!(pool.resources["nvidia.com/gpu"].lost_at, Some(5));
        assert!(decode(EMPTY, 0).unwrap().held.is_empty());
        for text in [EMPTY, HELD] {
            let mut pool = decode(text, 0).unwrap();
            let id = if pool.held.is_empty() { "GPU-0650a168-e770-3ea8-8ac3-8a1d419763e0" } else { "tegra" };
            let device = super::super::pool::Device { healthy: true, nodes: Vec::new() };
            pool.resources.values_mut().for_each(|r| r.devices.extend([(id.to_owned(), device.clone())]));
            assert_eq!(encode(&pool).unwrap(), text);
        }
    }

    #[test]
    fn a_changed_file_is_refused() {
        assert_eq!(decode(&HELD.replace("tegra", "other"), 0).unwrap_err(), "checkpoint is corrupted");
        assert!(decode("{", 0).is_err());
    }
}
