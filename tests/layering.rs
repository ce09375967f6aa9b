//! The design's rules that the compiler does not check: who may import whom, what the model must not
//! know, where unsafe code is, how long a file may get. Each check is also shown to fail on a breach.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

/// What each part of the crate may import, besides itself. A part that is not listed may import
/// nothing, so that a new one has to be given its place here.
const DIRECTION: [(&str, &[&str]); 14] = [
    ("model", &[]),
    ("config", &["model"]),
    ("telemetry", &["model", "review"]),
    ("publish", &["model"]),
    ("leading", &[]),
    ("state", &["leading", "model", "telemetry"]),
    ("review", &["model"]),
    ("certificates", &["leading", "model", "telemetry"]),
    ("poller", &["leading", "model", "publish", "telemetry"]),
    ("kafka", &["model", "publish", "poller", "telemetry"]),
    (
        "k8s",
        &[
            "certificates",
            "leading",
            "model",
            "publish",
            "review",
            "state",
            "telemetry",
        ],
    ),
    (
        "serve",
        &[
            "certificates",
            "leading",
            "model",
            "publish",
            "review",
            "telemetry",
        ],
    ),
    (
        "app",
        &[
            "certificates",
            "config",
            "k8s",
            "kafka",
            "leading",
            "model",
            "poller",
            "publish",
            "review",
            "serve",
            "state",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "config",
            "k8s",
            "kafka",
            "leading",
            "model",
            "poller",
            "publish",
            "review",
            "serve",
            "state",
            "telemetry",
        ],
    ),
];

/// The file that may hold unsafe code.
const UNSAFE_FILE: &str = "kafka/librdkafka/ffi.rs";

/// Lines of a file without its tests.
const LINES_MAX: usize = 400;

/// One source file.
struct Source {
    /// Below `src`, with slashes.
    path: String,
    raw: String,
    /// Without comments, the contents of literals, and test modules.
    code: String,
}

impl Source {
    fn new(path: &str, raw: &str) -> Self {
        Self {
            path: path.to_owned(),
            raw: raw.to_owned(),
            code: without_tests(&blanked(raw)),
        }
    }

    /// The top-level part of the crate that it belongs to; `None` for the crate's root files.
    fn part(&self) -> Option<&str> {
        let first = self.path.split('/').next().unwrap_or_default();
        let part = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(part, "lib" | "main")).then_some(part)
    }

    /// The module path of the file's own module.
    fn modules(&self) -> Vec<&str> {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let path = path.strip_suffix("/mod").unwrap_or(path);
        match path {
            "lib" | "main" => Vec::new(),
            path => path.split('/').collect(),
        }
    }
}

// --- reading Rust ---------------------------------------------------------------------------------

/// The text with comments and the contents of literals replaced by blanks, line breaks kept.
fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    // As many bytes as before, so that places in both texts agree.
    let blank = |out: &mut String, from: usize, to: usize| {
        for c in &chars[from..to.min(chars.len())] {
            match c {
                '\n' => out.push('\n'),
                c => out.extend(std::iter::repeat_n(' ', c.len_utf8())),
            }
        }
    };
    let mut i = 0;
    while i < chars.len() {
        let starts_word = i == 0 || !is_word(at(i - 1));
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => (i..chars.len())
                .find(|j| at(*j) == '\n')
                .unwrap_or(chars.len()),
            ('/', '*') => end_of_block_comment(&chars, i),
            ('"', _) => end_of_string(&chars, i),
            ('b' | 'c', '"') if starts_word => end_of_string(&chars, i + 1),
            ('r', '"' | '#') | ('b' | 'c', 'r')
                if starts_word && raw_hashes(&chars, i).is_some() =>
            {
                end_of_raw_string(&chars, i)
            }
            // A character, unlike a lifetime, has a quote right after it.
            ('\'', '\\') => (i + 3..chars.len())
                .find(|j| at(*j) == '\'')
                .map_or(chars.len(), |j| j + 1),
            ('\'', _) if at(i + 2) == '\'' => i + 3,
            _ => {
                out.push(at(i));
                i += 1;
                continue;
            }
        };
        blank(&mut out, i, end);
        i = end;
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut i = start;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 1),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 1),
            _ => {}
        }
        i += 1;
        if depth == 0 {
            break;
        }
    }
    i
}

fn end_of_string(chars: &[char], quote: usize) -> usize {
    let mut i = quote + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// Where a raw string's quote is and how many hashes it has, if one begins here.
fn raw_hashes(chars: &[char], start: usize) -> Option<(usize, usize)> {
    let after_r = start + if chars[start] == 'r' { 1 } else { 2 };
    let hashes = chars
        .get(after_r..)?
        .iter()
        .take_while(|c| **c == '#')
        .count();
    (chars.get(after_r + hashes) == Some(&'"')).then_some((after_r + hashes, hashes))
}

fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let Some((quote, hashes)) = raw_hashes(chars, start) else {
        return start + 1;
    };
    let closes = |i: &usize| {
        chars[*i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes
    };
    let end = (quote + 1..chars.len()).find(closes);
    end.map_or(chars.len(), |i| i + 1 + hashes)
}

/// The code without items under `#[cfg(test)]`, lines and all.
fn without_tests(code: &str) -> String {
    let mut rest = code;
    let mut out = String::new();
    while let Some(start) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..start]);
        rest = rest.get(item_end(rest, start)..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Where the item that begins at `start` ends: after its block, or its semicolon.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_i32;
    for (i, c) in code.char_indices().skip_while(|(i, _)| *i < start) {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => {
                depth -= 1;
                if depth == 0 && c == '}' {
                    return i + 1;
                }
            }
            ';' if depth == 0 => return i + 1,
            _ => {}
        }
    }
    code.len()
}

/// Test modules in files of their own.
fn test_files(path: &str, raw: &str) -> Vec<String> {
    let code = blanked(raw);
    let folder = path.strip_suffix("mod.rs").map_or_else(
        || match path {
            "lib.rs" | "main.rs" => String::new(),
            path => format!("{}/", path.strip_suffix(".rs").unwrap_or(path)),
        },
        str::to_owned,
    );
    let mut files = Vec::new();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let item = start..item_end(&code, start);
        let Some((_, name)) = code[item.clone()]
            .strip_suffix(';')
            .and_then(|item| item.rsplit_once("mod "))
        else {
            continue;
        };
        let given = raw[item].split("#[path = \"").nth(1);
        match given.and_then(|rest| rest.split('"').next()) {
            // Beside the file that says so.
            Some(given) => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                files.push(
                    format!("{folder}/{given}")
                        .trim_start_matches('/')
                        .to_owned(),
                );
            }
            None => {
                let name = name.trim();
                files.extend([format!("{folder}{name}.rs"), format!("{folder}{name}/")]);
            }
        }
    }
    files
}

/// Every path in `code` that begins with the word `root`, as its segments; groups are taken apart.
fn paths(code: &str, root: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices(root) {
        let before = code[..start].chars().next_back();
        let after = &code[start + root.len()..];
        if before.is_some_and(|c| is_word(c) || c == ':')
            || after.chars().next().is_some_and(is_word)
        {
            continue;
        }
        expand(after.trim_start(), &[root.to_owned()], &mut found);
    }
    found
}

/// Reads `::a::{b, c::d}` after `prefix` and gives what follows it.
fn expand<'a>(mut rest: &'a str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = prefix.to_vec();
    while let Some(after) = rest.strip_prefix("::") {
        rest = after.trim_start();
        if let Some(mut group) = rest.strip_prefix('{') {
            loop {
                group = group.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
                if let Some(after) = group.strip_prefix('}') {
                    return after;
                }
                let (name, after) = word(group);
                if name.is_empty() && !group.starts_with('*') {
                    return group;
                }
                let mut one = path.clone();
                one.push(if name.is_empty() { "*" } else { name }.to_owned());
                group = expand(
                    after.strip_prefix('*').unwrap_or(after).trim_start(),
                    &one,
                    found,
                );
                // A new name for it, `as x`, is none of ours.
                group = &group[group.find([',', '}']).unwrap_or(group.len())..];
            }
        }
        let (name, after) = word(rest);
        if name.is_empty() {
            if rest.starts_with('*') {
                path.push("*".to_owned());
            }
            break;
        }
        path.push(name.to_owned());
        rest = after.trim_start();
    }
    found.push(path);
    rest
}

fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c| !is_word(c)).unwrap_or(text.len()))
}

// --- the rules ------------------------------------------------------------------------------------

/// Imports against the direction.
fn wrong_imports(source: &Source) -> Vec<String> {
    let Some(part) = source.part() else {
        return Vec::new();
    };
    let direction = BTreeMap::from(DIRECTION);
    let allowed = direction.get(part).copied().unwrap_or_default();
    let mut imported: Vec<Vec<String>> = paths(&source.code, "crate");
    imported.extend(paths(&source.code, "lagwise"));
    imported.extend(by_super(source));
    let of = |path: &Vec<String>| path.get(1).cloned();
    let imported: BTreeSet<String> = imported.iter().filter_map(of).collect();
    imported
        .into_iter()
        .filter(|other| other != part && !allowed.contains(&other.as_str()))
        // The crate's own macros, and what `super` means inside a module in a file.
        .filter(|other| direction.contains_key(other.as_str()) || other == "*")
        .map(|other| format!("{}: {part} must not import {other}", source.path))
        .collect()
}

/// Paths through `super` that lead to the crate's root, as if they began with `crate`.
fn by_super(source: &Source) -> Vec<Vec<String>> {
    let depth = source.modules().len();
    let leads_to_root = |path: Vec<String>| {
        let up = path
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        (up == depth).then(|| {
            let rest = path.into_iter().skip(up);
            std::iter::once("crate".to_owned()).chain(rest).collect()
        })
    };
    paths(&source.code, "super")
        .into_iter()
        .filter_map(leads_to_root)
        .collect()
}

/// What is asynchronous, reads a clock, does IO or logs, in the model.
fn impure(source: &Source) -> Vec<String> {
    if source.part() != Some("model") {
        return Vec::new();
    }
    let mut found = Vec::new();
    let has_word = |wanted: &str| {
        let ends = |i: usize| !source.code[i + wanted.len()..].starts_with(is_word);
        let starts = |i: usize| !source.code[..i].ends_with(is_word);
        source
            .code
            .match_indices(wanted)
            .any(|(i, _)| starts(i) && ends(i))
    };
    for wanted in ["async", "await", "tokio", "tracing", "println", "eprintln"] {
        if has_word(wanted) {
            found.push(wanted.to_owned());
        }
    }
    if source.code.contains("::now()") {
        found.push("::now()".to_owned());
    }
    let std_paths = paths(&source.code, "std");
    let modules = std_paths.iter().filter_map(|path| path.get(1));
    let barred = ["fs", "net", "env", "io", "process", "thread"];
    found.extend(
        modules
            .filter(|name| barred.contains(&name.as_str()))
            .map(|name| format!("std::{name}")),
    );
    found
        .into_iter()
        .map(|what| format!("{}: the model must not know {what}", source.path))
        .collect()
}

/// Unsafe code elsewhere than in its one file, or there without a reason.
fn careless(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    // Tests are no exception.
    let code = blanked(&source.raw);
    let raw: Vec<&str> = source.raw.lines().collect();
    for (number, line) in code.lines().enumerate() {
        for (at, _) in line.match_indices("unsafe") {
            let after = &line[at + "unsafe".len()..];
            if line[..at].ends_with(is_word) || after.starts_with(is_word) {
                continue;
            }
            let place = format!("{}:{}", source.path, number + 1);
            if source.path != UNSAFE_FILE {
                found.push(format!("{place}: unsafe code outside of {UNSAFE_FILE}"));
                continue;
            }
            let what = after.trim_start();
            if what.starts_with("extern") {
                continue;
            }
            let wanted = if what.starts_with("fn ") {
                "# Safety"
            } else {
                "// SAFETY:"
            };
            // Above the statement that it is part of: comments, attributes, and the statement's own lines.
            let above = raw[..number].iter().rev().take(6).copied();
            let told = above
                .take_while(|line| {
                    !line.trim_end().ends_with(['}', ';']) || line.trim_start().starts_with("//")
                })
                .any(|line| line.contains(wanted));
            if !told {
                found.push(format!("{place}: unsafe code without {wanted}"));
            }
        }
    }
    found
}

/// Files that are too long.
fn long(source: &Source) -> Option<String> {
    // Documentation counts, tests do not.
    let raw_lines = source.raw.lines().count();
    let test_lines = blanked(&source.raw).lines().count() - source.code.lines().count();
    let lines = raw_lines - test_lines;
    (lines > LINES_MAX).then(|| {
        format!(
            "{}: {lines} lines without tests, at most {LINES_MAX}",
            source.path
        )
    })
}

// --- the crate ------------------------------------------------------------------------------------

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = collect(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let tests: Vec<String> = read
        .iter()
        .flat_map(|(path, raw)| test_files(path, raw))
        .collect();
    let is_test = |path: &str| {
        tests
            .iter()
            .any(|test| path == test || (test.ends_with('/') && path.starts_with(test)))
    };
    let sources = read.iter().filter(|(path, _)| !is_test(path));
    sources.map(|(path, raw)| Source::new(path, raw)).collect()
}

/// The Rust files below `root`, by their paths from there.
fn collect(root: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(root).unwrap_or(&path);
                let below = below.to_string_lossy().replace('\\', "/");
                found.insert(below, fs::read_to_string(&path)?);
            }
        }
    }
    Ok(found)
}

fn assert_none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn imports_follow_the_direction() {
    let sources = sources();
    assert!(sources.len() > 30, "only {} files were read", sources.len());
    assert_none(sources.iter().flat_map(wrong_imports).collect());
}

#[test]
fn every_part_of_the_crate_has_its_place() {
    let sources = sources();
    let parts: BTreeSet<&str> = sources.iter().filter_map(Source::part).collect();
    let placed: BTreeSet<&str> = DIRECTION.iter().map(|(part, _)| *part).collect();
    assert!(
        parts.is_subset(&placed),
        "without a place: {:?}",
        parts.difference(&placed)
    );
}

#[test]
fn the_model_is_pure() {
    assert_none(sources().iter().flat_map(impure).collect());
}

#[test]
fn unsafe_code_is_in_one_file_and_explained() {
    let sources = sources();
    assert!(sources.iter().any(|source| source.path == UNSAFE_FILE));
    assert_none(sources.iter().flat_map(careless).collect());
}

#[test]
fn no_file_is_too_long() {
    assert_none(sources().iter().filter_map(long).collect());
}

// --- that the checks can fail ---------------------------------------------------------------------

#[test]
fn a_planted_import_is_found() {
    for (path, code, expected) in [
        ("kafka/mod.rs", "use crate::serve::status;", "serve"),
        (
            "serve/auth.rs",
            "fn f() { crate::k8s::hpa::watch(); }",
            "k8s",
        ),
        (
            "k8s/hpa.rs",
            "use crate::{model::types::Lag, kafka::{self as k, Source}};",
            "kafka",
        ),
        (
            "k8s/hpa.rs",
            "use crate::{\n    model::{\n        types::Lag,\n    },\n    poller,\n};",
            "poller",
        ),
        ("model/lag.rs", "use crate::publish::Reader;", "publish"),
        ("model/lag.rs", "use crate :: telemetry ;", "telemetry"),
        (
            "model/deep/er.rs",
            "use super::super::super::config;",
            "config",
        ),
        ("model/mod.rs", "use super::config;", "config"),
        ("publish.rs", "use super::{model, poller};", "poller"),
        (
            "config/cap.rs",
            "pub use crate::telemetry as t;",
            "telemetry",
        ),
        (
            "poller.rs",
            "fn f<'a>(x: &'a str) -> char { let _ = \"\\\"\"; crate::kafka::f(); 'x' }",
            "kafka",
        ),
        ("app.rs", "use crate::cli;", "cli"),
        (
            "publish.rs",
            "#[cfg(test)]\nmod tests { use crate::cli; }\nuse crate::app;",
            "app",
        ),
        ("telemetry.rs", "use crate::*;", "*"),
        ("unheard_of.rs", "use crate::model::types;", "model"),
    ] {
        let found = wrong_imports(&Source::new(path, code));
        assert_eq!(found.len(), 1, "{code}: {found:?}");
        assert!(
            found[0].ends_with(&format!("must not import {expected}")),
            "{found:?}"
        );
    }
}

#[test]
fn what_is_no_import_is_not_found() {
    for (path, code) in [
        (
            "model/lag.rs",
            "// use crate::kafka;\n/* crate::kafka /* crate::serve */ crate::k8s */",
        ),
        (
            "model/lag.rs",
            "/// [`crate::kafka`]\nconst A: &str = \"crate::kafka\"; const B: &str = r#\"\"crate::k8s\"#;",
        ),
        (
            "model/lag.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::kafka;\n    fn f() { \"}\"; '}'; }\n}",
        ),
        (
            "model/lag.rs",
            "#[cfg(test)]\n#[allow(unused)]\nuse crate::kafka;",
        ),
        (
            "model/lag.rs",
            "use super::types; use other_crate::kafka; use a::crate_::kafka;",
        ),
        (
            "kafka/librdkafka/mod.rs",
            "use super::Settings; use crate::kafka::SetupError; use crate::model::types::{Lag, Offset};",
        ),
        ("lib.rs", "pub mod kafka; use crate::kafka;"),
    ] {
        let found = wrong_imports(&Source::new(path, code));
        assert!(found.is_empty(), "{code}: {found:?}");
    }
}

#[test]
fn a_planted_impurity_is_found() {
    for code in [
        "async fn f() {}",
        "use tokio::sync::watch;",
        "fn f() { let _ = std::time::Instant::now(); }",
        "use std::{fs, fmt};",
        "fn f() { std::env::var(\"A\"); }",
        "use std::net::IpAddr;",
        "fn f() { tracing::info!(\"\"); }",
    ] {
        assert_eq!(
            impure(&Source::new("model/lag.rs", code)).len(),
            1,
            "{code}"
        );
        assert!(impure(&Source::new("poller.rs", code)).is_empty());
    }
    let pure = "use std::{fmt, time::Instant}; // tokio, async\nfn asynchronous(now: Instant) {}";
    assert!(impure(&Source::new("model/lag.rs", pure)).is_empty());
}

#[test]
fn planted_unsafe_code_is_found() {
    let count = |path: &str, code: &str| careless(&Source::new(path, code)).len();
    for code in [
        "unsafe { f() }",
        "unsafe fn f() {}",
        "unsafe impl Send for A {}",
        "#[cfg(test)]\nmod t { fn f() { unsafe { g() } } }",
    ] {
        assert_eq!(count("poller.rs", code), 1, "{code}");
        assert_eq!(count(UNSAFE_FILE, code), 1, "{code}");
        assert_eq!(
            count(
                UNSAFE_FILE,
                &format!("// SAFETY: of before.\nlet a = b;\n{code}")
            ),
            1,
            "{code}"
        );
    }
    for code in [
        "// SAFETY: valid.\nlet a = unsafe { f() };",
        "// SAFETY: valid,\n// as told.\nlet a =\n    unsafe { f() };",
        "/// Does.\n///\n/// # Safety\n/// `a` is valid.\nunsafe fn f() {}",
        "#![allow(unsafe_code)]\n// unsafe\nunsafe extern \"C\" {}",
    ] {
        assert_eq!(count(UNSAFE_FILE, code), 0, "{code}");
    }
}

#[test]
fn a_planted_long_file_is_found() {
    let lines = |n: usize| "fn f() {}\n".repeat(n);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(500));
    assert!(long(&Source::new("a.rs", &lines(401))).is_some());
    assert!(long(&Source::new("a.rs", &format!("{}{tests}", lines(390)))).is_none());
    assert!(long(&Source::new("a.rs", &format!("{}{tests}", lines(401)))).is_some());
}

#[test]
fn test_modules_in_files_of_their_own_are_known() {
    let of = |path: &str| {
        test_files(
            path,
            "mod a;\n#[cfg(test)]\npub(crate) mod fixtures;\n#[cfg(test)]\nmod tests { mod b; }",
        )
    };
    assert_eq!(of("model/mod.rs"), ["model/fixtures.rs", "model/fixtures/"]);
    assert_eq!(of("poller.rs"), ["poller/fixtures.rs", "poller/fixtures/"]);
    assert_eq!(of("lib.rs"), ["fixtures.rs", "fixtures/"]);
    let elsewhere = "// für alle\n#[cfg(test)]\n#[path = \"external_tests.rs\"]\nmod tests;";
    assert_eq!(
        test_files("serve/external.rs", elsewhere),
        ["serve/external_tests.rs"]
    );
}
