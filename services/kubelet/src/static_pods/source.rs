//! Static pods as files: manifests in a folder, one pod each. Pure but for reading.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::Digest as _;

use crate::pod::{HASH, SOURCE};

/// Pods by `namespace/name`.
pub type Manifests = BTreeMap<String, Value>;

/// Reads every manifest. What cannot be read is reported and left out: one bad file must not end the pods of the others.
pub fn read(path: &Path, node: &str) -> (Manifests, Vec<String>) {
    let mut pods = Manifests::new();
    let mut problems = Vec::new();
    for file in files(path) {
        let read = std::fs::read_to_string(&file).map_err(|e| e.to_string()).and_then(|text| pod(&text, &file, node));
        match read {
            Ok(pod) => {
                let name = format!("{}/{}", text(&pod, "namespace"), text(&pod, "name"));
                pods.insert(name, pod);
            }
            Err(error) => problems.push(format!("{}: {error}", file.display())),
        }
    }
    (pods, problems)
}

fn text<'a>(pod: &'a Value, field: &str) -> &'a str {
    pod["metadata"][field].as_str().unwrap_or_default()
}

/// The path itself or the files in it; names that begin with a dot belong to editors.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| !e.file_name().to_string_lossy().starts_with('.') && e.path().is_file())
        .map(|e| e.path())
        .collect();
    files.sort();
    files
}

/// Makes a pod of this node from a manifest. Another content is another pod: the uid comes from it.
fn pod(text: &str, file: &Path, node: &str) -> Result<Value, String> {
    let mut pod: Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    if pod["kind"] != "Pod" || pod["apiVersion"] != "v1" {
        return Err("not a v1 Pod".into());
    }
    let name = pod["metadata"]["name"].as_str().filter(|n| !n.is_empty()).ok_or("metadata.name: required")?.to_owned();
    if pod["spec"]["containers"].as_array().is_none_or(Vec::is_empty) {
        return Err("spec.containers: required".into());
    }
    let digest = sha2::Sha256::digest(format!("{node}\0{}\0{text}", file.display()));
    let uid: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
    let metadata = &mut pod["metadata"];
    metadata["name"] = format!("{name}-{}", node.to_lowercase()).into();
    if metadata["namespace"].as_str().is_none_or(str::is_empty) {
        metadata["namespace"] = "default".into();
    }
    metadata["uid"] = uid.as_str().into();
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = json!({});
    }
    metadata["annotations"][HASH] = uid.into();
    metadata["annotations"][SOURCE] = "file".into();
    let spec = &mut pod["spec"];
    spec["nodeName"] = node.into();
    // The node's own pods stay whatever the taints.
    let tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    let everything = json!({"operator": "Exists", "effect": "NoExecute"});
    spec["tolerations"] = tolerations.into_iter().chain([everything]).collect();
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_become_pods_of_the_node() {
        let folder = std::env::temp_dir().join(format!("kubelet-static-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";
        std::fs::write(folder.join("web.yaml"), manifest).unwrap();
        std::fs::write(folder.join("bad.yaml"), "kind: Pod\napiVersion: v1\nmetadata: {}\n").unwrap();
        std::fs::write(folder.join(".web.yaml.swp"), "x").unwrap();
        let (pods, problems) = read(&folder, "Node1");
        let pod = &pods["default/web-node1"];
        assert_eq!(pod["spec"]["nodeName"], "Node1");
        assert_eq!(pod["metadata"]["annotations"][HASH], pod["metadata"]["uid"]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].ends_with("bad.yaml: metadata.name: required"), "{problems:?}");
        std::fs::write(folder.join("web.yaml"), format!("{manifest}# changed\n")).unwrap();
        let (changed, _) = read(&folder, "Node1");
        assert_ne!(changed["default/web-node1"]["metadata"]["uid"], pod["metadata"]["uid"]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
