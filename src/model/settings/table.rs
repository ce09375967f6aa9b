//! The table of settings: every setting is declared here, once.
//!
//! An entry makes a field of [`Settings`] and a row of [`SETTINGS`]. From these two come the parser of
//! annotations (`annotations`), the parser and the JSON Schema of the configuration file
//! (`config::settings`), the example file, and the reference pages. The doc comment of an entry is the
//! description that users read.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use super::By;
use super::cap_mode::{CapMode, NO_CEILING};
use super::form::{Form, SettingValue};
use super::replica_hold::{HOLD, ReplicaHold};
use super::scaling_policy::ScalingPolicy;
use super::setting::{FileSection, SettingRow, SettingScope, join_values};
use crate::model::units::lag_thresholds::LagThresholds;
use crate::model::units::names;
use crate::model::units::newtypes::{GroupId, Isolation, Lag, OffsetReset, TopicName};
use crate::model::units::partition_filter::{PARTITIONS, PartitionFilter};
use crate::model::units::quantity::Milli;
use crate::model::units::topic_pattern::{PATTERN, TopicPattern};

/// Declares the settings: for each its description, field and type, and the rest of its row.
///
/// - `default`: the default value. It adds a getter with the field's name to [`Settings`].
/// - `unset`: instead of `default`, text for the documentation that says what applies without a value.
/// - `safer`: for a setting that all targets of a consumer group must share: chooses one of two values.
///   Such a setting also needs a line in [`Settings::group_defaults`].
macro_rules! settings {
    ($(
        $(#[doc = $description:literal])+
        $field:ident: $type:ty {
            key: $key:literal,
            scope: $scope:expr,
            file: $file:expr,
            form: $form:expr,
            $(default: $default:expr,)?
            $(unset: $unset:literal,)?
            $(example: $example:literal,)?
            $(safer: $safer:expr,)?
        }
    )*) => {
        /// The settings of one target; a setting that is `None` is not set, and its default applies.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Settings {
            $($(#[doc = $description])+ pub $field: Option<$type>,)*
        }

        impl Settings {
            $($(
                #[doc = concat!("The value of `", $key, "`, or its default.")]
                #[must_use]
                pub fn $field(&self) -> $type {
                    self.$field.unwrap_or($default)
                }
            )?)*

            /// Takes each setting that is not set from `base`, without regard to the others.
            pub(super) fn each_over(self, base: &Settings) -> Settings {
                Settings {
                    $($field: self.$field.or_else(|| base.$field.clone()),)*
                }
            }

            /// Joins the settings of one more target into those of its group, as [`GroupSettings`](super::GroupSettings)
            /// describes. Returns the keys of those that differ.
            pub(super) fn join(&mut self, theirs: &Settings, defaults: &Settings) -> Vec<&'static str> {
                let mut conflicts = Vec::new();
                $($(
                    let own = theirs.$field.or(defaults.$field);
                    let is_conflict = join_values(&mut self.$field, own, $safer);
                    conflicts.extend(is_conflict.then_some($key));
                )?)*
                conflicts
            }
        }

        /// A row of the table of settings.
        pub type Setting = SettingRow<Settings>;

        /// All settings, in the order of the documentation.
        pub static SETTINGS: &[Setting] = &[$(Setting {
            key: $key,
            file_key: stringify!($field),
            file: $file,
            scope: $scope,
            form: $form,
            unset: settings!(@optional $($unset)?),
            example: settings!(@optional $($example)?),
            description: concat!($($description),+),
            default: || settings!(@optional $(<$type as SettingValue>::print(&$default))?),
            parse: |form, text, settings| {
                settings.$field = Some(form.parse(text)?);
                Ok(())
            },
            print: |settings| settings.$field.as_ref().map(SettingValue::print),
        },)*];
    };
    (@optional) => { None };
    (@optional $value:expr) => { Some($value) };
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

settings! {
    /// Consumer group, if its name is not a valid label value. The label `group` may then be any name.
    consumer_group: GroupId {
        key: "consumer-group",
        scope: SettingScope::Metric,
        file: None,
        form: Form::Text { allowed: names::GROUP },
        unset: "the label `group`",
    }

    /// Topics whose lag counts, if the metric's selector has no label `topic`.
    topics: BTreeSet<TopicName> {
        key: "topics",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::Topics,
        unset: "the topics that the group's members subscribe to; if these are unknown, the topics with a committed offset",
        example: "[]",
    }

    /// Regular expression instead of `topics`: the topics of the group whose whole name matches it count.
    topic_regex: TopicPattern {
        key: "topic-regex",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::Text { allowed: PATTERN },
        unset: "all topics of the group",
        example: "orders-.*",
    }

    /// Partitions that count in every topic, for the lag and for the replica ceiling.
    partitions: PartitionFilter {
        key: "partitions",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::Text { allowed: PARTITIONS },
        unset: "all partitions",
        example: "0-5,9",
    }

    /// Where the group's consumers start on a partition without a committed offset. Set it to their
    /// `auto.offset.reset`. If targets of one group differ, `earliest` applies.
    offset_reset: OffsetReset {
        key: "offset-reset",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::choice_of::<OffsetReset>(),
        unset: "`latest`",
        example: "latest",
        safer: |a, b| match (a, b) {
            (OffsetReset::Latest, OffsetReset::Latest) => OffsetReset::Latest,
            _ => OffsetReset::Earliest,
        },
    }

    /// Which records the group's consumers read. Set it to their `isolation.level`. If targets of one group
    /// differ, `read_uncommitted` applies.
    isolation: Isolation {
        key: "isolation",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::choice_of::<Isolation>(),
        unset: "`read_uncommitted`",
        example: "read_uncommitted",
        safer: |a, b| match (a, b) {
            (Isolation::ReadCommitted, Isolation::ReadCommitted) => Isolation::ReadCommitted,
            _ => Isolation::ReadUncommitted,
        },
    }

    /// Largest lag of a partition that can be residual: transaction markers and compaction gaps, which no
    /// consumer ever reads. With 0 no lag is residual.
    residual_max: Lag {
        key: "residual-max",
        scope: SettingScope::Metric,
        file: Some(FileSection::Lag),
        form: Form::Number { min: 0, max: 1_000_000, format: "uint64" },
        default: LagThresholds::DEFAULT.residual_max,
        safer: Lag::min,
    }

    /// How long the committed offset and the log end must not move, while a member is assigned, before such a
    /// small lag is residual and no longer counts.
    residual_after: Duration {
        key: "residual-after",
        scope: SettingScope::Metric,
        file: Some(FileSection::Lag),
        form: Form::Duration { min: SECOND, max: WEEK },
        default: LagThresholds::DEFAULT.residual_after,
        safer: Duration::max,
    }

    /// How long the committed offset of a partition with a larger lag must not move before the partition is
    /// stuck, while other partitions of the group progress or its log grows.
    stuck_after: Duration {
        key: "stuck-after",
        scope: SettingScope::Metric,
        file: Some(FileSection::Lag),
        form: Form::Duration { min: SECOND, max: WEEK },
        default: LagThresholds::DEFAULT.stuck_after,
        safer: Duration::max,
    }

    /// Whether the lag of stuck partitions counts for the number of replicas. If not, it still prevents scale
    /// to zero, and the lag of a group still counts in full if all its partitions are stuck.
    stuck_counts: bool {
        key: "stuck-counts",
        scope: SettingScope::Metric,
        file: Some(FileSection::Lag),
        form: Form::Flag,
        default: LagThresholds::DEFAULT.stuck_counts,
        safer: |a, b| a || b,
    }

    /// How long the last committed offsets of a group are used after they vanished, as on services that delete
    /// the offsets of idle groups.
    forget_after: Duration {
        key: "forget-after",
        scope: SettingScope::Metric,
        file: Some(FileSection::Lag),
        form: Form::Duration { min: Duration::ZERO, max: YEAR },
        default: LagThresholds::DEFAULT.forget_after,
        safer: Duration::max,
    }

    /// Messages of lag that one replica may have, for `kafka_desired_replicas`.
    lag_per_replica: Milli {
        key: "lag-per-replica",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::Quantity,
        unset: "none",
        example: "100",
    }

    /// How the number of replicas of `kafka_desired_replicas` is made.
    policy: ScalingPolicy {
        key: "policy",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::choice_of::<ScalingPolicy>(),
        unset: "`policy.default`",
        example: "lag",
    }

    /// Age that messages may reach before they are processed: the objective of the rate policy.
    slo: Duration {
        key: "slo",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::Duration { min: SECOND, max: DAY },
        default: MINUTE,
    }

    /// Keeps the number of replicas that is served from rising (`up`), from falling (`down`) or both, with any
    /// policy, until the end time or until it is removed. `paused` is something else: it stops writes only.
    hold: ReplicaHold {
        key: "hold",
        scope: SettingScope::Metric,
        file: None,
        form: Form::Text { allowed: HOLD },
        unset: "none",
        example: "down until 2026-12-02T10:00:00Z",
    }

    /// Members of the group in one replica, such as consumer threads.
    threads_per_replica: NonZeroU32 {
        key: "threads-per-replica",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::count(1, 10_000),
        default: NonZeroU32::MIN,
    }

    /// Whether to use only replica counts that share the partitions evenly: with 24 partitions 1, 2, 3, 4,
    /// 5, 6, 8, 12 and 24.
    even: bool {
        key: "even",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::Flag,
        default: false,
    }

    /// Partitions that limit the number of useful replicas.
    by: By {
        key: "by",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::choice_of::<By>(),
        default: By::Partitions,
    }

    /// Number of replicas to run once the lag has been unknown for `fallback-after`. Without it, the metric is
    /// an error, and the HPA keeps its replicas.
    fallback_replicas: NonZeroU32 {
        key: "fallback-replicas",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::count(1, u32::MAX),
        unset: "none",
        example: "3",
    }

    /// How long the lag must be unknown before the fallback replicas apply.
    fallback_after: Duration {
        key: "fallback-after",
        scope: SettingScope::Metric,
        file: Some(FileSection::Targets),
        form: Form::Duration { min: SECOND, max: YEAR },
        default: MINUTE.saturating_mul(10),
    }

    // `cap.default` of the configuration file is not declared here: it applies to all HPAs that do not set `cap`, so it
    // belongs to the serving policy. Both have the choices of `CapMode`.
    /// Whether lagwise keeps `maxReplicas` of the HPA at the replica ceiling.
    cap: CapMode {
        key: "cap",
        scope: SettingScope::Hpa,
        file: None,
        form: Form::choice_of::<CapMode>(),
        unset: "`cap.default`",
    }

    /// Your own `maxReplicas`, set explicitly. Needed only to lower it to exactly the capped number: then the
    /// field does not change, so lagwise cannot notice your intention.
    max_replicas: u32 {
        key: "max-replicas",
        scope: SettingScope::Hpa,
        file: None,
        form: Form::count(1, NO_CEILING),
        unset: "`spec.maxReplicas`",
    }

    /// Whether lagwise scales the workload to zero while there is no lag.
    scale_to_zero: bool {
        key: "scale-to-zero",
        scope: SettingScope::Hpa,
        file: None,
        form: Form::Flag,
        default: false,
    }

    /// How long there must be no lag before the workload is scaled to zero.
    cooldown: Duration {
        key: "cooldown",
        scope: SettingScope::Hpa,
        file: None,
        form: Form::Duration { min: SECOND, max: YEAR },
        default: MINUTE.saturating_mul(5),
    }

    /// Whether lagwise stops writing to the HPA and to its scale target. Any value except `false`, `no`,
    /// `off` and `0` stops the writes. The HPA itself goes on scaling: to hold the replicas, set its `minReplicas` and
    /// `maxReplicas` to the same number.
    paused: bool {
        key: "paused",
        scope: SettingScope::Hpa,
        file: None,
        form: Form::Flag,
        default: false,
    }
}

impl Settings {
    /// The settings that a section of the configuration file has.
    pub fn of_section(section: FileSection) -> impl Iterator<Item = &'static Setting> {
        SETTINGS
            .iter()
            .filter(move |setting| setting.file == Some(section))
    }

    /// Sets the default of each setting of the section that has no value.
    pub fn set_defaults(&mut self, section: FileSection) {
        for setting in Self::of_section(section) {
            if let (None, Some(default)) = (setting.print(self), setting.default()) {
                // Cannot fail: a test parses every default.
                let _ = setting.parse(&default, self);
            }
        }
    }
}
