//! A ScaledObject of a running cluster, converted to the HPA that lagwise would have in its place.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::hpa::ObjectReader;
use super::login::ClusterLogin;
use super::{ConvertOptions, ConvertedForm};
use crate::model::keda::authentications::{AuthenticationKey, LoginKind, ObservedLogin};
use crate::model::keda::manifests::KedaManifests;
use crate::model::keda::scaled_object::{ScaledObject, TargetRef, Trigger};
use crate::model::keda::trigger::{KafkaTrigger, TriggerKind};
use crate::model::units::names;
use crate::model::units::newtypes::ClusterName;

/// Maximum text of a ScaledObject, in bytes. A usual one has less than 1 KiB.
const MAX_TEXT_BYTES: usize = 8 * 1024;

/// Maximum number of triggers of a ScaledObject.
const MAX_TRIGGERS: usize = 16;

/// The kind that a ScaledJob starts. A ScaledObject cannot scale it.
const JOB: &str = "Job";

/// A Kafka cluster of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCluster {
    pub name: ClusterName,
    /// `HOST:PORT` of its bootstrap servers.
    pub servers: BTreeSet<String>,
    pub login: LoginKind,
}

impl KnownCluster {
    /// A cluster with these `bootstrap.servers`.
    #[must_use]
    pub fn new(name: ClusterName, servers: &str, login: LoginKind) -> Self {
        Self {
            name,
            servers: split_servers(servers),
            login,
        }
    }
}

fn split_servers(servers: &str) -> BTreeSet<String> {
    let servers = servers.split(',').map(str::trim);
    let servers = servers.filter(|server| !server.is_empty());
    servers.map(str::to_ascii_lowercase).collect()
}

/// A Kafka trigger, and where lagwise reads its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedTrigger {
    pub trigger: KafkaTrigger,
    pub cluster: ClusterName,
    pub login: ObservedLogin,
}

/// What KEDA and lagwise have for one workload.
#[derive(Clone, Debug)]
pub struct ObservedConversion {
    /// The HPA that lagwise would have. Its External metrics are those of the triggers, in order.
    pub lagwise_hpa: Value,
    /// The same with the limits and the behavior of KEDA's HPA.
    pub keda_hpa: Value,
    pub triggers: Vec<ObservedTrigger>,
    /// Assumptions and omissions, each as a sentence without a full stop.
    pub remarks: Vec<String>,
}

/// Converts a ScaledObject whose workload KEDA scales.
///
/// # Errors
/// Why KEDA and lagwise cannot be compared for it.
pub fn observe(
    object: &ScaledObject,
    clusters: &[KnownCluster],
) -> Result<ObservedConversion, String> {
    let spec = &object.spec;
    if object.is_annotated("paused") || object.annotation("paused-replicas").is_some() {
        return Err("it is paused, so that KEDA does not scale it".to_owned());
    }
    if spec.advanced.scaling_modifiers.is_some() {
        return Err("scalingModifiers: lagwise does not compute KEDA's formulas".to_owned());
    }
    let mut remarks = Vec::new();
    for (index, trigger) in spec.triggers.iter().enumerate() {
        let path = format!("triggers[{index}]");
        match TriggerKind::find(&trigger.trigger_type) {
            None => remarks.push(format!(
                "{path} of type {} is left out on both sides",
                trigger.trigger_type
            )),
            Some(_) if trigger.metric_type.as_deref() == Some("Value") => {
                let why = match object.is_job() {
                    true => "KEDA finds no threshold by which to start Jobs",
                    false => "the HPA would multiply by its ready pods, which lagwise does not do",
                };
                return Err(format!("{path}.metricType is Value: {why}"));
            }
            Some(_) => {}
        }
    }
    let options = ConvertOptions {
        namespace: String::new(),
        kubernetes: None,
        form: ConvertedForm::Hpa,
    };
    // Logins do not matter here: lagwise reads Kafka by its own configuration.
    let manifests = KedaManifests::default();
    let reader = ObjectReader::read(("", object), &manifests, &options);
    let mut triggers = Vec::new();
    for (trigger, login) in reader.triggers() {
        let cluster = find_cluster(login, clusters, &mut remarks)?;
        triggers.push(ObservedTrigger {
            trigger: trigger.clone(),
            cluster: cluster.name.clone(),
            login: ObservedLogin {
                keda: login.map(login_kind).unwrap_or_default(),
                lagwise: cluster.login.clone(),
                authentication: None,
            },
        });
    }
    remarks.sort_unstable();
    remarks.dedup();
    let label = |login: &ClusterLogin| {
        let cluster = find_cluster(Some(login), clusters, &mut Vec::new()).ok();
        cluster
            .filter(|_| clusters.len() > 1)
            .map(|cluster| cluster.name.as_str())
    };
    let (hpa, notes) = reader.finish(label);
    // The object is not compared if a Kafka trigger was not converted, because KEDA refuses it or its group is not in
    // the trigger: that trigger would be missing on one side.
    let is_kafka = |trigger: &&Trigger| TriggerKind::find(&trigger.trigger_type).is_some();
    let kafka_triggers = Vec::from_iter(spec.triggers.iter().filter(is_kafka));
    let is_whole = triggers.len() == kafka_triggers.len();
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    for (observed, written) in triggers.iter_mut().zip(kafka_triggers) {
        let reference = written.authentication_ref.as_ref();
        observed.login.authentication =
            reference.map(|reference| AuthenticationKey::new(reference, namespace));
    }
    let Some(lagwise_hpa) = hpa.filter(|_| is_whole) else {
        let why = notes.first().map(ToString::to_string);
        return Err(why.unwrap_or_else(|| "it has no Kafka trigger".to_owned()));
    };
    let mut keda_hpa = lagwise_hpa.clone();
    if let Some(body) = keda_hpa.get_mut("spec").and_then(Value::as_object_mut) {
        let min = spec.min_replica_count.unwrap_or(0).max(1);
        let max = spec
            .max_replica_count
            .unwrap_or(super::hpa::DEFAULT_MAX_REPLICAS);
        body.insert("minReplicas".to_owned(), json!(min));
        body.insert("maxReplicas".to_owned(), json!(max.max(min)));
        let config = &spec.advanced.horizontal_pod_autoscaler_config;
        match &config.behavior {
            Some(behavior) => body.insert("behavior".to_owned(), json!(behavior)),
            None => body.remove("behavior"),
        };
    }
    Ok(ObservedConversion {
        lagwise_hpa,
        keda_hpa,
        triggers,
        remarks,
    })
}

/// The configured cluster that a trigger reads.
fn find_cluster<'c>(
    login: Option<&ClusterLogin>,
    clusters: &'c [KnownCluster],
    remarks: &mut Vec<String>,
) -> Result<&'c KnownCluster, String> {
    let servers = login.map(|login| split_servers(&login.servers));
    let servers = servers.unwrap_or_default();
    let shares_server = |known: &&KnownCluster| !known.servers.is_disjoint(&servers);
    let matching = Vec::from_iter(clusters.iter().filter(shares_server));
    // Of several with such a server, prefer the one with the same kind of login.
    let kind = login.map(login_kind);
    let alike = matching
        .iter()
        .find(|known| Some(&known.login) == kind.as_ref());
    if let Some(found) = alike.or(matching.first()).copied() {
        return Ok(found);
    }
    let named = match login {
        Some(login) => format!("bootstrapServers {}", login.servers),
        None => "bootstrapServers from the environment of the workload".to_owned(),
    };
    match clusters {
        [only] => {
            remarks.push(format!(
                "{named}: not among the bootstrap.servers of Kafka cluster {}; assumed to be that cluster, because only one is configured",
                only.name
            ));
            Ok(only)
        }
        _ => Err(format!(
            "{named}: no configured Kafka cluster has one of these servers, so lagwise does not read the group; add one of them to bootstrap.servers of the right cluster"
        )),
    }
}

fn login_kind(login: &ClusterLogin) -> LoginKind {
    let property = |key: &str| login.properties.get(key).map(String::as_str);
    LoginKind::from_properties(property("security.protocol"), property("sasl.mechanism"))
}

/// Users who may write ScaledObjects decide how large they are.
fn check_size(object: &ScaledObject) -> Result<(), String> {
    let triggers = &object.spec.triggers;
    if triggers.len() > MAX_TRIGGERS {
        let count = triggers.len();
        return Err(format!(
            "it has {count} triggers, and lagwise compares at most {MAX_TRIGGERS}"
        ));
    }
    let target = &object.spec.scale_target_ref;
    let config = &object.spec.advanced.horizontal_pod_autoscaler_config;
    let behavior = config.behavior.as_ref();
    let behavior = behavior.map_or(0, |behavior| json!(behavior).to_string().len());
    let of_triggers = triggers.iter().flat_map(|trigger| {
        let metadata = trigger
            .metadata
            .iter()
            .flat_map(|(k, v)| [k.len(), v.len()]);
        let reference = trigger.authentication_ref.as_ref();
        let reference = reference.map_or(0, |reference| reference.name.len());
        metadata.chain([trigger.trigger_type.len(), reference])
    });
    let annotations = object.metadata.annotations.iter();
    let texts = of_triggers
        .chain(annotations.flat_map(|(key, value)| [key.len(), value.len()]))
        .chain(
            [&target.api_version, &target.kind, &config.name]
                .map(|t| t.as_ref().map_or(0, String::len)),
        )
        .chain([target.name.len(), behavior]);
    let bytes = texts.fold(0usize, usize::saturating_add);
    if bytes > MAX_TEXT_BYTES {
        return Err(format!(
            "it has {bytes} bytes of text, and lagwise compares at most {MAX_TEXT_BYTES}"
        ));
    }
    Ok(())
}

impl ScaledObject {
    /// Keeps only what a comparison needs, because other tools write long annotations.
    ///
    /// # Errors
    /// It is too large, or names an HPA that cannot exist.
    pub fn bounded(mut self) -> Result<Self, String> {
        let annotations = &mut self.metadata.annotations;
        annotations.retain(|key, _| key.starts_with("autoscaling.keda.sh/"));
        self.metadata.labels.clear();
        self.spec.unknown.clear();
        self.spec.advanced.unknown.clear();
        let config = &mut self.spec.advanced.horizontal_pod_autoscaler_config;
        config.unknown.clear();
        if let Some(name) = config.own_name() {
            // Another name could be that of the HPA of a ScaledJob.
            names::object(name)
                .map_err(|why| format!("horizontalPodAutoscalerConfig.name: {why}"))?;
        }
        for trigger in &mut self.spec.triggers {
            trigger.unknown.clear();
        }
        check_size(&self)?;
        Ok(self)
    }

    /// A ScaledJob that was read as a ScaledObject: its Jobs take the place of the workload.
    #[must_use]
    pub fn of_job(mut self) -> Self {
        self.spec.scale_target_ref = TargetRef {
            api_version: Some("batch/v1".to_owned()),
            kind: Some(JOB.to_owned()),
            name: self.metadata.name.clone(),
            ..TargetRef::default()
        };
        self
    }

    fn is_job(&self) -> bool {
        self.spec.scale_target_ref.kind.as_deref() == Some(JOB)
    }

    /// Whether one of its triggers is about Kafka.
    #[must_use]
    pub fn has_kafka_trigger(&self) -> bool {
        let mut triggers = self.spec.triggers.iter();
        triggers.any(|trigger| TriggerKind::find(&trigger.trigger_type).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(triggers: Value, more: Value) -> ScaledObject {
        let mut spec = json!({"scaleTargetRef": {"name": "billing"}, "triggers": triggers});
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        let object = json!({"metadata": {"name": "billing", "namespace": "shop"}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    fn kafka(servers: &str) -> Value {
        json!({"type": "kafka", "metadata": {
            "bootstrapServers": servers, "consumerGroup": "billing", "topic": "orders", "lagThreshold": "5",
        }})
    }

    fn clusters(all: &[(&str, &str)]) -> Vec<KnownCluster> {
        let known = all.iter().map(|(name, servers)| {
            KnownCluster::new((*name).into(), servers, LoginKind::default())
        });
        known.collect()
    }

    #[test]
    fn finds_the_cluster_by_any_of_its_servers() {
        let two = clusters(&[("eu", "a:9092,b:9092"), ("us", "c:9092")]);
        let found = |servers: &str| {
            let observed = observe(&object(json!([kafka(servers)]), json!({})), &two)?;
            let labels = "/spec/metrics/0/external/metric/selector/matchLabels/cluster";
            let label = observed.lagwise_hpa.pointer(labels).and_then(Value::as_str);
            let cluster = observed.triggers[0].cluster.to_string();
            assert_eq!(label, Some(&*cluster));
            Ok::<_, String>(cluster)
        };
        assert_eq!(found("B:9092, x:9092").unwrap(), "eu");
        assert_eq!(found("c:9092").unwrap(), "us");
        assert!(
            found("d:9092")
                .unwrap_err()
                .contains("bootstrapServers d:9092")
        );
        let one = clusters(&[("eu", "a:9092")]);
        let assumed = observe(&object(json!([kafka("d:9092")]), json!({})), &one).unwrap();
        assert_eq!(assumed.triggers[0].cluster.as_str(), "eu");
        assert!(assumed.remarks[0].contains("bootstrap.servers of Kafka cluster eu"));
    }

    #[test]
    fn of_clusters_with_the_same_servers_the_login_decides() {
        let cluster = |name: &str, protocol: &str, mechanism: Option<&str>| {
            let login = LoginKind::from_properties(Some(protocol), mechanism);
            KnownCluster::new(name.into(), "a:9093", login)
        };
        let two = [
            cluster("certificates", "SSL", None),
            cluster("passwords", "SASL_SSL", Some("SCRAM-SHA-512")),
        ];
        for (more, expected) in [
            (json!({"tls": "enable"}), "certificates"),
            (
                json!({"tls": "enable", "sasl": "scram_sha512"}),
                "passwords",
            ),
            (json!({}), "certificates"),
        ] {
            let mut trigger = kafka("a:9093");
            let metadata = trigger["metadata"].as_object_mut().unwrap();
            metadata.extend(more.as_object().unwrap().clone());
            trigger["authenticationRef"] = json!({"name": "kafka"});
            let observed = observe(&object(json!([trigger]), json!({})), &two).unwrap();
            let found = &observed.triggers[0];
            assert_eq!(found.cluster.as_str(), expected);
            let key = found.login.authentication.as_ref().unwrap();
            assert_eq!(key.namespace.as_deref(), Some("shop"));
        }
    }

    #[test]
    fn says_what_cannot_be_compared() {
        let one = clusters(&[("eu", "a:9092")]);
        let value = json!({"type": "kafka", "metricType": "Value", "metadata": {}});
        let formula = json!({"advanced": {"scalingModifiers": {"formula": "a + b"}}});
        let from_env = json!({"type": "kafka", "metadata": {"consumerGroupFromEnv": "GROUP"}});
        for (triggers, more, expected) in [
            (json!([kafka("a:9092"), from_env]), json!({}), "environment"),
            (json!([]), json!({}), "none of them can become a metric"),
            (
                json!([{"type": "cron"}]),
                json!({}),
                "none of them can become a metric",
            ),
            (json!([value]), json!({}), "metricType is Value"),
            (json!([kafka("a:9092")]), formula, "formulas"),
        ] {
            let why = observe(&object(triggers, more), &one).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        let mut paused = object(json!([kafka("a:9092")]), json!({}));
        let key = "autoscaling.keda.sh/paused".to_owned();
        paused.metadata.annotations.insert(key, "true".to_owned());
        assert!(observe(&paused, &one).unwrap_err().contains("paused"));
    }

    #[test]
    fn a_large_object_is_refused_and_long_annotations_are_left_out() {
        let long = json!({"type": "kafka", "metadata": {"topic": "t".repeat(9000)}});
        for (triggers, expected) in [
            (json!([long]), "bytes of text"),
            (json!(vec![kafka("a:9092"); 17]), "17 triggers"),
        ] {
            let why = object(triggers, json!({})).bounded().unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        let mut annotated = object(json!([kafka("a:9092")]), json!({}));
        let annotations = &mut annotated.metadata.annotations;
        annotations.insert("kubectl.kubernetes.io/last".to_owned(), "x".repeat(100_000));
        assert!(annotated.bounded().unwrap().metadata.annotations.is_empty());
    }

    #[test]
    fn both_hpas_differ_in_limits_and_tolerance_only() {
        let one = clusters(&[("eu", "a:9092")]);
        let more = json!({"minReplicaCount": 2, "maxReplicaCount": 9});
        let triggers = json!([{"type": "cron"}, kafka("a:9092")]);
        let observed = observe(&object(triggers, more), &one).unwrap();
        assert_eq!(
            observed.remarks,
            ["triggers[0] of type cron is left out on both sides"]
        );
        let (own, of_keda) = (&observed.lagwise_hpa["spec"], &observed.keda_hpa["spec"]);
        assert_eq!(own["behavior"]["scaleDown"]["tolerance"], "0");
        assert!(of_keda.get("behavior").is_none());
        for key in ["minReplicas", "maxReplicas", "metrics", "scaleTargetRef"] {
            assert_eq!(own[key], of_keda[key]);
        }
    }
}
