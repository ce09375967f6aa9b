//! The self-signed certificates that all replicas share: created, renewed and replaced while clients send requests,
//! restored if they are damaged or deleted, and trusted by the API server at any time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use lagwise::certificates::{CertificateAuthority, CertificateSet, SecretData};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::BASE;
use crate::daemon::{Daemon, Options};
use crate::testbed::Testbed;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::kubernetes::EXTERNAL_METRICS_API;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SECRET: &str = "lagwise-tls";
const SERVICE: &str = "lagwise";
const READERS: usize = 50;

/// The rights that the chart gives, besides those of [`ControlPlane::daemon_kubeconfig`].
fn allow(plane: &ControlPlane, namespace: &str) -> Result<()> {
    let name = format!("certificates-{namespace}");
    let subjects = json!([{"kind": "ServiceAccount", "name": "lagwise", "namespace": namespace}]);
    let rights = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name},
            "rules": [
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
                {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
                {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET], "verbs": ["get", "patch"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": subjects,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
            "rules": [{
                "apiGroups": ["apiregistration.k8s.io"],
                "resources": ["apiservices"],
                "resourceNames": [EXTERNAL_METRICS_API],
                "verbs": ["get", "patch"],
            }],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": subjects,
        },
    ]});
    plane.apply(namespace, &rights.to_string())
}

struct Shared<'a> {
    plane: &'a ControlPlane,
    namespace: String,
}

impl Shared<'_> {
    fn secret(&self) -> Result<SecretData> {
        let secret = self.plane.get("secret", SECRET, Some(&self.namespace))?;
        let data: BTreeMap<String, ByteString> = serde_json::from_value(secret["data"].clone())?;
        let text = |(name, bytes): (String, ByteString)| Ok((name, String::from_utf8(bytes.0)?));
        data.into_iter().map(text).collect()
    }

    /// Changes some keys of the Secret.
    fn put(&self, data: &[(&str, &str)]) -> Result<()> {
        let text: serde_json::Map<_, _> = data
            .iter()
            .map(|(name, text)| ((*name).to_owned(), json!(text)))
            .collect();
        self.patch(
            &["secret", SECRET, "-n", &self.namespace],
            &json!({"stringData": text}),
        )
    }

    fn patch(&self, what: &[&str], change: &Value) -> Result<()> {
        let change = change.to_string();
        let mut args = vec!["patch"];
        args.extend(what);
        args.extend(["--type=merge", "-p", &change]);
        self.plane.kubectl(&args).map(drop)
    }

    /// The CA bundle of the APIService.
    fn bundle(&self) -> Result<String> {
        let service = self.plane.get("apiservice", EXTERNAL_METRICS_API, None)?;
        let bundle: Option<ByteString> =
            serde_json::from_value(service["spec"]["caBundle"].clone())?;
        Ok(String::from_utf8(bundle.unwrap_or_default().0)?)
    }

    fn set_bundle(&self, bundle: &str) -> Result<()> {
        let bundle = ByteString(bundle.as_bytes().to_vec());
        self.patch(
            &["apiservice", EXTERNAL_METRICS_API],
            &json!({"spec": {"caBundle": bundle}}),
        )
    }

    fn wait_until_published(
        &self,
        what: &str,
        fits: impl Fn(&SecretData) -> bool,
    ) -> Result<SecretData> {
        poll_until(WAIT_TIMEOUT, what, || {
            let (secret, bundle) = (self.secret()?, self.bundle()?);
            ensure!(fits(&secret), "not in the Secret");
            ensure!(secret["ca.crt"] == bundle, "not in the APIService");
            Ok(secret)
        })
    }

    fn names(&self) -> Vec<String> {
        let host = format!("{SERVICE}.{}.svc", self.namespace);
        vec![host, "localhost".to_owned(), "127.0.0.1".to_owned()]
    }
}

/// Two daemons with one Secret, and 50 readers that connect to them directly and through the API server.
pub(super) fn is_renewed_under_readers(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let shared = Shared {
        plane,
        namespace: plane.namespace("certificates")?,
    };
    let kubeconfig = plane.daemon_kubeconfig(&shared.namespace)?;
    allow(plane, &shared.namespace)?;
    let first = start(testbed, &kubeconfig)?;
    let api = plane.register_api(&shared.namespace, SERVICE, first.api_port, "")?;
    // Only the daemon has written a bundle to the APIService.
    api.wait_available(WAIT_TIMEOUT)?;
    let second = start(testbed, &kubeconfig)?;
    let made = shared.wait_until_published("the first certificate", |_| true)?;
    for daemon in [&first, &second] {
        poll_until(WAIT_TIMEOUT, "both to serve with the same", || {
            ensure!(ends(daemon)? == ends(&first)?, "another certificate");
            ensure!(serves(daemon, &made, &shared)?, "not with the Secret's");
            Ok(())
        })?;
    }

    let (bundle_in, bundle) = watch::channel(shared.bundle()?);
    let stop = Arc::new(AtomicBool::new(false));
    let (reading, answers) = read_on_all_ways(&first, &second, plane, bundle, &stop)?;
    let followed = follow_bundle(&shared, bundle_in, &stop, || {
        let wait_for_more_answers = || {
            let reached = answers.load(Ordering::Relaxed) + 2 * READERS as u64;
            poll_until(WAIT_TIMEOUT, "more answers", || {
                ensure!(answers.load(Ordering::Relaxed) >= reached, "not yet");
                Ok(())
            })
        };
        wait_for_more_answers()?;
        // A certificate that was made long ago: renewed, by the same authority.
        let now = SystemTime::now();
        let authority = CertificateAuthority::from_pem(&made["ca.crt"], &made["ca.key"])
            .context("no authority")?;
        let old = authority.sign(&shared.names(), now - DAY * 80)?;
        shared.put(&[("tls.crt", &old.certificate_pem), ("tls.key", &old.key_pem)])?;
        let renewed = shared
            .wait_until_published("a certificate that is due to be renewed", |secret| {
                secret["tls.crt"] != old.certificate_pem
            })?;
        ensure!(renewed["ca.key"] == made["ca.key"], "another authority");
        wait_for_more_answers()?;

        // An authority that was made long ago: another joins it, and then signs.
        let aged = aged(&made["ca.key"], now)?;
        shared.put(&[("ca.crt", &aged)])?;
        let joined = shared.wait_until_published("another authority in the bundle", |secret| {
            secret["ca.crt"].ends_with(&aged) && secret["ca.crt"] != aged
        })?;
        ensure!(
            joined["tls.crt"] == renewed["tls.crt"],
            "the new authority signs at once"
        );
        let signed = shared.wait_until_published("the new authority to sign", |secret| {
            secret["tls.crt"] != renewed["tls.crt"]
        })?;
        ensure!(
            signed["ca.crt"] == joined["ca.crt"],
            "the old authority has left the bundle"
        );
        wait_for_more_answers()?;

        // A damaged Secret is restored, a deleted one created again.
        shared.put(&[("tls.crt", "-----BEGIN CERTIFICATE-----\nMIIB")])?;
        shared.wait_until_published("the Secret to be repaired", |secret| *secret == signed)?;
        plane.kubectl(&["delete", "secret", SECRET, "-n", &shared.namespace])?;
        shared.wait_until_published("the Secret to be made again", |secret| {
            secret["ca.key"] != signed["ca.key"] && secret["tls.crt"] != signed["tls.crt"]
        })?;
        wait_for_more_answers()
    });
    stop.store(true, Ordering::Relaxed);
    let read = reading
        .join()
        .map_err(|_| anyhow::anyhow!("the readers panicked"))?;
    followed?;
    println!("{} answers to {READERS} readers, none failed", read?);

    // Another client overwrites the bundle.
    shared.set_bundle(&aged(
        &KeyPair::generate()?.serialize_pem(),
        SystemTime::now(),
    )?)?;
    shared.wait_until_published("the bundle to be corrected", |_| true)?;
    api.wait_available(WAIT_TIMEOUT)?;
    theirs_is_left_alone(&shared, &first)?;
    another_takes_over(&shared, first, &second)?;
    api.wait_available(WAIT_TIMEOUT)
}

fn start(testbed: &Testbed, kubeconfig: &Path) -> Result<Daemon> {
    let options = Options {
        leader: json!({"lease": "lagwise", "duration": "6s"}),
        ..Options::main(&format!("127.0.0.1:{}", free_port()?))
    };
    let external = json!({"secret": SECRET, "service": SERVICE});
    Daemon::start(testbed, &options, external, json!({}), Some(kubeconfig))
}

fn ends(daemon: &Daemon) -> Result<String> {
    const ENDS: &str = "lagwise_api_certificate_expiry_timestamp_seconds ";
    let metrics = daemon.metrics()?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(ENDS));
    Ok(line.context("no end of the certificate")?.to_owned())
}

/// Whether the daemon serves the certificate in the Secret.
fn serves(daemon: &Daemon, secret: &SecretData, shared: &Shared<'_>) -> Result<bool> {
    let (set, reason) = CertificateSet::read(secret, &shared.names()[0], SystemTime::now());
    ensure!(reason.is_none(), "{reason:?}");
    let (_, _, validity) = set.server_certificate().context("nothing to serve with")?;
    Ok(ends(daemon)? == validity.ends_at().to_string())
}

/// A CA certificate of lagwise with this key, created eight years ago.
fn aged(key: &str, now: SystemTime) -> Result<String> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "lagwise CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.not_before = (now - DAY * 365 * 8).into();
    params.not_after = (now + DAY * 365 * 2).into();
    Ok(params.self_signed(&KeyPair::from_pem(key)?)?.pem())
}

type Reading = std::thread::JoinHandle<Result<u64>>;

/// A fifth through the API server, the others at the daemons themselves, half of them on a new connection each time:
/// these trust the bundle that the API server has at that time.
fn read_on_all_ways(
    first: &Daemon,
    second: &Daemon,
    plane: &ControlPlane,
    bundle: watch::Receiver<String>,
    stop: &Arc<AtomicBool>,
) -> Result<(Reading, Arc<AtomicU64>)> {
    let master = plane.pki.authority.client("root", Some("system:masters"))?;
    let identity = format!("{}{}", master.certificate, master.key);
    let api_server = plane.pki.authority.pem.clone();
    let direct = |daemon: &Daemon| daemon.url(BASE).replace("127.0.0.1", "localhost");
    let urls = [
        format!("{}{BASE}", plane.server),
        direct(first),
        direct(second),
        direct(first),
        direct(second),
    ];
    let answers = Arc::new(AtomicU64::new(0));
    let (counted, stop) = (Arc::clone(&answers), Arc::clone(stop));
    let runtime = tokio::runtime::Runtime::new()?;
    let reading = std::thread::spawn(move || {
        runtime.block_on(async {
            let mut readers = tokio::task::JoinSet::new();
            for reader in 0..READERS {
                let url = urls[reader % urls.len()].clone();
                let is_direct = reader % urls.len() > 0;
                let (stop, counted) = (Arc::clone(&stop), Arc::clone(&counted));
                let (bundle, identity) = (bundle.clone(), identity.clone());
                let api_server = api_server.clone();
                readers.spawn(async move {
                    let client = || {
                        let trusted = match is_direct {
                            true => bundle.borrow().clone(),
                            false => api_server.clone(),
                        };
                        let roots = reqwest::Certificate::from_pem_bundle(trusted.as_bytes())?;
                        reqwest::Client::builder()
                            .tls_certs_only(roots)
                            .identity(reqwest::Identity::from_pem(identity.as_bytes())?)
                            .timeout(Duration::from_secs(60))
                            .build()
                    };
                    let mut one = client()?;
                    while !stop.load(Ordering::Relaxed) {
                        if reader % 2 == 0 {
                            one = client()?;
                        }
                        let answer = one.get(&url).send().await;
                        let answer =
                            answer.with_context(|| format!("a request to {url} failed"))?;
                        let code = answer.status();
                        let body = answer.text().await.context("an answer broke off")?;
                        ensure!(code == 200, "{url}: {code}: {body}");
                        counted.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                    anyhow::Ok(())
                });
            }
            while let Some(reader) = readers.join_next().await {
                reader??;
            }
            Ok(counted.load(Ordering::Relaxed))
        })
    });
    Ok((reading, answers))
}

/// Runs an action while the readers take their CA bundle from the APIService, as the API server does.
fn follow_bundle(
    shared: &Shared<'_>,
    bundle: watch::Sender<String>,
    stop: &AtomicBool,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let following = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                bundle.send_replace(shared.bundle()?);
                std::thread::sleep(Duration::from_millis(300));
            }
            anyhow::Ok(())
        });
        let worked = work();
        stop.store(true, Ordering::Relaxed);
        let followed = following
            .join()
            .map_err(|_| anyhow::anyhow!("it panicked"))?;
        worked.and(followed)
    })
}

/// An APIService that names another Service is not changed.
fn theirs_is_left_alone(shared: &Shared<'_>, leader: &Daemon) -> Result<()> {
    let ours = shared.bundle()?;
    let change = json!({"spec": {"service": {"name": "adapter"}, "caBundle": null}});
    shared.patch(&["apiservice", EXTERNAL_METRICS_API], &change)?;
    poll_until(
        WAIT_TIMEOUT,
        "the leader to say that it is another's",
        || {
            let log = leader.process.log();
            ensure!(
                log.contains("the APIService belongs to another Service"),
                "it says nothing"
            );
            Ok(())
        },
    )?;
    ensure!(shared.bundle()?.is_empty(), "it was given our bundle");
    poll_until(WAIT_TIMEOUT, "a finding about the slot", || {
        let series = "lagwise_findings_total{kind=\"slot_lost\"} 1\n";
        ensure!(leader.metrics()?.contains(series), "there is none");
        Ok(())
    })?;
    let change = json!({"spec": {"service": {"name": SERVICE}}});
    shared.patch(&["apiservice", EXTERNAL_METRICS_API], &change)?;
    let bundle = poll_until(WAIT_TIMEOUT, "the bundle to be set again", || {
        let bundle = shared.bundle()?;
        ensure!(!bundle.is_empty(), "it is not");
        Ok(bundle)
    })?;
    ensure!(bundle == ours, "another bundle");
    Ok(())
}

/// The second daemon continues with the same certificates after the first has stopped.
fn another_takes_over(shared: &Shared<'_>, mut first: Daemon, second: &Daemon) -> Result<()> {
    let before = shared.secret()?;
    first.process.stop(Duration::from_secs(20))?;
    let change = json!({"spec": {"service": {"port": second.api_port}, "caBundle": null}});
    let service = json!({"spec": {"ports": [{"port": second.api_port}]}});
    shared.patch(&["service", SERVICE, "-n", &shared.namespace], &service)?;
    shared.patch(&["apiservice", EXTERNAL_METRICS_API], &change)?;
    shared.wait_until_published("the second to set the bundle", |secret| *secret == before)?;
    Ok(())
}
