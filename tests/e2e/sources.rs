//! Runs the same sweep plan with every client of one Kafka cluster, and formats the observations as text for
//! comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lagwise::kafka::{ClientKind, ClientSettings, GroupList, KafkaSource};
use lagwise::model::kafka::fault::Fault;
use lagwise::model::kafka::group::{GroupKind, Member};
use lagwise::model::kafka::observation::{GroupObservation, Observation, TopicOffsets};
use lagwise::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use lagwise::model::lag::assembly::{ClusterHistory, Scope};
use lagwise::model::lag::cluster_snapshot::ClusterSnapshot;
use lagwise::model::units::newtypes::{Isolation, Offset, TopicName};
use lagwise::poller::OffsetSource;

use crate::conformance::capabilities::{describe_blind_spots, visible_to};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;

/// The clients that every case runs with.
const CLIENTS: &[ClientKind] = &[ClientKind::Librdkafka, ClientKind::Wire];

/// How long one sweep may take, as in lagwise's own defaults.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// How long after its deadline a sweep may end, on two busy cores.
const GRACE: Duration = Duration::from_secs(2);

/// One client, with the history and the last snapshot that result from its sweeps.
pub(crate) struct Subject {
    pub(crate) client: ClientKind,
    pub(crate) source: KafkaSource,
    history: ClusterHistory,
    /// The snapshot after the last sweep.
    pub(crate) known: Arc<ClusterSnapshot>,
}

/// A source of each client.
pub(crate) struct Sources {
    runtime: tokio::runtime::Runtime,
    /// Time that is added to the clock of each observation.
    clock_offset: Duration,
    pub(crate) each: Vec<Subject>,
}

impl Sources {
    /// Every client, with the cluster's plain listeners.
    pub(crate) fn new(kafka: &KafkaCluster) -> Result<Self> {
        Self::connect(&[("bootstrap.servers", &kafka.bootstrap())])
    }

    /// Every client, with these properties.
    pub(crate) fn connect(properties: &[(&str, &str)]) -> Result<Self> {
        Self::with(&clients()?, properties)
    }

    /// These clients.
    pub(crate) fn with(clients: &[ClientKind], properties: &[(&str, &str)]) -> Result<Self> {
        let properties: BTreeMap<String, String> = properties
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let settings = ClientSettings {
            name: "main".into(),
            properties,
            max_groups: 100,
            token: None,
            renew: None,
            allowed_hosts: Vec::new(),
            client: ClientKind::Auto,
        };
        Self::with_settings(clients, &settings)
    }

    /// These clients, instead of the one in the settings.
    pub(crate) fn with_settings(clients: &[ClientKind], settings: &ClientSettings) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let connect = |client| {
            let _inside = runtime.enter();
            Ok(Subject {
                client,
                source: KafkaSource::connect(ClientSettings {
                    client,
                    ..settings.clone()
                })?,
                history: ClusterHistory::default(),
                known: Arc::default(),
            })
        };
        let each = clients.iter().copied().map(connect);
        let each = each.collect::<Result<_>>()?;
        Ok(Self {
            runtime,
            clock_offset: Duration::ZERO,
            each,
        })
    }

    /// Sweeps with every client, one after the other. A sweep that ends too late is an error.
    pub(crate) fn sweep(&mut self, plan: &SweepPlan) -> Result<Vec<(ClientKind, Observation)>> {
        (0..self.each.len())
            .map(|place| {
                let observation = self.sweep_with(place, plan)?.1;
                Ok((self.each[place].client, observation))
            })
            .collect()
    }

    /// Sweeps with one client. Returns the snapshot afterwards and the observation.
    pub(crate) fn sweep_with(
        &mut self,
        place: usize,
        plan: &SweepPlan,
    ) -> Result<(Arc<ClusterSnapshot>, Observation)> {
        let subject = &mut self.each[place];
        let started = Instant::now();
        let sweep = subject.source.observe(plan.clone(), started + DEADLINE);
        let observation = self
            .runtime
            .block_on(async { tokio::time::timeout(DEADLINE * 3, sweep).await })
            .with_context(|| format!("{:?}: a sweep that does not end", subject.client))?;
        let took = started.elapsed();
        ensure!(
            took <= DEADLINE + GRACE,
            "{:?}: a sweep took {took:?}",
            subject.client
        );
        let planned = observation.groups.iter().map(|group| &group.plan);
        ensure!(
            planned.eq(&plan.groups),
            "{:?}: groups that the plan does not have: {observation:?}",
            subject.client
        );
        let mut later = observation.clone();
        for moment in [&mut later.started, &mut later.finished] {
            moment.monotonic += self.clock_offset;
            moment.wall += self.clock_offset;
        }
        subject.known = subject.history.apply(later, Scope::Whole);
        Ok((Arc::clone(&subject.known), observation))
    }

    /// Moves the clock of later observations forward, so that the history sees time pass.
    pub(crate) fn advance_clock(&mut self, time: Duration) {
        self.clock_offset += time;
    }

    /// Sweeps once. Every client has to see exactly `expected` (see [`seen`]), except for facts that it cannot see.
    pub(crate) fn expect(&mut self, plan: &SweepPlan, expected: &str) -> Result<()> {
        for (client, observation) in self.sweep(plan)? {
            let seen = seen(&observation);
            let expected = sorted(&visible_to(client, expected));
            ensure!(
                seen == expected,
                "{client:?} sees\n{seen}\ninstead of\n{expected}{}",
                describe_blind_spots(client)
            );
        }
        Ok(())
    }

    /// Sweeps until every client sees exactly this in the same round.
    pub(crate) fn wait_for(
        &mut self,
        timeout: Duration,
        what: &str,
        plan: &SweepPlan,
        expected: &str,
    ) -> Result<()> {
        poll_until(timeout, what, || self.expect(plan, expected))
    }

    /// The groups that each client finds.
    pub(crate) fn list_groups(&self) -> Vec<(ClientKind, GroupList)> {
        let list = |subject: &Subject| {
            let listed = subject.source.list_groups(Instant::now() + DEADLINE);
            (subject.client, self.runtime.block_on(listed))
        };
        self.each.iter().map(list).collect()
    }
}

/// The clients to run with: all, or the one that `LAGWISE_CLIENT` names.
pub(crate) fn clients() -> Result<Vec<ClientKind>> {
    let Ok(wanted) = std::env::var("LAGWISE_CLIENT") else {
        return Ok(CLIENTS.to_vec());
    };
    let named = |client: &&ClientKind| format!("{client:?}").eq_ignore_ascii_case(&wanted);
    let client = CLIENTS.iter().find(named);
    Ok(vec![*client.with_context(|| {
        format!("LAGWISE_CLIENT={wanted}: there are {CLIENTS:?}")
    })?])
}

/// One group with these topics; without any, it discovers them.
pub(crate) fn plan(group: &str, topics: &[&str]) -> SweepPlan {
    plan_of(&[(group, topics)])
}

/// These groups, each with its topics; a group without any discovers them.
pub(crate) fn plan_of(groups: &[(&str, &[&str])]) -> SweepPlan {
    let group = |&(group, topics): &(&str, &[&str])| {
        GroupPlan::new(group, topics.iter().map(|topic| (*topic).into()).collect())
    };
    SweepPlan {
        groups: groups.iter().map(group).collect(),
        ..SweepPlan::default()
    }
}

/// As [`plan`], for consumers that read committed records only.
pub(crate) fn read_committed(mut plan: SweepPlan) -> SweepPlan {
    for group in &mut plan.groups {
        group.isolation = Isolation::ReadCommitted;
    }
    plan
}

/// The observation as text, one line for each fact, sorted:
///
/// ```text
/// GROUP TOPIC: 2 7 -             committed offsets by partition, - for none
/// GROUP: group_denied            nothing is known of the group, or "no topics"
/// TOPIC: 0..5 0..7 0..!no_answer where each partition's log starts and ends
/// TOPIC: topic_missing           nothing is known of the topic
/// TOPIC stable: 4 7 1            last stable offsets, where they were asked for
/// connection: login              what keeps the cluster from answering
/// GROUP is stable classic by range, members with 1 2
/// GROUP member CLIENT INSTANCE reads TOPIC
/// GROUP has TOPIC: 0 1 2         partitions of all its members
/// GROUP runs ID of TOPIC:3       a streams group's sub-topology
/// ```
///
/// There is no line for the kind of a group without members that is classic or does not exist.
///
/// An unknown is its fault's label after an exclamation mark.
pub(crate) fn seen(observation: &Observation) -> String {
    let mut lines = lines(observation, &|fault| format!("!{}", fault.label()));
    for group in &observation.groups {
        lines.extend(described(group));
    }
    joined(lines)
}

/// Like [`seen`], with one sign for all faults of connections.
pub(crate) fn seen_in_outage(observation: &Observation) -> String {
    joined(lines(observation, &|fault| {
        if fault.is_connection() {
            "?".to_owned()
        } else {
            format!("!{}", fault.label())
        }
    }))
}

/// Lines about the description of a group.
fn described(group: &GroupObservation) -> Vec<String> {
    // Raw: shown to people, it would be cut.
    let id = group.plan.group.as_str();
    let description = match &group.description {
        Ok(description) => description,
        // Its commits have said so already.
        Err(fault) if group.committed.as_ref().err() == Some(fault) => return Vec::new(),
        Err(fault) if fault.is_connection() || *fault == Fault::Unsupported => return Vec::new(),
        Err(fault) => return vec![format!("{id} is !{}", fault.label())],
    };
    if description.kind == GroupKind::Classic && description.members.is_empty() {
        return Vec::new();
    }
    let assignor = description.assignor.as_deref().unwrap_or("none");
    let mut sizes: Vec<_> = description.members.iter().map(Member::partitions).collect();
    sizes.sort_unstable();
    let mut lines = vec![format!(
        "{id} is {} by {assignor}, members with{}",
        format!("{:?} {:?}", description.state, description.kind).to_lowercase(),
        sizes
            .iter()
            .fold(String::new(), |all, size| format!("{all} {size}"))
    )];
    let mut owned: BTreeMap<&TopicName, BTreeSet<i32>> = BTreeMap::new();
    for member in &description.members {
        let mut line = format!("{id} member {}", member.client);
        if let Some(instance) = &member.instance {
            line += &format!(" {instance}");
        }
        for topic in member.subscribed.iter().flatten() {
            line += &format!(" reads {topic}");
        }
        lines.push(line);
        for (topic, partitions) in &member.assigned {
            owned.entry(topic).or_default().extend(partitions);
        }
    }
    for (topic, partitions) in owned {
        let all = partitions.iter().map(ToString::to_string);
        lines.push(format!(
            "{id} has {topic}: {}",
            all.collect::<Vec<_>>().join(" ")
        ));
    }
    for part in &description.subtopologies {
        let sources = part
            .sources
            .iter()
            .map(|(topic, partitions)| match partitions {
                Some(partitions) => format!("{topic}:{partitions}"),
                None => format!("{topic}:?"),
            });
        lines.push(format!(
            "{id} runs {} of {}",
            part.id,
            sources.collect::<Vec<_>>().join(" ")
        ));
    }
    lines
}

fn joined(lines: BTreeSet<String>) -> String {
    lines.into_iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    })
}

fn lines(observation: &Observation, fault: &dyn Fn(Fault) -> String) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let number = |offset: &Result<Offset, Fault>| match offset {
        Ok(offset) => offset.to_string(),
        Err(unknown) => fault(*unknown),
    };
    let of_topic = |offsets: &TopicOffsets| {
        let both = offsets.starts.iter().zip(&offsets.ends);
        let both = both.map(|(start, end)| format!("{}..{}", number(start), number(end)));
        both.collect::<Vec<_>>().join(" ")
    };
    for (topic, offsets) in &observation.topics {
        if let Some(stable) = offsets.as_ref().ok().and_then(|o| o.stable.as_ref()) {
            let stable: Vec<_> = stable.iter().map(number).collect();
            lines.insert(format!("{topic} stable: {}", stable.join(" ")));
        }
        lines.insert(match offsets {
            Ok(offsets) => format!("{topic}: {}", of_topic(offsets)),
            Err(unknown) => format!("{topic}: {}", unknown.label()),
        });
    }
    for group in &observation.groups {
        let id = group.plan.group.as_str();
        let topics = match &group.committed {
            Ok(topics) if topics.is_empty() => {
                lines.insert(format!("{id}: no topics"));
                continue;
            }
            Ok(topics) => topics,
            Err(unknown) => {
                lines.insert(format!("{id}: {}", fault(*unknown)));
                continue;
            }
        };
        for (topic, column) in topics {
            // Of a topic without partitions there is nothing to say but why.
            if matches!(observation.topics.get(topic), Some(Err(_))) {
                continue;
            }
            let column = column.iter().map(|committed| match committed {
                Ok(Some(offset)) => offset.to_string(),
                Ok(None) => "-".to_owned(),
                Err(unknown) => fault(unknown),
            });
            let column = column.collect::<Vec<_>>().join(" ");
            lines.insert(format!("{id} {topic}: {column}"));
        }
    }
    if let Some(connection) = &observation.connection {
        lines.insert(format!("connection: {}", connection.kind.label()));
    }
    lines
}

/// Lines in the order of [`seen`].
fn sorted(expected: &str) -> String {
    let mut lines: Vec<_> = expected.lines().map(str::trim).collect();
    lines.retain(|line| !line.is_empty());
    lines.sort_unstable();
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}
