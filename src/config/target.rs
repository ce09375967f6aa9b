//! `targets[]`: consumer groups watched without an HPA that asks for them.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::cluster::KnownClusters;
use super::problem::did_you_mean;
use super::schema::{duration_schema, serialize_duration};
use super::section::{Field, Section};
use crate::model::settings::{By, FALLBACK_AFTER, Settings, THREADS_MAX, TopicChoice};
use crate::model::units::names;
use crate::model::units::newtypes::{ClusterName, GroupId, Isolation, OffsetReset, TopicName};
use crate::model::units::partition_filter::{PARTITIONS, PartitionFilter};
use crate::model::units::quantity::Milli;
use crate::model::units::topic_pattern::{PATTERN, TopicPattern};

const FALLBACK_AFTER_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A consumer group to watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TargetConfig {
    /// The name an HPA may ask by (label `target`); a valid label value, unlike many a group's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The namespaces that may ask for it; empty means all.
    #[schemars(default)]
    pub namespaces: Vec<String>,
    /// The name of its cluster; may be left out where there is only one.
    #[schemars(with = "Option<String>")]
    pub cluster: ClusterName,
    /// The consumer group's `group.id`.
    #[schemars(with = "String", length(min = 1))]
    pub group: GroupId,
    /// The topics whose lag counts; empty means those that the group's members subscribe to, or, where
    /// that is not told, those it has committed offsets for.
    #[schemars(with = "Vec<String>", default)]
    pub topics: Vec<TopicName>,
    /// Instead of topics: a regular expression. Of the topics that the group reads, those count whose
    /// whole name matches.
    #[serde(serialize_with = "serialize_text")]
    #[schemars(with = "Option<String>")]
    pub topic_regex: Option<TopicPattern>,
    /// The partitions that count, of every topic, as numbers and ranges such as "0-5,9"; left out: all.
    #[serde(serialize_with = "serialize_text")]
    #[schemars(with = "Option<String>")]
    pub partitions: Option<PartitionFilter>,
    /// Messages of lag that one replica is meant to have: what an HPA would give as its target average
    /// value.
    #[schemars(range(min = 1))]
    pub lag_per_replica: Option<u64>,
    /// Where the group's consumers begin on a partition without a committed offset, as their own
    /// `auto.offset.reset`: `latest` counts it as no lag, `earliest` as the whole partition.
    /// Left out: latest, unless an HPA says otherwise.
    #[schemars(with = "Option<OffsetResetSchema>")]
    pub offset_reset: Option<OffsetReset>,
    /// Whether the group's consumers read committed records only, as their own `isolation.level`. Left
    /// out: read_uncommitted, unless an HPA says otherwise.
    #[schemars(with = "Option<IsolationSchema>")]
    pub isolation: Option<Isolation>,
    /// Members of the group in one replica, such as consumer threads.
    #[schemars(with = "u32", range(min = 1, max = 10000), default = "one")]
    pub threads_per_replica: NonZeroU32,
    /// Whether only numbers of replicas are wanted that share the partitions evenly.
    #[schemars(default)]
    pub even: bool,
    /// What bounds the replicas: all partitions, or only those with lag.
    #[schemars(with = "BySchema", default)]
    pub by: By,
    /// Replicas wanted once lag has been unknown for fallback_after, instead of an error that has the HPA
    /// hold. Left out: none.
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub fallback_replicas: Option<NonZeroU32>,
    /// How long lag is unknown before that.
    #[serde(serialize_with = "serialize_duration")]
    #[schemars(schema_with = "duration_schema", default = "fallback_after")]
    pub fallback_after: Duration,
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn fallback_after() -> Duration {
    FALLBACK_AFTER
}

/// A value as the file has it.
fn serialize_text<T: std::fmt::Display, S: serde::Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

impl TargetConfig {
    /// What is set for it.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let named = (!self.topics.is_empty())
            .then(|| TopicChoice::Named(self.topics.iter().cloned().collect()));
        let matching = self.topic_regex.clone().map(TopicChoice::Matching);
        Settings {
            lag_per_replica: self.lag_per_replica.map(Milli::from_units),
            threads: Some(self.threads_per_replica),
            even: Some(self.even),
            by: Some(self.by),
            topics: named.or(matching),
            partitions: self.partitions.clone(),
            fallback_replicas: self.fallback_replicas,
            fallback_after: Some(self.fallback_after),
            reset: self.offset_reset,
            isolation: self.isolation,
            ..Settings::default()
        }
    }
}

/// What bounds the replicas of a target.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "By")]
#[allow(
    dead_code,
    reason = "the schema of a type of the model, which knows no schemas"
)]
enum BySchema {
    /// All partitions.
    Partitions,
    /// Those with lag, at least one.
    Lagging,
}

/// Which records a group's consumers read.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case", rename = "Isolation")]
#[allow(
    dead_code,
    reason = "the schema of a type of the model, which knows no schemas"
)]
enum IsolationSchema {
    /// All of them.
    ReadUncommitted,
    /// Those of transactions that were committed, up to the first that is open.
    ReadCommitted,
}

/// Where a group's consumers begin without a committed offset.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "OffsetReset")]
#[allow(
    dead_code,
    reason = "the schema of a type of the model, which knows no schemas"
)]
enum OffsetResetSchema {
    /// With what arrives from then on.
    Latest,
    /// At the oldest record.
    Earliest,
}

/// Reads all targets.
pub(super) fn read_all(root: &mut Section<'_>, clusters: &KnownClusters) -> Vec<TargetConfig> {
    let mut names = Vec::new();
    root.get("targets")
        .map(|field| field.list())
        .unwrap_or_default()
        .iter()
        .filter_map(Field::section)
        .filter_map(|section| read(section, clusters, &mut names))
        .collect()
}

fn read(
    mut section: Section<'_>,
    clusters: &KnownClusters,
    taken: &mut Vec<String>,
) -> Option<TargetConfig> {
    let name = section
        .required("name", names::LABEL_VALUE)
        .and_then(|field| {
            let name = field.checked(names::LABEL_VALUE, |text| {
                names::label_value(text).map(str::to_owned)
            })?;
            if taken.contains(&name) {
                field.refuse("another target has this name", "a name of its own");
            }
            taken.push(name.clone());
            Some(name)
        });
    let namespaces = section.get("namespaces").map(|field| {
        field.texts(names::NAMESPACE, |text| {
            names::namespace(text).map(str::to_owned)
        })
    });
    let cluster = read_cluster(&mut section, clusters);
    let group = section.required("group", names::GROUP).and_then(|field| {
        field.checked(names::GROUP, |text| names::group(text).map(GroupId::from))
    });
    let topics = section
        .get("topics")
        .map(|field| field.texts(names::TOPIC, |text| names::topic(text).map(TopicName::from)));
    let lag_per_replica = section
        .get("lag_per_replica")
        .and_then(|field| field.whole_number(1, u64::MAX));
    let offset_reset = section.get("offset_reset").and_then(|field| {
        field.one_of(&[
            ("latest", OffsetReset::Latest),
            ("earliest", OffsetReset::Earliest),
        ])
    });
    let topic_regex = section
        .get("topic_regex")
        .and_then(|field| read_pattern(&field, topics.as_deref()));
    let partitions = section
        .get("partitions")
        .and_then(|field| field.checked(PARTITIONS, PartitionFilter::parse));
    let isolation = section.get("isolation").and_then(|field| {
        field.one_of(&[
            ("read_uncommitted", Isolation::ReadUncommitted),
            ("read_committed", Isolation::ReadCommitted),
        ])
    });
    let threads = section
        .get("threads_per_replica")
        .and_then(|field| count(&field, THREADS_MAX));
    let even = section.get("even").and_then(|field| field.flag());
    let by = section.get("by").and_then(|field| {
        field.one_of(&[("partitions", By::Partitions), ("lagging", By::Lagging)])
    });
    let fallback_replicas = section
        .get("fallback_replicas")
        .and_then(|field| count(&field, u32::MAX));
    let fallback_after = section.get("fallback_after").and_then(|field| {
        let shortest = Duration::from_secs(1);
        field.duration((shortest, ""), (FALLBACK_AFTER_MAX, ""))
    });
    section.finish();
    Some(TargetConfig {
        name: name?,
        namespaces: namespaces.unwrap_or_default(),
        cluster: cluster?,
        group: group?,
        topics: topics.unwrap_or_default(),
        lag_per_replica,
        offset_reset,
        topic_regex,
        partitions,
        isolation,
        threads_per_replica: threads.unwrap_or_else(one),
        even: even.unwrap_or_default(),
        by: by.unwrap_or_default(),
        fallback_replicas,
        fallback_after: fallback_after.unwrap_or(FALLBACK_AFTER),
    })
}

fn count(field: &Field<'_>, most: u32) -> Option<NonZeroU32> {
    let number = field.whole_number(1, most.into())?;
    NonZeroU32::new(u32::try_from(number).ok()?)
}

/// A pattern, which goes with no list of topics.
fn read_pattern(field: &Field<'_>, topics: Option<&[TopicName]>) -> Option<TopicPattern> {
    if topics.is_some_and(|topics| !topics.is_empty()) {
        field.refuse("topics are listed, too", "one of topics and topic_regex");
        return None;
    }
    field.checked(PATTERN, TopicPattern::parse)
}

/// The cluster a target names, or the only one. Where the clusters themselves are in doubt, nothing is
/// said about the name: the first mistake would only be told twice.
fn read_cluster(section: &mut Section<'_>, clusters: &KnownClusters) -> Option<ClusterName> {
    let known = || clusters.names.iter().map(ClusterName::as_str);
    let allowed = known().collect::<Vec<_>>().join(", ");
    let field = match clusters.names.as_slice() {
        [only] if clusters.complete => match section.get("cluster") {
            Some(field) => field,
            None => return Some(only.clone()),
        },
        _ if clusters.complete => {
            section.required("cluster", &format!("one of the clusters: {allowed}"))?
        }
        _ => {
            section.get("cluster");
            return None;
        }
    };
    field.checked(&allowed, |text| {
        if let Some(cluster) = clusters
            .names
            .iter()
            .find(|cluster| cluster.as_str() == text)
        {
            return Ok(cluster.clone());
        }
        Err(match did_you_mean(text, known()) {
            Some(meant) => format!("no such cluster, did you mean {meant}?"),
            None => "no such cluster".to_owned(),
        })
    })
}
