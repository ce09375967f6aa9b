//! `targets[]`: consumer groups watched without an HPA that asks for them.

use schemars::JsonSchema;
use serde::Serialize;

use super::cluster::KnownClusters;
use super::names;
use super::problem::did_you_mean;
use super::section::{Field, Section};
use crate::model::types::{ClusterName, GroupId, OffsetReset, TopicName};

/// A consumer group to watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StaticTarget {
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
    /// The topics whose lag counts; empty means those the group has committed offsets for.
    #[schemars(with = "Vec<String>", default)]
    pub topics: Vec<TopicName>,
    /// Messages of lag that one replica is meant to have: what an HPA would give as its target average
    /// value.
    #[schemars(range(min = 1))]
    pub lag_per_replica: Option<u64>,
    /// Where the group's consumers begin on a partition without a committed offset, as their own
    /// `auto.offset.reset`: `latest` counts it as no lag, `earliest` as the whole partition.
    #[schemars(with = "OffsetResetSchema", default)]
    pub offset_reset: OffsetReset,
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
pub(super) fn read_all(root: &mut Section<'_>, clusters: &KnownClusters) -> Vec<StaticTarget> {
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
) -> Option<StaticTarget> {
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
    section.finish();
    Some(StaticTarget {
        name: name?,
        namespaces: namespaces.unwrap_or_default(),
        cluster: cluster?,
        group: group?,
        topics: topics.unwrap_or_default(),
        lag_per_replica,
        offset_reset: offset_reset.unwrap_or_default(),
    })
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
