//! Reloads credentials when their files change: passwords and secrets that properties refer to,
//! certificates and keys. (A file with a token is reread by its token source instead.)
//!
//! Both clients work the same way: every few seconds the settings are read again. If they differ,
//! and still do half a second later, the wire client uses them for its next connections and closes
//! the old ones, while librdkafka's clients are replaced. Settings that cannot be read or that the
//! client rejects, such as a certificate whose key is not written yet, change nothing and are
//! logged once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use super::librdkafka::LibrdkafkaClient;
use super::wire::WireClient;
use super::{ActiveClient, ClientKind, ClientSettings, Credentials, SetupError, prepare_login};
use crate::model::units::file_path::ShownPath;

/// How often files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// How long a change must be stable, because its writer may be halfway through.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// Properties that name files whose content is part of the login.
const FILES: [&str; 6] = [
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.crl.location",
    "https.ca.location",
];

/// A client that follows changes of its credentials.
pub(super) struct ReloadingClient {
    /// The configured settings, the input of every reload.
    settings: ClientSettings,
    current: Mutex<CurrentClient>,
}

struct CurrentClient {
    client: Arc<ActiveClient>,
    /// The settings with the current content of the files, as the client uses them.
    settings: ClientSettings,
}

/// Credentials as read at one time, to detect changes.
#[derive(PartialEq, Eq)]
struct CredentialSnapshot {
    renewed: Credentials,
    /// Hash of the files that properties name.
    files: u64,
}

impl ReloadingClient {
    /// Sets up the client and, if it has credential files, starts to watch them.
    pub(super) fn start(settings: ClientSettings) -> Result<Arc<Self>, SetupError> {
        let seen = read_credentials(&settings).ok();
        let used = prepare_login(settings.clone(), None)?;
        let client = match settings.client {
            ClientKind::Librdkafka => {
                ActiveClient::Librdkafka(LibrdkafkaClient::connect(used.clone())?)
            }
            ClientKind::Auto | ClientKind::Wire => ActiveClient::Wire(WireClient::connect(&used)?),
        };
        let has_files = settings.renew.is_some() || !credential_files(&settings).is_empty();
        let reloading = Arc::new(Self {
            settings,
            current: Mutex::new(CurrentClient {
                client: Arc::new(client),
                settings: used,
            }),
        });
        // Without a runtime (a one-off command) no process lives long enough to see a change.
        if has_files && let Ok(runtime) = Handle::try_current() {
            runtime.spawn(watch(Arc::downgrade(&reloading), seen));
        }
        Ok(reloading)
    }

    fn current(&self) -> MutexGuard<'_, CurrentClient> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current client.
    pub(super) fn active(&self) -> Arc<ActiveClient> {
        Arc::clone(&self.current().client)
    }

    /// Makes the client use new credentials.
    fn apply(&self, (properties, token): Credentials) -> Result<(), SetupError> {
        let settings = ClientSettings {
            properties,
            token,
            ..self.settings.clone()
        };
        let mut current = self.current();
        let settings = prepare_login(settings, Some(&current.settings))?;
        let replaced = match current.client.as_ref() {
            ActiveClient::Wire(wire) => {
                wire.reload(&settings)?;
                None
            }
            ActiveClient::Librdkafka(_) => {
                let new = ActiveClient::Librdkafka(LibrdkafkaClient::connect(settings.clone())?);
                Some(std::mem::replace(&mut current.client, Arc::new(new)))
            }
        };
        current.settings = settings;
        drop(current);
        // Dropped outside of the lock: librdkafka takes long to close a client, and a running sweep
        // may still hold this one.
        drop(replaced);
        Ok(())
    }
}

/// Checks the files until the client is dropped.
async fn watch(reloading: Weak<ReloadingClient>, mut seen: Option<CredentialSnapshot>) {
    let mut last_failure = None;
    loop {
        sleep(CHECK_INTERVAL).await;
        let Some(held) = reloading.upgrade() else {
            return;
        };
        let settings = held.settings.clone();
        drop(held);
        let cluster = settings.name.clone();
        let outcome = match read_if_changed(settings, seen.as_ref()).await {
            Ok(None) => {
                last_failure = None;
                continue;
            }
            Ok(Some(new)) => {
                let (reloading, renewed) = (reloading.clone(), new.renewed.clone());
                // Parsing certificates and setting up clients blocks, so it stays off the async
                // threads.
                let runtime = Handle::current();
                let applying = tokio::task::spawn_blocking(move || {
                    let _inside = runtime.enter();
                    reloading.upgrade().map(|client| client.apply(renewed))
                });
                match applying.await {
                    Ok(Some(Ok(()))) => {
                        seen = Some(new);
                        tracing::info!(%cluster, "credentials changed; using the new ones");
                        Ok(())
                    }
                    Ok(Some(Err(error))) => Err(error.reason.to_string()),
                    Ok(None) | Err(_) => return,
                }
            }
            Err(reason) => Err(reason),
        };
        let reason = outcome.err();
        if let Some(reason) = &reason
            && last_failure.as_ref() != Some(reason)
        {
            tracing::warn!(%cluster, reason, "credentials changed but cannot be used; keeping the old ones");
        }
        last_failure = reason;
    }
}

/// Reads the credentials; returns them only if they changed and are stable.
async fn read_if_changed(
    settings: ClientSettings,
    seen: Option<&CredentialSnapshot>,
) -> Result<Option<CredentialSnapshot>, String> {
    let settings = Arc::new(settings);
    let read = || {
        let settings = Arc::clone(&settings);
        async move {
            let reading = tokio::task::spawn_blocking(move || read_credentials(&settings));
            reading
                .await
                .unwrap_or_else(|_| Err("the task that reads the files was cancelled".into()))
        }
    };
    let new = read().await?;
    if Some(&new) == seen {
        return Ok(None);
    }
    sleep(SETTLE_TIME).await;
    let again = read().await?;
    Ok((again == new).then_some(again))
}

fn read_credentials(settings: &ClientSettings) -> Result<CredentialSnapshot, String> {
    let renewed = match &settings.renew {
        Some(renew) => renew()?,
        None => (settings.properties.clone(), settings.token.clone()),
    };
    let mut hasher = DefaultHasher::new();
    for (property, path) in credential_files(settings) {
        let text = std::fs::read(path)
            .map_err(|error| format!("property {property}: {}: {error}", ShownPath(path)))?;
        text.hash(&mut hasher);
    }
    Ok(CredentialSnapshot {
        renewed,
        files: hasher.finish(),
    })
}

fn credential_files(settings: &ClientSettings) -> Vec<(&'static str, &str)> {
    let named = FILES.iter().filter_map(|name| {
        let path = settings.properties.get(*name)?.as_str();
        // `probe` is librdkafka's name for the system's roots. Directories of certificates are not
        // watched.
        let is_file = path != "probe" && !std::path::Path::new(path).is_dir();
        is_file.then_some((*name, path))
    });
    named.collect()
}
