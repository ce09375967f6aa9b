//! Clients of the Kubernetes API: from a kubeconfig as kubectl finds it, else from the pod's service account.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::Config;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use secrecy::ExposeSecret as _;
use tower::BoxError;
use tower::util::MapErrLayer;

use super::api_error::{ApiError, in_time};
use crate::authentication::Credential;
use crate::model::units::kubernetes_version::{InvalidKubernetesVersion, KubernetesVersion};

pub use kube::Client;
use kube::client::ClientBuilder;

/// Which cluster to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// The kubeconfig file; `None` = those that kubectl would use.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; `None` = its current one.
    pub context: Option<String>,
}

/// Why a client cannot be built. What to do depends on where the options come from, so the caller says it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A kubeconfig that cannot be used.
    #[error("cannot use the kubeconfig {files}: {source}")]
    Kubeconfig {
        /// The files that were read.
        files: String,
        /// Why.
        source: KubeconfigError,
    },
    /// There is neither a kubeconfig nor a pod's service account.
    #[error(
        "found no Kubernetes cluster: no kubeconfig ({tried}), and not in a pod of one: {source}"
    )]
    NotFound {
        /// Where a kubeconfig was looked for.
        tried: String,
        /// Why the service account cannot be used.
        source: InClusterError,
    },
    /// A context was named and there is no kubeconfig to find it in.
    #[error("found no kubeconfig with the context {context:?}: tried {tried}")]
    NoContext {
        context: String,
        /// Where a kubeconfig was looked for.
        tried: String,
    },
    /// A client cannot be built from the kubeconfig.
    #[error("cannot build a Kubernetes client: {0}")]
    Unusable(#[from] kube::Error),
}

/// How long the API server keeps a watch open, in seconds, before it has to be resumed.
pub(super) const WATCH_SECONDS: u32 = 120;

/// Read timeout of a connection. Longer than a watch, which the API server ends earlier. So after a longer silence the
/// connection is broken, even if the network did not report it.
const READ_TIMEOUT: Duration = Duration::from_secs(135);

/// Builds a client. The API server need not be reachable. Reads files, and runs the exec plugin of a kubeconfig that
/// has one.
///
/// # Errors
/// The configuration that was tried, and why it cannot be used.
pub async fn connect(options: &ClientOptions) -> Result<Client, ClientError> {
    let config = bounded(config(options).await?);
    let server = config.cluster_url.to_string();
    let builder = ClientBuilder::try_from(config)?;
    Ok(builder
        .with_layer(&MapErrLayer::new(move |error| name_server(&server, error)))
        .build())
}

/// Adds the API server's address to an error of the connection. kube's own errors are about something else, such as
/// the login, and kube looks for them by their type.
fn name_server(server: &str, source: BoxError) -> BoxError {
    match source.is::<kube::Error>() {
        true => source,
        false => Box::new(UnreachableServer {
            server: server.to_owned(),
            source,
        }),
    }
}

/// A request that got no response.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach {server}")]
struct UnreachableServer {
    server: String,
    source: BoxError,
}

/// Checks that [`connect`] can build a client, without the part that runs a program: an exec plugin, or a login of a
/// cloud. Returns what that would run, if anything.
///
/// # Errors
/// The configuration that was tried, and why it cannot be used.
pub async fn check(options: &ClientOptions) -> Result<Option<String>, ClientError> {
    let mut config = config(options).await?;
    let login = &mut config.auth_info;
    let plugin = login.exec.take();
    let plugin = plugin.map(|plugin| plugin.command.unwrap_or_default());
    let by_provider = login.auth_provider.as_ref();
    let by_provider = by_provider.and_then(|provider| provider.config.get("cmd-path").cloned());
    if by_provider.is_some() {
        login.auth_provider = None;
    }
    Client::try_from(bounded(config))?;
    Ok(plugin.or(by_provider))
}

/// Reads the version of the cluster.
///
/// # Errors
/// The API server's, or a version that cannot be read.
pub async fn server_version(
    client: &Client,
    timeout: Duration,
) -> Result<KubernetesVersion, ApiError> {
    let info = in_time(timeout, client.apiserver_version()).await?;
    let version = format!("{}.{}", info.major, info.minor);
    let parsed = version.parse();
    parsed.map_err(|error: InvalidKubernetesVersion| {
        ApiError::Refused(format!("the API server has version {version:?}: {error}"))
    })
}

/// The credential that a client with these options presents.
///
/// # Errors
/// The configuration that was tried, and why it cannot be used.
pub async fn credential(options: &ClientOptions) -> Result<Credential, ClientError> {
    let login = config(options).await?.auth_info;
    let text = |data: Option<String>, file: Option<String>| match (data, file) {
        (Some(data), _) => BASE64.decode(data).ok(),
        (None, Some(file)) => std::fs::read(file).ok(),
        (None, None) => None,
    };
    let key_data = login
        .client_key_data
        .map(|key| key.expose_secret().to_owned());
    let chain = text(login.client_certificate_data, login.client_certificate);
    let key = text(key_data, login.client_key);
    let utf8 = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
    Ok(match (login.token_file, login.token) {
        (Some(file), _) => Credential::TokenFile(file.into()),
        (None, Some(token)) => Credential::Token(token.expose_secret().to_owned()),
        (None, None) => match (chain.and_then(utf8), key.and_then(utf8)) {
            (Some(chain_pem), Some(key_pem)) => Credential::Certificate { chain_pem, key_pem },
            _ => Credential::None,
        },
    })
}

async fn config(options: &ClientOptions) -> Result<Config, ClientError> {
    let found = Kubeconfigs::find(
        options.kubeconfig.as_deref(),
        env::var_os("KUBECONFIG").as_deref(),
        env::home_dir().as_deref(),
    );
    match (found.read(), &options.context) {
        (Some(kubeconfig), context) => {
            let failed = |source| ClientError::Kubeconfig {
                files: list_paths(&found.present),
                source,
            };
            let options = KubeConfigOptions {
                context: context.clone(),
                ..KubeConfigOptions::default()
            };
            Config::from_custom_kubeconfig(kubeconfig.map_err(failed)?, &options)
                .await
                .map_err(failed)
        }
        (None, Some(context)) => Err(ClientError::NoContext {
            context: context.clone(),
            tried: list_paths(&found.tried),
        }),
        (None, None) => Config::incluster().map_err(|source| ClientError::NotFound {
            tried: list_paths(&found.tried),
            source,
        }),
    }
}

/// Leaves retries and timeouts to the callers.
fn bounded(mut config: Config) -> Config {
    // Callers retry at their own pace. The client would retry silently, up to 15 times, each after as long as
    // `Retry-After` says.
    config.default_retry = false;
    config.read_timeout = Some(READ_TIMEOUT);
    // The timeout starts with the request, not with the last response.
    config.reset_reader_on_write = true;
    config
}

fn list_paths(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "no path".to_owned();
    }
    let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(", ")
}

/// The places to look for kubeconfigs, and the files that exist.
#[derive(Debug, PartialEq, Eq)]
struct Kubeconfigs {
    tried: Vec<PathBuf>,
    present: Vec<PathBuf>,
}

impl Kubeconfigs {
    /// A configured file must exist. Of those in `KUBECONFIG`, kubectl skips the ones that do not.
    fn find(configured: Option<&Path>, variable: Option<&OsStr>, home: Option<&Path>) -> Self {
        if let Some(file) = configured {
            return Self {
                tried: vec![file.to_owned()],
                present: vec![file.to_owned()],
            };
        }
        let named: Vec<PathBuf> = variable
            .map(|paths| env::split_paths(paths).collect())
            .unwrap_or_default();
        let mut tried: Vec<_> = named
            .into_iter()
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        if tried.is_empty() {
            tried.extend(home.map(|home| home.join(".kube").join("config")));
        }
        let present = tried.iter().filter(|path| path.exists()).cloned().collect();
        Self { tried, present }
    }

    /// Reads and merges all of them as kubectl does; `None` if there are none.
    fn read(&self) -> Option<Result<Kubeconfig, KubeconfigError>> {
        if self.present.is_empty() {
            return None;
        }
        let mut paths = self.present.iter();
        Some(paths.try_fold(Kubeconfig::default(), |merged, path| {
            merged.merge(Kubeconfig::read_from(path)?)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_same_kubeconfig_as_kubectl() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let (a, b, default) = (file("a"), file("b"), file(".kube/config"));
        let missing = folder.path().join("missing");
        let home = Some(folder.path());
        let list = |paths: &[&PathBuf]| env::join_paths(paths).unwrap();
        let find = |configured: Option<&Path>, variable: Option<&OsStr>| {
            Kubeconfigs::find(configured, variable, home).present
        };
        assert_eq!(find(None, None), std::slice::from_ref(&default));
        assert_eq!(find(None, Some(OsStr::new(""))), [default]);
        assert_eq!(
            find(None, Some(&list(&[&a, &missing, &b]))),
            [a.clone(), b.clone()]
        );
        assert!(find(None, Some(&list(&[&missing]))).is_empty());
        assert_eq!(find(Some(&missing), Some(&list(&[&a]))), [missing]);
        assert_eq!(
            Kubeconfigs::find(None, None, None).tried,
            Vec::<PathBuf>::new()
        );
    }

    #[tokio::test]
    async fn an_error_names_the_server_and_the_cause() {
        let folder = tempfile::tempdir().unwrap();
        for (server, cause) in [
            ("https://127.0.0.1:1/", "Connection refused"),
            ("https://api.invalid:6443/", "failed to lookup address"),
        ] {
            let file = folder.path().join("kubeconfig");
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                 contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
                 users: [{{name: u, user: {{token: t}}}}]\n"
            );
            std::fs::write(&file, text).unwrap();
            let options = ClientOptions {
                kubeconfig: Some(file),
                context: None,
            };
            let client = connect(&options).await.unwrap();
            let version = server_version(&client, Duration::from_secs(20)).await;
            let error = version.unwrap_err().to_string();
            let expected = format!(
                "no usable response from the Kubernetes API server: cannot reach {server}: "
            );
            assert!(error.contains(&expected), "{error}");
            assert!(error.contains(cause), "{error}");
        }
    }

    #[tokio::test]
    async fn a_check_runs_no_program() {
        let folder = tempfile::tempdir().unwrap();
        let (file, trace) = (folder.path().join("kubeconfig"), folder.path().join("ran"));
        let gcp = format!(
            "auth-provider: {{name: gcp, config: {{cmd-path: touch, cmd-args: '{}', token-key: '{{.a}}', expiry-key: \
             '{{.b}}'}}}}",
            trace.display()
        );
        let exec = format!(
            "exec: {{apiVersion: client.authentication.k8s.io/v1, command: touch, args: ['{}'], interactiveMode: Never}}",
            trace.display()
        );
        for (login, expected) in [
            (exec.as_str(), Some("touch")),
            (gcp.as_str(), Some("touch")),
            ("token: t", None),
        ] {
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                 contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1'}}}}]\n\
                 users: [{{name: u, user: {{{login}}}}}]\n"
            );
            std::fs::write(&file, text).unwrap();
            let options = ClientOptions {
                kubeconfig: Some(file.clone()),
                context: None,
            };
            let program = check(&options).await.unwrap();
            assert_eq!(program.as_deref(), expected, "{login}");
            assert!(!trace.exists(), "{login}");
        }
    }

    #[tokio::test]
    async fn errors_list_every_source_tried() {
        let missing = PathBuf::from("/nowhere/kubeconfig");
        let options = ClientOptions {
            kubeconfig: Some(missing),
            context: None,
        };
        let error = connect(&options).await.err().unwrap().to_string();
        assert!(
            error.starts_with("cannot use the kubeconfig /nowhere/kubeconfig: "),
            "{error}"
        );
    }
}
