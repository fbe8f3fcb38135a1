//! A key service of the KMS v2 API on a Unix socket, which encrypts with AES-256-GCM by keys of its own. The messages are written down here once more: a
//! service that shared them with the server would share its mistakes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

/// What it says of a key that it has no more.
pub const FORGOTTEN: &str = "this key has been destroyed";
/// What it hands out with every seed and wants back.
const ANNOTATION: (&str, &[u8]) = ("place.example.com", b"here");
/// gRPC's codes.
const OK: &str = "0";
const FAILED: &str = "9";

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Encrypt {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Encrypted {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Decrypt {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Decrypted {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

/// The service; it ends with it.
pub struct Service {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    serving: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    keys: BTreeMap<String, LessSafeKey>,
    current: String,
    encrypted: usize,
    decrypted: usize,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// Serves on a socket.
    pub fn start(socket: &Path) -> Result<Self> {
        let mut service = Self { socket: socket.to_owned(), state: Arc::default(), serving: None };
        service.rotate();
        service.restart()?;
        Ok(service)
    }

    /// Ends, with every connection.
    pub fn stop(&mut self) {
        self.serving.take().into_iter().for_each(|task| task.abort());
    }

    /// Serves again.
    pub fn restart(&mut self) -> Result<()> {
        let _ = std::fs::remove_file(&self.socket);
        self.serving = Some(tokio::spawn(serve(UnixListener::bind(&self.socket)?, Arc::clone(&self.state))));
        Ok(())
    }

    /// Encrypts with a new key from now on.
    pub fn rotate(&self) {
        let mut state = lock(&self.state);
        let mut key = [0; 32];
        let made = rand::fill(&mut key).and_then(|()| UnboundKey::new(&AES_256_GCM, &key));
        let id = format!("marker-of-key-{}", state.keys.len() + 1);
        state.keys.extend(made.ok().map(|key| (id.clone(), LessSafeKey::new(key))));
        state.current = id;
    }

    /// Destroys a key.
    pub fn forget(&self, id: &str) {
        lock(&self.state).keys.remove(id);
    }

    /// The name of its key.
    pub fn key_id(&self) -> String {
        lock(&self.state).current.clone()
    }

    /// How many seeds it has encrypted.
    pub fn encrypted(&self) -> usize {
        lock(&self.state).encrypted
    }

    /// How many seeds it has decrypted.
    pub fn decrypted(&self) -> usize {
        lock(&self.state).decrypted
    }
}

impl State {
    fn answer(&mut self, path: &str, message: &[u8]) -> Result<Vec<u8>, &'static str> {
        let wrong = |_| "not a message of this method";
        match path {
            "/v2.KeyManagementService/Status" => {
                let key_id = self.current.clone();
                Ok(Status { version: "v2".into(), healthz: "ok".into(), key_id }.encode_to_vec())
            }
            "/v2.KeyManagementService/Encrypt" => {
                self.encrypted += 1;
                self.encrypt(Encrypt::decode(message).map_err(wrong)?.plaintext).map(|made| made.encode_to_vec())
            }
            "/v2.KeyManagementService/Decrypt" => {
                self.decrypted += 1;
                let plaintext = self.decrypt(Decrypt::decode(message).map_err(wrong)?)?;
                Ok(Decrypted { plaintext }.encode_to_vec())
            }
            _ => Err("no such method"),
        }
    }

    fn encrypt(&self, mut text: Vec<u8>) -> Result<Encrypted, &'static str> {
        let key = self.keys.get(&self.current).ok_or(FORGOTTEN)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| "no random numbers")?;
        let sealed = key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text);
        sealed.map_err(|_| "not encrypted")?;
        let annotations = [(ANNOTATION.0.to_owned(), ANNOTATION.1.to_vec())].into();
        Ok(Encrypted { ciphertext: [nonce.as_slice(), &text].concat(), key_id: self.current.clone(), annotations })
    }

    fn decrypt(&self, asked: Decrypt) -> Result<Vec<u8>, &'static str> {
        if asked.annotations.get(ANNOTATION.0).map(Vec::as_slice) != Some(ANNOTATION.1) {
            return Err("the annotations are not those that came with it");
        }
        let key = self.keys.get(&asked.key_id).ok_or(FORGOTTEN)?;
        let (nonce, sealed) = asked.ciphertext.split_first_chunk::<NONCE_LEN>().ok_or("too short")?;
        let mut text = sealed.to_vec();
        let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut text);
        opened.map(|text| text.to_vec()).map_err(|_| "not what this key has encrypted")
    }
}

/// Every connection ends with the task.
async fn serve(listener: UnixListener, state: Arc<Mutex<State>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let service = service_fn(move |request| call(Arc::clone(&state), request));
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        connections.spawn(http.serve_connection(TokioIo::new(stream), service));
    }
}

type Frames = futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, hyper::Error>>>;

/// gRPC: each message has a byte for compression and four for its length in front, and the status comes last.
async fn call(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<StreamBody<Frames>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let answer = lock(&state).answer(&path, body.get(5..).unwrap_or_default());
    let mut frames = Vec::new();
    let mut trailers = HeaderMap::new();
    match answer {
        Ok(message) => {
            let mut framed = BytesMut::new();
            framed.put_u8(0);
            framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
            framed.extend_from_slice(&message);
            frames.push(Ok(Frame::data(framed.freeze())));
            trailers.insert("grpc-status", HeaderValue::from_static(OK));
        }
        Err(why) => {
            trailers.insert("grpc-status", HeaderValue::from_static(FAILED));
            trailers.insert("grpc-message", HeaderValue::from_static(why));
        }
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}
