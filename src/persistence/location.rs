//! Where the state is stored.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;

/// A place that stores one text.
pub trait StateLocation: Send + Sync + 'static {
    /// Kind and name of the location, for the log.
    fn description(&self) -> String;

    /// The longest text that it stores, in bytes.
    fn max_bytes(&self) -> usize;

    /// Reads the text that was stored last; `None` if there is none.
    fn load(&self) -> impl Future<Output = Result<Option<String>, StorageError>> + Send;

    /// Replaces the stored text, as a whole or not at all.
    fn save(&self, text: String) -> impl Future<Output = Result<(), StorageError>> + Send;
}

/// Why a location cannot be read or written. The text stays the same while the cause does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StorageError(pub String);

#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    /// Held while the file is read or written, by the thread that does it: a file system that hangs occupies one
    /// thread, and a late write does not meet the next one.
    in_use: Arc<Mutex<()>>,
}

/// Maximum size of a file: far more than the state of any daemon takes. A wrong path (a device, a log) fails at once.
const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;

impl StateFile {
    /// The file at `path`, which need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            in_use: Arc::default(),
        }
    }

    async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let in_use = Arc::clone(&self.in_use).try_lock_owned();
        let in_use = in_use.map_err(|_| {
            StorageError("an earlier attempt to use the file has not ended yet".to_owned())
        })?;
        let done = tokio::task::spawn_blocking(move || {
            let _in_use = in_use;
            work()
        });
        done.await
            .map_err(|error| StorageError(error.to_string()))?
            .map_err(|error| StorageError(error.to_string()))
    }
}

impl StateLocation for StateFile {
    fn description(&self) -> String {
        format!("file {}", self.path.display())
    }

    fn max_bytes(&self) -> usize {
        MAX_FILE_BYTES
    }

    async fn load(&self) -> Result<Option<String>, StorageError> {
        let path = self.path.clone();
        let read = move || match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(found) if usize::try_from(found.len()).is_ok_and(|n| n <= MAX_FILE_BYTES) => {
                // Bytes that are not UTF-8 are reported when the text is decoded.
                let bytes = fs::read(&path)?;
                Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
            }
            Ok(_) => Err(io::Error::other("the file is too large to be a state file")),
            Err(error) => Err(error),
        };
        self.run_blocking(read).await
    }

    async fn save(&self, text: String) -> Result<(), StorageError> {
        let path = self.path.clone();
        self.run_blocking(move || replace(&path, &text)).await
    }
}

/// Writes a temporary file in the same folder and renames it, so that a crash leaves the old text or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
