//! The files of ConfigMap, Secret, downward API and projected volumes. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::Mounted;
use super::atomic::{File, Payload, is_safe};
use crate::pod::{
    Container, DownwardVolume, KeyToPath, Pod, ProjectedVolume, TokenProjection, TrustProjection, Volume,
};
use crate::sync::env::{Kind, Lookup, data, keys};
use crate::sync::fields::{self, Surroundings};

const DEFAULT_MODE: u32 = 0o644;

/// The content of a file with trust anchors.
pub type Anchors<'a> = dyn Fn(&TrustProjection) -> Result<Vec<u8>, String> + Sync + 'a;

/// What the files are made from.
pub struct Sources<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its node and addresses.
    pub around: &'a Surroundings,
    /// ConfigMaps and Secrets.
    pub lookup: &'a Lookup<'a>,
    /// Persistent volumes behind claims, by the name of the pod's volume.
    pub volumes: &'a HashMap<String, Arc<Value>>,
    /// Volumes that a driver has mounted already, by name.
    pub prepared: &'a Mounted,
    /// The certificates of trust bundles.
    pub anchors: &'a Anchors<'a>,
    /// Tokens by audience and lifetime.
    pub tokens: &'a HashMap<(String, i64), String>,
}

/// The lifetime a token projection asks for.
pub fn token_seconds(projection: &TokenProjection) -> i64 {
    projection.expiration_seconds.unwrap_or(3600)
}

/// The files of a volume, or nothing if it is not of a kind that consists of generated files.
///
/// # Errors
/// Something that is not optional is missing, or a path leaves the volume.
pub fn payload(volume: &Volume, sources: &Sources<'_>) -> Result<Option<Payload>, String> {
    let mut files = Payload::new();
    if let Some(v) = &volume.config_map {
        object(&mut files, Kind::ConfigMap, &v.name, &v.items, v.default_mode, v.optional, sources)?;
    } else if let Some(v) = &volume.secret {
        object(&mut files, Kind::Secret, &v.secret_name, &v.items, v.default_mode, v.optional, sources)?;
    } else if let Some(v) = &volume.downward_api {
        downward(&mut files, v, v.default_mode, sources)?;
    } else if let Some(v) = &volume.projected {
        projected(&mut files, v, sources)?;
    } else {
        return Ok(None);
    }
    match files.keys().find(|p| !is_safe(p)) {
        Some(path) => Err(format!("volume {:?}: path {path:?} is not inside the volume", volume.name)),
        None => Ok(Some(files)),
    }
}

fn object(
    files: &mut Payload,
    kind: Kind,
    name: &str,
    items: &[KeyToPath],
    mode: Option<u32>,
    optional: bool,
    sources: &Sources<'_>,
) -> Result<(), String> {
    let Some(object) = (sources.lookup)(kind, name) else {
        let what = if kind == Kind::ConfigMap { "configmap" } else { "secret" };
        return if optional { Ok(()) } else { Err(format!("{what} {name:?} not found")) };
    };
    let mode = mode.unwrap_or(DEFAULT_MODE);
    if items.is_empty() {
        for key in keys(kind, &object) {
            let content = data(kind, &object, &key).unwrap_or_default();
            files.insert(key, File { data: content, mode, uid: None });
        }
        return Ok(());
    }
    for item in items {
        match data(kind, &object, &item.key) {
            Some(content) => {
                files.insert(item.path.clone(), File { data: content, mode: item.mode.unwrap_or(mode), uid: None });
            }
            None if optional => {}
            None => {
                return Err(format!(
                    "references non-existent {} key: {}",
                    if kind == Kind::Secret { "secret" } else { "config" },
                    item.key
                ));
            }
        }
    }
    Ok(())
}

fn downward(
    files: &mut Payload,
    volume: &DownwardVolume,
    mode: Option<u32>,
    sources: &Sources<'_>,
) -> Result<(), String> {
    for item in &volume.items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(reference), _) => fields::field(sources.pod, sources.around, &reference.field_path)?,
            (_, Some(reference)) => fields::resource(sources.pod, None, sources.around, reference)?,
            _ => String::new(),
        };
        let mode = item.mode.or(mode).unwrap_or(DEFAULT_MODE);
        files.insert(item.path.clone(), File { data: text.into_bytes(), mode, uid: None });
    }
    Ok(())
}

fn projected(files: &mut Payload, volume: &ProjectedVolume, sources: &Sources<'_>) -> Result<(), String> {
    for source in &volume.sources {
        if let Some(kind) = source.other.keys().next() {
            return Err(format!("projected source {kind} is not supported by this kubelet"));
        }
        if let Some(v) = &source.config_map {
            object(files, Kind::ConfigMap, &v.name, &v.items, volume.default_mode, v.optional, sources)?;
        }
        if let Some(v) = &source.secret {
            object(files, Kind::Secret, &v.name, &v.items, volume.default_mode, v.optional, sources)?;
        }
        if let Some(v) = &source.downward_api {
            downward(files, v, volume.default_mode, sources)?;
        }
        if let Some(token) = &source.service_account_token {
            let key = (token.audience.clone(), token_seconds(token));
            let text = sources.tokens.get(&key).ok_or("no service account token")?;
            let (mode, uid) = token_owner(sources.pod, volume.default_mode.unwrap_or(DEFAULT_MODE));
            files.insert(token.path.clone(), File { data: text.clone().into_bytes(), mode, uid });
        }
        if let Some(bundle) = &source.cluster_trust_bundle {
            let mode = volume.default_mode.unwrap_or(DEFAULT_MODE);
            files.insert(bundle.path.clone(), File { data: (sources.anchors)(bundle)?, mode, uid: None });
        }
    }
    Ok(())
}

/// A token is readable by its pod's user alone where all containers share one, and by the fsGroup if there is one (which
/// [`super::atomic`] adds); else by all.
fn token_owner(pod: &Pod, default_mode: u32) -> (u32, Option<u32>) {
    let user = |c: &Container| c.security_context.run_as_user.or(pod.spec.security_context.run_as_user);
    let mut users = pod.all_containers().map(user);
    let first = users.next().flatten();
    let owner = first.filter(|first| users.all(|u| u == Some(*first))).and_then(|u| u32::try_from(u).ok());
    let private = owner.is_some() || pod.spec.security_context.fs_group.is_some();
    (if private { 0o600 } else { default_mode }, owner)
}

/// Reads the sizes and modes that tests compare.
#[cfg(test)]
fn summary(files: &Payload) -> Vec<(String, String, u32)> {
    files.iter().map(|(p, f)| (p.clone(), String::from_utf8_lossy(&f.data).into_owned(), f.mode)).collect()
}

/// Every token that the volumes of a pod need.
pub fn wanted_tokens(pod: &Pod) -> Vec<(String, i64)> {
    let projections = pod.spec.volumes.iter().filter_map(|v| v.projected.as_ref()).flat_map(|p| &p.sources);
    projections
        .filter_map(|s| s.service_account_token.as_ref())
        .map(|t| (t.audience.clone(), token_seconds(t)))
        .collect()
}

/// The size limit of a memory-backed volume in bytes.
pub fn size_limit(value: Option<&Value>) -> Option<i64> {
    match value {
        Some(Value::String(text)) => apimachinery::quantity::Quantity::parse(text).ok().map(|q| q.value()),
        Some(Value::Number(number)) => number.as_i64(),
        _ => None,
    }
    .filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn files(volume: Value) -> Result<Vec<(String, String, u32)>, String> {
        let pod = Pod::from_value(&json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "securityContext": {"runAsUser": 1000}}], "volumes": [volume]},
        }))
        .unwrap();
        let lookup = |kind: Kind, name: &str| match (kind, name) {
            (Kind::ConfigMap, "m") => Some(Arc::new(json!({"data": {"x": "1", "y": "2"}}))),
            (Kind::Secret, "s") => Some(Arc::new(json!({"data": {"k": "dg=="}}))),
            _ => None,
        };
        let tokens = HashMap::from([((String::new(), 3600), "TOKEN".to_owned())]);
        let (around, volumes) = (Surroundings::default(), HashMap::new());
        let prepared = Mounted::new();
        let sources = Sources {
            pod: &pod,
            around: &around,
            lookup: &lookup,
            volumes: &volumes,
            prepared: &prepared,
            anchors: &|bundle| bundle.name.clone().map(String::into_bytes).ok_or("no such bundle".to_owned()),
            tokens: &tokens,
        };
        payload(&pod.spec.volumes[0], &sources).map(|p| summary(&p.unwrap()))
    }

    fn file(path: &str, data: &str, mode: u32) -> (String, String, u32) {
        (path.into(), data.into(), mode)
    }

    #[test]
    fn config_maps_give_all_keys_or_the_chosen_ones() {
        assert_eq!(files(json!({"configMap": {"name": "m"}})).unwrap(), [file("x", "1", 0o644), file("y", "2", 0o644)]);
        let some = json!({"configMap": {"name": "m", "defaultMode": 256, "items": [{"key": "y", "path": "d/z", "mode": 511}]}});
        assert_eq!(files(some).unwrap(), [file("d/z", "2", 0o777)]);
        assert_eq!(files(json!({"configMap": {"name": "none"}})).unwrap_err(), "configmap \"none\" not found");
        assert!(files(json!({"configMap": {"name": "none", "optional": true}})).unwrap().is_empty());
    }

    #[test]
    fn projected_volumes_merge_their_sources() {
        let volume = json!({"projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"path": "token"}}, {"secret": {"name": "s"}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"clusterTrustBundle": {"name": "roots", "path": "ca.pem"}},
        ]}});
        let expected = [
            file("ca.pem", "roots", 0o644),
            file("k", "v", 0o644),
            file("labels", "a=\"b\"", 0o644),
            file("token", "TOKEN", 0o600),
        ];
        assert_eq!(files(volume).unwrap(), expected);
    }

    #[test]
    fn a_token_belongs_to_the_pods_user_and_group() {
        let owner = |group: Value, users: &[Value]| {
            let containers: Vec<Value> = users.iter().map(|u| json!({"securityContext": {"runAsUser": u}})).collect();
            let spec = json!({"securityContext": {"fsGroup": group}, "containers": containers});
            token_owner(&Pod::from_value(&json!({"spec": spec})).unwrap(), 0o644)
        };
        let table = [
            (json!(null), vec![json!(1000), json!(1000)], (0o600, Some(1000))),
            (json!(2000), vec![json!(null)], (0o600, None)),
            (json!(2000), vec![json!(1000)], (0o600, Some(1000))),
            (json!(null), vec![json!(1000), json!(1)], (0o644, None)),
            (json!(null), vec![json!(null)], (0o644, None)),
        ];
        for (group, users, expected) in table {
            assert_eq!(owner(group.clone(), &users), expected, "{group} {users:?}");
        }
    }

    #[test]
    fn sources_that_are_not_built_are_named() {
        let volume = json!({"projected": {"sources": [{"podCertificate": {"signerName": "b"}}]}});
        assert_eq!(files(volume).unwrap_err(), "projected source podCertificate is not supported by this kubelet");
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        let volume = json!({"name": "v", "configMap": {"name": "m", "items": [{"key": "x", "path": "../x"}]}});
        assert!(files(volume).unwrap_err().contains("not inside"));
    }
}
