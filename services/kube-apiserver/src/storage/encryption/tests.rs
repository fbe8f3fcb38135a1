//! Values as upstream writes them (made with another implementation of the ciphers), rotation, and a key service on a socket.

use super::kms_api::*;
use super::*;
use crate::registry::lookup;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use local::Cipher;
use parking_lot::Mutex;
use prost::Message;
use std::time::Duration;

const PATH: &[u8] = b"/registry/secrets/default/one";
const TEXT: &[u8] = b"{\"kind\":\"Secret\",\"apiVersion\":\"v1\"}";
/// Bytes 0, 1, 2, …: the keys that the values below were made with.
const GCM: [(usize, &str); 3] = [
    (
        16,
        "6465666768696a6b6c6d6e6f614025ccb5669ac0b96d3273f4af5fce1caa198ffbffb8288706def99ec8d5858bde2ff2f5a12f24e6bf4eec98813edd357487",
    ),
    (
        24,
        "6465666768696a6b6c6d6e6f924ad0153ccb2c02f18287628897ef9cf17b3fba93df149df22a27a49454ba366b767a484a5e6b257e39dd230e19ae4185a967",
    ),
    (
        32,
        "6465666768696a6b6c6d6e6f3339b50f178d74a41c313a8ba8001edf6ee0677ae23a9600d4b8c326d999873ea5cb3df0acdc1885c4a7d07a1bd4eed0f9fe65",
    ),
];
const CBC: [(usize, &str); 3] = [
    (
        16,
        "c8c9cacbcccdcecfd0d1d2d3d4d5d6d77e9537b04c5ab19cafe1d0f8e510c3624c4e6886e31b58677cc4a2241c0f6543523aeb1c0d964bdcfcfe2afe516c8409",
    ),
    (
        24,
        "c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8f6b0370c427d3c5931dad0311989d6d19426f93e96e25459cb77510b3765c17da61957e522e65bc06472d2fbc3657b",
    ),
    (
        32,
        "c8c9cacbcccdcecfd0d1d2d3d4d5d6d707d16fe6735d98b78b6abb88e36de898560ffaa52519d3084a81e5b254ab9935b91c292caf19630ba8d79a2bf475fb62",
    ),
];
/// With a seed of bytes 0 to 31.
const SEALED_BY_SEED: &str = "32333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f50516465666768696a6b6c6d6e6f02ef6680898348546f96d10e6c58ad51ae8b64177bcf0b4aba5dfb5629b9d06bd5682d0608187fcbc51644e2df8e736d10a410";

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect()
}

fn counting(n: usize) -> Vec<u8> {
    (0..n).map(|i| u8::try_from(i).expect("small")).collect()
}

fn keys(cipher: Cipher, keys: &[(&str, Vec<u8>)]) -> Keys {
    Keys::new(cipher, keys.iter().map(|(name, key)| ((*name).to_owned(), key.clone())).collect()).expect("valid keys")
}

#[test]
fn values_of_others_can_be_read() {
    for (cipher, vectors) in [(Cipher::AesGcm, GCM), (Cipher::AesCbc, CBC)] {
        for (size, hex) in vectors {
            let keys = keys(cipher, &[("k", counting(size))]);
            let value = [format!("k8s:enc:{}:v1:k:", cipher.name()).as_bytes(), &bytes_of(hex)].concat();
            let want = Opened { text: Bytes::from_static(TEXT), stale: false };
            assert_eq!(keys.open(PATH, &value), Ok(want), "{cipher:?} {size}");
        }
    }
}

/// The vector of NaCl's own tests.
#[test]
fn secretbox_is_that_of_nacl() {
    let key = bytes_of("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
    let nonce = "69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37";
    let sealed = "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5";
    let text = "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705";
    let value = [b"k8s:enc:secretbox:v1:k:".as_slice(), &bytes_of(nonce), &bytes_of(sealed)].concat();
    let opened = keys(Cipher::Secretbox, &[("k", key)]).open(PATH, &value).expect("opens");
    assert_eq!(opened.text, bytes_of(text));
}

#[test]
fn what_is_sealed_opens_and_nothing_else_does() {
    for cipher in [Cipher::AesGcm, Cipher::AesCbc, Cipher::Secretbox] {
        let old = keys(cipher, &[("a", vec![1; 32])]);
        let rotated = keys(cipher, &[("b", vec![2; 32]), ("a", vec![1; 32])]);
        let value = old.seal(PATH, TEXT.to_vec()).expect("seals");
        assert!(value.starts_with(format!("k8s:enc:{}:v1:a:", cipher.name()).as_bytes()));
        assert_ne!(old.seal(PATH, TEXT.to_vec()).expect("seals"), value, "each value has its own nonce");
        let opened = |stale| Ok(Opened { text: Bytes::from_static(TEXT), stale });
        assert_eq!(old.open(PATH, &value), opened(false));
        assert_eq!(rotated.open(PATH, &value), opened(true), "not by the first key");
        let new = rotated.seal(PATH, TEXT.to_vec()).expect("seals");
        assert_eq!(old.open(PATH, &new), Err(EncryptionError::NoProvider));
        let mut broken = value.clone();
        *broken.last_mut().expect("not empty") ^= 1;
        assert_ne!(old.open(PATH, &broken), opened(false), "{cipher:?}");
        assert!(old.open(PATH, &value[..value.len() - 20]).is_err());
        if cipher == Cipher::AesGcm {
            assert!(old.open(b"/registry/secrets/default/two", &value).is_err(), "a value cannot be moved");
        }
    }
}

fn encryption(rules: &str) -> Encryption {
    let encryption = Encryption::default();
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";
    encryption.load(&format!("{head}{rules}")).expect("valid");
    encryption
}

#[tokio::test]
async fn rules_decide_by_resource_and_providers_are_tried_in_turn() {
    let secret = STANDARD.encode([9; 32]);
    let on = encryption(&format!(
        "- resources: [secrets]\n  providers:\n  - secretbox: {{keys: [{{name: k, secret: {secret}}}]}}\n  - identity: {{}}\n\
         - resources: ['*.apps']\n  providers:\n  - aesgcm: {{keys: [{{name: k, secret: {secret}}}]}}\n"
    ));
    let off = encryption(&format!(
        "- resources: [secrets]\n  providers:\n  - identity: {{}}\n  - secretbox: {{keys: [{{name: k, secret: {secret}}}]}}\n"
    ));
    let row = |group, plural| lookup(group, "v1", plural).expect("in the table");
    let (secrets, maps, deployments) = (row("", "secrets"), row("", "configmaps"), row("apps", "deployments"));
    let plain = Bytes::from_static(TEXT);
    let sealed: Bytes = on.seal(secrets, PATH, TEXT.to_vec()).await.expect("seals").into();
    assert!(sealed.starts_with(b"k8s:enc:secretbox:v1:k:"));
    let opened = |stale| Ok(Opened { text: plain.clone(), stale });
    assert_eq!(on.open(secrets, PATH, &sealed).await, opened(false));
    assert_eq!(on.open(secrets, PATH, &plain).await, opened(true), "written before encryption was on");
    assert_eq!(off.open(secrets, PATH, &sealed).await, opened(true), "written before encryption was off");
    assert_eq!(off.seal(secrets, PATH, TEXT.to_vec()).await, Ok(TEXT.to_vec()));
    assert_eq!(on.seal(maps, PATH, TEXT.to_vec()).await, Ok(TEXT.to_vec()));
    assert_eq!(on.open(maps, PATH, &sealed).await, Err(EncryptionError::Encrypted));
    assert_eq!(on.open(deployments, PATH, &plain).await, Err(EncryptionError::Plain));
    assert_eq!(on.open(deployments, PATH, &sealed).await, Err(EncryptionError::NoProvider));
}

/// A key service that turns bits round, and what it has been asked.
#[derive(Clone, Default)]
struct Service {
    key: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn answer(&self, path: &str, message: &[u8]) -> Vec<u8> {
        let turn = |bytes: Vec<u8>| bytes.into_iter().map(|b| !b).collect::<Vec<u8>>();
        let key_id = self.key.lock().clone();
        self.asked.lock().push(path.rsplit('/').next().unwrap_or_default().to_owned());
        match path {
            "/v2.KeyManagementService/Status" => {
                StatusResponse { version: "v2".into(), healthz: "ok".into(), key_id }.encode_to_vec()
            }
            "/v2.KeyManagementService/Encrypt" => {
                let request = EncryptRequest::decode(message).expect("a request");
                let annotations = [("where.example.com".to_owned(), b"here".to_vec())].into();
                EncryptResponse { ciphertext: turn(request.plaintext), key_id, annotations }.encode_to_vec()
            }
            "/v2.KeyManagementService/Decrypt" => {
                let request = DecryptRequest::decode(message).expect("a request");
                DecryptResponse { plaintext: turn(request.ciphertext) }.encode_to_vec()
            }
            other => panic!("{other}"),
        }
    }

    /// Serves gRPC: each message has a byte for compression and four for its length in front.
    async fn serve(self, listener: tokio::net::UnixListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let service = self.clone();
            let handle = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let service = service.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await?.to_bytes();
                    let message = service.answer(&path, &body[5..]);
                    let mut framed = BytesMut::new();
                    framed.put_u8(0);
                    framed.put_u32(u32::try_from(message.len()).expect("short"));
                    framed.extend_from_slice(&message);
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                    let frames = [Frame::data(framed.freeze()), Frame::trailers(trailers)];
                    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, hyper::Error>)));
                    let response = http::Response::builder().header("content-type", "application/grpc").body(body);
                    Ok::<_, hyper::Error>(response.expect("valid"))
                }
            });
            let http = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            tokio::spawn(http.serve_connection(hyper_util::rt::TokioIo::new(stream), handle));
        }
    }
}

#[tokio::test]
async fn a_key_service_encrypts_seeds() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("kms.sock");
    let service = Service { key: Arc::new(Mutex::new("one".into())), ..Service::default() };
    tokio::spawn(service.clone().serve(tokio::net::UnixListener::bind(&socket).expect("a socket")));
    let start = || {
        Kms::start(config::KmsConfig { name: "test".into(), socket: socket.clone(), timeout: Duration::from_secs(5) })
    };
    let kms = start();
    let value = kms.seal(PATH, TEXT.to_vec()).await.expect("seals");
    let again = kms.seal(PATH, TEXT.to_vec()).await.expect("seals");
    assert!(value.starts_with(b"k8s:enc:kms:v2:test:") && value != again);
    let opened = |stale| Ok(Opened { text: Bytes::from_static(TEXT), stale });
    assert_eq!(kms.open(PATH, &value).await, opened(false));
    assert!(kms.open(b"/registry/secrets/default/two", &value).await.is_err(), "a value cannot be moved");
    let count = |what: &str| service.asked.lock().iter().filter(|asked| *asked == what).count();
    assert_eq!((count("Encrypt"), count("Decrypt")), (1, 0), "once per seed");
    // Another server has to ask; values of a key that the service has left behind are stale.
    let other = start();
    assert_eq!(other.open(PATH, &value).await.map(|o| o.text), Ok(Bytes::from_static(TEXT)));
    assert_eq!(other.open(PATH, &again).await.map(|o| o.text), Ok(Bytes::from_static(TEXT)));
    assert_eq!(count("Decrypt"), 1);
    "two".clone_into(&mut service.key.lock());
    kms.check().await.expect("well");
    assert_eq!(kms.open(PATH, &value).await, opened(true));
    let new = kms.seal(PATH, TEXT.to_vec()).await.expect("seals");
    assert_eq!(kms.open(PATH, &new).await, opened(false));
    assert_eq!(count("Encrypt"), 2);
    // As upstream writes it, and as servers before 1.29 did.
    let plain = |kind, data: Vec<u8>| {
        let source = counting(32).into_iter().map(|b| !b).collect();
        let object = EncryptedObject { data, key_id: "two".into(), source, annotations: [].into(), kind };
        [b"k8s:enc:kms:v2:test:".as_slice(), &object.encode_to_vec()].concat()
    };
    assert_eq!(kms.open(PATH, &plain(SEED, bytes_of(SEALED_BY_SEED))).await, opened(false));
    assert_eq!(kms.open(PATH, &plain(KEY, bytes_of(GCM[2].1))).await, opened(true));
}

#[tokio::test]
async fn a_key_service_that_is_not_there_is_an_error() {
    let config = config::KmsConfig {
        name: "gone".into(),
        socket: "/nonexistent/kms.sock".into(),
        timeout: Duration::from_secs(1),
    };
    let error = Kms::start(config).seal(PATH, TEXT.to_vec()).await.expect_err("nobody answers");
    assert!(error.to_string().starts_with("kms provider gone: "), "{error}");
}
