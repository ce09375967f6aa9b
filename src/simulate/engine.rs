//! The engine: one run of a scenario under a policy.

use std::time::Duration;

use super::arrivals::Arrivals;
use super::group::SimulatedGroup;
use super::numbers::{count, index, whole};
use super::outcome::{RunOptions, RunTally, SimulatedRun};
use super::partitions::{AgeCounter, SimulatedPartition, share_out};
use super::pods::Deployment;
use super::records::{RunRecords, SimulatedSync, TimelineEntry};
use super::scaler::{Scaler, SimulatedPolicy, Truth};
use super::scenario::{RebalanceProtocol, Scenario};
use super::trace::TraceSample;
use crate::model::hpa::controller::memory::Recommendations;
use crate::model::hpa::controller::{MetricReading, ObservedScale};
use crate::model::lag::lag_age::EndRing;
use crate::model::policy::decision::RateDecision;
use crate::model::policy::reading::{GroupPartition, GroupReading};
use crate::model::units::newtypes::Offset;
use crate::model::units::quantity::Milli;

/// Seconds between two syncs of the HPA controller.
const HPA_PERIOD: u32 = 15;

/// Runs a scenario under a policy. The seed has to be that of the arrivals.
#[must_use]
pub fn run(
    scenario: &Scenario,
    policy: &SimulatedPolicy,
    seed: u64,
    arrivals: &Arrivals,
    options: &RunOptions,
) -> SimulatedRun {
    let mut simulation = Simulation::new(scenario, policy, seed, arrivals, options);
    for now in 0..scenario.duration {
        simulation.step(now);
    }
    simulation.finish()
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    policy: &'a SimulatedPolicy,
    arrivals: &'a Arrivals,
    options: &'a RunOptions,
    partitions: Vec<SimulatedPartition>,
    deployment: Deployment,
    group: SimulatedGroup,
    scaler: Scaler,
    hpa: Recommendations,
    /// The external metric; `None` if it is unknown.
    metric: Option<u64>,
    ends: EndRing,
    phases: Phases,
    random: fastrand::Rng,
    readings: Vec<GroupPartition>,
    work: Work,
    ages: AgeCounter,
    tally: RunTally,
    records: RunRecords,
}

/// When polls and syncs happen within their periods.
#[derive(Clone, Copy, Debug)]
struct Phases {
    poll: u32,
    hpa: u32,
}

/// Buffers of one second.
#[derive(Clone, Debug, Default)]
struct Work {
    owned: Vec<usize>,
    backlogs: Vec<u32>,
    given: Vec<u32>,
    processed: u64,
}

impl<'a> Simulation<'a> {
    fn new(
        scenario: &'a Scenario,
        policy: &'a SimulatedPolicy,
        seed: u64,
        arrivals: &'a Arrivals,
        options: &'a RunOptions,
    ) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let replicas = match policy {
            SimulatedPolicy::Static => scenario.partitions_at(0),
            _ => scenario.first_replicas(),
        };
        let phases = Phases {
            poll: random.u32(0..scenario.poll.max(1)),
            hpa: random.u32(0..HPA_PERIOD),
        };
        let deployment = Deployment::running(scenario, replicas, random.u64(..));
        let present = index(scenario.partitions_at(0));
        let group = SimulatedGroup::stable(&deployment.pods, present, random.u64(..));
        Self {
            scenario,
            policy,
            arrivals,
            options,
            partitions: vec![SimulatedPartition::default(); present],
            deployment,
            group,
            scaler: Scaler::new(policy),
            hpa: Recommendations::default(),
            metric: None,
            ends: EndRing::default(),
            phases,
            random,
            readings: Vec::new(),
            work: Work::default(),
            ages: AgeCounter::default(),
            tally: RunTally::default(),
            records: RunRecords::default(),
        }
    }

    fn step(&mut self, now: u32) {
        let scenario = self.scenario;
        let present = index(scenario.partitions_at(now));
        let has_grown = present > self.partitions.len();
        if has_grown {
            self.partitions
                .resize(present, SimulatedPartition::default());
        }
        if scenario.deploy == Some(now) {
            self.deployment.version += 1;
        }
        let arrived = self.arrivals.at(now);
        for (partition, messages) in self.partitions.iter_mut().zip(arrived) {
            partition.end += i64::from(*messages);
        }
        self.change_members(now, has_grown);
        self.process(now);
        self.commit(now);
        let is_poll = now % scenario.poll.max(1) == self.phases.poll;
        let decision = if is_poll { self.poll(now) } else { None };
        if now % HPA_PERIOD == self.phases.hpa {
            self.sync(now);
        }
        let is_late = self.oldest(now) > scenario.slo;
        let pods = count(self.deployment.pods.len());
        self.tally.count_second(now, pods, is_late);
        if self.options.has_timeline {
            self.records.count_messages(arrived, self.work.processed);
            if is_poll {
                self.extend_timeline(now, decision);
            }
        }
    }

    fn extend_timeline(&mut self, now: u32, decision: Option<RateDecision>) {
        let working = self.deployment.pods.iter().filter(|pod| pod.is_member);
        let capacity: f64 = working.map(|pod| pod.capacity).sum();
        let (arrivals, processed) = self.records.take_rates(now);
        self.records.timeline.push(TimelineEntry {
            second: now,
            replicas: count(self.deployment.pods.len()),
            members: self.members(),
            partitions: count(self.partitions.len()),
            age: self.oldest(now),
            arrivals,
            processed,
            capacity: capacity * self.scenario.capacity_factor(now),
            decision,
        });
    }

    fn members(&self) -> u32 {
        let pods = self.deployment.pods.iter();
        count(pods.filter(|pod| pod.is_member).count())
    }

    /// Starts and stops pods, and rebalances the group.
    fn change_members(&mut self, now: u32, has_grown: bool) {
        let scenario = self.scenario;
        let mut changed = has_grown;
        let stopped = self.deployment.reconcile(scenario, now);
        for pod in stopped.iter().filter(|pod| pod.is_member) {
            changed = true;
            for (place, owner) in self.group.owners.iter_mut().enumerate() {
                if *owner == Some(pod.id) {
                    *owner = None;
                    revoke(scenario, self.partitions.get_mut(place));
                }
            }
        }
        for pod in &mut self.deployment.pods {
            if !pod.is_member && now >= pod.ready_at {
                pod.is_member = true;
                changed = true;
            }
        }
        let present = self.partitions.len();
        let pods = &self.deployment.pods;
        if changed {
            for place in self.group.start_rebalance(scenario, pods, present, now) {
                revoke(scenario, self.partitions.get_mut(place));
            }
        }
        self.group.end_rebalance(scenario, pods, present, now);
    }

    fn process(&mut self, now: u32) {
        let Self {
            scenario,
            arrivals,
            partitions,
            deployment,
            group,
            work,
            ages,
            ..
        } = self;
        work.processed = 0;
        if scenario.is_out(now) {
            return;
        }
        if !group.is_stable() && scenario.protocol == RebalanceProtocol::Eager {
            return;
        }
        let members = deployment.pods.iter().filter(|pod| pod.is_member).count();
        let limit = scenario
            .downstream_limit(now)
            .map(|limit| limit / f64::from(count(members).max(1)));
        let factor = scenario.capacity_factor(now);
        for pod in deployment.pods.iter_mut().filter(|pod| pod.is_member) {
            work.owned.clear();
            work.backlogs.clear();
            for (place, owner) in group.owners.iter().enumerate() {
                if *owner != Some(pod.id) || scenario.is_poisoned(now, place) {
                    continue;
                }
                let backlog = partitions
                    .get(place)
                    .map_or(0, SimulatedPartition::unprocessed);
                work.owned.push(place);
                work.backlogs
                    .push(u32::try_from(backlog.max(0)).unwrap_or(u32::MAX));
            }
            let capacity = pod.capacity * factor;
            let budget = pod.carry + limit.map_or(capacity, |limit| limit.min(capacity));
            let left = share_out(whole(budget), &work.backlogs, &mut work.given);
            pod.carry = if left == 0 { budget.fract() } else { 0.0 };
            for (place, messages) in work.owned.iter().zip(&work.given) {
                if let Some(partition) = partitions.get_mut(*place) {
                    partition.process(*messages, now, scenario.slo, *place, arrivals, ages);
                    work.processed += u64::from(*messages);
                }
            }
        }
    }

    fn commit(&mut self, now: u32) {
        let scenario = self.scenario;
        if scenario.is_out(now) {
            return;
        }
        let interval = scenario.commit_interval.max(1);
        for pod in self.deployment.pods.iter().filter(|pod| pod.is_member) {
            if now % interval != pod.commit_phase {
                continue;
            }
            let owned = self.group.owners.iter().zip(&mut self.partitions);
            for (_, partition) in owned.filter(|(owner, _)| **owner == Some(pod.id)) {
                partition.committed = partition.committed.max(partition.position);
            }
        }
    }

    fn poll(&mut self, now: u32) -> Option<RateDecision> {
        let scenario = self.scenario;
        let in_gap = scenario
            .gaps
            .iter()
            .any(|(from, until)| (*from..*until).contains(&now));
        let is_missing = in_gap || self.random.f64() < scenario.missing;
        let millis = u64::from(now) * 1000;
        if !is_missing {
            let ends = self
                .partitions
                .iter()
                .map(|partition| Some(Offset(partition.end)));
            self.ends.push(millis, ends);
        }
        self.readings.clear();
        for (place, partition) in self.partitions.iter().enumerate() {
            let committed = Offset(partition.committed);
            self.readings.push(GroupPartition {
                end: (!is_missing).then_some(Offset(partition.end)),
                committed: (!is_missing).then_some(committed),
                age: self.ends.age(place, committed, millis),
                owner: self.group.owners.get(place).copied().flatten(),
            });
        }
        let ceiling = count(self.partitions.len());
        let bounds = self.options.rate_bounds(ceiling);
        let reading = GroupReading {
            at: Duration::from_secs(u64::from(now)),
            poll_interval: Duration::from_secs(u64::from(scenario.poll)),
            partitions: &self.readings,
            ceiling,
            bounds,
            all: bounds.1,
            is_stable: self.group.is_stable(),
            members: self.members(),
            status_replicas: count(self.deployment.pods.len()),
            supposed: None,
        };
        if self.options.has_trace {
            self.records
                .trace
                .push(TraceSample::of_simulation(&reading));
        }
        let truth = Truth {
            capacity: scenario.capacity * scenario.capacity_factor(now),
        };
        let (metric, decision) = self.scaler.observe(&reading, truth);
        self.metric = metric;
        decision
    }

    fn sync(&mut self, now: u32) {
        let most = count(self.partitions.len());
        let before = self.deployment.spec_replicas;
        let after = if matches!(self.policy, SimulatedPolicy::Static) {
            most
        } else if matches!(self.policy, SimulatedPolicy::Clairvoyant) {
            self.options.scheduled(now).unwrap_or(before).min(most)
        } else {
            let spec = self.options.hpa_of(self.policy, most);
            let reading = match self.metric {
                Some(units) => MetricReading::Value(Milli::from_units(units)),
                None => MetricReading::Failed,
            };
            let seen = ObservedScale {
                spec_replicas: before,
                status_replicas: count(self.deployment.pods.len()),
                pods: None,
                readings: vec![reading],
                // Only this HPA changes the replicas, so zero replicas are its own decision.
                scaled_to_zero: before == 0,
            };
            let sync = self
                .hpa
                .sync(&spec, &seen, Duration::from_secs(u64::from(now)));
            let after = sync.replicas.unwrap_or(before);
            if self.options.has_syncs {
                self.records.syncs.push(SimulatedSync { seen, after });
            }
            after
        };
        if after == before {
            return;
        }
        self.deployment.spec_replicas = after;
        self.tally.count_change(now, after > before);
    }

    fn oldest(&self, now: u32) -> u32 {
        let partitions = self.partitions.iter().enumerate();
        let waiting = partitions.filter(|(place, partition)| {
            partition.unprocessed() > 0 && !self.scenario.is_poisoned(now, *place)
        });
        let ages = waiting.map(|(place, partition)| partition.age(now, place, self.arrivals));
        ages.max().unwrap_or(0)
    }

    fn finish(mut self) -> SimulatedRun {
        let last = self.scenario.duration.saturating_sub(1);
        for (place, partition) in self.partitions.iter_mut().enumerate() {
            if !self.scenario.is_poisoned(last, place) {
                let slo = self.scenario.slo;
                partition.count_rest(last, slo, place, self.arrivals, &mut self.ages);
            }
        }
        let rebalances = self.group.rebalances;
        SimulatedRun {
            score: self.tally.score(self.scenario, &self.ages, rebalances),
            records: self.records,
        }
    }
}

/// Takes a partition away from its owner.
fn revoke(scenario: &Scenario, partition: Option<&mut SimulatedPartition>) {
    let Some(partition) = partition else { return };
    if scenario.commits_on_revoke {
        partition.committed = partition.committed.max(partition.position);
    } else {
        partition.reset_to_committed();
    }
}
