//! exec and attach between a WebSocket client of the fifth version and a kubelet, which speaks SPDY/3.1: the fifth version's
//! news, that a client can close its input, never reaches kubelets (KEP-4006).
//!
//! [`Channels`] is the pure part: which stream stands for which channel, and what each side is told.

use super::spdy::{Decoder, Encoder, Frame};
use super::websocket;
use crate::errors::ApiError;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

/// The protocol offered to clients.
pub const PROTOCOL: &str = "v5.channel.k8s.io";
/// The protocol asked of kubelets.
pub const KUBELET_PROTOCOL: &str = "v4.channel.k8s.io";

/// A client that takes no more bytes for this long after the end is left alone.
const LAST_WORDS: Duration = Duration::from_secs(10);
const CHUNK: usize = 32 * 1024;

/// The numbers that begin each message of a client.
mod channel {
    pub const STDIN: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    pub const ERROR: u8 = 3;
    pub const RESIZE: u8 = 4;
    pub const CLOSE: u8 = 255;
}

/// Which streams a client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Input.
    pub stdin: bool,
    /// Output.
    pub stdout: bool,
    /// Errors; a terminal has none of its own.
    pub stderr: bool,
    /// On a terminal, whose size may change.
    pub tty: bool,
}

/// One stream of the kubelet's connection and the channel it stands for.
#[derive(Debug)]
struct Channel {
    number: u8,
    kind: &'static str,
    stream: u32,
    accepted: bool,
    /// The kubelet's half has ended.
    ended: bool,
}

/// The translation's state.
#[derive(Debug)]
pub struct Channels {
    all: Vec<Channel>,
    /// Whether the kubelet has said how it went.
    concluded: bool,
}

/// What a frame of the kubelet leads to.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Nothing,
    ToClient(Bytes),
    ToKubelet(Bytes),
}

impl Channels {
    /// The streams to open, in the order in which kubelets expect them.
    pub fn new(wanted: Wanted) -> Self {
        let kinds = [
            (channel::ERROR, "error", true),
            (channel::STDIN, "stdin", wanted.stdin),
            (channel::STDOUT, "stdout", wanted.stdout),
            (channel::STDERR, "stderr", wanted.stderr && !wanted.tty),
            (channel::RESIZE, "resize", wanted.tty),
        ];
        let open = kinds.into_iter().filter(|(_, _, open)| *open);
        let all = open.zip((1..).step_by(2)).map(|((number, kind, _), stream)| Channel {
            number,
            kind,
            stream,
            accepted: false,
            ended: false,
        });
        Self { all: all.collect(), concluded: false }
    }

    fn opening(&self) -> Vec<Bytes> {
        let mut encoder = Encoder::default();
        self.all.iter().map(|c| encoder.open(c.stream, &[("streamType", c.kind)])).collect()
    }

    /// Data sent before a stream is accepted would be dropped.
    fn all_accepted(&self) -> bool {
        self.all.iter().all(|c| c.accepted)
    }

    /// Nothing more will come: result and output have ended.
    fn complete(&self) -> bool {
        self.all.iter().all(|c| c.ended || matches!(c.number, channel::STDIN | channel::RESIZE))
    }

    fn stream_of(&self, number: u8) -> Option<u32> {
        self.all.iter().find(|c| c.number == number).map(|c| c.stream)
    }

    /// What the kubelet is to get for a client's message; nothing for channels that are not open or not the client's.
    fn client_says(&self, message: &[u8]) -> Option<Bytes> {
        let (number, data) = message.split_first()?;
        match *number {
            channel::STDIN | channel::RESIZE if !data.is_empty() => {
                Some(Encoder::data(self.stream_of(*number)?, data, false))
            }
            channel::CLOSE if matches!(data, [channel::STDIN | channel::RESIZE]) => {
                Some(Encoder::data(self.stream_of(data[0])?, &[], true))
            }
            _ => None,
        }
    }

    fn kubelet_says(&mut self, frame: Frame) -> Reply {
        let (stream, fin, data) = match frame {
            Frame::Accept { stream, .. } => (stream, false, Bytes::new()),
            Frame::Reset { stream, .. } => (stream, true, Bytes::new()),
            Frame::Data { stream, fin, data } => (stream, fin, data),
            Frame::Ping(id) => return Reply::ToKubelet(Encoder::ping(id)),
            Frame::GoAway | Frame::Open { .. } | Frame::Other(_) => return Reply::Nothing,
        };
        let Some(found) = self.all.iter_mut().find(|c| c.stream == stream) else { return Reply::Nothing };
        // Whatever the kubelet says about a stream, it knows the stream.
        found.accepted = true;
        found.ended |= fin;
        if data.is_empty() {
            return Reply::Nothing;
        }
        self.concluded |= found.number == channel::ERROR;
        Reply::ToClient(message(found.number, &data))
    }
}

fn message(number: u8, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 1);
    out.push(number);
    out.extend_from_slice(data);
    out.into()
}

/// Tells a client that there will be no stream, the way results are told.
pub async fn refuse(mut client: websocket::Socket, error: &ApiError) {
    let text = error.to_value().to_string();
    let said = async {
        client.send(Message::Binary(message(channel::ERROR, text.as_bytes()))).await?;
        client.send(websocket::goodbye()).await
    };
    let _ = tokio::time::timeout(LAST_WORDS, said).await;
}

/// Translates until either side is done.
pub async fn run<C, K>(client: WebSocketStream<C>, kubelet: K, wanted: Wanted)
where
    C: AsyncRead + AsyncWrite + Unpin,
    K: AsyncRead + AsyncWrite + Send + 'static,
{
    let channels = Channels::new(wanted);
    let (mut to_client, from_client) = client.split();
    let (from_kubelet, to_kubelet) = tokio::io::split(kubelet);
    // One task for each direction: a command that neither reads nor is read must not stop the other direction.
    let (sender, queue) = mpsc::channel(16);
    for opening in channels.opening() {
        let _ = sender.send(opening).await;
    }
    let (accepted, may_send) = oneshot::channel();
    let names = Channels::new(wanted);
    let pongs = sender.clone();
    let writer = tokio::spawn(write_all(to_kubelet, queue));
    let reading = async {
        if may_send.await.is_ok() {
            forward(from_client, &names, sender).await;
        }
    };
    tokio::select! {
        ending = deliver(from_kubelet, &mut to_client, channels, accepted, pongs) => {
            let _ = tokio::time::timeout(LAST_WORDS, conclude(&mut to_client, ending)).await;
        }
        // The client is gone.
        () = reading => {}
    }
    writer.abort();
}

async fn write_all<K: AsyncWrite>(mut kubelet: WriteHalf<K>, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = queue.recv().await {
        if kubelet.write_all(&bytes).await.is_err() || kubelet.flush().await.is_err() {
            return;
        }
    }
}

async fn forward<S>(mut client: S, channels: &Channels, sender: mpsc::Sender<Bytes>)
where
    S: StreamExt<Item = Result<Message, SocketError>> + Unpin,
{
    while let Some(Ok(message)) = client.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        if let Some(bytes) = channels.client_says(&data)
            && sender.send(bytes).await.is_err()
        {
            // The kubelet's connection has ended; what is still to be said about that is the other direction's.
            return std::future::pending().await;
        }
    }
}

/// Passes on what the kubelet sends; returns what is left to say: an error, if the kubelet never said how it went.
async fn deliver<K, S>(
    mut kubelet: ReadHalf<K>,
    client: &mut S,
    mut channels: Channels,
    accepted: oneshot::Sender<()>,
    pongs: mpsc::Sender<Bytes>,
) -> Option<String>
where
    K: AsyncRead,
    S: SinkExt<Message> + Unpin,
{
    let mut decoder = Decoder::default();
    let mut accepted = Some(accepted);
    while !channels.complete() {
        let frame = match decoder.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                decoder.input.reserve(CHUNK);
                match kubelet.read_buf(&mut decoder.input).await {
                    Ok(0) => break,
                    Ok(_) => continue,
                    Err(error) => return Some(format!("error reading from the kubelet: {error}")),
                }
            }
            Err(error) => return Some(format!("error reading from the kubelet: {error}")),
        };
        match channels.kubelet_says(frame) {
            Reply::ToClient(bytes) => {
                if client.send(Message::Binary(bytes)).await.is_err() {
                    return None;
                }
            }
            // A full queue means that the kubelet is being written to, which says as much as an answer.
            Reply::ToKubelet(bytes) => drop(pongs.try_send(bytes)),
            Reply::Nothing => {}
        }
        if channels.all_accepted()
            && let Some(accepted) = accepted.take()
        {
            let _ = accepted.send(());
        }
    }
    (!channels.concluded).then(|| "the kubelet closed the connection before the command had ended".to_owned())
}

async fn conclude<S: SinkExt<Message> + Unpin>(client: &mut S, ending: Option<String>) {
    if let Some(error) = ending {
        let status = ApiError::internal(error).to_value().to_string();
        let _ = client.send(Message::Binary(message(channel::ERROR, status.as_bytes()))).await;
    }
    let _ = client.send(websocket::goodbye()).await;
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
