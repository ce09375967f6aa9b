//! The testbed: real Kafka and a real Kubernetes control plane on loopback, for test binaries.
//!
//! [`Testbed`] starts each part when a test first asks for it and stops everything at the end; nothing it started
//! outlives the tests, however they end. Its programs come from the cache that `tests/testbed/build` fills.
//!
//! In reading order:
//!
//! - `artifacts` (paths of the programs), `process`, `ports`, `poll` (waiting), `pki`, `http`;
//! - `kafka` (a cluster of `broker`s), with operations in `topics`, `records` and `layout`; `secured` (a broker with
//!   logins and authorization) with `tokens`; `kdc` (Kerberos); `proxy` (a bad network);
//! - `control_plane` (etcd, API server, controllers), with operations in `kubernetes` and `api_client`; `kubelet`
//!   (forwards ports), `pods` (marks them as ready), `replicas` (records a number of an object), `audit` (records
//!   requests), `api_proxy` (an API server that is overloaded or broken);
//! - `adapter` (another external metrics server) and `keda` (KEDA's metrics server);
//! - `consumers`, and `applications` in Java.
#![allow(
    dead_code,
    reason = "each test binary uses its own part of the testbed"
)]

pub(crate) mod adapter;
mod api_client;
pub(crate) mod api_proxy;
pub(crate) mod applications;
pub(crate) mod artifacts;
pub(crate) mod audit;
pub(crate) mod broker;
#[allow(dead_code, reason = "only the end-to-end tests open pages")]
pub(crate) mod chromium;
pub(crate) mod consumers;
pub(crate) mod control_plane;
pub(crate) mod http;
pub(crate) mod kafka;
pub(crate) mod kdc;
pub(crate) mod keda;
pub(crate) mod kubelet;
pub(crate) mod kubernetes;
pub(crate) mod layout;
pub(crate) mod pki;
pub(crate) mod pods;
pub(crate) mod poll;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod records;
pub(crate) mod replicas;
pub(crate) mod secured;
pub(crate) mod tokens;
pub(crate) mod topics;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;

use artifacts::Artifacts;
use broker::Listener;
use control_plane::{ControlPlane, NativeZero};
use kafka::{KafkaCluster, KafkaOptions};
use process::Process;

/// Whether the long tests run as well: `tests/run --full`.
pub(crate) fn is_full_tier() -> bool {
    std::env::var("LAGWISE_TIER").is_ok_and(|tier| tier == "full")
}

/// Prefix of the name of a run's folder; the process ID follows.
const FOLDER: &str = "lagwise-e2e-";

/// Environment variable with the path of another build of lagwise to test, such as a release build.
pub(crate) const BINARY: &str = "LAGWISE_TEST_BINARY";

/// The parts that all tests of one binary share. Each starts when it is first used.
pub(crate) struct Testbed {
    folder: Mutex<Option<TempDir>>,
    path: PathBuf,
    artifacts: OnceLock<Result<Artifacts>>,
    kafka: OnceLock<Result<KafkaCluster>>,
    three_brokers: OnceLock<Result<KafkaCluster>>,
    secured: OnceLock<Result<KafkaCluster>>,
    preview: OnceLock<Result<KafkaCluster>>,
    newest: OnceLock<Result<KafkaCluster>>,
    control_plane: OnceLock<Result<ControlPlane>>,
    old_control_plane: OnceLock<Result<ControlPlane>>,
}

impl Testbed {
    /// An empty testbed with its folder for data and logs.
    pub(crate) fn new() -> Result<Self> {
        remove_leftovers();
        let folder = tempfile::Builder::new()
            .prefix(&format!("{FOLDER}{}-", std::process::id()))
            .tempdir()?;
        Ok(Self {
            path: folder.path().to_owned(),
            folder: Mutex::new(Some(folder)),
            artifacts: OnceLock::new(),
            kafka: OnceLock::new(),
            three_brokers: OnceLock::new(),
            secured: OnceLock::new(),
            preview: OnceLock::new(),
            newest: OnceLock::new(),
            control_plane: OnceLock::new(),
            old_control_plane: OnceLock::new(),
        })
    }

    /// The shared Kafka cluster: of one broker, or the one of three if it has been started already. A test that stops
    /// it starts it again before it ends.
    pub(crate) fn kafka(&self) -> Result<&KafkaCluster> {
        if let Some(Ok(kafka)) = self.three_brokers.get() {
            return Ok(kafka);
        }
        shared(&self.kafka, || {
            self.start_kafka("kafka", &KafkaOptions::default())
        })
    }

    /// The shared Kafka cluster of three brokers, for tests in which some brokers are healthy and others are not. It
    /// needs many times the CPU time of a single broker, even while it is not used.
    pub(crate) fn three_brokers(&self) -> Result<&KafkaCluster> {
        shared(&self.three_brokers, || {
            let options = KafkaOptions {
                brokers: 3,
                // For tests that start a proxy there. Without one, nothing listens on these addresses.
                listeners: vec![Listener {
                    name: "PROXIED",
                    protocol: "PLAINTEXT",
                    properties: Vec::new(),
                    proxied: true,
                }],
                ..KafkaOptions::default()
            };
            self.start_kafka("three", &options)
        })
    }

    /// The shared broker with every kind of login, and permissions (see [`secured`]).
    pub(crate) fn secured_kafka(&self) -> Result<&KafkaCluster> {
        shared(&self.secured, || {
            self.start_kafka("secured", &secured::options())
        })
    }

    /// The shared broker with share groups and streams groups, which its version has in preview.
    pub(crate) fn preview_kafka(&self) -> Result<&KafkaCluster> {
        shared(&self.preview, || {
            self.start_kafka("preview", &applications::options())
        })
    }

    /// The shared broker of Kafka 4.3, which reports the lag of share groups.
    pub(crate) fn newest_kafka(&self) -> Result<&KafkaCluster> {
        shared(&self.newest, || {
            self.start_kafka("newest", &applications::newest())
        })
    }

    /// Restarts the brokers of the shared Kafka clusters and the API server if the last test left them stopped, so that
    /// its failure does not make all later tests fail. Removes the HPAs of earlier tests, which would take CPU time of
    /// the controllers and of every later daemon.
    pub(crate) fn restore(&self) -> Result<()> {
        for plane in [&self.control_plane, &self.old_control_plane] {
            if let Some(Ok(plane)) = plane.get() {
                plane.start_api_server()?;
                plane.remove_hpas()?;
            }
        }
        for kafka in [&self.kafka, &self.three_brokers] {
            if let Some(Ok(kafka)) = kafka.get() {
                kafka.restore()?;
            }
        }
        Ok(())
    }

    /// A Kafka cluster for one test. It stops when dropped.
    pub(crate) fn start_kafka(&self, name: &str, options: &KafkaOptions) -> Result<KafkaCluster> {
        KafkaCluster::start(name, &self.path.join(name), self.artifacts()?, options)
    }

    /// The shared control plane.
    pub(crate) fn control_plane(&self) -> Result<&ControlPlane> {
        shared(&self.control_plane, || {
            let folder = self.path.join("control-plane");
            ControlPlane::start(&folder, self.artifacts()?, NativeZero::On)
        })
    }

    /// The shared control plane of Kubernetes 1.34.
    pub(crate) fn old_control_plane(&self) -> Result<&ControlPlane> {
        shared(&self.old_control_plane, || {
            let folder = self.path.join("old-control-plane");
            let artifacts = self.artifacts()?.with_kubernetes_1_34()?;
            ControlPlane::start(&folder, &artifacts, NativeZero::Off)
        })
    }

    /// A control plane for one test. It stops when dropped.
    pub(crate) fn start_control_plane(&self, zero: NativeZero) -> Result<ControlPlane> {
        let folder = self.path.join(unique("control-plane"));
        ControlPlane::start(&folder, self.artifacts()?, zero)
    }

    /// A new empty folder for one test's files and logs, removed with the testbed.
    pub(crate) fn folder(&self, purpose: &str) -> Result<PathBuf> {
        let folder = self.path.join(unique(purpose));
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A command for the `lagwise` binary with these arguments and without the machine's kubeconfig. Use it with
    /// `output()`, or with [`Process::start`] to run it in the background.
    pub(crate) fn lagwise(&self, args: &[&str]) -> Command {
        let built = env!("CARGO_BIN_EXE_lagwise").into();
        let mut command = Command::new(std::env::var_os(BINARY).unwrap_or(built));
        // An empty home directory, without a default kubeconfig.
        command
            .args(args)
            .env_remove("KUBECONFIG")
            .env("HOME", &self.path);
        command
    }

    /// Starts `lagwise run --config FILE` with this text as its config; logs go into `folder`.
    pub(crate) fn start_lagwise(
        &self,
        folder: &Path,
        config: &str,
        kubeconfig: Option<&Path>,
    ) -> Result<Process> {
        self.start_lagwise_in(&[], folder, config, kubeconfig)
    }

    /// Like [`Self::start_lagwise`], with these environment variables.
    pub(crate) fn start_lagwise_in(
        &self,
        environment: &[(&'static str, String)],
        folder: &Path,
        config: &str,
        kubeconfig: Option<&Path>,
    ) -> Result<Process> {
        let name = unique("lagwise");
        let file = folder.join(format!("{name}.yaml"));
        std::fs::write(&file, config)?;
        let mut command = self.lagwise(&["run", "--config", &file.to_string_lossy()]);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        if let Some(kubeconfig) = kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        Process::start(&name, folder, &command)
    }

    /// The last lines of all logs so far, for the report of a failure.
    pub(crate) fn log_tails(&self, lines: usize) -> String {
        let mut logs = Vec::new();
        collect_logs(&self.path, &mut logs);
        logs.sort();
        logs.iter()
            .map(|log| process::tail_of(log, lines))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Stops everything in order and removes all data.
    pub(crate) fn stop(mut self) -> Result<()> {
        let planes = [self.control_plane.take(), self.old_control_plane.take()];
        let stopped = planes
            .into_iter()
            .flatten()
            .flatten()
            .try_for_each(ControlPlane::stop);
        drop(self.kafka.take());
        drop(self.three_brokers.take());
        drop(self.secured.take());
        drop(self.preview.take());
        drop(self.newest.take());
        self.remove_folder();
        stopped
    }

    /// Kills all processes and removes all data, for a run that gets SIGINT or SIGTERM.
    pub(crate) fn abort(&self) {
        process::kill_all();
        self.remove_folder();
    }

    fn remove_folder(&self) {
        let folder = self
            .folder
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match folder {
            // Data and logs are kept until the next run, to examine a failure.
            Some(folder) if std::env::var_os("LAGWISE_KEEP_TESTBED").is_some() => {
                drop(folder.keep())
            }
            folder => drop(folder),
        }
    }

    /// Renders a chart for a release of this name, for which no cluster is needed.
    pub(crate) fn helm_template(&self, release: &str, args: &[&str]) -> Result<String> {
        let args = [&["template", release][..], args].concat();
        self.artifacts()?.helm(&self.folder("helm")?, &args)
    }

    /// Paths of the programs, or an error that says how to get them.
    pub(crate) fn artifacts(&self) -> Result<&Artifacts> {
        shared(&self.artifacts, Artifacts::find)
    }
}

/// Removes the folders of runs that were killed, so that their data do not fill the disk.
fn remove_leftovers() {
    for entry in std::fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(FOLDER)
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Creates the value at the first call. A failure is kept as well, so that a part that cannot start is tried only once.
fn shared<T>(cell: &OnceLock<Result<T>>, start: impl FnOnce() -> Result<T>) -> Result<&T> {
    cell.get_or_init(start)
        .as_ref()
        .map_err(|error| anyhow!("{error:#}"))
}

/// `<purpose>-<n>`: a name that nothing else in this run has, for topics, groups, namespaces and files.
pub(crate) fn unique(purpose: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    format!("{purpose}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Calls `then` on its own thread at the first SIGINT or SIGTERM.
pub(crate) fn on_stop_signal(then: impl FnOnce() + Send + 'static) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    std::thread::Builder::new()
        .name("stop signal".into())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            });
            then();
        })
        .context("starting the thread that waits for signals")?;
    Ok(())
}

fn collect_logs(folder: &Path, logs: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_logs(&path, logs);
        } else if path.extension().is_some_and(|extension| extension == "out") {
            logs.push(path);
        }
    }
}
