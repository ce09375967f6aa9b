//! The service that runs a Kafka cluster, and its commands for rights and partitions.

use std::borrow::Cow;

use super::preflight::MAX_SHOWN_NAMES;
use crate::model::units::untrusted_text::MAX_MESSAGE_CHARS;

/// A service or operator that runs Kafka, found by the addresses of its brokers and by the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaService {
    /// Amazon MSK with ACLs.
    AmazonMsk,
    /// Amazon MSK with IAM, which authorizes instead of ACLs.
    AmazonMskIam,
    AmazonMskServerless,
    ConfluentCloud,
    EventHubs,
    GoogleManagedKafka,
    Strimzi,
    /// Kafka with ACLs, as far as lagwise can tell.
    Other,
}

impl KafkaService {
    /// Finds the service of a broker's host. `has_token` says whether lagwise logs in with a token.
    fn detect(host: &str, has_token: bool) -> Self {
        let ends = |suffix: &str| host.ends_with(suffix);
        let has_label = |label: &str| host.split('.').any(|l| l == label);
        let is_amazon = ends(".amazonaws.com") || ends(".amazonaws.com.cn");
        if ends(".servicebus.windows.net") {
            KafkaService::EventHubs
        } else if ends(".confluent.cloud") {
            KafkaService::ConfluentCloud
        } else if ends(".cloud.goog") && has_label("managedkafka") {
            KafkaService::GoogleManagedKafka
        } else if is_amazon && has_label("kafka-serverless") {
            KafkaService::AmazonMskServerless
        } else if is_amazon && has_label("kafka") {
            match has_token {
                true => KafkaService::AmazonMskIam,
                false => KafkaService::AmazonMsk,
            }
        } else if host
            .split('.')
            .next()
            .is_some_and(|name| name.ends_with("-kafka-bootstrap"))
        {
            KafkaService::Strimzi
        } else {
            KafkaService::Other
        }
    }
}

/// An entry of `bootstrap.servers` without the protocol that librdkafka allows before it.
fn address_of(server: &str) -> &str {
    let address = server.split_once("://").map_or(server, |(_, rest)| rest);
    address.trim()
}

/// The host of an entry of `bootstrap.servers`, in lower case.
fn host_of(server: &str) -> String {
    let address = address_of(server);
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.to_ascii_lowercase()
}

/// A right that lagwise needs in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaRight {
    DescribeGroup,
    DescribeTopic,
    /// Without it groups cannot be listed.
    DescribeCluster,
}

impl KafkaRight {
    /// The resource in commands, and its name where that is unknown.
    pub(super) fn resource(self) -> (&'static str, &'static str) {
        match self {
            KafkaRight::DescribeGroup => ("group", "GROUP"),
            KafkaRight::DescribeTopic => ("topic", "TOPIC"),
            KafkaRight::DescribeCluster => ("cluster", ""),
        }
    }
}

/// How lagwise reaches a Kafka cluster and logs in, as far as commands need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaAccess {
    service: KafkaService,
    /// The first entry of `bootstrap.servers`.
    server: String,
    /// The host of the entry by which the service was found; that of the first one for [`KafkaService::Other`].
    host: String,
    /// The name of the login in Kafka, without `User:`; `None` if it is unknown.
    pub principal: Option<String>,
}

impl KafkaAccess {
    /// Access by `bootstrap.servers`. `user` is the user of a password, and `has_token` says whether lagwise logs in with
    /// a token.
    #[must_use]
    pub fn new(bootstrap: &str, has_token: bool, user: Option<&str>) -> Self {
        let first = bootstrap.split(',').next().unwrap_or_default();
        let mut services = bootstrap.split(',').map(|server| {
            let host = host_of(server);
            (KafkaService::detect(&host, has_token), host)
        });
        let known = services.find(|(service, _)| *service != KafkaService::Other);
        let (service, host) = known.unwrap_or_else(|| (KafkaService::Other, host_of(first)));
        Self {
            service,
            host,
            server: address_of(first).to_owned(),
            principal: user.map(str::to_owned),
        }
    }

    /// Part of the host, counted from 0.
    fn label(&self, index: usize) -> Option<String> {
        self.host.split('.').nth(index).map(str::to_owned)
    }

    /// The argument for the principal, or a placeholder.
    fn principal_or(&self, placeholder: &str) -> String {
        let principal = self.principal.as_deref();
        quoted(&format!("User:{}", principal.unwrap_or(placeholder)))
    }

    /// The remedy for a missing right. `names` are the groups or topics that lagwise may not describe, as far as they
    /// are known. It names as many of them as fit into a message.
    #[must_use]
    pub fn grant(&self, right: KafkaRight, names: &[String]) -> Cow<'static, str> {
        let placeholder = vec![right.resource().1.to_owned()];
        let known = match names.iter().all(|name| is_plain_name(name)) && !names.is_empty() {
            true => names,
            false => &placeholder,
        };
        let remedy = |count: usize| {
            let named = known.get(..count).unwrap_or(known);
            let remedy = self.grant_for(right, named);
            match known.len().saturating_sub(named.len()) {
                0 => remedy,
                others => {
                    format!("{remedy} Do the same for the {others} others, which -o json lists.")
                }
            }
        };
        let mut remedies = (1..=MAX_SHOWN_NAMES.min(known.len())).rev().map(remedy);
        let fitting = remedies.find(|remedy| remedy.chars().count() <= MAX_MESSAGE_CHARS);
        fitting
            .unwrap_or_else(|| self.grant_for(right, &placeholder))
            .into()
    }

    fn grant_for(&self, right: KafkaRight, names: &[String]) -> String {
        let (resource, _) = right.resource();
        let is_cluster = right == KafkaRight::DescribeCluster;
        match self.service {
            KafkaService::EventHubs => self.grant_in_event_hubs(),
            KafkaService::AmazonMskIam | KafkaService::AmazonMskServerless => {
                // In front of amazonaws.com.
                let labels: Vec<_> = self.host.split('.').collect();
                let domain = labels.iter().position(|label| *label == "amazonaws");
                let region = domain.and_then(|at| labels.get(at.checked_sub(1)?));
                let partition = match region {
                    Some(region) if region.starts_with("cn-") => "aws-cn",
                    Some(region) if region.starts_with("us-gov-") => "aws-us-gov",
                    _ => "aws",
                };
                let arn = |name: &str| {
                    let name = if is_cluster {
                        String::new()
                    } else {
                        format!("/{name}")
                    };
                    format!(
                        "arn:{partition}:kafka:{}:ACCOUNT:{resource}/CLUSTER/UUID{name}",
                        region.unwrap_or(&"REGION")
                    )
                };
                let action = match right {
                    KafkaRight::DescribeGroup => "DescribeGroup",
                    KafkaRight::DescribeTopic => "DescribeTopic",
                    KafkaRight::DescribeCluster => "DescribeCluster",
                };
                let arns: Vec<_> = names.iter().map(|name| arn(name)).collect();
                format!(
                    "Allow kafka-cluster:{action} on {} in the IAM policy of the role that lagwise logs in with.",
                    arns.join(" and ")
                )
            }
            KafkaService::ConfluentCloud => {
                // The command takes one name. The user of a login is an API key, which belongs to a service account.
                let commands = names.iter().map(|name| {
                    let resource = match right {
                        KafkaRight::DescribeGroup => format!("--consumer-group {}", quoted(name)),
                        KafkaRight::DescribeTopic => format!("--topic {}", quoted(name)),
                        KafkaRight::DescribeCluster => "--cluster-scope".to_owned(),
                    };
                    format!(
                        "confluent kafka acl create --allow --service-account SERVICE_ACCOUNT --operations describe {resource}"
                    )
                });
                let commands: Vec<_> = commands.collect();
                format!(
                    "Allow it: {} (with tokens --principal User:IDENTITY_POOL instead of --service-account)",
                    commands.join(" && ")
                )
            }
            KafkaService::GoogleManagedKafka => {
                let resource = match right {
                    KafkaRight::DescribeGroup => "consumerGroup/",
                    KafkaRight::DescribeTopic => "topic/",
                    KafkaRight::DescribeCluster => "cluster",
                };
                let commands = names.iter().map(|name| {
                    format!(
                        "gcloud managed-kafka acls add-acl-entry {} {} --principal {} --operation DESCRIBE",
                        quoted(&format!("{resource}{name}")),
                        self.google_cluster(),
                        self.principal_or("SERVICE_ACCOUNT_EMAIL")
                    )
                });
                let commands: Vec<_> = commands.collect();
                format!("Allow it: {}", commands.join(" && "))
            }
            KafkaService::Strimzi => {
                let acls = names.iter().map(|name| match is_cluster {
                    true => "{resource: {type: cluster}, operations: [Describe]}".to_owned(),
                    false => format!(
                        "{{resource: {{type: {resource}, name: {}, patternType: literal}}, operations: [Describe]}}",
                        serde_json::Value::from(name.as_str())
                    ),
                });
                let acls: Vec<_> = acls.collect();
                format!(
                    "Add {} to spec.authorization.acls of the KafkaUser{}, in the namespace of the Kafka cluster.",
                    acls.join(" and "),
                    self.kafka_user()
                )
            }
            KafkaService::AmazonMsk | KafkaService::Other => {
                let resource = match is_cluster {
                    true => " --cluster".to_owned(),
                    false => with_options(&format!("--{resource}"), names),
                };
                format!(
                    "Allow it: kafka-acls --bootstrap-server {} --command-config admin.properties --add --allow-principal {} --operation Describe{resource}",
                    self.server,
                    self.principal_or("NAME")
                )
            }
        }
    }

    fn grant_in_event_hubs(&self) -> String {
        match self.principal.as_deref() {
            Some("$ConnectionString") => {
                "Give the shared access policy of the connection string the right Listen."
                    .to_owned()
            }
            principal => format!(
                "Assign the role: az role assignment create --role 'Azure Event Hubs Data Receiver' --assignee {} --scope NAMESPACE_RESOURCE_ID",
                quoted(principal.unwrap_or("CLIENT_ID"))
            ),
        }
    }

    /// The name of the KafkaUser, after a space, if the login has it: of a password it is the user, of a certificate the
    /// common name.
    fn kafka_user(&self) -> String {
        let name = self.principal.as_deref().unwrap_or_default();
        match name.strip_prefix("CN=").unwrap_or(name) {
            "" => String::new(),
            name => format!(" {name}"),
        }
    }

    /// `--cluster` and `--location` of `gcloud managed-kafka`, from a host such as
    /// `bootstrap.CLUSTER.LOCATION.managedkafka.PROJECT.cloud.goog`.
    fn google_cluster(&self) -> String {
        let is_known = self.label(3).as_deref() == Some("managedkafka");
        let label = |index, placeholder: &str| match self.label(index) {
            Some(label) if is_known => label,
            _ => placeholder.to_owned(),
        };
        format!(
            "--cluster {} --location {}",
            label(1, "CLUSTER"),
            label(2, "LOCATION")
        )
    }

    /// How partitions are added to a topic by the service itself.
    #[must_use]
    pub fn grow_command(&self, topic: &str, wanted: u32) -> Option<String> {
        let iam = "allow kafka-cluster:AlterTopic on the topic for this login";
        let by_api = format!(
            "aws kafka update-topic --cluster-arn CLUSTER_ARN --topic-name {topic} --partition-count {wanted} (for \
             provisioned clusters with Kafka 3.6 or newer)"
        );
        Some(match self.service {
            KafkaService::EventHubs => format!(
                "az eventhubs eventhub update --resource-group GROUP --namespace-name {} --name {topic} \
                 --partition-count {wanted} (only in the tiers Premium and Dedicated)",
                self.label(0).unwrap_or_else(|| "NAMESPACE".to_owned())
            ),
            KafkaService::ConfluentCloud => {
                format!("confluent kafka topic update {topic} --config num.partitions={wanted}")
            }
            KafkaService::GoogleManagedKafka => format!(
                "gcloud managed-kafka topics update {topic} {} --partitions {wanted}",
                self.google_cluster()
            ),
            KafkaService::AmazonMskServerless => iam.to_owned(),
            KafkaService::AmazonMskIam => format!("{by_api}; or {iam}"),
            KafkaService::AmazonMsk => format!(
                "{by_api}; or run kafka-topics.sh --alter --topic {topic} --partitions {wanted} as somebody who may"
            ),
            KafkaService::Strimzi => format!(
                "kubectl --namespace {} patch kafkatopic {topic} --type merge --patch '{{\"spec\":{{\"partitions\":{wanted}}}}}'",
                self.label(1).unwrap_or_else(|| "NAMESPACE".to_owned())
            ),
            KafkaService::Other => return None,
        })
    }
}

/// Whether a name of a group or topic can stand in a command: not `*`, which would mean all of them, and in one line.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "*" && !name.chars().any(char::is_control)
}

/// An option for each name.
fn with_options(option: &str, names: &[String]) -> String {
    let options = names
        .iter()
        .map(|name| format!(" {option} {}", quoted(name)));
    options.collect()
}

/// An argument for a POSIX shell, in quotes if it needs them.
fn quoted(argument: &str) -> String {
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/' | '=' | '@');
    match argument.chars().all(is_plain) {
        true => argument.to_owned(),
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses of brokers, whether the login is a token, and its name in Kafka.
    const CLUSTERS: [(&str, bool, Option<&str>); 11] = [
        ("kafka.kafka.svc:9092,b:9092", false, Some("lagwise")),
        ("10.0.0.1:9092", false, None),
        (
            "b-1.main.x.c2.kafka.eu-central-1.amazonaws.com:9096,b-2.main.x.c2.kafka.eu-central-1.amazonaws.com:9096",
            false,
            Some("lagwise"),
        ),
        (
            "b-1.main.x.c2.kafka.eu-central-1.amazonaws.com:9098",
            true,
            None,
        ),
        (
            "boot-x.c1.kafka-serverless.cn-north-1.amazonaws.com.cn:9098",
            true,
            None,
        ),
        (
            "pkc-1.eu-central-1.aws.confluent.cloud:9092",
            false,
            Some("APIKEY"),
        ),
        (
            "shop.servicebus.windows.net:9093",
            false,
            Some("$ConnectionString"),
        ),
        (
            "shop.servicebus.windows.net:9093",
            true,
            Some("5f0c6a-lagwise"),
        ),
        (
            "bootstrap.main.europe-west3.managedkafka.shop.cloud.goog:9092",
            true,
            Some("lagwise@shop.iam.gserviceaccount.com"),
        ),
        (
            "main-kafka-bootstrap.kafka.svc:9093",
            false,
            Some("CN=lagwise"),
        ),
        ("main-kafka-bootstrap.kafka.svc:9093", false, None),
    ];

    #[test]
    fn remedies_follow_the_service_and_the_right() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut text = String::new();
        for (bootstrap, has_token, principal) in CLUSTERS {
            let access = KafkaAccess::new(bootstrap, has_token, principal);
            text += &format!("{bootstrap}: {:?}\n", access.service);
            for (right, names) in [
                (
                    KafkaRight::DescribeGroup,
                    names(&["billing", "team orders'"]),
                ),
                (KafkaRight::DescribeTopic, names(&["orders"])),
                (KafkaRight::DescribeTopic, Vec::new()),
                (KafkaRight::DescribeCluster, Vec::new()),
            ] {
                text += &format!("  {right:?}: {}\n", access.grant(right, &names));
            }
            let grown = access.grow_command("orders", 18);
            text += &format!("  grow: {}\n", grown.as_deref().unwrap_or("-"));
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn only_hosts_of_a_service_are_taken_for_it() {
        for (bootstrap, has_token) in [
            ("evil-servicebus.windows.net.example:9092", false),
            ("confluent.cloud.example:9092", true),
            ("ec2-3-1-1-1.eu-central-1.compute.amazonaws.com:9092", true),
            ("kafka.shop.cloud.goog:9092", true),
            ("main-kafka-brokers.kafka.svc:9092", false),
            ("", false),
        ] {
            let service = KafkaAccess::new(bootstrap, has_token, None).service;
            assert_eq!(service, KafkaService::Other, "{bootstrap}");
        }
        let mixed = KafkaAccess::new("b:1, SHOP.ServiceBus.Windows.net:9093", false, None).service;
        assert_eq!(mixed, KafkaService::EventHubs);
    }

    #[test]
    fn a_remedy_names_a_few_and_counts_the_others() {
        let access = KafkaAccess::new("kafka:9092", false, Some("lagwise"));
        let names: Vec<_> = (0..9).map(|number| format!("g{number}")).collect();
        let remedy = access.grant(KafkaRight::DescribeGroup, &names);
        assert!(
            remedy.ends_with("--group g3 Do the same for the 5 others, which -o json lists."),
            "{remedy}"
        );
    }

    #[test]
    fn the_place_of_a_service_is_that_of_the_host_it_was_found_by() {
        for (bootstrap, part) in [
            (
                "b:1, SHOP.ServiceBus.Windows.net:9093",
                "--namespace-name shop ",
            ),
            (
                "SASL_SSL://shop.servicebus.windows.net:9093",
                "--namespace-name shop ",
            ),
        ] {
            let access = KafkaAccess::new(bootstrap, false, None);
            let command = access.grow_command("orders", 12).unwrap();
            assert!(command.contains(part), "{bootstrap}: {command}");
        }
        for (host, partition) in [
            (
                "b-1.c.kafka.eu-central-1.amazonaws.com",
                "arn:aws:kafka:eu-central-1:",
            ),
            (
                "b-1.c.kafka.us-gov-west-1.amazonaws.com",
                "arn:aws-us-gov:kafka:us-gov-west-1:",
            ),
            (
                "b-1.c.kafka.cn-north-1.amazonaws.com.cn",
                "arn:aws-cn:kafka:cn-north-1:",
            ),
        ] {
            let access = KafkaAccess::new(&format!("{host}:9098"), true, None);
            let remedy = access.grant(KafkaRight::DescribeTopic, &["orders".to_owned()]);
            assert!(remedy.contains(partition), "{remedy}");
        }
        let plain = KafkaAccess::new("SSL://kafka:9093", false, None);
        let remedy = plain.grant(KafkaRight::DescribeCluster, &[]);
        assert!(
            remedy.contains("--bootstrap-server kafka:9093 "),
            "{remedy}"
        );
    }

    #[test]
    fn commands_are_never_cut_and_name_only_what_a_line_can_have() {
        let access = KafkaAccess::new("a.b.c.managedkafka.p.cloud.goog:9092", true, None);
        let long: Vec<_> = (0..9).map(|n| format!("{n}{}", "n".repeat(240))).collect();
        let remedy = access.grant(KafkaRight::DescribeGroup, &long);
        assert!(remedy.chars().count() <= MAX_MESSAGE_CHARS, "{remedy}");
        assert!(
            !remedy.contains("more characters") && remedy.contains(&long[0]),
            "{remedy}"
        );
        assert!(remedy.ends_with("others, which -o json lists."), "{remedy}");
        for odd in ["", "*", "a\nb", "a\tb"] {
            let names = ["orders".to_owned(), odd.to_owned()];
            let remedy = access.grant(KafkaRight::DescribeGroup, &names);
            assert!(remedy.contains("consumerGroup/GROUP "), "{odd:?}: {remedy}");
        }
    }
}
