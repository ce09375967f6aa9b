//! The daemon's certificate is replaced while clients send requests.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::BASE;
use crate::background::BackgroundTasks;
use crate::daemon::{Daemon, Options};
use crate::testbed::Testbed;
use crate::testbed::pki::{Authority, Identity};
use crate::testbed::poll::poll_until_async;
use crate::testbed::ports::free_port;

const READERS: usize = 50;

/// The metric that says when the certificate in use ends.
const ENDS: &str = "lagwise_api_certificate_expiry_timestamp_seconds ";

/// 50 readers, half with one connection each, half with a new connection for each request. No request fails while the
/// certificate is replaced three times, in the way in which the kubelet updates a mounted Secret.
pub(super) fn certificates_are_replaced_while_clients_connect(testbed: &Testbed) -> Result<()> {
    let authority = Authority::new("the daemon's authority")?;
    let folder = testbed.folder("tls")?;
    mount(&folder, &authority, 2100)?;
    let external = json!({
        "auth": "none",
        "tls": {"cert_file": folder.join("tls.crt"), "key_file": folder.join("tls.key")},
    });
    let options = Options::main(&format!("127.0.0.1:{}", free_port()?));
    let daemon = Daemon::start(testbed, &options, external, json!({"enabled": false}), None)?;
    tokio::runtime::Runtime::new()?.block_on(replace_under_readers(&daemon, &folder, &authority))
}

async fn replace_under_readers(
    daemon: &Daemon,
    folder: &Path,
    authority: &Authority,
) -> Result<()> {
    let root = reqwest::Certificate::from_pem(authority.pem.as_bytes())?;
    let url = daemon.url(BASE).replace("127.0.0.1", "localhost");
    let readers = BackgroundTasks::start(READERS, |reader, control| {
        let (root, url) = (root.clone(), url.clone());
        async move {
            let client = || {
                let builder = reqwest::Client::builder()
                    .tls_certs_only([root.clone()])
                    .timeout(Duration::from_secs(30));
                if reader % 4 < 2 {
                    builder.http1_only()
                } else {
                    builder
                }
                .build()
            };
            let mut one = client()?;
            while !control.is_stopped() {
                if reader % 2 == 0 {
                    one = client()?;
                }
                let answer = one.get(&url).send().await.context("a request failed")?;
                ensure!(answer.status() == 200, "{}", answer.status());
                answer.bytes().await.context("an answer broke off")?;
                control.count_round();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        }
    });
    let mut served = Vec::new();
    for year in [2101, 2102, 2103] {
        let before = ends(daemon)?;
        mount(folder, authority, year)?;
        poll_until_async(
            Duration::from_secs(60),
            "the new certificate to be served with",
            || async {
                ensure!(ends(daemon)? != before, "still {before}");
                Ok(())
            },
        )
        .await?;
        served.push(ends(daemon)?);
        // All clients have sent a few requests under it.
        let reached = readers.rounds() + 4 * READERS;
        poll_until_async(Duration::from_secs(60), "more answers", || async {
            ensure!(readers.rounds() >= reached, "not yet");
            Ok(())
        })
        .await?;
    }
    let answers = readers.stop().await?;
    println!("{answers} answers to {READERS} readers under {served:?}");
    Ok(())
}

fn ends(daemon: &Daemon) -> Result<String> {
    let metrics = daemon.metrics()?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(ENDS));
    Ok(line.context("no end of the certificate")?.to_owned())
}

/// A certificate that is valid until that year.
fn mount(folder: &Path, authority: &Authority, year: i32) -> Result<()> {
    let identity = authority.server_until(&["localhost", "127.0.0.1"], year)?;
    swap(folder, &year.to_string(), &identity, &authority.pem)
}

/// Replaces files atomically, as the kubelet does: the files are links into a folder, which is itself a link.
pub(super) fn swap(
    folder: &Path,
    version: &str,
    identity: &Identity,
    authority_pem: &str,
) -> Result<()> {
    let version = format!("..{version}");
    std::fs::create_dir(folder.join(&version))?;
    for (name, content) in [
        ("tls.crt", identity.certificate.as_str()),
        ("tls.key", &identity.key),
        ("ca.crt", authority_pem),
    ] {
        std::fs::write(folder.join(&version).join(name), content)?;
        if !folder.join(name).is_symlink() {
            std::os::unix::fs::symlink(Path::new("..data").join(name), folder.join(name))?;
        }
    }
    std::os::unix::fs::symlink(&version, folder.join("..tmp"))?;
    Ok(std::fs::rename(
        folder.join("..tmp"),
        folder.join("..data"),
    )?)
}
