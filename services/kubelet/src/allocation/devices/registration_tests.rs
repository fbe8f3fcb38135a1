//! A plugin over a real socket: registration, lists, health, allocation, start, loss and restart of the kubelet.

use std::collections::BTreeMap;
use std::pin::Pin;

use cri_api::device_plugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use cri_api::device_plugin::registration_client::RegistrationClient;
use cri_api::v1;
use futures_util::Stream;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use super::super::Reusable;
use super::*;
use crate::pod::Pod;

const GPU: &str = "example.com/gpu";

#[derive(Clone)]
struct Fake {
    devices: watch::Receiver<Vec<(&'static str, bool)>>,
    asked: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl DevicePlugin for Fake {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<api::ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<api::Empty>,
    ) -> Result<Response<api::DevicePluginOptions>, Status> {
        Ok(Response::new(api::DevicePluginOptions {
            pre_start_required: true,
            get_preferred_allocation_available: true,
        }))
    }

    async fn list_and_watch(&self, _: Request<api::Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let lists = WatchStream::new(self.devices.clone()).map(|list| {
            let one = |(id, healthy): &(&str, bool)| api::Device {
                id: (*id).into(),
                health: if *healthy { "Healthy" } else { "Unhealthy" }.into(),
                topology: None,
            };
            Ok(api::ListAndWatchResponse { devices: list.iter().map(one).collect() })
        });
        Ok(Response::new(Box::pin(lists)))
    }

    async fn get_preferred_allocation(
        &self,
        call: Request<api::PreferredAllocationRequest>,
    ) -> Result<Response<api::PreferredAllocationResponse>, Status> {
        let asked = call.into_inner().container_requests.remove(0);
        let mut ids = asked.available_device_i_ds;
        ids.sort_by(|a, b| b.cmp(a));
        ids.truncate(usize::try_from(asked.allocation_size).unwrap());
        let one = api::ContainerPreferredAllocationResponse { device_i_ds: ids };
        Ok(Response::new(api::PreferredAllocationResponse { container_responses: vec![one] }))
    }

    async fn allocate(&self, call: Request<api::AllocateRequest>) -> Result<Response<api::AllocateResponse>, Status> {
        let ids = call.into_inner().container_requests.remove(0).devices_ids.join(",");
        self.asked.lock().push(format!("allocate {ids}"));
        let envs = [("GPUS".to_owned(), ids)].into();
        let one = api::ContainerAllocateResponse { envs, ..Default::default() };
        Ok(Response::new(api::AllocateResponse { container_responses: vec![one] }))
    }

    async fn pre_start_container(
        &self,
        call: Request<api::PreStartContainerRequest>,
    ) -> Result<Response<api::PreStartContainerResponse>, Status> {
        self.asked.lock().push(format!("start {}", call.into_inner().devices_ids.join(",")));
        Ok(Response::new(api::PreStartContainerResponse {}))
    }
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("kubelet-devices-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

async fn until(devices: &Devices, expected: (&str, &str)) {
    let mut changes = devices.changes();
    loop {
        let (capacity, allocatable) = devices.amounts();
        let found = |m: &BTreeMap<String, String>| m.get(GPU).cloned().unwrap_or_default();
        if (found(&capacity).as_str(), found(&allocatable).as_str()) == expected {
            return;
        }
        changes.changed().await.unwrap();
    }
}

async fn call(folder: &Path, version: &str, resource: &str) -> Result<(), String> {
    let mut door = RegistrationClient::new(cri_api::connect_unix(folder.join(SOCKET)));
    let call = api::RegisterRequest {
        version: version.into(),
        endpoint: "fake.sock".into(),
        resource_name: resource.into(),
        options: None,
    };
    door.register(call).await.map(drop).map_err(|e| e.message().to_owned())
}

fn pod(count: u32) -> Pod {
    let limits = json!({"limits": {GPU: count.to_string()}});
    let spec = json!({
        "initContainers": [{"name": "init", "resources": limits}],
        "containers": [{"name": "main", "resources": limits}, {"name": "plain"}],
    });
    Pod::from_value(&json!({"metadata": {"uid": "u"}, "spec": spec})).unwrap()
}

#[tokio::test]
async fn a_plugin_registers_serves_and_leaves() {
    let folder = folder("life");
    let devices = Arc::new(Devices::restore(&folder));
    let (stop, shutdown) = Shutdown::pair();
    let door = prepare(&folder).unwrap();
    let serving = Server::builder().add_service(RegistrationServer::new(Door(Arc::clone(&devices))));
    let waiting = shutdown.clone();
    tokio::spawn(async move {
        serving.serve_with_incoming_shutdown(UnixListenerStream::new(door), waiting.wait()).await.unwrap();
    });
    let (lists, list) = watch::channel(vec![("a", true), ("b", true), ("c", false)]);
    let fake = Fake { devices: list, asked: Arc::default() };
    let asked = Arc::clone(&fake.asked);
    let socket = UnixListener::bind(folder.join("fake.sock")).unwrap();
    let plugin = Server::builder().add_service(DevicePluginServer::new(fake));
    tokio::spawn(async move { plugin.serve_with_incoming(UnixListenerStream::new(socket)).await.unwrap() });
    let refused = call(&folder, "v2", GPU).await.unwrap_err();
    assert_eq!(refused, r#"requested API version "v2" is not supported by kubelet. Supported version is ["v1beta1"]"#);
    assert_eq!(call(&folder, "v1beta1", "cpu").await.unwrap_err(), r#"the ResourceName "cpu" is invalid"#);
    call(&folder, "v1beta1", GPU).await.unwrap();
    until(&devices, ("3", "2")).await;

    // The init container's device goes on to the main one.
    let (pod, mut reusable) = (pod(1), Reusable::new());
    for container in pod.all_containers() {
        devices.allocate(&pod, container, None, &mut reusable).await.unwrap();
    }
    let mut config = v1::ContainerConfig::default();
    devices.equip("u", "main", &mut config).await.unwrap();
    assert_eq!((config.envs[0].key.as_str(), config.envs[0].value.as_str()), ("GPUS", "b"));
    assert_eq!(*asked.lock(), ["allocate b", "allocate b", "start b"]);
    let second = Pod::from_value(&json!({"metadata": {"uid": "v"}, "spec": {"containers": [
        {"name": "c", "resources": {"limits": {GPU: "2"}}}]}}));
    let second = second.unwrap();
    let refused = devices.allocate(&second, &second.spec.containers[0], None, &mut Reusable::new()).await;
    assert!(refused.unwrap_err().ends_with("Requested: 2, Available: 1"));

    // Another kubelet knows who holds what, but has no device until the plugin comes.
    let restarted = Devices::restore(&folder);
    assert_eq!(restarted.snapshot().held, devices.snapshot().held);
    assert_eq!(restarted.amounts().0[GPU], "0");

    lists.send(vec![("a", false), ("b", true)]).unwrap();
    until(&devices, ("2", "1")).await;
    // The list ends with its source, as when the plugin dies.
    drop(lists);
    until(&devices, ("2", "0")).await;
    devices.keep_only(&|_| false);
    assert!(Devices::restore(&folder).snapshot().held.is_empty());
    stop.trigger();
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn names_of_resources_have_a_domain_of_their_own() {
    for (name, fits) in [
        ("example.com/gpu", true),
        ("cpu", false),
        ("kubernetes.io/x", false),
        ("requests.x/y", false),
        ("a.b/", false),
    ] {
        assert_eq!(is_extended(name), fits, "{name}");
    }
}
