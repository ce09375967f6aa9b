//! `budgets`: how much HPAs may make lagwise read and keep.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::section::Section;
use crate::model::targets::budgets::{Amounts, BudgetScope, Budgets, Resource};

/// How much HPAs may make lagwise read and keep, so that its memory is bounded and one namespace cannot use up what
/// others need. If an HPA exceeds a budget, its metrics are errors and a finding says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct BudgetsConfig {
    /// Budget of each HPA; at most that of a namespace.
    #[serde(serialize_with = "serialize_amounts")]
    #[schemars(schema_with = "hpa_schema")]
    pub hpa: Amounts,
    /// Budget of all HPAs of a namespace together; at most the total.
    #[serde(serialize_with = "serialize_amounts")]
    #[schemars(schema_with = "namespace_schema")]
    pub namespace: Amounts,
    /// Budget of all HPAs together. The default fits a memory limit of 256 MiB.
    #[serde(serialize_with = "serialize_amounts")]
    #[schemars(schema_with = "total_schema")]
    pub total: Amounts,
    /// Partitions, counted for each group that reads them, that have series of their own in `/metrics`; 0: none.
    /// Groups with few partitions come first. The sums of topics are there for every group.
    pub partition_series: u64,
}

/// What each budget limits.
fn description(resource: Resource) -> &'static str {
    match resource {
        Resource::Groups => "Consumer groups, counted for each metric that selects them.",
        Resource::Topics => {
            "Topics that are named, counted for each group of a metric. A group without named topics counts as one."
        }
        Resource::PatternBytes => "Memory of compiled regular expressions, in bytes.",
        Resource::Partitions => {
            "Partitions, counted for each group that reads them. A group that exceeds the budget is unknown."
        }
    }
}

impl Default for BudgetsConfig {
    fn default() -> Self {
        let Budgets {
            hpa,
            namespace,
            total,
            partition_series,
        } = Budgets::DEFAULT;
        Self {
            hpa,
            namespace,
            total,
            partition_series,
        }
    }
}

impl BudgetsConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let total = read_amounts(section.section("total"), default.total, None);
        let namespace = read_amounts(
            section.section("namespace"),
            default.namespace,
            Some((total, BudgetScope::Total)),
        );
        let hpa = read_amounts(
            section.section("hpa"),
            default.hpa,
            Some((namespace, BudgetScope::Namespace)),
        );
        let series = section.get("partition_series");
        let series = series.and_then(|field| field.whole_number(0, u64::MAX));
        section.finish();
        Self {
            hpa,
            namespace,
            total,
            partition_series: series.unwrap_or(default.partition_series),
        }
    }

    /// The budgets, as the model has them.
    #[must_use]
    pub fn budgets(&self) -> Budgets {
        let Self {
            hpa,
            namespace,
            total,
            partition_series,
        } = *self;
        Budgets {
            hpa,
            namespace,
            total,
            partition_series,
        }
    }
}

/// Reads a budget that is part of a larger one. A default that does not fit into the larger one is reduced to it, so
/// that lowering the larger alone is valid.
fn read_amounts(
    mut section: Section<'_>,
    default: Amounts,
    within: Option<(Amounts, BudgetScope)>,
) -> Amounts {
    let mut amounts = within.map_or(default, |(larger, _)| default.min(larger));
    for resource in Resource::ALL {
        let Some(field) = section.get(resource.name()) else {
            continue;
        };
        let Some(amount) = field.whole_number(1, u64::MAX) else {
            continue;
        };
        match within {
            Some((larger, scope)) if amount > larger.get(resource) => {
                let (scope, resource, larger) =
                    (scope.name(), resource.name(), larger.get(resource));
                field.refuse(
                    "out of range",
                    format!("a whole number from 1 to {larger} (budgets.{scope}.{resource})"),
                );
            }
            _ => amounts.set(resource, amount),
        }
    }
    section.finish();
    amounts
}

fn serialize_amounts<S: Serializer>(amounts: &Amounts, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(Resource::ALL.map(|resource| (resource.name(), amounts.get(resource))))
}

fn hpa_schema(_: &mut SchemaGenerator) -> Schema {
    schema(Budgets::DEFAULT.hpa)
}

fn namespace_schema(_: &mut SchemaGenerator) -> Schema {
    schema(Budgets::DEFAULT.namespace)
}

fn total_schema(_: &mut SchemaGenerator) -> Schema {
    schema(Budgets::DEFAULT.total)
}

fn schema(default: Amounts) -> Schema {
    let property = |resource: Resource| {
        let schema = json!({
            "type": "integer",
            "format": "uint64",
            "minimum": 1,
            "default": default.get(resource),
            "description": description(resource),
        });
        (resource.name().to_owned(), schema)
    };
    let properties: Map<_, _> = Resource::ALL.into_iter().map(property).collect();
    json_schema!({
        "type": "object",
        "properties": Value::Object(properties),
        "additionalProperties": false,
    })
}
