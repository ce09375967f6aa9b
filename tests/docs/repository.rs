//! Reads the files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository's folder.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Markdown files, by their paths below the repository's folder.
pub(crate) fn markdown_files() -> Vec<String> {
    files(".md")
}

/// The text of all Rust files of the crate. Lines that end with a backslash, as in long string literals, are joined
/// with the next ones.
pub(crate) fn rust_text() -> String {
    let mut all = String::new();
    for path in files(".rs").iter().filter(|path| path.starts_with("src/")) {
        let text = fs::read_to_string(folder().join(path)).unwrap();
        let mut parts = text.split("\\\n");
        all.push_str(parts.next().unwrap_or_default());
        parts.for_each(|part| all.push_str(part.trim_start()));
    }
    all
}

/// The content of a snapshot (`.snap`) of the unit tests, without its header.
pub(crate) fn snapshot(path: &str) -> String {
    let text =
        fs::read_to_string(folder().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let body = text.splitn(3, "---\n").nth(2).unwrap();
    format!("{}\n", body.trim_end())
}

/// The workflows of the repository that sign, by path, with their text.
pub(crate) fn signing_workflows() -> Vec<(String, String)> {
    let place = ".github/workflows";
    let files = fs::read_dir(folder().join(place)).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let texts = files.map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (
            format!("{place}/{name}"),
            fs::read_to_string(&path).unwrap(),
        )
    });
    texts
        .filter(|(_, text)| text.contains("cosign sign"))
        .collect()
}

/// Lines of the GitHub workflows that use an action without pinning it to a commit, with its version as a comment.
pub(crate) fn unpinned_actions() -> Vec<String> {
    let pinned = regex::Regex::new(r"uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$").unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder().join(".github/workflows")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let uses = text.lines().filter(|line| line.contains("uses:"));
        found.extend(
            uses.filter(|line| !pinned.is_match(line))
                .map(str::to_owned),
        );
    }
    found
}

fn files(ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(&folder(), "", ending, &mut found);
    found.sort();
    found
}

fn walk(folder: &Path, prefix: &str, ending: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        let is_skipped = name.starts_with('.') || matches!(&*path, "target" | "docs/book");
        if entry.file_type().unwrap().is_dir() {
            if !is_skipped {
                walk(&entry.path(), &format!("{path}/"), ending, found);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

/// Resolves a relative link in a page to a path below the repository's folder.
pub(crate) fn resolve_link(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
