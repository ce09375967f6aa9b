//! `lagwise simulate`: simulates scaling policies on a workload, and compares their costs.

mod check;
mod hpa_file;
mod listing;
mod output_file;
mod page;
mod policy_names;
mod progress;
mod report;
mod trace_source;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;

use self::check::check;
use self::hpa_file::read_hpa;
use self::listing::list_scenarios;
use self::output_file::OutputFile;
use self::page::{MAX_COURSES, RunCourse, render_page};
use self::policy_names::select_policies;
use self::progress::ProgressLine;
use self::report::{SimulationReport, render_ablation, render_report};
use self::trace_source::TraceArgs;
use super::{Output, duration_within, print_output, wrong_usage};
use crate::model::findings::suggestion;
use crate::model::units::spelling::did_you_mean;
use crate::simulate::arrivals::Arrivals;
use crate::simulate::benchmark::{
    ablated_policies, compared_policies, find_foresight, sweep, with_slo,
};
use crate::simulate::builtin::{builtin_scenarios, variant_scenarios};
use crate::simulate::engine;
use crate::simulate::generated::{HELD_OUT_SEED, generate_scenarios};
use crate::simulate::outcome::RunOptions;
use crate::simulate::replay::{Replay, ReplayOptions, replay};
use crate::simulate::scaler::SimulatedPolicy;
use crate::simulate::scenario::{Scenario, StartReplicas};
use crate::simulate::trace::{Trace, TraceHeader, trace_line};

/// Name of the cluster in a trace of a simulation.
const SIMULATED_CLUSTER: &str = "simulation";

/// Number of generated scenarios in the set `generated`.
const GENERATED: u32 = 12;

/// Maximum of `--partitions` and of `--seeds`, so that a typing error does not take hours.
const MAX_PARTITIONS: i64 = 1000;
const MAX_SEEDS: u64 = 1000;

/// The arguments of `lagwise simulate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lagwise simulate --scenario flash\n  \
    lagwise simulate --scenario step --policy rate --policy lag-200 --partitions 48 --slo 30s\n  \
    lagwise simulate --scenario sawtooth --hpa hpa.yaml\n  \
    lagwise simulate --policy rate --policy lag-500-900s --policy lag-grid\n  \
    lagwise simulate --seeds 10 -o json | jq '.means'\n  \
    lagwise simulate --ablation --seeds 10\n  \
    lagwise simulate --check --seeds 10\n  \
    lagwise simulate --trace orders.jsonl --slo 30s\n  \
    lagwise simulate --from-prometheus http://localhost:9090 --group orders --over 6h\n\n\
    The command needs neither Kafka nor Kubernetes. It runs the rate policy, models of other policies, and the \
    arithmetic of the HPA controller on a simulated consumer group. The same seed gives the same result.\n\n\
    The daemon serves the same rate policy for HPAs with the annotation lagwise.dev/policy: rate.\n\n\
    --optimum adds the cost of the cheapest schedule if all arrivals are known in advance, for a group with one queue \
    and consumers that start at once. Policies can hardly cost less. REGRET is how much more a policy costs. The row \
    clairvoyant is that schedule in the simulated group, with pods that start early enough.\n\n\
    COST is the sum of replicas in percent of as many replicas as partitions, 5 times the percentage of late messages, \
    and 0.2 for each rebalance.\n\n\
    With --trace or --from-prometheus, the messages are those that really arrived, and the row recorded is what \
    really happened. --partitions then spreads the same messages over another number of partitions.")]
pub struct SimulateArgs {
    /// Scenario, or one of the sets builtin, variants and generated; may be repeated
    #[arg(long, value_name = "NAME", default_value = "builtin")]
    scenario: Vec<String>,
    #[command(flatten)]
    trace: TraceArgs,
    /// Policy to simulate, or the set lag-grid; may be repeated. Without it, those that --list names. lag-500-900s is
    /// an HPA on lag with the target 500 per replica and a stabilization window of 900 s for scaling down (0s to
    /// 3600s); lag-500 has the default window of 300 s. lag-grid has 35 such HPAs
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// Number of partitions; the arrivals of scenarios grow in proportion
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=MAX_PARTITIONS))]
    partitions: Option<u32>,
    /// Age that messages may reach before they are processed
    #[arg(long, value_name = "DURATION", value_parser = objective, allow_hyphen_values = true)]
    slo: Option<Duration>,
    /// Replicas at the beginning [default: one, or those of the trace]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    start_replicas: Option<u32>,
    /// First seed of the random numbers
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// Number of seeds, whose mean is shown
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MAX_SEEDS))]
    seeds: u64,
    /// HPA manifest, or - for standard input, whose behavior, minReplicas and maxReplicas apply to all policies but
    /// static; windows in the names of policies then have no effect
    #[arg(long, value_name = "FILE")]
    hpa: Option<PathBuf>,
    /// Show what each rule of the rate policy is worth: the costs without it
    #[arg(long, conflicts_with = "policy")]
    ablation: bool,
    /// Write the report as an HTML page with plots, in one file that loads nothing else
    #[arg(long, value_name = "FILE", conflicts_with = "ablation")]
    report: Option<PathBuf>,
    /// Write the first run, of one scenario and one policy, as a trace that --trace reads
    #[arg(long, value_name = "FILE", conflicts_with = "ablation")]
    write_trace: Option<PathBuf>,
    /// Also show a cost close to the least possible one, and how much more each policy costs
    #[arg(long, conflicts_with = "ablation")]
    optimum: bool,
    /// Check that the rate policy reaches its figures on the built-in and the generated scenarios; meant with --seeds
    /// 10
    #[arg(long, conflicts_with_all = ["scenario", "policy", "partitions", "slo", "hpa", "ablation", "report", "write_trace", "optimum"])]
    check: bool,
    /// List the scenarios and the policies
    #[arg(long)]
    list: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Parses an objective: whole seconds, at least one.
fn objective(text: &str) -> Result<Duration, String> {
    let range = "whole seconds from 1s to 1d";
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(86_400));
    let slo = duration_within(text, least, most, range)?;
    match slo.subsec_nanos() {
        0 => Ok(slo),
        _ => Err(format!("must be {range}")),
    }
}

/// Runs the command.
///
/// # Errors
/// A name that does not exist, or an HPA that cannot be read.
pub(super) async fn run(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    let trace = args.trace.read().await?;
    if args.check {
        if trace.is_some() {
            return Err(wrong_usage(
                "--check is about scenarios; remove --trace or --from-prometheus",
            ));
        }
        let (text, is_met) = check(&args, &ProgressLine::for_standard_error())?;
        print_output(args.output, &text)?;
        return Ok(match is_met {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        });
    }
    let text = simulate(&args, trace.as_ref(), &ProgressLine::for_standard_error())?;
    print_output(args.output, &text)
}

fn simulate(
    args: &SimulateArgs,
    trace: Option<&Trace>,
    progress: &ProgressLine,
) -> anyhow::Result<String> {
    if args.list {
        return list_scenarios(args.output, &all_scenarios(), &compared_policies());
    }
    let replay = trace.map(|trace| args.replay(trace)).transpose()?;
    let mut scenarios = match &replay {
        Some(replay) => vec![replay.scenario.clone()],
        None => select_scenarios(args)?,
    };
    args.set_start_replicas(&mut scenarios);
    let policies = match args.ablation {
        true => ablated_policies(),
        false => select_policies(&args.policy)?,
    };
    let options = RunOptions {
        hpa: args.hpa.as_deref().map(read_hpa).transpose()?,
        ..RunOptions::default()
    };
    let seeds = args.seed..seeds_end(args)?;
    let open = |option, path: &Option<PathBuf>| {
        let path = path.as_deref();
        path.map(|path| OutputFile::open(option, path)).transpose()
    };
    let traced = match args.write_trace {
        Some(_) => Some(only_run(&scenarios, &policies)?),
        None => None,
    };
    let page_file = open("--report", &args.report)?;
    if let Some((run, file)) = traced.zip(open("--write-trace", &args.write_trace)?) {
        write_trace(file, run, args.seed, &options)?;
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let total = u64::try_from(scenarios.len())?.saturating_mul(args.seeds);
    let result = sweep(
        &scenarios,
        &policies,
        seeds.clone(),
        &options,
        threads,
        &|done| {
            progress.show(u64::try_from(done).unwrap_or(u64::MAX), total);
        },
    );
    progress.clear();
    let mut report = SimulationReport::new(&scenarios, &policies, &result, args.seed, args.seeds);
    report.trace = replay.map(|replay| replay.summary);
    if args.optimum {
        report.set_foresight(&scenarios, &find_foresight(&scenarios, seeds, threads));
    }
    if let Some(file) = page_file {
        let courses = run_courses(&scenarios, &policies, args.seed, &options);
        let page = render_page(
            &report,
            &courses,
            scenarios.len().saturating_mul(policies.len()),
        );
        file.write(&page)?;
    }
    match args.output.serialize(&report)? {
        Some(text) => Ok(text),
        None if args.ablation => Ok(render_ablation(&report)),
        None => Ok(render_report(&report)),
    }
}

impl SimulateArgs {
    /// Sets the replicas at the beginning, if an argument gives a number.
    fn set_start_replicas(&self, scenarios: &mut [Scenario]) {
        let Some(replicas) = self.start_replicas else {
            return;
        };
        for scenario in scenarios {
            let most = scenario.partitions_at(0);
            scenario.start_replicas = StartReplicas::Count(replicas.min(most));
        }
    }

    fn replay(&self, trace: &Trace) -> anyhow::Result<Replay> {
        let seconds = |duration: Option<Duration>| duration.map(|it| u32::try_from(it.as_secs()));
        let options = ReplayOptions {
            slo: seconds(self.slo).transpose()?,
            partitions: self.partitions,
            capacity: self.trace.capacity,
            start_up: seconds(self.trace.start_up).transpose()?,
        };
        replay(trace, &options).map_err(|problem| anyhow!("{}: {problem}", self.trace.name()))
    }
}

/// The courses of the first policies in each scenario, as many as a page has room for.
fn run_courses(
    scenarios: &[Scenario],
    policies: &[SimulatedPolicy],
    seed: u64,
    options: &RunOptions,
) -> Vec<RunCourse> {
    let options = RunOptions {
        has_timeline: true,
        ..options.clone()
    };
    let each = MAX_COURSES.checked_div(scenarios.len()).unwrap_or(0).max(1);
    let mut courses = Vec::new();
    for scenario in scenarios.iter().take(MAX_COURSES) {
        let arrivals = Arrivals::for_run(scenario, seed);
        for policy in policies.iter().take(each) {
            let simulated = with_slo(policy, scenario);
            let run = engine::run(scenario, &simulated, seed, &arrivals, &options);
            courses.push(RunCourse {
                scenario: scenario.name.to_string(),
                about: scenario.about.to_string(),
                policy: policy.name(),
                slo: scenario.slo,
                timeline: run.records.timeline,
            });
        }
    }
    courses
}

/// The only scenario and policy, for a trace.
fn only_run<'a>(
    scenarios: &'a [Scenario],
    policies: &'a [SimulatedPolicy],
) -> anyhow::Result<(&'a Scenario, &'a SimulatedPolicy)> {
    match (scenarios, policies) {
        ([scenario], [policy]) => Ok((scenario, policy)),
        _ => Err(wrong_usage(
            "--write-trace: a trace is of one run; add --scenario and --policy with one name each",
        )),
    }
}

/// Writes what Kafka says during the first run of a scenario and policy.
fn write_trace(
    file: OutputFile,
    (scenario, policy): (&Scenario, &SimulatedPolicy),
    seed: u64,
    options: &RunOptions,
) -> anyhow::Result<()> {
    let options = RunOptions {
        has_trace: true,
        ..options.clone()
    };
    let arrivals = Arrivals::for_run(scenario, seed);
    let policy = with_slo(policy, scenario);
    let run = engine::run(scenario, &policy, seed, &arrivals, &options);
    let mut text = trace_line(&TraceHeader::new(&scenario.name, SIMULATED_CLUSTER))?;
    for sample in &run.records.trace {
        text += &trace_line(sample)?;
    }
    file.write(&text)
}

/// The seed after the last one.
fn seeds_end(args: &SimulateArgs) -> anyhow::Result<u64> {
    args.seed.checked_add(args.seeds).ok_or_else(|| {
        wrong_usage(format!(
            "--seed {}: too large for --seeds {}; use at most {}",
            args.seed,
            args.seeds,
            u64::MAX.saturating_sub(args.seeds)
        ))
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
                        return Err(wrong_usage(format!(
                            "--scenario {name}: no such scenario{meant}; lagwise simulate --list shows all"
                        )));
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

#[cfg(test)]
mod tests;
