//! The HPA of `--hpa`.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde::Deserialize;

use crate::cli::manifest_files::{parse_documents, read_text};
use crate::k8s::live_hpa::spec_of;
use crate::model::findings::FindingCode;
use crate::model::hpa::controller::HpaSpec;
use crate::model::hpa::manifest::{ManifestProblem, find_in_manifest};
use crate::model::units::short_list::short_list;

/// Maximum `minReplicas` of `--hpa`, since each replica is a simulated pod from the beginning.
const MAX_MIN_REPLICAS: u32 = 1000;

/// Reads the only HPA of a file.
///
/// # Errors
/// It cannot be read, Kubernetes refuses it, or it has too many replicas to simulate.
pub(super) fn read_hpa(path: &Path) -> anyhow::Result<HpaSpec> {
    let name = format!("--hpa {}", path.display());
    let text = read_text(path).with_context(|| name.clone())?;
    let documents = parse_documents(&text).with_context(|| name.clone())?;
    let document = match documents.as_slice() {
        [only] => only,
        [] => bail!("{name}: the file is empty; give the manifest of an HPA"),
        several => bail!(
            "{name}: the file has {} YAML documents; give one with a single HPA",
            several.len()
        ),
    };
    let is_hpa = |key: &str, value: &str| document.get(key).is_some_and(|found| found == value);
    ensure!(
        is_hpa("kind", "HorizontalPodAutoscaler") && is_hpa("apiVersion", "autoscaling/v2"),
        "{name}: this is not the manifest of a HorizontalPodAutoscaler of autoscaling/v2"
    );
    let problems = find_in_manifest(document);
    let is_refused = |problem: &ManifestProblem| problem.code == FindingCode::RefusedHpa;
    let remedy = match problems.iter().any(is_refused) {
        true => "Kubernetes refuses such an HPA",
        false => "correct or remove the key",
    };
    ensure!(
        problems.is_empty(),
        "{name}: {}; {remedy}",
        short_list(problems.into_iter().map(|problem| problem.message))
    );
    let hpa = HorizontalPodAutoscaler::deserialize(document).with_context(|| name.clone())?;
    let spec = spec_of(&hpa);
    ensure!(
        spec.min <= MAX_MIN_REPLICAS,
        "{name}: minReplicas {} is too large to simulate; use at most {MAX_MIN_REPLICAS}",
        spec.min
    );
    Ok(spec)
}
