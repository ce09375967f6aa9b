//! A running `lagwise run`, as the scenarios use it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::testbed::Testbed;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::http::http_get;
use crate::testbed::kubernetes::RegisteredApi;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::process::Process;

/// `poll.max_staleness` of the tests. Short, because some tests wait until readings are stale.
pub(crate) const MAX_STALENESS: Duration = Duration::from_secs(8);

/// The Service that the API server reaches the daemon by.
const SERVICE: &str = "lagwise";

/// The daemon, killed when dropped.
pub(crate) struct Daemon {
    pub(crate) process: Process,
    pub(crate) api_port: u16,
    /// Port of `/metrics`.
    pub(crate) http_port: u16,
    pub(crate) probe_port: u16,
    /// Port of `/status` and `/explain`.
    pub(crate) admin_port: u16,
    client: reqwest::blocking::Client,
}

/// A cluster of the configuration: its name and properties.
pub(crate) fn cluster(name: &str, properties: &[(&str, &str)]) -> Value {
    let properties: serde_json::Map<_, _> = properties
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    json!({"name": name, "properties": properties})
}

/// Parts of the configuration that differ between scenarios.
pub(crate) struct Options {
    pub(crate) clusters: Vec<Value>,
    pub(crate) targets: Vec<Value>,
    pub(crate) clamp: bool,
    /// `cap.read_only`: whether the daemon writes nothing.
    pub(crate) read_only: bool,
    pub(crate) interval: &'static str,
    /// The client of all clusters.
    pub(crate) client: &'static str,
    /// The section `lag`: thresholds.
    pub(crate) lag: Value,
    /// The section `state`: where state is saved.
    pub(crate) state: Value,
    /// The section `leader`: leader election.
    pub(crate) leader: Value,
    /// Environment variables, besides those of the test process.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Groups and topics that each namespace may use.
    pub(crate) tenancy: Value,
    /// How much HPAs may make it read.
    pub(crate) budgets: Value,
    /// Settings of the log.
    pub(crate) log: Value,
    /// Who may scrape; the address is added.
    pub(crate) metrics: Value,
    /// Where the cap may be enforced.
    pub(crate) enforce: Value,
    /// Where workloads are scaled to zero, and where that is recorded.
    pub(crate) scale_to_zero: Value,
    /// The section `otlp`: the export to a collector.
    pub(crate) otlp: Value,
    /// The external scaler for KEDA.
    pub(crate) scaler: Value,
    /// The namespaces whose HPAs a registered daemon watches; empty = all, including those of other tests.
    pub(crate) namespaces: Vec<String>,
}

impl Options {
    /// One cluster `main` at that address.
    pub(crate) fn main(bootstrap: &str) -> Self {
        Self {
            clusters: vec![cluster("main", &[("bootstrap.servers", bootstrap)])],
            targets: Vec::new(),
            clamp: true,
            read_only: false,
            interval: "500ms",
            client: "auto",
            lag: json!({}),
            state: json!({}),
            leader: json!({}),
            environment: Vec::new(),
            tenancy: json!([]),
            budgets: json!({}),
            log: json!({}),
            metrics: json!({}),
            enforce: json!({}),
            scale_to_zero: json!({}),
            otlp: json!({}),
            scaler: json!({}),
            namespaces: Vec::new(),
        }
    }
}

impl Daemon {
    /// Starts it without Kubernetes and without authentication, on loopback.
    pub(crate) fn alone(testbed: &Testbed, options: &Options) -> Result<Self> {
        let external = json!({"auth": "none"});
        Self::start(testbed, options, external, json!({"enabled": false}), None)
    }

    /// Starts it with the rights of its service account only, and registers it as the external metrics API of the
    /// control plane.
    pub(crate) fn registered<'a>(
        testbed: &Testbed,
        plane: &'a ControlPlane,
        namespace: &str,
        options: &Options,
    ) -> Result<(Self, RegisteredApi<'a>)> {
        let kubeconfig = plane.daemon_kubeconfig(namespace)?;
        Self::registered_by(testbed, plane, namespace, options, &kubeconfig)
    }

    /// Like [`Self::registered`], with this kubeconfig.
    pub(crate) fn registered_by<'a>(
        testbed: &Testbed,
        plane: &'a ControlPlane,
        namespace: &str,
        options: &Options,
        kubeconfig: &Path,
    ) -> Result<(Self, RegisteredApi<'a>)> {
        let certificate = plane.serving_certificate(namespace, SERVICE)?;
        let external =
            json!({"tls": {"cert_file": certificate.cert_file, "key_file": certificate.key_file}});
        let watched = json!({"namespaces": options.namespaces});
        let daemon = Self::start(testbed, options, external, watched, Some(kubeconfig))?;
        let api = plane.register_api(namespace, SERVICE, daemon.api_port, &certificate.ca_pem)?;
        api.wait_available(Duration::from_secs(60))?;
        Ok((daemon, api))
    }

    /// Starts it with these sections `server.external_metrics` (but for its address) and `kubernetes`.
    pub(crate) fn start(
        testbed: &Testbed,
        options: &Options,
        mut external: Value,
        kubernetes: Value,
        kubeconfig: Option<&Path>,
    ) -> Result<Self> {
        let (api_port, http_port) = (free_port()?, free_port()?);
        let (probe_port, admin_port) = (free_port()?, free_port()?);
        external["listen"] = json!(format!("127.0.0.1:{api_port}"));
        let mut metrics = options.metrics.clone();
        metrics["listen"] = json!(format!("127.0.0.1:{http_port}"));
        let mut clusters = options.clusters.clone();
        for cluster in &mut clusters {
            cluster["client"] = json!(options.client);
        }
        let config = json!({
            "clusters": clusters,
            "targets": options.targets,
            "poll": {"interval": options.interval, "max_staleness": humantime::format_duration(MAX_STALENESS).to_string()},
            "cap": {"clamp": options.clamp, "read_only": options.read_only, "enforce": options.enforce},
            "kubernetes": kubernetes,
            "lag": options.lag,
            "state": options.state,
            "scale_to_zero": options.scale_to_zero,
            "leader": options.leader,
            "tenancy": options.tenancy,
            "budgets": options.budgets,
            "log": options.log,
            "otlp": options.otlp,
            "server": {
                "external_metrics": external,
                "metrics": metrics,
                "probes": {"listen": format!("127.0.0.1:{probe_port}")},
                "admin": {"listen": format!("127.0.0.1:{admin_port}")},
                "external_scaler": options.scaler,
            },
        });
        let folder: PathBuf = testbed.folder("daemon")?;
        let process = testbed.start_lagwise_in(
            &options.environment,
            &folder,
            &config.to_string(),
            kubeconfig,
        )?;
        // The certificate is checked where it matters: by the API server.
        let client = reqwest::blocking::Client::builder()
            .danger_accept_invalid_certs(true)
            .timeout(Duration::from_secs(20))
            .build()?;
        let mut daemon = Self {
            process,
            api_port,
            http_port,
            probe_port,
            admin_port,
            client,
        };
        poll_until(Duration::from_secs(30), "lagwise to be ready", || {
            daemon.process.expect_running()?;
            let (code, body) = http_get(probe_port, "/readyz")?;
            ensure!(code == 200, "{code}: {body}");
            Ok(())
        })?;
        Ok(daemon)
    }

    /// Sends a GET request directly to the API. Returns the status code and the body.
    pub(crate) fn get_json(&self, path: &str) -> Result<(u16, Value)> {
        let answer = self.client.get(self.url(path)).send()?;
        let code = answer.status().as_u16();
        let text = answer.text()?;
        Ok((
            code,
            serde_json::from_str(&text).with_context(|| format!("{code}: {text}"))?,
        ))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.api_port)
    }

    /// Gets `/metrics`.
    pub(crate) fn metrics(&self) -> Result<String> {
        let (code, body) = http_get(self.http_port, "/metrics")?;
        ensure!(code == 200, "{code}: {body}");
        Ok(body)
    }

    /// The row of an HPA in `/status`.
    pub(crate) fn status_of(&self, namespace: &str, hpa: &str) -> Result<Value> {
        let (code, body) = http_get(self.admin_port, "/status")?;
        ensure!(code == 200, "{code}: {body}");
        let all: Value = serde_json::from_str(&body)?;
        let mut hpas = all["hpas"].as_array().into_iter().flatten();
        let found = hpas.find(|row| row["namespace"] == namespace && row["hpa"] == hpa);
        found.cloned().with_context(|| format!("no {hpa}: {all}"))
    }

    /// Waits for this number of further sweeps, in which the daemon would have done whatever it might do.
    pub(crate) fn wait_for_sweeps(&self, count: u64) -> Result<()> {
        let until = self.sweeps()? + count;
        poll_until(Duration::from_secs(120), "more sweeps", || {
            let now = self.sweeps()?;
            ensure!(now >= until, "{now} of {until}");
            Ok(())
        })
    }

    /// Sweeps so far, whole or not.
    pub(crate) fn sweeps(&self) -> Result<u64> {
        self.sum_of("lagwise_polls_total{")
    }

    /// Number of partitions with unknown lag.
    pub(crate) fn faults(&self) -> Result<u64> {
        self.sum_of("lagwise_partition_faults{")
    }

    /// Sum of the counters whose name and labels begin like this.
    pub(crate) fn sum_of(&self, family: &str) -> Result<u64> {
        let metrics = self.metrics()?;
        let samples = metrics.lines().filter(|line| line.starts_with(family));
        let counts = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(counts.sum())
    }

    /// The value that the API serves, in messages.
    pub(crate) fn lag(&self, selector: &str) -> Result<u64> {
        let (code, body) = self.get_json(&metric_path("default", selector))?;
        ensure!(code == 200, "{code}: {body}");
        value_of(&body)
    }

    /// The message of the API's refusal, which must have this status code.
    pub(crate) fn refusal(&self, selector: &str, expected: u16) -> Result<String> {
        let (code, body) = self.get_json(&metric_path("default", selector))?;
        ensure!(
            code == expected && body["kind"] == "Status",
            "{code}: {body}"
        );
        Ok(body["message"]
            .as_str()
            .context("a Status without a message")?
            .to_owned())
    }
}

/// The path of `kafka_lag` for a selector, encoded as the HPA controller does.
pub(crate) fn metric_path(namespace: &str, selector: &str) -> String {
    let selector: String = form_urlencoded::byte_serialize(selector.as_bytes()).collect();
    format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/kafka_lag?labelSelector={selector}"
    )
}

/// The value of the one item in an answer.
pub(crate) fn value_of(body: &Value) -> Result<u64> {
    let items = body["items"].as_array().context("no items")?;
    ensure!(items.len() == 1, "not one item: {body}");
    let value = items[0]["value"].as_str().context("no value")?;
    value.parse().with_context(|| format!("value {value:?}"))
}
