//! The metrics of a snapshot: the names of `kafka_exporter`, which dashboards and alerts use already, and lagwise's
//! own. Streamed in Prometheus's text format, or in messages of OpenTelemetry.
//!
//! An unknown reading has no sample, because 0 or -1 would be taken for a lag. A series that ends means that
//! its value is unknown; `lagwise_partition_faults` has the cause.

mod activity;
mod clusters;
mod exported;
pub(crate) mod families;
pub(super) mod otlp;
mod sample;
pub(crate) mod shadow;
mod targets;
mod text;
mod turns;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::exported::ExportedGroups;
use self::sample::{Labels, ReaderGone, SampleStream, SampleValue};
use self::text::TextWriter;
pub(super) use self::turns::{AddressTurns, WriterTurns};
use super::BuildInfo;
use crate::model::lag::cluster_snapshot::TopicLag;
use crate::model::lag::lag_age::LagAge;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::newtypes::{ClusterName, GroupId, Moment, Offset, TopicName};

/// Size of a chunk. Only a few chunks are in memory at once, however long the exposition is.
const CHUNK_BYTES: usize = 32 * 1024;

/// Timeout for writing an exposition, however slowly it is read: its writer keeps the memory of the snapshot.
/// Prometheus gives up after ten seconds by default.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Streams the metrics of a snapshot, followed by `rest`. An error ends the stream, so that readers notice that it is
/// incomplete.
///
/// The writer is a separate task: it takes its turns and ends in time even if the stream is not polled, and it is
/// aborted when the stream is dropped. So this must be called within a runtime.
pub(super) fn stream(
    turns: AddressTurns,
    snapshot: Arc<LagSnapshot>,
    now: Moment,
    build: BuildInfo,
    rest: String,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream_in_chunks(CHUNK_BYTES, turns, snapshot, now, build, rest)
}

fn stream_in_chunks(
    chunk_bytes: usize,
    turns: AddressTurns,
    snapshot: Arc<LagSnapshot>,
    now: Moment,
    build: BuildInfo,
    rest: String,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (chunks, mut received) = mpsc::channel(1);
    let writing = async move {
        let mut text = TextWriter::new(chunk_bytes, chunks.clone(), turns).await;
        let written = write(&mut text, &snapshot, &now, &build).await;
        drop(text);
        if written.is_ok() && !rest.is_empty() {
            // An error means that there is no reader.
            let _ = chunks.send(rest.into()).await;
        }
    };
    let mut writer = JoinSet::new();
    writer.spawn(timeout(RESPONSE_TIMEOUT, writing));
    stream::poll_fn(move |context| match ready!(received.poll_recv(context)) {
        Some(chunk) => Poll::Ready(Some(Ok(chunk))),
        None => match ready!(writer.poll_join_next(context)) {
            None | Some(Ok(Ok(()))) => Poll::Ready(None),
            Some(Ok(Err(elapsed))) => Poll::Ready(Some(Err(elapsed.into()))),
            Some(Err(panicked)) => Poll::Ready(Some(Err(panicked.into()))),
        },
    })
}

async fn write(
    samples: &mut impl SampleStream,
    snapshot: &LagSnapshot,
    now: &Moment,
    build: &BuildInfo,
) -> Result<(), ReaderGone> {
    let exported = ExportedGroups::new(snapshot);
    consumer_groups(samples, &exported).await?;
    ages_and_rules(samples, &exported).await?;
    members(samples, &exported).await?;
    topics(samples, &exported).await?;
    activity::write(samples, &exported).await?;
    targets::parallelism(samples, snapshot, &exported).await?;
    targets::targets(samples, snapshot, now).await?;
    targets::policies(samples, snapshot, now).await?;
    freshness(samples, snapshot, &exported, now).await?;
    findings(samples, snapshot).await?;
    budgets(samples, snapshot, &exported).await?;
    clusters::clusters(samples, snapshot).await?;
    clusters::traffic(samples, snapshot).await?;
    clusters::certificates(samples, snapshot).await?;
    samples.family(&families::BUILD_INFO);
    let labels = Labels::default()
        .with("version", &build.version)
        .with("librdkafka", &build.librdkafka);
    samples.sample(&labels, true);
    samples.flush().await
}

async fn consumer_groups(
    samples: &mut impl SampleStream,
    exported: &ExportedGroups<'_>,
) -> Result<(), ReaderGone> {
    samples.family(&families::GROUP_LAG);
    for (labels, lag) in exported.latest_with_partitions() {
        for (partition, lag) in lag.lags.iter().enumerate() {
            if let Ok(lag) = lag {
                samples.partition_sample(&labels, partition, lag.messages());
                samples.flush_if_full().await?;
            }
        }
    }
    samples.family(&families::GROUP_LAG_SUM);
    for (labels, lag) in exported.latest() {
        if let Ok(total) = lag.messages() {
            samples.sample(&labels, total);
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::GROUP_CURRENT_OFFSET);
    for (labels, lag) in exported.latest_with_partitions() {
        for (partition, committed) in lag.committed.iter().enumerate() {
            if let Ok(Some(committed)) = committed {
                samples.partition_sample(&labels, partition, committed);
                samples.flush_if_full().await?;
            }
        }
    }
    samples.family(&families::GROUP_CURRENT_OFFSET_SUM);
    for (labels, lag) in exported.latest() {
        if let Some(sum) = committed_sum(lag) {
            samples.sample(&labels, sum);
            samples.flush_if_full().await?;
        }
    }
    Ok(())
}

/// Sum of the committed offsets; `None` while one is unknown, or if there is none.
fn committed_sum(lag: &TopicLag) -> Option<u64> {
    let mut sum = None;
    for committed in lag.committed.iter() {
        if let Some(Offset(offset)) = committed.ok()? {
            let offset = u64::try_from(offset).unwrap_or(0);
            sum = Some(sum.unwrap_or(0u64).saturating_add(offset));
        }
    }
    sum
}

/// Writes lag in seconds, and partitions by the rule of their lag.
async fn ages_and_rules(
    samples: &mut impl SampleStream,
    exported: &ExportedGroups<'_>,
) -> Result<(), ReaderGone> {
    let seconds = |age: LagAge| age.duration().as_secs_f64();
    samples.family(&families::GROUP_LAG_SECONDS);
    for (labels, lag) in exported.latest() {
        if let Some(age) = lag.age() {
            samples.sample(&labels, seconds(age));
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::GROUP_LAG_SECONDS_IS_LOWER_BOUND);
    for (labels, lag) in exported.latest() {
        if let Some(age) = lag.age() {
            samples.sample(&labels, age.is_bound());
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::GROUP_PARTITION_LAG_SECONDS);
    for (labels, lag) in exported.latest_with_partitions() {
        for (partition, age) in lag.partition_ages().enumerate() {
            if let Some(age) = age {
                samples.partition_sample(&labels, partition, seconds(age));
                samples.flush_if_full().await?;
            }
        }
    }
    samples.family(&families::GROUP_PARTITIONS);
    for (labels, lag) in exported.latest() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for lag in lag.lags.iter().flatten() {
            let count = counts.entry(lag.label()).or_default();
            *count = count.saturating_add(1);
        }
        for (rule, count) in counts {
            samples.sample(&labels.clone().with("rule", rule), count);
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::GROUP_STUCK);
    for group in exported.iter().filter(|exported| exported.group.stuck) {
        let labels = in_cluster(group.cluster).with("consumergroup", group.id.as_str());
        samples.sample(&labels, true);
        samples.flush_if_full().await?;
    }
    Ok(())
}

async fn members(
    samples: &mut impl SampleStream,
    exported: &ExportedGroups<'_>,
) -> Result<(), ReaderGone> {
    samples.family(&families::GROUP_MEMBERS);
    for group in exported.iter() {
        if let Some(description) = &group.group.description {
            let labels = in_cluster(group.cluster).with("consumergroup", group.id.as_str());
            samples.sample(&labels, description.member_count());
            samples.flush_if_full().await?;
        }
    }
    Ok(())
}

async fn topics(
    samples: &mut impl SampleStream,
    exported: &ExportedGroups<'_>,
) -> Result<(), ReaderGone> {
    let read = exported.topics_read();
    let with_partitions = || read.iter().filter(|(.., has_partitions)| *has_partitions);
    samples.family(&families::TOPIC_PARTITIONS);
    for (labels, offsets, _) in &read {
        samples.sample(labels, offsets.ends.len());
        samples.flush_if_full().await?;
    }
    samples.family(&families::TOPIC_PARTITION_CURRENT_OFFSET);
    for (labels, offsets, _) in with_partitions() {
        for (partition, end) in offsets.ends.iter().enumerate() {
            if let Ok(end) = end {
                samples.partition_sample(labels, partition, *end);
                samples.flush_if_full().await?;
            }
        }
    }
    samples.family(&families::TOPIC_PARTITION_OLDEST_OFFSET);
    for (labels, offsets, _) in with_partitions() {
        for (partition, start) in offsets.starts.iter().enumerate() {
            if let Ok(start) = start {
                samples.partition_sample(labels, partition, *start);
                samples.flush_if_full().await?;
            }
        }
    }
    Ok(())
}

async fn freshness(
    samples: &mut impl SampleStream,
    snapshot: &LagSnapshot,
    exported: &ExportedGroups<'_>,
    now: &Moment,
) -> Result<(), ReaderGone> {
    samples.family(&families::DATA_AGE_SECONDS);
    for (labels, topic) in exported.topics() {
        if let Some(complete) = &topic.complete {
            let age = now.since(&complete.read).as_secs_f64();
            samples.sample(&labels, SampleValue::Rounded(age));
            samples.flush_if_full().await?;
        }
    }
    samples.family(&families::MAX_STALENESS_SECONDS);
    // A replica that does not lead has a snapshot without settings.
    if !snapshot.clusters.is_empty() {
        let max_staleness = snapshot.evaluations.policy().max_staleness;
        samples.sample(&Labels::default(), max_staleness.as_secs_f64());
        samples.flush_if_full().await?;
    }
    Ok(())
}

async fn findings(
    samples: &mut impl SampleStream,
    snapshot: &LagSnapshot,
) -> Result<(), ReaderGone> {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for finding in snapshot.all_findings() {
        let count = counts.entry(finding.code).or_default();
        *count = count.saturating_add(1);
    }
    samples.family(&families::PRESENT_FINDINGS);
    for (code, count) in counts {
        let labels = Labels::default()
            .with("kind", code.label())
            .with("severity", code.severity().name());
        samples.sample(&labels, count);
        samples.flush_if_full().await?;
    }
    Ok(())
}

/// Writes which data is not read or not exported because a budget is exceeded.
async fn budgets(
    samples: &mut impl SampleStream,
    snapshot: &LagSnapshot,
    exported: &ExportedGroups<'_>,
) -> Result<(), ReaderGone> {
    samples.family(&families::OVER_BUDGET);
    let of_hpas = snapshot.targets.exceeded_budgets();
    for (exceeded, count) in of_hpas.iter().chain(&*snapshot.unread_partitions) {
        let labels = Labels::default()
            .with("scope", exceeded.scope.name())
            .with("resource", exceeded.resource.name());
        samples.sample(&labels, *count);
        samples.flush_if_full().await?;
    }
    samples.family(&families::PARTITION_SERIES_OMITTED);
    samples.sample(&Labels::default(), exported.omitted_partitions);
    samples.flush_if_full().await
}

fn in_cluster(cluster: &ClusterName) -> Labels {
    Labels::default().with("cluster", cluster.as_str())
}

fn topic_labels(cluster: &ClusterName, group: &GroupId, topic: &TopicName) -> Labels {
    in_cluster(cluster)
        .with("consumergroup", group.as_str())
        .with("topic", topic.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures::stream::BoxStream;
    use futures::{StreamExt, TryStreamExt};
    use proptest::prelude::*;
    use tokio::task::yield_now;
    use tokio::time::{Instant, sleep};

    use super::clusters::faults;
    use super::*;
    use crate::model::evaluation::ServingPolicy;
    use crate::model::findings::{Finding, FindingCode};
    use crate::model::fixtures;
    use crate::model::hpa::facts::{ExternalMetric, HpaFacts, MetricTarget};
    use crate::model::hpa::selector::Selector;
    use crate::model::lag::assembly::{ClusterHistory, Scope};
    use crate::model::targets::budgets::{BudgetExceeded, BudgetScope, Budgets, Resource};
    use crate::model::targets::{TargetOptions, Targets, WatchKey};
    use crate::model::units::hpa_key::HpaKey;
    use crate::model::units::metric::LAG_METRIC;
    use crate::model::units::quantity::Milli;
    use crate::model::units::untrusted_text::write_escaped;

    /// Streams the exposition in chunks of about this size.
    fn stream_snapshot(
        chunk_bytes: usize,
        turns: &WriterTurns,
        snapshot: Arc<LagSnapshot>,
        now: &Moment,
    ) -> BoxStream<'static, io::Result<Bytes>> {
        let (turns, rest) = (turns.at_address(None), String::new());
        stream_in_chunks(chunk_bytes, turns, snapshot, *now, build(), rest).boxed()
    }

    /// Collects the exposition, sent in chunks of about this size.
    fn render_in_chunks(chunk_bytes: usize, snapshot: &LagSnapshot, now: &Moment) -> Vec<String> {
        let snapshot = Arc::new(snapshot.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let chunks: Vec<io::Result<Bytes>> = runtime.unwrap().block_on(async {
            let chunks = stream_snapshot(chunk_bytes, &WriterTurns::default(), snapshot, now);
            chunks.collect().await
        });
        let text = |chunk: io::Result<Bytes>| String::from_utf8(chunk.unwrap().to_vec()).unwrap();
        chunks.into_iter().map(text).collect()
    }

    fn render(snapshot: &LagSnapshot, now: &Moment) -> String {
        render_in_chunks(CHUNK_BYTES, snapshot, now).concat()
    }

    #[test]
    fn chunks_are_bounded_and_add_up_to_the_exposition() {
        let now = fixtures::at(Duration::from_secs(7));
        let whole = render(&with_targets(), &now);
        let (headers, samples): (Vec<&str>, Vec<&str>) =
            whole.lines().partition(|line| line.starts_with('#'));
        let headers: usize = headers.iter().map(|line| line.len() + 1).sum();
        let sample = samples.iter().map(|line| line.len() + 1).max().unwrap();
        for chunk_bytes in [1, 200, 1000] {
            let chunks = render_in_chunks(chunk_bytes, &with_targets(), &now);
            assert_eq!(chunks.concat(), whole);
            let bound = chunk_bytes + headers + sample;
            assert!(chunks.iter().all(|chunk| chunk.len() <= bound));
        }
    }

    /// A scrape in chunks of few bytes.
    fn scrape(
        turns: &WriterTurns,
        snapshot: &Arc<LagSnapshot>,
    ) -> BoxStream<'static, io::Result<Bytes>> {
        let now = fixtures::at(Duration::from_secs(7));
        stream_snapshot(200, turns, Arc::clone(snapshot), &now)
    }

    /// Whether a scraper that reads gets the whole exposition at once.
    async fn is_served(turns: &WriterTurns, snapshot: &Arc<LagSnapshot>) -> bool {
        let began = Instant::now();
        let whole: io::Result<Vec<Bytes>> = scrape(turns, snapshot).try_collect().await;
        whole.is_ok_and(|chunks| chunks.len() > 10) && began.elapsed() == Duration::ZERO
    }

    #[tokio::test(start_paused = true)]
    async fn a_scraper_that_stops_reading_holds_no_turn() {
        let (turns, snapshot) = (WriterTurns::default(), Arc::new(with_targets()));
        // It waits for its turn when its body is polled for the last time.
        let turn = turns.at_address(None).next().await;
        let mut stalled = scrape(&turns, &snapshot);
        assert!(futures::poll!(stalled.next()).is_pending());
        yield_now().await;
        drop(turn);
        assert!(is_served(&turns, &snapshot).await);
        assert!(stalled.next().await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_scraper_that_does_not_read_is_given_up_after_the_timeout() {
        let (turns, snapshot) = (WriterTurns::default(), Arc::new(with_targets()));
        let stalled = scrape(&turns, &snapshot);
        sleep(RESPONSE_TIMEOUT - Duration::from_millis(10)).await;
        assert_eq!(Arc::strong_count(&snapshot), 2);
        sleep(Duration::from_millis(20)).await;
        assert_eq!(Arc::strong_count(&snapshot), 1);
        assert!(is_served(&turns, &snapshot).await);
        let found: Vec<_> = stalled.collect().await;
        let (last, before) = found.split_last().unwrap();
        assert!(before.iter().all(Result::is_ok) && before.len() < 5);
        let error = last.as_ref().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_response_frees_its_turn_at_once() {
        let (turns, snapshot) = (WriterTurns::default(), Arc::new(with_targets()));
        let turn = turns.at_address(None).next().await;
        let dropped = scrape(&turns, &snapshot);
        yield_now().await;
        drop(dropped);
        drop(turn);
        assert!(is_served(&turns, &snapshot).await);
        assert_eq!(Arc::strong_count(&snapshot), 1);
    }

    fn build() -> BuildInfo {
        BuildInfo {
            version: "1.2.3".to_owned(),
            librdkafka: "2.12.1".to_owned(),
        }
    }

    #[test]
    fn rendering() {
        let now = fixtures::at(Duration::from_secs(7));
        let snapshot = fixtures::snapshot().evaluated(&ServingPolicy::default());
        insta::assert_snapshot!(render(&snapshot, &now));
    }

    /// The fixture's snapshot, with HPAs that use it.
    fn with_targets() -> LagSnapshot {
        let mut snapshot = fixtures::snapshot();
        let hpa = |group: &str, annotations: &[(&str, &str)]| HpaFacts {
            namespace: "shop".into(),
            name: group.into(),
            metrics: vec![ExternalMetric {
                name: LAG_METRIC.into(),
                selector: Selector::parse(&format!("cluster=main,group={group}")).unwrap(),
                target: Some(MetricTarget::AverageValue(Milli::from_units(7))),
            }],
            annotations: annotations
                .iter()
                .map(|(key, value)| (format!("lagwise.dev/{key}"), (*value).to_owned()))
                .collect(),
            ..HpaFacts::default()
        };
        let hpas = [
            hpa("mute", &[]),
            hpa("orders", &[("threads-per-replica", "2")]),
            hpa("partial", &[("topics", "refunds")]),
        ];
        let clusters = snapshot.targets.clusters.clone();
        let targets = Targets::merge(&clusters, &[], &hpas, BTreeSet::new());
        snapshot.targets = Arc::new(targets);
        let wrong = Finding::new(
            FindingCode::ValueTarget,
            HpaKey::new("shop", "mute"),
            "wrong",
        );
        snapshot.findings = Arc::new([wrong].into());
        snapshot.evaluated(&ServingPolicy::default())
    }

    #[test]
    fn samples_have_the_labels_of_their_family() {
        let now = fixtures::at(Duration::from_secs(7));
        let text = render(&with_targets(), &now);
        let key = regex::Regex::new(r#"[{,](\w+)=""#).unwrap();
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split('{').next().unwrap();
            let family = families::ALL.iter().find(|family| family.name == name);
            let family = family.unwrap_or_else(|| panic!("{name} is not in the list"));
            let labels: Vec<&str> = key
                .captures_iter(line)
                .map(|found| found.extract::<1>().1[0])
                .collect();
            assert_eq!(labels, *family.labels, "{line}");
            seen.insert(name);
        }
        // The fixture has no member, nothing stuck, nothing over budget, and no policy.
        assert_eq!(
            seen.len(),
            families::ALL.len() - 3 - ACTIVITY_FAMILIES - POLICY_FAMILIES,
            "{seen:?}"
        );
    }

    /// Families that only groups have that were read several times, or described.
    const ACTIVITY_FAMILIES: usize = 8;

    /// Families that only targets with a policy or a hold have.
    const POLICY_FAMILIES: usize = 14;

    #[test]
    fn groups_have_their_rates_state_and_rebalances() {
        use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
        let mut history = ClusterHistory::default();
        let mut clusters = BTreeMap::new();
        for (sweep, state) in [
            (0, GroupState::Stable),
            (1, GroupState::Rebalancing),
            (2, GroupState::Stable),
        ] {
            // Most messages are written to the last partition, and as many are read of each.
            let row = |end: i64| (0, Ok(Some(20 * sweep)), Ok(100 + end * sweep));
            let rows = [row(10), row(10), row(100)];
            let after = Duration::from_secs(10 * u64::try_from(sweep).unwrap());
            let mut read = fixtures::read(after, "g", "t", &rows);
            let description = GroupDescription::memberless(GroupKind::Classic, state);
            read.groups[0].description = Ok(Arc::new(description));
            clusters = [("main".into(), history.apply(read, Scope::Whole))].into();
        }
        let mut snapshot = LagSnapshot {
            clusters,
            ..LagSnapshot::default()
        };
        let text = render(&snapshot, &fixtures::at(Duration::from_secs(20)));
        let names = ["lagwise_consumergroup_", "lagwise_topic_"];
        let is_shown = |line: &&str| names.iter().any(|name| line.starts_with(name));
        let of_group = |line: &str| {
            let line = line.replace("lagwise_consumergroup_", "");
            line.replace("{cluster=\"main\",consumergroup=\"g\"", "{g")
        };
        let lines: Vec<_> = text.lines().filter(is_shown).map(of_group).collect();
        for expected in [
            "produced_per_second{g} 12.000",
            "consumed_per_second{g} 6.000",
            "lag_velocity{g} 6.000",
            "since_commit_seconds{g} 0.000",
            r#"retention_used{g,topic="t"} 0.867"#,
            r#"state{g,state="stable"} 1"#,
            "rebalances_total{g} 1",
            r#"lagwise_topic_hot_partition_share{cluster="main",topic="t",partition="2"} 0.833"#,
        ] {
            assert!(
                lines.iter().any(|line| line == expected),
                "{expected}: {lines:#?}"
            );
        }
        let drain = |text: &str| {
            text.lines()
                .any(|line| line.starts_with("lagwise_consumergroup_drain_seconds{"))
        };
        assert!(!drain(&text), "the lag grows");
        let row = |end: i64| (0, Ok(Some(end)), Ok(end));
        let rows = [row(120), row(120), row(300)];
        let read = fixtures::read(Duration::from_secs(30), "g", "t", &rows);
        snapshot.clusters = [("main".into(), history.apply(read, Scope::Whole))].into();
        assert!(drain(&render(
            &snapshot,
            &fixtures::at(Duration::from_secs(30))
        )));
    }

    #[test]
    fn policies_and_holds_have_their_numbers() {
        use crate::model::evaluation::Evaluations;
        use crate::model::evaluation::target_policies::TargetPolicies;
        use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
        use crate::model::policy::drain::DrainCalibration;
        use crate::model::units::metric::DESIRED_METRIC;

        let annotations = [
            ("policy", "recommend"),
            ("hold", "both"),
            ("lag-per-replica", "10"),
        ];
        let annotations =
            annotations.map(|(key, value)| (format!("lagwise.dev/{key}"), value.into()));
        let hpa = HpaFacts {
            namespace: "shop".into(),
            name: "billing".into(),
            max_replicas: 9,
            metrics: vec![ExternalMetric {
                name: DESIRED_METRIC.into(),
                selector: Selector::parse("group=g").unwrap(),
                target: Some(MetricTarget::AverageValue(Milli::from_units(1))),
            }],
            annotations: annotations.into(),
            ..HpaFacts::default()
        };
        let cluster = ClusterName::from("main");
        let names = std::slice::from_ref(&cluster);
        let targets = Targets::merge(names, &[], &[hpa], BTreeSet::new());
        let targets = Arc::new(targets);
        let (mut history, mut policies) = (ClusterHistory::default(), TargetPolicies::default());
        let mut evaluations = Arc::new(Evaluations::new(ServingPolicy::default()));
        let (mut clusters, mut now) = (BTreeMap::new(), fixtures::at(Duration::ZERO));
        let described = GroupDescription::memberless(GroupKind::Consumer, GroupState::Stable);
        let described = Arc::new(described);
        // The costs are compared after an hour.
        for sweep in 0..800 {
            let at = Duration::from_secs(5 * sweep);
            let end = 1000 + 50 * i64::try_from(sweep).unwrap();
            let row = (0, Ok(Some(end - 15)), Ok(end));
            let mut read = fixtures::read(at, "g", "t", &[row, row]);
            read.groups[0].description = Ok(Arc::clone(&described));
            clusters = [(cluster.clone(), history.apply(read, Scope::Whole))].into();
            now = fixtures::at(at);
            let next = evaluations.next(&clusters, &targets, std::iter::empty());
            evaluations = policies.observe_sweep(&cluster, next, &now);
        }
        let drain = DrainCalibration {
            at: 4000.0,
            expected: 90.0,
            actual: 120.5,
            count: 3,
            mean_error: 0.25,
        };
        let snapshot = LagSnapshot {
            targets,
            clusters,
            evaluations: evaluations.with_drain(drain),
            ..LagSnapshot::default()
        };
        let text = render(&snapshot, &now);
        let families = families::ALL.iter().rev().skip(1).take(POLICY_FAMILIES);
        for family in families {
            let start = format!("{}{{namespace=\"shop\",hpa=\"billing\",", family.name);
            let samples = text.lines().filter(|line| line.starts_with(&start));
            let count = if family.labels.contains(&"by") { 2 } else { 1 };
            assert_eq!(samples.count(), count, "{}\n{text}", family.name);
        }
        for (family, value) in [
            ("lag_replicas", "2"),
            ("expected_drain_seconds", "90.000"),
            ("actual_drain_seconds", "120.500"),
            ("drains_total", "3.000"),
        ] {
            let sample = format!(
                "lagwise_target_{family}{{namespace=\"shop\",hpa=\"billing\",metric=\"kafka_desired_replicas\",selector=\"group=g\"}} {value}\n"
            );
            assert!(text.contains(&sample), "{sample}: {text}");
        }
    }

    #[test]
    fn targets_have_their_value_and_ceiling_with_their_rules() {
        let now = fixtures::at(Duration::from_secs(7));
        let text = render(&with_targets(), &now);
        let lines = text
            .lines()
            .filter(|line| line.starts_with("lagwise_target"));
        let shop = "namespace=\"shop\",hpa=";
        let metric = ",metric=\"kafka_lag\"";
        let short = |line: &str| line.replace(shop, "").replace(metric, "");
        let found: Vec<_> = lines.map(short).collect();
        assert_eq!(
            found,
            [
                r#"lagwise_target_value{"orders",selector="cluster=main,group=orders",rule="clamped"} 7.000"#,
                r#"lagwise_target_value{"partial",selector="cluster=main,group=partial",rule="as_measured"} 0.000"#,
                r#"lagwise_target_desired_replicas{"orders",selector="cluster=main,group=orders"} 1"#,
                r#"lagwise_target_desired_replicas{"partial",selector="cluster=main,group=partial"} 0"#,
                r#"lagwise_target_uncapped_replicas{"orders",selector="cluster=main,group=orders"} 15"#,
                r#"lagwise_target_uncapped_replicas{"partial",selector="cluster=main,group=partial"} 0"#,
                r#"lagwise_target_ceiling{"orders",selector="cluster=main,group=orders",rule="one_topic"} 1"#,
                r#"lagwise_target_ceiling{"partial",selector="cluster=main,group=partial",rule="one_topic"} 2"#,
                r#"lagwise_target_fallback{"mute",selector="cluster=main,group=mute"} 0"#,
                r#"lagwise_target_fallback{"orders",selector="cluster=main,group=orders"} 0"#,
                r#"lagwise_target_fallback{"partial",selector="cluster=main,group=partial"} 0"#,
            ]
        );
    }

    #[test]
    fn members_are_exported_once_described() {
        use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
        let mut described = fixtures::nothing(Duration::ZERO, "described");
        described.groups[0].description = Ok(std::sync::Arc::new(GroupDescription {
            kind: GroupKind::Classic,
            state: GroupState::Empty,
            assignor: None,
            members: Vec::new(),
            omitted_members: 0,
            subtopologies: Vec::new(),
        }));
        let mut history = ClusterHistory::default();
        history.apply(described, Scope::Partial);
        let unknown = fixtures::nothing(Duration::ZERO, "unknown");
        let mut snapshot = fixtures::snapshot();
        let cluster = history.apply(unknown, Scope::Partial);
        snapshot.clusters = [("main".into(), cluster)].into();
        let text = render(&snapshot, &fixtures::at(Duration::ZERO));
        let samples = text
            .lines()
            .filter(|line| line.starts_with("kafka_consumergroup_members"));
        let expected =
            "kafka_consumergroup_members{cluster=\"main\",consumergroup=\"described\"} 0";
        assert_eq!(samples.collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn an_unknown_partition_has_no_sample() {
        let text = render(&fixtures::snapshot(), &fixtures::at(Duration::ZERO));
        let lines = |prefix: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
        assert_eq!(
            lines("kafka_consumergroup_lag{cluster=\"main\",consumergroup=\"partial\""),
            1
        );
        assert_eq!(
            lines("kafka_consumergroup_lag_sum{cluster=\"main\",consumergroup=\"partial\""),
            0
        );
        assert!(text.lines().all(|line| !line.ends_with(" -1")));
    }

    #[test]
    fn a_group_that_was_never_read_counts_as_a_fault() {
        let mut mute = fixtures::nothing(Duration::ZERO, "mute");
        mute.groups[0].committed = Err(crate::model::kafka::fault::Fault::Login);
        let read = ClusterHistory::default().apply(mute, Scope::Whole);
        let groups = read.groups.values().map(|group| &**group);
        assert_eq!(faults(groups), [("login", 1)].into());
    }

    fn unescaped(text: &str) -> String {
        let mut result = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let meant = match character {
                '\\' => match characters.next().unwrap() {
                    'n' => '\n',
                    escaped => escaped,
                },
                other => other,
            };
            result.push(meant);
        }
        result
    }

    proptest! {
        #[test]
        fn label_values_survive_escaping(value in "[\\PC\\\\\"\n\r\t\x1b]{0,30}") {
            let labels = Labels::default().with("key", &value);
            let labels = labels.text();
            let inner = labels.strip_prefix("key=\"").unwrap().strip_suffix('"').unwrap();
            prop_assert!(!inner.contains('\n'));
            // Control characters are escaped in the value itself; line ends have an escape in the format.
            let mut shown = String::new();
            for character in value.chars() {
                match character {
                    '\n' => shown.push('\n'),
                    other => write_escaped(&mut shown, other).unwrap(),
                }
            }
            prop_assert_eq!(unescaped(inner), shown);
            // No quote ends the value early.
            let bare = inner.replace("\\\\", "").replace("\\\"", "");
            prop_assert!(!bare.contains('"'));
        }
    }

    fn samples<'a>(text: &'a str, family: &str) -> Vec<&'a str> {
        let of_family = |line: &&str| {
            line.strip_prefix(family)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        text.lines().filter(of_family).collect()
    }

    #[test]
    fn groups_that_only_requests_ask_for_have_no_series() {
        let now = fixtures::at(Duration::from_secs(7));
        let key = |group: &str| WatchKey {
            cluster: "main".into(),
            group: group.into(),
            topics: ["payments".into()].into(),
        };
        let requested = ["orders", "idle"].map(key);
        let mut snapshot = with_targets();
        let targets = snapshot.targets.with_ad_hoc(requested.into(), None);
        snapshot.targets = Arc::new(targets);
        let text = render(&snapshot, &now);
        assert!(text.contains("consumergroup=\"orders\""));
        assert!(!text.contains("consumergroup=\"idle\""), "{text}");
        // Nor do they count as unknown.
        let faults = |snapshot: &LagSnapshot| {
            let text = render(snapshot, &now);
            samples(&text, "lagwise_partition_faults").len()
        };
        let mut silent = fixtures::nothing(Duration::ZERO, "silent");
        silent.groups[0].committed = Err(crate::model::kafka::fault::Fault::Login);
        let read = ClusterHistory::default().apply(silent, Scope::Whole);
        let mut unknown = with_targets();
        unknown.clusters.insert("main".into(), read);
        assert_eq!(faults(&unknown), 1);
        let targets = unknown.targets.with_ad_hoc([key("silent")].into(), None);
        unknown.targets = Arc::new(targets);
        assert_eq!(faults(&unknown), 0);
    }

    #[test]
    fn groups_with_many_partitions_lose_their_series_first() {
        let now = fixtures::at(Duration::from_secs(7));
        let per_partition = [
            "kafka_consumergroup_lag",
            "kafka_consumergroup_current_offset",
            "lagwise_consumergroup_partition_lag_seconds",
            "kafka_topic_partition_current_offset",
            "kafka_topic_partition_oldest_offset",
        ];
        let all = render(&with_targets(), &now);
        let mut before = usize::MAX;
        for budget in [100, 5, 2, 0] {
            let mut snapshot = with_targets();
            let budgets = Budgets {
                partition_series: budget,
                ..Budgets::DEFAULT
            };
            // The readings of the fixture's groups stay, but no target uses them any more.
            let options = TargetOptions {
                budgets,
                ..TargetOptions::default()
            };
            snapshot.targets = Arc::new(Targets::new(&[], options, None));
            let text = render(&snapshot, &now);
            let lags = samples(&text, per_partition[0]).len();
            let omitted = samples(&text, "lagwise_partition_series_omitted");
            assert!(lags as u64 <= budget && lags <= before, "{budget}: {text}");
            let omits = omitted != ["lagwise_partition_series_omitted{} 0"];
            assert_eq!(omits, budget < 100, "{omitted:?}");
            for family in per_partition {
                let count = samples(&text, family).len();
                assert!(count <= samples(&all, family).len(), "{family}");
                assert!(budget > 0 || count == 0, "{family}");
            }
            let sums = "kafka_consumergroup_lag_sum";
            assert_eq!(samples(&text, sums), samples(&all, sums));
            before = lags;
        }
    }

    #[test]
    fn present_findings_are_counted_by_kind_and_severity() {
        let finding = |code, name| Finding::new(code, HpaKey::new("shop", name), "wrong");
        let mut snapshot = fixtures::snapshot();
        snapshot.findings = Arc::new(BTreeSet::from([
            finding(FindingCode::ValueTarget, "billing"),
            finding(FindingCode::ValueTarget, "mail"),
            finding(FindingCode::ToleranceAbove, "mail"),
        ]));
        let text = render(&snapshot, &fixtures::at(Duration::ZERO));
        let counts = samples(&text, "lagwise_present_findings");
        for expected in [
            "lagwise_present_findings{kind=\"value_target\",severity=\"error\"} 2",
            "lagwise_present_findings{kind=\"tolerance_above\",severity=\"warning\"} 1",
        ] {
            assert!(counts.contains(&expected), "{counts:?}");
        }
    }

    #[test]
    fn budgets_that_do_not_suffice_are_counted() {
        let exceeded = |scope, resource| BudgetExceeded {
            scope,
            resource,
            limit: 4,
        };
        let mut snapshot = fixtures::snapshot();
        let partitions = exceeded(BudgetScope::Namespace, Resource::Partitions);
        snapshot.unread_partitions = Arc::new([(partitions, 3)].into());
        let text = render(&snapshot, &fixtures::at(Duration::ZERO));
        assert_eq!(
            samples(&text, "lagwise_over_budget"),
            ["lagwise_over_budget{scope=\"namespace\",resource=\"partitions\"} 3"]
        );
    }
}
