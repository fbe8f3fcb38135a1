//! Connections to machines.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use hyper_util::rt::TokioIo;
use machine_api::v1::machine_service_client::MachineServiceClient;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::Global;
use crate::context::{self, Context};

pub(crate) type Client = MachineServiceClient<Channel>;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Makes aws-lc-rs the cryptography provider.
pub(crate) fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Connections to all machines the flags and the context name, with their names.
pub(crate) async fn all(global: &Global) -> anyhow::Result<Vec<(String, Client)>> {
    let context = context::load(global)?;
    let tls = Arc::new(mutual(&context)?);
    let nodes = if global.nodes.is_empty() && global.endpoints.is_empty() { &context.nodes } else { &global.nodes };
    if nodes.is_empty() {
        let endpoints = if global.endpoints.is_empty() { &context.endpoints } else { &global.endpoints };
        return first(endpoints, &tls).await.map(|one| vec![one]);
    }
    let mut clients = Vec::new();
    for node in nodes {
        clients.push((node.clone(), open(node, tls.clone()).await?));
    }
    Ok(clients)
}

/// The connection to exactly one machine.
pub(crate) async fn one(global: &Global) -> anyhow::Result<Client> {
    let mut all = all(global).await?;
    match (all.pop(), all.len()) {
        (Some((_, client)), 0) => Ok(client),
        _ => bail!("this works with one machine at a time: give one with -n"),
    }
}

/// A connection that checks nobody's certificate, for a machine in maintenance mode.
pub(crate) async fn insecure(global: &Global) -> anyhow::Result<Client> {
    let [node] = global.nodes.as_slice() else { bail!("--insecure needs the machine's address: give one with -n") };
    let config =
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
    open(node, Arc::new(with_alpn(config))).await
}

async fn first(endpoints: &[String], tls: &Arc<ClientConfig>) -> anyhow::Result<(String, Client)> {
    let mut last = anyhow!("no machine is named: give one with -n, or endpoints in the context");
    for endpoint in endpoints {
        match open(endpoint, tls.clone()).await {
            Ok(client) => return Ok((endpoint.clone(), client)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn mutual(context: &Context) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(context.ca.as_bytes()) {
        roots.add(cert.context("the context's ca")?).context("the context's ca")?;
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(context.crt.as_bytes())
        .collect::<Result<_, _>>()
        .context("the context's crt")?;
    let key = PrivateKeyDer::from_pem_slice(context.key.as_bytes()).context("the context's key")?;
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .context("the context's crt and key")?;
    Ok(with_alpn(config))
}

fn with_alpn(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn open(address: &str, tls: Arc<ClientConfig>) -> anyhow::Result<Client> {
    let (host, port) = split(address)?;
    let name =
        ServerName::try_from(host.clone()).map_err(|_| anyhow!("{address:?} is neither a name nor an address"))?;
    let connector = TlsConnector::from(tls);
    let connect = tower::service_fn(move |_| {
        let (connector, name, host) = (connector.clone(), name.clone(), host.clone());
        async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            let mut stream = connector.connect(name, stream).await?;
            // In TLS 1.3 the server judges our certificate after our side of the handshake is done. An HTTP/2 server speaks
            // first, so waiting for that turns a refusal into an error of connecting, with its reason.
            stream.fill_buf().await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    // The authority is never resolved: the connector above ignores it.
    let endpoint = Endpoint::from_static("http://machine").connect_timeout(CONNECT_LIMIT);
    let channel = tokio::time::timeout(CONNECT_LIMIT, endpoint.connect_with_connector(connect));
    let channel = channel
        .await
        .map_err(|_| anyhow!("{address} does not answer"))?
        .with_context(|| format!("cannot connect to {address}"))?;
    Ok(Client::new(channel).max_decoding_message_size(16 * 1024 * 1024))
}

/// `host`, `host:port`, `v6`, `[v6]:port`.
fn split(address: &str) -> anyhow::Result<(String, u16)> {
    if address.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((address.to_owned(), machine_api::PORT));
    }
    match address.rsplit_once(':') {
        None => Ok((address.trim_matches(['[', ']']).to_owned(), machine_api::PORT)),
        Some((host, port)) => {
            let port = port.parse().map_err(|_| anyhow!("{address:?} does not end in a port"))?;
            Ok((host.trim_matches(['[', ']']).to_owned(), port))
        }
    }
}

/// Accepts every server. Only for `--insecure`.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn addresses_may_have_a_port() {
        for (text, host, port) in [
            ("10.0.2.15", "10.0.2.15", 50000),
            ("h:1234", "h", 1234),
            ("fd00::1", "fd00::1", 50000),
            ("[fd00::1]:7", "fd00::1", 7),
        ] {
            assert_eq!(split(text).unwrap(), (host.to_owned(), port), "{text}");
        }
        assert!(split("h:x").is_err());
    }
}
