//! Checks manifests in files, without Kafka and without a Kubernetes cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::LintResult;
use super::report::CheckedObjects;
use crate::config::{Config, SystemEnvironment};
use crate::daemon::options;
use crate::k8s::manifests::Manifests;
use crate::model::diagnostics::current_findings::{FindingOptions, findings};
use crate::model::diagnostics::hpa_findings::find_tolerance;
use crate::model::diagnostics::workload_findings::find_in_workload;
use crate::model::evaluation::ServingPolicy;
use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::{HpaFacts, has_lagwise_metric};
use crate::model::hpa::label;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::{TargetOptions, Targets};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::kubernetes_version::KubernetesVersion;
use crate::model::units::newtypes::{ClusterName, Moment};

/// The namespace of a manifest that sets none, as in kubectl.
const NAMESPACE: &str = "default";

/// Maximum size of a file, so that a wrong path (a device, a log) fails at once.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Maximum depth of folders.
const DEPTH_MAX: u32 = 16;

/// Checks the manifests in these files.
///
/// # Errors
/// The first file that cannot be read or parsed.
pub(super) fn check_files(
    files: &[PathBuf],
    config: Option<&Path>,
    namespace: Option<&str>,
    version: Option<KubernetesVersion>,
) -> anyhow::Result<LintResult> {
    let mut config = config.map(Config::load).transpose()?;
    let mut manifests = Manifests::default();
    for file in files {
        for (name, text) in read_texts(file)? {
            let documents = parse_documents(&text).with_context(|| name.clone())?;
            if let [only] = documents.as_slice()
                && is_config(only)
            {
                ensure!(
                    config.is_none(),
                    "{name}: this is a second lagwise configuration; only one is allowed"
                );
                let read = Config::parse(&text, &SystemEnvironment);
                config = Some(read.map_err(|error| error.in_file(name))?);
                continue;
            }
            for document in &documents {
                let added = manifests.add(document, namespace.unwrap_or(NAMESPACE));
                added.with_context(|| name.clone())?;
            }
        }
    }
    let insecure = config.as_ref();
    let insecure = insecure.map(|config| config.find_insecure_settings(&SystemEnvironment));
    let served = manifests.hpas.iter();
    let served = served.filter(|hpa| has_lagwise_metric(hpa)).count();
    Ok(LintResult {
        findings: check_manifests(&manifests, config.as_ref(), version)
            .into_iter()
            .chain(insecure.unwrap_or_default())
            .collect(),
        unread: BTreeSet::new(),
        checked: CheckedObjects {
            hpas: served,
            other_hpas: manifests.hpas.len() - served,
            workloads: manifests.workloads.len(),
            groups: None,
        },
        version,
    })
}

fn is_config(document: &Value) -> bool {
    document.get("kind").is_none() && document.get("clusters").is_some_and(Value::is_array)
}

/// The documents of a YAML or JSON text, without empty ones.
fn parse_documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
    };
    let mut all: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .context("invalid YAML (for a template, lint its rendered output)")?;
    all.retain(|document| !document.is_null());
    Ok(all)
}

/// The text of a file, or of all `.yaml`, `.yml` and `.json` files of a folder, sorted by name.
fn read_texts(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    if path == Path::new("-") {
        let name = "standard input".to_owned();
        let text = read_bounded(io::stdin().lock()).with_context(|| name.clone())?;
        texts.insert(name, text);
    } else {
        collect_files(path, DEPTH_MAX, &mut texts)?;
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
        let file = File::open(path).with_context(|| name.clone())?;
        let text = read_bounded(file).with_context(|| name.clone())?;
        texts.insert(name, text);
        return Ok(());
    }
    let Some(depth) = depth.checked_sub(1) else {
        bail!("{name}: folders are nested more than {DEPTH_MAX} levels deep");
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
    from.take(BYTES_MAX.saturating_add(1))
        .read_to_string(&mut text)
        .context("cannot be read")?;
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    ensure!(bytes <= BYTES_MAX, "larger than {BYTES_MAX} bytes");
    Ok(text)
}

/// Parts of which none has two HPAs of one name. Files for several environments often name an HPA alike.
fn with_distinct_names(hpas: &[HpaFacts]) -> Vec<Vec<&HpaFacts>> {
    let mut parts: Vec<Vec<&HpaFacts>> = Vec::new();
    let mut seen: BTreeMap<HpaKey, usize> = BTreeMap::new();
    for hpa in hpas {
        let count = seen.entry(hpa.key()).or_default();
        match parts.get_mut(*count) {
            Some(part) => part.push(hpa),
            None => parts.push(vec![hpa]),
        }
        *count += 1;
    }
    parts
}

fn check_manifests(
    manifests: &Manifests,
    config: Option<&Config>,
    version: Option<KubernetesVersion>,
) -> BTreeSet<Finding> {
    let hpas = &manifests.hpas;
    let (clusters, target_options, policy) = match config {
        Some(config) => (
            config.clusters.iter().map(|c| c.name.clone()).collect(),
            options::target_options(config),
            options::serving_policy(config),
        ),
        None => (
            named_clusters(hpas),
            TargetOptions::default(),
            ServingPolicy::default(),
        ),
    };
    let options = FindingOptions {
        cap: policy.cap,
        members_within: Duration::ZERO,
    };
    let mut found = BTreeSet::new();
    for part in with_distinct_names(hpas) {
        let targets = Targets::new(&clusters, target_options.clone(), None)
            .with_hpas(&part.into_iter().cloned().map(Arc::new).collect(), None);
        let snapshot = LagSnapshot {
            targets: Arc::new(targets),
            ..LagSnapshot::default()
        }
        .evaluated(&policy);
        let now = Moment::now();
        let metrics = snapshot.at(&now).hpa_metrics();
        found.extend(findings(&snapshot.evaluations, &metrics, hpas, options));
        found.extend(snapshot.targets.findings().cloned());
    }
    // Without a configuration the configured clusters and targets are unknown.
    let is_known = |finding: &Finding| {
        config.is_some()
            || !matches!(
                finding.code,
                FindingCode::UnknownCluster
                    | FindingCode::AmbiguousCluster
                    | FindingCode::UnknownTarget
            )
    };
    found.retain(is_known);
    found.extend(hpas.iter().filter_map(|hpa| find_tolerance(hpa, version)));
    for hpa in hpas {
        let workloads = manifests.workloads.iter();
        found.extend(workloads.flat_map(|workload| find_in_workload(hpa, workload, None, &[])));
    }
    found
}

/// The Kafka clusters that selectors name; a default one if none does.
fn named_clusters(hpas: &[HpaFacts]) -> Vec<ClusterName> {
    let metrics = hpas.iter().flat_map(|hpa| &hpa.metrics);
    let named = metrics.flat_map(|metric| metric.selector.values(label::CLUSTER).unwrap_or(&[]));
    let named: BTreeSet<ClusterName> = named.map(|name| name.as_str().into()).collect();
    if named.is_empty() {
        return vec!["default".into()];
    }
    named.into_iter().collect()
}
