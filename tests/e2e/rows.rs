//! One scenario for each row of the table of lag rules: sets up the state on a real cluster, and reads it with every
//! client.
//!
//! Rules that need minutes or days do not wait: [`Sources::advance_clock`] moves the time of the observations forward
//! before they are applied to the history.

mod commits;
mod logs;
mod parallelism;
mod pattern;
mod share;
mod subscriptions;
mod time;
pub(crate) mod work;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use lagwise::model::lag::PartitionLag;
use lagwise::model::lag::cluster_snapshot::{GroupSnapshot, TopicLag};

use crate::Test;
use crate::sources::{Sources, plan};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

macro_rules! row {
    ($part:ident :: $case:ident) => {
        (concat!("rows::", stringify!($case)), |testbed: &Testbed| {
            $part::$case(testbed.kafka()?)
        })
    };
}

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    row!(logs::retention_overtook_the_group),
    row!(logs::a_topic_recreated_is_unknown_until_the_next_commit),
    row!(logs::a_topic_recreated_between_two_sweeps_is_detected),
    row!(logs::a_topic_whose_records_are_all_gone_has_no_lag),
    row!(logs::a_commit_beyond_the_end_is_unknown),
    row!(logs::committed_records_only),
    row!(logs::a_compacted_topic_counts_its_gaps),
    row!(logs::partitions_added_under_a_live_group),
    row!(commits::without_a_commit_the_reset_policy_decides),
    row!(commits::without_a_commit_deleted_records_are_no_lag),
    row!(commits::a_member_without_a_commit_reads_what_came_since),
    row!(commits::commits_that_vanished_are_remembered),
    row!(commits::a_member_by_manual_assignment),
    row!(time::a_transaction_marker_is_a_residue),
    row!(time::a_residue_outlives_its_commit),
    row!(time::a_residue_outlives_its_consumer),
    row!(time::a_poison_partition_is_stuck),
    row!(time::a_long_job_is_neither_stuck_nor_a_residue),
    row!(time::lag_in_seconds),
    row!(time::lag_in_seconds_from_a_single_reading),
    row!(subscriptions::a_topic_that_the_group_has_left_never_counts),
    row!(subscriptions::a_topic_with_new_commits_of_an_empty_group_counts),
    row!(parallelism::members_with_partitions_are_the_useful_parallelism),
    row!(parallelism::manual_assignment_allows_the_partitions_with_commits),
    row!(pattern::old_commits_do_not_count_with_a_pattern_subscription),
    row!(pattern::patterns_of_several_members_are_read_together),
    ("rows::a_share_group_has_no_limit", |testbed| {
        parallelism::a_share_group_has_no_limit(testbed.preview_kafka()?)
    }),
    (
        "rows::a_share_groups_lag_is_what_its_broker_reports",
        |testbed| share::lag_is_what_the_broker_reports(testbed.newest_kafka()?),
    ),
    (
        "rows::a_share_groups_lag_is_a_bound_before_4_2",
        |testbed| share::lag_is_a_bound_where_the_broker_reports_none(testbed.preview_kafka()?),
    ),
    ("rows::a_streams_group_has_its_tasks", |testbed| {
        parallelism::a_streams_group_has_its_tasks(testbed.preview_kafka()?)
    }),
];

/// Timeout until the clients see a change. They refresh metadata every ten seconds, and groups every thirty.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(75);

/// A group on one topic, read by every client.
pub(crate) struct Row<'a> {
    pub(crate) kafka: &'a KafkaCluster,
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) sources: Sources,
    pub(crate) plan: SweepPlan,
}

impl<'a> Row<'a> {
    /// Creates a topic, for a new group.
    pub(crate) fn new(kafka: &'a KafkaCluster, partitions: i32) -> Result<Self> {
        let topic = unique("row");
        kafka.create_topic(&topic, partitions)?;
        Self::on_topic(kafka, topic)
    }

    /// A new group on an existing topic.
    pub(crate) fn on_topic(kafka: &'a KafkaCluster, topic: String) -> Result<Self> {
        let group = unique("row");
        Ok(Self {
            kafka,
            sources: Sources::new(kafka)?,
            plan: plan(&group, &[&topic]),
            group,
            topic,
        })
    }

    /// Changes the plan of the group.
    pub(crate) fn read(mut self, change: impl Fn(&mut GroupPlan)) -> Self {
        self.plan.groups.iter_mut().for_each(change);
        self
    }

    pub(crate) fn commit(&self, offsets: &[(i32, i64)]) -> Result<()> {
        self.kafka.commit(&self.group, &self.topic, offsets)
    }

    pub(crate) fn produce(&self, counts: &[(i32, usize)]) -> Result<()> {
        self.kafka.produce_to(&self.topic, counts)
    }

    /// Moves the clock of later observations forward, so that the history sees time pass.
    pub(crate) fn advance_clock(&mut self, time: Duration) {
        self.sources.advance_clock(time);
    }

    /// Sweeps once with every client.
    pub(crate) fn sweep(&mut self) -> Result<()> {
        self.sources.sweep(&self.plan.clone()).map(drop)
    }

    /// Sweeps once. The reading of every client has to be `expected`.
    pub(crate) fn expect(&mut self, expected: &str) -> Result<()> {
        self.expect_each(|_| expected)
    }

    /// Like [`Self::expect`], with a different reading for each client.
    pub(crate) fn expect_each<'e>(
        &mut self,
        expected: impl Fn(ClientKind) -> &'e str,
    ) -> Result<()> {
        for (client, seen) in self.readings()? {
            let expected = expected(client);
            ensure!(
                seen == expected,
                "{client:?} reads {seen:?} instead of {expected:?}"
            );
        }
        Ok(())
    }

    /// Sweeps once, and returns the reading of every client.
    pub(crate) fn readings(&mut self) -> Result<Vec<(ClientKind, String)>> {
        self.sweep()?;
        let each = self.sources.each.iter().map(|subject| {
            let group = subject.known.groups.get(self.group.as_str());
            let seen = reading(group.context("no reading of the group")?, &self.topic);
            Ok((subject.client, seen))
        });
        each.collect()
    }

    /// Sweeps until the reading of every client is `expected`.
    pub(crate) fn wait_for(&mut self, expected: &str) -> Result<()> {
        poll_until(CHANGE_TIMEOUT, expected, || self.expect(expected))
    }

    /// Like [`Self::wait_for`], with a different reading for each client.
    pub(crate) fn wait_for_each<'e>(
        &mut self,
        what: &str,
        expected: impl Fn(ClientKind) -> &'e str,
    ) -> Result<()> {
        poll_until(CHANGE_TIMEOUT, what, || self.expect_each(&expected))
    }

    /// The last reading of each client; an unknown one is an error.
    pub(crate) fn lags(&self) -> Result<Vec<(ClientKind, std::sync::Arc<TopicLag>)>> {
        let of = |subject: &crate::sources::Subject| {
            let group = subject.known.groups.get(self.group.as_str());
            let topic = group.and_then(|group| group.topics.get(self.topic.as_str()));
            let lag = topic.and_then(|topic| topic.latest.as_ref().ok());
            Ok((subject.client, lag.context("no reading")?.clone()))
        };
        self.sources.each.iter().map(of).collect()
    }
}

/// Formats a reading by partition, with rule and messages or the fault: `measured 3, never_ran, lost 50, 4 gone,
/// !no_answer`.
fn reading(group: &GroupSnapshot, topic: &str) -> String {
    let lag = match group.topics.get(topic).map(|topic| &topic.latest) {
        Some(Ok(lag)) => lag,
        Some(Err(fault)) => return format!("!{}", fault.label()),
        None => return "nothing".to_owned(),
    };
    let each = lag.lags.iter().enumerate();
    let each = each.map(|(partition, rule)| of_partition(rule, lag, partition));
    each.collect::<Vec<_>>().join(", ")
}

fn of_partition(rule: &Result<PartitionLag, Fault>, lag: &TopicLag, partition: usize) -> String {
    match rule {
        Err(fault) => format!("!{}", fault.label()),
        Ok(rule @ (PartitionLag::NeverRan | PartitionLag::BeyondStable)) => rule.label().to_owned(),
        Ok(rule) => match lag.lost(partition) {
            Some(lost) => format!("{} {}, {lost} gone", rule.label(), rule.messages()),
            None => format!("{} {}", rule.label(), rule.messages()),
        },
    }
}
