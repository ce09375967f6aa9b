//! Keys of other programs that people write into the file, and what to do about them.

mod chart;

use self::Remedy::{Remove, Write};
use self::chart::CHART_KEYS;
use super::schema::paths_of_key;

/// Where a key is written: the path of the mapping without indices.
type Level = &'static str;

const FILE: Level = "";
const CLUSTER: Level = "clusters[]";
const PROPERTIES: Level = "clusters[].properties";
const TARGET: Level = "targets[]";

/// What to do about a key.
#[derive(Clone, Copy, Debug)]
enum Remedy {
    /// Write this.
    Write(&'static str),
    /// Remove it, for this reason.
    Remove(&'static str),
}

/// The keys, by level: the key, the program that has it, and what to do about it.
const KEYS: &[(Level, &[&str], &str, Remedy)] = &[
    (
        FILE,
        &[
            "triggers",
            "scaleTargetRef",
            "pollingInterval",
            "cooldownPeriod",
            "minReplicaCount",
            "maxReplicaCount",
        ],
        "of a ScaledObject of KEDA",
        Write("an HPA with the metric kafka_lag, which `lagwise convert` makes of it"),
    ),
    (
        FILE,
        &["apiVersion", "kind", "metadata", "spec"],
        "of a Kubernetes object",
        Write("the daemon's own configuration: lagwise has no custom resource"),
    ),
    (
        FILE,
        CHART_KEYS,
        "of the chart's values",
        Write("what is below config in the values"),
    ),
    (
        FILE,
        &["kafka"],
        "of kafka-ui and kminion",
        Write("clusters: [{name: main, properties: {bootstrap.servers: HOST:PORT}}]"),
    ),
    (
        FILE,
        &[
            "bootstrapServers",
            "bootstrap_servers",
            "bootstrap.servers",
            "brokers",
            "kafka.server",
        ],
        "of programs with a single Kafka cluster",
        Write("clusters: [{name: main, properties: {bootstrap.servers: HOST:PORT}}]"),
    ),
    (
        FILE,
        &["log.level", "logLevel", "log_level"],
        "of other programs",
        Write("log: {filter: debug}"),
    ),
    (
        FILE,
        &["web.listen-address", "web.telemetry-path"],
        "of kafka_exporter",
        Write("server: {metrics: {listen: 0.0.0.0:8080}}"),
    ),
    (
        FILE,
        &[
            "group.filter",
            "topic.filter",
            "group.exclude",
            "topic.exclude",
        ],
        "of kafka_exporter",
        Write("targets: or HPAs, which say what is read"),
    ),
    (
        CLUSTER,
        &[
            "bootstrapServers",
            "bootstrap_servers",
            "bootstrapservers",
            "brokers",
            "servers",
        ],
        "of KEDA, kafka-ui and kminion",
        Write("properties: {bootstrap.servers: HOST:PORT}"),
    ),
    (
        CLUSTER,
        &["sasl", "saslType", "mechanism", "saslMechanism"],
        "of KEDA and kminion",
        Write(
            "properties: {security.protocol: SASL_SSL, sasl.mechanism: SCRAM-SHA-512, sasl.username: ..., sasl.password: ...}",
        ),
    ),
    (
        CLUSTER,
        &["awsRegion", "awsRoleArn", "aws"],
        "of KEDA",
        Write("token: {aws_msk_iam: {region: eu-central-1}}"),
    ),
    (
        CLUSTER,
        &["tls", "ssl", "caFilepath", "ca"],
        "of KEDA and kminion",
        Write(
            "properties: {security.protocol: SSL, ssl.ca.location: FILE}, or SASL_SSL with a login",
        ),
    ),
    (
        CLUSTER,
        &["username", "password"],
        "of KEDA and kminion",
        Write("properties: {sasl.username: ..., sasl.password: ${env:NAME}}"),
    ),
    (
        CLUSTER,
        &["version", "kafkaVersion"],
        "of KEDA and kafka_exporter",
        Remove("lagwise asks the brokers for it"),
    ),
    (
        CLUSTER,
        &["authenticationRef"],
        "of KEDA",
        Write("properties, with ${file:PATH} of a mounted Secret"),
    ),
    (
        CLUSTER,
        &[
            "consumerGroup",
            "topic",
            "topics",
            "lagThreshold",
            "activationLagThreshold",
            "offsetResetPolicy",
            "group",
        ],
        "of a trigger of KEDA",
        Write(
            "group and topic in the selector of an HPA's metric, or targets: [{name, group, topics}]",
        ),
    ),
    (
        CLUSTER,
        &["schemaRegistry", "kafkaConnect", "readOnly", "metrics"],
        "of kafka-ui",
        Remove("lagwise does not need it"),
    ),
    (
        PROPERTIES,
        &[
            "bootstrapServers",
            "bootstrap_servers",
            "brokers",
            "kafka.server",
            "spring.kafka.bootstrap-servers",
        ],
        "of other programs",
        Write("bootstrap.servers"),
    ),
    (
        PROPERTIES,
        &["sasl.enabled", "sasl.handshake"],
        "of kafka_exporter",
        Write("security.protocol: SASL_SSL, and sasl.mechanism"),
    ),
    (
        PROPERTIES,
        &["tls.enabled", "ssl.enabled"],
        "of kafka_exporter",
        Write("security.protocol: SSL, or SASL_SSL with a login"),
    ),
    (
        PROPERTIES,
        &["tls.ca-file", "tls.ca", "ssl.ca"],
        "of kafka_exporter",
        Write("ssl.ca.location"),
    ),
    (
        PROPERTIES,
        &["tls.cert-file", "tls.cert", "ssl.cert"],
        "of kafka_exporter",
        Write("ssl.certificate.location"),
    ),
    (
        PROPERTIES,
        &["tls.key-file", "tls.key", "ssl.key"],
        "of kafka_exporter",
        Write("ssl.key.location"),
    ),
    (
        PROPERTIES,
        &["tls.insecure-skip-tls-verify"],
        "of kafka_exporter",
        Write("enable.ssl.certificate.verification: false"),
    ),
    (
        PROPERTIES,
        &["sasl.aws-region"],
        "of kafka_exporter",
        Write("token: {aws_msk_iam: {region: ...}} beside properties"),
    ),
    (
        PROPERTIES,
        &["kafka.version"],
        "of kafka_exporter",
        Remove("lagwise asks the brokers for it"),
    ),
    (
        PROPERTIES,
        &["username", "sasl.user", "saslUsername"],
        "of other programs",
        Write("sasl.username"),
    ),
    (
        PROPERTIES,
        &["password", "saslPassword"],
        "of other programs",
        Write("sasl.password"),
    ),
    (
        PROPERTIES,
        &["security_protocol", "security-protocol", "securityProtocol"],
        "of other programs",
        Write("security.protocol"),
    ),
    (
        PROPERTIES,
        &["sasl", "saslType", "saslMechanism", "sasl_mechanism"],
        "of other programs",
        Write("sasl.mechanism"),
    ),
    (
        PROPERTIES,
        &["token", "client", "max_groups", "allowed_broker_hosts"],
        "of the cluster",
        Write("it beside properties"),
    ),
    (
        TARGET,
        &["consumerGroup", "consumer_group", "groupId", "group.id"],
        "of KEDA and Kafka",
        Write("group"),
    ),
    (
        TARGET,
        &["lagThreshold", "threshold", "lag"],
        "of KEDA",
        Write("lag_per_replica"),
    ),
    (
        TARGET,
        &["offsetResetPolicy", "auto.offset.reset"],
        "of KEDA and Kafka",
        Write("offset_reset"),
    ),
    (
        TARGET,
        &["limitToPartitionsWithLag"],
        "of KEDA",
        Write("by: lagging"),
    ),
    (
        TARGET,
        &["partitionLimitation"],
        "of KEDA",
        Write("partitions"),
    ),
    (
        TARGET,
        &["ensureEvenDistributionOfPartitions"],
        "of KEDA",
        Write("even: true"),
    ),
    (
        TARGET,
        &["excludePersistentLag"],
        "of KEDA",
        Write("lag: {stuck_counts: false}"),
    ),
    (
        TARGET,
        &["bootstrapServers", "bootstrap.servers"],
        "of KEDA",
        Write("cluster, with a name from clusters"),
    ),
    (
        TARGET,
        &[
            "minReplicas",
            "maxReplicas",
            "minReplicaCount",
            "maxReplicaCount",
        ],
        "of an HPA or a ScaledObject",
        Write("it in the HPA, which stays yours"),
    ),
    (
        "log",
        &["level"],
        "of other programs",
        Write("filter, such as debug or info,lagwise::kafka=debug"),
    ),
    (
        "poll",
        &["pollingInterval", "period", "every"],
        "of other programs",
        Write("interval, with a unit, such as 30s"),
    ),
    ("poll", &["timeout"], "of other programs", Write("deadline")),
    (
        "server",
        &["port", "listen", "address"],
        "of other programs",
        Write("metrics: {listen: 0.0.0.0:8080}"),
    ),
    (
        "cap",
        &["enabled", "mode"],
        "of other programs",
        Write("enforce: {enabled: true}, and default: enforce"),
    ),
    (
        "kubernetes",
        &["namespace", "watchNamespaces", "watchNamespace"],
        "of other programs",
        Write("namespaces: [NAME]"),
    ),
];

/// Whose key this is, and what to do about it; `None` if no other program has it.
pub(super) fn meaning(mapping: &str, key: &str) -> Option<String> {
    let level = without_indices(mapping);
    let mut rows = KEYS.iter();
    let row = rows.find(|(at, keys, ..)| *at == level && keys.contains(&key));
    row.map(|(.., whose, remedy)| match remedy {
        Write(instead) => format!("a key {whose}; write {instead}"),
        Remove(reason) => format!("a key {whose}; remove it: {reason}"),
    })
}

/// The keys that other programs have at this level.
pub(super) fn keys_at(level: &'static str) -> impl Iterator<Item = &'static str> {
    let rows = KEYS.iter().filter(move |(at, ..)| *at == level);
    rows.flat_map(|(_, keys, ..)| keys.iter().copied())
}

/// Where the key belongs in this file; `None` if that is not clear.
pub(super) fn right_place(mapping: &str, key: &str) -> Option<String> {
    let level = without_indices(mapping);
    if matches!(level.as_str(), FILE | CLUSTER) && key.contains('.') {
        return Some("clusters[].properties".to_owned());
    }
    // Deeper down a key of the same name means something else.
    let is_near = level == CLUSTER || !level.contains(['.', '[']);
    match paths_of_key(key).as_slice() {
        _ if !is_near => None,
        [only] => Some(only.clone()),
        [one, other] => Some(format!("{one} or {other}")),
        _ => None,
    }
}

/// `clusters[3].properties` as `clusters[].properties`.
fn without_indices(path: &str) -> String {
    let mut inside = false;
    let keep = path.chars().filter(|c| {
        inside = match *c {
            '[' => true,
            ']' => false,
            _ => inside,
        };
        !inside || !c.is_ascii_digit()
    });
    keep.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_meaning_at_each_level() {
        for (index, (level, keys, ..)) in KEYS.iter().enumerate() {
            for key in *keys {
                let again = KEYS[index + 1..].iter();
                let mut again =
                    again.filter(|(at, others, ..)| at == level && others.contains(key));
                assert!(again.next().is_none(), "{level} {key}");
            }
        }
    }

    #[test]
    fn indices_do_not_matter() {
        assert_eq!(without_indices("clusters[12].properties"), PROPERTIES);
        assert_eq!(without_indices("targets[0]"), TARGET);
        assert!(meaning("clusters[3]", "bootstrapServers").is_some());
        assert_eq!(meaning("poll", "bootstrapServers"), None);
    }

    #[test]
    fn a_key_of_another_section_is_found() {
        for (mapping, key, expected) in [
            ("", "interval", Some("otlp.interval or poll.interval")),
            ("", "deadline", Some("poll.deadline")),
            ("", "bootstrap.Servers", Some("clusters[].properties")),
            ("clusters[0]", "max_staleness", Some("poll.max_staleness")),
            ("server.external_metrics.upstream", "interval", None),
            ("", "listen", None),
            ("", "colour", None),
        ] {
            assert_eq!(right_place(mapping, key).as_deref(), expected, "{key}");
        }
    }
}
