//! Tables for the plan; the node's side against a driver on a real socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri_api::csi::node_server::{Node, NodeServer};
use cri_api::csi::node_service_capability::{self, Rpc, rpc::Type as Ability};
use cri_api::csi::volume_capability::AccessType;
use cri_api::csi::volume_capability::access_mode::Mode;
use cri_api::csi::*;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::driver::Driver;
use super::local::{Local, Order};
use super::plan::{self, Rules, Wanted};
use crate::plugins::Plugin;
use crate::pod::Pod;

fn pod(volume: Value) -> Pod {
    let metadata = json!({"name": "p", "namespace": "n", "uid": "u1"});
    Pod::from_value(&json!({"metadata": metadata, "spec": {"serviceAccountName": "sa", "volumes": [volume]}})).unwrap()
}

fn persistent() -> Wanted {
    let pod = pod(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}));
    let pv = json!({"metadata": {"name": "pv1"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "mountOptions": ["noatime"],
        "csi": {"driver": "d", "volumeHandle": "h", "fsType": "xfs", "volumeAttributes": {"a": "b"},
            "nodeStageSecretRef": {"name": "s", "namespace": "x"}}}});
    plan::wanted(&pod, &pod.spec.volumes[0], Some(&pv)).unwrap().unwrap()
}

#[test]
fn volumes_say_what_they_want() {
    let wanted = persistent();
    assert_eq!((wanted.name.as_str(), wanted.fs_type.as_str(), wanted.capacity), ("pv1", "xfs", 1 << 30));
    assert!(wanted.read_only && !wanted.inline && !wanted.block);
    assert_eq!(wanted.secrets[plan::STAGE], Some(("x".into(), "s".into())));
    let pod = pod(json!({"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "k"}}}));
    let inline = plan::wanted(&pod, &pod.spec.volumes[0], None).unwrap().unwrap();
    // sha256("u1v")
    assert!(inline.handle.starts_with("csi-") && inline.handle.len() == 68 && inline.inline);
    assert_eq!(inline.secrets[plan::PUBLISH], Some(("n".into(), "k".into())));
    let other = json!({"metadata": {"name": "pv"}, "spec": {"hostPath": {"path": "/"}}});
    assert!(plan::wanted(&crate::pod::Pod::default(), &crate::pod::Volume::default(), Some(&other)).is_none());
    let bad = json!({"metadata": {"name": "pv"}, "spec": {"csi": {"driver": "d"}}});
    let said = plan::wanted(&pod, &crate::pod::Volume::default(), Some(&bad)).unwrap();
    assert_eq!(said.unwrap_err(), "csi: driver and volumeHandle are required");
}

#[test]
fn rules_have_the_defaults_of_a_driver_without_an_object() {
    let rules = Rules::of(None);
    assert!(rules.attach && !rules.pod_info && !rules.republish);
    assert_eq!(rules.check(&persistent()), Ok(()));
    let inline = Wanted { inline: true, driver: "d".into(), ..Wanted::default() };
    assert_eq!(
        rules.check(&inline).unwrap_err(),
        "volume mode \"Ephemeral\" not supported by driver d (only supports [\"Persistent\"])"
    );
    let rules = Rules::of(Some(&json!({"spec": {
        "attachRequired": false, "volumeLifecycleModes": ["Ephemeral"], "tokenRequests": [{"audience": "a"}]}})));
    assert!(!rules.attach && rules.check(&inline).is_ok());
    assert_eq!(rules.tokens, [("a".to_owned(), 3600)]);
}

#[test]
fn the_group_gets_the_files_as_the_policy_says() {
    let free = Wanted { modes: vec!["ReadWriteOnce".into()], fs_type: "ext4".into(), ..Wanted::default() };
    let rows = [
        ("ReadWriteOnceWithFSType", free.clone(), true),
        ("ReadWriteOnceWithFSType", Wanted { fs_type: String::new(), ..free.clone() }, false),
        ("ReadWriteOnceWithFSType", Wanted { modes: vec!["ReadWriteMany".into()], ..free.clone() }, false),
        ("File", Wanted { modes: vec!["ReadWriteMany".into()], fs_type: String::new(), ..free.clone() }, true),
        ("File", Wanted { read_only: true, ..free.clone() }, false),
        ("File", Wanted { block: true, ..free.clone() }, false),
        ("None", free, false),
    ];
    for (policy, wanted, given) in rows {
        let rules = Rules::of(Some(&json!({"spec": {"fsGroupPolicy": policy}})));
        assert_eq!(plan::takes_group(&wanted, &rules), given, "{policy} {wanted:?}");
    }
}

#[test]
fn access_modes_depend_on_what_the_driver_tells_apart() {
    let split = [Ability::SingleNodeMultiWriter];
    for (mode, abilities, expected) in [
        ("ReadWriteOnce", &[][..], Mode::SingleNodeWriter),
        ("ReadWriteOnce", &split, Mode::SingleNodeMultiWriter),
        ("ReadWriteOncePod", &[], Mode::SingleNodeWriter),
        ("ReadWriteOncePod", &split, Mode::SingleNodeSingleWriter),
        ("ReadOnlyMany", &split, Mode::MultiNodeReaderOnly),
        ("ReadWriteMany", &[], Mode::MultiNodeMultiWriter),
    ] {
        let wanted = Wanted { modes: vec![mode.into()], ..Wanted::default() };
        let capability = plan::capability(&wanted, abilities, None);
        assert_eq!(capability.access_mode.unwrap().mode(), expected, "{mode}");
    }
    let group = |abilities: &[Ability]| match plan::capability(&persistent(), abilities, Some(7)).access_type {
        Some(AccessType::Mount(mount)) => (mount.volume_mount_group, mount.mount_flags),
        other => panic!("{other:?}"),
    };
    assert_eq!(group(&[]), (String::new(), vec!["noatime".to_owned()]));
    assert_eq!(group(&[Ability::VolumeMountGroup]).0, "7");
}

#[test]
fn drivers_are_told_about_pods_where_they_ask() {
    let rules = Rules::of(Some(&json!({"spec": {"podInfoOnMount": true}})));
    let context = plan::context(&pod(json!({"name": "v"})), &persistent(), &rules);
    assert_eq!((context["a"].as_str(), context["csi.storage.k8s.io/pod.name"].as_str()), ("b", "p"));
    assert_eq!(context["csi.storage.k8s.io/serviceAccount.name"], "sa");
    assert_eq!(context["csi.storage.k8s.io/ephemeral"], "false");
    assert_eq!(plan::context(&pod(json!({"name": "v"})), &persistent(), &Rules::of(None)).len(), 1);
    let tokens: Value = serde_json::from_str(&plan::tokens(&[("a".into(), "T".into(), 0)])).unwrap();
    assert_eq!(tokens["a"], json!({"token": "T", "expirationTimestamp": "1970-01-01T00:00:00Z"}));
}

/// A driver that writes down its calls, and refuses once to unstage if it is told so. Publishing makes the target, as the specification has it.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Vec<String>>>, Arc<Mutex<bool>>);

impl Fake {
    fn note<T: Default>(&self, call: &str, id: &str) -> Result<Response<T>, Status> {
        self.0.lock().push(format!("{call} {id}"));
        Ok(Response::new(T::default()))
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[tonic::async_trait]
impl Node for Fake {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        assert!(Path::new(&request.staging_target_path).is_dir(), "the kubelet makes the staging folder");
        self.note("stage", &request.volume_id)
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        if std::mem::take(&mut *self.1.lock()) {
            return Err(Status::internal("busy"));
        }
        self.note("unstage", &request.into_inner().volume_id)
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.volume_context.contains_key("refuse") {
            return Err(Status::internal("not now"));
        }
        match request.volume_capability.and_then(|c| c.access_type) {
            Some(AccessType::Block(_)) => drop(std::fs::File::create(&request.target_path)?),
            _ => std::fs::create_dir_all(&request.target_path)?,
        }
        self.note("publish", &request.volume_id)
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let path = Path::new(&request.target_path);
        let _ = if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
        self.note("unpublish", &request.volume_id)
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let usage = VolumeUsage { total: 10, available: 4, used: 6, unit: volume_usage::Unit::Bytes.into() };
        Ok(Response::new(NodeGetVolumeStatsResponse { usage: vec![usage] }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        self.note("expand", &request.into_inner().volume_id)
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let one = |ability: Ability| NodeServiceCapability {
            r#type: Some(node_service_capability::Type::Rpc(Rpc { r#type: ability.into() })),
        };
        let capabilities = vec![one(Ability::StageUnstageVolume), one(Ability::GetVolumeStats)];
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse { node_id: "id".into(), ..Default::default() }))
    }
}

struct World {
    root: PathBuf,
    fake: Fake,
    driver: Driver,
}

impl World {
    async fn new(name: &str) -> World {
        let root = std::env::temp_dir().join(format!("kubelet-csi-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        let (fake, endpoint) = (Fake::default(), root.join("csi.sock"));
        let listener = UnixListenerStream::new(UnixListener::bind(&endpoint).unwrap());
        let server = NodeServer::new(fake.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(server).serve_with_incoming(listener));
        let plugin = Plugin { kind: "CSIPlugin".into(), name: "d".into(), endpoint, versions: vec!["1.0.0".into()] };
        let (driver, info) = Driver::connect(&plugin).await.unwrap();
        assert_eq!(info.node_id, "id");
        let old = Plugin { versions: vec!["0.3.0".into()], ..plugin };
        assert!(Driver::connect(&old).await.unwrap_err().contains("not supported"));
        World { root, fake, driver }
    }

    fn local(&self) -> Local {
        let local = Local::new(self.root.clone());
        local.add(self.driver.clone());
        local
    }

    /// What is left below the folders of pods and plugins, but for the folders that stay.
    fn left(&self) -> Vec<PathBuf> {
        fn files(folder: &Path, all: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() && !path.is_symlink() {
                    files(&path, all);
                }
                let stays = [
                    "kubernetes.io~csi",
                    "volumes",
                    "volumeDevices",
                    "publish",
                    "staging",
                    "csi",
                    "d",
                    "kubernetes.io",
                ];
                if !stays.iter().any(|s| path.ends_with(s)) && !path.ends_with("u1") && !path.ends_with("u2") {
                    all.push(path);
                }
            }
        }
        let mut all = Vec::new();
        files(&self.root.join("pods"), &mut all);
        files(&self.root.join("plugins"), &mut all);
        all
    }
}

fn order(wanted: &Wanted) -> Order {
    Order {
        record: plan::record(wanted, "node"),
        block: wanted.block,
        read_only: false,
        capability: plan::capability(wanted, &[], None),
        publish_context: Default::default(),
        attributes: Default::default(),
        context: wanted.attributes.clone().into_iter().collect(),
        stage_secrets: Default::default(),
        publish_secrets: Default::default(),
        inline: wanted.inline,
    }
}

#[tokio::test]
async fn a_volume_is_staged_once_and_given_back_by_whoever_comes_later() {
    let world = World::new("shared").await;
    let (local, wanted) = (world.local(), persistent());
    let places = local.mount(&world.driver, "u1", order(&wanted)).await.unwrap();
    local.mount(&world.driver, "u2", order(&wanted)).await.unwrap();
    assert_eq!(world.fake.calls(), ["stage h", "publish h", "publish h"]);
    assert!(places.target.ends_with("pods/u1/volumes/kubernetes.io~csi/pv1/mount"), "{places:?}");
    assert!(places.staging.ends_with("globalmount"));
    let record: Value = serde_json::from_slice(&std::fs::read(&places.record).unwrap()).unwrap();
    assert_eq!(
        (&record["specVolID"], &record["driverName"], &record["volumeHandle"]),
        (&json!("pv1"), &json!("d"), &json!("h"))
    );
    let stats = world.driver.stats("h", &places.target, &places.staging).await.unwrap();
    assert_eq!(stats.bytes, [10, 4, 6]);
    local.release("u1").await.unwrap();
    assert_eq!(world.fake.calls(), ["unpublish h"]);
    // Another process knows all that from the disk.
    let later = world.local();
    later.release("u2").await.unwrap();
    assert_eq!(world.fake.calls(), ["unpublish h", "unstage h"]);
    assert_eq!(world.left(), Vec::<PathBuf>::new());
    later.release("u2").await.unwrap();
    assert!(world.fake.calls().is_empty());
    std::fs::remove_dir_all(&world.root).unwrap();
}

#[tokio::test]
async fn inline_and_block_volumes_leave_nothing_behind() {
    let world = World::new("kinds").await;
    let local = world.local();
    let inline = Wanted { inline: true, ..persistent() };
    local.mount(&world.driver, "u1", order(&inline)).await.unwrap();
    assert_eq!(world.fake.calls(), ["publish h"]);
    local.release("u1").await.unwrap();
    assert_eq!(world.fake.calls(), ["unpublish h"]);
    let block = Wanted { block: true, ..persistent() };
    let places = local.mount(&world.driver, "u1", order(&block)).await.unwrap();
    assert!(places.target.is_file() && places.link.as_ref().is_some_and(|l| l.is_symlink()));
    local.release("u1").await.unwrap();
    assert_eq!(world.fake.calls(), ["stage h", "publish h", "unpublish h", "unstage h"]);
    assert_eq!(world.left(), Vec::<PathBuf>::new());
    std::fs::remove_dir_all(&world.root).unwrap();
}

#[tokio::test]
async fn a_driver_that_refuses_or_is_gone_is_named_and_nothing_is_forgotten() {
    let world = World::new("refuses").await;
    let (local, mut wanted) = (world.local(), persistent());
    wanted.attributes.insert("refuse".into(), "yes".into());
    let error = local.mount(&world.driver, "u1", order(&wanted)).await.unwrap_err();
    assert_eq!(error, "rpc error: code = Internal desc = not now");
    assert!(!local.remove("d", Path::new("/another/socket")) && local.remove("d", &world.driver.endpoint));
    let error = local.release("u1").await.unwrap_err();
    assert_eq!(error, "driver name d not found in the list of registered CSI drivers");
    // What was staged for a pod that never ran is given back with it, however often that takes.
    local.add(world.driver.clone());
    *world.fake.1.lock() = true;
    assert!(local.release("u1").await.unwrap_err().contains("busy"));
    local.release("u1").await.unwrap();
    assert_eq!(world.fake.calls(), ["stage h", "unpublish h", "unpublish h", "unstage h"]);
    assert_eq!(world.left(), Vec::<PathBuf>::new());
    std::fs::remove_dir_all(&world.root).unwrap();
}

#[tokio::test]
async fn what_an_earlier_process_staged_for_nobody_is_unstaged() {
    let world = World::new("tidy").await;
    let local = world.local();
    let places = local.mount(&world.driver, "u1", order(&persistent())).await.unwrap();
    local.tidy(&world.driver).await;
    assert_eq!(world.fake.calls(), ["stage h", "publish h"], "in use");
    std::fs::remove_dir_all(world.root.join("pods")).unwrap();
    world.local().tidy(&world.driver).await;
    assert_eq!(world.fake.calls(), ["unstage h"]);
    assert!(!places.staging.exists());
    std::fs::remove_dir_all(&world.root).unwrap();
}
