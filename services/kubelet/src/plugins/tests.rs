//! The registry against plugins on real sockets.

use std::path::Path;

use cri_api::registration::registration_server::{Registration, RegistrationServer};
use cri_api::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::*;

/// A plugin that tells what it is told.
struct Fake {
    info: PluginInfo,
    told: mpsc::UnboundedSender<RegistrationStatus>,
}

#[tonic::async_trait]
impl Registration for Fake {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(self.info.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let _ = self.told.send(request.into_inner());
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

fn serve(socket: &Path, kind: &str, endpoint: &str) -> mpsc::UnboundedReceiver<RegistrationStatus> {
    let (told, hears) = mpsc::unbounded_channel();
    let info = PluginInfo {
        r#type: kind.into(),
        name: "fake".into(),
        endpoint: endpoint.into(),
        supported_versions: vec!["1.0.0".into()],
    };
    let listener = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
    let server = RegistrationServer::new(Fake { info, told });
    tokio::spawn(tonic::transport::Server::builder().add_service(server).serve_with_incoming(listener));
    hears
}

/// Writes down what comes and goes; refuses a plugin whose endpoint is `/refused`.
struct Book(mpsc::UnboundedSender<(bool, Plugin)>);

impl Handler for Book {
    fn kind(&self) -> &'static str {
        "CSIPlugin"
    }

    fn register<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            if plugin.endpoint == Path::new("/refused") {
                return Err("not this one".into());
            }
            self.0.send((true, plugin.clone())).map_err(|e| e.to_string())
        })
    }

    fn deregister<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, ()> {
        Box::pin(async move { drop(self.0.send((false, plugin.clone()))) })
    }
}

#[tokio::test]
async fn sockets_register_and_deregister_as_they_come_and_go() {
    let folder = std::env::temp_dir().join(format!("kubelet-plugins-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (book, mut lines) = mpsc::unbounded_channel();
    let table: Table = Arc::new(vec![Arc::new(Book(book))]);
    let early = folder.join("early.sock");
    let mut told = serve(&early, "CSIPlugin", "");
    let (_trigger, shutdown) = daemon::Shutdown::pair();
    let running = tokio::spawn(registry::run(folder.clone(), table, shutdown));

    let (came, plugin) = lines.recv().await.unwrap();
    assert!(came, "what was there before the kubelet registers too");
    assert_eq!(plugin.endpoint, early, "a plugin without an endpoint serves on the same socket");
    assert!(told.recv().await.unwrap().plugin_registered);

    std::fs::create_dir_all(folder.join("sub")).unwrap();
    let mut told = serve(&folder.join("sub/late.sock"), "CSIPlugin", "/elsewhere");
    assert_eq!(lines.recv().await.unwrap().1.endpoint, Path::new("/elsewhere"));
    assert!(told.recv().await.unwrap().plugin_registered);

    let mut told = serve(&folder.join("unknown.sock"), "MagicPlugin", "");
    let status = told.recv().await.unwrap();
    assert!(!status.plugin_registered && status.error.contains("no handler registered for plugin type: MagicPlugin"));
    let mut told = serve(&folder.join("refused.sock"), "CSIPlugin", "/refused");
    assert_eq!(told.recv().await.unwrap().error, "not this one");

    // A plugin that restarts makes its socket anew: the old one goes before the new one comes.
    std::fs::remove_file(&early).unwrap();
    let _told = serve(&early, "CSIPlugin", "");
    assert_eq!([lines.recv().await.unwrap().0, lines.recv().await.unwrap().0], [false, true]);
    std::fs::remove_dir_all(folder.join("sub")).unwrap();
    let (came, plugin) = lines.recv().await.unwrap();
    assert_eq!((came, plugin.endpoint.as_path()), (false, Path::new("/elsewhere")));
    running.abort();
    std::fs::remove_dir_all(folder).unwrap();
}
