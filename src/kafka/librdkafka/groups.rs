//! Committed offsets: one client for each group, made when first needed and kept while it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;

use super::client::{self, LibrdkafkaClient, code_of};
use super::faults::fault_of;
use super::ffi;
use super::topics::TopicReader;
use crate::kafka::ClientSettings;
use crate::kafka::health::Health;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::{CommittedColumn, GroupObservation};
use crate::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use crate::model::units::newtypes::{GroupId, Offset, Partition, TopicName};

/// How long a group's client is kept after the last sweep that asked for the group.
const KEPT: Duration = Duration::from_secs(120);

/// How long a group's client may get no answer while the cluster's does: it never learns of another
/// address of a coordinator that stays the same broker, and a new client does.
const STUCK: Duration = Duration::from_secs(15);

/// How long the topics found to have commits are taken for all of them.
const DISCOVERY_LASTS: Duration = Duration::from_secs(30);

/// How long a group that a broker has refused is waited for, to learn whether it is refused still.
const ASKED_AGAIN: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct GroupClients(Mutex<HashMap<GroupId, GroupClient>>);

struct GroupClient {
    client: Arc<LibrdkafkaClient>,
    used: Instant,
    /// Topics found to have commits, and when.
    discovered: Option<(Instant, BTreeSet<TopicName>)>,
    /// Why a broker does not let the group be read.
    refused: Option<Fault>,
    /// Since when there is no answer.
    silent: Option<Instant>,
}

impl GroupClients {
    fn all(&self) -> MutexGuard<'_, HashMap<GroupId, GroupClient>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn serve_callbacks(&self) {
        let clients: Vec<_> = self
            .all()
            .iter()
            .map(|(id, group)| (id.clone(), Arc::clone(&group.client)))
            .collect();
        for (id, client) in clients {
            // The one place where a client says that its group is denied: the call that asks for
            // commits waits for a coordinator until its time is over. Said once for each cause.
            if let Some(Err(error)) = client.poll(Duration::ZERO)
                && let refused @ Fault::GroupDenied = fault_of(code_of(&error))
            {
                self.note(&id, Some(refused));
            }
        }
    }

    /// Remembers whether the group is refused.
    fn note(&self, group: &GroupId, refused: Option<Fault>) {
        if let Some(group) = self.all().get_mut(group) {
            group.refused = refused;
        }
    }

    fn refused(&self, group: &GroupId) -> Option<Fault> {
        self.all().get(group)?.refused
    }

    /// Reads every group of the plan, all at once, each in a thread, by the deadline.
    pub(super) fn committed(
        &self,
        plan: SweepPlan,
        known: &TopicReader,
        settings: &ClientSettings,
        health: &Arc<Health>,
        deadline: Instant,
    ) -> Vec<GroupObservation> {
        self.let_go();
        let clients: Vec<_> = plan
            .groups
            .iter()
            .map(|group| self.client(&group.group, settings, health))
            .collect();
        thread::scope(|scope| {
            let threads: Vec<_> = plan
                .groups
                .into_iter()
                .zip(clients)
                .map(|(plan, client)| {
                    scope.spawn(move || {
                        let committed =
                            client.and_then(|client| self.read(&plan, &client, known, deadline));
                        GroupObservation {
                            plan,
                            committed,
                            // Its call that describes groups may crash, and its list of groups,
                            // which names members too, asks every broker for every group.
                            description: Err(Fault::Untold),
                        }
                    })
                })
                .collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            joined
                .map(|read| read.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }

    fn client(
        &self,
        group: &GroupId,
        settings: &ClientSettings,
        health: &Arc<Health>,
    ) -> Result<Arc<LibrdkafkaClient>, Fault> {
        let mut all = self.all();
        if let Some(found) = all.get_mut(group) {
            found.used = Instant::now();
            return Ok(Arc::clone(&found.client));
        }
        if all.len() >= settings.max_groups {
            return Err(Fault::TooManyGroups);
        }
        let made = client::client(settings, health, Some(group.as_str())).map_err(|error| {
            tracing::warn!(%group, "{error}");
            Fault::Client
        })?;
        let client = Arc::new(made);
        let kept = GroupClient {
            client: Arc::clone(&client),
            used: Instant::now(),
            discovered: None,
            refused: None,
            silent: None,
        };
        all.insert(group.clone(), kept);
        Ok(client)
    }

    /// Lets go of clients that nobody asked for lately, and of those that get no answer any more.
    fn let_go(&self) {
        let is_over = |_: &GroupId, group: &mut GroupClient| {
            let is_stuck = group.silent.is_some_and(|since| since.elapsed() > STUCK);
            group.used.elapsed() > KEPT || is_stuck
        };
        let idle: Vec<_> = self.all().extract_if(is_over).collect();
        if !idle.is_empty() {
            // Closing a client may wait for brokers, and nobody has to wait for that.
            thread::spawn(move || drop(idle));
        }
    }

    fn read(
        &self,
        plan: &GroupPlan,
        client: &LibrdkafkaClient,
        known: &TopicReader,
        deadline: Instant,
    ) -> Result<BTreeMap<TopicName, CommittedColumn>, Fault> {
        let discovered = if plan.discover {
            self.discovered(&plan.group)
        } else {
            Some(BTreeSet::new())
        };
        let is_discovery = discovered.is_none();
        let mut asked: BTreeSet<TopicName> =
            discovered.unwrap_or_else(|| known.names().cloned().collect());
        asked.extend(plan.topics.iter().cloned());
        let mut columns: BTreeMap<TopicName, CommittedColumn> = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for topic in asked {
            let partitions = known.leaders(topic.as_str()).map_or(0, Vec::len);
            for partition in (0..).take(partitions) {
                list.add_partition(topic.as_str(), partition);
            }
            columns.insert(topic, vec![Err(Fault::NoAnswer); partitions]);
        }
        if list.count() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.ask(&plan.group, client, list, left)?;
            for entry in ffi::entries(&answer) {
                if let Some(slot) = slot(&mut columns, entry.topic, entry.partition) {
                    *slot = committed(entry);
                }
            }
        }
        if is_discovery {
            let has_commits =
                |column: &CommittedColumn| column.iter().any(|c| !matches!(c, Ok(None)));
            columns.retain(|topic, column| plan.topics.contains(topic) || has_commits(column));
        }
        if is_discovery && let Some(group) = self.all().get_mut(&plan.group) {
            group.discovered = Some((Instant::now(), columns.keys().cloned().collect()));
        }
        Ok(columns)
    }

    fn ask(
        &self,
        group: &GroupId,
        client: &LibrdkafkaClient,
        list: TopicPartitionList,
        left: Duration,
    ) -> Result<TopicPartitionList, Fault> {
        // The client itself goes on asking for the coordinator, and finds it once it may.
        let left = match self.refused(group) {
            Some(_) => left.min(ASKED_AGAIN),
            None => left,
        };
        let answer = client.committed_offsets(list, left);
        if let Some(group) = self.all().get_mut(group) {
            group.silent = match &answer {
                Err(error) if fault_of(code_of(error)).is_connection() => {
                    group.silent.or_else(|| Some(Instant::now()))
                }
                _ => None,
            };
        }
        match answer {
            Ok(answer) => {
                self.note(group, None);
                Ok(answer)
            }
            Err(error) => Err(match fault_of(code_of(&error)) {
                Fault::NoAnswer => self.refused(group).unwrap_or(Fault::NoAnswer),
                fault => fault,
            }),
        }
    }

    fn discovered(&self, group: &GroupId) -> Option<BTreeSet<TopicName>> {
        match &self.all().get(group)?.discovered {
            Some((when, topics)) if when.elapsed() < DISCOVERY_LASTS => Some(topics.clone()),
            _ => None,
        }
    }
}

fn slot<'a>(
    columns: &'a mut BTreeMap<TopicName, CommittedColumn>,
    topic: &str,
    partition: Partition,
) -> Option<&'a mut Result<Option<Offset>, Fault>> {
    columns
        .get_mut(topic)?
        .get_mut(usize::try_from(partition).ok()?)
}

fn committed(entry: ffi::OffsetEntry<'_>) -> Result<Option<Offset>, Fault> {
    match entry {
        ffi::OffsetEntry {
            code: 0, offset, ..
        } if offset >= 0 => Ok(Some(Offset(offset))),
        // librdkafka's "invalid" (-1001) is the protocol's -1: no commit.
        ffi::OffsetEntry { code: 0, .. } => Ok(None),
        ffi::OffsetEntry { code, .. } => Err(fault_of(code)),
    }
}
