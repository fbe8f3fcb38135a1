//! Bytes carried in a WebSocket's binary messages: port-forward of clients that speak no bare SPDY (KEP-4006). What the bytes mean
//! is between client and kubelet.

use super::websocket;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// The subprotocol of such clients: SPDY in WebSocket, and what SPDY carries.
pub const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// What SPDY carries.
pub const INNER_PROTOCOL: &str = "portforward.k8s.io";

const CHUNK: usize = 32 * 1024;

/// Copies both ways until either side ends.
pub async fn run<C, K>(client: WebSocketStream<C>, kubelet: K)
where
    C: AsyncRead + AsyncWrite + Unpin,
    K: AsyncRead + AsyncWrite,
{
    let (mut to_client, mut from_client) = client.split();
    let (mut from_kubelet, mut to_kubelet) = tokio::io::split(kubelet);
    let inward = async {
        while let Some(Ok(message)) = from_client.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => text.into(),
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if to_kubelet.write_all(&data).await.is_err() || to_kubelet.flush().await.is_err() {
                return;
            }
        }
    };
    let outward = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            match from_kubelet.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let data: Bytes = buffer.split().freeze();
            if to_client.send(Message::Binary(data)).await.is_err() {
                return;
            }
        }
        let _ = to_client.send(websocket::goodbye()).await;
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::protocol::Role;

    #[tokio::test]
    async fn bytes_pass_in_both_directions_and_the_end_is_told() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (kubelet_near, mut kubelet) = tokio::io::duplex(64);
        let server = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let task = tokio::spawn(run(server, kubelet_near));
        let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        client.send(Message::Binary(Bytes::from_static(b"question"))).await.expect("send");
        let mut question = [0; 8];
        kubelet.read_exact(&mut question).await.expect("read");
        assert_eq!(&question, b"question");
        kubelet.write_all(b"answer").await.expect("write");
        drop(kubelet);
        let mut told = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            told.push(message);
        }
        assert_eq!(told, [Message::Binary(Bytes::from_static(b"answer")), websocket::goodbye()]);
        task.await.expect("ends");
    }
}
