//! A real Kubernetes control plane without nodes: etcd, the API server and the controllers that an HPA needs.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::api_client::ApiClient;
use super::artifacts::Artifacts;
use super::pki::{Authority, Identity};
use super::poll::poll_until;
use super::ports::free_port;
use super::process::Process;

/// How long one program may take to be up, on two busy cores.
const START: Duration = Duration::from_secs(90);
/// How long one may take to end in order.
const STOP: Duration = Duration::from_secs(20);

/// Fewer garbage collections, because there is enough memory.
const GOGC: (&str, &str) = ("GOGC", "400");

/// The controllers that a test of an HPA needs. Pods stay pending, which is enough for `status.replicas`. The job
/// controller fails jobs whose pods stay pending too long.
const CONTROLLERS: &str = "horizontal-pod-autoscaler-controller,deployment-controller,replicaset-controller,\
                           statefulset-controller,job-controller,namespace-controller,serviceaccount-controller,garbage-collector-controller";

/// Whether an HPA may go to zero replicas by itself (feature gate `HPAScaleToZero`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NativeZero {
    /// As on newer clusters.
    On,
    /// As on Kubernetes 1.36, where the gate is alpha.
    Off,
}

impl NativeZero {
    fn gate(self) -> &'static str {
        match self {
            NativeZero::On => "--feature-gates=HPAScaleToZero=true",
            NativeZero::Off => "--feature-gates=HPAScaleToZero=false",
        }
    }
}

/// A running control plane. Its methods for tests are in `kubernetes.rs`.
pub(crate) struct ControlPlane {
    pub(super) artifacts: Artifacts,
    pub(super) folder: PathBuf,
    /// URL of the API server.
    pub(crate) server: String,
    /// The CA of users' certificates, and the CA of the front proxy's.
    pub(crate) pki: Pki,
    /// The CA of the servers of the aggregated API in tests. The control plane does not trust it beforehand.
    pub(super) serving_authority: Authority,
    admin_kubeconfig: PathBuf,
    pub(super) api: ApiClient,
    /// Namespaces that tests have created.
    pub(super) namespaces: Mutex<Vec<String>>,
    // In the order in which they stop: an API server without its etcd hangs on its way out.
    controller_manager: Process,
    api_server: Mutex<Process>,
    etcd: Process,
    etcd_address: String,
    port: u16,
    zero: NativeZero,
}

impl ControlPlane {
    /// Starts all three in a new folder and waits until the API server is ready and the controllers are running.
    pub(crate) fn start(folder: &Path, artifacts: &Artifacts, zero: NativeZero) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        super::audit::write_policy(folder)?;
        let pki = Pki::create(folder)?;

        let (etcd, etcd_address) = start_etcd(folder, artifacts)?;
        let port = free_port()?;
        let server = format!("https://127.0.0.1:{port}");
        let admin_kubeconfig = pki.kubeconfig(&server, "admin", "admin", Some("system:masters"))?;
        let mut api_server = start_api_server(folder, artifacts, &etcd_address, port, zero)?;
        wait_until_ready(&mut api_server, artifacts, &admin_kubeconfig)?;
        let kubeconfig = pki.kubeconfig(
            &server,
            "controller-manager",
            "system:kube-controller-manager",
            None,
        )?;
        let controller_manager = start_controller_manager(folder, artifacts, &kubeconfig, zero)?;

        let mut plane = Self {
            artifacts: artifacts.clone(),
            folder: folder.to_owned(),
            server,
            pki,
            serving_authority: Authority::new("lagwise testbed serving CA")?,
            api: ApiClient::new(&admin_kubeconfig)?,
            namespaces: Mutex::default(),
            admin_kubeconfig,
            controller_manager,
            api_server: Mutex::new(api_server),
            etcd,
            etcd_address,
            port,
            zero,
        };
        plane.wait_for_controllers()?;
        Ok(plane)
    }

    /// The kubeconfig of an administrator.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// Log of the controllers so far.
    pub(crate) fn controllers_log(&self) -> String {
        self.controller_manager.log()
    }

    /// Ends all three in order.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.controller_manager.stop(STOP)?;
        self.api_server().stop(STOP)?;
        self.etcd.stop(STOP)?;
        Ok(())
    }

    /// Kills the API server alone, because a graceful shutdown waits for its watches. The caller must start it again
    /// before the test ends.
    pub(crate) fn kill_api_server(&self) {
        self.api_server().kill();
    }

    /// Starts the API server on the same port with the same data, if it is not running.
    pub(crate) fn start_api_server(&self) -> Result<()> {
        let mut api_server = self.api_server();
        if api_server.exited()?.is_some() {
            let (folder, etcd) = (&self.folder, &self.etcd_address);
            *api_server = start_api_server(folder, &self.artifacts, etcd, self.port, self.zero)?;
        } else if self.api.get("/version").is_ok() {
            return Ok(());
        }
        wait_until_ready(&mut api_server, &self.artifacts, &self.admin_kubeconfig)
    }

    fn api_server(&self) -> MutexGuard<'_, Process> {
        self.api_server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the controllers work: the service account controller creates an account in every namespace, so it is
    /// enough that `default` has one.
    fn wait_for_controllers(&mut self) -> Result<()> {
        poll_until(START, "the controllers to work", || {
            self.controller_manager.expect_running()?;
            self.get("serviceaccount", "default", Some("default"))
                .map(drop)
        })
    }
}

fn wait_until_ready(
    api_server: &mut Process,
    artifacts: &Artifacts,
    kubeconfig: &Path,
) -> Result<()> {
    poll_until(START, "the API server to be ready", || {
        api_server.expect_running()?;
        let output = std::process::Command::new(&artifacts.kubectl)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["get", "--raw", "/readyz"])
            .output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    })
}

fn start_etcd(folder: &Path, artifacts: &Artifacts) -> Result<(Process, String)> {
    let client = format!("http://127.0.0.1:{}", free_port()?);
    let peer = format!("http://127.0.0.1:{}", free_port()?);
    let mut command = std::process::Command::new(&artifacts.etcd);
    command
        .arg(format!("--data-dir={}", folder.join("etcd").display()))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=default={peer}"))
        // The data is thrown away after the run, so nothing needs to reach the disk.
        .args(["--unsafe-no-fsync", "--log-level=warn"])
        .env(GOGC.0, GOGC.1);
    Ok((Process::start("etcd", folder, &command)?, client))
}

fn start_api_server(
    folder: &Path,
    artifacts: &Artifacts,
    etcd: &str,
    port: u16,
    zero: NativeZero,
) -> Result<Process> {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut command = std::process::Command::new(&artifacts.kube_apiserver);
    command
        .args([
            format!("--etcd-servers={etcd}"),
            format!("--secure-port={port}"),
        ])
        .args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
        ])
        .args([
            format!("--cert-dir={}", folder.display()),
            format!("--client-ca-file={}", file("ca.crt")),
        ])
        .arg(format!("--tls-cert-file={}", file("api-server.crt")))
        .arg(format!("--tls-private-key-file={}", file("api-server.key")))
        .args([
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
        ])
        // Without kubelets nothing would ever mount the tokens that this plugin adds to pods.
        .arg("--disable-admission-plugins=ServiceAccount")
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(format!(
            "--service-account-key-file={}",
            file("service-accounts.pub")
        ))
        .arg(format!(
            "--service-account-signing-key-file={}",
            file("service-accounts.key")
        ))
        // The front proxy, which shows an aggregated API that a request comes through the API server, and its user.
        .arg(format!(
            "--requestheader-client-ca-file={}",
            file("front-proxy-ca.crt")
        ))
        .arg("--requestheader-allowed-names=front-proxy-client")
        .args([
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
        ])
        .arg("--requestheader-extra-headers-prefix=X-Remote-Extra-")
        .arg(format!(
            "--proxy-client-cert-file={}",
            file("front-proxy.crt")
        ))
        .arg(format!(
            "--proxy-client-key-file={}",
            file("front-proxy.key")
        ))
        .args(super::audit::flags(folder))
        .arg(zero.gate())
        .env(GOGC.0, GOGC.1);
    Process::start("kube-apiserver", folder, &command)
}

fn start_controller_manager(
    folder: &Path,
    artifacts: &Artifacts,
    kubeconfig: &Path,
    zero: NativeZero,
) -> Result<Process> {
    let kubeconfig = kubeconfig.display();
    let mut command = std::process::Command::new(&artifacts.kube_controller_manager);
    command
        .arg(format!("--kubeconfig={kubeconfig}"))
        .arg(format!("--controllers={CONTROLLERS}"))
        .arg(format!(
            "--root-ca-file={}",
            folder.join("ca.crt").display()
        ))
        .arg(format!(
            "--service-account-private-key-file={}",
            folder.join("service-accounts.key").display()
        ))
        .args([
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port=0",
        ])
        // Fifteen seconds by default; two keep the tests short and change nothing else.
        .arg("--horizontal-pod-autoscaler-sync-period=2s")
        // Only this log has the number that the metrics of an HPA propose.
        .arg("--vmodule=horizontal=4")
        .arg(zero.gate())
        .env(GOGC.0, GOGC.1);
    Process::start("kube-controller-manager", folder, &command)
}

/// The certificates that the control plane is started with, as files in its folder.
pub(crate) struct Pki {
    pub(crate) folder: PathBuf,
    /// CA of users' certificates.
    pub(crate) authority: Authority,
    /// CA of the front proxy's certificate.
    pub(crate) front_proxy: Authority,
}

impl Pki {
    fn create(folder: &Path) -> Result<Self> {
        let authority = Authority::new("lagwise testbed Kubernetes CA")?;
        std::fs::write(folder.join("ca.crt"), &authority.pem)?;
        authority
            .server(&[
                "kubernetes.default.svc",
                "kubernetes",
                "localhost",
                "127.0.0.1",
                "10.96.0.1",
            ])?
            .write(folder, "api-server")?;

        let front_proxy = Authority::new("lagwise testbed front proxy CA")?;
        std::fs::write(folder.join("front-proxy-ca.crt"), &front_proxy.pem)?;
        front_proxy
            .client("front-proxy-client", None)?
            .write(folder, "front-proxy")?;

        let accounts = rcgen::KeyPair::generate()?;
        std::fs::write(
            folder.join("service-accounts.key"),
            accounts.serialize_pem(),
        )?;
        std::fs::write(
            folder.join("service-accounts.pub"),
            accounts.public_key_pem(),
        )?;
        Ok(Self {
            folder: folder.to_owned(),
            authority,
            front_proxy,
        })
    }

    /// Writes `<name>.kubeconfig` for a user known by a client certificate.
    fn kubeconfig(
        &self,
        server: &str,
        name: &str,
        user: &str,
        group: Option<&str>,
    ) -> Result<PathBuf> {
        let identity: Identity = self.authority.client(user, group)?;
        let (certificate, key) = identity.write(&self.folder, name)?;
        let login = format!(
            "client-certificate: {}\n    client-key: {}",
            certificate.display(),
            key.display()
        );
        write_kubeconfig(&self.folder, name, server, "default", &login)
    }
}

/// Writes `<name>.kubeconfig`; `login` is the YAML of its user.
pub(super) fn write_kubeconfig(
    folder: &Path,
    name: &str,
    server: &str,
    namespace: &str,
    login: &str,
) -> Result<PathBuf> {
    let path = folder.join(format!("{name}.kubeconfig"));
    let authority = folder.join("ca.crt");
    let text = format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: testbed\n  cluster:\n    server: {server}\n    certificate-authority: {}\n\
         users:\n\
         - name: user\n  user:\n    {login}\n\
         contexts:\n\
         - name: testbed\n  context:\n    cluster: testbed\n    user: user\n    namespace: {namespace}\n\
         current-context: testbed\n",
        authority.display()
    );
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
