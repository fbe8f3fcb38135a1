//! What plugins want a container to have, put into its CRI configuration. Pure.

use std::collections::HashSet;

use cri_api::device_plugin as api;
use cri_api::v1;

/// Adds what the plugins answered. What the pod says itself stands above it, and the first plugin above the later ones.
pub fn apply(config: &mut v1::ContainerConfig, answers: &[api::ContainerAllocateResponse]) {
    let mut variables: HashSet<String> = config.envs.iter().map(|e| e.key.clone()).collect();
    let mut mounts: HashSet<String> = config.mounts.iter().map(|m| m.container_path.clone()).collect();
    let mut devices: HashSet<String> = config.devices.iter().map(|d| d.container_path.clone()).collect();
    let mut cdi: HashSet<String> = config.cdi_devices.iter().map(|d| d.name.clone()).collect();
    for answer in answers {
        let mut envs: Vec<(&String, &String)> = answer.envs.iter().collect();
        envs.sort();
        for (key, value) in envs.into_iter().filter(|(key, _)| variables.insert((*key).clone())) {
            config.envs.push(v1::KeyValue { key: key.clone(), value: value.clone() });
        }
        for m in answer.mounts.iter().filter(|m| mounts.insert(m.container_path.clone())) {
            let (container_path, host_path) = (m.container_path.clone(), m.host_path.clone());
            config.mounts.push(v1::Mount { container_path, host_path, readonly: m.read_only, ..Default::default() });
        }
        for d in answer.devices.iter().filter(|d| devices.insert(d.container_path.clone())) {
            config.devices.push(v1::Device {
                container_path: d.container_path.clone(),
                host_path: d.host_path.clone(),
                permissions: d.permissions.clone(),
            });
        }
        for (key, value) in &answer.annotations {
            config.annotations.entry(key.clone()).or_insert_with(|| value.clone());
        }
        for d in answer.cdi_devices.iter().filter(|d| cdi.insert(d.name.clone())) {
            config.cdi_devices.push(v1::CdiDevice { name: d.name.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_after_what_the_pod_says() {
        let pair = |key: &str, value: &str| v1::KeyValue { key: key.into(), value: value.into() };
        let mut config = v1::ContainerConfig { envs: vec![pair("A", "own")], ..Default::default() };
        let answer = |id: &str| api::ContainerAllocateResponse {
            envs: [("A".to_owned(), id.to_owned()), ("B".to_owned(), id.to_owned())].into(),
            mounts: vec![api::Mount { container_path: "/m".into(), host_path: id.into(), read_only: true }],
            devices: vec![api::DeviceSpec {
                container_path: "/dev/x".into(),
                host_path: id.into(),
                permissions: "rw".into(),
            }],
            annotations: [("note".to_owned(), id.to_owned())].into(),
            cdi_devices: vec![api::CdiDevice { name: format!("v.com/c={id}") }],
        };
        apply(&mut config, &[answer("1"), answer("2")]);
        assert_eq!(config.envs, [pair("A", "own"), pair("B", "1")]);
        assert_eq!((config.mounts.len(), config.mounts[0].readonly), (1, true));
        assert_eq!((config.devices.len(), config.devices[0].host_path.as_str()), (1, "1"));
        assert_eq!(config.annotations["note"], "1");
        let names: Vec<&str> = config.cdi_devices.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["v.com/c=1", "v.com/c=2"]);
    }
}
