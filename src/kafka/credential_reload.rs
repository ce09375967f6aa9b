//! Credentials in files, used anew when they change: passwords and secrets that properties refer to,
//! certificates and keys. (A file of tokens is its token source's own matter.)
//!
//! One design for both clients: every few seconds the settings are read again; where they differ and
//! stay so, the wire client gets them for its next connections and makes the old ones anew, while
//! librdkafka's clients are replaced. Settings that cannot be read or that the client refuses, such as
//! a certificate whose key has not been written yet, leave everything as it is, and are told once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use super::librdkafka::Librdkafka;
use super::wire::Wire;
use super::{Client, ClientSettings, PendingSweep, Renewed, SetupError, log_in};

/// How often files are looked at.
const EVERY: Duration = Duration::from_secs(3);
/// How long a change has to stay: what writes a file may be in the middle of it.
const SETTLED: Duration = Duration::from_millis(500);

/// The properties that name files whose text is a part of the login.
const FILES: [&str; 6] = [
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.crl.location",
    "https.ca.location",
];

/// A client, replaced or told when its credentials change.
pub(super) struct CredentialReload {
    /// As configured.
    settings: ClientSettings,
    current: Mutex<CurrentClient>,
}

struct CurrentClient {
    asking: Arc<PendingSweep>,
    /// What it was set up with.
    settings: ClientSettings,
}

/// What the settings are made of at one time.
#[derive(PartialEq, Eq)]
struct FileCheck {
    renewed: Renewed,
    /// The texts of the files that properties name.
    files: u64,
}

impl CredentialReload {
    /// Sets up the client, and looks after its files where it has some.
    pub(super) fn start(settings: ClientSettings) -> Result<Arc<Self>, SetupError> {
        let seen = look(&settings).ok();
        let used = log_in(settings.clone(), None)?;
        let asking = match settings.client {
            Client::Librdkafka => PendingSweep::Librdkafka(Librdkafka::connect(used.clone())?),
            Client::Auto | Client::Wire => PendingSweep::Wire(Wire::connect(&used)?),
        };
        let has_files = settings.renew.is_some() || !files_of(&settings).is_empty();
        let renewal = Arc::new(Self {
            settings,
            current: Mutex::new(CurrentClient {
                asking: Arc::new(asking),
                settings: used,
            }),
        });
        // Without a runtime nothing lives for long enough to see a change.
        if has_files && let Ok(runtime) = Handle::try_current() {
            runtime.spawn(watch(Arc::downgrade(&renewal), seen));
        }
        Ok(renewal)
    }

    fn current(&self) -> MutexGuard<'_, CurrentClient> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client as it is now.
    pub(super) fn asking(&self) -> Arc<PendingSweep> {
        Arc::clone(&self.current().asking)
    }

    /// Has the client use these.
    fn renew(&self, (properties, token): Renewed) -> Result<(), SetupError> {
        let settings = ClientSettings {
            properties,
            token,
            ..self.settings.clone()
        };
        let mut current = self.current();
        let settings = log_in(settings, Some(&current.settings))?;
        let replaced = match current.asking.as_ref() {
            PendingSweep::Wire(wire) => {
                wire.renew(&settings)?;
                None
            }
            PendingSweep::Librdkafka(_) => {
                let new = PendingSweep::Librdkafka(Librdkafka::connect(settings.clone())?);
                Some(std::mem::replace(&mut current.asking, Arc::new(new)))
            }
        };
        current.settings = settings;
        drop(current);
        // librdkafka's clients take their time to end; a sweep may hold this one for a while, too.
        drop(replaced);
        Ok(())
    }
}

/// Looks at the files for as long as the client lives.
async fn watch(renewal: Weak<CredentialReload>, mut seen: Option<FileCheck>) {
    let mut told = None;
    loop {
        sleep(EVERY).await;
        let Some(held) = renewal.upgrade() else {
            return;
        };
        let settings = held.settings.clone();
        drop(held);
        let cluster = settings.name.clone();
        let outcome = match changed(settings, seen.as_ref()).await {
            Ok(None) => {
                told = None;
                continue;
            }
            Ok(Some(new)) => {
                let (renewal, renewed) = (renewal.clone(), new.renewed.clone());
                // Certificates are parsed and clients set up, which is not for async threads.
                let runtime = Handle::current();
                let renewing = tokio::task::spawn_blocking(move || {
                    let _inside = runtime.enter();
                    renewal.upgrade().map(|renewal| renewal.renew(renewed))
                });
                match renewing.await {
                    Ok(Some(Ok(()))) => {
                        seen = Some(new);
                        tracing::info!(%cluster, "credentials have changed and are used from now on");
                        Ok(())
                    }
                    Ok(Some(Err(error))) => Err(error.reason),
                    Ok(None) | Err(_) => return,
                }
            }
            Err(reason) => Err(reason),
        };
        let reason = outcome.err();
        if let Some(reason) = &reason
            && told.as_ref() != Some(reason)
        {
            tracing::warn!(%cluster, reason, "credentials have changed and cannot be used; the old ones are kept");
        }
        told = reason;
    }
}

/// The settings as they are now, where they are others and stay so.
async fn changed(
    settings: ClientSettings,
    seen: Option<&FileCheck>,
) -> Result<Option<FileCheck>, String> {
    let settings = Arc::new(settings);
    let read = || {
        let settings = Arc::clone(&settings);
        async move {
            let looking = tokio::task::spawn_blocking(move || look(&settings));
            looking
                .await
                .unwrap_or_else(|_| Err("reading files ended".into()))
        }
    };
    let new = read().await?;
    if Some(&new) == seen {
        return Ok(None);
    }
    sleep(SETTLED).await;
    let again = read().await?;
    Ok((again == new).then_some(again))
}

fn look(settings: &ClientSettings) -> Result<FileCheck, String> {
    let renewed = match &settings.renew {
        Some(renew) => renew()?,
        None => (settings.properties.clone(), settings.token.clone()),
    };
    let mut hasher = DefaultHasher::new();
    for (property, path) in files_of(settings) {
        let text =
            std::fs::read(path).map_err(|error| format!("property {property}: {path}: {error}"))?;
        text.hash(&mut hasher);
    }
    Ok(FileCheck {
        renewed,
        files: hasher.finish(),
    })
}

fn files_of(settings: &ClientSettings) -> Vec<(&'static str, &str)> {
    let named = FILES.iter().filter_map(|name| {
        let path = settings.properties.get(*name)?.as_str();
        // librdkafka's word for the system's roots; a folder of certificates is not looked into.
        let is_file = path != "probe" && !std::path::Path::new(path).is_dir();
        is_file.then_some((*name, path))
    });
    named.collect()
}
