//! Lag that is worth more replicas than the ceiling allows: how many it is worth, and since when.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::model::evaluation::{Ceiling, GroupEvaluation, HpaMetric};
use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::HpaFacts;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{Lag, Replicas};
use crate::model::units::parallelism_rule::ParallelismRule;

/// A metric whose lag is worth more replicas than its ceiling allows. `Display` is a sentence about it.
#[derive(Clone, Copy, Debug)]
pub struct AtCeiling<'a> {
    metric: &'a HpaMetric<'a>,
    lag: Lag,
    /// The replicas that the lag is worth.
    uncapped: u32,
    /// The desired replicas.
    capped: u32,
}

impl<'a> AtCeiling<'a> {
    /// `None` if the ceiling takes nothing from the metric, or that is not known.
    #[must_use]
    pub fn of_metric(metric: &'a HpaMetric<'a>) -> Option<Self> {
        let value = metric.outcome.as_ref().ok()?;
        let (uncapped, capped) = (value.uncapped?, value.desired?);
        let ceiling = value.ceiling.map(|ceiling| ceiling.replicas);
        let is_cut = value.rule.is_cut_by(ceiling, uncapped, capped);
        is_cut.then_some(Self {
            metric,
            lag: value.lag?,
            uncapped,
            capped,
        })
    }

    /// The same for the metric that the HPA follows: the one with the most desired replicas. Also `None` if
    /// `maxReplicas` is below the ceiling, because then the HPA itself reports its limit.
    #[must_use]
    pub fn of_hpa(metrics: &'a [HpaMetric<'a>], max_replicas: u32) -> Option<Self> {
        let desired = |metric: &&HpaMetric<'_>| {
            let value = metric.outcome.as_ref().ok();
            value.map(|value| (value.desired, value.uncapped))
        };
        let followed = metrics.iter().max_by_key(desired)?;
        Self::of_metric(followed).filter(|at| at.capped <= max_replicas)
    }

    /// The finding about it, with the present numbers.
    #[must_use]
    pub fn finding(&self, hpa: HpaKey) -> Finding {
        Finding::new(FindingCode::AtCeiling, hpa, self.to_string())
    }
}

impl fmt::Display for AtCeiling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            metric,
            lag,
            uncapped,
            capped,
        } = self;
        write!(
            f,
            "lag {lag} is worth {uncapped} replicas, capped at {capped} ("
        )?;
        match metric.evaluation.groups.as_slice() {
            [group] => write_limit(f, group)?,
            _ => f.write_str("by the replica ceilings of its groups")?,
        }
        f.write_str(")")
    }
}

/// Writes what limits the replicas that read one group.
fn write_limit(f: &mut fmt::Formatter<'_>, group: &GroupEvaluation) -> fmt::Result {
    let Ok(measure) = &group.measure else {
        return f.write_str("by its replica ceiling");
    };
    let Ceiling {
        useful, threads, ..
    } = measure.ceiling;
    let mut topics = group.topics();
    match (useful.rule, topics.next(), topics.next()) {
        (ParallelismRule::OneTopic, Some(topic), None) => {
            let noun = match useful.limit.bounded() {
                Some(1) => "partition",
                _ => "partitions",
            };
            write!(f, "{} {noun} of {}", useful.limit, topic.topic)?;
        }
        (rule, ..) => write!(f, "useful parallelism {}: {rule}", useful.limit)?,
    }
    match threads.get() {
        1 => Ok(()),
        threads => write!(f, ", {threads} members in each replica"),
    }
}

/// How long the lag of an HPA must be worth no more than the ceiling before the finding about it ends, so that lag
/// which goes up and down around the ceiling is reported once.
const ENDS_AFTER: Duration = Duration::from_secs(600);

/// The findings about HPAs at their ceilings. Each keeps the numbers of the moment when it began.
#[derive(Debug, Default)]
pub struct AtCeilingFindings(BTreeMap<HpaKey, Ongoing>);

/// A finding that has begun.
#[derive(Debug)]
struct Ongoing {
    finding: Finding,
    /// The ceiling of the HPA; `None` if it follows the lag, or has not been known yet.
    ceiling: Option<Replicas>,
    /// When the lag was last seen to be worth more than the ceiling.
    seen: Instant,
}

impl AtCeilingFindings {
    /// Updates the finding about an HPA after a sweep, and returns it while it lasts. Another `ceiling` begins a new
    /// finding. `ceiling` is `None` if it follows the lag, or is unknown because a metric fails.
    pub fn update(
        &mut self,
        hpa: &HpaFacts,
        metrics: &[HpaMetric<'_>],
        ceiling: Option<Replicas>,
        now: Instant,
    ) -> Option<&Finding> {
        let key = hpa.key();
        let present = AtCeiling::of_hpa(metrics, hpa.max_replicas);
        let lasts = self.0.get_mut(&key).is_some_and(|ongoing| match present {
            Some(_) => {
                ongoing.seen = now;
                let both = ongoing.ceiling.zip(ceiling);
                ongoing.ceiling = ongoing.ceiling.or(ceiling);
                both.is_none_or(|(known, present)| known == present)
            }
            None => now.saturating_duration_since(ongoing.seen) < ENDS_AFTER,
        });
        match present {
            _ if lasts => {}
            Some(present) => {
                let finding = present.finding(key.clone());
                let ongoing = Ongoing {
                    finding,
                    ceiling,
                    seen: now,
                };
                self.0.insert(key.clone(), ongoing);
            }
            None => {
                self.0.remove(&key);
            }
        }
        self.0.get(&key).map(|ongoing| &ongoing.finding)
    }

    /// Forgets an HPA.
    pub fn remove(&mut self, hpa: &HpaKey) {
        self.0.remove(hpa);
    }
}

#[cfg(test)]
mod tests;
