//! Reads committed offsets with one client per group, created on demand and kept while used.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;

use super::client::{self, OffsetConsumer, code_of};
use super::faults::fault_of;
use super::ffi;
use super::topics::TopicLeaders;
use crate::kafka::ClientSettings;
use crate::kafka::health::ConnectionHealth;
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::GroupObservation;
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::kafka::sweep_plan::{GroupPlan, PartitionAllowance, SweepPlan};
use crate::model::kafka::topic_map::TopicMap;
use crate::model::units::newtypes::{GroupId, Offset, TopicName};

/// How long a group's client is kept after its last use.
const MAX_UNUSED_AGE: Duration = Duration::from_secs(120);

/// How long a group's client may get no answer while the cluster's main client does. A client never
/// notices that its coordinator, while staying the same broker, moved to another address; a new
/// client does.
const STUCK_AFTER: Duration = Duration::from_secs(15);

/// How long the discovered topics of a group are used before they are discovered again.
const MAX_DISCOVERY_AGE: Duration = Duration::from_secs(30);

/// Timeout for a group that was denied, to see whether it still is.
const REFUSED_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct GroupClients(Mutex<HashMap<GroupId, GroupClient>>);

struct GroupClient {
    client: Arc<OffsetConsumer>,
    used: Instant,
    /// Topics with commits, and when they were discovered.
    discovered: Option<(Instant, BTreeSet<TopicName>)>,
    /// The fault with which a broker denied access to the group.
    refused: Option<Fault>,
    /// Time since which the client gets no answer.
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
            // Only `poll` reports that the group is denied: the call for committed offsets just
            // waits for a coordinator until it times out. Reported once per cause.
            if let Some(Err(error)) = client.poll(Duration::ZERO)
                && let refused @ Fault::GroupDenied = fault_of(code_of(&error))
            {
                self.set_refusal(&id, Some(refused));
            }
        }
    }

    /// Records or clears the denial of a group.
    fn set_refusal(&self, group: &GroupId, refused: Option<Fault>) {
        if let Some(group) = self.all().get_mut(group) {
            group.refused = refused;
        }
    }

    fn refusal(&self, group: &GroupId) -> Option<Fault> {
        self.all().get(group)?.refused
    }

    /// Reads every group of the plan by the deadline, each on a separate thread.
    pub(super) fn read_all(
        &self,
        plan: SweepPlan,
        known: &TopicLeaders,
        settings: &ClientSettings,
        health: &Arc<ConnectionHealth>,
        deadline: Instant,
    ) -> Vec<GroupObservation> {
        self.evict_clients();
        let mut allowance = PartitionAllowance::new(plan.max_partitions);
        let (mut planned, mut over_budget) = (Vec::new(), Vec::new());
        for plan in plan.groups {
            match allowance.take(&plan, self.known_partitions(&plan, known)) {
                Ok(()) => planned.push(plan),
                Err(refused) => over_budget.push(GroupObservation::over_budget(plan, refused)),
            }
        }
        let clients: Vec<_> = planned
            .iter()
            .map(|group| self.client(&group.group, settings, health))
            .collect();
        let mut read: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = planned
                .into_iter()
                .zip(clients)
                .map(|(plan, client)| {
                    scope.spawn(move || {
                        let committed = client
                            .and_then(|client| self.read_group(&plan, &client, known, deadline));
                        GroupObservation {
                            plan,
                            committed,
                            // Describing groups is not possible here: librdkafka's call may crash, and its older call,
                            // which lists members, requests every group from every broker.
                            description: Err(Fault::Unsupported),
                            reported_lags: None,
                            refused_partitions: None,
                        }
                    })
                })
                .collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            joined
                .map(|read| read.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        read.append(&mut over_budget);
        read
    }

    /// Number of partitions that will be read of a group, without those of topics that are yet to be discovered.
    fn known_partitions(&self, plan: &GroupPlan, known: &TopicLeaders) -> usize {
        let discovered = plan
            .discover
            .then(|| self.discovered(&plan.group))
            .flatten();
        let mut topics = discovered.unwrap_or_default();
        topics.extend(plan.topics.iter().cloned());
        let leaders = topics.iter().map(|topic| known.leaders(topic.as_str()));
        let counts = leaders.map(|leaders| leaders.map_or(0, Vec::len));
        counts.fold(0, usize::saturating_add)
    }

    fn client(
        &self,
        group: &GroupId,
        settings: &ClientSettings,
        health: &Arc<ConnectionHealth>,
    ) -> Result<Arc<OffsetConsumer>, Fault> {
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

    /// Closes clients that are unused or stuck.
    fn evict_clients(&self) {
        let is_over = |_: &GroupId, group: &mut GroupClient| {
            let is_stuck = group
                .silent
                .is_some_and(|since| since.elapsed() > STUCK_AFTER);
            group.used.elapsed() > MAX_UNUSED_AGE || is_stuck
        };
        let idle: Vec<_> = self.all().extract_if(is_over).collect();
        if !idle.is_empty() {
            // Closing a client may wait for brokers, which must not delay the sweep.
            thread::spawn(move || drop(idle));
        }
    }

    fn read_group(
        &self,
        plan: &GroupPlan,
        client: &OffsetConsumer,
        known: &TopicLeaders,
        deadline: Instant,
    ) -> Result<TopicMap<CommittedOffsets>, Fault> {
        let discovered = if plan.discover {
            self.discovered(&plan.group)
        } else {
            Some(BTreeSet::new())
        };
        let is_discovery = discovered.is_none();
        let mut topics: BTreeSet<TopicName> =
            discovered.unwrap_or_else(|| known.names().cloned().collect());
        topics.extend(plan.topics.iter().cloned());
        let mut columns = TopicMap::with_capacity(topics.len());
        let mut list = TopicPartitionList::new();
        for topic in topics {
            let partitions = known.leaders(topic.as_str()).map_or(0, Vec::len);
            for partition in (0..).take(partitions) {
                list.add_partition(topic.as_str(), partition);
            }
            let unanswered = CommittedOffsets::filled(partitions, Err(Fault::NoAnswer));
            columns.insert(topic, unanswered);
        }
        if list.count() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.fetch_committed(&plan.group, client, list, left)?;
            for entry in ffi::entries(&answer) {
                if let Some(column) = columns.get_mut(entry.topic)
                    && let Ok(partition) = usize::try_from(entry.partition)
                {
                    column.set(partition, committed_offset(entry));
                }
            }
        }
        if is_discovery {
            let has_commits =
                |column: &CommittedOffsets| column.iter().any(|c| !matches!(c, Ok(None)));
            columns.retain(|topic, column| plan.topics.contains(topic) || has_commits(column));
        }
        if is_discovery && let Some(group) = self.all().get_mut(&plan.group) {
            group.discovered = Some((Instant::now(), columns.keys().cloned().collect()));
        }
        Ok(columns)
    }

    fn fetch_committed(
        &self,
        group: &GroupId,
        client: &OffsetConsumer,
        list: TopicPartitionList,
        left: Duration,
    ) -> Result<TopicPartitionList, Fault> {
        // The client keeps looking for the coordinator by itself, and finds it once access is
        // granted.
        let left = match self.refusal(group) {
            Some(_) => left.min(REFUSED_TIMEOUT),
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
                self.set_refusal(group, None);
                Ok(answer)
            }
            Err(error) => Err(match fault_of(code_of(&error)) {
                Fault::NoAnswer => self.refusal(group).unwrap_or(Fault::NoAnswer),
                fault => fault,
            }),
        }
    }

    fn discovered(&self, group: &GroupId) -> Option<BTreeSet<TopicName>> {
        match &self.all().get(group)?.discovered {
            Some((when, topics)) if when.elapsed() < MAX_DISCOVERY_AGE => Some(topics.clone()),
            _ => None,
        }
    }
}

fn committed_offset(entry: ffi::ListEntry<'_>) -> Result<Option<Offset>, Fault> {
    match entry {
        ffi::ListEntry {
            code: 0, offset, ..
        } if offset >= 0 => Ok(Some(Offset(offset))),
        // librdkafka reports the protocol's -1, "no commit", as -1001.
        ffi::ListEntry { code: 0, .. } => Ok(None),
        ffi::ListEntry { code, .. } => Err(fault_of(code)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::kafka::ClientKind;

    #[test]
    fn groups_over_the_allowance_are_refused_before_they_are_read() {
        // No group gets a client, so that nothing is read.
        let settings = ClientSettings {
            name: "main".into(),
            properties: BTreeMap::new(),
            max_groups: 0,
            token: None,
            renew: None,
            allowed_hosts: Vec::new(),
            client: ClientKind::Librdkafka,
        };
        let known = TopicLeaders::fixed(&[("small", 4), ("large", 7)]);
        let plan = |group: &str, topics: &[&str], is_unlimited| GroupPlan {
            is_unlimited,
            ..GroupPlan::new(
                group,
                topics.iter().map(|topic| TopicName::from(*topic)).collect(),
            )
        };
        let plan = SweepPlan {
            groups: vec![
                plan("a", &["small", "missing"], false),
                plan("b", &["large"], false),
                plan("c", &["small", "large"], true),
                plan("d", &["small"], false),
                plan("e", &["small"], false),
                plan("discovers", &[], false),
                GroupPlan {
                    max_partitions: Some(3),
                    ..plan("f", &["small"], false)
                },
            ],
            max_partitions: Some(8),
            ..SweepPlan::default()
        };
        let clients = GroupClients::default();
        let found = clients.read_all(plan, &known, &settings, &Arc::default(), Instant::now());
        let outcome = |group: &GroupObservation| {
            let fault = group.committed.as_ref().err().copied();
            (
                group.plan.group.to_string(),
                fault,
                group.refused_partitions,
            )
        };
        let read = |group: &str| (group.to_owned(), Some(Fault::TooManyGroups), None);
        let refused = |group: &str, n| (group.to_owned(), Some(Fault::OverBudget), Some(n));
        let expected = [
            read("a"),
            read("c"),
            read("d"),
            read("discovers"),
            refused("b", 7),
            refused("e", 4),
            refused("f", 4),
        ];
        assert_eq!(Vec::from_iter(found.iter().map(outcome)), expected);
    }
}
