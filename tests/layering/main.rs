//! Checks rules of the design that the compiler does not check. `planted.txt` has violations that each rule must find.

mod source;

use std::collections::{BTreeSet, VecDeque};
use std::{fs, io, path::Path};

use source::{Source, Words, is_in, name_below, parse};

/// What each top-level part of the crate may import besides itself.
const DIRECTION: &str = "
    model:
    crypto:
    blocking_work:
    worker_threads:
    config: model
    authentication: model
    telemetry: authentication model
    snapshot_channel: model
    leader_election: model telemetry
    persistence: blocking_work leader_election model telemetry
    certificates: crypto leader_election model telemetry
    poller: leader_election model snapshot_channel telemetry
    kafka: blocking_work crypto model poller snapshot_channel telemetry
    k8s: authentication certificates leader_election model persistence snapshot_channel telemetry
    serve: authentication blocking_work certificates crypto leader_election model snapshot_channel telemetry worker_threads
    daemon: authentication blocking_work certificates config k8s kafka leader_election model persistence poller \
        serve snapshot_channel telemetry worker_threads
    simulate: model
    cli: authentication config crypto daemon k8s kafka leader_election model persistence poller \
        serve simulate snapshot_channel telemetry";

/// The folders of the model. Each may import those before it.
const FOLDERS: &str = "units findings kafka settings hpa targets lag policy evaluation keda decisions diagnostics snapshot";

/// Words that the model must not use: asynchronous code, I/O, logging, frameworks.
const IMPURE: &str = "async await tokio futures tracing println eprintln axum clap hyper kube \
     k8s_openapi kafka_protocol prometheus rdkafka reqwest rustls";
const IMPURE_STD: &str = "fs net env io process thread";

/// The files with unsafe code. Clippy requires a comment on why each use is safe.
const UNSAFE_FILES: [&str; 2] = [
    "kafka/librdkafka/ffi.rs",
    "kafka/librdkafka/ffi/allowed_hosts.rs",
];

const MAX_LINES: usize = 400;

/// First words of the docstrings of limits, after the beginning of their names.
const LIMIT_WORDS: [(&str, &str); 2] = [
    ("MAX_", "maximum largest longest most highest upper"),
    ("MIN_", "minimum smallest shortest fewest lowest lower"),
];

/// Finds violations of a rule in one of a crate's files.
type Check = fn(&Source, &[Source]) -> Vec<String>;

const RULES: [(&str, Check); 11] = [
    ("direction", find_imports_of_parts),
    ("folders", find_imports_of_folders),
    ("cycles", find_import_cycle),
    ("pure", find_impurities),
    ("unsafe", find_unsafe_code),
    ("long", find_too_many_lines),
    ("types", find_shared_type_names),
    ("told", |file, _| select(&file.names, |f| f == "fn told")),
    ("of", |file, _| {
        select(&file.names, |f| f == "no conversion, fn of")
    }),
    ("style", find_other_module_style),
    ("limits", find_misnamed_limits),
];

fn has(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|listed| listed == word)
}

fn select(words: &Words, is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let wrong = words.iter().filter(|(_, word)| is_wrong(word));
    Vec::from_iter(wrong.map(|(line, word)| format!("{line}: {word}")))
}

fn find_imports_of_parts(file: &Source, _: &[Source]) -> Vec<String> {
    find_imports(file, "crate", |part| {
        let mut lines = DIRECTION.lines().map(str::trim);
        lines.find_map(|line| line.strip_prefix(part)?.strip_prefix(':'))
    })
}

fn find_imports_of_folders(file: &Source, _: &[Source]) -> Vec<String> {
    find_imports(file, "crate::model", |folder| {
        let before = FOLDERS.split(folder).next();
        before.filter(|_| has(FOLDERS, folder))
    })
}

/// Finds imports between the names below `root` other than those that are allowed.
fn find_imports(file: &Source, root: &str, allowed: fn(&str) -> Option<&str>) -> Vec<String> {
    let own = name_below(root, &file.module).filter(|_| !file.words.is_empty());
    match own.map(allowed) {
        None => Vec::new(),
        Some(None) => vec![" has no place".to_owned()],
        Some(Some(allowed)) => select(&file.words, |path| {
            let other = name_below(root, path);
            other != own && other.is_some_and(|other| !has(allowed, other))
        }),
    }
}

/// Finds the shortest cycle of imports between files of the model.
fn find_import_cycle(file: &Source, files: &[Source]) -> Vec<String> {
    let is_of_model = is_in("crate::model", &file.module);
    let mut chains = VecDeque::from_iter(is_of_model.then(|| vec![file]));
    let mut seen = BTreeSet::new();
    while let Some(chain) = chains.pop_front() {
        let imports = &chain[chain.len() - 1].imports;
        if imports.contains(&file.module) {
            let chain = Vec::from_iter(chain.iter().map(|file| file.path.as_str()));
            return vec![format!(" {}", chain.join(" -> "))];
        }
        for next in files.iter().filter(|next| imports.contains(&next.module)) {
            if seen.insert(&next.path) {
                chains.push_back([&chain[..], &[next]].concat());
            }
        }
    }
    Vec::new()
}

fn find_impurities(file: &Source, _: &[Source]) -> Vec<String> {
    select(&file.words, |path| {
        let is_std = name_below("std", path).is_some_and(|name| has(IMPURE_STD, name));
        let is_impure = path.split("::").any(|name| has(IMPURE, name));
        is_in("crate::model", &file.module) && (is_std || is_impure || path.ends_with("::now"))
    })
}

fn find_unsafe_code(file: &Source, _: &[Source]) -> Vec<String> {
    let is_unsafe =
        |word: &str| has("unsafe unsafe_code", word) && !UNSAFE_FILES.contains(&file.path.as_str());
    select(&file.words_with_tests, is_unsafe)
}

fn find_too_many_lines(file: &Source, _: &[Source]) -> Vec<String> {
    let lines = file.lines;
    Vec::from_iter((lines > MAX_LINES).then(|| format!(" {lines} lines without tests")))
}

fn find_shared_type_names(file: &Source, files: &[Source]) -> Vec<String> {
    select(&file.names, |name| {
        let uses = files.iter().flat_map(|file| &file.names);
        let is_shared = uses.filter(|(_, other)| other == name).count() > 1;
        is_shared && name.starts_with("type ")
    })
}

fn find_other_module_style(file: &Source, _: &[Source]) -> Vec<String> {
    let is_named_so = file.path.ends_with("mod.rs") || file.path.ends_with("_tests.rs");
    let mut lines = file.raw.lines().map(str::trim_start);
    let is_wrong = is_named_so || lines.any(|line| line.starts_with("#[path"));
    Vec::from_iter(is_wrong.then(|| " is in another module style".to_owned()))
}

/// Finds maxima and minima that are not named `MAX_...` and `MIN_...`. Timeouts, intervals and defaults keep their
/// names, and so do ranges, whose docstrings begin with "Minimum and maximum".
fn find_misnamed_limits(file: &Source, _: &[Source]) -> Vec<String> {
    select(&file.constants, |constant| {
        let (name, doc) = constant.split_once(':').unwrap_or((constant, ""));
        let doc = doc
            .to_lowercase()
            .replace("minimum and maximum", "range of");
        let mut words = doc.split_whitespace().filter(|word| *word != "the");
        let first = words.next().unwrap_or_default();
        let is_period = name.ends_with("TIMEOUT") || name.ends_with("INTERVAL");
        let has_start = |start: &str| name.starts_with(start);
        let is_misnamed = LIMIT_WORDS
            .iter()
            .any(|(start, words)| has(words, first) && !has_start(start) && !is_period);
        let is_of_unknown_side = has("limit limits", first);
        let has_other_form = name.split('_').any(|word| has("MAX MIN LIMIT", word));
        let is_in_form = ["MAX_", "MIN_", "DEFAULT_"].into_iter().any(has_start);
        is_misnamed || ((has_other_form || is_of_unknown_side) && !is_in_form)
    })
}

fn find(check: Check, files: &[Source]) -> BTreeSet<String> {
    let found = |file| {
        Vec::from_iter(
            check(file, files)
                .iter()
                .map(|what| format!("{}:{what}", file.path)),
        )
    };
    files.iter().flat_map(found).collect()
}

fn read(folder: &Path, prefix: &str) -> io::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().display());
        if path.is_dir() {
            files.extend(read(&path, &format!("{name}/"))?);
        } else if name.ends_with(".rs") {
            files.push((name, fs::read_to_string(&path)?));
        }
    }
    Ok(files)
}

#[test]
fn the_crate_follows_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = parse(read(&root, "").expect("the sources"));
    for known in UNSAFE_FILES {
        assert!(files.iter().any(|file| file.path == known), "{known}");
    }
    let mut failures = String::new();
    for (rule, check) in RULES {
        let found = find(check, &files);
        let list: String = found.iter().map(|breach| format!("\n  {breach}")).collect();
        if !found.is_empty() {
            failures += &format!("{rule}, {} breaches:{list}\n", found.len());
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// Each line of the table is a rule, files, and a part of every breach, or `nothing`.
#[test]
fn every_rule_fails_on_a_planted_breach() {
    let mut shown = BTreeSet::new();
    for case in include_str!("planted.txt").lines() {
        let long = "fn f() {}\n".repeat(MAX_LINES + 1);
        let text = case.replace("\\n", "\n").replace("LONG", &long);
        let (planted, expected) = text.rsplit_once("=> ").expect("an expectation");
        let (rule, files) = planted.split_once(" @ ").expect("a rule");
        let files = files.split("@ ").filter_map(|file| file.split_once(": "));
        let files = files.map(|(path, code)| (path.to_owned(), code.to_owned()));
        let known = RULES.into_iter().find(|(name, _)| *name == rule);
        let (rule, check) = known.expect("a known rule");
        let found = find(check, &parse(files.collect()));
        let is_expected = found.iter().all(|breach| breach.contains(expected));
        assert!(
            is_expected && found.is_empty() == (expected == "nothing"),
            "{case}: {found:?}"
        );
        shown.extend((!found.is_empty()).then_some(rule));
    }
    assert_eq!(
        shown.len(),
        RULES.len(),
        "only {shown:?} were shown to fail"
    );
}
