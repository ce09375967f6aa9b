//! The kinds of findings: a code that never changes its meaning, a severity, what was found, why it
//! matters and what to do.

use std::fmt;

use serde::Serialize;

/// How bad a finding is. The order is that of badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know; it may be meant so.
    Info,
    /// Something does not do what was probably meant.
    Warning,
    /// The HPA cannot scale as it says.
    Error,
}

impl Severity {
    /// All of them, the worst first.
    pub const ALL: [Severity; 3] = [Severity::Error, Severity::Warning, Severity::Info];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

macro_rules! kinds {
    ($($kind:ident $code:literal $label:literal $severity:ident $what:literal $why:literal $fix:literal;)*) => {
        /// A kind of finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FindingKind {
            $(#[doc = $what] $kind,)*
        }

        impl FindingKind {
            /// All of them, in the order of their codes.
            pub const ALL: &'static [FindingKind] = &[$(FindingKind::$kind,)*];

            /// Its code. A code is never given to another kind, even when its own is gone.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(FindingKind::$kind => $code,)* }
            }

            /// Its name in labels.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(FindingKind::$kind => $label,)* }
            }

            /// Its name as the reason of an event.
            #[must_use]
            pub fn reason(self) -> &'static str {
                match self { $(FindingKind::$kind => stringify!($kind),)* }
            }

            /// How bad it is.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(FindingKind::$kind => Severity::$severity,)* }
            }

            /// What was found.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(FindingKind::$kind => $what,)* }
            }

            /// Why it matters.
            #[must_use]
            pub fn why(self) -> &'static str {
                match self { $(FindingKind::$kind => $why,)* }
            }

            /// What to do.
            #[must_use]
            pub fn fix(self) -> &'static str {
                match self { $(FindingKind::$kind => $fix,)* }
            }
        }
    };
}

kinds! {
    NoGroup "LW001" "no_group" Error
        "The selector of a metric names no consumer group."
        "A metric without a consumer group is answered with an error, and the HPA holds its replicas."
        "Add matchLabels.group, or matchLabels.target for a target of the configuration.";
    UnknownCluster "LW002" "unknown_cluster" Error
        "The selector names a Kafka cluster that is not configured."
        "A metric of a Kafka cluster that is not configured is answered with an error."
        "Name a cluster of the configuration in matchLabels.cluster, or configure this one.";
    AmbiguousCluster "LW003" "ambiguous_cluster" Error
        "The selector names no Kafka cluster, and several are configured."
        "With several Kafka clusters nobody can tell which of them has the group."
        "Add matchLabels.cluster.";
    ValueTarget "LW004" "value_target" Error
        "A lag metric has a target of type Value."
        "For a Value target the HPA multiplies by its ready pods: lag that stays the same doubles the replicas at every sync, past any ceiling, and without a ready pod it goes to the minimum."
        "Use type: AverageValue with averageValue.";
    DesiredNotOne "LW005" "desired_not_one" Error
        "kafka_desired_replicas is compared with something other than averageValue: \"1\"."
        "kafka_desired_replicas is divided by what it is compared with: anything but one scales to another number."
        "Use type: AverageValue with averageValue: \"1\".";
    NoLagPerReplica "LW006" "no_lag_per_replica" Error
        "kafka_desired_replicas is used without the lag wanted per replica."
        "Without the lag that one replica may have the replicas wanted cannot be told, and the metric is an error."
        "Add the annotation lagwise.dev/lag-per-replica.";
    UnknownLabel "LW007" "unknown_label" Error
        "The selector has a label that no series has."
        "A label that no series has selects nothing."
        "Use the labels group, topic, cluster, hpa and target only.";
    UnknownTarget "LW008" "unknown_target" Error
        "The selector names a target that is not configured for the namespace."
        "A target that is not configured for the HPA's namespace is answered with an error."
        "Add the target to the configuration, or the namespace to the target.";
    UnknownAnnotation "LW009" "unknown_annotation" Warning
        "An annotation lagwise.dev/... does not exist."
        "An annotation that means nothing does nothing."
        "Correct its name, or take it away.";
    BadAnnotation "LW010" "bad_annotation" Warning
        "An annotation has a value that cannot be used."
        "A value that cannot be used is passed over, and the default holds."
        "Give it an allowed value.";
    StrayAnnotation "LW011" "stray_annotation" Warning
        "An annotation is for a name that no metric of the HPA selects."
        "An annotation for a name that no metric of the HPA selects does nothing."
        "Use the name of the metric's label group or target after the dot.";
    TopicsTwice "LW012" "topics_twice" Warning
        "Topics are set both by a list and by a pattern."
        "Only the list of topics holds, and the pattern does nothing."
        "Take one of the two annotations away.";
    OneGroupForAll "LW013" "one_group_for_all" Warning
        "One consumer-group annotation is set for several groups of the selector."
        "Several groups of the selector become one, and its lag counts once."
        "Name each group, as in lagwise.dev/consumer-group.LABEL.";
    NoFallbackReplicas "LW014" "no_fallback_replicas" Warning
        "A time is set for the fallback, and no number of replicas."
        "A fallback without a number of replicas is none."
        "Add lagwise.dev/fallback-replicas, or take lagwise.dev/fallback-after away.";
    ConflictingSettings "LW015" "conflicting_settings" Warning
        "Settings of one group differ between HPAs or targets."
        "A group's lag is measured by one rule: where targets differ, the one that leaves more lag standing holds for all."
        "Set it alike on every HPA and target of the group.";
    MembersBeyond "LW016" "members_beyond" Warning
        "The group has more members than can have work."
        "Members beyond the useful parallelism cost memory and rebalances and get no partition."
        "Lower the replicas or the threads in each (lagwise.dev/threads-per-replica says how many there are), or add partitions.";
    MixedSubscriptions "LW017" "mixed_subscriptions" Warning
        "Members of the group subscribe to different topics."
        "Where members subscribe differently, the topic's partitions are shared by some of them only, so that the ceiling is too high; often two applications use one group by mistake."
        "Give each application a group of its own.";
    ToleranceAbove "LW018" "tolerance_above" Warning
        "Within its tolerance the HPA may keep replicas above the ceiling."
        "Within its tolerance an HPA keeps the replicas there are, those too that a rollout's surge or another metric brought above the ceiling."
        "Set behavior.scaleUp.tolerance and behavior.scaleDown.tolerance to \"0\", or lagwise.dev/cap: enforce.";
    ToleranceBelow "LW019" "tolerance_below" Warning
        "Within its tolerance the HPA stops short of the ceiling."
        "The value served is at most the ceiling's worth, which is within the tolerance before the ceiling is reached."
        "Set behavior.scaleUp.tolerance to \"0\", or lagwise.dev/cap: enforce.";
    FallbackServed "LW020" "fallback_served" Warning
        "Lag has been unknown for so long that the fallback is served."
        "The replicas follow a fixed number and not the lag."
        "Find out why lag is unknown: lagwise lag, or the daemon's log.";
    NoZeroWithOthers "LW021" "no_zero_with_others" Warning
        "Scale to zero is set on an HPA with an External metric that is not lagwise's."
        "At zero replicas the HPA asks for no metric, so that work which only the other one knows would wait for ever."
        "Take the other metric or lagwise.dev/scale-to-zero away.";
    MaxAboveCeiling "LW022" "max_above_ceiling" Info
        "maxReplicas is above the ceiling, under cap: advise."
        "A group never uses more members than its useful parallelism, so the HPA never gets to its maximum by this metric."
        "Nothing, if partitions are to be added; else lower maxReplicas, or set lagwise.dev/cap: enforce.";
    MinAboveCeiling "LW023" "min_above_ceiling" Warning
        "minReplicas is above the ceiling."
        "Replicas that can never have work run all the time; the cap never goes below minReplicas."
        "Lower minReplicas to the ceiling, or add partitions.";
    OthersAbove "LW024" "others_above" Warning
        "Another metric of the HPA may pass the ceiling, under cap: advise."
        "The HPA follows the largest of its metrics, and the ceiling binds lagwise's alone."
        "Set lagwise.dev/cap: enforce, or lower maxReplicas to the ceiling.";
    ConflictingTargets "LW025" "conflicting_targets" Error
        "Two HPAs use one selector with different lag per replica."
        "A request says which selector is asked for and not by which HPA, so that it cannot be answered for either."
        "Add the label hpa with the HPA's own name to each selector.";
    SharedScaleTarget "LW026" "shared_scale_target" Error
        "Two HPAs scale the same workload."
        "Two HPAs undo each other's replicas; the HPA controller stops both (AmbiguousSelector)."
        "Keep one HPA, with the metrics of both.";
    TopicMissing "LW027" "topic_missing" Error
        "A topic does not exist."
        "A topic that does not exist has no lag, and the metric is an error."
        "Create the topic, or correct its name; lagwise never creates one.";
    NothingToRead "LW028" "nothing_to_read" Error
        "There is nothing to measure: no commit, or no topic or partition that matches."
        "There is nothing to measure, and the metric is an error."
        "Name the topics with the label topic, or start the consumers once, so that they commit.";
    NoMembers "LW029" "no_members" Warning
        "The group has lag and, for two minutes, no members."
        "Nobody consumes: the pods do not run, cannot reach Kafka, or use another group.id."
        "Compare the consumers' group.id with the selector, and look at their logs.";
    ForeignMembers "LW030" "foreign_members" Warning
        "The group has members that are not pods of this workload."
        "Members elsewhere (another Deployment, another cluster, a blue-green twin) take partitions that the ceiling counts for this workload."
        "Give each workload a group of its own, or take it that fewer replicas have work.";
    UnevenPartitions "LW031" "uneven_partitions" Info
        "maxReplicas cannot share the partitions evenly."
        "At the maximum some replicas have a partition more than others, and the slowest decides."
        "Use a maxReplicas that divides the ceiling, or lagwise.dev/even: \"true\".";
    Stabilised "LW032" "stabilised" Info
        "A stabilisation window of the HPA delays what the metric has decided: upwards at all, downwards with kafka_desired_replicas, or longer than the cooldown with minReplicas: 0."
        "A stabilisation window makes the HPA wait after the metric has decided."
        "Leave the window away, or set it to 0, unless it is meant so.";
    ControllerOwned "LW033" "controller_owned" Warning
        "An HPA that a controller owns asks for cap: enforce or scale to zero, and is skipped."
        "The controller that owns the HPA writes it from its own object and would undo every write."
        "Say it in the object that the controller makes the HPA from, or take the annotation away.";
    ReplicasInManifest "LW034" "replicas_in_manifest" Warning
        "A manifest or program sets spec.replicas of the scale target."
        "Every apply of the manifest sets the replicas back, until the next sync of the HPA."
        "Take spec.replicas out of the manifest (for server-side apply: hand its ownership over first).";
    OrderedReady "LW035" "ordered_ready" Info
        "A StatefulSet starts its pods one by one."
        "Each pod waits for the one before to be ready, so that a surge of lag is answered slowly, and one pod that never gets ready stops all."
        "Set podManagementPolicy: Parallel, if the pods do not depend on each other.";
    SurgeAboveCeiling "LW036" "surge_above_ceiling" Info
        "A rollout at the ceiling starts pods that have no work."
        "Surge pods join the group, cause a rebalance each, and have no work while the old ones hold the partitions."
        "Set maxSurge: 0 and maxUnavailable: 1, or use static members (group.instance.id).";
    ToleranceLeft "LW037" "tolerance_left" Info
        "A tolerance is not \"0\"."
        "Lag is capped exactly at the ceiling's worth, which a tolerance blurs in both directions."
        "Set behavior.scaleUp.tolerance and behavior.scaleDown.tolerance to \"0\" (Kubernetes 1.35 and later), or lagwise.dev/cap: enforce.";
    OffsetsExpire "LW038" "offsets_expire" Warning
        "The group has had no members for five days and has offsets that brokers will delete."
        "Brokers delete the offsets of a group without members after offsets.retention.minutes (seven days by default); its consumers then begin at auto.offset.reset."
        "Start a consumer of the group for a moment, or raise offsets.retention.minutes on the brokers.";
}
