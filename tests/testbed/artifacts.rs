//! Where the programs of the testbed are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The programs that `tests/testbed/build` put into the cache.
#[derive(Clone, Debug)]
pub(crate) struct Artifacts {
    /// A folder of jars with Kafka's broker and tools.
    pub(crate) kafka_jars: PathBuf,
    /// The same for Kafka 4.3.
    pub(crate) kafka_4_3_jars: PathBuf,
    /// Class data sharing archive of `kafka_jars`, with which the JVM starts in half the time.
    pub(crate) kafka_classes: PathBuf,
    /// Initial metadata log of a broker of `kafka_jars`.
    pub(crate) kafka_bootstrap: PathBuf,
    /// The same for Kafka 2.8 and 3.9, if they have been built.
    pub(crate) old_kafka_jars: [Option<PathBuf>; 2],
    pub(crate) kube_apiserver: PathBuf,
    pub(crate) kube_controller_manager: PathBuf,
    pub(crate) kubectl: PathBuf,
    /// The folder with the API server and the controllers of Kubernetes 1.34, where they have been built.
    pub(crate) kubernetes_1_34: Option<PathBuf>,
    /// An OpenTelemetry collector, where it has been built.
    pub(crate) collector: Option<PathBuf>,
    /// The HPA controller under virtual time: see `tests/testbed/kubernetes/oracle`.
    pub(crate) hpa_oracle: PathBuf,
    pub(crate) etcd: PathBuf,
    pub(crate) helm: PathBuf,
    /// A gRPC client that shares no code with lagwise.
    pub(crate) grpcurl: PathBuf,
    pub(crate) promtool: PathBuf,
    pub(crate) prometheus: PathBuf,
    /// A folder with a key distribution centre, its tools and libraries.
    pub(crate) kerberos: PathBuf,
    /// Path of Chromium, if it is installed.
    pub(crate) chromium: Option<PathBuf>,
    /// The script of axe-core, where it has been brought.
    pub(crate) axe: Option<PathBuf>,
    pub(crate) java: PathBuf,
}

impl Artifacts {
    /// The same, with a control plane of Kubernetes 1.34.
    pub(crate) fn with_kubernetes_1_34(&self) -> Result<Self> {
        let programs = self.kubernetes_1_34.as_ref();
        let programs = programs.context(
            "Kubernetes 1.34 is not built; tests/testbed/build kubernetes_1_34 builds it",
        )?;
        Ok(Self {
            kube_apiserver: programs.join("kube-apiserver"),
            kube_controller_manager: programs.join("kube-controller-manager"),
            ..self.clone()
        })
    }

    /// Runs Helm with this home folder, and returns its output.
    pub(crate) fn helm(&self, home: &Path, args: &[&str]) -> Result<String> {
        let done = Command::new(&self.helm)
            .env("HOME", home)
            .env("GOGC", "off")
            .args(args)
            .output()
            .context("running helm")?;
        let errors = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "helm {}: {errors}", args.join(" "));
        Ok(String::from_utf8(done.stdout)?)
    }

    /// Gets the paths from the build script, which defines the layout of the cache.
    pub(crate) fn find() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/build");
        let output = Command::new("bash")
            .arg(&script)
            .arg("--paths")
            .output()
            .context("running bash")?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            bail!(
                "the testbed is not there; run tests/run, which builds it ({})",
                why.trim()
            );
        }
        let listed = String::from_utf8(output.stdout)?;
        let path = |name: &str| -> Result<PathBuf> {
            let found = listed
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            Ok(PathBuf::from(found.with_context(|| {
                format!("{} does not name {name}", script.display())
            })?))
        };
        let kubernetes = path("KUBERNETES_BIN")?;
        Ok(Self {
            kafka_jars: path("KAFKA_JARS")?,
            kafka_4_3_jars: path("KAFKA_4_3_JARS")?,
            kafka_classes: path("KAFKA_CLASSES")?,
            kafka_bootstrap: path("KAFKA_BOOTSTRAP")?,
            old_kafka_jars: [path("KAFKA_2_8_JARS").ok(), path("KAFKA_3_9_JARS").ok()],
            kube_apiserver: kubernetes.join("kube-apiserver"),
            kube_controller_manager: kubernetes.join("kube-controller-manager"),
            kubectl: kubernetes.join("kubectl"),
            kubernetes_1_34: path("KUBERNETES_1_34_BIN").ok(),
            collector: path("COLLECTOR").ok(),
            hpa_oracle: path("HPA_ORACLE")?,
            etcd: path("ETCD_BIN")?.join("etcd"),
            helm: path("HELM")?,
            grpcurl: path("GRPCURL")?,
            promtool: path("PROMTOOL")?,
            prometheus: path("PROMETHEUS")?,
            kerberos: path("KERBEROS")?,
            chromium: path("CHROMIUM").ok(),
            axe: path("AXE").ok(),
            java: std::env::var_os("JAVA_HOME")
                .map(|home| Path::new(&home).join("bin/java"))
                .filter(|java| java.exists())
                .unwrap_or_else(|| PathBuf::from("java")),
        })
    }
}
