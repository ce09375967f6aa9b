//! `lagwise simulate`: what scaling policies would do with a workload, and what they would cost.

mod progress;
mod report;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use self::progress::ProgressLine;
use self::report::{SimulationReport, list_scenarios, render_ablation, render_report};
use super::manifest_files::read_text;
use super::{Output, print_output};
use crate::k8s::live_hpa::spec_of;
use crate::model::findings::suggestion;
use crate::model::hpa::controller::HpaSpec;
use crate::model::units::spelling::did_you_mean;
use crate::simulate::benchmark::{ablated_policies, compared_policies, sweep};
use crate::simulate::builtin::{builtin_scenarios, variant_scenarios};
use crate::simulate::generated::{HELD_OUT_SEED, generate_scenarios};
use crate::simulate::outcome::RunOptions;
use crate::simulate::scaler::SimulatedPolicy;
use crate::simulate::scenario::Scenario;

/// Number of generated scenarios in the set `generated`.
const GENERATED: u32 = 12;

/// Bounds of `--partitions` and `--seeds`, so that a typing error does not take hours.
const PARTITIONS_MAX: i64 = 1000;
const SEEDS_MAX: u64 = 1000;

/// Maximum `minReplicas` of `--hpa`, since each replica is a simulated pod from the beginning.
const MIN_REPLICAS_MAX: u32 = 1000;

/// The arguments of `lagwise simulate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lagwise simulate --scenario flash\n  \
    lagwise simulate --scenario step --policy rate --policy lag-200 --partitions 48 --slo 30s\n  \
    lagwise simulate --scenario sawtooth --hpa hpa.yaml\n  \
    lagwise simulate --seeds 10 -o json | jq '.means'\n  \
    lagwise simulate --ablation --seeds 10\n\n\
    The command needs neither Kafka nor Kubernetes. It runs the rate policy, models of other policies, and the \
    arithmetic of the HPA controller on a simulated consumer group. The same seed gives the same result.\n\n\
    The daemon serves the same rate policy for HPAs with the annotation lagwise.dev/policy: rate.\n\n\
    COST is the sum of replicas in percent of as many replicas as partitions, 5 times the percentage of late messages, \
    and 0.2 for each rebalance.")]
pub struct SimulateArgs {
    /// Scenario, or one of the sets builtin, variants and generated; may be repeated
    #[arg(long, value_name = "NAME", default_value = "builtin")]
    scenario: Vec<String>,
    /// Policy to simulate; may be repeated. All by default
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// Number of partitions; the arrivals grow in proportion
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=PARTITIONS_MAX))]
    partitions: Option<u32>,
    /// Age that messages may reach before they are processed
    #[arg(long, value_name = "DURATION", value_parser = objective)]
    slo: Option<Duration>,
    /// First seed of the random numbers
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// Number of seeds, whose mean is shown
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=SEEDS_MAX))]
    seeds: u64,
    /// HPA manifest, or - for standard input, whose behavior, minReplicas and maxReplicas apply to all policies but
    /// static
    #[arg(long, value_name = "FILE")]
    hpa: Option<PathBuf>,
    /// Show what each rule of the rate policy is worth: the costs without it
    #[arg(long, conflicts_with = "policy")]
    ablation: bool,
    /// List the scenarios and the policies
    #[arg(long)]
    list: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Parses an objective: whole seconds, at least one.
fn objective(text: &str) -> Result<Duration, String> {
    let slo = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match slo.as_secs() {
        1..=86_400 if slo.subsec_nanos() == 0 => Ok(slo),
        _ => Err("must be whole seconds from 1s to 1d".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// A name that does not exist, or an HPA that cannot be read.
pub(super) fn run(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let text = simulate(args, &ProgressLine::for_standard_error())?;
    print_output(args.output, &text)
}

fn simulate(args: &SimulateArgs, progress: &ProgressLine) -> anyhow::Result<String> {
    if args.list {
        return list_scenarios(args.output, &all_scenarios(), &compared_policies());
    }
    let scenarios = select_scenarios(args)?;
    let policies = match args.ablation {
        true => ablated_policies(),
        false => select_policies(&args.policy)?,
    };
    let options = RunOptions {
        hpa: args.hpa.as_deref().map(read_hpa).transpose()?,
        ..RunOptions::default()
    };
    let seeds = args.seed..seeds_end(args)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let total = u64::try_from(scenarios.len())?.saturating_mul(args.seeds);
    let result = sweep(&scenarios, &policies, seeds, &options, threads, &|done| {
        progress.show(u64::try_from(done).unwrap_or(u64::MAX), total);
    });
    progress.clear();
    let report = SimulationReport::new(&scenarios, &policies, &result, args.seed, args.seeds);
    match args.output.serialize(&report)? {
        Some(text) => Ok(text),
        None if args.ablation => Ok(render_ablation(&report)),
        None => Ok(render_report(&report)),
    }
}

/// The seed after the last one.
fn seeds_end(args: &SimulateArgs) -> anyhow::Result<u64> {
    args.seed.checked_add(args.seeds).with_context(|| {
        format!(
            "--seed {}: too large for --seeds {}; use at most {}",
            args.seed,
            args.seeds,
            u64::MAX.saturating_sub(args.seeds)
        )
    })
}

fn all_scenarios() -> Vec<Scenario> {
    let mut all = builtin_scenarios();
    all.extend(variant_scenarios());
    all.extend(generate_scenarios(HELD_OUT_SEED, GENERATED));
    all
}

fn select_scenarios(args: &SimulateArgs) -> anyhow::Result<Vec<Scenario>> {
    let mut selected = Vec::new();
    for name in &args.scenario {
        match name.as_str() {
            "builtin" => selected.extend(builtin_scenarios()),
            "variants" => selected.extend(variant_scenarios()),
            "generated" => selected.extend(generate_scenarios(HELD_OUT_SEED, GENERATED)),
            _ => {
                let all = all_scenarios();
                match all.iter().find(|scenario| scenario.name == *name) {
                    Some(scenario) => selected.push(scenario.clone()),
                    None => {
                        let names = all.iter().map(|scenario| scenario.name.as_ref());
                        let meant = suggestion("", did_you_mean(name, names));
                        bail!(
                            "--scenario {name}: no such scenario{meant}; lagwise simulate --list shows all"
                        );
                    }
                }
            }
        }
    }
    // A scenario that is named twice, or by itself and in a set, would count twice in the means.
    let mut seen = HashSet::new();
    selected.retain(|scenario| seen.insert(scenario.name.clone()));
    for scenario in &mut selected {
        if let Some(partitions) = args.partitions {
            *scenario = scenario.clone().with_partitions(partitions);
        }
        if let Some(slo) = args.slo {
            scenario.slo = u32::try_from(slo.as_secs())?;
        }
    }
    Ok(selected)
}

fn select_policies(names: &[String]) -> anyhow::Result<Vec<SimulatedPolicy>> {
    let all = compared_policies();
    if names.is_empty() {
        return Ok(all);
    }
    let select = |name: &String| match all.iter().find(|policy| policy.name() == *name) {
        Some(policy) => Ok(*policy),
        None => {
            let known: Vec<String> = all.iter().map(SimulatedPolicy::name).collect();
            let meant = suggestion("", did_you_mean(name, known.iter().map(String::as_str)));
            bail!("--policy {name}: no such policy{meant}; lagwise simulate --list shows all")
        }
    };
    let mut seen = HashSet::new();
    let names = names.iter().filter(|name| seen.insert(name.as_str()));
    names.map(select).collect()
}

fn read_hpa(path: &Path) -> anyhow::Result<HpaSpec> {
    let name = path.display();
    let text = read_text(path).with_context(|| format!("--hpa {name}"))?;
    let hpa: HorizontalPodAutoscaler = serde_saphyr::from_str(&text).with_context(|| {
        format!("--hpa {name}: this is not the manifest of one HorizontalPodAutoscaler of autoscaling/v2")
    })?;
    let spec = spec_of(&hpa);
    ensure!(
        spec.min <= spec.max,
        "--hpa {name}: minReplicas {} is greater than maxReplicas {}, which Kubernetes refuses",
        spec.min,
        spec.max
    );
    ensure!(
        spec.min <= MIN_REPLICAS_MAX,
        "--hpa {name}: minReplicas {} is too large to simulate; use at most {MIN_REPLICAS_MAX}",
        spec.min
    );
    Ok(spec)
}

#[cfg(test)]
mod tests;
