//! Checks manifests in files, without Kafka and without a Kubernetes cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::LintResult;
use super::report::CheckedObjects;
use crate::cli::manifest_files::{NAMESPACE, parse_documents, read_texts};
use crate::config::{Config, SystemEnvironment};
use crate::daemon::options;
use crate::k8s::manifests::Manifests;
use crate::model::diagnostics::current_findings::{FindingOptions, findings};
use crate::model::diagnostics::hpa_findings::{find_ended_holds, find_tolerance};
use crate::model::diagnostics::workload_findings::find_in_workload;
use crate::model::evaluation::ServingPolicy;
use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::HpaFacts;
use crate::model::hpa::label;
use crate::model::keda::convert::{ConvertOptions, ConvertedForm, convert};
use crate::model::keda::manifests::KedaManifests;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::{TargetOptions, Targets};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::kubernetes_version::KubernetesVersion;
use crate::model::units::newtypes::{ClusterName, Moment};

/// Checks the manifests in these files.
///
/// # Errors
/// The first file that cannot be read or parsed.
pub(in crate::cli) fn check_files(
    files: &[PathBuf],
    config: Option<&Path>,
    namespace: Option<&str>,
    version: Option<KubernetesVersion>,
) -> anyhow::Result<LintResult> {
    let mut config = config.map(Config::load).transpose()?;
    let mut manifests = Manifests::default();
    let mut keda = KedaManifests::default();
    let namespace = namespace.unwrap_or(NAMESPACE);
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
                let added = manifests.add(document, namespace);
                added.with_context(|| name.clone())?;
                let added = keda.add(document, &name, namespace);
                added.with_context(|| name.clone())?;
            }
        }
    }
    ensure!(
        config.is_some() || !manifests.is_empty() || !keda.is_empty(),
        "nothing to check: the files have no HorizontalPodAutoscaler of autoscaling/v2, no Deployment or StatefulSet of \
         apps/v1, no ScaledObject of keda.sh/v1alpha1 and no lagwise configuration"
    );
    let insecure_settings = config
        .as_ref()
        .map(|config| config.find_insecure_settings(&SystemEnvironment));
    let options = ConvertOptions {
        namespace: namespace.to_owned(),
        kubernetes: version,
        form: ConvertedForm::default(),
    };
    let mut checked = CheckedObjects {
        workloads: manifests.workloads.len(),
        ..CheckedObjects::default()
    }
    .with_hpas(manifests.hpas.iter());
    checked.hpas = checked.hpas.saturating_add(manifests.unreadable_hpas);
    Ok(LintResult {
        findings: check_manifests(&manifests, config.as_ref(), version)
            .into_iter()
            .chain(manifests.findings)
            .chain(insecure_settings.unwrap_or_default())
            .chain(convert(&keda, &options).findings())
            .collect(),
        unread: BTreeSet::new(),
        checked,
        version,
    })
}

/// Whether a document is a lagwise configuration, which has no `kind` because it is not a Kubernetes object.
fn is_config(document: &Value) -> bool {
    document.get("kind").is_none() && document.get("clusters").is_some_and(Value::is_array)
}

/// Splits HPAs into parts in which each name occurs at most once. Manifests for several environments often have HPAs of
/// the same name, and [`Targets`] keeps only one HPA of each name.
fn split_same_names(hpas: &[HpaFacts]) -> Vec<Vec<&HpaFacts>> {
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

/// Finds mistakes in HPAs and workloads. Without a configuration, every Kafka cluster that a selector names is assumed
/// to exist.
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
        min_age: Duration::ZERO,
    };
    let mut found = BTreeSet::new();
    for part in split_same_names(hpas) {
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
    // Without a configuration, the names of clusters and targets cannot be checked.
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
    let now = SystemTime::now();
    for hpa in hpas {
        found.extend(find_ended_holds(hpa, now));
        let workloads = manifests.workloads.iter();
        found.extend(workloads.flat_map(|workload| find_in_workload(hpa, workload, None, &[])));
    }
    found
}

/// The Kafka clusters that selectors name; one named `default` if no selector names any.
fn named_clusters(hpas: &[HpaFacts]) -> Vec<ClusterName> {
    let metrics = hpas.iter().flat_map(|hpa| &hpa.metrics);
    let named = metrics.flat_map(|metric| metric.selector.values(label::CLUSTER).unwrap_or(&[]));
    let named: BTreeSet<ClusterName> = named.map(|name| name.as_str().into()).collect();
    if named.is_empty() {
        return vec!["default".into()];
    }
    named.into_iter().collect()
}
