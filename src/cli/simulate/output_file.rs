//! The files of `--report` and `--write-trace`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Context;

/// A file that is opened before the simulation, so that a wrong path fails at once. It keeps its content until it is
/// written.
#[derive(Debug)]
pub(super) struct OutputFile {
    /// The option and the path, for messages.
    name: String,
    file: File,
}

impl OutputFile {
    /// # Errors
    /// The file cannot be written.
    pub(super) fn open(option: &str, path: &Path) -> anyhow::Result<Self> {
        let name = format!("{option} {}", path.display());
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| format!("{name}: the file cannot be written"))?;
        Ok(Self { name, file })
    }

    /// Replaces the content.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(mut self, text: &str) -> anyhow::Result<()> {
        // A pipe has no length.
        let _ = self.file.set_len(0);
        let written = self.file.write_all(text.as_bytes());
        written.with_context(|| format!("{}: the file cannot be written", self.name))
    }
}
