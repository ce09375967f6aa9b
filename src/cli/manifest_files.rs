//! Reads manifests from files, folders and standard input.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// The namespace of a manifest that sets none, as in kubectl.
pub(super) const NAMESPACE: &str = "default";

/// Maximum size of a file, so that a wrong path (a device, a log) fails at once.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Maximum nesting of folders.
const MAX_FOLDER_DEPTH: u32 = 16;

/// The documents of a YAML or JSON text, without empty ones.
pub(super) fn parse_documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
    };
    let mut all: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .context("invalid YAML (for a template, use its rendered output)")?;
    all.retain(|document| !document.is_null());
    Ok(all)
}

/// The text of a file, or of standard input for `-`.
pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    match path == Path::new("-") {
        true => read_bounded(io::stdin().lock()),
        false => read_bounded(File::open(path)?),
    }
}

/// The text of a file, or of all `.yaml`, `.yml` and `.json` files of a folder, sorted by name.
pub(super) fn read_texts(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    if path == Path::new("-") {
        let name = "standard input".to_owned();
        let text = read_text(path).with_context(|| name.clone())?;
        texts.insert(name, text);
    } else {
        collect_files(path, MAX_FOLDER_DEPTH, &mut texts)?;
        ensure!(
            !texts.is_empty(),
            "{}: the folder has no .yaml, .yml or .json file",
            path.display()
        );
    }
    Ok(texts)
}

fn collect_files(
    path: &Path,
    depth: u32,
    texts: &mut BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let name = path.display().to_string();
    let metadata = std::fs::metadata(path).with_context(|| name.clone())?;
    if !metadata.is_dir() {
        let text = read_text(path).with_context(|| name.clone())?;
        texts.insert(name, text);
        return Ok(());
    }
    let Some(depth) = depth.checked_sub(1) else {
        bail!("{name}: folders are nested more than {MAX_FOLDER_DEPTH} levels deep");
    };
    for entry in std::fs::read_dir(path).with_context(|| name.clone())? {
        let path = entry.with_context(|| name.clone())?.path();
        let extension = path.extension().and_then(|e| e.to_str());
        if path.is_dir() || matches!(extension, Some("yaml" | "yml" | "json")) {
            collect_files(&path, depth, texts)?;
        }
    }
    Ok(())
}

fn read_bounded(from: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    from.take(MAX_FILE_BYTES.saturating_add(1))
        .read_to_string(&mut text)
        .context("cannot be read")?;
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    ensure!(
        bytes <= MAX_FILE_BYTES,
        "larger than {MAX_FILE_BYTES} bytes"
    );
    Ok(text)
}
