//! Checks the documentation: links resolve, commands print what the text shows, the book builds.
//!
//! The word after the language of a fenced block says how it is checked:
//! - `yaml file=NAME` is written to NAME in a temporary folder of the page;
//! - `yaml cluster` is an entry of `clusters`, which `lagwise config check` accepts;
//! - `sh runnable` is run there, with `lagwise` on the path, and must succeed (`exit=N`: end with N);
//! - `sh guide release` is also run with a stand-in for kubectl, by a test of its own;
//! - `sh guide` is run by the end-to-end test `guide`, on a real Kafka and a real Kubernetes control plane;
//! - `sh skip=REASON` is not run, for one of the [reasons](NOT_RUN);
//! - `output`, right after it, is what the command prints;
//! - `output snapshot=PATH` is the content of a snapshot of the unit tests, for commands that need a cluster.
//!
//! The reference pages are generated from the code. `LAGWISE_UPDATE_DOCS=1 cargo test --test docs` rewrites them, and
//! the output of commands.

#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

mod chart;
mod markdown;
mod reference;
mod repository;
mod stand_in;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use lagwise::model::diagnostics::preflight::PreflightProblem;
use lagwise::model::settings::annotation_keys::{PREFIX, WRITTEN};
use lagwise::model::settings::{FileSection, SETTINGS};
use markdown::{Block, Page};
use regex::Regex;
use repository::{folder, markdown_files, rust_text};

const MAX_README_LINES: usize = 200;

const UPDATE: &str = "LAGWISE_UPDATE_DOCS";

fn is_update() -> bool {
    env::var_os(UPDATE).is_some_and(|value| !value.is_empty() && value != "0")
}

#[test]
fn the_readme_is_short() {
    let lines = Page::read("README.md").text.lines().count();
    assert!(
        lines <= MAX_README_LINES,
        "README.md has {lines} lines, more than {MAX_README_LINES}: move some of it to docs/src"
    );
}

#[test]
fn actions_of_workflows_are_pinned() {
    assert_eq!(repository::unpinned_actions(), [""; 0]);
}

/// The commands that verify a release expect the workflow that signs it, from its tags, and the names that it publishes.
#[test]
fn the_identity_to_verify_is_that_of_the_workflow() {
    let workflows = repository::signing_workflows();
    let [(path, workflow)] = &workflows[..] else {
        panic!("not one workflow signs: {workflows:?}");
    };
    for needed in [
        "on:\n  push: {tags: [\"v*\"]}\n",
        "REGISTRY: ghcr.io\n",
        "IMAGE: ghcr.io/${{ github.repository }}\n",
        "\"oci://$IMAGE/charts\"",
        "--bundle target/dist/SHA256SUMS.sigstore.json",
    ] {
        assert!(workflow.contains(needed), "{path} lacks {needed}");
    }
    let page = Page::read("docs/src/guides/verify-a-release.md");
    let commands: String = page.blocks().into_iter().map(|b| b.content).collect();
    let commands = commands.replace("\\\n", " ");
    let expected = [
        (
            "--certificate-identity",
            format!("https://github.com/OWNER/REPOSITORY/{path}@refs/tags/vVERSION"),
        ),
        (
            "--certificate-oidc-issuer",
            "https://token.actions.githubusercontent.com".to_owned(),
        ),
        ("--signer-workflow", format!("OWNER/REPOSITORY/{path}")),
        ("--source-ref", "refs/tags/vVERSION".to_owned()),
        ("--repo", "OWNER/REPOSITORY".to_owned()),
    ];
    for (option, value) in expected {
        let option = format!("{option} ");
        let given = commands.split(&option).skip(1);
        let given: BTreeSet<_> = given
            .filter_map(|rest| rest.split_whitespace().next())
            .collect();
        assert_eq!(given, [&*value].into(), "{option}");
    }
    let verified = Regex::new(r"(?m)^cosign verify(?:-blob)? ").unwrap();
    assert_eq!(verified.find_iter(&commands).count(), 3);
    assert_eq!(commands.matches("--certificate-identity ").count(), 3);
    assert!(commands.contains("helm pull oci://ghcr.io/OWNER/REPOSITORY/charts/lagwise "));
}

#[test]
fn links_resolve() {
    let pages: BTreeMap<String, Page> = markdown_files()
        .into_iter()
        .map(|path| (path.clone(), Page::read(&path)))
        .collect();
    let broken: Vec<String> = pages
        .iter()
        .flat_map(|(path, page)| {
            page.links()
                .into_iter()
                .filter_map(|link| broken(path, &link, &pages))
        })
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// The problem of a link of a page, if it has one.
fn broken(path: &str, link: &str, pages: &BTreeMap<String, Page>) -> Option<String> {
    if ["http://", "https://", "mailto:"]
        .iter()
        .any(|scheme| link.starts_with(scheme))
    {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => path.to_owned(),
        file => repository::resolve_link(path, file),
    };
    if !folder().join(&target).exists() {
        return Some(format!("{path}: {link}: no file {target}"));
    }
    let is_in_book = |path: &str| path.starts_with("docs/src/");
    if is_in_book(path) && !is_in_book(&target) {
        return Some(format!(
            "{path}: {link}: leaves the book, where the link would be dead"
        ));
    }
    let has_anchor = pages
        .get(&target)
        .is_none_or(|page| page.anchors().contains(anchor));
    (!anchor.is_empty() && !has_anchor)
        .then(|| format!("{path}: {link}: no heading of {target} has this anchor"))
}

#[test]
fn pages_of_check_exist() {
    for problem in PreflightProblem::ALL {
        let (file, anchor) = problem
            .page()
            .split_once('#')
            .unwrap_or((problem.page(), ""));
        let page = Page::read(&format!("docs/src/{}", file.replace(".html", ".md")));
        let has_anchor = anchor.is_empty() || page.anchors().contains(anchor);
        assert!(
            has_anchor,
            "{problem:?}: no heading of {file} has the anchor {anchor}"
        );
    }
}

#[test]
fn named_scenarios_exist() {
    let name = Regex::new("`([a-z_]+)::([a-z0-9_]+)`").unwrap();
    for page in ["docs/src/compatibility.md", "docs/src/guides/security.md"] {
        let page = Page::read(page);
        let missing: Vec<&str> = name
            .captures_iter(&page.text)
            .map(|found| found.extract::<2>())
            // Log targets have the same form.
            .filter(|(_, [suite, _])| *suite != "lagwise")
            .filter(|(_, [suite, scenario])| {
                let path = folder().join(format!("tests/e2e/{suite}.rs"));
                let listed = fs::read_to_string(path).unwrap_or_default();
                // As a string, or as the argument of a macro.
                let mut ends = ['"', ')'].into_iter();
                !ends.any(|end| listed.contains(&format!("::{scenario}{end}")))
            })
            .map(|(all, _)| all)
            .collect();
        assert!(missing.is_empty(), "tests/e2e lacks {missing:?}");
        assert!(name.is_match(&page.text), "no scenario is named");
    }
}

/// Tests that are named after their file, as in "`tests/a.rs`: `one`, `two`".
#[test]
fn named_tests_exist() {
    let list = Regex::new("`((?:src|tests)/[a-z_/]+\\.rs)`: ((?:`[a-z0-9_]+`(?:, )?)+)").unwrap();
    let name = Regex::new("`([a-z0-9_]+)`").unwrap();
    let page = Page::read("docs/src/guides/security.md");
    let mut found = 0;
    for named in list.captures_iter(&page.text) {
        let (_, [file, tests]) = named.extract();
        let text = fs::read_to_string(folder().join(file)).unwrap_or_default();
        for test in name.captures_iter(tests) {
            let (_, [test]) = test.extract();
            assert!(
                text.contains(&format!("fn {test}(")),
                "{file} has no test {test}"
            );
            found += 1;
        }
    }
    assert!(found > 20, "{found} tests are named");
}

#[test]
fn the_summary_lists_every_page_once() {
    let listed: Vec<String> = Page::read("docs/src/SUMMARY.md")
        .links()
        .iter()
        .map(|link| format!("docs/src/{link}"))
        .collect();
    let once: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(listed.len(), once.len(), "a page is listed twice");
    for path in markdown_files() {
        if path.starts_with("docs/src/") && path != "docs/src/SUMMARY.md" {
            assert!(once.contains(&path), "docs/src/SUMMARY.md lacks {path}");
        }
    }
}

/// Pages of which every command is run, or says why not.
const GUIDES: [&str; 2] = ["README.md", "docs/src/install.md"];

/// Why a command is not run by a test.
const NOT_RUN: &[(&str, &str)] = &[
    (
        "compiles",
        "it compiles for minutes; the test of this page is the result",
    ),
    (
        "registry",
        "it pushes to a registry; tests/image builds the image",
    ),
    (
        "runs-until-stopped",
        "it does not end by itself; all end-to-end tests run it",
    ),
];

#[test]
fn every_command_of_the_guides_is_run_or_says_why_not() {
    let mut problems = Vec::new();
    for path in GUIDES {
        for block in Page::read(path).blocks() {
            if block.language() != "sh" {
                continue;
            }
            let reason = block.attribute("skip");
            let has_reason = |reason| NOT_RUN.iter().any(|(known, _)| *known == reason);
            let is_run = block.has("runnable") || block.has("guide");
            if is_run == reason.is_some() || !reason.is_none_or(has_reason) {
                let line = block.line;
                problems.push(format!(
                    "{path}:{line}: neither run nor left out for a known reason"
                ));
            }
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The Secret that a recipe creates has the files that its values read, and there is a namespace for it.
#[test]
fn recipes_create_the_secrets_that_their_values_read() {
    const NAMESPACE: &str = "kubectl create namespace lagwise";
    const SECRET: &str = "--namespace lagwise create secret generic kafka-login";
    let key = Regex::new(r"--from-(?:file|literal)=([a-zA-Z0-9.-]+)").unwrap();
    let include = Regex::new(r"/(charts/lagwise/examples/[a-z-]+\.yaml)").unwrap();
    let file = Regex::new(r"/etc/lagwise/kafka/([a-z0-9.-]+[a-z0-9])").unwrap();
    let (mut problems, mut count) = (Vec::new(), 0);
    for path in markdown_files() {
        let mut created = BTreeSet::new();
        for block in Page::read(&path).blocks() {
            let text = block.content.as_str();
            if let Some((before, after)) = text.split_once(SECRET) {
                let keys = key.captures_iter(after).map(|found| found[1].to_owned());
                created = keys.collect();
                if !before.contains(NAMESPACE) {
                    problems.push(format!("{path}:{}: no {NAMESPACE}", block.line));
                }
            }
            for example in include.captures_iter(text) {
                let values = fs::read_to_string(folder().join(&example[1])).unwrap();
                if !values.contains("existingSecret: {name: kafka-login}") {
                    continue;
                }
                count += 1;
                for read in file.captures_iter(&values) {
                    if !created.contains(&read[1]) {
                        let line = block.line;
                        problems.push(format!("{path}:{line}: nothing creates {}", &read[0]));
                    }
                }
            }
        }
    }
    assert!(count >= 8, "only {count} values with a Secret are shown");
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Checks commands that no test runs: subcommands and options of lagwise, annotations, and values for Helm.
#[test]
fn names_in_shown_commands_exist() {
    let annotation = Regex::new(r"lagwise\.dev/[a-z-]+[a-z]").unwrap();
    let values = Regex::new(r"--values (?:charts/lagwise/examples/)?([a-z-]+\.yaml)").unwrap();
    let set = Regex::new(r"--set ([A-Za-z.]+)=").unwrap();
    let schema = fs::read_to_string(folder().join("charts/lagwise/values.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let place = tempfile::tempdir().unwrap();
    let (mut problems, mut count) = (Vec::new(), 0);
    for path in markdown_files() {
        let blocks = Page::read(&path).blocks();
        for block in blocks.iter().filter(|block| block.language() == "sh") {
            let mut missing = |what: &str| problems.push(format!("{path}:{}: {what}", block.line));
            for found in annotation.find_iter(&block.content) {
                let key = found.as_str();
                let name = key.strip_prefix(PREFIX);
                let is_known = SETTINGS.iter().any(|setting| Some(setting.key) == name)
                    || WRITTEN.iter().any(|(written, _)| *written == key);
                if !is_known {
                    missing(&format!("there is no annotation {key}"));
                }
            }
            for found in values.captures_iter(&block.content) {
                let example = format!("charts/lagwise/examples/{}", &found[1]);
                let is_on_page = blocks
                    .iter()
                    .any(|b| b.attribute("file") == Some(&found[1]));
                if !is_on_page && &found[1] != "values.yaml" && !folder().join(&example).exists() {
                    missing(&format!("there is no {example}"));
                }
            }
            for found in set.captures_iter(&block.content) {
                let mut keys = found[1].split('.');
                let value = keys.try_fold(&schema, |at, key| at.get("properties")?.get(key));
                if value.is_none() {
                    missing(&format!("the chart has no value {}", &found[1]));
                }
            }
            let lines = block.content.replace("\\\n", " ");
            for line in lines.lines() {
                let Some(arguments) = line.strip_prefix("lagwise ") else {
                    continue;
                };
                count += 1;
                // Up to a pipe, a file or a comment.
                let arguments = arguments
                    .split(['|', '<', '>', '#'])
                    .next()
                    .unwrap_or_default();
                let (code, printed) = run(&format!("lagwise {arguments} --help"), place.path());
                if code != "0" {
                    missing(&format!("{line}: {printed}"));
                }
            }
        }
    }
    assert!(count > 40, "only {count} commands are shown");
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn commands_print_what_is_shown() {
    let mut count = 0;
    let mut problems = Vec::new();
    for path in markdown_files() {
        let mut page = Page::read(&path);
        let place = tempfile::tempdir().unwrap();
        // Each change moves the blocks after it, so the page is read again for the next one.
        let mut next = 0;
        while let Some(block) = page.blocks().into_iter().nth(next) {
            next += 1;
            if let Some(name) = block.attribute("file") {
                fs::write(place.path().join(name), &block.content).unwrap();
            }
            if block.has("cluster") {
                problems.extend(refused_cluster(&page, &block, place.path()));
            }
            if let Some(snapshot) = block.attribute("snapshot") {
                let held = repository::snapshot(snapshot);
                problems.extend(compare(&mut page, &block, &held));
            }
            if !block.has("runnable") {
                continue;
            }
            count += 1;
            let (code, printed) = run(&block.content, place.path());
            let wanted = block.attribute("exit").unwrap_or("0");
            if code != wanted {
                problems.push(format!(
                    "{path}:{}: exit code {code}, expected {wanted}\n{}{printed}",
                    block.line, block.content
                ));
            }
            let after = page.blocks().into_iter().nth(next);
            if let Some(shown) = after.filter(|after| after.language() == "output") {
                problems.extend(compare(&mut page, &shown, &printed));
            }
        }
        page.write();
    }
    assert!(count >= 5, "only {count} blocks are marked as runnable");
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The problem of a block that shows an output, if it has one and is not rewritten.
fn compare(page: &mut Page, shown: &Block, output: &str) -> Option<String> {
    if shown.content == output {
        return None;
    }
    if is_update() {
        page.replace(shown, output);
        return None;
    }
    Some(format!(
        "{}:{}: the output is another one; {UPDATE}=1 rewrites it:\n{output}",
        page.path, shown.line
    ))
}

/// Why `lagwise config check` refuses an entry of `clusters`, if it does.
fn refused_cluster(page: &Page, block: &Block, place: &Path) -> Option<String> {
    // What secrets refer to is not there.
    let reference = Regex::new(r"\$\{(env|file):[^}]*\}").unwrap();
    let mut entry = reference.replace_all(&block.content, "secret").into_owned();
    // The same holds for files of certificates.
    let made = rcgen::generate_simple_self_signed(["kafka".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    for (name, content) in [
        ("ssl.ca.location", &certificate),
        ("ssl.certificate.location", &certificate),
        ("ssl.key.location", &key),
    ] {
        let file = place.join(name);
        fs::write(&file, content).unwrap();
        let written = Regex::new(&format!("{}: .*", regex::escape(name))).unwrap();
        let here = format!("{name}: {}", file.display());
        entry = written.replace_all(&entry, here.as_str()).into_owned();
    }
    fs::write(place.join("cluster.yaml"), format!("clusters:\n{entry}")).unwrap();
    let (code, printed) = run("lagwise config check cluster.yaml", place);
    (code != "0").then(|| format!("{}:{}: {printed}", page.path, block.line))
}

/// Runs a block of shell commands. Returns the exit code and the output.
fn run(commands: &str, place: &Path) -> (String, String) {
    let binary = Path::new(env!("CARGO_BIN_EXE_lagwise")).parent().unwrap();
    let path = env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", commands])
        .current_dir(place)
        .env("PATH", format!("{}:{path}", binary.display()))
        // No Kubernetes cluster that this machine may know.
        .env("HOME", place)
        .env("KUBECONFIG", place.join("no-kubeconfig"))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let code = output
        .status
        .code()
        .map_or("none".into(), |c| c.to_string());
    let text = [output.stdout, output.stderr].concat();
    (code, String::from_utf8(text).unwrap())
}

#[test]
fn the_reference_is_up_to_date() {
    let mut outdated = Vec::new();
    for (name, made) in reference::PAGES {
        let path = format!("docs/src/reference/{name}");
        let mut page = Page::read(&path);
        let made = made();
        let is_same = page.between(reference::BEGIN, reference::END) == made;
        if !is_same && is_update() {
            page.replace_between(reference::BEGIN, reference::END, &made);
            page.write();
        } else if !is_same {
            outdated.push(path);
        }
    }
    assert!(
        outdated.is_empty(),
        "out of date: {}; {UPDATE}=1 cargo test --test docs rewrites them",
        outdated.join(", ")
    );
}

#[test]
fn the_example_file_describes_every_setting() {
    let path = folder().join("config/lagwise.yaml");
    let mut text = fs::read_to_string(&path).unwrap();
    for (section, line_before) in [
        (FileSection::Lag, "\nlag:\n"),
        (FileSection::Targets, "\n    #group: orders-service\n"),
    ] {
        let start = text.find(line_before).unwrap() + line_before.len();
        let end = start + text[start..].find("\n\n").unwrap() + 1;
        let made = reference::example(section);
        if is_update() {
            text.replace_range(start..end, &made);
        } else {
            assert_eq!(
                text[start..end],
                made,
                "{UPDATE}=1 cargo test --test docs rewrites it"
            );
        }
    }
    if is_update() {
        fs::write(&path, text).unwrap();
    }
}

#[test]
fn quoted_messages_exist() {
    let page = Page::read("docs/src/guides/troubleshooting.md");
    let section = page.section("messages-of-lagwise");
    let code = Regex::new("`([^`]+)`").unwrap();
    let sources = rust_text();
    let mut count = 0;
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let first = row.trim_start_matches("| ").split(" | ").next().unwrap();
        for message in code.captures_iter(first) {
            count += 1;
            let message = &message[1];
            assert!(
                sources.contains(message),
                "docs/src/guides/troubleshooting.md: no message of lagwise contains {message:?}"
            );
        }
    }
    assert!(count > 10, "only {count} messages are quoted");
}

#[test]
fn paths_of_the_code_map_exist() {
    let paths = Regex::new(r"`((?:src|tests|benches|charts|config|docs)/[^`*{} ]+)`").unwrap();
    for path in ["docs/src/architecture.md", "CONTRIBUTING.md", "README.md"] {
        let text = Page::read(path).prose();
        for named in paths.captures_iter(&text) {
            let named = named[1].trim_end_matches('/');
            assert!(folder().join(named).exists(), "{path}: there is no {named}");
        }
    }
}

/// Cargo requires the source files of all targets that its manifest lists, also where only the binary is built.
#[test]
fn the_dockerfile_has_a_placeholder_for_each_target() {
    let target =
        Regex::new(r#"\[\[(bin|bench|test)\]\]\nname = "(.+)"\n(?:path = "(.+)")?"#).unwrap();
    let dockerfile = fs::read_to_string(folder().join("Dockerfile")).unwrap();
    let mut lines = dockerfile.lines();
    let placeholders = lines.find_map(|line| line.trim().strip_prefix("&& for file in "));
    let placeholders: BTreeSet<_> = placeholders.unwrap().split([' ', ';']).collect();
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let mut count = 0;
    for target in target.captures_iter(&manifest) {
        let default = format!("benches/{}.rs", &target[2]);
        let path = target.get(3).map_or(&*default, |path| path.as_str());
        assert!(placeholders.contains(path), "Dockerfile: no {path}");
        count += 1;
    }
    assert!(count > 6, "only {count} targets");
}

#[test]
fn the_book_builds_without_warnings() {
    let mdbook = env::var("MDBOOK").unwrap_or_else(|_| "mdbook".into());
    let place = tempfile::tempdir().unwrap();
    let built = Command::new(&mdbook)
        .arg("build")
        .arg(folder().join("docs"))
        .arg("--dest-dir")
        .arg(place.path())
        .env_remove("RUST_LOG")
        .output();
    let output = match built {
        Ok(output) => output,
        // tests/run brings it and says where it is; on a machine without it the other tests must do.
        Err(_) if env::var_os("MDBOOK").is_none() => return,
        Err(error) => panic!("{mdbook}: {error}"),
    };
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{text}");
    let lower = text.to_lowercase();
    assert!(
        !lower.contains("warn") && !lower.contains("error"),
        "{text}"
    );
    assert!(place.path().join("index.html").exists(), "{text}");
}
