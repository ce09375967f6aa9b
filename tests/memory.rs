//! What the model costs in memory for every group on every partition, counted by the allocator: with
//! what is shared between groups dealt out to them.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::print_stderr,
    reason = "figures for whoever runs it"
)]

use std::alloc::System;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::observation::{GroupObservation, Observation, TopicOffsets};
use lagwise::model::kafka::sweep_plan::GroupPlan;
use lagwise::model::lag::assembly::{ClusterHistory, Scope};
use lagwise::model::units::newtypes::{Moment, Offset, TopicName};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PARTITIONS: usize = 12;

/// Groups, topics that each of them reads, topics in all.
#[derive(Clone, Copy)]
struct Workload {
    groups: usize,
    each: usize,
    topics: usize,
}

impl Workload {
    fn group_partitions(self) -> f64 {
        (self.groups * self.each * PARTITIONS) as f64
    }

    fn observation(self, zero: &Moment, poll: u64) -> Observation {
        let passed = Duration::from_secs(5 * poll);
        let now = Moment {
            monotonic: zero.monotonic + passed,
            wall: zero.wall + passed,
        };
        let names: Vec<TopicName> = (0..self.topics)
            .map(|i| TopicName::from(format!("topic-{i}")))
            .collect();
        let at = |offset: u64| vec![Ok(Offset(i64::try_from(offset).unwrap())); PARTITIONS];
        let offsets = || {
            Arc::new(TopicOffsets {
                starts: at(0),
                ends: at(1000 + 50 * poll),
                ..TopicOffsets::default()
            })
        };
        let commit = i64::try_from(900 + 50 * poll).unwrap();
        let of_group = |i: usize| (0..self.each).map(move |j| (i * self.each + j) % self.topics);
        Observation {
            cluster: "main".into(),
            started: now,
            finished: now,
            topics: names.iter().map(|n| (n.clone(), Ok(offsets()))).collect(),
            groups: (0..self.groups)
                .map(|i| GroupObservation {
                    plan: GroupPlan::new(
                        format!("group-{i:04}"),
                        of_group(i).map(|t| names[t].clone()).collect(),
                    ),
                    description: Err(Fault::Untold),
                    committed: Ok(of_group(i)
                        .map(|t| (names[t].clone(), vec![Ok(Some(Offset(commit))); PARTITIONS]))
                        .collect()),
                })
                .collect(),
            connection: None,
            traffic: None,
        }
    }
}

/// Bytes that are held more than when the region began.
fn held(region: &Region<'_, System>) -> f64 {
    let change = region.change();
    change.bytes_allocated as f64 - change.bytes_deallocated as f64
}

#[test]
fn every_group_and_partition_costs_little() {
    // Of the last, no two groups share a topic: each pays alone for the topic's offsets and samples.
    let workloads = [
        ("W2", 1000, 3, 500, 64.0, 200.0),
        ("W3", 100, 100, 100, 64.0, 200.0),
        ("unshared", 500, 1, 500, 120.0, 320.0),
    ];
    for (name, groups, each, topics, snapshot_max, all_max) in workloads {
        let workload = Workload {
            groups,
            each,
            topics,
        };
        let zero = Moment {
            monotonic: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        };
        let region = Region::new(ALLOCATOR);
        let mut history = ClusterHistory::default();
        let mut snapshot = None;
        for poll in 0..30 {
            drop(snapshot.take());
            let observed = workload.observation(&zero, poll);
            snapshot = Some(history.apply(observed, Scope::Whole));
        }
        let per = workload.group_partitions();
        let all = held(&region) / per;
        drop(history);
        let snapshot_only = held(&region) / per;
        drop(snapshot);
        let left = held(&region) / per;
        eprintln!(
            "{name}: {all:.1} bytes, of which the snapshot {snapshot_only:.1}; left {left:.1}"
        );
        assert!(left.abs() < 0.1, "{name}: the count is off by {left}");
        assert!(snapshot_only < snapshot_max, "{name}: {snapshot_only}");
        assert!(all < all_max, "{name}: {all}");
    }
}
