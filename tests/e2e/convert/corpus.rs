//! Every HPA of the corpus on the real control plane, with groups of a real broker that lag behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::daemon::{Daemon, Options, cluster};
use crate::testbed::Testbed;
use crate::testbed::kafka::{KafkaCluster, KafkaOptions};
use crate::testbed::poll::poll_until;

const PARTITIONS: i32 = 32;

/// Partitions with records, of which a `partitionLimitation` of the corpus has four too.
const FILLED: [i32; 6] = [0, 1, 2, 3, 10, 11];

/// Records in each of them.
const RECORDS: i64 = 600;

/// The topic of triggers that name none.
const OTHER_TOPIC: &str = "any";

/// Objects of the corpus without an HPA that can scale: one that KEDA refuses, one without a Kafka trigger, a
/// ScaledJob, and one whose group only its environment names.
const LEFT_OUT: usize = 4;

/// One Kafka trigger, as its author wrote it.
#[derive(Debug)]
struct WrittenTrigger {
    group: String,
    /// Empty: all topics of the group.
    topics: Vec<String>,
    threshold: u64,
    /// `partitionLimitation`.
    limitation: Option<BTreeSet<i32>>,
    /// `limitToPartitionsWithLag`.
    is_limited: bool,
}

impl WrittenTrigger {
    fn read(trigger: &Value) -> Option<Self> {
        let kind = trigger["type"].as_str()?;
        let text = |key: &str| match &trigger["metadata"][key] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        if !matches!(kind, "kafka" | "apache-kafka") {
            return None;
        }
        let topics = text("topic").unwrap_or_default();
        let topics = match kind {
            "kafka" => vec![topics],
            _ => topics.split(',').map(|t| t.trim().to_owned()).collect(),
        };
        let threshold = text("lagThreshold").map_or(Some(10), |text| text.parse().ok());
        Some(Self {
            group: text("consumerGroup")?,
            topics: topics.into_iter().filter(|t| !t.is_empty()).collect(),
            threshold: threshold.filter(|threshold| *threshold > 0)?,
            limitation: text("partitionLimitation").as_deref().map(partitions),
            is_limited: text("limitToPartitionsWithLag").as_deref() == Some("true"),
        })
    }

    fn has_topic(&self, topic: &str) -> bool {
        self.topics.is_empty() || self.topics.iter().any(|own| own == topic)
    }

    /// Replicas for this lag of partitions of one of its topics.
    fn replicas(&self, lags: &[(i32, i64)]) -> u64 {
        let is_counted = |partition: i32| {
            let limitation = self.limitation.as_ref();
            limitation.is_none_or(|limitation| limitation.contains(&partition))
        };
        let counted = lags.iter().filter(|(partition, _)| is_counted(*partition));
        let counted: Vec<_> = counted.map(|(_, lag)| lag.unsigned_abs()).collect();
        let most = match &self.limitation {
            _ if self.is_limited => counted.len(),
            Some(limitation) => limitation.len(),
            None => usize::try_from(PARTITIONS).unwrap(),
        };
        let wanted = counted.iter().sum::<u64>().div_ceil(self.threshold);
        wanted.min(u64::try_from(most).unwrap())
    }
}

/// The partitions of a `partitionLimitation` that exist.
fn partitions(text: &str) -> BTreeSet<i32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<i32>().unwrap()..=last.parse().unwrap()
    };
    let all = text.split(',').flat_map(range);
    all.filter(|partition| *partition < PARTITIONS).collect()
}

/// The Kafka triggers of each ScaledObject of a file.
fn triggers_of(file: &Path) -> Result<BTreeMap<String, Vec<WrittenTrigger>>> {
    let text = std::fs::read_to_string(file)?;
    let mut found = BTreeMap::new();
    for document in text.split("\n---\n") {
        let document: Value = serde_saphyr::from_str(document)?;
        let listed = document["items"].as_array();
        for object in listed.unwrap_or(&vec![document.clone()]) {
            let triggers = object["spec"]["triggers"].as_array().into_iter().flatten();
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let triggers = triggers.filter_map(WrittenTrigger::read).collect();
            if object["kind"] == "ScaledObject" {
                found.insert(name.to_owned(), triggers);
            }
        }
    }
    Ok(found)
}

/// Makes the group of the first trigger lag by twice its threshold and one message, and reads all else to the end.
/// Returns the replicas that this is worth.
fn lag_behind(kafka: &KafkaCluster, triggers: &[WrittenTrigger]) -> Result<u64> {
    let first = triggers.first().context("no Kafka trigger")?;
    let lagging = first.topics.first().map_or(OTHER_TOPIC, String::as_str);
    let filled = FILLED.into_iter().filter(|partition| {
        let limitation = first.limitation.as_ref();
        limitation.is_none_or(|limitation| limitation.contains(partition))
    });
    let filled: Vec<_> = filled.take(4).collect();
    let messages = i64::try_from(2 * first.threshold + 1)?;
    let share = |place: usize| {
        let (place, count) = (i64::try_from(place)?, i64::try_from(filled.len())?);
        anyhow::Ok(messages / count + i64::from(place < messages % count))
    };
    let lags = filled.iter().enumerate();
    let lags = lags.map(|(place, partition)| Ok((*partition, share(place)?)));
    let lags = lags.collect::<Result<Vec<_>>>()?;
    ensure!(lags.iter().all(|(_, lag)| *lag <= RECORDS), "{lags:?}");
    let ends = (0..PARTITIONS).map(|partition| {
        let end = if FILLED.contains(&partition) {
            RECORDS
        } else {
            0
        };
        (partition, end)
    });
    let ends: BTreeMap<_, _> = ends.collect();
    let mut committed = BTreeSet::new();
    for trigger in triggers {
        let none = [OTHER_TOPIC.to_owned()];
        let topics = if trigger.topics.is_empty() {
            &none[..]
        } else {
            &trigger.topics
        };
        for topic in topics {
            let mut offsets = ends.clone();
            if trigger.group == first.group && topic == lagging {
                for (partition, lag) in &lags {
                    offsets.entry(*partition).and_modify(|end| *end -= lag);
                }
            }
            if committed.insert((&trigger.group, topic.clone())) {
                let offsets: Vec<_> = offsets.into_iter().collect();
                kafka.commit(&trigger.group, topic, &offsets)?;
            }
        }
    }
    let wanted = triggers
        .iter()
        .filter(|trigger| trigger.group == first.group && trigger.has_topic(lagging))
        .map(|trigger| trigger.replicas(&lags));
    wanted.max().context("no trigger")
}

/// Each HPA goes to the replicas that the lag of its group is worth, within its own limits.
pub(super) fn every_hpa_scales_on_real_lag(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let kafka = testbed.start_kafka("corpus", &KafkaOptions::default())?;
    let namespace = plane.namespace("corpus")?;
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert");
    let folder = corpus.to_str().context("a path in Unicode")?;
    let done = testbed
        .lagwise(&["convert", "-f", folder, "-o", "json"])
        .output()?;
    let converted: Value = serde_json::from_slice(&done.stdout)?;

    let (mut topics, mut read) = (BTreeSet::from([OTHER_TOPIC.to_owned()]), Vec::new());
    let objects = converted["objects"].as_array().context("no objects")?;
    for object in objects {
        let source = object["source"].as_str().context("no source")?;
        let file = Path::new(source).file_name().context("no file")?;
        let mut of_file = triggers_of(&corpus.join(file))?;
        let name = object["name"].as_str().context("no name")?;
        let triggers = of_file.remove(name).unwrap_or_default();
        if object["hpa"].is_null() || triggers.is_empty() {
            continue;
        }
        topics.extend(triggers.iter().flat_map(|t| t.topics.iter().cloned()));
        read.push((name, &object["hpa"], triggers));
    }
    ensure!(
        objects.len() - read.len() <= LEFT_OUT,
        "{} left",
        read.len()
    );
    let names: Vec<_> = topics.iter().map(String::as_str).collect();
    kafka.create_topics(&names, PARTITIONS)?;
    let records = usize::try_from(RECORDS)?;
    let counts = FILLED.map(|partition| (partition, records));
    for topic in &names {
        kafka.produce_to(topic, &counts)?;
    }

    let (mut list, mut expected) = (Vec::new(), BTreeMap::new());
    for (index, (name, hpa, triggers)) in read.iter().enumerate() {
        let wanted = lag_behind(&kafka, triggers).with_context(|| (*name).to_owned())?;
        // Files may use the same names.
        let name = format!("c{index}-{name}");
        let mut hpa = (*hpa).clone();
        hpa["metadata"]["namespace"] = json!(namespace);
        hpa["metadata"]["name"] = json!(name);
        for metric in hpa["spec"]["metrics"].as_array_mut().into_iter().flatten() {
            let labels = metric.pointer_mut("/external/metric/selector/matchLabels/hpa");
            if let Some(label) = labels {
                *label = json!(name);
            }
        }
        let target = &mut hpa["spec"]["scaleTargetRef"];
        target["name"] = json!(name);
        list.push(json!({
            "apiVersion": target["apiVersion"],
            "kind": target["kind"],
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "consumer", "image": "consumer"}]},
                },
            },
        }));
        let limit = |field: &str| hpa["spec"][field].as_u64().context("no limit");
        let (least, most) = (limit("minReplicas")?, limit("maxReplicas")?);
        let is_paused = hpa["spec"]["behavior"]["scaleUp"]["selectPolicy"] == "Disabled";
        let wanted = if is_paused { 1 } else { wanted };
        expected.insert(name, wanted.clamp(least, most));
        list.push(hpa);
    }
    ensure!(expected.len() >= 30, "only {} HPAs", expected.len());

    // One cluster for each login of the corpus, all of them the same broker.
    let clusters = converted["config"]["clusters"].as_array();
    let clusters = clusters.context("no clusters")?.iter();
    let servers = kafka.bootstrap();
    let options = Options {
        clusters: clusters
            .map(|found| {
                let name = found["name"].as_str().unwrap_or_default();
                cluster(name, &[("bootstrap.servers", &servers)])
            })
            .collect(),
        namespaces: vec![namespace.clone()],
        ..Options::main(&servers)
    };
    let (_daemon, _api) = Daemon::registered(testbed, plane, &namespace, &options)?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": list});
    plane.kubectl_with_input(&["apply", "--filename", "-"], &list.to_string())?;
    let path = format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers");
    poll_until(Duration::from_secs(120), "all HPAs to have scaled", || {
        let found = plane.get_raw(&path)?;
        let found = found["items"].as_array().context("no HPAs")?;
        let mut wrong = String::new();
        for hpa in found {
            let name = hpa["metadata"]["name"].as_str().unwrap_or_default();
            let (desired, wanted) = (&hpa["status"]["desiredReplicas"], expected.get(name));
            if desired.as_u64() != wanted.copied() {
                let why = &hpa["status"]["conditions"];
                wrong += &format!("{name}: {desired} instead of {wanted:?}: {why}\n");
            }
        }
        ensure!(wrong.is_empty() && found.len() == expected.len(), "{wrong}");
        Ok(())
    })?;
    println!(
        "{} converted HPAs scaled on real lag: {expected:?}",
        expected.len()
    );
    Ok(())
}
