//! The table of findings: for each its stable code, its label in metrics, its severity, what was
//! found, why it matters and what to do.

use super::code_properties::CodeProperties;
use super::severity::Severity;

macro_rules! finding_codes {
    ($($name:ident $code:literal $label:literal $severity:ident { what: $what:literal, why: $why:literal, fix: $fix:literal $(,)? })*) => {
        /// What kind of mistake or risk a finding is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FindingCode {
            $(#[doc = $what] $name,)*
        }

        impl FindingCode {
            /// All of them, in the order of their codes.
            pub const ALL: &'static [FindingCode] = &[$(FindingCode::$name,)*];

            pub(super) fn properties(self) -> CodeProperties {
                match self {
                    $(FindingCode::$name => CodeProperties {
                        code: $code,
                        label: $label,
                        event_reason: stringify!($name),
                        severity: Severity::$severity,
                        what: $what, why: $why, fix: $fix,
                    },)*
                }
            }
        }
    };
}

finding_codes! {
    NoGroup "LW001" "no_group" Error {
        what: "The selector of a metric names no consumer group.",
        why: "lagwise answers a metric without a consumer group with an error, and the HPA keeps its replicas.",
        fix: "Add matchLabels.group, or matchLabels.target for a target of the configuration.",
    }
    UnknownCluster "LW002" "unknown_cluster" Error {
        what: "The selector names a Kafka cluster that is not configured.",
        why: "lagwise answers a metric of a Kafka cluster that is not configured with an error.",
        fix: "Set matchLabels.cluster to a configured cluster, or add this cluster to the configuration.",
    }
    AmbiguousCluster "LW003" "ambiguous_cluster" Error {
        what: "The selector names no Kafka cluster, and several are configured.",
        why: "With several Kafka clusters lagwise cannot know which of them has the group.",
        fix: "Add matchLabels.cluster.",
    }
    ValueTarget "LW004" "value_target" Error {
        what: "A lag metric has a target of type Value.",
        why: "For a target of type Value the HPA multiplies by its ready pods: constant lag doubles the replicas at every sync, past any ceiling, and without ready pods the HPA scales to its minimum.",
        fix: "Use type: AverageValue with averageValue.",
    }
    DesiredNotOne "LW005" "desired_not_one" Error {
        what: "The target of kafka_desired_replicas is not averageValue: \"1\".",
        why: "The HPA divides kafka_desired_replicas by its target, so any target but one gives another number of replicas.",
        fix: "Use type: AverageValue with averageValue: \"1\".",
    }
    NoLagPerReplica "LW006" "no_lag_per_replica" Error {
        what: "kafka_desired_replicas is used without the lag per replica.",
        why: "Without the lag that one replica can handle lagwise cannot compute replicas, and the metric is an error.",
        fix: "Add the annotation lagwise.dev/lag-per-replica.",
    }
    UnknownLabel "LW007" "unknown_label" Error {
        what: "The selector has a label that no series has.",
        why: "No series has this label, so the selector matches nothing.",
        fix: "Use only the labels group, topic, cluster, hpa and target.",
    }
    UnknownTarget "LW008" "unknown_target" Error {
        what: "The selector names a target that is not configured for the namespace.",
        why: "lagwise answers a target that is not configured for the HPA's namespace with an error.",
        fix: "Add the target to the configuration, or the namespace to the target.",
    }
    UnknownAnnotation "LW009" "unknown_annotation" Warning {
        what: "An annotation lagwise.dev/... does not exist.",
        why: "lagwise ignores an annotation that it does not know.",
        fix: "Correct its name, or remove it.",
    }
    BadAnnotation "LW010" "bad_annotation" Warning {
        what: "An annotation has an invalid value.",
        why: "lagwise ignores an invalid value and uses the default.",
        fix: "Set an allowed value.",
    }
    StrayAnnotation "LW011" "stray_annotation" Warning {
        what: "An annotation is for a name that no metric of the HPA selects.",
        why: "lagwise ignores an annotation for a name that no metric of the HPA selects.",
        fix: "After the dot, use the value of the selector's label group or target.",
    }
    TopicsTwice "LW012" "topics_twice" Warning {
        what: "Topics are set both by a list and by a regular expression.",
        why: "lagwise uses the list of topics and ignores the regular expression.",
        fix: "Remove one of the two annotations.",
    }
    OneGroupForAll "LW013" "one_group_for_all" Warning {
        what: "One annotation consumer-group is set for several groups of the selector.",
        why: "One annotation replaces several groups of the selector by the same group, whose lag counts once.",
        fix: "Set the annotation for each group, as in lagwise.dev/consumer-group.LABEL.",
    }
    NoFallbackReplicas "LW014" "no_fallback_replicas" Warning {
        what: "fallback-after is set without fallback-replicas.",
        why: "Without fallback-replicas there is no fallback.",
        fix: "Add lagwise.dev/fallback-replicas, or remove lagwise.dev/fallback-after.",
    }
    ConflictingSettings "LW015" "conflicting_settings" Warning {
        what: "Settings of one group differ between HPAs or targets.",
        why: "lagwise measures the lag of a group by one setting: where targets differ, the value that counts more lag applies to all of them.",
        fix: "Set the same value on every HPA and target of the group.",
    }
    MembersBeyond "LW016" "members_beyond" Warning {
        what: "The group has more members than can have work.",
        why: "Members beyond the useful parallelism get no partition, cost memory and cause rebalances.",
        fix: "Lower the replicas, or the threads of each (set lagwise.dev/threads-per-replica to their number), or add partitions.",
    }
    MixedSubscriptions "LW017" "mixed_subscriptions" Warning {
        what: "Members of the group subscribe to different topics.",
        why: "Only some of the members share each topic's partitions, so the ceiling is too high. Often two applications use the same group by mistake.",
        fix: "Give each application its own group.",
    }
    ToleranceAbove "LW018" "tolerance_above" Warning {
        what: "Within its tolerance the HPA may keep replicas above the ceiling.",
        why: "Within its tolerance the HPA keeps the replicas that run, including those above the ceiling that come from a rollout or from another metric.",
        fix: "Set behavior.scaleUp.tolerance and behavior.scaleDown.tolerance to \"0\" (Kubernetes 1.35 and later), or lagwise.dev/cap: enforce.",
    }
    ToleranceBelow "LW019" "tolerance_below" Warning {
        what: "Within its tolerance the HPA may stop below the ceiling.",
        why: "lagwise serves at most ceiling x lag per replica. Slightly below the ceiling the difference is within the HPA's tolerance, so the HPA does not scale up any more.",
        fix: "Set behavior.scaleUp.tolerance to \"0\" (Kubernetes 1.35 and later), or lagwise.dev/cap: enforce.",
    }
    FallbackServed "LW020" "fallback_served" Warning {
        what: "Lag has been unknown for longer than fallback-after.",
        why: "The HPA gets a fixed number of replicas that does not follow the lag.",
        fix: "Find out why the lag is unknown: run lagwise lag, or read the daemon's log.",
    }
    NoZeroWithOthers "LW021" "no_zero_with_others" Warning {
        what: "Scale to zero is set on an HPA with an External metric that lagwise does not serve.",
        why: "At zero replicas the HPA asks for no metric, so work that only the other metric shows would wait forever.",
        fix: "Remove the other metric or lagwise.dev/scale-to-zero.",
    }
    MaxAboveCeiling "LW022" "max_above_ceiling" Info {
        what: "maxReplicas is above the ceiling, with cap: advise.",
        why: "The group cannot use more members than its useful parallelism, so this metric never scales the HPA to its maximum.",
        fix: "Nothing if you plan to add partitions. Otherwise lower maxReplicas, or set lagwise.dev/cap: enforce.",
    }
    MinAboveCeiling "LW023" "min_above_ceiling" Warning {
        what: "minReplicas is above the ceiling.",
        why: "Replicas that can never have work run all the time. The cap never goes below minReplicas.",
        fix: "Lower minReplicas to the ceiling, or add partitions.",
    }
    OthersAbove "LW024" "others_above" Warning {
        what: "Another metric of the HPA may scale it above the ceiling, with cap: advise.",
        why: "The HPA follows the largest of its metrics, and the ceiling limits only those of lagwise.",
        fix: "Set lagwise.dev/cap: enforce, or lower maxReplicas to the ceiling.",
    }
    ConflictingTargets "LW025" "conflicting_targets" Error {
        what: "HPAs use the same selector with different lag per replica.",
        why: "A metric request carries the selector but not the name of the HPA, so lagwise cannot know which of the HPAs it should answer.",
        fix: "Add the label hpa with the HPA's own name to each selector.",
    }
    SharedScaleTarget "LW026" "shared_scale_target" Error {
        what: "Two HPAs scale the same workload.",
        why: "Two HPAs of one workload undo each other's replicas; the HPA controller stops both (AmbiguousSelector).",
        fix: "Keep one HPA with the metrics of both.",
    }
    TopicMissing "LW027" "topic_missing" Error {
        what: "A topic does not exist.",
        why: "A topic that does not exist has no lag, and the metric is an error.",
        fix: "Create the topic, or correct its name. lagwise never creates a topic.",
    }
    NothingToRead "LW028" "nothing_to_read" Error {
        what: "There is nothing to measure: no commit, or no topic or partition that matches.",
        why: "There is no lag to measure, and the metric is an error.",
        fix: "Name the topics with the label topic, or start the consumers once so that they commit.",
    }
    NoMembers "LW029" "no_members" Warning {
        what: "The group has lag and has had no members for two minutes.",
        why: "No consumer reads the lag: the pods do not run, cannot reach Kafka, or use another group.id.",
        fix: "Compare the consumers' group.id with the selector, and read their logs.",
    }
    ForeignMembers "LW030" "foreign_members" Warning {
        what: "The group has members that are not pods of this workload.",
        why: "Members outside this workload (another Deployment, another cluster, a blue-green copy) take partitions that the ceiling counts for this workload.",
        fix: "Give each workload its own group, or accept that fewer replicas have work.",
    }
    UnevenPartitions "LW031" "uneven_partitions" Info {
        what: "maxReplicas does not divide the ceiling.",
        why: "At the maximum some replicas have one partition more than others, and the slowest of them limits the group.",
        fix: "Use a maxReplicas that divides the ceiling, or set lagwise.dev/even: \"true\".",
    }
    Stabilised "LW032" "stabilised" Info {
        what: "A stabilization window delays the HPA: a window for scaling up; a window for scaling down with kafka_desired_replicas; or, with minReplicas: 0, one that is longer than the cooldown.",
        why: "The HPA changes its replicas only after the window, although the metric already has the new value.",
        fix: "Remove the window or set it to 0, unless you want the delay.",
    }
    ControllerOwned "LW033" "controller_owned" Warning {
        what: "cap: enforce or scale to zero is set on an HPA that a controller owns, so lagwise ignores it.",
        why: "The controller that owns the HPA writes it from its own object and would undo every write of lagwise.",
        fix: "Configure it in the object that the controller makes the HPA from, or remove the annotation.",
    }
    ReplicasInManifest "LW034" "replicas_in_manifest" Warning {
        what: "A manifest or program sets spec.replicas of the scale target.",
        why: "Every apply of the manifest sets the replicas back until the next sync of the HPA.",
        fix: "Remove spec.replicas from the manifest (with server-side apply, transfer its ownership first).",
    }
    OrderedReady "LW035" "ordered_ready" Info {
        what: "A StatefulSet starts its pods one after another.",
        why: "Each pod waits until the one before it is ready. Scaling up takes long, and one pod that never becomes ready blocks the rest.",
        fix: "Set podManagementPolicy: Parallel if the pods do not depend on each other.",
    }
    SurgeAboveCeiling "LW036" "surge_above_ceiling" Info {
        what: "A rollout at the ceiling starts pods that have no work.",
        why: "Each surge pod joins the group and causes a rebalance, and has no work while the old pods hold the partitions.",
        fix: "Set maxSurge: 0 and maxUnavailable: 1, or use static members (group.instance.id).",
    }
    ToleranceLeft "LW037" "tolerance_left" Info {
        what: "The tolerance of the HPA is not \"0\".",
        why: "lagwise limits the value to exactly ceiling x lag per replica. With a tolerance the HPA may stop below the ceiling, or keep replicas above it.",
        fix: "Set behavior.scaleUp.tolerance and behavior.scaleDown.tolerance to \"0\" (Kubernetes 1.35 and later), or lagwise.dev/cap: enforce.",
    }
    OffsetsExpire "LW038" "offsets_expire" Warning {
        what: "The group has had no members for five days and has offsets that brokers will delete.",
        why: "Brokers delete the offsets of a group without members after offsets.retention.minutes (seven days by default); its consumers then start at auto.offset.reset.",
        fix: "Start a consumer of the group for a moment, or raise offsets.retention.minutes on the brokers.",
    }
    SuffixOnHpaSetting "LW039" "suffix_on_hpa_setting" Error {
        what: "An annotation that applies to the whole HPA has .NAME after its key.",
        why: "paused, cap, max-replicas, scale-to-zero and cooldown apply to the whole HPA. With .NAME after the key they do nothing, except that paused still stops all writes to the HPA, to be safe.",
        fix: "Remove .NAME from the key of the annotation.",
    }
    UnclearPause "LW040" "unclear_pause" Warning {
        what: "An annotation may mean lagwise.dev/paused: \"true\", but is not spelled so.",
        why: "Ignoring an intended pause could do harm. To be safe, lagwise writes nothing to the HPA and to its scale target.",
        fix: "Write lagwise.dev/paused: \"true\" to pause, or remove the annotation.",
    }
    NotAllowed "LW041" "not_allowed" Error {
        what: "An HPA asks for a group or topic that its namespace may not ask for.",
        why: "By tenancy in the configuration of lagwise, the namespace may not read it: nothing is read, served or written for the metric.",
        fix: "Select a group of the namespace, or have an entry added to tenancy.",
    }
    OverBudget "LW042" "over_budget" Error {
        what: "An HPA, or a metric of it, asks for more than a limit or a budget of lagwise allows.",
        why: "Limits keep the memory of lagwise bounded, and budgets keep one namespace from using up what others need. Where budgets.total is too small for all, the namespaces that ask for most are the first that get less. What is over a budget is not read: its lag is unknown, and the metric is an error.",
        fix: "Ask for less, or have budgets in the configuration of lagwise raised, and its memory limit with them.",
    }
    LoginUnencrypted "LW043" "login_unencrypted" Warning {
        what: "lagwise sends a password or token to Kafka unencrypted.",
        why: "Whoever can read the network traffic, or can pose as a broker, gets the password or token.",
        fix: "Set security.protocol: SASL_SSL. Without TLS at least set sasl.mechanism: SCRAM-SHA-512, which does not send the password.",
    }
    BrokersUnverified "LW044" "brokers_unverified" Warning {
        what: "The certificates of brokers are not verified in full.",
        why: "Whoever can answer in place of a broker gets the login and can report any offsets.",
        fix: "Set ssl.ca.location to the certificate authority of the brokers, and remove the setting that switches the verification off.",
    }
    TokenUrlUnencrypted "LW045" "token_url_unencrypted" Warning {
        what: "The URL of the token endpoint is http, on another host.",
        why: "Whoever can read the network traffic gets the client secret and the tokens.",
        fix: "Use the https URL of the token endpoint.",
    }
    SecretFileOpen "LW046" "secret_file_open" Warning {
        what: "Every user of the machine may read a file with a secret.",
        why: "Any other process on the machine can read the secret and use it.",
        fix: "Let only the user of lagwise read the file (chmod o-r). For a Secret that is mounted by subPath, set defaultMode: 0440 and the pod's fsGroup.",
    }
    InvalidScaleTarget "LW047" "invalid_scale_target" Error {
        what: "The scale target of an HPA has a name that no object can have, or a kind that cannot be scaled.",
        why: "No such object exists, or it has no replicas to change, so the HPA scales nothing. lagwise does not put an invalid name into a request, where it could change what is asked.",
        fix: "Correct scaleTargetRef: a version such as apps/v1, a kind such as Deployment, and the name of an object.",
    }
    ZeroNotRecorded "LW048" "zero_not_recorded" Warning {
        what: "An HPA has the annotation lagwise.dev/zeroed-since, or had its workload scaled to zero, but lagwise has no record of having scaled the present workload to zero.",
        why: "Every user who may write an HPA can set its annotations, so they prove nothing. lagwise wakes only workloads that its own ledger records as scaled to zero, for the same HPA object and the same workload object. A workload that a person has scaled to zero stays there.",
        fix: "If the workload is to run, scale it up by the command in the message. Otherwise remove the annotation lagwise.dev/zeroed-since.",
    }
    ZeroLedgerUnusable "LW049" "zero_ledger_unusable" Error {
        what: "Scale to zero is set, but lagwise cannot record which workloads it has scaled to zero.",
        why: "Without the record, lagwise could not tell its own zero from that of a person. So it scales nothing to zero, and wakes nothing.",
        fix: "Let lagwise create, get and patch the ConfigMap of scale_to_zero.config_map in its own namespace, and outside of a pod set that key. If the ledger is full, set scale to zero on fewer HPAs.",
    }
    WritesNotEnabled "LW050" "writes_not_enabled" Warning {
        what: "cap: enforce or scale to zero is set on an HPA in whose namespace the administrator of lagwise has not enabled it.",
        why: "The administrator of lagwise decides where it may write. Elsewhere the cap is advice, and lagwise scales nothing to zero.",
        fix: "Have it enabled for the namespace, by cap.enforce or scale_to_zero in the configuration (enforce or scaleToZero in the chart's values), or remove the annotation.",
    }
    AtCeiling "LW051" "at_ceiling" Info {
        what: "The lag is worth more replicas than the ceiling allows.",
        why: "Replicas above the ceiling would have no work, so the backlog shrinks only as fast as the replicas at the ceiling read it. The message has the numbers of the moment when this began. It ends once the lag has been worth no more than the ceiling for ten minutes.",
        fix: "Nothing if the backlog shrinks fast enough. Otherwise add partitions, or make each replica faster.",
    }
    MetricNotServed "LW052" "metric_not_served" Warning {
        what: "An HPA seems to be meant for lagwise, but none of its metrics is one that lagwise serves.",
        why: "lagwise serves the External metrics kafka_lag and kafka_desired_replicas. An HPA without them gets no value, no ceiling and no scale to zero from lagwise, and its annotations lagwise.dev/... have no effect.",
        fix: "Use a metric of type External with the name kafka_lag and matchLabels.group. If another metrics server serves the HPA, remove the annotations lagwise.dev/..., or ignore this.",
    }
    InvalidSelector "LW053" "invalid_selector" Error {
        what: "The selector of a metric of lagwise is one that Kubernetes rejects.",
        why: "The HPA controller rejects the selector before it asks for the metric, so the metric is an error and the HPA keeps its replicas. A label value has at most 63 letters, digits, -, _ and ., with a letter or digit at both ends. Consumer groups and topics may have other names.",
        fix: "Use a valid label value, such as matchLabels.group: orders, and name the consumer group in the annotation lagwise.dev/consumer-group, the topics in lagwise.dev/topics. Or add a target to the configuration of lagwise, and select it by matchLabels.target.",
    }
    SwitchedOff "LW054" "switched_off" Info {
        what: "The workload of an HPA has zero replicas, and lagwise has not scaled it to zero.",
        why: "Kubernetes disables an HPA while its workload has zero replicas (condition ScalingActive: False, reason ScalingDisabled). lagwise starts only what is in its own record of scale to zero, since a zero set by a person or another program is meant. So the workload stays off, however large its lag is.",
        fix: "Nothing if it is meant to be off. Otherwise scale it up.",
    }
    WriteForbidden "LW055" "write_forbidden" Warning {
        what: "lagwise lacks a right that it needs for what an HPA asks for.",
        why: "Without the right the workload is neither scaled to zero nor woken, or the ceiling is not written to maxReplicas. The message has the answer of the Kubernetes API server, which names the verb and the resource.",
        fix: "If a right is missing, grant it. In the values of the chart, scaleToZero.enabled and enforce.enabled do, for the namespaces in scaleToZero.namespaces and enforce.namespaces if these are set, and for other kinds than Deployments and StatefulSets by scaleToZero.targets.",
    }
    UnseenGroup "LW056" "unseen_group" Warning {
        what: "A group has neither members nor committed offsets on the topics that count, although replicas run.",
        why: "Most likely its name or that of a topic is misspelled: the lag of what the replicas read is unknown to lagwise. With several replicas the metric is an error, so that the HPA keeps them.",
        fix: "Compare the name of the group with the consumers' group.id. If the message says that the group exists, compare the topics. If all names are right, find out why the consumers have not joined the group: read their logs.",
    }
    PatternTooWide "LW057" "pattern_too_wide" Warning {
        what: "The topic regex of a group without members matches more topics than lagwise reads for it.",
        why: "While a group has no members, the topics of the cluster that match show what its members would read. With too many of them only those with a commit count, so a new topic does not wake the workload.",
        fix: "Narrow lagwise.dev/topic-regex, or name the topics in lagwise.dev/topics.",
    }
    KedaObject "LW058" "keda_object" Info {
        what: "A manifest of KEDA is among the files.",
        why: "lagwise can scale the workload of a ScaledObject with Kafka triggers without KEDA. Each message names an option of KEDA that has no equivalent, or that works in another way.",
        fix: "Run lagwise convert on the file, and read the guide on coming from KEDA.",
    }
    LoginToAnyHost "LW059" "login_to_any_host" Warning {
        what: "lagwise logs in to every host that a broker names.",
        why: "Brokers name the hosts of all brokers, and lagwise logs in to these. Whoever controls one broker, or what it advertises, can have the login sent to a host of their own.",
        fix: "List the hosts of your brokers in allowed_broker_hosts, or use TLS with ssl.ca.location set to the certificate authority that signs only their certificates.",
    }
    PolicyUnavailable "LW060" "policy_unavailable" Warning {
        what: "The rate policy is set for a metric about which it cannot decide.",
        why: "Lag divided by the lag per replica is served, or recommended, instead. The policy decides about kafka_desired_replicas of one consumer group whose members own partitions.",
        fix: "Use the metric kafka_desired_replicas with one consumer group and one HPA, or set lagwise.dev/policy: lag.",
    }
    MoreReplicasNoHelp "LW061" "more_replicas_no_help" Warning {
        what: "More replicas do not make a consumer group faster.",
        why: "Either one partition gets more messages than a member processes, or something else than the number of members limits the group, such as a database. The rate policy does not ask for more replicas for that.",
        fix: "Add partitions or choose keys that spread the messages, make the consumer faster, or find what limits it.",
    }
    ReplicasHeld "LW062" "replicas_held" Info {
        what: "A hold keeps the number of replicas from changing.",
        why: "The annotation lagwise.dev/hold keeps the number that is served from rising, falling or both. Without it, another number would be served now.",
        fix: "Remove the annotation, or give it an end time, if the number is to change again.",
    }
    KedaUnread "LW063" "keda_unread" Warning {
        what: "lagwise observes, but cannot read KEDA's objects.",
        why: "With kubernetes.mode: observe lagwise shows the replicas or Jobs by KEDA beside its own, for the ScaledObjects and ScaledJobs that it can list. Those that it cannot list are missing in the report.",
        fix: "Grant list and watch on scaledobjects, scaledjobs, triggerauthentications and clustertriggerauthentications of keda.sh, as the chart does with mode: observe. Where KEDA is not installed there is nothing to compare: use kubernetes.mode: serve.",
    }
    ScalerOpen "LW064" "scaler_open" Warning {
        what: "The external scaler for KEDA answers everybody who reaches its port.",
        why: "Callers name the namespace for which they ask. So everyone who reaches the port can read the lag of every namespace, as far as tenancy allows, and use up the limits of triggers and streams.",
        fix: "Set server.external_scaler.auth: certificate and client_ca_file, and give KEDA's triggers a client certificate. Without these, let only KEDA's namespace reach the port by a NetworkPolicy (networkPolicy.scalerFrom in the chart).",
    }
    UpstreamUnverified "LW065" "upstream_unverified" Warning {
        what: "The certificate of the upstream server of external metrics is not verified.",
        why: "A server that answers in place of the upstream receives lagwise's token, and determines the values of its metrics and so the replicas of their HPAs.",
        fix: "Set server.external_metrics.upstream.ca_file to a PEM file with the certificate authority (CA) that issued its certificate, and remove insecure_skip_verify.",
    }
    UpstreamFileUnusable "LW066" "upstream_file_unusable" Warning {
        what: "A file for the upstream server of external metrics cannot be used.",
        why: "lagwise continues with the former content. Once a token or certificate in it expires, the HPAs that use metrics of the upstream get no value. If there was no usable token before, they get no value now.",
        fix: "Restore the file that the message names: a token in one line, or certificates and keys in PEM, readable for the user of lagwise. lagwise reads it again every 10 seconds.",
    }
    SlotLost "LW067" "slot_lost" Warning {
        what: "The APIService of external metrics names another Service than that of lagwise.",
        why: "A cluster has one registration of external metrics. HPAs now ask the server that it names, which does not know lagwise's metrics: they get errors and keep their replicas. KEDA's chart, for example, registers KEDA anew at each upgrade.",
        fix: "Keep the other program from installing its APIService, and apply lagwise's again with helm upgrade and apiService.takeOver=true. If lagwise is not to hold the slot, set apiService.create=false, or server.external_metrics.ca_bundle: false.",
    }
    AllReplicasCheaper "LW068" "all_replicas_cheaper" Warning {
        what: "Always running all replicas would cost less than scaling.",
        why: "The rate policy is compared with always running as many replicas as it may ask for, over the last hours, 24 at most. Late messages would be so many fewer that they are worth more than the saved replicas: 1 % of late messages counts as 5 % of all replicas. That happens if pods take longer to start than messages may wait, or if the load again and again rises faster than pods start. What arrives at once and is processed within two minutes does not count.",
        fix: "Set minReplicas to the number in the message, or to as many as nearly always are enough. If older messages do no harm, set lagwise.dev/slo to the age that they may reach. lagwise explain shows the figures.",
    }
    RefusedHpa "LW069" "refused_hpa" Error {
        what: "The manifest of an HPA is one that Kubernetes refuses.",
        why: "The API server checks every HPA before it stores it. kubectl apply, Helm and GitOps tools fail with this manifest, and the cluster keeps what it had before.",
        fix: "Correct the field that the message names. If the file is a template or a patch, check what is made of it, such as the output of helm template or kubectl kustomize.",
    }
    UnknownHpaKey "LW070" "unknown_hpa_key" Error {
        what: "The manifest of an HPA has a key that Kubernetes does not know.",
        why: "kubectl refuses a manifest with an unknown key. Programs that ask for no strict validation have the key dropped, so that the HPA works without what it should set.",
        fix: "Correct the spelling of the key, including its capital letters, or remove it.",
    }
    ReservedAnnotation "LW071" "reserved_annotation" Warning {
        what: "A manifest sets an annotation that only lagwise writes.",
        why: "lagwise records in it what it has done to the HPA. Each apply of the manifest overwrites the record, so the cap, the admission policies and people read a wrong one.",
        fix: "Remove the annotation from the manifest.",
    }
    HoldEnded "LW072" "hold_ended" Info {
        what: "The end of a hold has passed.",
        why: "The annotation lagwise.dev/hold has no effect after its end.",
        fix: "Remove the annotation, or set a later end.",
    }
    LimitedScaleUp "LW073" "limited_scale_up" Warning {
        what: "The HPA splits the steps of the rate policy.",
        why: "The rate policy asks at once for all replicas that a rise needs. Without behavior.scaleUp, or with its default policies, Kubernetes doubles the replicas at most, or adds 4, and waits 15 s before it does so again. Each move is a rebalance of the group, and messages become older in the meantime.",
        fix: "Set behavior.scaleUp with selectPolicy: Max and a policy {type: Pods, value: N, periodSeconds: 15}, with maxReplicas as N.",
    }
}
