//! `lagwise page`: forwards a local port to the page of the leader, and opens it in a browser.

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};

use super::kube_args::KubeArgs;
use super::run::Signals;
use super::{error_text, print_error, timeout, write_stdout};
use crate::config::AdminConfig;
use crate::k8s::client::Client;
use crate::k8s::leader_pod::{LeaderPod, LeaderPodError, LeaseKey};
use crate::model::units::hpa_key::HpaKey;

/// Maximum number of concurrent connections: as many as the listener of the leader takes.
const MAX_CONNECTIONS: usize = 32;

/// How long the leader is not looked up again.
const LEADER_EXPIRES: Duration = Duration::from_secs(5);

/// How long a browser may take to send its request, if all that it gets is an error.
const REQUEST_EXPECTED: Duration = Duration::from_secs(2);

/// The arguments of `lagwise page`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lagwise page\n  \
    lagwise page shop/billing --no-open\n\n\
    Forwards a port of this machine to the leader, with your rights, until it is interrupted. You need the rights to get \
    the Lease and the APIService of external metrics, and to get and create pods/portforward. Everybody who may use this \
    machine can open the page meanwhile.")]
pub struct PageArgs {
    /// The HPA to open the page of
    #[arg(value_name = "NAMESPACE/HPA")]
    hpa: Option<HpaKey>,
    /// Port on this machine [default: one that is free]
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 0,
        hide_default_value = true
    )]
    port: u16,
    /// Print the address only; do not open a browser
    #[arg(long)]
    no_open: bool,
    /// The Lease that says which daemon leads [default: that of the registered external metrics API]
    #[arg(long, value_name = "NAMESPACE/LEASE")]
    lease: Option<LeaseKey>,
    /// Port of the leader's admin endpoints
    #[arg(long, value_name = "PORT", default_value_t = AdminConfig::default().listen.port())]
    admin_port: u16,
    #[command(flatten)]
    kube: KubeArgs,
    /// Timeout of Kubernetes
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    timeout: Duration,
}

/// Runs `lagwise page` until it is interrupted.
///
/// # Errors
/// A leader that cannot be found or reached, or a port in use.
pub async fn run(args: PageArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let forward = Arc::new(PortForward {
        client: args.kube.connect().await?,
        lease: args.lease.clone(),
        port: args.admin_port,
        timeout: args.timeout,
        leader: Mutex::new(None),
    });
    // A missing right is reported before anything is opened.
    let pod = forward.leader().await?;
    pod.connect(&forward.client, forward.port, forward.timeout)
        .await?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; choose another --port"))?;
    let path = args
        .hpa
        .map_or_else(String::new, |hpa| format!("hpas/{hpa}"));
    let url = format!("http://{}/{path}", listener.local_addr()?);
    write_stdout(format!("{url}\n").as_bytes())?;
    print_error(&format!(
        "forwarding to port {} of pod {}/{}; Ctrl-C ends it",
        args.admin_port, pod.namespace, pod.name
    ));
    if !args.no_open && std::io::stdout().is_terminal() {
        open_browser(&url);
    }
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = signals.next() => return Ok(ExitCode::SUCCESS),
        };
        let (stream, _) = accepted.context("cannot accept connections")?;
        let place = Arc::clone(&places).acquire_owned().await?;
        let forward = Arc::clone(&forward);
        tokio::spawn(async move {
            forward.serve(stream).await;
            drop(place);
        });
    }
}

/// Forwards connections to the daemon that is the leader at the time.
struct PortForward {
    client: Client,
    lease: Option<LeaseKey>,
    port: u16,
    timeout: Duration,
    /// The leader, and when it was looked up.
    leader: Mutex<Option<(LeaderPod, Instant)>>,
}

impl PortForward {
    async fn leader(&self) -> Result<LeaderPod, LeaderPodError> {
        let mut known = self.leader.lock().await;
        if let Some((pod, found)) = &*known
            && found.elapsed() < LEADER_EXPIRES
        {
            return Ok(pod.clone());
        }
        *known = None;
        let pod = LeaderPod::find(&self.client, self.lease.as_ref(), self.timeout).await?;
        *known = Some((pod.clone(), Instant::now()));
        Ok(pod)
    }

    /// Forwards one connection until one side ends it.
    async fn serve(&self, mut local: TcpStream) {
        let connected = match self.leader().await {
            Ok(pod) => pod.connect(&self.client, self.port, self.timeout).await,
            Err(error) => Err(error),
        };
        match connected {
            // Browsers end connections in many ways, none of which is of interest.
            Ok(mut remote) => drop(copy_bidirectional(&mut local, &mut remote).await),
            Err(error) => {
                *self.leader.lock().await = None;
                let text = error_text(&error.into());
                // Closing a connection with an unread request resets it, and the browser may lose the response.
                let mut request = [0_u8; 4096];
                let _ = tokio::time::timeout(REQUEST_EXPECTED, local.read(&mut request)).await;
                let _ = local.write_all(bad_gateway(&text).as_bytes()).await;
            }
        }
    }
}

/// The response while the leader cannot be reached.
fn bad_gateway(problem: &str) -> String {
    let body = format!("lagwise page: {problem}\n");
    format!(
        "HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Opens a browser if there is a screen to show it on. Failing to is no error: the address is printed.
fn open_browser(url: &str) {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if is_set("DISPLAY") || is_set("WAYLAND_DISPLAY") {
        "xdg-open"
    } else {
        return;
    };
    let _ = Command::new(program)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        page: PageArgs,
    }

    #[test]
    fn parses_the_hpa() {
        let parsed = Wrapper::try_parse_from(["page", "shop/billing"]).unwrap();
        assert_eq!(parsed.page.hpa, Some(HpaKey::new("shop", "billing")));
        assert_eq!(parsed.page.port, 0);
        assert!(Wrapper::try_parse_from(["page", "billing"]).is_err());
    }

    #[test]
    fn an_error_is_a_response_of_its_length() {
        let response = bad_gateway("nobody leads");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert_eq!(body, "lagwise page: nobody leads\n");
    }
}
