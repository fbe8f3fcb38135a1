//! The manager against a driver on a real socket.

use cri_api::dra::dra_plugin_server::{DraPlugin, DraPluginServer};
use serde_json::json;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::*;

/// A driver that writes down its calls and refuses while it is told to.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Vec<String>>>, Arc<Mutex<bool>>);

impl Fake {
    fn note(&self, call: &str, claims: &[dra::Claim]) {
        self.0.lock().extend(claims.iter().map(|c| format!("{call} {}", c.name)));
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }

    fn error(&self) -> String {
        if *self.1.lock() { "busy".into() } else { String::new() }
    }
}

#[tonic::async_trait]
impl DraPlugin for Fake {
    async fn node_prepare_resources(
        &self,
        request: Request<dra::NodePrepareResourcesRequest>,
    ) -> Result<Response<dra::NodePrepareResourcesResponse>, Status> {
        let claims = request.into_inner().claims;
        self.note("prepare", &claims);
        let device = dra::Device {
            pool_name: "pool".into(),
            device_name: "d1".into(),
            cdi_device_ids: vec!["v.com/c=1".into()],
            ..Default::default()
        };
        let answer = dra::NodePrepareResourceResponse { devices: vec![device], error: self.error() };
        let claims = claims.into_iter().map(|c| (c.uid, answer.clone())).collect();
        Ok(Response::new(dra::NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<dra::NodeUnprepareResourcesRequest>,
    ) -> Result<Response<dra::NodeUnprepareResourcesResponse>, Status> {
        let claims = request.into_inner().claims;
        self.note("unprepare", &claims);
        let answer = dra::NodeUnprepareResourceResponse { error: self.error() };
        let claims = claims.into_iter().map(|c| (c.uid, answer.clone())).collect();
        Ok(Response::new(dra::NodeUnprepareResourcesResponse { claims }))
    }
}

fn pod(uid: &str) -> Pod {
    let spec = json!({
        "resourceClaims": [{"name": "own", "resourceClaimName": "shared"}],
        "containers": [{"name": "c", "resources": {"claims": [{"name": "own"}]}}],
    });
    Pod::from_value(&json!({"metadata": {"name": uid, "namespace": "n", "uid": uid}, "spec": spec})).unwrap()
}

fn object() -> Value {
    let holder = |uid: &str| json!({"resource": "pods", "name": uid, "uid": uid});
    let results = json!([{"driver": "d", "request": "r", "pool": "pool", "device": "d1"}]);
    json!({"metadata": {"name": "shared", "namespace": "n", "uid": "cu"},
        "status": {"reservedFor": [holder("a"), holder("b")], "allocation": {"devices": {"results": results}}}})
}

fn claims(root: &Path) -> Claims {
    let config = root.join("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
        clusters: [{name: c, cluster: {server: 'https://127.0.0.1:9', certificate-authority-data: Cg==}}]\n\
        users: [{name: c, user: {token: t}}]\ncontexts: [{name: c, context: {cluster: c, user: c}}]\n";
    std::fs::write(&config, text).unwrap();
    let client = client::Client::from_kubeconfig(&config).unwrap();
    Claims::restore(root, client, mpsc::unbounded_channel().0).unwrap()
}

#[tokio::test]
async fn a_claim_is_prepared_once_and_given_back_after_its_last_pod_by_whoever_comes_later() {
    let root = std::env::temp_dir().join(format!("kubelet-claims-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let (fake, endpoint) = (Fake::default(), root.join("dra.sock"));
    let listener = UnixListenerStream::new(UnixListener::bind(&endpoint).unwrap());
    let server = DraPluginServer::new(fake.clone());
    tokio::spawn(tonic::transport::Server::builder().add_service(server).serve_with_incoming(listener));
    let plugin = Plugin { kind: "DRAPlugin".into(), name: "d".into(), endpoint, versions: vec![VERSION.into()] };
    let key = || ("n".to_owned(), "shared".to_owned());

    let first = claims(&root);
    let error = first.prepare_one(&pod("a"), key(), &object()).await.unwrap_err();
    assert_eq!(error, "DRA driver d is not registered");
    assert_eq!(first.waiting.lock().len(), 1);
    let old = Plugin { versions: vec!["v1beta1.DRAPlugin".into()], ..plugin.clone() };
    assert!(first.register(&old).unwrap_err().contains("only \"v1.DRAPlugin\" is supported"));
    first.register(&plugin).unwrap();
    assert!(first.waiting.lock().is_empty(), "woken");
    *fake.1.lock() = true;
    let error = first.prepare_one(&pod("a"), key(), &object()).await.unwrap_err();
    assert_eq!(error, "prepare ResourceClaim shared: NodePrepareResources failed: busy");
    *fake.1.lock() = false;
    first.prepare_one(&pod("a"), key(), &object()).await.unwrap();
    first.prepare_one(&pod("b"), key(), &object()).await.unwrap();
    assert_eq!(fake.calls(), ["prepare shared", "prepare shared"], "the second pod finds it prepared");
    let mut config = v1::ContainerConfig::default();
    first.equip(&pod("a"), "c", &mut config).unwrap();
    assert_eq!(config.cdi_devices[0].name, "v.com/c=1");
    assert_eq!(first.described(&pod("a"), "c")[0].claim_resources[0].device_name, "d1");

    first.release("a").await.unwrap();
    assert!(fake.calls().is_empty());
    let second = claims(&root);
    assert_eq!(second.uids().into_iter().collect::<Vec<_>>(), ["b"]);
    assert_eq!(second.release("b").await.unwrap_err(), "DRA driver d is not registered");
    second.register(&plugin).unwrap();
    second.release("b").await.unwrap();
    assert_eq!(fake.calls(), ["unprepare shared"]);
    assert!(claims(&root).uids().is_empty());
    std::fs::remove_dir_all(root).unwrap();
}
