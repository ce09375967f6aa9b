//! Operations of tests on a control plane: namespaces, objects, the aggregated API, identities.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::api_client::collection;
use super::control_plane::{ControlPlane, write_kubeconfig};
use super::poll::poll_until;
use super::unique;

/// The one APIService that an external metrics server is registered under.
pub(crate) const EXTERNAL_METRICS_API: &str = "v1beta1.external.metrics.k8s.io";

/// Certificate files of a test's server for the name `<service>.<namespace>.svc`.
pub(crate) struct ServingCertificate {
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
    /// The certificate of the authority that signed it (PEM).
    pub(crate) ca_pem: String,
}

/// Registration of the external metrics API for a server on this machine. It ends when this is dropped, because no
/// namespace can be deleted while an APIService is unavailable.
pub(crate) struct RegisteredApi<'a> {
    plane: &'a ControlPlane,
}

impl RegisteredApi<'_> {
    /// The status ("True", "False") and the message of the APIService's condition Available.
    pub(crate) fn available(&self) -> Result<(String, String)> {
        let service = self.plane.get("apiservice", EXTERNAL_METRICS_API, None)?;
        let condition = condition(&service, "Available").context("no condition Available yet")?;
        let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("message")))
    }

    /// Waits until the API server reports the API as Available.
    pub(crate) fn wait_available(&self, timeout: Duration) -> Result<()> {
        poll_until(timeout, "the APIService to be Available", || {
            let (status, message) = self.available()?;
            ensure!(status == "True", "{status}: {message}");
            Ok(())
        })
    }
}

impl Drop for RegisteredApi<'_> {
    fn drop(&mut self) {
        // It may have been deleted already.
        let _ = self.plane.delete("apiservice", EXTERNAL_METRICS_API);
    }
}

/// The APIService of the external metrics API, served by this Service.
pub(crate) fn external_metrics_api(namespace: &str, service: &str, port: u16) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": EXTERNAL_METRICS_API},
        "spec": {
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"namespace": namespace, "name": service, "port": port},
        },
    })
}

/// A client for the user of that file.
pub(super) async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    // A test wants the error itself.
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}

/// The condition of that type in an object's status.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

impl ControlPlane {
    /// Creates a namespace that no other test of this run has.
    pub(crate) fn namespace(&self, purpose: &str) -> Result<String> {
        let name = unique(purpose);
        self.create(
            "",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )?;
        let namespaces = self.namespaces.lock();
        namespaces
            .unwrap_or_else(PoisonError::into_inner)
            .push(name.clone());
        Ok(name)
    }

    /// Deletes the HPAs in all namespaces that tests have created.
    pub(super) fn remove_hpas(&self) -> Result<()> {
        let mut namespaces = self
            .namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for namespace in namespaces.drain(..) {
            let hpas = collection("hpa", Some(&namespace)).context("no path of HPAs")?;
            // A connection from before a restart of the API server fails once.
            poll_until(Duration::from_secs(10), "the HPAs to be deleted", || {
                self.api.delete(&hpas)
            })?;
        }
        Ok(())
    }

    /// Applies the object, in this namespace unless it sets one or its kind has none.
    fn create(&self, namespace: &str, object: &Value) -> Result<()> {
        self.api.apply(namespace, object).map(drop)
    }

    /// Deletes an object that is in no namespace.
    fn delete(&self, kind: &str, name: &str) -> Result<()> {
        let path = collection(kind, None).with_context(|| format!("the path of a {kind}"))?;
        self.api.delete(&format!("{path}/{name}")).map(drop)
    }

    /// Runs kubectl as administrator, and returns its output.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_with_input(args, "")
    }

    /// Runs Helm as administrator, and returns its output.
    pub(crate) fn helm(&self, args: &[&str]) -> Result<String> {
        let kubeconfig = self.kubeconfig().to_string_lossy();
        let args = [&["--kubeconfig", &*kubeconfig][..], args].concat();
        self.artifacts.helm(&self.folder, &args)
    }

    /// Runs `kubectl edit` with this sed script as the editor.
    pub(crate) fn edit(&self, args: &[&str], script: &str) -> Result<String> {
        let editor = ("KUBE_EDITOR", format!("sed -i -e {script}"));
        self.run_kubectl(&[&["edit"], args].concat(), "", &[editor])
    }

    /// As [`Self::kubectl`], with a text for its standard input.
    pub(crate) fn kubectl_with_input(&self, args: &[&str], input: &str) -> Result<String> {
        self.run_kubectl(args, input, &[])
    }

    fn run_kubectl(
        &self,
        args: &[&str],
        input: &str,
        environment: &[(&str, String)],
    ) -> Result<String> {
        let mut child = Command::new(&self.artifacts.kubectl)
            // It is over before there is much garbage to collect.
            .env("GOGC", "off")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.folder.join("kubectl-cache"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("kubectl has no input")?
            .write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "kubectl {} failed: {}",
            args.join(" "),
            error.trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Gets the JSON response of the API server for a path, as `kubectl get --raw` does. Errors quote the response.
    pub(crate) fn get_raw(&self, path: &str) -> Result<Value> {
        self.api
            .get(path)
            .map_err(|error| anyhow::anyhow!("{error:#}"))
    }

    /// The events in a namespace.
    pub(crate) fn events(&self, namespace: &str) -> Result<Vec<Value>> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        let mut list = self.get_raw(&path)?;
        match list["items"].take() {
            Value::Array(events) => Ok(events),
            _ => bail!("no list of events: {list}"),
        }
    }

    /// One object as JSON.
    pub(crate) fn get(&self, kind: &str, name: &str, namespace: Option<&str>) -> Result<Value> {
        if let Some(read) = self.api.read(kind, name, namespace) {
            return read;
        }
        let mut args = vec!["get", kind, name, "--output=json"];
        if let Some(namespace) = namespace {
            args.extend(["--namespace", namespace]);
        }
        Ok(serde_json::from_str(&self.kubectl(&args)?)?)
    }

    /// `kubectl apply` of YAML or JSON documents, in this namespace unless they name their own.
    pub(crate) fn apply(&self, namespace: &str, documents: &str) -> Result<()> {
        self.kubectl_with_input(
            &["apply", "--namespace", namespace, "--filename", "-"],
            documents,
        )
        .map(drop)
    }

    /// A client for the Rust side, as administrator.
    pub(crate) async fn client(&self) -> Result<kube::Client> {
        client(self.kubeconfig()).await
    }

    /// Makes a certificate for a server that is reached as that Service, and on localhost.
    pub(crate) fn serving_certificate(
        &self,
        namespace: &str,
        service: &str,
    ) -> Result<ServingCertificate> {
        let host = format!("{service}.{namespace}.svc");
        let identity = self
            .serving_authority
            .server(&[&host, "localhost", "127.0.0.1"])?;
        let (cert_file, key_file) =
            identity.write(&self.folder, &unique(&format!("{service}-{namespace}")))?;
        Ok(ServingCertificate {
            cert_file,
            key_file,
            ca_pem: self.serving_authority.pem.clone(),
        })
    }

    /// Registers the external metrics API for a server on 127.0.0.1 at `port`, through a Service of that name.
    /// A cluster has only one such API: drop the returned value before registering another.
    pub(crate) fn register_api(
        &self,
        namespace: &str,
        service: &str,
        port: u16,
        ca_pem: &str,
    ) -> Result<RegisteredApi<'_>> {
        let service_object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": service},
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        });
        let mut api_service = external_metrics_api(namespace, service, port);
        api_service["spec"]["caBundle"] =
            json!(k8s_openapi::ByteString(ca_pem.as_bytes().to_vec()));
        let registered = RegisteredApi { plane: self };
        self.create(namespace, &service_object)?;
        self.create(namespace, &api_service)?;
        Ok(registered)
    }

    /// The kubeconfig of a service account in that namespace with exactly the rights that lagwise needs: it may read
    /// HPAs, write events, read the ConfigMap with the CA of the API server's client certificate, and create reviews.
    pub(crate) fn daemon_kubeconfig(&self, namespace: &str) -> Result<PathBuf> {
        let name = format!("lagwise-{namespace}");
        let account =
            json!([{"kind": "ServiceAccount", "name": "lagwise", "namespace": namespace}]);
        let binding = |kind: &str, metadata: Value, role_kind: &str, role: &str| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": kind,
                "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
                "subjects": account,
            })
        };
        let rules = json!([
            {
                "apiGroups": ["autoscaling"],
                "resources": ["horizontalpodautoscalers"],
                "verbs": ["list", "watch"],
            },
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        ]);
        let objects = [
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "lagwise"}}),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": name},
                "rules": rules,
            }),
            binding(
                "ClusterRoleBinding",
                json!({"name": name}),
                "ClusterRole",
                &name,
            ),
            binding(
                "ClusterRoleBinding",
                json!({"name": format!("{name}-auth-delegator")}),
                "ClusterRole",
                "system:auth-delegator",
            ),
            binding(
                "RoleBinding",
                json!({"name": name, "namespace": "kube-system"}),
                "Role",
                "extension-apiserver-authentication-reader",
            ),
        ];
        for object in &objects {
            self.create(namespace, object)?;
        }
        self.account_kubeconfig(namespace, "lagwise")
    }

    /// The kubeconfig of an existing service account.
    pub(crate) fn account_kubeconfig(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let accounts = collection("serviceaccount", Some(namespace)).context("no path")?;
        let wanted = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 24 * 60 * 60},
        });
        let answer = self
            .api
            .post(&format!("{accounts}/{account}/token"), &wanted)?;
        let token = answer["status"]["token"].as_str().context("no token")?;
        write_kubeconfig(
            &self.folder,
            &format!("{account}-{namespace}"),
            &self.server,
            namespace,
            &format!("token: {token}"),
        )
    }
}
