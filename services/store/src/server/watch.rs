//! The Watch service.

use std::sync::Arc;

use daemon::Shutdown;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::watch_server;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::auth::credentials;
use crate::member::Member;
use crate::watch::Session;

/// Responses on their way to one client; beyond that its watchers wait.
const IN_FLIGHT: usize = 16;

/// Serves Watch.
pub struct Watch {
    /// The member.
    pub member: Arc<Member>,
    /// Ends the streams.
    pub shutdown: Shutdown,
}

#[tonic::async_trait]
impl watch_server::Watch for Watch {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (out, responses) = mpsc::channel(IN_FLIGHT);
        let state = &self.member.state;
        let (auth, credentials) = (state.auth.clone(), credentials(&request));
        let allowed = Box::new(move |key: &[u8], end: &[u8]| {
            let caller = auth.caller(&credentials)?;
            auth.book().read(caller.as_ref(), key, end)
        });
        let session = Session::new(state.mvcc.clone(), state.hub.clone(), allowed, self.member.header(0), out)
            .at_most(self.member.config.max_watchers_per_stream);
        let progress = self.member.config.watch_progress_notify_interval;
        let serving = session.run(request.into_inner(), progress, self.shutdown.clone());
        let metrics = state.metrics.clone();
        tokio::spawn(async move {
            metrics.streams[0].increment();
            serving.await;
            metrics.streams[1].increment();
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}
