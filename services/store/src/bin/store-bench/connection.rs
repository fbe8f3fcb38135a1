//! A connection to a server that costs little: whoever measures shares the machine with what is measured.
//!
//! For calls with one request and one answer. tonic's channel hands each of them through two more tasks.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::RecvStream;
use h2::client::SendRequest;
use hyper::body::Frame;
use tokio::net::TcpStream;
use tonic::codegen::http::uri::{Authority, PathAndQuery, Scheme};
use tonic::codegen::http::{HeaderMap, Request, Response, Uri};
use tonic::codegen::{Body, Service};

use crate::Failure;

/// As much as a server may send before it is told that there is room: more than any answer.
const WINDOW: u32 = 16 << 20;

/// An HTTP/2 connection. Clones share it.
#[derive(Clone)]
pub struct Connection {
    requests: SendRequest<Bytes>,
    authority: Authority,
}

impl Connection {
    /// Connects to a URL without TLS.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn open(url: &str) -> Result<Self, Failure> {
        let authority = url.parse::<Uri>()?.into_parts().authority.ok_or("a URL without a host")?;
        let stream = TcpStream::connect(authority.as_str()).await?;
        stream.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (requests, connection) = builder.handshake(stream).await?;
        // Its end shows in the calls.
        tokio::spawn(connection);
        Ok(Connection { requests, authority })
    }

    async fn ask<B>(mut self, request: Request<B>) -> Result<Response<Answer>, Failure>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Failure>,
    {
        let (mut parts, mut body) = request.into_parts();
        let path = parts.uri.path_and_query().cloned();
        parts.uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build()?;
        let (answer, mut stream) = self.requests.send_request(Request::from_parts(parts, ()), false)?;
        let mut last = Bytes::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(data) = frame.map_err(Into::into)?.into_data() else { continue };
            if !last.is_empty() {
                stream.send_data(last, false)?;
            }
            last = data;
        }
        stream.send_data(last, true)?;
        Ok(answer.await?.map(Answer))
    }
}

impl<B> Service<Request<B>> for Connection
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Failure>,
{
    type Response = Response<Answer>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(ready!(self.requests.poll_ready(context))?))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was found ready must be the one that is used.
        let fresh = self.clone();
        Box::pin(std::mem::replace(self, fresh).ask(request))
    }
}

/// The body of an answer.
pub struct Answer(RecvStream);

impl Body for Answer {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let stream = &mut self.get_mut().0;
        match ready!(stream.poll_data(context)) {
            Some(Ok(data)) => {
                stream.flow_control().release_capacity(data.len())?;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => {
                let trailers: Option<HeaderMap> = ready!(stream.poll_trailers(context))?;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}
