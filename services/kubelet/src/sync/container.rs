//! The CRI configuration of a container. Pure but for subPath resolution, which must look at the volume.

use std::collections::HashMap;
use std::path::Path;

use cri_api::v1;

use super::env::expand;
use super::{plan, resources, security};
use crate::observed::labels;
use crate::pod::{Container, Pod, VolumeMount};
use crate::signal;
use crate::volumes::{Mounted, Source, sub_path};

/// What a container's configuration depends on beside its specification.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Restarts before this instance.
    pub attempt: u32,
    /// The image, as the runtime knows it.
    pub image_ref: &'a str,
    /// The environment.
    pub env: &'a [(String, String)],
    /// The pod's volumes on the node.
    pub mounted: &'a Mounted,
    /// The managed hosts file.
    pub hosts_file: &'a Path,
    /// The file for the termination message.
    pub message_file: &'a Path,
    /// What resources depend on.
    pub node: resources::NodeFacts,
    /// What the node decides about security.
    pub security: &'a security::NodeSecurity,
    /// The container whose processes an ephemeral one joins.
    pub target: Option<&'a str>,
    /// Whether the runtime mounts read-only recursively.
    pub recursive_read_only: bool,
    /// Folder for the mounts of subPaths.
    pub sub_paths: &'a Path,
}

/// The configuration.
///
/// # Errors
/// The text for the container's status: a volume that does not exist or a subPath that cannot be used.
pub fn config(pod: &Pod, container: &Container, parts: &Parts<'_>) -> Result<v1::ContainerConfig, String> {
    let get = |name: &str| parts.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let expanded = |list: &[String]| -> Vec<String> { list.iter().map(|t| expand(t, &get)).collect() };
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: parts.attempt }),
        image: Some(v1::ImageSpec {
            image: parts.image_ref.to_owned(),
            user_specified_image: container.image.clone(),
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone(),
        envs: parts.env.iter().map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: mounts(pod, container, parts, &get)?,
        devices: devices(container, parts)?,
        labels: HashMap::from([
            (labels::CONTAINER_NAME.to_owned(), container.name.clone()),
            (labels::POD_NAME.to_owned(), pod.metadata.name.clone()),
            (labels::POD_NAMESPACE.to_owned(), pod.metadata.namespace.clone()),
            (labels::POD_UID.to_owned(), pod.metadata.uid.clone()),
        ]),
        annotations: annotations(pod, container, parts.attempt),
        log_path: format!("{}/{}.log", container.name, parts.attempt),
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        stop_signal: container.stop_signal().map_or(Ok(0), signal::of_runtime)?,
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources::resources(pod, container, &parts.node)),
            security_context: Some(security::context(pod, container, parts.security, parts.target)),
        }),
        ..Default::default()
    })
}

/// The path in the container to which the termination message goes.
pub fn message_path(container: &Container) -> &str {
    if container.termination_message_path.is_empty() {
        "/dev/termination-log"
    } else {
        &container.termination_message_path
    }
}

fn annotations(pod: &Pod, container: &Container, attempt: u32) -> HashMap<String, String> {
    let policy =
        if container.termination_message_policy.is_empty() { "File" } else { &container.termination_message_policy };
    HashMap::from([
        (labels::CONTAINER_HASH.to_owned(), plan::spec_hash(container)),
        (labels::RESTART_COUNT.to_owned(), attempt.to_string()),
        (labels::MESSAGE_PATH.to_owned(), message_path(container).to_owned()),
        (labels::MESSAGE_POLICY.to_owned(), policy.to_owned()),
        (labels::GRACE_PERIOD.to_owned(), pod.grace_period().to_string()),
    ])
}

fn mounts(
    pod: &Pod,
    container: &Container,
    parts: &Parts<'_>,
    get: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<v1::Mount>, String> {
    let mut list = Vec::new();
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let volume = parts
            .mounted
            .get(&mount.name)
            .ok_or_else(|| format!("volumeMount {:?}: the pod has no such volume", mount.name))?;
        let sub =
            if mount.sub_path_expr.is_empty() { mount.sub_path.clone() } else { resolved(&mount.sub_path_expr, get)? };
        if sub.starts_with('/') {
            return Err(format!("error SubPath `{sub}` must not be an absolute path"));
        }
        if sub.split('/').any(|part| part == "..") {
            return Err(format!("unable to provision SubPath `{sub}`: must not contain '..'"));
        }
        let recursive = recursive(mount, parts.recursive_read_only)?;
        list.push(match volume {
            Source::Path(path) => {
                let host = if sub.is_empty() {
                    path.clone()
                } else {
                    let target = parts.sub_paths.join(&mount.name).join(&container.name).join(index.to_string());
                    sub_path::bind(path, &sub, &target).map_err(|error| {
                        tracing::warn!(pod = %pod.full_name(), container = container.name, error, "subPath refused");
                        format!(
                            "failed to prepare subPath for volumeMount {:?} of container {:?}",
                            mount.name, container.name
                        )
                    })?
                };
                let host_path = host.to_string_lossy().into_owned();
                v1::Mount { host_path, recursive_read_only: recursive, ..one_mount(pod, mount) }
            }
            Source::Image(id) => v1::Mount {
                image: Some(v1::ImageSpec { image: id.clone(), ..Default::default() }),
                image_sub_path: sub,
                readonly: true,
                ..one_mount(pod, mount)
            },
            Source::Device(path) => {
                return Err(format!("volumeMount {:?}: {} is a block device", mount.name, path.display()));
            }
        });
    }
    if !list.iter().any(|m| m.container_path == "/etc/hosts") {
        list.push(file_mount("/etc/hosts", parts.hosts_file));
    }
    list.push(file_mount(message_path(container), parts.message_file));
    Ok(list)
}

/// Whether everything below the mount is to be read-only too (KEP-3857).
fn recursive(mount: &VolumeMount, possible: bool) -> Result<bool, String> {
    match mount.recursive_read_only.as_deref() {
        Some("Enabled") if !possible => Err(format!(
            "volumeMount {:?}: recursiveReadOnly: the runtime does not support recursive read-only mounts",
            mount.name
        )),
        Some("Enabled") => Ok(true),
        Some("IfPossible") => Ok(possible),
        _ => Ok(false),
    }
}

/// A mount but for its source.
fn one_mount(pod: &Pod, mount: &VolumeMount) -> v1::Mount {
    let absolute =
        if mount.mount_path.starts_with('/') { mount.mount_path.clone() } else { format!("/{}", mount.mount_path) };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        _ => v1::MountPropagation::PropagationPrivate,
    };
    v1::Mount {
        container_path: absolute,
        readonly: mount.read_only || read_only(pod, &mount.name),
        propagation: propagation.into(),
        ..Default::default()
    }
}

/// Volumes that a container uses as block devices.
fn devices(container: &Container, parts: &Parts<'_>) -> Result<Vec<v1::Device>, String> {
    let one = |device: &crate::pod::VolumeDevice| match parts.mounted.get(&device.name) {
        Some(Source::Device(path)) => Ok(v1::Device {
            container_path: device.device_path.clone(),
            host_path: path.to_string_lossy().into_owned(),
            permissions: "mrw".into(),
        }),
        _ => Err(format!("volumeDevice {:?}: the pod has no such block volume", device.name)),
    };
    container.volume_devices.iter().map(one).collect()
}

/// Expands a `subPathExpr`, where an unknown variable is an error instead of a literal.
fn resolved(expression: &str, get: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let missing = std::cell::RefCell::new(None);
    let text = expand(expression, &|name| {
        let value = get(name);
        if value.is_none() {
            missing.replace(Some(name.to_owned()));
        }
        value
    });
    match missing.into_inner() {
        Some(name) => Err(format!("missing value for {name:?}")),
        None => Ok(text),
    }
}

/// Volumes whose files the kubelet writes are read-only for containers, and those that ask for it.
fn read_only(pod: &Pod, name: &str) -> bool {
    pod.spec.volumes.iter().any(|v| {
        let generated =
            v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some();
        let asked = v.persistent_volume_claim.as_ref().is_some_and(|c| c.read_only);
        v.name == name && (generated || asked)
    })
}

fn file_mount(container_path: &str, host: &Path) -> v1::Mount {
    v1::Mount {
        container_path: container_path.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::PathBuf;

    fn build(container: serde_json::Value) -> Result<v1::ContainerConfig, String> {
        let pod = Pod::from_value(&json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [container], "volumes": [{"name": "m", "configMap": {"name": "m"}}, {"name": "e", "emptyDir": {}}]},
        }))
        .unwrap();
        let path = |text: &str| Source::Path(PathBuf::from(text));
        let mounted = Mounted::from([
            ("m".into(), path("/v/m")),
            ("e".into(), path("/v/e")),
            ("i".into(), Source::Image("sha256:2".into())),
            ("b".into(), Source::Device("/dev/vdb".into())),
        ]);
        let parts = Parts {
            attempt: 2,
            image_ref: "sha256:1",
            env: &[("A".into(), "x".into())],
            mounted: &mounted,
            hosts_file: Path::new("/p/etc-hosts"),
            message_file: Path::new("/p/msg"),
            node: resources::NodeFacts::default(),
            security: &security::NodeSecurity::default(),
            target: None,
            recursive_read_only: false,
            sub_paths: Path::new("/p/subpaths"),
        };
        config(&pod, &pod.spec.containers[0], &parts)
    }

    #[test]
    fn commands_are_expanded_and_instances_labelled() {
        let config = build(json!({"name": "c", "image": "i", "command": ["run", "$(A)"], "args": ["$(B)"]})).unwrap();
        assert_eq!((config.command, config.args), (vec!["run".to_owned(), "x".into()], vec!["$(B)".to_owned()]));
        assert_eq!((config.log_path.as_str(), config.stop_signal), ("c/2.log", 0));
        assert_eq!(config.annotations[labels::RESTART_COUNT], "2");
        assert_eq!(config.labels[labels::POD_UID], "u");
        let paths: Vec<&str> = config.mounts.iter().map(|m| m.container_path.as_str()).collect();
        assert_eq!(paths, ["/etc/hosts", "/dev/termination-log"]);
    }

    #[test]
    fn the_runtime_is_told_of_a_signal_and_an_unknown_one_is_refused() {
        let with = |signal: &str| build(json!({"name": "c", "lifecycle": {"stopSignal": signal}}));
        assert_eq!(with("SIGUSR1").unwrap().stop_signal, v1::Signal::Sigusr1 as i32);
        assert!(with("SIGNOPE").unwrap_err().starts_with("lifecycle.stopSignal"));
    }

    #[test]
    fn generated_volumes_are_read_only_and_unknown_ones_refused() {
        let mounts = json!([{"name": "m", "mountPath": "/m"}, {"name": "e", "mountPath": "e"}, {"name": "m", "mountPath": "/etc/hosts"}]);
        let config = build(json!({"name": "c", "volumeMounts": mounts})).unwrap();
        assert!(config.mounts[0].readonly && !config.mounts[1].readonly);
        assert_eq!(config.mounts[1].container_path, "/e");
        assert_eq!(config.mounts.iter().filter(|m| m.container_path == "/etc/hosts").count(), 1);
        assert!(
            build(json!({"name": "c", "volumeMounts": [{"name": "z", "mountPath": "/z"}]}))
                .unwrap_err()
                .contains("no such volume")
        );
        let expr = json!([{"name": "e", "mountPath": "/e", "subPathExpr": "$(NOPE)"}]);
        assert!(build(json!({"name": "c", "volumeMounts": expr})).unwrap_err().contains("NOPE"));
    }

    #[test]
    fn images_and_block_devices_are_volumes_of_their_own_kind() {
        let config = build(json!({"name": "c", "volumeMounts": [{"name": "i", "mountPath": "/i", "subPath": "d"}],
            "volumeDevices": [{"name": "b", "devicePath": "/dev/x"}]}))
        .unwrap();
        let mount = &config.mounts[0];
        assert_eq!((mount.image.as_ref().unwrap().image.as_str(), mount.image_sub_path.as_str()), ("sha256:2", "d"));
        assert!(mount.readonly && mount.host_path.is_empty());
        assert_eq!(
            (config.devices[0].host_path.as_str(), config.devices[0].container_path.as_str()),
            ("/dev/vdb", "/dev/x")
        );
        assert!(build(json!({"name": "c", "volumeMounts": [{"name": "b", "mountPath": "/b"}]})).is_err());
        let recursive =
            |how: &str| json!([{"name": "e", "mountPath": "/e", "readOnly": true, "recursiveReadOnly": how}]);
        assert!(build(json!({"name": "c", "volumeMounts": recursive("Enabled")})).unwrap_err().contains("recursive"));
        assert!(
            !build(json!({"name": "c", "volumeMounts": recursive("IfPossible")})).unwrap().mounts[0]
                .recursive_read_only
        );
    }
}
