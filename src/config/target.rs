//! `targets[]`: consumer groups that are watched without an HPA.

use schemars::{JsonSchema, Schema};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::cluster::KnownClusters;
use super::problem::did_you_mean;
use super::section::{Field, Section};
use super::settings;
use crate::model::settings::{FileSection, Settings};
use crate::model::units::names;
use crate::model::units::newtypes::{ClusterName, GroupId};

/// A consumer group to watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, transform = add_settings)]
pub struct TargetConfig {
    /// Name by which an HPA selects the target (label `target`): a valid label value.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Namespaces whose HPAs may select the target. Empty: all.
    #[schemars(default)]
    pub namespaces: Vec<String>,
    /// Name of its Kafka cluster. Required if there are several.
    #[schemars(with = "Option<String>")]
    pub cluster: ClusterName,
    /// The consumer group's `group.id`.
    #[schemars(with = "String", length(min = 1))]
    pub group: GroupId,
    #[serde(flatten, serialize_with = "serialize_settings")]
    #[schemars(skip)]
    pub settings: Settings,
}

/// Adds the keys of the settings to the schema.
fn add_settings(schema: &mut Schema) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.extend(settings::schemas(FileSection::Targets));
    }
}

fn serialize_settings<S: Serializer>(
    settings: &Settings,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    settings::serialize(settings, FileSection::Targets, serializer)
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
                field.refuse(
                    "another target has this name",
                    "a name that no other target has",
                );
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
    let mut settings = settings::read(&mut section, FileSection::Targets);
    settings.set_defaults(FileSection::Targets);
    if settings.topics.is_some()
        && let Some(field) = section.get("topic_regex")
    {
        field.refuse(
            "cannot be combined with topics",
            "either topics or topic_regex",
        );
    }
    section.finish();
    Some(TargetConfig {
        name: name?,
        namespaces: namespaces.unwrap_or_default(),
        cluster: cluster?,
        group: group?,
        settings,
    })
}

/// Reads the cluster of a target; the default is the only cluster. If the clusters themselves have problems,
/// no problem of the name is recorded, because it could be a consequence of those.
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
