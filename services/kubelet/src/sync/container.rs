//! The CRI configuration of a container. Pure but for subPath resolution, which must look at the volume.

use std::collections::HashMap;
use std::path::Path;

use cri_api::v1;

use super::env::expand;
use super::{plan, resources, security};
use crate::observed::labels;
use crate::pod::{Container, Pod};
use crate::volumes::{self, Mounted};

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
    /// The node's memory in bytes.
    pub node_memory: i128,
    /// Whether the node has only cgroup v2.
    pub cgroup2: bool,
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
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources::resources(pod, container, parts.node_memory, parts.cgroup2)),
            security_context: Some(security::context(pod, container)),
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
    for mount in &container.volume_mounts {
        let volume = parts
            .mounted
            .get(&mount.name)
            .ok_or_else(|| format!("volumeMount {:?}: the pod has no such volume", mount.name))?;
        let sub =
            if mount.sub_path_expr.is_empty() { mount.sub_path.clone() } else { resolved(&mount.sub_path_expr, get)? };
        let host = if sub.is_empty() { volume.clone() } else { volumes::sub_path(volume, &sub)? };
        let absolute =
            if mount.mount_path.starts_with('/') { mount.mount_path.clone() } else { format!("/{}", mount.mount_path) };
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
            _ => v1::MountPropagation::PropagationPrivate,
        };
        list.push(v1::Mount {
            container_path: absolute,
            host_path: host.to_string_lossy().into_owned(),
            readonly: mount.read_only || generated(pod, &mount.name),
            propagation: propagation.into(),
            ..Default::default()
        });
    }
    if !list.iter().any(|m| m.container_path == "/etc/hosts") {
        list.push(file_mount("/etc/hosts", parts.hosts_file));
    }
    list.push(file_mount(message_path(container), parts.message_file));
    Ok(list)
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
        Some(name) => Err(format!("failed to expand subPathExpr: missing value for {name:?}")),
        None => Ok(text),
    }
}

/// Volumes whose files the kubelet writes are read-only for containers.
fn generated(pod: &Pod, name: &str) -> bool {
    pod.spec.volumes.iter().any(|v| {
        v.name == name
            && (v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some())
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
        let mounted = Mounted::from([("m".into(), PathBuf::from("/v/m")), ("e".into(), PathBuf::from("/v/e"))]);
        let parts = Parts {
            attempt: 2,
            image_ref: "sha256:1",
            env: &[("A".into(), "x".into())],
            mounted: &mounted,
            hosts_file: Path::new("/p/etc-hosts"),
            message_file: Path::new("/p/msg"),
            node_memory: 1 << 30,
            cgroup2: true,
        };
        config(&pod, &pod.spec.containers[0], &parts)
    }

    #[test]
    fn commands_are_expanded_and_instances_labelled() {
        let config = build(json!({"name": "c", "image": "i", "command": ["run", "$(A)"], "args": ["$(B)"]})).unwrap();
        assert_eq!((config.command, config.args), (vec!["run".to_owned(), "x".into()], vec!["$(B)".to_owned()]));
        assert_eq!(config.log_path, "c/2.log");
        assert_eq!(config.annotations[labels::RESTART_COUNT], "2");
        assert_eq!(config.labels[labels::POD_UID], "u");
        let paths: Vec<&str> = config.mounts.iter().map(|m| m.container_path.as_str()).collect();
        assert_eq!(paths, ["/etc/hosts", "/dev/termination-log"]);
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
}
