//! What is remembered over a restart, between the poller that owns it and the place where it is kept:
//! a file, or a ConfigMap ([`k8s::state`](crate::k8s::state_config_map)).
//!
//! Nothing depends on it: whatever cannot be read is told once and taken for nothing, and whatever
//! cannot be written is told once and written the next time.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::{oneshot, watch};

use crate::leader_election::Leadership;
use crate::model::lag::history::memory::{SavedHistory, VERSION};
use crate::telemetry::{StateSaved, StateUnread, StateUnusable, StateUnwritten};

/// A place that keeps one text.
pub trait StateStore: Send + Sync + 'static {
    /// What and where it is, for people.
    fn place(&self) -> String;

    /// The longest text that it keeps, in bytes.
    fn bytes_max(&self) -> usize;

    /// What was saved last; `None` where nothing was.
    fn load(&self) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;

    /// Keeps the text instead of the one before, whole or not at all.
    fn save(&self, text: String) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Why a place cannot be read or written, in words that stay the same while the cause does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// The first and the longest pause before a place that could not be read is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Reads what was kept, hands it to the poller, and from then on keeps whatever the poller says, until
/// the poller is gone.
pub async fn keep<S: StateStore>(
    store: S,
    recalled: oneshot::Sender<SavedHistory>,
    mut memories: watch::Receiver<Option<Arc<SavedHistory>>>,
    leadership: Leadership,
) {
    let place = store.place();
    let mut poller = memories.clone();
    let loaded = tokio::select! {
        loaded = load(&store, &place) => loaded,
        // The poller keeps nothing before it has been told what was kept.
        () = gone(&mut poller) => return,
    };
    if recalled.send(loaded).is_err() {
        return;
    }
    let mut failing: Option<StoreError> = None;
    while memories.changed().await.is_ok() {
        let Some(memory) = memories.borrow_and_update().clone() else {
            continue;
        };
        // What another daemon remembers goes before.
        if leadership.term(Instant::now()).is_none() {
            continue;
        }
        let (text, dropped) = encode(&memory, store.bytes_max());
        let bytes = text.len();
        match store.save(text).await {
            Ok(()) => {
                StateSaved {
                    place: &place,
                    bytes,
                    dropped,
                    again: failing.take().is_some(),
                }
                .emit();
            }
            Err(error) => {
                if failing.as_ref() != Some(&error) {
                    StateUnwritten {
                        place: &place,
                        reason: &error,
                    }
                    .emit();
                }
                failing = Some(error);
            }
        }
    }
}

async fn gone(memories: &mut watch::Receiver<Option<Arc<SavedHistory>>>) {
    while memories.changed().await.is_ok() {}
}

async fn load<S: StateStore>(store: &S, place: &str) -> SavedHistory {
    let mut pause = RETRY.0;
    let mut told = None;
    loop {
        match store.load().await {
            Ok(None) => return SavedHistory::default(),
            Ok(Some(text)) => match decode(&text) {
                Ok(memory) => return memory,
                Err(reason) => {
                    StateUnusable {
                        place,
                        reason: &reason,
                    }
                    .emit();
                    return SavedHistory::default();
                }
            },
            Err(error) => {
                if told.as_ref() != Some(&error) {
                    StateUnread {
                        place,
                        reason: &error,
                    }
                    .emit();
                }
                told = Some(error);
                tokio::time::sleep(pause).await;
                pause = RETRY.1.min(pause.saturating_mul(2));
            }
        }
    }
}

/// What is remembered as a text of at most so many bytes, and how many groups were left out for it.
#[must_use]
pub fn encode(memory: &SavedHistory, bytes_max: usize) -> (String, usize) {
    let mut text = json(memory);
    if text.len() <= bytes_max {
        return (text, 0);
    }
    let mut left = memory.clone();
    let mut dropped = 0;
    let mut candidates = memory.least_important_first().into_iter();
    while text.len() > bytes_max {
        let mut excess = text.len() - bytes_max;
        let before = dropped;
        while excess > 0
            && let Some((cluster, group)) = candidates.next()
        {
            let known = left.clusters.get(cluster.as_str());
            let room = known.and_then(|c| c.groups.get(&group)).map(json);
            excess = excess.saturating_sub(room.map_or(0, |room| room.len()));
            left.drop_group(&cluster, &group);
            dropped += 1;
        }
        if dropped == before {
            // Not even nothing fits.
            return (json(&SavedHistory::default()), dropped);
        }
        text = json(&left);
    }
    (text, dropped)
}

fn json<T: serde::Serialize>(value: &T) -> String {
    // Names, numbers and lists of them cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// Why it cannot be used: another version's, or none of ours.
pub fn decode(text: &str) -> Result<SavedHistory, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if version != VERSION {
        return Err(format!(
            "it is of version {version}, and this build reads {VERSION}"
        ));
    }
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// A file.
#[derive(Clone, Debug)]
pub struct StateFile(PathBuf);

/// Far more than a daemon's clusters hold; a wrong path (a device, a log) fails at once.
const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

impl StateFile {
    /// The file at `path`, which need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl StateStore for StateFile {
    fn place(&self) -> String {
        format!("file {}", self.0.display())
    }

    fn bytes_max(&self) -> usize {
        FILE_BYTES_MAX
    }

    async fn load(&self) -> Result<Option<String>, StoreError> {
        let path = self.0.clone();
        let read = move || match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(found) if usize::try_from(found.len()).is_ok_and(|n| n <= FILE_BYTES_MAX) => {
                // What is no text is no state: that is told where it is decoded.
                let bytes = fs::read(&path)?;
                Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
            }
            Ok(_) => Err(io::Error::other("it is too large to be the state")),
            Err(error) => Err(error),
        };
        blocking(read).await
    }

    async fn save(&self, text: String) -> Result<(), StoreError> {
        let path = self.0.clone();
        blocking(move || replace(&path, &text)).await
    }
}

/// Writes beside the file and renames, so that a crash leaves the old one or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StoreError(error.to_string()))?
        .map_err(|error| StoreError(error.to_string()))
}

#[cfg(test)]
mod tests;
