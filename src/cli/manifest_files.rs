//! Reads manifests from files, folders and standard input.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::Value;

/// The namespace of a manifest that sets none, as in kubectl.
pub(super) const NAMESPACE: &str = "default";

/// Maximum size of a file, so that a wrong path (a device, a log) fails at once.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Maximum numbers of YAML documents, nodes (keys, values, lists and mappings) and parser events of a file. They are far
/// above those of the manifests of a whole cluster, and bound the memory that a file of the maximum size takes.
const MAX_DOCUMENTS: usize = 100_000;
const MAX_NODES: usize = 4_000_000;
const MAX_EVENTS: usize = 10_000_000;

/// Maximum nesting of folders.
const MAX_FOLDER_DEPTH: u32 = 16;

/// The documents of a YAML or JSON text, without empty ones.
pub(super) fn parse_documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
        budget: serde_saphyr::budget! {
            max_documents: MAX_DOCUMENTS,
            max_nodes: MAX_NODES,
            max_events: MAX_EVENTS,
        },
    };
    let mut all: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| anyhow!(describe_yaml_error(&error)))?;
    all.retain(|document| !document.is_null());
    Ok(all)
}

/// What is wrong with a YAML text, and what to do.
fn describe_yaml_error(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::Budget { location, .. } => {
            let limits = format!(
                "{MAX_DOCUMENTS} YAML documents and {MAX_NODES} keys and values, and aliases are limited too"
            );
            let line = location.line();
            format!(
                "too large from line {line}: a file may have {limits}; split it into several files"
            )
        }
        serde_saphyr::Error::DuplicateMappingKey { key, location } => {
            let key = key
                .as_ref()
                .map_or(String::new(), |key| format!(" {key:?}"));
            let line = location.line();
            format!("invalid YAML: line {line}: the key{key} is set twice; remove one of them")
        }
        _ => {
            let text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            format!("invalid YAML (for a template, use its rendered output): {text}")
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_of_a_large_cluster_are_read() {
        let hpa = "kind: HorizontalPodAutoscaler\nmetadata: {name: a}\n";
        let text = vec![hpa; 2_000].join("---\n");
        assert_eq!(parse_documents(&text).unwrap().len(), 2_000);
        let item = format!("{{spec: [{}]}}", vec!["1"; 150].join(", "));
        let list = format!("items: [{}]", vec![item; 1_800].join(", "));
        let list = parse_documents(&list).unwrap();
        assert_eq!(list[0]["items"].as_array().map(Vec::len), Some(1_800));
    }

    #[test]
    fn too_much_and_duplicate_keys_are_refused_with_a_remedy() {
        let error = |text: &str| parse_documents(text).unwrap_err().to_string();
        let documents = error(&"--- a\n".repeat(MAX_DOCUMENTS + 1));
        assert!(documents.starts_with("too large from line "), "{documents}");
        let end = ": a file may have 100000 YAML documents and 4000000 keys and values, and aliases are limited too; split it into several files";
        assert!(documents.ends_with(end), "{documents}");
        let expected = "invalid YAML: line 3: the key \"name\" is set twice; remove one of them";
        assert_eq!(error("kind: A\nname: a\nname: b\n"), expected);
        let nested = error("metadata:\n  labels:\n    app: a\n    app: b\n");
        assert!(
            nested.contains("line 4: the key \"app\" is set twice"),
            "{nested}"
        );
        let template = error("spec: {{ .Values.x }}");
        assert!(template.starts_with("invalid YAML (for a template, use its rendered output): "));
    }
}
