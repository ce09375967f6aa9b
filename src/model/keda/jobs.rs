//! The Jobs that KEDA starts for a ScaledJob.
//!
//! Source: `pkg/scaling/scaledjob/metrics.go` and `pkg/scaling/executor/scale_jobs.go` of KEDA 2.21. At each poll KEDA
//! starts Jobs; it never ends one.

use std::fmt;

use serde::Deserialize;

use super::arithmetic::KedaReading;
use super::trigger::KafkaTrigger;

/// KEDA's default of `maxReplicaCount` of a ScaledJob.
const DEFAULT_MAX_JOBS: u32 = 100;

/// What decides on the number of Jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobRules {
    /// `minReplicaCount`, at most `maxReplicaCount`.
    min: u32,
    /// Jobs beyond `min` that may run at once.
    beyond_min: u32,
    strategy: JobStrategy,
    combination: QueueCombination,
}

/// `scalingStrategy.strategy`: how KEDA takes the Jobs into account that are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum JobStrategy {
    /// Less those that run.
    #[default]
    Default,
    /// Less a number, and a part of those that run.
    Custom { deduction: i32, running_part: f64 },
    /// Less those that are pending: for queues in which a message is no longer visible once a Job has taken it.
    Accurate,
    /// As many as may run at the same time, if there is at least one message for each.
    Eager,
}

/// `scalingStrategy.multipleScalersCalculation`: what becomes of the queues of several triggers. Only active triggers
/// count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueCombination {
    #[default]
    Max,
    Min,
    Average,
    Sum,
}

/// `spec.scalingStrategy` as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ScalingStrategy {
    pub strategy: Option<String>,
    pub custom_scaling_queue_length_deduction: Option<i32>,
    pub custom_scaling_running_job_percentage: Option<String>,
    pub multiple_scalers_calculation: Option<String>,
}

/// Demand of the triggers at one poll.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueueDemand {
    /// Messages in the queue.
    queue: u32,
    /// Jobs for them, beyond `minReplicaCount`.
    jobs: u32,
    is_active: bool,
}

impl JobRules {
    /// The rules of a ScaledJob with these `minReplicaCount` and `maxReplicaCount`.
    #[must_use]
    pub fn new(min: Option<u32>, max: Option<u32>, strategy: &ScalingStrategy) -> Self {
        let (wanted, most) = (min.unwrap_or(0), max.unwrap_or(u32::MAX));
        let min = wanted.min(most);
        let beyond_min = match max {
            // So KEDA has it: with a minimum above it, the maximum is added to the minimum.
            Some(max) if wanted > max => max,
            Some(max) => max.saturating_sub(min),
            None => DEFAULT_MAX_JOBS,
        };
        Self {
            min,
            beyond_min,
            strategy: JobStrategy::read(strategy),
            combination: match strategy.multiple_scalers_calculation.as_deref() {
                Some("min") => QueueCombination::Min,
                Some("avg") => QueueCombination::Average,
                Some("sum") => QueueCombination::Sum,
                _ => QueueCombination::Max,
            },
        }
    }

    /// The most Jobs that may run at once.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.min.saturating_add(self.beyond_min)
    }

    #[must_use]
    pub fn min(&self) -> u32 {
        self.min
    }

    /// Demand of the triggers. Triggers that fail are left out, as in KEDA.
    #[must_use]
    pub fn demand(&self, readings: &[(&KafkaTrigger, &KedaReading)]) -> QueueDemand {
        let most = f64::from(self.beyond_min);
        let active = readings.iter().filter(|(_, reading)| reading.active);
        let queues = active.map(|(trigger, reading)| {
            let length = float(reading.value);
            let threshold = float(i64::try_from(trigger.lag_threshold).unwrap_or(i64::MAX));
            (length, (length / threshold).min(most))
        });
        let queues = Vec::from_iter(queues);
        let sum = queues
            .iter()
            .fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
        let (length, jobs) = match self.combination {
            QueueCombination::Sum => sum,
            QueueCombination::Average => {
                let count = f64::from(u32::try_from(queues.len()).unwrap_or(u32::MAX).max(1));
                (sum.0 / count, sum.1 / count)
            }
            // An empty queue is taken only if there is no other.
            QueueCombination::Min => queues.iter().copied().fold((0.0, 0.0), |least, queue| {
                match least.0 == 0.0 || queue.0 < least.0 {
                    true => queue,
                    false => least,
                }
            }),
            QueueCombination::Max => queues.iter().copied().fold((0.0, 0.0), |largest, queue| {
                match queue.0 > largest.0 {
                    true => queue,
                    false => largest,
                }
            }),
        };
        QueueDemand {
            queue: whole(length.ceil()),
            jobs: whole(jobs.min(most).ceil()),
            is_active: length > 0.0 || self.min > 0,
        }
    }

    /// The Jobs that KEDA starts at a poll, for this number of existing Jobs and of those without a running pod.
    #[must_use]
    pub fn to_start(&self, demand: QueueDemand, unfinished: u32, pending: u32) -> u32 {
        if !demand.is_active {
            return 0;
        }
        if unfinished < self.min {
            return self.min.saturating_sub(unfinished);
        }
        let (jobs, most) = (i64::from(demand.jobs), i64::from(self.beyond_min));
        let running = i64::from(unfinished.saturating_sub(self.min));
        let pending = i64::from(pending);
        let (room, wanted) = match self.strategy {
            JobStrategy::Default => (jobs.saturating_sub(running), demand.queue),
            JobStrategy::Custom {
                deduction,
                running_part,
            } => {
                let part = (float(running) * running_part).trunc();
                let part = if part < 0.0 {
                    i64::from(whole(-part)).saturating_neg()
                } else {
                    i64::from(whole(part))
                };
                let less = i64::from(deduction).saturating_add(part);
                (jobs.saturating_sub(less).min(most), demand.queue)
            }
            JobStrategy::Accurate => {
                let then = jobs.saturating_add(running).saturating_sub(pending);
                let room = match then > most {
                    true => most.saturating_sub(running),
                    false => jobs.saturating_sub(pending),
                };
                (room, demand.queue)
            }
            JobStrategy::Eager => {
                let free = most.saturating_sub(running).saturating_sub(pending);
                (free.min(jobs), self.beyond_min)
            }
        };
        u32::try_from(room).unwrap_or(0).min(wanted)
    }

    /// The Jobs that there are after a poll at which only the least number was there, and none of them pending.
    #[must_use]
    pub fn jobs(&self, demand: QueueDemand) -> u32 {
        let started = self.to_start(demand, self.min, 0);
        self.min.saturating_add(started)
    }
}

impl JobStrategy {
    fn read(written: &ScalingStrategy) -> Self {
        match written.strategy.as_deref() {
            Some("accurate") => Self::Accurate,
            Some("eager") => Self::Eager,
            Some("custom") => {
                let part = written.custom_scaling_running_job_percentage.as_deref();
                // Where it is no number, KEDA takes the default strategy.
                match part.unwrap_or_default().parse::<f64>() {
                    Ok(running_part) if running_part.is_finite() => Self::Custom {
                        deduction: written.custom_scaling_queue_length_deduction.unwrap_or(0),
                        running_part,
                    },
                    _ => Self::Default,
                }
            }
            _ => Self::Default,
        }
    }
}

/// What KEDA takes off for the Jobs that are there already.
impl fmt::Display for JobRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.strategy {
            JobStrategy::Default => f.write_str("less the Jobs that are not finished"),
            JobStrategy::Custom {
                deduction,
                running_part,
            } => write!(
                f,
                "less {deduction} and {running_part} times the Jobs that are not finished"
            ),
            JobStrategy::Accurate => write!(
                f,
                "less the Jobs that are pending, up to {} in all",
                self.max()
            ),
            JobStrategy::Eager => {
                write!(f, "as long as there are fewer than {} in all", self.max())
            }
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "KEDA computes with such numbers"
)]
fn float(number: i64) -> f64 {
    number as f64
}

/// A number that is whole already; 0 if it is negative.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number beyond the range becomes its limit"
)]
fn whole(number: f64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::keda::arithmetic::KedaRule;
    use crate::model::keda::trigger::TriggerKind;
    use crate::model::keda::version::KedaVersion;

    /// Rules, as `min max strategy`, where each of the first two may be `-`.
    fn rules(text: &str) -> JobRules {
        let words: Vec<_> = text.split_whitespace().collect();
        let number = |place: usize| words[place].parse::<u32>().ok();
        let mut written = ScalingStrategy::default();
        for word in &words[2..] {
            match word.split_once('=') {
                None => written.strategy = Some((*word).to_owned()),
                Some(("deduction", value)) => {
                    written.custom_scaling_queue_length_deduction = value.parse().ok();
                }
                Some(("part", value)) => {
                    written.custom_scaling_running_job_percentage = Some(value.to_owned());
                }
                Some((_, value)) => written.multiple_scalers_calculation = Some(value.to_owned()),
            }
        }
        JobRules::new(number(0), number(1), &written)
    }

    /// Queues, each as `lag/threshold`, with `!` in front if the trigger is not active.
    fn demand(rules: &JobRules, queues: &str) -> QueueDemand {
        let read = queues.split_whitespace().map(|queue| {
            let is_active = !queue.starts_with('!');
            let (lag, threshold) = queue.trim_start_matches('!').split_once('/').unwrap();
            let metadata = [("topic", "t"), ("lagThreshold", threshold)];
            let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let trigger =
                KafkaTrigger::parse(TriggerKind::Kafka, &metadata.into(), KedaVersion::NEWEST);
            let lag = lag.parse().unwrap();
            let reading = KedaReading {
                lag,
                lag_with_persistent: lag,
                partitions: 5,
                partitions_with_lag: 5,
                bound: None,
                value: lag,
                rule: KedaRule::Lag,
                active: is_active && lag > 0,
            };
            (trigger.unwrap(), reading)
        });
        let read: Vec<_> = read.collect();
        let readings: Vec<_> = read
            .iter()
            .map(|(trigger, reading)| (trigger, reading))
            .collect();
        rules.demand(&readings)
    }

    /// Rules; queues; unfinished and pending Jobs; Jobs that KEDA starts.
    const CASES: &str = "
        - -   ; 28/5   ; 0 0   ; 6
        - -   ; 0/5    ; 0 0   ; 0
        - -   ; 1/5    ; 0 0   ; 1
        - -   ; 25/5   ; 0 0   ; 5
        - -   ; !28/5  ; 0 0   ; 0
        - -   ; 5000/5 ; 0 0   ; 100
        - 10  ; 5000/5 ; 0 0   ; 10
        - -   ; 28/5   ; 4 0   ; 2
        - -   ; 28/5   ; 6 3   ; 0
        - -   ; 28/5   ; 9 0   ; 0
        2 10  ; 28/5   ; 0 0   ; 2
        2 10  ; 28/5   ; 1 0   ; 1
        2 10  ; 28/5   ; 2 0   ; 6
        2 10  ; 28/5   ; 5 0   ; 3
        2 10  ; 0/5    ; 0 0   ; 2
        2 10  ; 0/5    ; 2 0   ; 0
        2 10  ; 999/5  ; 2 0   ; 8
        12 10 ; 999/5  ; 10 0  ; 10
        2 -   ; 999/5  ; 2 0   ; 100
        - 10 accurate ; 28/5  ; 0 0 ; 6
        - 10 accurate ; 28/5  ; 3 0 ; 6
        - 10 accurate ; 28/5  ; 3 3 ; 3
        - 10 accurate ; 28/5  ; 6 0 ; 4
        - 10 accurate ; 28/5  ; 10 0 ; 0
        - 10 accurate ; 28/5  ; 8 6 ; 0
        - 10 eager    ; 28/5  ; 0 0 ; 6
        - 10 eager    ; 28/5  ; 6 0 ; 4
        - 10 eager    ; 28/5  ; 6 2 ; 2
        - 10 eager    ; 28/5  ; 10 0 ; 0
        - 10 eager    ; 3/1   ; 0 0 ; 3
        - 10 custom part=0.5 ; 28/5 ; 0 0 ; 6
        - 10 custom part=0.5 ; 28/5 ; 5 0 ; 4
        - 10 custom part=0.5 deduction=2 ; 28/5 ; 5 0 ; 2
        - 10 custom part=2 deduction=9 ; 28/5 ; 5 0 ; 0
        - 10 custom part=-1 ; 28/5 ; 3 0 ; 9
        - 10 custom part=half ; 28/5 ; 4 0 ; 2
        - 10 custom ; 28/5 ; 4 0 ; 2
        - 10 other ; 28/5 ; 4 0 ; 2
        - 20       ; 28/5 40/4    ; 0 0 ; 10
        - 20       ; 41/20 40/4   ; 0 0 ; 3
        - 20 c=min ; 28/5 40/4    ; 0 0 ; 6
        - 20 c=min ; 28/5 !2/1    ; 0 0 ; 6
        - 20 c=avg ; 28/5 40/4    ; 0 0 ; 8
        - 20 c=avg ; 28/5 !40/4   ; 0 0 ; 6
        - 20 c=sum ; 28/5 40/4    ; 0 0 ; 16
        - 12 c=sum ; 28/5 40/4    ; 0 0 ; 12
    ";

    #[test]
    fn starts_jobs_as_keda() {
        let (mut wrong, mut count) = (String::new(), 0);
        for line in CASES.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let parts: Vec<_> = line.split(';').map(str::trim).collect();
            let rules = rules(parts[0]);
            let (unfinished, pending) = parts[2].split_once(' ').unwrap();
            let (unfinished, pending) = (unfinished.parse().unwrap(), pending.parse().unwrap());
            let found = rules.to_start(demand(&rules, parts[1]), unfinished, pending);
            if found.to_string() != parts[3] {
                wrong += &format!("{line}\n  is: {found}\n");
            }
            count += 1;
        }
        assert!(wrong.is_empty(), "\n{wrong}");
        assert!(count >= 40, "only {count} cases");
    }

    #[test]
    fn counts_from_the_least_number() {
        let rules = rules("2 10");
        assert_eq!(rules.jobs(demand(&rules, "28/5")), 8);
        assert_eq!(rules.jobs(demand(&rules, "0/5")), 2);
        assert_eq!((rules.min(), rules.max()), (2, 10));
    }
}
