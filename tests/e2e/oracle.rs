//! The HPA's arithmetic (`model::hpa`) against the real controller under virtual time
//! (`tests/testbed/kubernetes/oracle`): random series, every sync compared.

mod live;
mod logged;
mod series;
mod simulated;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use lagwise::k8s::live_hpa::past_of;
use lagwise::model::hpa::controller::outlook::{KnownHistory, Range, predict_sync};
use lagwise::model::hpa::controller::stage::Verdict;
use serde::Deserialize;
use serde_json::json;

use self::series::{Expected, Series};
use crate::Test;
use crate::testbed::{Testbed, is_full_tier};

pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "oracle::the_hpas_arithmetic_is_the_controllers",
        the_hpas_arithmetic_is_the_controllers,
    ),
    (
        "oracle::the_simulators_hpa_is_the_controllers",
        the_simulators_hpa_is_the_controllers,
    ),
    (
        "oracle::the_explanation_matches_the_live_controller",
        live::the_explanation_matches_the_live_controller,
    ),
];

/// The controller's result of one sync.
#[derive(Debug, Deserialize)]
struct Sync {
    before: u32,
    after: u32,
    stage: Option<u32>,
    metric: String,
    desired: u32,
    conditions: BTreeMap<String, String>,
}

/// Runs as many series as the tier has time for, with another seed in each run. A failure prints the seed:
/// `LAGWISE_ORACLE_SEED` repeats it, and `LAGWISE_ORACLE_SERIES` sets the number of series.
fn the_hpas_arithmetic_is_the_controllers(testbed: &Testbed) -> Result<()> {
    let count = if is_full_tier() { 5000 } else { 200 };
    compare_series(testbed, "random", count, 10, Series::random)
}

/// The same with the inputs of the HPA in simulations: the metrics of the policies that are compared, and their own
/// HPAs or random ones.
fn the_simulators_hpa_is_the_controllers(testbed: &Testbed) -> Result<()> {
    let count = if is_full_tier() { 2000 } else { 100 };
    // Some of the policies are meant to move the replicas rarely.
    compare_series(testbed, "simulated", count, 50, Series::simulated)
}

fn compare_series(
    testbed: &Testbed,
    kind: &str,
    count: u64,
    one_moves_of: usize,
    make: fn(u64) -> Series,
) -> Result<()> {
    let given = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let count = given("LAGWISE_ORACLE_SERIES").unwrap_or(count);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = given("LAGWISE_ORACLE_SEED").unwrap_or(now.as_secs());
    println!("{count} {kind} series from seed {seed}");
    let all: Vec<Series> = (0..count).map(|i| make(seed + i)).collect();
    let decided = run_controller(testbed, kind, &all)?;
    ensure!(decided.len() == all.len(), "{} answers", decided.len());
    let (mut syncs, mut moved, mut exact) = (0, 0, 0);
    for ((series, decided), number) in all.iter().zip(&decided).zip(seed..) {
        let met = compare(series, decided)
            .with_context(|| format!("LAGWISE_ORACLE_SEED={number} LAGWISE_ORACLE_SERIES=1"))?;
        syncs += decided.len();
        moved += decided.iter().filter(|s| s.before != s.after).count();
        exact += met;
    }
    println!(
        "{syncs} syncs, {moved} of which moved the replicas; a single reading was exact at {exact}"
    );
    // Series in which nothing happens would prove nothing.
    ensure!(
        moved * one_moves_of > syncs,
        "only {moved} of {syncs} syncs moved the replicas"
    );
    Ok(())
}

/// Runs the real HPA controller on the series, and returns its decisions for each.
fn run_controller(testbed: &Testbed, kind: &str, all: &[Series]) -> Result<Vec<Vec<Sync>>> {
    let folder = testbed.folder(&format!("oracle-{kind}"))?;
    let (input, output) = (folder.join("series.jsonl"), folder.join("syncs.jsonl"));
    let mut text = String::new();
    for series in all {
        writeln!(text, "{}", series.input)?;
    }
    std::fs::write(&input, text)?;
    let oracle = &testbed.artifacts()?.hpa_oracle;
    let run = Command::new(oracle)
        .args(["-test.run=TestOracle", "-test.timeout=0"])
        .env("LAGWISE_ORACLE_SERIES", &input)
        .env("LAGWISE_ORACLE_SYNCS", &output)
        .output()
        .with_context(|| format!("running {}", oracle.display()))?;
    if !run.status.success() {
        let said = [run.stdout, run.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let tail: Vec<_> = said.lines().rev().take(30).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        bail!("the oracle failed:\n{}", tail.join("\n"));
    }
    let lines = std::fs::read_to_string(&output)?;
    lines
        .lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

/// Checks that every sync has the predicted result, and lies within the prediction from the status alone. Returns how
/// often that prediction was a single number.
fn compare(series: &Series, decided: &[Sync]) -> Result<usize> {
    ensure!(
        decided.len() == series.expected.len(),
        "{} syncs instead of {}",
        decided.len(),
        series.expected.len()
    );
    let mut exact = 0;
    let mut status = Status::default();
    for (i, (expected, sync)) in series.expected.iter().zip(decided).enumerate() {
        let shown = || {
            format!(
                "sync {i}: {expected:#?}\nthe controller: {sync:#?}\n{}",
                series.input
            )
        };
        let stage = match expected.sync.verdict {
            Some(Verdict::Wants { replicas, metric }) => {
                Some((replicas, format!("metric m{metric}(")))
            }
            _ => None,
        };
        ensure!(
            expected.seen.spec_replicas == sync.before,
            "before {}",
            shown()
        );
        ensure!(
            stage.as_ref().map(|(n, _)| *n) == sync.stage,
            "metric stage {}",
            shown()
        );
        if let Some((_, metric)) = stage {
            ensure!(sync.metric.contains(&metric), "winner {}", shown());
        }
        ensure!(
            expected.sync.replicas == Some(sync.after),
            "after {}",
            shown()
        );
        let at = series.period * u32::try_from(i + 1)?;
        let outlook = predict_sync(&expected.spec, &expected.seen, &status.past(at)?);
        ensure!(
            outlook.verdict == expected.sync.verdict,
            "{outlook:?} {}",
            shown()
        );
        // The status belongs to the spec before the change.
        if !expected.edited {
            ensure!(outlook.replicas.has(sync.after), "{outlook:?} {}", shown());
            exact += usize::from(outlook.replicas == Range::exactly(sync.after));
        }
        status.apply(expected, sync, at);
    }
    Ok(exact)
}

/// The HPA's status after a sync.
#[derive(Default)]
struct Status {
    scaled: Option<Duration>,
    desired: u32,
    conditions: BTreeMap<String, String>,
}

impl Status {
    fn apply(&mut self, expected: &Expected, sync: &Sync, at: Duration) {
        if expected.seen.spec_replicas != sync.after {
            self.scaled = Some(at);
        }
        self.desired = sync.desired;
        self.conditions = sync.conditions.clone();
    }

    /// As it is read of a real HPA.
    fn past(&self, now: Duration) -> Result<KnownHistory> {
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_979_289);
        let conditions: Vec<_> = self
            .conditions
            .iter()
            .filter_map(|(kind, text)| {
                let (status, reason) = text.split_once(' ')?;
                Some(json!({"type": kind, "status": status, "reason": reason}))
            })
            .collect();
        let time = |at| humantime::format_rfc3339_seconds(epoch + at).to_string();
        let hpa: HorizontalPodAutoscaler = serde_json::from_value(json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {},
            "spec": {"maxReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "h"}},
            "status": {
                "desiredReplicas": self.desired,
                "lastScaleTime": self.scaled.map(time),
                "conditions": conditions,
            },
        }))?;
        Ok(past_of(&hpa, epoch + now))
    }
}
