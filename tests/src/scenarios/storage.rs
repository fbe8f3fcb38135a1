//! Persistent volumes as users see them: of a CSI driver (claimed and inline), and of a folder of the node. The driver is a
//! process of this host in the node's mount namespace.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::kills;
use crate::context::Context;
use crate::inspector;
use crate::plugin::Plugin;

const DRIVER: &str = "csi.test.corten.local";

const MANIFEST: &str = r#"
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: csi.test.corten.local}
spec: {attachRequired: true, podInfoOnMount: true, fsGroupPolicy: File, volumeLifecycleModes: [Persistent, Ephemeral]}
---
apiVersion: v1
kind: Secret
metadata: {name: storage}
stringData: {key: sesame}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: storage-disk}
spec:
  capacity: {storage: 16Mi}
  accessModes: [ReadWriteOnce]
  volumeMode: Block
  storageClassName: ""
  claimRef: {namespace: default, name: storage-disk}
  csi: {driver: csi.test.corten.local, volumeHandle: disk-1}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: storage-csi}
spec:
  capacity: {storage: 16Mi}
  accessModes: [ReadWriteOnce]
  storageClassName: ""
  claimRef: {namespace: default, name: storage-csi}
  csi:
    driver: csi.test.corten.local
    volumeHandle: volume-1
    volumeAttributes: {greeting: hello}
    nodeStageSecretRef: {namespace: default, name: storage}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: storage-folder}
spec:
  capacity: {storage: 16Mi}
  accessModes: [ReadWriteOnce]
  storageClassName: ""
  claimRef: {namespace: default, name: storage-folder}
  hostPath: {path: /var/tmp/storage-folder, type: DirectoryOrCreate}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: storage-csi}
spec: {storageClassName: "", accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}, volumeName: storage-csi}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: storage-disk}
spec:
  storageClassName: ""
  accessModes: [ReadWriteOnce]
  volumeMode: Block
  resources: {requests: {storage: 16Mi}}
  volumeName: storage-disk
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: storage-folder}
spec: {storageClassName: "", accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}, volumeName: storage-folder}
---
apiVersion: v1
kind: Pod
metadata: {name: storage}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1000, fsGroup: 2000, supplementalGroups: [0]}
  containers:
  - name: storage
    image: corten.local/test-web:v1
    args: [sleep]
    volumeMounts:
    - {name: claimed, mountPath: /claimed}
    - {name: inline, mountPath: /inline}
    - {name: folder, mountPath: /folder}
    volumeDevices: [{name: disk, devicePath: /dev/disk}]
  volumes:
  - {name: claimed, persistentVolumeClaim: {claimName: storage-csi}}
  - {name: inline, csi: {driver: csi.test.corten.local, volumeAttributes: {greeting: inline}, nodePublishSecretRef: {name: storage}}}
  - {name: disk, persistentVolumeClaim: {claimName: storage-disk}}
  - {name: folder, persistentVolumeClaim: {claimName: storage-folder}}
"#;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    let driver = Plugin::start(context, "storage")?;
    context.eventually("the driver in CSINode", || {
        let node = context.get(&format!("csinode {}", context.node().name))?;
        let entry = &node["spec"]["drivers"][0];
        ensure!(entry["name"] == DRIVER && entry["allocatable"]["count"] == 7, "{node}");
        ensure!(entry["topologyKeys"][0] == "topology.test.corten.local/zone", "{node}");
        Ok(())
    })?;
    context.apply(MANIFEST)?;
    attach(context)?;
    context.kubectl("wait --for=condition=Ready pod/storage --timeout=120s")?;
    content(context)?;
    figures(context)?;
    growth(context)?;
    inspector::with_inspector(context, || restart_and_removal(context))?;
    // What a driver's pod does when it ends in peace.
    let socket = driver.root.join("var/lib/kubelet/plugins_registry").join(format!("{DRIVER}-reg.sock"));
    fs::remove_file(&socket).with_context(|| socket.display().to_string())?;
    context.eventually("a CSINode without the driver", || {
        let node = context.get(&format!("csinode {}", context.node().name))?;
        ensure!(node["spec"]["drivers"].as_array().is_none_or(Vec::is_empty), "{node}");
        Ok(())
    })?;
    Ok(())
}

/// What the driver's controller does: it answers each VolumeAttachment. The kubelet waits for that.
fn attach(context: &Context) -> Result<()> {
    let mut names = Vec::new();
    context.eventually("a VolumeAttachment for each claim of the driver", || {
        let all = context.get("volumeattachments")?;
        let items = all["items"].as_array().into_iter().flatten().filter(|a| a["spec"]["attacher"] == DRIVER);
        names = items.filter_map(|a| a["metadata"]["name"].as_str().map(str::to_owned)).collect();
        ensure!(names.len() == 2, "{all}");
        Ok(())
    })?;
    context.eventually("a pod that waits for them", || {
        let events = context.get("events --field-selector=involvedObject.name=storage,reason=FailedMount")?;
        ensure!(events["items"].as_array().is_some_and(|e| !e.is_empty()), "no event FailedMount");
        Ok(())
    })?;
    for name in names {
        let status = r#"{"status":{"attached":true,"attachmentMetadata":{"slot":"7"}}}"#;
        context.kubectl_args(&[
            "patch",
            "volumeattachment",
            &name,
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ])?;
    }
    Ok(())
}

fn content(context: &Context) -> Result<()> {
    for (file, wanted) in [
        ("/claimed/greeting", "hello"),
        ("/claimed/attached.slot", "7"),
        ("/claimed/stage.key", "sesame"),
        ("/inline/greeting", "inline"),
        ("/inline/publish.key", "sesame"),
        ("/dev/disk", "hello from a disk"),
        ("/inline/csi.storage.k8s.io_pod.name", "storage"),
    ] {
        let found = context.kubectl(&format!("exec storage -- /test-web cat {file}"))?;
        ensure!(found.trim_end_matches('\0') == wanted, "{file} holds {found:?}");
    }
    Ok(())
}

fn figures(context: &Context) -> Result<()> {
    let node = &context.node().name;
    let summary = context.kubectl(&format!("get --raw /api/v1/nodes/{node}/proxy/stats/summary"))?;
    let summary: serde_json::Value = serde_json::from_str(&summary)?;
    let pods = summary["pods"].as_array().into_iter().flatten();
    let mut volumes = pods.filter_map(|p| p["volume"].as_array()).flatten();
    let claimed = volumes.find(|v| v["pvcRef"]["name"] == "storage-csi").context("the claim has no statistics")?;
    ensure!(claimed["capacityBytes"] == 16 << 20, "{claimed}");
    Ok(())
}

/// The driver's controller has made the volume larger: the node does the rest.
fn growth(context: &Context) -> Result<()> {
    context.kubectl_args(&["patch", "pv", "storage-csi", "-p", r#"{"spec":{"capacity":{"storage":"32Mi"}}}"#])?;
    let status = r#"{"status":{"conditions":[{"type":"FileSystemResizePending","status":"True"}]}}"#;
    context.kubectl_args(&["patch", "pvc", "storage-csi", "--subresource=status", "--type=merge", "-p", status])?;
    context.eventually("the claim's new size", || {
        let claim = context.get("pvc storage-csi")?;
        ensure!(claim["status"]["capacity"]["storage"] == "32Mi", "{}", claim["status"]);
        Ok(())
    })?;
    Ok(())
}

/// A kubelet that starts anew gives back what its predecessor mounted.
fn restart_and_removal(context: &Context) -> Result<()> {
    let ours = |line: &String| line.contains("kubernetes.io~csi") || line.contains("kubernetes.io/csi");
    let before = inspector::content(context)?;
    ensure!(before.iter().filter(|l| ours(l)).count() >= 3, "one staged and two published: {before:?}");
    kills::kill(context, "kubelet")?;
    context.kubectl("delete pod/storage --timeout=120s")?;
    context.eventually("no mount of the driver", || {
        let left: Vec<String> = inspector::content(context)?.into_iter().filter(ours).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    context.kubectl("delete pvc/storage-csi pvc/storage-disk pvc/storage-folder --timeout=120s")?;
    context.kubectl("delete pv/storage-csi pv/storage-disk pv/storage-folder --timeout=120s")?;
    context.kubectl("delete secret/storage csidriver/csi.test.corten.local --timeout=120s").map(drop)
}
