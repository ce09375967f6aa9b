//! Compares the simulated group with real consumers on a real Kafka, with the same arrivals: a step, an outage and a
//! sawtooth.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lagwise::model::hpa::controller::HpaSpec;
use lagwise::simulate::arrivals::Arrivals;
use lagwise::simulate::engine;
use lagwise::simulate::outcome::RunOptions;
use lagwise::simulate::scaler::SimulatedPolicy;
use lagwise::simulate::scenario::{RatePart, Scenario, StartReplicas};

use crate::Test;
use crate::testbed::consumers::{ConsumerFleet, ConsumerOptions};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// The scenarios. They need consumers that keep their rate, so nothing else may run at the same time.
pub(crate) const LONG: &[(&str, Test)] = &[(
    "simulated_group::it_drains_as_real_consumers_do",
    it_drains_as_real_consumers_do,
)];

const PARTITIONS: usize = 6;
const CONSUMERS: u32 = 2;

/// Messages per second that a consumer processes.
const CAPACITY: u32 = 30;

/// The objective in seconds, from which messages count as late.
const SLO: u32 = 5;

/// Runs of each workload, of which the median counts.
const RUNS: u64 = 3;

/// How far the medians may differ: the time in which messages are late as a part, and the late share in points.
const DRAIN_ERROR: f64 = 0.15;
const LATE_ERROR: f64 = 3.0;

/// The arrivals, and the time in seconds during which the consumers are stopped.
struct Workload {
    name: &'static str,
    seconds: u32,
    rate: Vec<RatePart>,
    outage: Option<(u32, u32)>,
}

impl Workload {
    fn scenario(&self) -> Result<Scenario> {
        Ok(Scenario {
            duration: self.seconds,
            partitions: u32::try_from(PARTITIONS)?,
            capacity: f64::from(CAPACITY),
            commit_interval: 1,
            start_replicas: StartReplicas::Count(CONSUMERS),
            slo: SLO,
            ..Scenario::new(self.name, "", self.rate.clone())
        })
    }
}

fn workloads() -> Vec<Workload> {
    let pulse = RatePart::Pulse {
        rate: 80.0,
        from: 15.0,
        until: 65.0,
        ramp: 0.0,
    };
    vec![
        Workload {
            name: "step",
            seconds: 130,
            rate: vec![RatePart::Constant(20.0), pulse],
            outage: None,
        },
        Workload {
            name: "outage",
            seconds: 120,
            rate: vec![RatePart::Constant(30.0)],
            outage: Some((15, 55)),
        },
        Workload {
            name: "sawtooth",
            seconds: 180,
            rate: vec![RatePart::Sawtooth {
                low: 10.0,
                high: 100.0,
                period: 90.0,
            }],
            outage: None,
        },
    ]
}

/// Measurements of a group.
#[derive(Clone, Copy, Debug)]
struct GroupRun {
    /// Longest time in seconds in which some message was late.
    late_for: f64,
    /// Late messages in percent.
    late_percent: f64,
}

/// The offsets of all partitions at a time in seconds.
type Offsets = (f64, Vec<i64>);

/// Messages that were produced and committed.
#[derive(Default)]
struct GroupLog {
    ends: Vec<Offsets>,
    commits: Vec<Offsets>,
}

impl GroupLog {
    /// The second in which the message at an offset was produced.
    fn produced_in(&self, partition: usize, offset: i64) -> Option<f64> {
        let after = self
            .ends
            .partition_point(|(_, ends)| ends[partition] <= offset);
        self.ends.get(after).map(|(at, _)| at.floor())
    }

    /// What the group did. Ages are differences of whole seconds, as the simulator counts them: with this objective,
    /// half a second more makes several percent of the messages late.
    fn measure(&self) -> GroupRun {
        let (mut late, mut all) = (0u32, 0u32);
        let (mut late_since, mut longest) = (None, 0.0f64);
        let slo = f64::from(SLO);
        let mut before = self.commits.first().cloned().unwrap_or_default();
        for (at, committed) in &self.commits {
            let mut oldest = 0.0f64;
            for (partition, &position) in committed.iter().enumerate() {
                for offset in before.1[partition]..position {
                    all += 1;
                    // Processed at some time since the previous sample.
                    let processed = f64::midpoint(before.0, *at).floor();
                    let produced = self.produced_in(partition, offset);
                    late += u32::from(produced.is_some_and(|it| processed - it > slo));
                }
                let unread = self.produced_in(partition, position);
                oldest = oldest.max(unread.map_or(0.0, |it| at.floor() - it));
            }
            if oldest > slo {
                late_since.get_or_insert(*at);
            } else if let Some(since) = late_since.take() {
                longest = longest.max(at - since);
            }
            before = (*at, committed.clone());
        }
        GroupRun {
            late_for: longest,
            late_percent: 100.0 * f64::from(late) / f64::from(all.max(1)),
        }
    }

    /// From when to when nothing was committed, in the longest such time.
    fn standstill(&self) -> (f64, f64) {
        let mut longest = (0.0, 0.0);
        let mut last = self.commits.first();
        for commit in &self.commits {
            if last.is_some_and(|(_, before)| *before == commit.1) {
                continue;
            }
            if let Some((since, _)) = last
                && commit.0 - since > longest.1 - longest.0
            {
                longest = (*since, commit.0);
            }
            last = Some(commit);
        }
        longest
    }
}

/// Runs real consumers.
fn run_real(
    testbed: &Testbed,
    kafka: &KafkaCluster,
    workload: &Workload,
    arrivals: &Arrivals,
) -> Result<GroupLog> {
    let name = unique(workload.name);
    kafka.create_topic(&name, i32::try_from(PARTITIONS)?)?;
    let options = ConsumerOptions {
        bootstrap: kafka.bootstrap(),
        group: name.clone(),
        topic: name.clone(),
        per_second: CAPACITY,
        properties: vec![
            ("group.protocol".to_owned(), "consumer".to_owned()),
            // Commits show when messages were processed.
            ("auto.commit.interval.ms".to_owned(), "100".to_owned()),
        ],
    };
    let mut fleet = ConsumerFleet::new(&testbed.folder(workload.name)?, options);
    fleet.scale_to(usize::try_from(CONSUMERS)?)?;
    let mut ends = vec![0i64; PARTITIONS];
    let committed = |at_least: Option<&[i64]>| -> Result<Vec<i64>> {
        let found = kafka.committed(&name, &name)?;
        let found: Vec<i64> = found.into_iter().map(|it| it.unwrap_or(0)).collect();
        ensure!(at_least.is_none_or(|ends| found == ends), "{found:?}");
        Ok(found)
    };
    let mut produce = |counts: &[u32]| -> Result<Vec<i64>> {
        let counted = (0..).zip(counts);
        let counted = counted.map(|(place, count)| Ok((place, usize::try_from(*count)?)));
        kafka.produce_to(&name, &counted.collect::<Result<Vec<_>>>()?)?;
        for (end, count) in ends.iter_mut().zip(counts) {
            *end += i64::from(*count);
        }
        Ok(ends.clone())
    };
    // The group works.
    let first = produce(&[10; PARTITIONS])?;
    poll_until(Duration::from_secs(60), "the consumers to work", || {
        committed(Some(&first))
    })?;

    let mut log = GroupLog::default();
    let began = Instant::now();
    for second in 0..workload.seconds {
        let until = Duration::from_secs(u64::from(second) + 1);
        let ends = produce(arrivals.at(second))?;
        log.ends.push((began.elapsed().as_secs_f64(), ends));
        if let Some((from, to)) = workload.outage {
            let count = if (from..to).contains(&second) {
                0
            } else {
                CONSUMERS
            };
            fleet.scale_to(usize::try_from(count)?)?;
        }
        while began.elapsed() < until {
            log.commits
                .push((began.elapsed().as_secs_f64(), committed(None)?));
            // When the next sample and the next second of arrivals are due.
            let left = until.saturating_sub(began.elapsed());
            std::thread::sleep(left.min(Duration::from_millis(300)));
        }
    }
    Ok(log)
}

/// Runs the simulated group with the same arrivals.
fn run_simulated(workload: &Workload, log: &GroupLog, arrivals: &Arrivals) -> Result<GroupRun> {
    let mut scenario = workload.scenario()?;
    if workload.outage.is_some() {
        // What stopping and starting real consumers takes is no matter of the simulated ones.
        let (from, until) = log.standstill();
        let whole = |seconds: f64| u32::try_from(Duration::from_secs_f64(seconds + 0.5).as_secs());
        scenario.outage = Some((whole(from)?, whole(until)?));
    }
    let policy = SimulatedPolicy::Lag {
        threshold: 100,
        window_seconds: None,
    };
    let options = RunOptions {
        hpa: Some(HpaSpec {
            min: CONSUMERS,
            ..policy.hpa(CONSUMERS)
        }),
        ..RunOptions::default()
    };
    let score = engine::run(&scenario, &policy, 0, arrivals, &options).score;
    Ok(GroupRun {
        late_for: score.recovery,
        late_percent: score.late_percent,
    })
}

fn median(runs: &[GroupRun], value: fn(&GroupRun) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn it_drains_as_real_consumers_do(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let workloads = workloads();
    let mut found = vec![(Vec::new(), Vec::new()); workloads.len()];
    for seed in 0..RUNS {
        let arrivals = workloads.iter().map(|workload| {
            let scenario = workload.scenario()?;
            Ok(Arrivals::draw(&scenario, seed))
        });
        let arrivals: Vec<Arrivals> = arrivals.collect::<Result<_>>()?;
        // They mostly wait, and have separate topics and groups.
        let logs: Vec<Result<GroupLog>> = std::thread::scope(|scope| {
            let runs = workloads.iter().zip(&arrivals);
            let runs = runs.map(|(workload, arrivals)| {
                scope.spawn(move || run_real(testbed, kafka, workload, arrivals))
            });
            let runs: Vec<_> = runs.collect();
            let joined = runs.into_iter().map(|run| run.join());
            joined
                .map(|log| log.map_err(|_| anyhow!("a run panicked"))?)
                .collect()
        });
        let inputs = workloads.iter().zip(&arrivals).zip(logs);
        for (((workload, arrivals), log), (real, simulated)) in inputs.zip(&mut found) {
            let log = log.with_context(|| workload.name)?;
            real.push(log.measure());
            simulated.push(run_simulated(workload, &log, arrivals)?);
        }
    }
    let mut wrong = Vec::new();
    for (workload, (real, simulated)) in workloads.iter().zip(&found) {
        let of = |runs: &[GroupRun]| {
            let late_for = median(runs, |run| run.late_for);
            (late_for, median(runs, |run| run.late_percent))
        };
        let (real_median, simulated_median) = (of(real), of(simulated));
        println!(
            "{}: late for {:.1} s and simulated {:.1} s, late {:.1} % and simulated {:.1} %; {real:?}, {simulated:?}",
            workload.name, real_median.0, simulated_median.0, real_median.1, simulated_median.1
        );
        let drain_error = (real_median.0 - simulated_median.0).abs() / real_median.0.max(1.0);
        let late_error = (real_median.1 - simulated_median.1).abs();
        if drain_error > DRAIN_ERROR || late_error > LATE_ERROR {
            wrong.push(workload.name);
        }
    }
    ensure!(wrong.is_empty(), "too far apart: {wrong:?}");
    Ok(())
}
