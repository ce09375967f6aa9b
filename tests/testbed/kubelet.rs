//! Fake kubelet that only forwards ports, which the API server requests from the node of a pod.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::control_plane::ControlPlane;
use super::pki::Authority;
use super::unique;

/// The protocol of websockets: a byte for the channel before each message.
const PROTOCOL: &str = "v4.channel.k8s.io";

/// A node whose kubelet connects every forwarded port to this machine; stopped when dropped.
pub(crate) struct Kubelet<'a> {
    plane: &'a ControlPlane,
    node: String,
    _runtime: tokio::runtime::Runtime,
}

impl<'a> Kubelet<'a> {
    /// Starts it and registers its node.
    pub(crate) fn start(plane: &'a ControlPlane) -> Result<Self> {
        Self::start_with(plane, &[])
    }

    /// As [`start`](Self::start); each of these ports of a pod is another one of this machine.
    pub(crate) fn start_with(plane: &'a ControlPlane, ports: &[(u16, u16)]) -> Result<Self> {
        let ports: Arc<BTreeMap<u16, u16>> = Arc::new(ports.iter().copied().collect());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let port = listener.local_addr()?.port();
        let acceptor = acceptor()?;
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, ports) = (acceptor.clone(), Arc::clone(&ports));
                tokio::spawn(async move {
                    // The other side says what went wrong.
                    let _ = forward(acceptor, stream, &ports).await;
                });
            }
        });
        let node = unique("node");
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
        plane.kubectl_with_input(&["apply", "--filename", "-"], &object.to_string())?;
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }});
        let status = status.to_string();
        let patch = [
            "patch",
            "node",
            &node,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ];
        plane.kubectl(&patch)?;
        Ok(Self {
            plane,
            node,
            _runtime: runtime,
        })
    }

    /// Creates a pod on the node.
    pub(crate) fn run_pod(&self, namespace: &str, name: &str) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": self.node,
                "containers": [{"name": "lagwise", "image": "lagwise"}],
            },
        });
        self.plane.apply(namespace, &pod.to_string())
    }
}

impl Drop for Kubelet<'_> {
    fn drop(&mut self) {
        let _ = self
            .plane
            .kubectl(&["delete", "node", &self.node, "--wait=false"]);
    }
}

/// By default the API server does not check the certificates of kubelets.
fn acceptor() -> Result<TlsAcceptor> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let identity = Authority::new("kubelet")?.server(&["127.0.0.1"])?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(
                identity.certificate.as_bytes(),
            )?],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
        )?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn forward(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    ports: &BTreeMap<u16, u16>,
) -> Result<()> {
    let stream = acceptor.accept(stream).await?;
    let mut port = None;
    // The type is the library's.
    #[allow(clippy::result_large_err)]
    let choose = |request: &Request, mut response: Response| {
        let query = request.uri().query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        let named = |(key, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
            let is_port = key == "port" || key == "ports";
            is_port.then(|| value.parse::<u16>().ok()).flatten()
        };
        port = pairs.into_iter().find_map(named);
        let protocol = HeaderValue::from_static(PROTOCOL);
        response
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, choose).await?;
    let port = port.context("no port")?;
    // Each of the two channels, data and errors, begins with its port.
    for channel in [0, 1] {
        let [low, high] = port.to_le_bytes();
        socket
            .send(Message::binary(vec![channel, low, high]))
            .await?;
    }
    let port = ports.get(&port).copied().unwrap_or(port);
    let mut target = match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(target) => target,
        Err(error) => {
            let frame = [&[1], error.to_string().as_bytes()].concat();
            socket.send(Message::binary(frame)).await?;
            return Ok(());
        }
    };
    let mut buffer = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(data))) if data.first() == Some(&0) => {
                    target.write_all(&data[1..]).await?;
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                Some(Ok(_)) => {}
            },
            read = target.read(&mut buffer) => {
                let read = read?;
                if read == 0 {
                    // Sent data is read before the connection ends.
                    let _ = tokio::time::timeout(Duration::from_secs(1), socket.close(None)).await;
                    return Ok(());
                }
                socket.send(Message::binary([&[0], &buffer[..read]].concat())).await?;
            }
        }
    }
}
